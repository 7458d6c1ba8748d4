from dataclasses import replace

import numpy as np
import pytest
from commands import settings
from PIL import Image

from samtune.data import SegmentationDataset, collate, splits
from samtune.evaluation.streaming import Evaluation
from samtune.geometry import Geometry
from samtune.metrics import GROUPS
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts
from samtune.report.prompt_table import prompt_rows
from samtune.report.terminal import Display
from samtune.runs.baseline import _by_class, compare_with_base, original_prompts
from samtune.runs.remarks import shortfalls
from samtune.runs.words import from_words


@pytest.fixture
def parts(pairs, tiny_weights, sam):
    """A configuration, the plain base, and test images by prompt mode."""
    config = from_words([*settings(pairs, tiny_weights), "data.test_fraction=0.5"])
    records = splits(config.data)["test"]
    test = {
        mode: SegmentationDataset(records, config.data, (64, 64), mask_size=(32, 32), mode=mode)
        for mode in ("box", "none")
    }
    return config, FineTuned(sam), test


def test_an_untuned_model_is_the_base_on_the_same_prompts(parts, sam):
    config, baseline, test = parts
    for model in (FineTuned(sam, "none", "frozen"), FineTuned(sam, "lora", "tuned")):
        summary, shown = compare_with_base(baseline, model, test, config, Display(json=True))
        assert summary["zero_shot"] == summary["tuned"]
        assert list(summary["by_prompt"]) == ["box", "none"]
        for values in summary["by_prompt"].values():
            assert values["zero_shot"] == values["tuned"]
        assert len(shown.overlays) == 4 and not shown.instances
        for overlay in shown.overlays:
            assert overlay.iou_before == overlay.iou_after
            assert (overlay.before == overlay.after).all() and overlay.boxes


def test_the_base_alone(parts):
    config, baseline, test = parts
    summary, shown = compare_with_base(baseline, None, test, config, Display(json=True))
    assert summary["tuned"] is None and "tuned" not in summary["by_prompt"]["box"]
    assert all(overlay.after is None and overlay.iou_after is None for overlay in shown.overlays)


def test_the_metrics_asked_for_and_their_contract(parts):
    config, baseline, test = parts
    config = replace(config, eval=EvalConfig(("iou", "shadow")))
    summary, _ = compare_with_base(baseline, baseline, test, config, Display(json=True))
    assert list(summary["metrics"]) == ["iou", *GROUPS["shadow"]]
    for name, values in summary["metrics"].items():
        assert values["zero_shot"] == values["tuned"] and f"\n{name}: " in summary["contract"]
    assert summary["metrics"]["iou"]["zero_shot"] == summary["zero_shot"]["iou"]
    assert "hd95" not in summary["contract"]
    for entry in summary["by_prompt"].values():
        assert list(entry["metrics"]) == list(summary["metrics"])
    assert summary["by_prompt"]["box"]["metrics"] == summary["metrics"]


def test_guesses_have_what_masks_alone_give(parts):
    config, baseline, test = parts
    asked = ("iou", "boundary_iou", "iou_cat_sam", "mae", "ap")
    config = replace(config, eval=EvalConfig(asked))
    summary, _ = compare_with_base(baseline, None, test, config, Display(json=True))
    measured = summary["metrics"]
    for name in ("boundary_iou", "iou_cat_sam"):
        assert set(measured[name]["guesses"]) == {"filled box", "inscribed ellipse"}
        assert 0 < measured[name]["guesses"]["filled box"] < 1
    assert measured["iou_cat_sam"]["guesses"]["inscribed ellipse"] > 0.9
    assert "guesses" not in measured["mae"] and "guesses" not in measured["ap"]


def test_guesses_need_no_model(parts):
    config, baseline, test = parts
    summary, _ = compare_with_base(baseline, None, test, config, Display(json=True))
    # The objects are ellipses: a box holds pi/4 of them.
    assert summary["guesses"]["filled box"]["iou"] == pytest.approx(3.1416 / 4, abs=0.03)
    assert summary["guesses"]["inscribed ellipse"]["iou"] > 0.9
    summary, _ = compare_with_base(
        baseline, None, {"none": test["none"], "box": test["box"]}, config, Display(json=True)
    )
    # beside the first prompt's numbers those of a box would mislead
    assert list(summary["guesses"]) == ["whole image"]
    assert list(summary["by_prompt"]["box"]["guesses"]) == ["filled box", "inscribed ellipse"]


