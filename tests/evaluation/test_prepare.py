from dataclasses import replace

import pytest
import torch

import samtune
from samtune.data import SegmentationDataset
from samtune.evaluation import Evaluation


@pytest.fixture
def data(pairs):
    return samtune.open_data(pairs)


@pytest.fixture
def model(sam):
    return samtune.FineTuned(sam, "lora", "tuned", adapter_options={"rank": 2})


QUICK = samtune.FitConfig(max_steps=1, batch_size=2, strength="none", average="none", keep="none")


def test_a_data_set_trains_and_is_measured_as_it_is(data, model, tmp_path):
    result = samtune.fit(model, data, QUICK, device="cpu")
    assert result.steps == 1
    assert result.best is not None  # it was validated on data.val
    both = samtune.evaluate(model, data.test, prompts="box,point")
    assert list(both.by_prompt) == ["box", "point"]
    assert both.metrics == both.by_prompt["box"].metrics
    assert "point" in repr(both)
    alone = samtune.evaluate(model, data.test)
    assert alone.by_prompt == {}
    assert alone.metrics == both.metrics
    path = samtune.save(model, tmp_path / "m.safetensors")
    again = samtune.load(path, base=model.sam)
    assert samtune.evaluate(again, data.test, prompts=["point"]).metrics == (
        both.by_prompt["point"].metrics
    )


def test_what_is_prepared_takes_its_frame_bands_and_prompts_from_the_model(data, sam):
    policy = samtune.InputPolicy((32, 48), "stretch", bands=(2, 1, 0), intensity="zscore")
    model = samtune.FineTuned(sam, "lora", "tuned", input=policy, prompts="point+mask")
    train = samtune.prepare(data.train, model, train=True)
    assert (train.input, train.mask_size) == (policy, model.mask_size)
    assert train.modes.names == ("point", "mask")
    assert train.data.bands == (2, 1, 0) and train.data.intensity == "zscore"
    assert train[0].pixels.shape == (3, 32, 48)
    val = samtune.prepare(data.val, model, prompts="box")
    assert repr(val).startswith("SegmentationDataset(") and "evaluation with box" in repr(val)
    assert val.modes.names == ("box",)
    assert val[0].original.shape[1:] == (48, 64)
    jittered = samtune.PromptConfig(box_jitter=0.5)
    assert (
        samtune.prepare(data.train, model, train=True, prompts=jittered).prompts.box_jitter == 0.5
    )


def test_a_model_reads_images_as_its_input_says(data, sam, refused):
    windowed = replace(data.train, config=replace(data.config, intensity="fixed", range=(0, 99)))
    stated = {"size": 32, "intensity": "fixed", "limits": (0, 99)}
    model = samtune.FineTuned(sam, "lora", "tuned", input=stated)
    assert model.input == samtune.InputPolicy((32, 32), intensity="fixed", limits=(0, 99))
    train = samtune.prepare(windowed, model, train=True)
    assert train.data.range == (0, 99)
    assert samtune.prepare(data.train, model).data.range == (0, 99)  # it is silent
    said = ["input['band']: no such setting", "did you mean 'bands'"]
    refused(said, samtune.FineTuned, sam, input={"band": 1})


def test_splits_and_prepared_images_train_alike(data, sam):
    weights = []
    for images in (data.train, None):
        torch.manual_seed(0)
        model = samtune.FineTuned(sam, "lora", "tuned", adapter_options={"rank": 2})
        train = samtune.prepare(data.train, model, train=True) if images is None else images
        samtune.fit(model, train, None, QUICK, device="cpu")
        weights.append(model.state_dict())
    for key, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][key]), key


def test_images_of_another_model_are_refused_before_anything_runs(data, model, sam, refused):
    small = samtune.FineTuned(sam, input=samtune.InputPolicy((32, 32)))
    other = samtune.prepare(data.val, small)
    refused(
        ["size=[32, 32], where the model has [64, 64]", "samtune.prepare(split, model)"],
        samtune.evaluate, model, other,
    )  # fmt: skip
    refused("size=[32, 32]", samtune.fit, model, data.train, other, QUICK)
    by_hand = SegmentationDataset(data.val.records, data.config, (64, 64), mask_size=(256, 256))
    refused("mask_size=[256, 256]", samtune.evaluate, model, by_hand)
    stretched = SegmentationDataset(data.val.records, data.config, (64, 64), resize="stretch")
    refused("resize=stretch, where the model has longest", samtune.evaluate, model, stretched)
    windowed = replace(data.config, intensity="fixed", range=(0, 9))
    refused(
        ["intensity=fixed", "FineTuned(..., input={'intensity': 'fixed'}"],
        samtune.prepare, replace(data.train, config=windowed), model,
    )  # fmt: skip
    points = samtune.FineTuned(sam, "lora", "tuned", prompts="point")
    trained = samtune.prepare(data.train, points, train=True)
    refused(["prompts=point", "made for box"], samtune.fit, model, trained, None, QUICK)
    refused("prompts=point", samtune.prepare, data.train, model, train=True, prompts="point")
    assert model.encodings == 0


def test_training_and_validation_images_are_not_taken_for_each_other(data, model, refused):
    train, val = (samtune.prepare(data.train, model, train) for train in (True, False))
    refused(["train=True", "change at random"], samtune.fit, model, train, train, QUICK)
    refused(["train=False", "not be augmented"], samtune.fit, model, val, None, QUICK)
    refused("train=True", samtune.evaluate, model, train)
    refused("give data.test", samtune.evaluate, model, data)
    refused(["data[0]: is int", "(image, mask)"], samtune.fit, model, [1, 2], None, QUICK)
    refused("int: is no images", samtune.fit, model, 1, None, QUICK)


def test_a_broken_file_is_found_before_the_first_step(data, model, pairs, refused):
    (pairs / "masks" / f"{data.train.names[-1]}.png").write_bytes(b"no picture")
    refused("cannot be read as mask", samtune.fit, model, data, QUICK)
    assert model.encodings == 0


def test_an_evaluation_shows_all_that_was_measured():
    means = {"iou": 0.5, "dice": 0.6, "iou_pooled": 0.1, "dice_pooled": 0.2, "objects": 3}
    assert repr(Evaluation(means, 1)).splitlines()[::2] == [
        "Evaluation of 1 image", "mean over objects   0.500   0.600",
    ]  # fmt: skip
    far = Evaluation({**means, "hd95": 183.81}, 2)
    shown = repr(Evaluation(far.metrics, 2, by_prompt={"box": far, "point": far})).splitlines()
    assert shown[1].split() == ["IoU", "Dice", "hd95"]
    assert shown[3].split() == ["point", "0.500", "0.600", "183.810"]
