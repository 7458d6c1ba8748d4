"""Makes faults of a training, goes on, and writes what each of them cost: a table.

python benchmarks/faults.py WORK [--kills 20] [--processes 1,2] [--workers 0,2] [--steps 40]

Each fault is made in a training of its own on the small base and data that ship with samtune. It
then goes on with the same command, and its weights are compared with those of a training that was
left alone: nothing may be lost but the steps since the last state, which are made again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file

from samtune.assets import demo_data

RESULTS = Path(__file__).parent / "results" / "faults.md"
LIMIT = 600.0
"""Seconds that one training may take."""
HEAD = """# Faults of a training, and what they cost

Written by `benchmarks/faults.py`. Each row is a training on the small base and data that ship with
samtune, {steps} steps, with a state every {minutes:g} minutes and validations every {every} steps.
"went on" is the same command with `resume=true`; "the same" means that the weights are those of a
training without a fault, bit for bit. The lost work is that of the steps made twice.

| processes | workers | fault | how it was made | exit | line | went on | weights | steps again |
|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Setting:
    """How the trainings of one part of the table run."""

    folder: Path
    data: Path
    processes: int
    workers: int
    steps: int
    every: int
    minutes: float

    def command(self, output: str) -> list[str]:
        """The command line of a training that begins or goes on."""
        count = f"--nproc-per-node={self.processes}"
        launcher = ["-m", "torch.distributed.run", "--standalone", count]
        start = [sys.executable, *(launcher if self.processes > 1 else []), "-m", "samtune"]
        return [
            *start, "train", f"data.root={self.data}", "data.masks=instance", f"output={output}",
            "resume=true", "device=cpu", "input.size=128", "input.tiles=whole", "train.strength=1",
            f"data.workers={self.workers}", f"train.max_steps={self.steps}", "train.batch_size=1",
            f"train.eval_every={self.every}", f"train.save_every={self.minutes}",
            "train.log_every=1", "data.augment=flips",
        ]  # fmt: skip

    def start(self, output: str) -> subprocess.Popen[str]:
        """Starts a training."""
        env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        pipes |= {"preexec_fn": _heed_ctrl_c} if os.name == "posix" else {}
        return subprocess.Popen(
            self.command(output),
            cwd=self.folder,
            env=env,
            text=True,
            **pipes,  # type: ignore[call-overload]
        )


def _heed_ctrl_c() -> None:
    """A job in the background inherits that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class Outcome:
    """What one fault came to."""

    fault: str
    how: str
    code: int | None
    line: str
    on: int | None = None
    same: bool = False
    again: int = 0
    steps: list[int] = field(default_factory=list)

    def row(self, setting: Setting) -> str:
        """Its row of the table."""
        cells = [setting.processes, setting.workers, self.fault, self.how, self.code]
        cells += [self.line.replace("|", "/"), "yes" if self.on == 0 else f"no ({self.on})"]
        cells += ["the same" if self.same else "other", self.again]
        return "| " + " | ".join(map(str, cells)) + " |"


def step_logged(folder: Path) -> int:
    """The step of the last row of a run's log."""
    try:
        lines = (folder / "metrics.jsonl").read_text("utf-8", "replace").splitlines()
        return max([json.loads(line)["step"] for line in lines if line.endswith("}")], default=-1)
    except (OSError, ValueError, KeyError):
        return -1


