"""Two processes over gloo do together what one process does alone."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
import torch
from commands import settings, write_base
from fit_processes import main as fit_alone
from forks import Forks
from safetensors.torch import load_file

from samtune import distributed as processes
from samtune.runs.folder import RUN_FILES

HERE = Path(__file__).parent / "support"
PATHS = os.pathsep.join([str(HERE), str(HERE.parents[1] / "src")])


PROGRAM = HERE / "samtune_processes.py"
ON_CPU = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}


def jobs(lines: list, fits: list = (), signals: list = ()) -> str:
    """What the processes do: trainings and command lines, one after the other."""
    return json.dumps({"fits": fits, "signals": signals, "lines": lines})


@dataclass(frozen=True)
class End:
    """How two processes ended, and what both said."""

    codes: list[int]
    stdout: str
    stderr: str


def run_as_two_nodes(folder: Path, work: str, forks: Forks) -> End:
    """Runs both processes as the launchers of two nodes start them: one anew, one as a fork."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    places = [
        {
            **ON_CPU, "RANK": f"{rank}", "WORLD_SIZE": "2", "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": f"{rank}", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": f"{store.port}", "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        for rank in (0, 1)
    ]  # fmt: skip
    code = f"import runpy; runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    second = forks.start(code, work, folder=folder, environment=places[1])
    with open(folder / "first.out", "w+") as out, open(folder / "first.err", "w+") as err:
        first = subprocess.Popen(
            [sys.executable, PROGRAM, work],
            env={**os.environ, **places[0], "PYTHONPATH": PATHS},
            cwd=folder, stdout=out, stderr=err,
        )  # fmt: skip
        try:
            codes = [first.wait(300), second.wait(300)]
        finally:
            first.kill()
            second.kill()
        first.wait()
    said = [(folder / name).read_text() for name in ("first.out", "first.err")]
    return End(codes, said[0] + second.stdout, said[1] + second.stderr)


def found(out: Path, world: int) -> list[dict]:
    """What each process found, by rank."""
    return [torch.load(out / f"{rank}-of-{world}.pt", weights_only=False) for rank in range(world)]


STATISTICS = ("batch_norm/tuned", "ts_sam/fusion")
"""Methods with running statistics."""


METRICS = "regions,boundaries,saliency,shadow,instances,published"


@dataclass(frozen=True)
class Done:
    """What two processes on two nodes did, one thing after the other."""

    folder: Path
    pairs: Path
    """The nine pairs that each method was trained on."""
    fitted: dict[str, Path]
    """The folder of each method."""
    answers: dict[str, dict]
    """The JSON of each command line that went well, which one process prints."""
    end: End
    """Of all together; the last command line was refused."""
    measure: list[str]
    """The words that measure every metric."""


@pytest.fixture(scope="module")
def done(trained, forks, tmp_path_factory) -> Done:
    """Three methods; signals; a training, an evaluation, a resumed one, every metric, a refusal."""
    folder = tmp_path_factory.mktemp("done")
    pairs = tiny.write_pairs(folder / "nine", 9)
    methods = [("lora/tuned", 2, 1), *((method, 1, 2) for method in STATISTICS)]
    fitted = {method[0]: folder / method[0].replace("/", "-") for method in methods}
    for out in fitted.values():
        out.mkdir()
    fits = [(str(pairs), str(fitted[method[0]]), *method) for method in methods]

    base, root = write_base(folder / "base.safetensors"), tiny.write_pairs(folder / "pairs")
    five = tiny.write_pairs(folder / "five", 5)
    shutil.copytree(trained.folder, folder / "run")
    train = ["train", *settings(root, base), "device=cpu", "--json"]
    measure = ["eval", str(trained.checkpoint), f"data.root={five}", "data.split=all", "device=cpu"]
    measure += [f"eval.metrics={METRICS}", "prompts.eval=none,box", "--json"]
    lines = {
        "train": train,
        "eval": ["eval", str(trained.checkpoint), "device=cpu", "--json", "output=eval"],
        "resume": ["train", "resume=run", "train.max_steps=5", "device=cpu", "--json"],
        "measure": [*measure, "output=two"],
    }
    signalled = [str(root), str(base), str(folder)]
    work = jobs([*lines.values(), [*train, "output=run"]], fits, signalled)
    end = run_as_two_nodes(folder, work, forks)
    said = end.stdout.splitlines()
    assert len(said) == len(lines), end.stderr[:6000]
    answers = dict(zip(lines, map(json.loads, said), strict=True))
    return Done(folder, pairs, fitted, answers, end, measure)


