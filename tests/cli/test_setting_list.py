"""Settings by their level, in the help of the verbs and in the documentation."""

import subprocess
import sys

import pytest

from samtune.cli.setting_list import everyday_help, rows_of, setting_rows, settings_table
from samtune.data.augmentations import AUGMENTATIONS
from samtune.metrics import MEASURES
from samtune.options import Level
from samtune.runs.config import RunConfig
from samtune.runs.trees import leaves
from samtune.training.engine import FitConfig

LEVELS = Level.__args__


def test_every_setting_is_on_one_level_and_has_a_help():
    rows = setting_rows()
    names = [row["name"] for row in rows]
    assert set(names) == set(leaves(RunConfig().tree()))
    assert sorted(names) == sorted(row["name"] for level in LEVELS for row in rows_of(level))
    assert all(row["help"] for row in rows)
    assert not any("docs/" in row["help"] for row in rows)  # pip does not install the pages


@pytest.mark.parametrize(
    ("level", "name"),
    [
        ("everyday", "train.lr"),
        ("everyday", "adapter.name"),
        ("expert", "train.warmup"),
        ("published", "train.cosine"),
        ("published", "prompts.binary_masks"),
        ("published", "input.preset"),
    ],
)
def test_levels(level, name):
    assert name in [row["name"] for row in rows_of(level)]
    assert f"`{name}`" in settings_table(level)


def test_names_of_a_registry_are_told_with_what_they_do():
    rows = {row["name"]: row["help"] for row in setting_rows()}
    assert "kyyle: Half of the images stay" in rows["data.augment"]
    assert "cat_sam: CAT-SAM's frame of 1024" in rows["input.preset"]


def test_the_help_of_train_ends_with_the_everyday_settings_in_80_columns(samtune):
    out = samtune("train", "--help").out
    settings = out[out.index("Everyday settings") :].splitlines()
    assert max(map(len, settings)) <= 80
    said = "\n".join(settings)
    assert "  train.lr=auto " in said and "Learning rate after the warm-up" in said
    assert "train.cosine" not in said and "samtune settings" in said


def test_the_help_is_of_the_present_settings_and_loads_no_torch():
    code = (
        "import sys; from samtune.cli.main import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: assert 'torch' not in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.rstrip().endswith(everyday_help().rstrip()), "run docs/generate.py"


def test_the_help_lists_the_names_that_a_setting_takes():
    said = " ".join(everyday_help().split())
    assert f"How training images are augmented: one of {', '.join(AUGMENTATIONS)}" in said
    assert "(samtune settings data.augment describes them)" in said
    in_python = FitConfig.__doc__
    assert "along its cosine. One of epoch, kyyle, step. Default: step." in in_python
    assert "Greatest norm of the gradient; 0 for no limit. Default: 1.0." in in_python


@pytest.mark.parametrize(
    ("verb", "sentence"),
    [
        ("eval", "Settings are the checkpoint's unless set;"),
        ("demo", "Settings are those of a training;"),
        ("compare", "Besides methods=, shots= and seeds= it takes the settings of a training;"),
    ],
)
def test_verbs_whose_defaults_differ_say_so_and_where_settings_are_listed(
    samtune, monkeypatch, verb, sentence
):
    monkeypatch.setenv("COLUMNS", "200")
    out = samtune(verb, "--help").out
    assert f"{sentence} samtune train --help lists them." in out
    assert everyday_help().splitlines()[0] not in out


def test_other_verbs_say_nothing_of_settings(samtune):
    assert everyday_help().splitlines()[0] not in samtune("merge", "--help").out


def test_all_settings_and_metrics_are_a_verb_away(samtune):
    rows = samtune("settings", "--json").json
    assert [row["name"] for row in rows] == [row["name"] for row in setting_rows()]
    out = samtune("settings", "train.warmup").out
    assert "train.warmup" in out and "- expert" in out and "train.lr" not in out
    assert "did you mean 'lr'" in samtune("settings", "learning_rate").line
    assert {row["metric"] for row in samtune("metrics", "--json").json} == set(MEASURES)
    assert "higher is better" in samtune("metrics", "boundary_iou").out
    assert "did you mean 'iou'" in samtune("metrics", "iuo").line