def test_an_entry_says_where_prompts_come_from_and_what_was_trained(parts, sam):
    config, baseline, test = parts
    model = FineTuned(sam, "lora", "tuned", prompts="box+mask")
    test["clicks"] = SegmentationDataset(
        test["box"].records, config.data, (64, 64), mask_size=(32, 32), mode="2_clicks"
    )
    entries = compare_with_base(baseline, model, test, config, Display(json=True))[0]["by_prompt"]
    truth = {mode: entry["ground_truth"] for mode, entry in entries.items()}
    assert truth == {"box": True, "none": False, "clicks": True}
    assert [mode for mode, entry in entries.items() if entry["trained"]] == ["box"]
    for side in ("zero_shot", "tuned"):
        clicks = entries["clicks"]["by_click"][side]
        assert len(clicks) == 2 and clicks[-1] == entries["clicks"][side]
    labels = [row.label for row in prompt_rows(entries)]
    assert labels[:3] == ["box (trained)", "filled box, no model", "inscribed ellipse, no model"]
    whole = "whole image, no model"
    assert labels[3:] == ["none", whole, "clicks", whole, "click 1", "click 2"]


def test_prompts_return_to_the_original_frame():
    import torch

    geometry = Geometry((48, 96), (32, 64), (64, 64))
    prompts = Prompts.cat(
        [
            Prompts.of(boxes=torch.tensor([[3.0, 6, 30, 45]])),
            Prompts.of(points=torch.tensor([[[9.0, 12]]]), labels=torch.tensor([[0]])),
        ]
    ).to_model(geometry)
    boxes, points = original_prompts(prompts, geometry)
    assert boxes[0] == pytest.approx([3, 6, 30, 45], abs=1e-4) and len(boxes) == 1
    assert points[0] == pytest.approx([9, 12, 0], abs=1e-4) and len(points) == 1


def measured(**by_class):
    rows = {
        int(name[1:]): {"iou": iou, "dice": iou, "iou_pooled": iou / 2, "objects": 1}
        for name, iou in by_class.items()
    }
    return Evaluation({"by_class": rows}, 1)


def test_a_class_that_one_side_alone_answers_with_has_a_row():
    config = from_words(["data.root=x", "data.masks=classes", "data.classes=3"])
    rows = _by_class(measured(c0=0.5, c2=0.1), measured(c0=0.7, c1=0.0), config)
    assert list(rows) == ["class 0", "class 1", "class 2"]
    assert rows["class 0"]["tuned"] == {"iou": 0.7, "dice": 0.7, "iou_pooled": 0.35}
    assert list(rows["class 1"]) == ["tuned"] and list(rows["class 2"]) == ["zero_shot"]
    assert list(_by_class(measured(c2=0.1), None, config)["class 2"]) == ["zero_shot"]


def test_what_tuning_made_worse_is_remarked():
    side = lambda iou: {"iou": iou, "dice": iou}  # noqa: E731
    guesses = {"filled box": side(0.674), "inscribed ellipse": side(0.78)}
    found = {
        "box": {"zero_shot": side(0.778), "tuned": side(0.668), "guesses": guesses},
        "none": {"zero_shot": side(0.04), "tuned": side(0.3)},
        "point": {"zero_shot": side(0.5), "tuned": side(0.394)},
    }
    worse, guessed = shortfalls(found)
    assert "box 0.668, before 0.778; point 0.394, before 0.500" in worse and "train.lr" in worse
    assert "box 0.668, inscribed ellipse 0.780" in guessed
    found["box"]["tuned"] = side(0.79)
    (worse,) = shortfalls(found)
    assert "(IoU: point" in worse
    assert shortfalls({"none": {"zero_shot": side(0.9)}}) == []
    assert shortfalls({"box": {"zero_shot": side(float("nan")), "tuned": side(float("nan"))}}) == []