@pytest.mark.slow
def test_two_processes_are_one_with_the_doubled_batch(done, tmp_path):
    method = "lora/tuned"
    fit_alone(str(done.pairs), str(tmp_path), method, 4, 1)
    (one,), (first, second) = found(tmp_path, 1), found(done.fitted[method], 2)
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    # All together: alone, a weight whose true gradient is zero follows rounding, by Adam's nature.
    start, two, one_end = (_flat(w) for w in (one["start"], first["weights"], one["weights"]))
    assert (two - one_end).norm() < 5e-3 * (one_end - start).norm()
    for name, values in first["draws"].items():  # intervals are the same on all
        assert torch.equal(values, second["draws"][name]), name
        assert torch.allclose(values, one["draws"][name], atol=5e-3)
    for process in (first, second):  # five images over two processes: none twice, none left out
        assert process["base"] == one["base"]
        assert [i["name"] for i in process["items"]] == [i["name"] for i in one["items"]]
        assert process["metrics"]["objects"] == one["metrics"]["objects"] == 5
        for key in ("iou", "dice", "iou_pooled", "dice_pooled"):
            assert process["metrics"][key] == pytest.approx(one["metrics"][key], abs=1e-3)
    assert sorted(p.name for p in (done.fitted[method] / "run").iterdir()) == [
        "best.safetensors",
        "last",
    ]
    assert second["losses"] == []  # one process speaks
    assert len(first["losses"]) == 3  # the other one stopped the training of four steps


@pytest.mark.slow
@pytest.mark.parametrize("method", STATISTICS)
def test_running_statistics_end_alike_in_all_processes(done, method):
    """So that all measure the model that the first one saves."""
    first, second = found(done.fitted[method], 2)
    start, end = first["start"], first["weights"]
    moved = [name for name in end if not torch.equal(end[name], start[name])]
    assert any("running_mean" in name for name in moved)
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name
    saved = load_file(done.fitted[method] / "run" / "best.safetensors")
    for name in moved:
        assert torch.equal(saved[name], first["weights"][name]), name


def _flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


@pytest.mark.slow
def test_of_two_processes_one_speaks_and_writes(done):
    (folder,) = (done.folder / "runs").iterdir()  # they agree on a name that nobody gave
    assert (done.folder / done.answers["train"]["report"]).parent == folder
    assert {p.name for p in folder.iterdir()} == set(RUN_FILES) - {"trackers", "features"}
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["event"], row["step"]) for row in rows] == [
        ("zero_shot", 0), ("train", 2), ("val", 2), ("strength", 2), ("strength", 2),
    ]  # fmt: skip
    assert done.end.codes == [2, 2]
    assert "holds a run already" in refusal(done.end.stderr)
    assert "Broken" not in done.end.stderr


@pytest.mark.slow
def test_processes_end_by_a_signal_at_the_same_step_and_save_it(done):
    first, second = (json.loads((done.folder / f"signals-{i}.json").read_text()) for i in (0, 1))
    assert [first[name]["step"] for name in ("one", "both", "validation")] == [2, 3, 2]
    for name, end in first.items():
        last = done.folder / name / "last"
        assert json.loads((last / "state.json").read_text())["step"] == end["step"]
        assert second[name] == end  # only the first one writes, but both come there
        if name != "saves":
            assert end["code"] == 128 + signal.SIGTERM
            line = f"stopped by SIGTERM; go on with: samtune train resume={name}"
            assert done.end.stderr.count(line) == 1
    assert first["saves"]["code"] == 0 and first["saves"]["saved"][:3] == [0, 0, 1]


def refusal(said: str) -> str:
    """The line of wrong input, said once."""
    lines = [line for line in said.splitlines() if line.startswith("samtune: ")]
    (line,) = (line for line in lines if "stopped by SIGTERM" not in line)
    return line


ENDED = (str(-signal.SIGTERM), str(128 + signal.SIGTERM))
"""Exit codes of a process that the launcher ends, before and after it heeds signals."""


