"""A run that is ended by a signal or an error goes on, and one word does the right thing."""

import json
import signal
import time
from pathlib import Path

import pytest
from commands import settings

CODE = (
    "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"  # as nohup does
    "import tiny; from samtune.sam.model import SPECS; SPECS['tiny'] = tiny.TINY\n"
    "from samtune.cli.main import main; main()"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def step_of(folder="run"):
    try:
        return json.loads(Path(folder, "last/state.json").read_text())["step"]
    except OSError:
        return -1


def wait_for(condition, process, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll(0.05) is None and time.monotonic() < end, process.stderr


@pytest.mark.slow
def test_signals(trained, here, samtune, forks):
    words = [*settings(trained.root, trained.base, 100_000), "output=run", "train.eval_every=50000"]
    words += ["train.average=none"]
    process = forks.start(CODE, "train", *words, "resume=true")
    try:
        wait_for(lambda: step_of() == 0, process)
        wait_for(Path("run/metrics.jsonl").is_file, process)
        wait_for(lambda: '"train"' in Path("run/metrics.jsonl").read_text(), process)
        assert step_of() == 0
        process.send_signal(signal.SIGUSR1)
        wait_for(lambda: step_of() > 0, process)
        saved = step_of()
        process.send_signal(signal.SIGHUP)
        line = samtune("train", *words).line
        assert f"a run is going on here (process {process.pid}" in line
        assert process.poll() is None
        wait_for(lambda: rows_of("run")[-1][1] > saved, process)
        for number in (signal.SIGTERM, signal.SIGTERM):
            process.send_signal(number)
        process.wait()
    finally:
        process.kill()
    said = process.stderr
    assert process.returncode == 128 + signal.SIGTERM, said
    last = said.splitlines()[-1]
    assert last == "samtune: stopped by SIGTERM; go on with: samtune train resume=run"
    assert "Traceback" not in said and step_of() > saved
    assert not Path("run/run.lock").exists()


def rows_of(folder):
    whole = Path(folder, "metrics.jsonl").read_text().rpartition("\n")[0]  # the run may be writing
    return [(row["event"], row["step"]) for row in map(json.loads, whole.splitlines())]


@pytest.mark.slow
def test_one_word_starts_goes_on_and_says_that_all_is_done(samtune, trained, here, monkeypatch):
    words = [*settings(trained.root, trained.base, 3), "train.eval_every=2", "resume=true"]
    assert "output=FOLDER" in samtune("train", *words).line
    whole = samtune("train", *words, "output=whole", "--json")
    assert whole.code == 0, whole.err

    words += ["output=run"]
    with monkeypatch.context() as patch:
        patch.setattr("samtune.training.saves.write_state", killed)
        with pytest.raises(Killed):
            samtune("train", *words)
    assert Path("run/config.yaml").is_file() and step_of() == -1
    with monkeypatch.context() as patch:
        patch.setattr("samtune.training.micro_batches.Gradients._of_batch", broken_after(2))
        answer = samtune("train", "resume=run")  # nothing there yet but its settings
    assert answer.last.endswith("copy it again; go on with: samtune train resume=run")
    assert step_of() == 2
    Path("run/last/state.json").write_text("{")  # and then it is damaged
    answer = samtune("train", *words, "--json")
    assert answer.code == 0, answer.err
    assert "run/last/state.json: is damaged" in answer.err
    assert rows_of("run") == rows_of("whole")
    assert answer.json["tuned"] == whole.json["tuned"]

    before = Path("run/report.html").stat().st_mtime_ns
    again = samtune("train", *words)
    assert again.code == 0 and "all is done: run has its 3 steps" in again.out + again.err
    assert Path("run/report.html").stat().st_mtime_ns == before
    Path("run/best.safetensors").write_bytes(b"damaged")
    best = samtune("train", *words, "--json").json
    assert best["tuned"] == whole.json["tuned"] and best["strength"] == whole.json["strength"]
    assert samtune("train", *words, "train.lr=5").line.count("leave it out") == 1
    Path("run/images.csv").unlink()
    Path("run/images.csv").mkdir()
    assert "run/images.csv: is a folder" in samtune("train", *words).line  # before any work


class Killed(BaseException):
    """As if the process ended here."""


def killed(*args):
    raise Killed


def broken_after(steps):
    from samtune.errors import InputError
    from samtune.training.micro_batches import Gradients

    real, count = Gradients._of_batch, iter(range(steps))

    def step(self, number, part, batch):
        if next(count, None) is None:
            raise InputError("image.png: is cut short; copy it again")
        return real(self, number, part, batch)

    return step
