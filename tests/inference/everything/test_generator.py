import numpy as np
import plain_everything
import pytest
import torch
from tiny import base

import samtune
from samtune.errors import InputError
from samtune.inference.everything.config import EverythingConfig
from samtune.inference.everything.generator import MaskGenerator
from samtune.inference.everything.grid import crop_boxes, grids_of_layers
from samtune.inference.predictor import PromptMismatch
from samtune.model.finetuned import FineTuned

# the tiny base takes nothing for good or stable
LOOSE = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 5}


@pytest.fixture(scope="module")
def plain():
    return FineTuned(base())


@pytest.fixture
def image():
    rng = np.random.default_rng(3)
    return rng.integers(0, 255, (70, 90, 3)).astype(np.uint8)


def assert_same_masks(mine, theirs):
    assert len(mine) == len(theirs) > 0
    for i, other in enumerate(theirs):
        mask = mine.mask(i)
        assert (mask & other.mask).sum() / (mask | other.mask).sum() >= 0.99
        assert mine.scores[i] == pytest.approx(other.score, abs=1e-4)
        assert mine.stability[i] == pytest.approx(other.stability, abs=0.02)
        assert mine.points[i] == pytest.approx(other.point, abs=1e-3)


def thresholds(model, image, keep=0.5):
    """Thresholds that this share of the tiny base's masks passes."""
    everything = MaskGenerator(model, **LOOSE, box_nms_thresh=1.0).generate(image)
    score, stability = (
        float(np.quantile(v, 1 - keep)) for v in (everything.scores, everything.stability)
    )
    return {"pred_iou_thresh": max(score, 0.0), "stability_score_thresh": stability}


@pytest.mark.parametrize(
    "more",
    [{}, {"crop_n_layers": 1}, {"multimask_output": False, "box_nms_thresh": 0.3}],
    ids=["whole", "crops", "one mask"],
)
def test_masks_are_those_of_the_plain_formulation(plain, image, more):
    settings = EverythingConfig(**{**LOOSE, **thresholds(plain, image), **more})
    names = ("points_per_side", "pred_iou_thresh", "stability_score_thresh", "box_nms_thresh")
    names += ("crop_n_layers", "multimask_output")
    generator = MaskGenerator(plain, **{name: getattr(settings, name) for name in names})
    layers = settings.crop_n_layers
    theirs = plain_everything.everything(
        plain.predictor(),
        image,
        crop_boxes((70, 90), layers, settings.crop_overlap_ratio),
        grids_of_layers(settings.points_per_side, layers, 1),
        settings,
        generator.multimask,
    )
    assert_same_masks(generator.generate(image), theirs)


def test_any_prompt_decoder_and_any_way_of_resizing_answer(image):
    sam = base()
    for adapter, decoder, policy in (
        ("lora", "tuned", {}),
        ("none", "hq", {"resize": "stretch"}),
        ("vpt", "prompt_free", {"direct_masks": True}),
    ):
        model = FineTuned(sam, adapter, decoder, input=policy, prompts="point").eval()
        generator = MaskGenerator(model, **LOOSE, box_nms_thresh=0.8)
        assert not generator.multimask  # trained for one mask
        grids = grids_of_layers(5, 0, 1)
        theirs = plain_everything.everything(
            model.predictor(), image, crop_boxes((70, 90), 0, 0.3), grids, generator.config, False
        )
        assert_same_masks(generator.generate(image), theirs)


def test_an_image_is_encoded_once_and_batches_change_nothing(plain, image):
    before = plain.encodings
    one = MaskGenerator(plain, **LOOSE, points_per_batch=1)(image)
    assert plain.encodings == before + 1
    many = MaskGenerator(plain, **LOOSE, points_per_batch=1000)(image)
    assert one.counts == many.counts and np.allclose(one.scores, many.scores, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (9, 7)])
def test_small_images_are_right(plain, size):
    image = np.full((*size, 3), 90, np.uint8)
    instances = MaskGenerator(plain, **LOOSE, crop_n_layers=1)(image)
    assert instances.size == size
    assert (instances.areas <= size[0] * size[1]).all() and (instances.areas > 0).all()
    assert len(instances.records()) == len(instances)
    assert instances.label_map().max() <= len(instances)


def test_no_object_is_no_error(plain, image):
    instances = MaskGenerator(plain, pred_iou_thresh=1.0, points_per_side=2)(image)
    assert len(instances) == 0 and instances.label_map().shape == (70, 90)
    assert MaskGenerator(plain, pred_iou_thresh=1.0, points_per_side=2).records(image) == []


def test_a_model_that_cuts_images_is_asked_tile_by_tile(image):
    sam = base()
    cut = FineTuned(sam, input={"tiles": "tiled", "overlap": 0.25})
    done = []
    instances = MaskGenerator(cut, **LOOSE).generate(image, progress=lambda *n: done.append(n))
    assert done[-1] == (len(done), len(done)) and len(done) > 1
    assert instances.size == (70, 90) and len(instances)
    assert (np.diff(instances.scores) <= 0).all()
    with pytest.raises(InputError, match="crop_n_layers=1: the model cuts images into tiles"):
        MaskGenerator(cut, crop_n_layers=1)


def test_wrong_settings_and_models_are_one_line(plain, image):
    with pytest.raises(InputError, match="pred_iou_thresh=2"):
        samtune.MaskGenerator(plain, pred_iou_thresh=2)
    with pytest.raises(InputError, match="did you mean 'points_per_side'"):
        MaskGenerator(plain, point_per_side=3)
    with pytest.raises(InputError, match="output_mode=png"):
        MaskGenerator(plain, output_mode="png")
    with pytest.raises(InputError, match="point_grids of 1: must be 2"):
        MaskGenerator(plain, point_grids=[[[0.5, 0.5]]], crop_n_layers=1)
    with pytest.raises(InputError, match=r"point_grids: go from 0\.5 to 9"):
        MaskGenerator(plain, point_grids=[[[0.5, 9]]])
    with pytest.raises(InputError, match=r"decoder=fusion: takes no prompts"):
        MaskGenerator(FineTuned(base(), "ts_sam", "fusion"))
    with pytest.warns(PromptMismatch, match="trained with prompt box, but asked with points"):
        MaskGenerator(FineTuned(base(), "lora", "tuned"))
    one = MaskGenerator(plain, point_grids=[[[0.25, 0.5]]], pred_iou_thresh=0.0)
    found = one(image)
    assert {tuple(point) for point in found.points.tolist()} <= {(22.5, 35.0)}


def test_small_regions_go(plain, image):
    torch.manual_seed(0)
    raw = MaskGenerator(plain, **LOOSE)(image)
    clean = MaskGenerator(plain, **LOOSE, min_mask_region_area=40)(image)
    assert 0 < len(clean) <= len(raw)
    import cv2

    for mask in clean.masks():
        for side in (mask, ~mask):
            count, _, stats, _ = cv2.connectedComponentsWithStats(
                side.astype(np.uint8), None, None, None, 8
            )
            areas = stats[1:, cv2.CC_STAT_AREA]
            assert count <= 2 or (areas >= 40).all() or len(areas) == 1
