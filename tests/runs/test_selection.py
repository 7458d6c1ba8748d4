"""By what a training is judged on its validation images."""

import json

import numpy as np
import pytest
from commands import settings
from PIL import Image

from samtune.report.charts import charts
from samtune.runs.assembly import evaluation_modes
from samtune.runs.selection import judged_by
from samtune.runs.words import from_words


@pytest.mark.parametrize(
    ("words", "evaluated", "metric", "mode"),
    [
        ("", "box", "iou", "box"),
        ("prompts.train=none", "none", "iou", "none"),
        ("prompts.train=none,point", "none point", "iou@none+iou@point", "none"),
        ("prompts.train=none prompts.eval=box,none", "box none", "iou", "none"),
        ("prompts.train=none,point prompts.eval=point,box", "point box", "iou", "point"),
        (
            "prompts.train=none,point prompts.eval=none,point,box train.metric=dice",
            "none point box", "dice@none+dice@point", "none",
        ),
        ("prompts.train=box prompts.eval=jittered_box", "jittered_box", "iou", "jittered_box"),
        ("prompts.train=none,point prompts.eval=box", "box", "iou@none+iou@point", "none"),
        ("prompts.train=none,point prompts.eval=box train.keep=none", "box", "iou", "box"),
    ],
)  # fmt: skip
def test_what_is_trained_judges(words, evaluated, metric, mode):
    config = from_words(words.split())
    assert evaluation_modes(config).names == tuple(evaluated.split())
    settings, first = judged_by(config)
    assert (settings.metric, first) == (metric, mode)


@pytest.mark.parametrize(
    ("trained", "metric", "judged"),
    [
        ("box,point", "iou", "iou@box+iou@point"),
        ("none,point", "min(iou@none,iou@point)", "min(iou@none,iou@point)"),
    ],
)
def test_a_criterion_over_prompts_is_no_prompt(
    samtune, pairs, tiny_weights, tmp_path, monkeypatch, trained, metric, judged
):
    monkeypatch.chdir(tmp_path)
    for path in (pairs / "masks").iterdir():  # nearly all of each image, which is soon learned
        Image.fromarray(np.pad(np.full((45, 64), 255, np.uint8), ((3, 0), (0, 0)))).save(path)
    words = [*settings(pairs, tiny_weights), f"prompts.train={trained}", f"train.metric={metric}"]
    answer = samtune("train", *words, "train.strength=auto", "train.lr=1e-2", "output=run")
    assert answer.code == 0, answer.err
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["diagnoses"] == [], "a healthy run"
    assert "Likely causes" not in (tmp_path / "run/report.html").read_text("utf-8")
    modes, others = trained.split(","), {"box", "point", "none"} - {*trained.split(",")}
    assert summary["selection"]["metric"] == judged and summary["selection"]["worth_it"]
    strengths = {**dict.fromkeys(modes, 1.0), **dict.fromkeys(others, 0.0)}
    assert summary["selection"]["strengths"] == strengths, "what the base answers was not trained"
    (line,) = (each for each in answer.err.splitlines() if each.startswith("zero-shot: "))
    measured = [each.split()[0] for each in line.partition("; ")[2].split(", ")]
    assert measured == [*modes, *(m for m in summary["selection"]["kept"] if m not in modes)]
    rows = [json.loads(row) for row in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert judged in rows[0], "but a number"
    by_strength = next(each for each in charts(rows, summary) if "by strength" in each["title"])
    labels = [curve.label for curve, _ in by_strength["curves"]]
    assert labels[:3] == [*modes, *(m for m in ("none", "point", "box") if m in others)]
    assert [label.partition(" for ")[0] for label in labels[3:]] == ["chosen", "chosen"]
