import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from changes import drawn, labelled
from pictures import picture
from scipy.ndimage import zoom

from samtune.data import fit_geometry, fit_mask
from samtune.data.transforms import fit
from samtune.geometry import InputPolicy

ODD = [((48, 64), (24, 50)), ((24, 50), (48, 64)), ((7, 31), (48, 64)), ((101, 1), (48, 64)),
       ((48, 64), (1, 93)), ((1, 1), (5, 3)), ((9, 9), (9, 4)), ((512, 3), (224, 2))]  # fmt: skip


@pytest.mark.parametrize(("source", "target"), ODD)
def test_spline_takes_the_pixels_of_scipys_zoom(source, target):
    """Both ways: of labels into the frame, and of logits back, which is to zoom their argmax."""
    rng = np.random.default_rng(0)
    factors = np.divide(target, source)
    labels = rng.integers(1, 200, source, dtype=np.uint8)
    into = fit_geometry(source, target, "spline")
    fitted = fit_mask(labels, into)
    np.testing.assert_array_equal(fitted, zoom(labels, factors, order=0))
    np.testing.assert_array_equal(fit_mask(labels > 0, into), fitted > 0)
    logits = torch.tensor(rng.normal(size=(1, 7, *source))).float()
    back = fit_geometry(target, source, "spline").masks_to_original(logits)
    expected = zoom(logits.argmax(1)[0].numpy(), factors, order=0)
    np.testing.assert_array_equal(back.argmax(1)[0].numpy(), expected)
    one = fit_geometry(target, source, "spline").masks_to_original(logits[:, :1])
    inside = zoom((logits[0, 0] > 0).numpy().astype(np.uint8), factors, order=0)
    np.testing.assert_array_equal(one[0, 0].numpy() > 0, inside > 0)


@pytest.mark.parametrize("size", [(48, 64), (24, 50), (31, 1)])
def test_spline_is_scipys_zoom_of_floats(size):
    image = picture(*size)
    image[::2, ::3] = 255  # what a cubic spline overshoots, and a byte would cut off
    pixels, geometry = fit(image, InputPolicy((48, 64), "spline"))
    assert (geometry.original, geometry.resized, geometry.model) == (size, (48, 64), (48, 64))
    assert pixels.dtype == torch.float32
    expected = [
        zoom(c / 255, (48 / size[0], 64 / size[1]), order=3) for c in image.transpose(2, 0, 1)
    ]
    np.testing.assert_allclose(pixels.numpy() / 255, expected, rtol=0, atol=1e-6)
    assert size == (48, 64) or pixels.max() > 255
    # a rotation in the frame is one of bytes, which must not wrap around
    turned, _ = drawn(image, labelled(np.zeros(size, np.uint8)), resize="spline", rotate=1e-9)
    np.testing.assert_allclose(
        turned,
        fit(image, InputPolicy((32, 48), "spline"))[0].permute(1, 2, 0).clamp(0, 255),
        atol=0.51,
    )


def test_spline_leaves_no_other_choice(refused, monkeypatch):
    for name, value in (
        ("tiles", "tiled"),
        ("tiles", "crop"),
        ("first_size", (20, 28)),
        ("antialias", False),
        ("direct_masks", True),
    ):
        refused([f"{name}=", "leave one"], InputPolicy, (8, 8), "spline", **{name: value})
        refused("leave one", replace, InputPolicy((8, 8), "spline"), **{name: value})
    monkeypatch.setitem(sys.modules, "scipy", None)
    policy = InputPolicy((8, 8), "spline")
    assert fit(picture(8, 8), policy)[0].shape == (3, 8, 8)  # nothing to resize
    refused("pip install 'samtune[metrics]'", fit, picture(8, 9), policy)
