"""What the published code does with images, repeated only where an import asks for it."""

import numpy as np
import torch
from layouts import layout, written

from samtune.data.transforms import fit
from samtune.foreign import import_checkpoint


def brought(tmp_path, tiny_weights, name, **options):
    file = written(layout(name).released, tmp_path / "foreign.pth", None)
    out = tmp_path / "x.safetensors"
    return import_checkpoint(file, name, out, model="tiny", base=tiny_weights, **options).model


def test_cat_sam_leaves_images_of_the_native_size_as_they_are(tmp_path, tiny_weights, refused):
    rng = np.random.default_rng(0)
    native = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    other = rng.integers(0, 256, (60, 64, 3), dtype=np.uint8)
    model = brought(tmp_path, tiny_weights, "cat_sam_t", native_raw=True)
    pixels, geometry = fit(native, model.input)
    fed = torch.tensor(native).permute(2, 0, 1).float()
    torch.testing.assert_close(model.preprocess(pixels[None])[0], fed, rtol=0, atol=1e-4)
    placed = torch.tensor([[3.4, 5.6]])
    assert torch.equal(geometry.to_model(placed), placed)
    plain = brought(tmp_path, tiny_weights, "cat_sam_t")
    assert not plain.input.native_raw and fit(native, plain.input)[1].rounded
    # images of other sizes are treated alike
    assert torch.equal(fit(other, model.input)[0], fit(other, plain.input)[0])
    assert fit(other, model.input)[1].rounded
    x = fit(other, model.input)[0][None]
    assert torch.equal(model.preprocess(x), plain.preprocess(x))
    refused("only cat_sam_t", brought, tmp_path, tiny_weights, "ts_sam", native_raw=True)


def test_gsam_of_cityscapes_gets_bgr(tmp_path, tiny_weights, refused):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    model = brought(tmp_path, tiny_weights, "gsam:lora", channels="bgr")
    assert model.input.stated()["channels"] == "bgr"
    plain = brought(tmp_path, tiny_weights, "gsam:lora")
    turned = image[..., ::-1].copy()
    assert torch.equal(fit(image, model.input)[0], fit(turned, plain.input)[0])
    assert (model.input.mean, model.input.std) == (plain.input.mean, plain.input.std)
    refused("only gsam:", brought, tmp_path, tiny_weights, "cat_sam_t", channels="bgr")
    refused("must be rgb or bgr", brought, tmp_path, tiny_weights, "gsam:lora", channels="grb")
