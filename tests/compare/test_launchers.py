"""Trainings side by side, on a cluster, and what becomes of those that fail."""

import json
import os
import signal
from pathlib import Path

import pytest
from commands import settings

from samtune.compare.launchers import command, local, rounds
from samtune.compare.launchers.config import LaunchConfig
from samtune.compare.plan import launch_config, plan_runs
from samtune.report.terminal import Display

# Writes what it was given into its run folder, and fails as the folder "fail" says.
PROGRAM = """
import json, os, pathlib, sys, time, yaml  # not samtune, which takes seconds
tree = yaml.safe_load(open(sys.argv[1]))
folder = pathlib.Path(tree["output"]); folder.mkdir(parents=True, exist_ok=True)
attempts = folder / "attempts"
attempts.write_text(attempts.read_text() + "x" if attempts.exists() else "x")
name = folder.name
while "slow" in os.environ:
    time.sleep(0.05)
if name.startswith("decoder") and name.endswith("seed1"):
    print("a step\\nsamtune: data.root=x: not there; give another", file=sys.stderr); sys.exit(2)
if name.startswith("lora") and name.endswith("seed1"):
    os.kill(os.getpid(), 9)
if name.startswith("vpt") and len(attempts.read_text()) == 1:
    other = folder.with_name(name[:-1] + "10"[int(name[-1])])
    end = time.time() + 60
    while not (other / "attempts").exists() and time.time() < end:
        time.sleep(0.02)
    raise RuntimeError("once" if time.time() < end else "nobody trains beside it")
saw = {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
(folder / "done").write_text(json.dumps(saw))
if name != "vpt-allshot-seed1":  # as if it were on another machine's disk
    (folder / "summary.json").touch()
"""


