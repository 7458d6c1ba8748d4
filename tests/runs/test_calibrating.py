import json

import pytest
from tiny import write_pairs

from samtune.inference.everything.config import HEADER
from samtune.model.header import read_header


def test_calibrate_writes_a_new_checkpoint_that_everything_uses(samtune, trained, tmp_path):
    before = trained.checkpoint.read_bytes()
    out = tmp_path / "fitted.safetensors"
    words = ["calibrate", trained.folder, f"base.weights={trained.base}", "--out", out]
    small = "everything.points_per_side=3"
    answer = samtune(*words, small, "everything.fit=ap", "--json")
    assert answer.code == 0, answer.err
    entry = read_header(out)[HEADER]
    assert {**entry, "checkpoint": str(out)} == answer.json
    assert entry["metric"] == "ap" and entry["split"] == "val" and entry["images"] == 1
    assert entry["settings"]["points_per_side"] == 3 and entry["value"] >= entry["default"]
    assert trained.checkpoint.read_bytes() == before
    line = samtune(*words[:-1], trained.checkpoint).line
    assert "is an input and is never overwritten" in line
    assert "must end in .safetensors" in samtune(*words[:-1], tmp_path / "x.pth").line
    assert "is a base and no checkpoint" in samtune("calibrate", "nano", "--out", out).line
    found = samtune("everything", out, trained.root / "images", f"base.weights={trained.base}",
                    "--out", tmp_path / "masks", "--no-overlays", "--json")  # fmt: skip
    assert found.code == 0, found.err
    assert found.json["images"] == 8


@pytest.mark.slow
def test_a_training_fits_thresholds_at_its_end_and_shows_them(samtune, trained, tmp_path):
    root = write_pairs(tmp_path / "data")
    words = [
        "train", root, "base.name=tiny", f"base.weights={trained.base}", "train.max_steps=2",
        "prompts.train=box,point", "everything.fit=msa", "everything.points_per_side=3",
        f"output={tmp_path / 'run'}", "--json",
    ]  # fmt: skip
    answer = samtune(*words)
    assert answer.code == 0, answer.err
    entry = answer.json["everything"]
    stored = read_header(tmp_path / "run" / "best.safetensors")[HEADER]
    assert json.loads(json.dumps(entry)) == stored
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Everything: msa by stability_score_thresh" in page
    line = samtune(*words[:-2], "decoder.name=fusion", "adapter.name=ts_sam",
                   f"output={tmp_path / 'other'}").line  # fmt: skip
    assert "takes no prompts" in line and not (tmp_path / "other").exists()
