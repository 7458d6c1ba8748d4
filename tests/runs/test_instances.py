"""A decoder of distances on the command line: from a training to instances of a folder."""

import json
import re

import numpy as np
import pytest
from commands import settings
from PIL import Image

from samtune.model.checkpoint import load, save
from samtune.model.header import read_header

# pycocotools 2.0 decodes through an old way into NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_a_training_ends_with_instances_that_everything_finds(
    samtune, pairs, tiny_weights, tmp_path
):
    run, out = tmp_path / "run", tmp_path / "out"
    objects = ["data.masks=binary", "data.objects=component", "data.val_fraction=0.25"]
    decoder = ["decoder.name=instances", "decoder.prompts=frozen", "decoder.object_classes=1"]
    trained = samtune(
        "train", *settings(pairs, tiny_weights), *objects, *decoder, "prompts.train=point",
        "prompts.background_points=2", "train.keep=none", f"output={run}", "--json",
        "train.metric=msa@instances", "everything.fit=msa", "watershed.min_area=0",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    summary = trained.json
    assert list(summary["by_prompt"]) == ["box", "point", "instances"]
    assert summary["by_prompt"]["instances"]["settings"]["tuned"]["answer"] == "watershed"
    selected, fit = summary["selection"], summary["watershed"]
    assert selected["metric"] == "msa@instances" and list(selected["watched"])[-1] == "instances"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = {row["event"]: row["msa@instances"] for row in rows if "msa@instances" in row}
    assert measured["zero_shot"] is None and 0 <= measured["val"] <= 1, "the base cannot do it"
    assert fit["value"] >= fit["default"] and fit["objects"] > 0 and "neck" not in fit["settings"]
    assert read_header(run / "best.safetensors")["watershed"] == fit
    page = (run / "report.html").read_text()
    assert "Watershed: msa by foreground" in page and "instances" in page

    here = [f"base.weights={tiny_weights}", "--json", "--out"]
    loose = ["watershed.foreground=0", "watershed.boundary=0.7", "watershed.centre=0.7"]
    ask = ["everything", run / "best.safetensors", pairs / "images"]
    answer = samtune(*ask, *here, out, *loose)
    assert answer.code == 0, answer.err
    entries = json.loads((out / "predictions.json").read_text())
    assert answer.json["instances"] == len(entries) > 0
    assert {entry["category_id"] for entry in entries} == {0}
    numbers = np.asarray(Image.open(out / "03.png"))
    mine = [entry for entry in entries if entry["image"] == "03.png"]
    assert numbers.max() == len(mine)
    seeds = samtune(*ask, *here, tmp_path / "seeds", *loose, "watershed.answer=prompts")
    assert seeds.code == 0, seeds.err
    grid = [*here, tmp_path / "grid", "watershed.answer=grid", "everything.points_per_side=2"]
    assert samtune(*ask, *grid).code == 0

    of_python = tmp_path / "python.safetensors"  # says nothing of masks
    save(load(run / "best.safetensors", tiny_weights), of_python)
    again = samtune("everything", of_python, *ask[2:], *here, tmp_path / "again", *loose)
    assert again.code == 0 and again.json["instances"] == answer.json["instances"], again.err

    wrong = samtune(*ask, *here, tmp_path / "no", "everything.points_per_side=2")
    assert wrong.code == 2 and re.search(r"points_per_side: no effect.*answer=grid", wrong.err)
    wrong = samtune(*ask, *here, tmp_path / "no", *loose, "watershed.answer=grid")
    assert wrong.code == 2 and "watershed.boundary: no effect" in wrong.err
    wrong = samtune("predict", *ask[1:], *here, tmp_path / "no", "watershed.smoothing=2")
    assert wrong.code == 2 and "samtune everything does" in wrong.err
    wrong = samtune("eval", *ask[1:2], *here[:1], "watershed.smoothing=-1", f"data.root={pairs}")
    assert wrong.code == 2 and "watershed.smoothing" in wrong.err
