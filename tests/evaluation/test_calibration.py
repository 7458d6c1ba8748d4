import numpy as np
import pytest
import tiny

import samtune
from samtune.errors import InputError
from samtune.evaluation.calibration import calibrate
from samtune.inference.everything.config import HEADER, EverythingConfig
from samtune.inference.everything.generator import MaskGenerator
from samtune.model.checkpoint import load, save
from samtune.model.finetuned import FineTuned


@pytest.fixture(scope="module")
def model():
    return FineTuned(tiny.base())


@pytest.fixture(scope="module")
def images(model):
    """Two images, whose one object is the mask of the model that it rates highest."""
    every = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 4}
    samples = []
    for i in range(2):
        image = np.random.default_rng(i).integers(0, 255, (64, 64, 3)).astype(np.uint8)
        masks = MaskGenerator(model, **every)(image)
        samples.append({"image": image, "masks": masks.mask(0)[None]})
    return samtune.prepare(samples, model, train=False)


@pytest.mark.parametrize("metric", ["msa", "ap"])
def test_thresholds_are_the_best_of_those_that_are_tried(model, images, metric):
    seen = []
    result = calibrate(
        model, images, metric, grids=(2, 4), progress=lambda *numbers: seen.append(numbers)
    )
    assert seen == [(k, 4) for k in range(1, 5)]
    assert result.metric == metric and result.images == 2 and result.objects == 2
    assert 0 < result.value <= 1 and result.default <= result.value
    assert set(result.settings) == {"pred_iou_thresh", "stability_score_thresh", "points_per_side",
                                    "box_nms_thresh", "mask_nms_thresh"}  # fmt: skip
    for name, curve in result.curves.items():
        values = dict(curve)
        assert max(values.values()) <= result.value + 1e-9
        if name != "points_per_side":
            assert values[result.settings[name]] == pytest.approx(result.value)


def test_chosen_settings_are_not_fitted_and_wrong_wishes_are_one_line(model, images):
    result = calibrate(model, images, grids=(2,), box_nms_thresh=0.6)
    assert result.settings["box_nms_thresh"] == 0.6 and "box_nms_thresh" not in result.curves
    with pytest.raises(InputError, match=r"everything\.fit=iou: must be one of msa, ap"):
        calibrate(model, images, "iou")
    with pytest.raises(InputError, match="takes no prompts"):
        calibrate(FineTuned(tiny.base(), "ts_sam", "fusion"), images)


def test_what_was_fitted_is_stored_and_used_unless_somebody_says_otherwise(tmp_path):
    sam = tiny.base()
    model = FineTuned(sam, "lora", "tuned", prompts="point")
    fitted = {"pred_iou_thresh": 0.125, "points_per_side": 3}
    file = save(model, tmp_path / "m.safetensors", **{HEADER: {"settings": fitted}})
    again = load(file, sam)
    assert MaskGenerator(again).config == EverythingConfig(**fitted)
    assert MaskGenerator(again, pred_iou_thresh=0.5).config.pred_iou_thresh == 0.5
    assert MaskGenerator(again, pred_iou_thresh=0.5).config.points_per_side == 3
