"""What the published code does with images, repeated only where an import asks for it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign_layouts import layout, written
from predicting import one_mask
from scipy.ndimage import zoom

from samtune.data.transforms import fit
from samtune.foreign import import_checkpoint
from samtune.prompts import Prompts
from samtune.published.spline import NOWHERE


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
    assert not plain.input.native_raw
    assert fit(native, plain.input)[1].to_model(placed).tolist() == [[3, 6]]
    # images of other sizes are treated alike
    assert torch.equal(fit(other, model.input)[0], fit(other, plain.input)[0])
    assert fit(other, model.input)[1].to_model(placed).tolist() == [[3, 6]]
    x = fit(other, model.input)[0][None]
    assert torch.equal(model.preprocess(x), plain.preprocess(x))
    refused("only cat_sam_t", brought, tmp_path, tiny_weights, "ts_sam", native_raw=True)


def samed_of_a_slice(model, grey, frame):
    """SAMed's evaluation of a slice: its classes, and the logits in the frame they are read of."""
    x, y = grey.shape
    floats = grey.astype(np.float32) / 255
    if (x, y) != frame:
        floats = zoom(floats, (frame[0] / x, frame[1] / y), order=3)
    pixels = torch.from_numpy(floats)[None, None].repeat(1, 3, 1, 1)
    low = model.decoder(model.sam, model.encode(pixels), Prompts.of(count=1)).logits
    logits = F.interpolate(low, frame, mode="bilinear", align_corners=False)
    classes = logits.softmax(1).argmax(1)[0].numpy()
    if (x, y) != frame:
        classes = zoom(classes, (x / frame[0], y / frame[1]), order=0)
    return classes, logits


# 48 to 24 and 64 to 50 are among the sizes whose last row or column SciPy leaves empty.
@pytest.mark.parametrize("size", [(31, 77), (101, 19), (24, 50), (48, 64), (48, 33), (1, 40)])
@torch.no_grad()
def test_samed_zooms_slices_of_another_size(tmp_path, tiny_weights, size):
    frame, rng = (48, 64), np.random.default_rng(size)
    model = brought(tmp_path, tiny_weights, "samed", size=frame)
    grey = rng.integers(0, 256, size, dtype=np.uint8)
    image = np.repeat(grey[..., None], 3, 2)
    # One class would win everywhere: moved so that each has its share.
    _, found = samed_of_a_slice(model, grey, frame)
    model.decoder.register_forward_hook(
        lambda _m, _x, answer: replace(
            answer, logits=answer.logits - found.mean((0, 2, 3))[:, None, None]
        )
    )
    classes, framed = samed_of_a_slice(model, grey, frame)
    assert len(np.unique(classes)) > 2 or min(size) == 1
    predictor = model.predictor()
    predictor.set_image(image)
    masks, _, low = one_mask(predictor)
    assert np.array_equal(masks, classes == np.arange(5)[:, None, None])
    ours = F.interpolate(torch.from_numpy(low)[None], frame, mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours, framed, rtol=0, atol=1e-4)
    logits = one_mask(predictor, return_logits=True)[0]
    for of_image, of_frame in zip(logits, framed[0].numpy(), strict=True):
        # zoomed beside where it is empty, for a logit is never exactly 0
        there = of_frame if size == frame else zoom(of_frame, np.divide(size, frame), order=0)
        np.testing.assert_allclose(of_image[there != 0], there[there != 0], rtol=0, atol=1e-4)
        assert (of_image[there == 0] == NOWHERE).all()


def test_gsam_of_cityscapes_gets_bgr(tmp_path, tiny_weights, refused):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    model = brought(tmp_path, tiny_weights, "gsam:lora", channels="bgr")
    assert model.input.differing()["channels"] == "bgr"
    plain = brought(tmp_path, tiny_weights, "gsam:lora")
    turned = image[..., ::-1].copy()
    assert torch.equal(fit(image, model.input)[0], fit(turned, plain.input)[0])
    assert (model.input.mean, model.input.std) == (plain.input.mean, plain.input.std)
    refused("only gsam:", brought, tmp_path, tiny_weights, "cat_sam_t", channels="bgr")
    refused("must be rgb or bgr", brought, tmp_path, tiny_weights, "gsam:lora", channels="grb")
