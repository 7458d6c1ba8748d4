import json

import cv2
import numpy as np
import pytest
from commands import settings
from PIL import Image

from samtune.data import splits
from samtune.runs import evidence
from samtune.runs.assembly import dataset_of, models
from samtune.runs.diagnosis import Evidence, diagnose
from samtune.runs.evidence import answer_pairs
from samtune.runs.words import from_words

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


def test_a_healthy_run_says_nothing(trained):
    assert trained.summary["diagnoses"] == []
    assert "Likely causes" not in (trained.folder / "report.html").read_text("utf-8")


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


def test_answers_that_are_alike_whatever_the_prompt(pairs, tiny_weights, monkeypatch):
    for path in (pairs / "masks").iterdir():  # a second object in a corner
        with Image.open(path) as opened:
            mask = np.asarray(opened) // 255
        mask[2:8, 2:8] = 2
        Image.fromarray(mask).save(path)
    config = from_words([*settings(pairs, tiny_weights), "data.masks=instance", "device=cpu"])
    model, _ = models(config)
    records = [record for part in splits(config.data).values() for record in part]
    dataset = dataset_of(config, model, records, False)
    found = answer_pairs(model, dataset, config)
    assert len(found) == 8 and all(objects == 0 for _, objects in found)

    def same(model, batch, *how):
        return [masks.any(0, keepdim=True).expand_as(masks) for masks in batch.originals]

    monkeypatch.setattr(evidence, "predict", same)
    (sentence,) = diagnose(Evidence(pairs=answer_pairs(model, dataset, config)))
    assert sentence.startswith("the prompt is ignored") and "IoU 1.00" in sentence
