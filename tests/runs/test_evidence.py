import json

import cv2
import numpy as np
import pytest
from commands import settings
from PIL import Image

SIDE = 224


def draw(root, split, number, blue=False):
    """A bright curve two pixels wide on red ground, or on blue."""
    rng = np.random.default_rng(number)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.polylines(mask, [rng.integers(0, SIDE, (5, 2)).astype(np.int32)], False, 255, 2)
    ground = np.array([20, 30, 120] if blue else [120, 30, 20])
    image = ground + rng.integers(0, 20, (SIDE, SIDE, 3)) + (mask > 0)[..., None] * 80
    for kind, pixels in (("images", image.astype(np.uint8)), ("masks", mask)):
        (root / split / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / split / kind / f"{number}.png")


@pytest.mark.slow
def test_a_training_that_goes_wrong_says_why(samtune, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        split = "train" if number < 4 else "val" if number < 6 else "test"
        draw(tmp_path / "thin", split, number, blue=split == "test")
    words = [*settings(tmp_path / "thin", tiny_weights, 24), "output=run", "input.tiles=whole"]
    words += ["train.lr=1", "train.log_every=2", "train.eval_every=24"]
    answer = samtune("train", *words, "prompts.train=none", "prompts.eval=none", "--json")
    assert answer.code == 0, answer.err
    sentences = answer.json["diagnoses"]
    (rate,) = (each for each in sentences if each.startswith("train.lr=1 is too high: "))
    assert rate.endswith("; try train.lr=0.1")
    (colour,) = (each for each in sentences if "red and blue were exchanged" in each)
    assert "in train and" in colour and "in test" in colour
    (narrow,) = (each for each in sentences if each.startswith("objects are only 0.1"))
    assert "try input.tiles=tiled input.scale=1 (0.4" in narrow
    page = (tmp_path / "run/report.html").read_text("utf-8")
    assert "Likely causes" in page and "cannot be fit" not in page
    for sentence in sentences:
        assert f"likely cause: {sentence}\n" in answer.err
    assert json.loads((tmp_path / "run/summary.json").read_text())["diagnoses"] == sentences


def test_a_run_that_stays_below_the_base_says_why(trained):
    (sentence,) = trained.summary["diagnoses"]
    assert "is too high: IoU on the validation images falls from " in sentence
    assert "Likely causes" in (trained.folder / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_a_mask_that_contradicts_its_image_is_shown(samtune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, columns = np.mgrid[:96, :96]
    for number in range(10):
        rng = np.random.default_rng(number)
        y, x, r = rng.integers(30, 66), rng.integers(30, 66), rng.integers(14, 24)
        disc = np.hypot(rows - y, columns - x) < r
        image = 60 + rng.integers(0, 25, (96, 96, 3)) + disc[..., None] * 130
        # of the fourth the mask is a frame around the disc, within the same box
        mask = disc if number != 3 else disc & ~(np.hypot(rows - y, columns - x) < r - 2)
        split = "train" if number < 8 else "val" if number < 9 else "test"
        for kind, pixels in (("images", image), ("masks", mask * 255)):
            (tmp_path / "discs" / split / kind).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "discs" / split / kind / f"{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    words = ["data.root=discs", "train.max_steps=1", "train.lr=1e-6", "output=run", "--json"]
    words += ["input.size=256", "train.strength=none", "train.average=none"]
    answer = samtune("train", *words)
    assert answer.code == 0, answer.err
    (sentence,) = answer.json["diagnoses"]
    assert sentence.startswith("labels disagree: of 8 training images 1 cannot be fit (IoU: 3 0.")
    page = (tmp_path / "run/report.html").read_text("utf-8")
    assert "Training images that cannot be fit" in page


def write_halves(root, train, others):
    """Images whose left half is bright, with masks: ``train`` and ``others``, ``(48, 64)``."""
    rng = np.random.default_rng(0)
    for split, images, mask in (("train", 4, train), ("val", 4, others), ("test", 1, others)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(images):
            image = rng.integers(0, 60, (48, 64, 3)) + 150 * LEFT[..., None]
            for kind, pixels in (("images", image), ("masks", mask)):
                file = root / split / kind / f"{split}{number}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(file)


LEFT = np.arange(64) < np.full((48, 1), 32)
ALL = np.arange(48)[:, None] > np.full(64, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "others", "words", "cause"),
    [
        (
            255 * ALL, 1 + LEFT * ALL, "prompts.train=box data.masks=instance train.lr=1e-2 "
            "train.max_steps=2", "the prompt is ignored: answers to different prompts of one image"
            " are alike (IoU ",
        ),
        (
            255 * LEFT, 255 * ~LEFT, "prompts.train=none train.lr=3e-3 train.max_steps=16 "
            "train.eval_every=8",
            "overfitted: IoU goes from ",
        ),
        (
            255 * ALL, 255 * ALL, "prompts.train=none train.lr=1e-4 train.min_lr=1 "
            "train.warmup=0 train.max_steps=4 train.eval_every=1",
            "too few steps: iou on the validation images ",
        ),
    ],
    ids=["labels of train are of all objects", "labels of train are others", "4 steps"],
)  # fmt: skip
def test_what_was_learned_amiss_is_named(
    samtune, tiny_weights, tmp_path, monkeypatch, train, others, words, cause
):
    monkeypatch.chdir(tmp_path)
    write_halves(tmp_path / "halves", train, others)
    words = ["data.root=halves", "base.name=tiny", f"base.weights={tiny_weights}", *words.split()]
    words += ["train.batch_size=2", "data.augment=none", "train.keep=none", "output=run"]
    answer = samtune("train", *words, "train.precision=fp32", "--json")
    assert answer.code == 0, answer.err
    (sentence,) = answer.json["diagnoses"]
    assert sentence.startswith(cause), sentence
