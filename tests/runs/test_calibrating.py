import json

import pytest
from tiny import write_pairs

from samtune.errors import InputError
from samtune.inference.everything.config import HEADER
from samtune.model.header import read_header
from samtune.runs.automatic import changed_settings
from samtune.runs.config import resolve
from samtune.runs.words import from_words


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
    of_base = entry["zero_shot"]
    assert of_base["settings"]["points_per_side"] == 3 and of_base["images"] == 1
    assert entry["value"] >= 0 and "the base with fitted thresholds" in answer.err
    found = samtune("everything", out, trained.root / "images", f"base.weights={trained.base}",
                    "--out", tmp_path / "masks", "--no-overlays", "--json")  # fmt: skip
    assert found.code == 0, found.err
    assert found.json["images"] == 8
    weights, others = f"base.weights={trained.base}", ["prompts.eval=everything", small, "--json"]
    measured = samtune("eval", out, weights, f"data.root={trained.root}", "data.split=val", *others)
    assert measured.code == 0, measured.err
    sides = measured.json["by_prompt"]["everything"]["metrics"]["msa"]
    assert (
        sides["zero_shot_fitted"] == pytest.approx(of_base["value"]) and "tuned - " in measured.err
    )
    assert "on 1 of the 1 images the thresholds" in measured.err


def test_settings_that_were_set_are_not_fitted_even_to_their_usual_values():
    config = from_words(["everything=true", "watershed.min_area=0"])
    assert config.everything.fit == "msa" and config.everything.fixed == ("watershed.min_area",)
    assert "min_area" in changed_settings(config)["watershed"]
    assert resolve([config.tree()]).everything.fixed == config.everything.fixed
    earlier = config.tree()
    del earlier["everything"]["fixed"]  # as runs of earlier versions have it
    assert resolve([earlier]).everything.fixed == ()
    with pytest.raises(InputError, match=r"everything\.fixed=min_area: no such setting"):
        from_words(["everything.fixed=min_area"])


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