@pytest.fixture
def words(pairs, tiny_weights, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return [*settings(pairs, tiny_weights, 1), "data.augment=none", "output=cmp"]


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(command, "PROGRAM", ("-c", PROGRAM))


def runs_of(words, *more):
    runs = plan_runs([*words, *more])
    runs[0].folder.parent.mkdir()
    return runs


def test_runs_share_the_machine_and_those_that_fail_do_not_stop_the_others(
    words, stand_in, monkeypatch, capsys
):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    runs = runs_of(words, "methods=decoder,lora,vpt", "seeds=2")
    config = LaunchConfig(launcher="local", jobs=3)
    with Display() as display:
        failed = rounds.train_all(runs, 0, config, display)
    why = {run.folder.name: failure.message for run, failure in failed}
    assert why == {
        "decoder-allshot-seed1": "data.root=x: not there; give another; see "
        "cmp/decoder-allshot-seed1.log",
        "lora-allshot-seed1": "killed by signal 9; see cmp/lora-allshot-seed1.log",
    }
    tries = {run.folder.name: len((run.folder / "attempts").read_text()) for run in runs}
    assert tries == {
        "decoder-allshot-seed0": 1, "decoder-allshot-seed1": 1,  # what is refused stays refused
        "lora-allshot-seed0": 1, "lora-allshot-seed1": 2,
        "vpt-allshot-seed0": 2, "vpt-allshot-seed1": 2,
    }  # fmt: skip
    done = [json.loads(f.read_text()) for f in Path("cmp").glob("*/done")]
    assert len(done) == 4 and {row["OMP_NUM_THREADS"] for row in done} == {"2"}
    said = capsys.readouterr()
    assert "[4/6] vpt, all images" in said.out and "once more: " in said.out
    assert "lora, all images, seed 1: failed: killed by signal 9" in said.err
    # files of those that succeeded are gone
    assert {f.name for f in Path("cmp").iterdir() if f.is_file()} == {
        f"{name}.{end}" for name in why for end in ("yaml", "log")
    }


def test_each_gpu_has_one_training(monkeypatch):
    monkeypatch.setattr(local.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(local.torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in local.environments("auto", None)] == list("0123")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 7")
    seen = [e["CUDA_VISIBLE_DEVICES"] for e in local.environments("auto", 3)]
    assert seen == ["2", "7", "2"]
    assert all("CUDA_VISIBLE_DEVICES" not in e for e in local.environments("cpu", 2))


def test_one_launcher_is_chosen(words, monkeypatch):
    runs = plan_runs([*words, "methods=lora", "seeds=1", "device=auto"])
    monkeypatch.setattr(rounds, "visible_gpus", lambda: ["0", "1"])
    assert rounds.launcher_for(LaunchConfig(), runs) == "local"
    monkeypatch.setattr(rounds, "visible_gpus", lambda: ["0"])
    assert rounds.launcher_for(LaunchConfig(), runs) == "sequential"
    assert rounds.launcher_for(LaunchConfig(jobs=2), runs) == "local"
    assert rounds.launcher_for(LaunchConfig(launcher="ray"), runs) == "ray"


def test_a_comparison_that_is_stopped_ends_its_trainings(words, stand_in, monkeypatch):
    monkeypatch.setenv("slow", "1")
    runs = runs_of(words, "methods=decoder", "seeds=2")
    outcomes = local.train_side_by_side
    processes = []

    def pressed(runs, jobs):
        waiting = outcomes(runs, jobs)
        start = command.subprocess.Popen

        def noted(*args, **more):
            processes.append(start(*args, **more))
            if len(processes) == 2:
                os.kill(os.getpid(), 2)
            return processes[-1]

        monkeypatch.setattr(command.subprocess, "Popen", noted)
        yield from waiting

    monkeypatch.setitem(rounds.ELSEWHERE, "local", pressed)
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    with (
        Display() as display,
        pytest.raises(KeyboardInterrupt, match="0 of 2 runs are done; go on"),
    ):
        rounds.train_all(runs, 0, LaunchConfig(launcher="local", jobs=2), display)
    signal.signal(signal.SIGINT, heard)
    assert len(processes) == 2 and all(each.poll() is not None for each in processes)


@pytest.fixture
def two_nodes(monkeypatch):
    """A Ray cluster of two nodes with one CPU each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    import ray

    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own parts
def test_the_nodes_of_a_cluster_train_side_by_side(words, stand_in, two_nodes, capsys):
    runs = runs_of(words, "methods=decoder,vpt", "seeds=2")
    with Display() as display:
        failed = rounds.train_all(runs, 0, LaunchConfig(launcher="ray"), display)
    why = {run.folder.name: failure for run, failure in failed}
    assert sorted(why) == ["decoder-allshot-seed1", "vpt-allshot-seed1"]
    assert "data.root=x: not there" in why["decoder-allshot-seed1"].message
    assert "on a file system that all machines share" in why["vpt-allshot-seed1"].message
    assert "vpt, all images, seed 0: failed: RuntimeError: once" in capsys.readouterr().err
    (done, *_) = (json.loads(f.read_text()) for f in Path("cmp").glob("*/done"))
    assert done["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("launcher=slurm", "launcher=slurm: must be one of auto, sequential, local, ray"),
        ("jobs=0", "jobs=0: must be"),
        ("retries=-1", "retries=-1: must be"),
    ],
)
def test_wrong_words_are_refused_before_anything_runs(words, refused, word, said):
    refused(said, launch_config, [*words, word])
    refused("jobs=2: launcher=sequential", launch_config, ["jobs=2", "launcher=sequential"])
    assert not Path("cmp").exists()


@pytest.mark.slow
def test_a_method_that_fails_is_left_out_of_the_table(samtune, words, monkeypatch):
    from samtune.compare.launchers import sequential

    train = sequential.train

    def broken(config, display):
        if config.adapter["name"] == "lora" and config.seed == 1:
            raise RuntimeError("a bug\nin two lines")
        return train(config, display)

    monkeypatch.setattr(sequential, "train", broken)
    asked = ["methods=decoder,lora", "shots=2", "seeds=2", "--json"]
    answer = samtune("compare", *words, *asked)
    assert answer.code == 1
    assert [row["method"] for row in answer.json["rows"]] == ["decoder"]
    (failure,) = answer.json["failed"]
    assert (failure["method"], failure["shots"], failure["seed"]) == ("lora", 2, 1)
    assert failure["why"].startswith("RuntimeError: a bug in two lines; see cmp/lora-2shot-seed1")
    assert "Traceback" in Path("cmp/lora-2shot-seed1.log").read_text("utf-8")
    assert "The tables leave out lora, 2 shots: 1 of the runs failed" in answer.err
    monkeypatch.setattr(sequential, "train", train)
    again = samtune("compare", *words, *asked)  # what is done is read
    assert again.code == 0 and [row["method"] for row in again.json["rows"]] == ["decoder", "lora"]