def step_saved(folder: Path) -> int:
    """The step of the newest state that is whole."""
    for name in ("state.json", "previous.json"):
        try:
            return int(json.loads((folder / "last" / name).read_text("utf-8"))["step"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Waits until a run has logged a step, or ends."""
    end = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < end and step_logged(folder) < step:
        time.sleep(0.02)


def last_line(said: str) -> str:
    """The last line of samtune's; a process that is killed has none."""
    own = [line for line in said.splitlines() if line.startswith("samtune: ")]
    return (own or [""])[-1][:200]


def ranks_of(launcher: int) -> list[int]:
    """The processes that a process has started, in the order of their numbers."""
    path = Path(f"/proc/{launcher}/task/{launcher}/children")
    return sorted(map(int, path.read_text("ascii").split()))


def by_signal(setting: Setting, name: str, number: int, step: int, whom: str = "run") -> Outcome:
    """A signal to a run, to one of its ranks, or to a process that loads data."""
    folder = setting.folder / name
    process = setting.start(name)
    wait_for_step(process, folder, step)
    target = process.pid
    if whom != "run":
        ranks = ranks_of(process.pid) if setting.processes > 1 else [process.pid]
        target = ranks[-1]
        if whom == "loader":
            loaders: list[int] = []
            end = time.monotonic() + 60
            while not loaders and process.poll() is None and time.monotonic() < end:
                loaders = ranks_of(target)
            target = loaders[0] if loaders else target
    os.kill(target, number)
    try:
        said = process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        said = process.communicate()[1] + "\nit did not end within a minute"
    reached = step_logged(folder)
    how = f"{signal.Signals(number).name} to the {whom} after step {step}"
    outcome = Outcome(name, how, process.returncode, last_line(said))
    outcome.again = max(0, reached - step_saved(folder))
    return outcome


def by_damage(setting: Setting, name: str, file: str, damage: Callable[[bytes], bytes]) -> Outcome:
    """A run that is killed, of which a file is damaged before it goes on."""
    outcome = by_signal(setting, name, signal.SIGKILL, setting.every + 2)
    folder = setting.folder / name
    for path in sorted(folder.glob(file))[-1:]:
        path.write_bytes(damage(path.read_bytes()))
        outcome.how = (
            f"SIGKILL after step {setting.every + 2}, and {path.relative_to(folder)} {name}"
        )
    outcome.again = max(0, step_logged(folder) - step_saved(folder))
    return outcome


def go_on(setting: Setting, outcome: Outcome, whole: Path) -> None:
    """Goes on with a run, and compares what it comes to."""
    process = setting.start(outcome.fault)
    try:
        said = process.communicate(timeout=LIMIT)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        said = process.communicate()[1]
    outcome.on = process.returncode
    if process.returncode:
        outcome.line += f" / then: {last_line(said)}"
        return
    mine, theirs = (
        load_file(f / "best.safetensors") for f in (setting.folder / outcome.fault, whole)
    )
    outcome.same = mine.keys() == theirs.keys() and all(
        bool((mine[key] == theirs[key]).all()) for key in mine
    )


def flip(data: bytes) -> bytes:
    """One bit of the last part."""
    at = len(data) * 9 // 10
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def faults(setting: Setting, kills: int) -> dict[str, Callable[[str], Outcome]]:
    """How each fault is made, in a run of its own name."""

    def ends(number: int, step: int, whom: str = "run") -> Callable[[str], Outcome]:
        return lambda name: by_signal(setting, name, number, step, whom)

    def damages(file: str, damage: Callable[[bytes], bytes]) -> Callable[[str], Outcome]:
        return lambda name: by_damage(setting, name, file, damage)

    after, draw = setting.every + 1, random.Random(0)
    ways = {"sigint": ends(signal.SIGINT, after), "sigterm": ends(signal.SIGTERM, after)}
    ways |= {"sighup": ends(signal.SIGHUP, after), "before-a-state": ends(signal.SIGKILL, -1)}
    if setting.workers:
        ways["loader-killed"] = ends(signal.SIGKILL, after, "loader")
    if setting.processes > 1:
        ways["rank-killed"] = ends(signal.SIGKILL, after, "rank")
    ways |= {
        "state-cut": damages("last/state.json", lambda data: data[:50]),
        "state-emptied": damages("last/state.json", lambda data: b""),
        "weights-flipped": damages("last/trained-*.safetensors", flip),
        "moments-cut": damages("last/optimizer-*.safetensors", lambda data: data[:-9]),
        "best-emptied": damages("best.safetensors", lambda data: b""),
        "log-garbled": damages("metrics.jsonl", lambda data: b"\xff\xfe{\n" + data),
    }
    return ways | {
        f"killed-{count + 1}": ends(signal.SIGKILL, draw.randrange(setting.steps))
        for count in range(kills)
    }


def main() -> None:
    """Makes all faults of the settings asked for, and writes the table after each row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="a new folder for the runs")
    parser.add_argument("--kills", type=int, default=20, help="random kills of each setting")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--workers", default="0,2")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--every", type=int, default=4, help="steps between validations")
    parser.add_argument("--minutes", type=float, default=0.05, help="between states")
    parser.add_argument("--only", default="", help="names of faults, with commas")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.work.mkdir(parents=True)
    data = args.work / "data"
    shutil.copytree(demo_data(), data)
    text = HEAD.format(steps=args.steps, minutes=args.minutes, every=args.every)
    for processes in map(int, args.processes.split(",")):
        for workers in map(int, args.workers.split(",")):
            folder = (args.work / f"{processes}-{workers}").resolve()
            folder.mkdir()
            how = (processes, workers, args.steps, args.every, args.minutes)
            setting = Setting(folder, data.resolve(), *how)
            whole = setting.start("whole")
            said = whole.communicate()[1]
            if whole.returncode:
                raise SystemExit(f"the training without a fault failed: {said}")
            for name, way in faults(setting, args.kills).items():
                if args.only and name not in args.only.split(","):
                    continue
                outcome = way(name)
                go_on(setting, outcome, folder / "whole")
                text += outcome.row(setting) + "\n"
                print(outcome.row(setting), flush=True)
                args.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
