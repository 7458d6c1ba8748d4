import os
from pathlib import Path

import pytest
from accelerate import tracking
from commands import settings

import samtune
from samtune.training import trackers
from samtune.training.accelerator import make_accelerator
from samtune.training.engine import FitConfig
from samtune.training.trackers import check_trackers, folders_below


class Written(tracking.GeneralTracker):
    """Stands in for TensorBoard: writes a line a row into the folder that accelerate gives it."""

    name, requires_logging_directory = "tensorboard", True

    def __init__(self, run_name, logging_dir):
        super().__init__()
        self.path = Path(logging_dir) / f"{run_name}.txt"
        self.path.write_text("")

    @property
    def tracker(self):
        return self.path

    def store_init_configuration(self, values):
        pass

    def log(self, values, step=None, **options):
        self.path.write_text(self.path.read_text() + f"{step} {sorted(values)}\n")


@pytest.fixture
def environment(monkeypatch):
    """The trackers' variables are unset, and set back afterwards."""
    for name in ("MLFLOW_TRACKING_URI", "TRACKIO_DIR", "COMET_OFFLINE_DIRECTORY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_trackers_write_into_the_run_folder_only(
    samtune, pairs, tiny_weights, tmp_path, monkeypatch, environment
):
    kind = tracking.LoggerType.TENSORBOARD
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, str(kind), Written)
    monkeypatch.setattr(tracking, "_available_trackers", [kind])
    monkeypatch.setattr(trackers, "is_installed", lambda package: True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = [*settings(pairs, tiny_weights), "train.trackers=tensorboard"]
    answer = samtune("train", *words, f"output={tmp_path / 'run'}", "--json")
    assert answer.code == 0, answer.err
    rows = (tmp_path / "run" / "trackers" / "samtune.txt").read_text().splitlines()
    assert [row.split()[0] for row in rows] == ["0", "2", "2"]
    assert "'iou'" in rows[0] and "'loss'" in rows[1] and "'iou'" in rows[2]
    assert not list((tmp_path / "here").iterdir())


def test_without_a_folder_they_are_refused(refused):
    config = FitConfig(trackers=("tensorboard",))
    said = ["train.trackers=tensorboard", "give output=FOLDER"]
    refused(said, make_accelerator, config, None, None)


def test_the_reader_s_own_environment_holds(tmp_path, monkeypatch, environment):
    monkeypatch.setenv("TRACKIO_DIR", "mine")
    options = folders_below(tmp_path)
    assert os.environ["TRACKIO_DIR"] == "mine"
    assert os.environ["MLFLOW_TRACKING_URI"].startswith(tmp_path.as_uri())
    assert all(
        Path(next(iter(values.values()))).is_relative_to(tmp_path) for values in options.values()
    )


def test_a_tracker_without_its_package_is_refused(refused, monkeypatch, tmp_path, sam):
    monkeypatch.setattr(trackers, "is_installed", lambda package: False)
    refused("pip install tensorboard, or leave", check_trackers, ["tensorboard"])
    refused("needs one of their packages", check_trackers, ["all"])
    refused("did you mean 'wandb'", check_trackers, ["wandbb"])
    monkeypatch.setattr(trackers, "is_installed", lambda package: package == "tensorboardX")
    check_trackers(["tensorboard", "all"])
    monkeypatch.undo()
    (tmp_path / "absent_tracker").mkdir()  # as wandb and mlflow leave one of their names
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(trackers.PACKAGES, "dvclive", ("absent_tracker",))
    config = FitConfig(trackers="dvclive")  # refused before any image
    refused("pip install absent_tracker", samtune.fit, samtune.FineTuned(sam), [], None, config)
