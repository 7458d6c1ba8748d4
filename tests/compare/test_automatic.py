"""Automatic modes in comparisons: of methods, and of checkpoints in the matrix of prompts."""

import csv

import numpy as np
import pytest
from commands import settings

from samtune.compare.jobs import compare
from samtune.compare.rows import grids
from samtune.errors import InputError
from samtune.inference.everything.instances import Instances
from samtune.report.terminal import Display
from samtune.runs import automatic
from samtune.runs.prompt_matrix import evaluate_several


@pytest.fixture
def words(pairs, tiny_weights, tmp_path, monkeypatch):
    """Settings; the base finds nothing, lora the whole image, and only lora can do instances."""

    def generator_of(model, mode, *settings):
        if mode == "instances" and model.adapter.name != "lora":
            raise InputError("predicts no distances")

        def find(image):
            masks = [np.ones(image.shape[:2], bool)] if model.adapter.name == "lora" else []
            return Instances.of_masks(masks, image.shape[:2])

        return find

    monkeypatch.setattr(automatic, "generator_of", generator_of)
    monkeypatch.setattr("samtune.evaluation.automatic.generator_of", generator_of)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return [*settings(pairs, tiny_weights, 1), "data.augment=none", "output=cmp"]


@pytest.mark.slow
def test_methods_and_checkpoints_are_compared_without_prompts(words, capsys):
    asked = ["methods=decoder,lora", "shots=2", "seeds=1"]
    line = "prompts.eval=instances: methods=decoder cannot do it"
    with pytest.raises(InputError, match=line):
        compare([*words, *asked, "prompts.eval=[instances,everything]"], Display(quiet=True))
    modes = "prompts.eval=[box,everything,instances]"
    result = compare([*words, *asked, modes], Display())
    assert list(result["by_prompt"]) == ["box", "everything", "instances"]
    assert result["by_prompt"]["instances"]["automatic"]
    decoder, lora = result["rows"]
    assert list(decoder["by_prompt"]) == ["box", "everything"]
    assert lora["by_prompt"]["instances"]["tuned"]["iou"]["mean"] > 0
    assert lora["by_prompt"]["everything"]["metrics"]["count_error"]["tuned"]["mean"] == 0
    tables = {grid.title: grid for grid in grids(result)}
    of_iou, _, instances = tables.values()
    assert "(all but none, everything and instances are" in of_iou.title
    assert of_iou.rows[-2][-1] == "\N{EN DASH}" and of_iou.rows[-1][-1] != "\N{EN DASH}"
    assert instances.title == "Instances without prompts: instances"
    assert [row[0] for row in instances.rows] == ["zero-shot", "decoder", "lora"]
    assert instances.columns[2:] == ("AP50", "mSA", "PQ", "AJI", "count error", "s per image")
    said = capsys.readouterr().out
    assert "note: decoder: instances is left out: predicts no distances" in said
    with open(result["csv"], encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["prompt"] for row in rows if row["msa"]} == {"everything", "instances"}
    with open(result["report"], encoding="utf-8") as file:
        assert "Instances without prompts: everything" in file.read()
    # the same runs again, in the matrix of prompts
    files = [f"{row['runs'][0]}/best.safetensors" for row in result["rows"]]
    summary = evaluate_several(files, [modes, "output=mat"], Display(quiet=True))
    base, *rows = summary["matrix"]
    # each checkpoint stands below the base with thresholds that were fitted as its own were
    assert [bool(row["checkpoint"]) for row in rows] == [False, True, False, True]
    assert {row["trained_with"] for row in rows[::2]} == {"zero-shot, fitted"}
    first, second = rows[1::2]
    assert list(base["instances"]) == ["everything"] and list(second["instances"]) == [
        "everything", "instances"
    ]  # fmt: skip
    assert "instances" not in first["by_prompt"] and "instances" in second["by_prompt"]
    Display().matrix(summary)
    said = capsys.readouterr().out
    assert "Instances without prompts" in said and "instances: mSA" in said
