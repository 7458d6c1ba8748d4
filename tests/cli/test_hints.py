"""What is said to somebody who writes a setting, an option or a verb that there is not."""

import shutil

import pytest

SETTINGS = {
    "lr=1e-4": "lr: no such setting; did you mean train.lr=1e-4?",
    "epochs=5": "did you mean train.epochs=5?",
    "data=folder": "did you mean data.root=folder?",
    "batch=8": "did you mean train.batch_size=8?",
    "learning_rate=1": "did you mean train.lr=1?",
    "model=lora": "did you mean adapter.name=lora?",
    "model=hq": "did you mean decoder.name=hq?",
    "model=vit_b": "did you mean base.name=vit_b?",
    "method=lora": "did you mean adapter.name=lora?",
    "weights=sam.pth": "did you mean base.weights=sam.pth?",
    "rank=3": "did you mean adapter.rank=3?",
    "name=5": "did you mean base.name=5 or data.name=5?",
    "prompt=box": "did you mean prompts.train=box?",
    "bands=1,2": "did you mean data.bands=1,2?",
    "train.workers=4": "did you mean data.workers=4?",
    "train.batch=4": "did you mean train.batch_size=4?",
    "train.zzz=1": "known are train.max_steps, train.epochs",
    "zzz=1": "known are base, adapter, decoder",
}


def test_a_name_that_is_no_setting_is_refused_with_the_setting_that_is_meant(refused):
    from samtune.runs.words import from_words

    for word, told in SETTINGS.items():
        refused(told, from_words, [word])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "polyps", "--lr", "1e-4"], "--lr: no such option; settings have no dashes, "
         "write train.lr=1e-4; see samtune train --help"),
        (["train", "--batch-size=8"], "write train.batch_size=8"),
        (["train", "--zzz"], "--zzz: no such option; see"),
        (["compare", "--methods", "lora"], "write methods=lora"),
        (["predict", "nano", "x", "--output", "y"], "no such option; did you mean --out?"),
        (["methods", "--lr", "3"], "--lr: no such option; see"),
        (["resume", "run"], "resume: no such verb; did you mean samtune train resume=FOLDER?"),
        (["trian", "run"], "did you mean samtune train?"),
        (["data", "chek"], "chek: no such verb; did you mean samtune data check?"),
        (["zzz"], "zzz: no such verb; see samtune --help"),
        (["train", "--resume", "nowhere"], "resume=nowhere: no run here"),
        (["train", "--resume=nowhere"], "resume=nowhere: no run here"),
    ],
)  # fmt: skip
def test_options_and_verbs(samtune, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    assert told in samtune(*words).line


def test_the_folder_of_a_run_stands_for_its_checkpoint_and_is_no_data(
    samtune, trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    answer = samtune("predict", trained.folder, trained.root / "images", "--out", "o", "--json")
    assert answer.code == 0 and answer.json["images"] == 8
    assert "go on with it by samtune train resume=" in samtune("train", trained.folder).line
    assert "no run in runs is unfinished; name" in samtune("train", "--resume").line
    for name in ("open", "other"):
        shutil.copytree(trained.folder, f"runs/{name}")
        (tmp_path / "runs" / name / "summary.json").unlink()
    said = samtune("train", "--resume").line
    assert "2 runs in runs are unfinished; say resume=runs/open or resume=runs/other" in said
    shutil.rmtree("runs/other")
    assert samtune("train", "--resume", "--json").json["checkpoint"].startswith("runs/open")
    (tmp_path / "runs/open/best.safetensors").unlink()
    assert "a folder without best.safetensors" in samtune("eval", "runs/open").line