@pytest.mark.slow
def test_what_both_processes_refuse_is_said_once(tmp_path, forks):
    """The launcher ends a process that is still on its way there when the other one has ended."""
    work = jobs([["eval", "absent.safetensors"]])
    words = ["--standalone", "--nproc-per-node=2", PROGRAM, work]
    launcher = "import runpy; runpy.run_module('torch.distributed.run', run_name='__main__')"
    environment = {**ON_CPU, "PYTHONPATH": PATHS}
    end = forks.start(launcher, *words, folder=tmp_path, environment=environment)
    assert end.wait(300) != 0
    codes = re.findall(r"^ +exitcode *: (-?\d+)", end.stderr, re.MULTILINE)
    assert len(codes) == 2 and "2" in codes and set(codes) <= {"2", *ENDED}, end.stderr[:6000]
    assert "no such checkpoint" in refusal(end.stderr)


@pytest.mark.slow
def test_two_processes_evaluate_and_resume_like_one(done, trained):
    for side in ("zero_shot", "tuned"):
        assert done.answers["eval"][side] == pytest.approx(trained.summary[side], abs=1e-4)
    rows = (done.folder / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, rows) if row["event"] != "strength"]
    assert [row["step"] for row in rows] == [0, 2, 2, 4, 4, 5, 5]


@pytest.mark.slow
def test_two_processes_measure_every_metric_like_one(samtune, done, tmp_path):
    two = done.answers["measure"]
    one = samtune(*done.measure, f"output={tmp_path / 'one'}").json
    assert two["images"] == one["images"] == 5
    assert len(one["metrics"]) > 30
    for seen, wanted in zip(numbers(two), numbers(one), strict=True):
        # Other batches round otherwise, which moves a pixel over a cut here and there.
        assert seen == (wanted[0], pytest.approx(wanted[1], abs=1e-3, rel=1e-3, nan_ok=True))


def numbers(tree: object, path: str = "") -> list[tuple[str, float]]:
    """Every number measured in a summary, with its path; seconds and memory are not measured."""
    if isinstance(tree, dict):
        skipped = ("seconds", "peak_memory_bytes", "images_per_second")
        inside = [(key, value) for key, value in tree.items() if key not in skipped]
        return [each for key, value in inside for each in numbers(value, f"{path}/{key}")]
    if isinstance(tree, list):
        return [each for i, value in enumerate(tree) for each in numbers(value, f"{path}/{i}")]
    return [(path, tree)] if isinstance(tree, float) else []


def test_a_process_that_is_not_told_speaks_itself(samtune, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(processes, "HEADSTART", 0.1)
    assert "no such checkpoint" in samtune("eval", "absent.safetensors").line
    monkeypatch.setattr(processes, "HEADSTART", 30.0)
    monkeypatch.setattr(processes, "_have_reported", ended_by_launcher)  # while it waits
    answer = samtune("eval", "absent.safetensors")
    assert answer.code == 2 and not answer.err


def ended_by_launcher(main):
    signal.raise_signal(signal.SIGTERM)
    return False


def test_verbs_of_one_process_are_left_to_the_main_one(samtune, monkeypatch, trained):
    monkeypatch.setenv("RANK", "1")
    answer = samtune("predict", trained.checkpoint, trained.root / "images", "--out", "none")
    assert answer.code == 0 and not answer.out + answer.err


def test_a_killed_main_process_has_said_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_others", [(socket.gethostname(), 1)])
    monkeypatch.setattr(processes, "_end_of", lambda pid: tmp_path / f"{pid}.end")
    monkeypatch.setattr(processes, "HEADSTART", 60.0)
    monkeypatch.setattr(processes, "_is_running", lambda pid: False)
    assert not processes.main_has_spoken()
    # the launcher may notice it before its memory is freed
    monkeypatch.setattr(processes, "_have_reported", ended_by_launcher)
    assert not processes.main_has_spoken()


def test_a_process_is_silent_once_the_main_one_has_said_why_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_others", [(socket.gethostname(), 1), ("elsewhere", 2)])
    monkeypatch.setattr(processes, "_end_of", lambda pid: tmp_path / f"{pid}.end")
    monkeypatch.setattr(processes, "HEADSTART", 0.0)
    assert not processes.main_has_spoken()
    (tmp_path / "1.end").write_text("")  # it ended, but said nothing
    monkeypatch.setattr(processes, "HEADSTART", 0.1)
    assert not processes.main_has_spoken()
    (tmp_path / "1.end").write_text(processes._HAS_REPORTED)
    monkeypatch.setattr(processes, "HEADSTART", 60.0)
    assert processes.main_has_spoken()
