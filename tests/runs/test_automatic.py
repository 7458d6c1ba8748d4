"""Automatic modes of a run: zero-shot beside tuned in the summary, the tables and the page."""

import json
from dataclasses import replace

import numpy as np
import pytest
from commands import settings

from samtune.data import SegmentationDataset, splits
from samtune.errors import InputError
from samtune.inference.everything.config import EverythingConfig
from samtune.inference.everything.instances import Instances
from samtune.model.finetuned import FineTuned
from samtune.report.instance_table import automatic_modes, instance_lines, lines_by_size
from samtune.report.page import Report, write_report
from samtune.report.terminal import Display
from samtune.runs import automatic
from samtune.runs.automatic import check_modes, one_target_remark
from samtune.runs.baseline import compare_with_base
from samtune.runs.folder import finite
from samtune.runs.per_image import read_items, write_items
from samtune.runs.remarks import shortfalls
from samtune.runs.words import from_words


@pytest.fixture
def found(pairs, tiny_weights, sam, monkeypatch):
    """What is measured of a base that finds nothing and a model that finds
    the two halves of each image.
    """
    config = from_words(
        [*settings(pairs, tiny_weights), "data.test_fraction=0.5", "prompts.eval=everything,box"]
    )
    records = splits(config.data)["test"]
    dataset = SegmentationDataset(records, config.data, (64, 64), mask_size=(32, 32))
    model, asked = FineTuned(sam, "lora", "tuned"), []

    def generator_of(whose, mode, *settings):
        asked.append((whose is model, mode))

        def find(image):
            if whose is not model:
                return Instances.none(image.shape[:2])
            labels = np.ones(image.shape[:2], int)
            labels[:, image.shape[1] // 2 :] = 2
            return Instances.of_label_map(labels, [0.9, 0.4])

        return find

    monkeypatch.setattr(automatic, "generator_of", generator_of)
    monkeypatch.setattr("samtune.evaluation.automatic.generator_of", generator_of)
    test = {"everything": dataset, "box": dataset.with_prompts("box"), "instances": dataset}
    result = compare_with_base(FineTuned(sam), model, test, config, Display(quiet=True))
    # the second is whether the tuned model can still do it; the base answers once for both modes
    assert [each for each in asked if not each[0]] == [(False, "everything")]
    return result


def test_zero_shot_stands_beside_tuned(found, tmp_path):
    summary, drawn = found
    assert summary["prompt"] == "everything" and list(summary["by_prompt"])[1] == "box"
    entry = summary["by_prompt"]["everything"]
    assert entry["automatic"] and not entry["ground_truth"] and not entry["trained"]
    assert entry["zero_shot"]["iou"] == 0 < entry["tuned"]["iou"] == summary["tuned"]["iou"]
    assert entry["metrics"]["count_bias"]["zero_shot"] == -1  # one object in each image
    assert entry["metrics"]["count_bias"]["tuned"] == 1
    assert entry["metrics"]["count_error"]["intervals"]["tuned"] == [1, 1]
    assert entry["seconds_per_image"].keys() == {"zero_shot", "tuned"}
    assert summary["by_prompt"]["instances"]["zero_shot"] == entry["zero_shot"]
    assert "aji: aggregated" in summary["contract"] and "Automatic modes" in summary["contract"]
    assert "aji" not in summary["by_prompt"]["box"]["metrics"]
    lines = {line.name: line for line in instance_lines(entry, short=True)}
    assert list(lines) == ["AP50", "mSA", "PQ", "AJI", "count error", "seconds per image"]
    sizes = {name: set(each) for name, each in lines_by_size(entry)}
    assert sizes["mSA"] == {"small", "medium", "large"}
    assert not any("ap_small" in remark for remark in shortfalls(summary["by_prompt"]))
    assert json.dumps(finite(summary))
    # images.csv says how many masks there are, which prompted modes leave empty
    write_items(tmp_path, summary["items"])
    rows = read_items(tmp_path)
    automatic_rows = [row for row in rows if row["prompt"] == "everything"]
    assert {(row["zero_shot_masks"], row["tuned_masks"]) for row in automatic_rows} == {(0, 2)}
    assert all(np.isnan(row["tuned_masks"]) for row in rows if row["prompt"] == "box")
    assert not drawn.overlays
    assert {mode: len(images) for mode, images in drawn.instances.items()} == {
        "everything": 4, "instances": 4
    }  # fmt: skip


def test_the_terminal_and_the_page_show_them(found, tmp_path, capsys):
    summary, drawn = found
    common = {"title": "cells", "seconds": 1.0, "report": "r.html", "peak_memory_bytes": 1e6}
    summary = finite({**summary, **common})
    Display().results(summary)
    said = capsys.readouterr().out
    assert "Instances without prompts: everything" in said and "seconds per image" in said
    assert "prompt everything (no prompts)" in said and "count_bias" not in said
    report = Report("cells", summary, instances=drawn.instances)
    html = write_report(tmp_path, report).read_text(encoding="utf-8")
    assert "Instances without prompts: everything" in html and "before, 0 masks" in html
    assert "after, 2 masks" in html and "truth, 1 object" in html and "count bias" in html
    assert len(list((tmp_path / "samples").glob("everything-*.png"))) == 4
    assert list(automatic_modes(summary["by_prompt"])) == ["everything", "instances"]


def test_a_mode_that_a_model_cannot_do_is_refused_before_anything_is_read(sam):
    with pytest.raises(InputError, match=r"^prompts.eval=instances: .*decoder.name=instances"):
        check_modes(FineTuned(sam, "none", "frozen"), ["box", "instances"])
    check_modes(FineTuned(sam, "none", "frozen"), ["box", "everything"])


def test_settings_of_everything_hold_for_both_sides(sam):
    words = ["everything.points_per_side=2", "everything.pred_iou_thresh=0.5", "watershed.neck=2"]
    config, model = from_words(words), FineTuned(sam)
    changes = automatic.changed_settings(config)
    assert changes == {
        "everything": {"points_per_side": 2, "pred_iou_thresh": 0.5}, "watershed": {"neck": 2.0}
    }  # fmt: skip
    generator = automatic.generator_of(model, "everything", changes=changes)
    assert generator.config == EverythingConfig(points_per_side=2, pred_iou_thresh=0.5)
    # what was fitted holds, unless somebody chooses another value, be it the usual one
    model.about = {"everything": {"settings": {"points_per_side": 3, "box_nms_thresh": 0.2}}}
    assert automatic.changes_for(model, config)["everything"] == {}
    chosen = {"everything.points_per_side", "everything.box_nms_thresh"}
    changes = automatic.changes_for(model, config, chosen)
    assert changes["everything"] == {"points_per_side": 2, "box_nms_thresh": 0.7}
    assert changes["watershed"] == {"neck": 2.0}


def test_a_whole_foreground_as_the_target_is_remarked(pairs, tiny_weights):
    config = from_words([*settings(pairs, tiny_weights), "prompts.eval=everything"])
    [remark] = one_target_remark(config)
    assert "data.objects=component" in remark
    parts = replace(config, data=replace(config.data, objects="component"))
    assert one_target_remark(parts) == []
