"""Prompts that are not trained for: which are kept, and how they are rehearsed."""

import numpy as np
import pytest
import torch
from PIL import Image

from samtune.data import DataConfig, PromptConfig, SegmentationDataset, collate, splits
from samtune.model.finetuned import FineTuned
from samtune.training import keeping
from samtune.training.engine import fit
from samtune.training.keeping import Keeping
from samtune.training.schedule import FitConfig


@pytest.fixture
def data(pairs):
    def make(train, prompts="box", **settings):
        config = DataConfig(root=str(pairs), augment="flips", **settings)
        records = splits(config)["train" if train else "val"]
        prompts = PromptConfig(train=prompts)
        return SegmentationDataset(
            records, config, (64, 64), prompts=prompts, mask_size=(32, 32), train=train
        )

    return make


def weights(sam, train, val, **settings):
    torch.manual_seed(1)
    model, rows = FineTuned(sam, "lora", "tuned"), []
    config = FitConfig(max_steps=2, batch_size=2, strength="none", average="none", **settings)
    result = fit(model, train, val, config, on_event=rows.append)
    return model.state_dict(), rows, result


def test_prompts_that_the_base_answers_well_are_kept(sam, data):
    model = FineTuned(sam, "lora", "tuned")
    auto = Keeping.of(FitConfig(), model, data(True, ["none", "point"]))
    assert auto.looked_at() == ("box", "none", "point")
    assert (
        auto.modes_to_keep({"iou@box": 0.8}) == ("box",)
        and auto.modes_to_keep({"iou@box": 0.4}) == ()
    )
    assert auto.watched(("box",)) == ("box", "none", "point")
    named = Keeping.of(FitConfig(keep=["box", "mask"]), model, data(True, "box"))
    assert named.modes_to_keep({}) == ("mask",) and named.watched(("mask",)) == ("mask", "box")
    off = Keeping.of(FitConfig(keep="none"), model, data(True))
    assert off.looked_at() == off.modes_to_keep({"iou@point": 1.0}) == off.watched(()) == ()
    clicks = Keeping.of(FitConfig(), model, data(True, "clicks"))
    assert clicks.looked_at() == ("box",)


def test_what_has_a_strength_of_its_own_is_rehearsed_only_if_somebody_names_it(sam, data):
    model, train = FineTuned(sam, "lora", "tuned"), data(True, "none")
    for settings, weight in (
        ({}, 0.0),
        ({"rehearsal": 0.5}, 0.5),
        ({"keep": ["box"]}, 1.0),
        ({"strength": "none"}, 1.0),
    ):
        keep = Keeping.of(FitConfig(**settings), model, train)
        assert keep.rehearsal == weight
        assert keep.rehearsed(["box"]) == (("box",) if weight else ())


def test_a_decoder_that_ignores_prompts_keeps_none(sam, data, refused):
    model = FineTuned(sam, "none", "semantic")
    assert Keeping.of(FitConfig(), model, data(True)).looked_at() == ()
    said = ["train.keep=box", "semantic", "train.keep=none"]
    refused(said, Keeping.of, FitConfig(keep=["box"]), model, data(True))
    refused("keep=clicks", FitConfig, keep=["clicks"])
    refused(["keep=bocks", "box"], FitConfig, keep="bocks")


def test_an_image_is_asked_in_kept_modes_as_well(data):
    plain = data(True, "none")
    more = plain.rehearsing(["box", "point"])
    for i in range(len(plain)):
        one, two = plain[i], more[i]
        assert torch.equal(one.pixels, two.pixels) and torch.equal(one.targets, two.targets)
        assert one.rehearsal is None and two.rehearsal.prompts.kinds() <= {"box", "point"}
        assert torch.equal(two.rehearsal.targets, one.targets), "one object an image"
    batch = collate([more[0], more[1]])
    assert batch.rehearsal.prompts.image.tolist() == [0, 1]
    asked = batch.asked_instead(batch.rehearsal)
    assert asked.rehearsal is None and asked.pixels is batch.pixels
    assert collate([plain[0]]).rehearsal is None and plain.rehearsing(()) is plain


def test_no_prompt_is_rehearsed_of_an_empty_image(data, pairs):
    squares = np.zeros((48, 64), np.uint8)
    for i in range(8):
        squares[2:6, 8 * i + 1 : 8 * i + 5] = i + 1
    Image.fromarray(squares).save(pairs / "masks" / "00.png")
    Image.fromarray(squares * 0).save(pairs / "masks" / "01.png")
    train = data(True, "none", masks="instance", objects="instance", crop=(64, 64))
    names = {train.records[i].name: i for i in range(len(train))}
    rehearsing = train.rehearsing(["box"])
    assert len(rehearsing[names["00"]].rehearsal.prompts) == 8
    empty = rehearsing[names["01"]]
    assert len(empty.rehearsal.prompts) == 0, "without a prompt the base is no model to follow"


def test_rehearsal_changes_what_is_learned_and_watching_does_not(sam, data, monkeypatch):
    monkeypatch.setattr(keeping, "WELL", 0.0)
    train, val = data(True), data(False)
    without, rows, _ = weights(sam, train, val, keep="none")
    assert not any("@" in key for row in rows for key in row)
    watched, rows, result = weights(sam, train, val, rehearsal=0.0)
    assert result.kept_modes == ("point",) and result.watched_modes == ("point", "box")
    assert all(torch.equal(t, watched[name]) for name, t in without.items())
    measured = [row for row in rows if row["event"] in ("zero_shot", "val")]
    assert all({"iou@point", "iou@box"} <= row.keys() for row in measured)
    assert all(row["iou@box"] == row["iou"] for row in measured)
    kept, _, result = weights(sam, train, val, keep="point")
    assert result.rehearsed_modes == ("point",)
    assert any(not torch.equal(t, kept[name]) for name, t in without.items())