def test_every_number_has_its_interval_and_differences_are_paired(parts, sam):
    config, baseline, test = parts
    config = replace(config, eval=EvalConfig(("iou", "hd95")))
    test["2_clicks"] = SegmentationDataset(
        test["box"].records, config.data, (64, 64), mask_size=(32, 32), mode="2_clicks"
    )
    model = FineTuned(sam, "none", "frozen")
    summary, _ = compare_with_base(baseline, model, test, config, Display(json=True))
    assert summary["interval"]["level"] == 0.95 and summary["images_per_second"] > 0
    assert set(summary["intervals"]["zero_shot"]) == {"iou", "dice", "iou_pooled", "dice_pooled"}
    for mode, entry in summary["by_prompt"].items():
        ends = entry["intervals"]
        for side in ("zero_shot", "tuned"):
            for key in ("iou", "dice"):
                assert ends[side][key][0] <= entry[side][key] <= ends[side][key][1], (mode, side)
        # the same model twice: the answers vary with the images, their difference never
        assert ends["zero_shot"]["iou"][0] < ends["zero_shot"]["iou"][1]
        assert ends["difference"] == {"iou": [0.0, 0.0], "dice": [0.0, 0.0]}
        for name, guess in entry["guesses"].items():
            low, high = ends["guesses"][name]["iou"]
            assert low <= guess["iou"] <= high
            low, high = ends["above_guesses"][name]["iou"]
            assert low <= entry["tuned"]["iou"] - guess["iou"] <= high
        hd95 = entry["metrics"]["hd95"]
        assert hd95["intervals"]["tuned"][0] <= hd95["tuned"] <= hd95["intervals"]["tuned"][1]
        assert hd95["intervals"]["difference"] == [0.0, 0.0]
    assert len(summary["by_prompt"]["2_clicks"]["click_intervals"]) == 2
    rows = [row for row in summary["items"] if row["prompt"] == "none"]
    weights = [row["tuned_objects"] for row in rows]
    mean = np.average([row["tuned_iou"] for row in rows], weights=weights)
    assert mean == pytest.approx(summary["by_prompt"]["none"]["tuned"]["iou"])


def test_the_whole_image_is_the_guess_without_a_box(parts):
    config, baseline, test = parts
    summary, _ = compare_with_base(
        baseline, None, {"none": test["none"]}, config, Display(json=True)
    )
    shares = [np.mean(test["none"].sample(i).labels.map > 0) for i in range(len(test["none"]))]
    assert summary["guesses"]["whole image"]["iou"] == pytest.approx(np.mean(shares))


def test_the_most_frequent_class_everywhere_is_the_guess_for_maps(pairs, tiny_weights, sam):
    words = [*settings(pairs, tiny_weights), "data.masks=classes", "data.classes=2"]
    words += ["prompts.train=none", "prompts.eval=none", "decoder.name=semantic"]
    words += ["decoder.classes=2", "decoder.tokens=per_class"]
    for path in (pairs / "masks").glob("*.png"):
        with Image.open(path) as opened:
            mask = np.asarray(opened) > 0
        Image.fromarray(mask.astype(np.uint8)).save(path)
    config = from_words(words)
    records = splits(config.data)["test"] + splits(config.data)["val"]
    data = SegmentationDataset(records, config.data, (64, 64), mask_size=(32, 32), mode="none")
    summary, _ = compare_with_base(FineTuned(sam), None, {"none": data}, config, Display(json=True))
    maps = [collate([data[i]]).originals[0] for i in range(len(data))]
    ground = [float((each == 0).double().mean()) for each in maps]
    guess = summary["guesses"]["one class everywhere"]
    assert guess["iou"] == pytest.approx(np.mean(ground) / 2)  # of the other class there is none
    by_class = [c["guesses"]["one class everywhere"]["iou"] for c in summary["by_class"].values()]
    assert by_class == [pytest.approx(np.mean(ground)), 0.0]
