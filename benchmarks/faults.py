"""Makes faults of a training, goes on, and writes what each of them cost: a table.

python benchmarks/faults.py WORK [--kills 20] [--processes 1,2] [--workers 0,2] [--only NAMES]

A table that is there is continued: its rows stay, and only those that it lacks are made.

Each fault is made in a training of its own on the small base that ships with samtune. It then goes
on with the same command, and its weights and its log are compared with those of a training that
was left alone: nothing may be lost but the steps since the last state, which are made again.

So that hundreds of trainings take minutes, all but those under a launcher are forks of this
process, which has imported everything once. Full disks and a small shared memory are file systems
of this process alone; they need Linux and root, and are left out elsewhere.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

RESULTS = Path(__file__).parent / "results" / "faults.md"
LIMIT = 600.0
"""Seconds that one training may take."""
SOON = 120.0
"""Seconds after a fault in which a training must have ended."""
SIDE, TRAIN, OTHERS = 64, 6, 2
MANY = 40
"""Images of a prediction."""
EVERY = 4
"""Steps between validations."""
HEAD = """# Faults of a training, and what they cost

Written by `benchmarks/faults.py`. Each row is a training of {steps} steps on the small base that
ships with samtune and {images} pictures made on the spot, with a state every {minutes:g} minutes
and validations every {every} steps. "went on" is the same command with `resume=true` after the
fault was mended; "the same" means that weights and logged losses are those of a training without a
fault, bit for bit, and of other verbs that masks or measured numbers are those of a call without
one. The lost work is that of the steps made twice. Seconds are those from the fault
to the line, or to the end if nothing is said, on a machine with {cores} cores that others used at
the same time. The kills are at random moments between the making of the folder and the end. What
says "launcher" ran under `torchrun`. Processes meet by gloo: NCCL, which needs GPUs, was not tried.
"""
COLUMNS = (
    "processes", "workers", "fault", "how it was made", "exit", "s", "line", "went on",
    "weights and log", "steps again",
)  # fmt: skip
_UNSHARE_MOUNTS, _PRIVATE = 0x00020000, 0x4000 | 0x40000


@dataclass(frozen=True)
class Setting:
    """How the trainings of one part of the table run."""

    folder: Path
    processes: int
    workers: int
    steps: int
    minutes: float

    def words(self, data: Path, output: Path) -> list[str]:
        """The command line of a training that begins or goes on."""
        return [
            "train", f"data.root={data}", f"output={output}", "resume=true", "device=cpu",
            f"input.size={SIDE}", "input.tiles=whole", "train.strength=1", "train.keep=none",
            f"data.workers={self.workers}", "data.cache=0", f"train.max_steps={self.steps}",
            "train.batch_size=1", f"train.eval_every={EVERY}", f"train.save_every={self.minutes}",
            "train.log_every=1", "data.augment=flips", "base.name=nano",
        ]  # fmt: skip


class Run:
    """A training, of one or several processes.

    Args:
        setting: How it runs.
        name: Of the fault, after which its folders are called.
        disk: Where its output lies, if not beside its data.
    """

    one_process = False
    """Whether it has one process, whatever the setting says."""

    def __init__(self, setting: Setting, name: str, disk: Path | None = None) -> None:
        self.setting, self.name = setting, name
        self.data = setting.folder / f"{name}-data"
        self.output = (disk or setting.folder) / name
        self.processes: list[int] = []
        self.spoke: float | None = None
        """When it had said its line."""
        self._said = setting.folder / f"{name}.txt"
        self._told = setting.folder / f"{name}-out.txt"
        if not self.data.exists():
            shutil.copytree(setting.folder.parent / "data", self.data)

    def start(
        self,
        launcher: bool = False,
        before: Callable[[], None] | None = None,
        modules: Path | None = None,
    ) -> None:
        """Starts it: under a launcher, or as forks of this process.

        Args:
            launcher: Whether ``torchrun`` starts its processes.
            before: What a process does before it begins.
            modules: See :func:`run_and_exit`.
        """
        self._said.unlink(missing_ok=True)
        self._told.unlink(missing_ok=True)
        self.spoke = None
        words, count = self.words(), 1 if self.one_process else self.setting.processes
        if launcher:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command += [f"--nproc-per-node={count}", "-m", "samtune", *words]
            self.processes = [self._fork(lambda: os.execv(sys.executable, command))]
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        several = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
        self.processes = []
        for rank in range(count):
            env = {**several, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
            self.processes.append(self._fork(lambda env=env: _train(words, env, before, modules)))

    def words(self) -> list[str]:
        """The command line."""
        return self.setting.words(self.data, self.output)

    def _fork(self, act: Callable[[], None]) -> int:
        if pid := os.fork():
            return pid
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup has others ignore
            out = os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(os.open(self._told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), 1)
            os.dup2(out, 2)
            act()
        finally:
            os._exit(70)

    def is_over(self) -> bool:
        """Whether its first process has ended."""
        return not _is_running(self.processes[0])

    def kill(self) -> None:
        """Kills all of it, as a power cut does."""
        for process in self.processes:
            for each in (*_below(process), process):
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)

    def end(self, seconds: float = LIMIT) -> int:
        """Waits for its end, and gives the exit code of the first process that failed."""
        limit, codes = time.monotonic() + seconds, []
        for process in self.processes:
            done, status = 0, 0
            while not done:
                done, status = os.waitpid(process, os.WNOHANG)
                if self.spoke is None and self.line:
                    self.spoke = time.monotonic()
                if not done and time.monotonic() > limit:
                    self.kill()
                    status = os.waitpid(process, 0)[1]
                    break
                time.sleep(0 if done else 0.02)
            codes.append(os.waitstatus_to_exitcode(status))
        return next((code for code in codes if code), 0)

    @property
    def line(self) -> str:
        """The last line of samtune's; a process that is killed has none."""
        said = self._said.read_text("utf-8", "replace") if self._said.exists() else ""
        mine = [line for line in said.splitlines() if line.startswith("samtune: ")]
        text = (mine or [""])[-1].replace(f"{self.setting.folder}/", "").replace("|", "/")
        return text if len(text) < 260 else f"{text[:260]}..."

    def note(self, word: str) -> str:
        """The first note on standard output that has a word."""
        told = self._told.read_text("utf-8", "replace") if self._told.exists() else ""
        notes = [line for line in told.splitlines() if line.startswith("note: ") and word in line]
        return (notes or [""])[0].replace(f"{self.setting.folder}/", "")

    def rows(self) -> list[dict]:
        """The rows of its log that are whole."""
        rows = []
        with suppress(OSError):
            for text in (self.output / "metrics.jsonl").read_text("utf-8", "replace").split("\n"):
                with suppress(ValueError):
                    row = json.loads(text)
                    rows += [row] if isinstance(row, dict) and "event" in row else []
        return rows

    def reached(self) -> int:
        """The step of the last row of its log."""
        return max((row["step"] for row in self.rows() if row["event"] == "train"), default=0)

    def saved(self) -> int:
        """The step of the newest state that is whole."""
        for name in ("state.json", "previous.json"):
            with suppress(OSError, ValueError, KeyError):
                return int(json.loads((self.output / "last" / name).read_text("utf-8"))["step"])
        return 0

    def result(self) -> dict[str, object]:
        """Its weights, and what it logged of each step."""
        losses = [(row["step"], row["loss"]) for row in self.rows() if row["event"] == "train"]
        return {**load_file(self.output / "best.safetensors"), "logged losses": losses}

    def again(self) -> int | str | None:
        """What was done twice after it went on, if that was not known before."""
        return None

    def wait(self, moment: Callable[[Run], bool], pause: float = 0.005) -> None:
        """Waits for a moment, or for its end."""
        limit = time.monotonic() + LIMIT
        while not self.is_over() and time.monotonic() < limit and not moment(self):
            time.sleep(pause)


def _train(
    words: list[str],
    env: dict[str, str],
    before: Callable[[], None] | None,
    modules: Path | None,
) -> None:
    os.environ.update(env)
    if before is not None:
        before()
    run_and_exit(words, modules)


def run_and_exit(words: list[str], modules: Path | None = None) -> None:
    """Runs a command line in this process, which ends with its exit code.

    Args:
        words: The command line without the program.
        modules: A file to which the names of all modules that it has loaded go.
    """
    from samtune.cli.main import main

    sys.argv, code = ["samtune", *words], 0
    try:
        main()
    except SystemExit as end:
        sys.stderr.flush()
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    if modules is not None:
        modules.write_text("\n".join(list(sys.modules)), "utf-8")
    os._exit(code)


def load(modules: Path) -> None:
    """Loads the modules that :func:`run_and_exit` noted, once for all later forks."""
    for name in modules.read_text("utf-8").splitlines():
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)


def _is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def _below(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    except OSError:
        return []
    mine = sorted(map(int, text.split()))
    return [*(each for child in mine for each in _below(child)), *mine]


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
        return sorted(map(int, text.split()))
    return []


Moment = Callable[[Run], bool]


@dataclass(frozen=True)
class Verb:
    """Another verb than ``train``, which is killed and called again."""

    words: Callable[[Path, Path, Path], list[str]]
    """Its command line, from a checkpoint, the data and the output."""
    moment: Moment
    """When it is killed."""
    when: str
    """That in words."""
    result: Callable[[Path], dict[str, object]]
    """What it has written, by name."""


class VerbRun(Run):
    """A call of another verb.

    Args:
        setting: How it runs.
        name: Of the fault.
        verb: Which it is.
        checkpoint: That it reads, if it does.
    """

    def __init__(self, setting: Setting, name: str, verb: Verb, checkpoint: Path) -> None:
        super().__init__(setting, name)
        self.verb, self.checkpoint = verb, checkpoint
        self.one_process = "eval" not in name
        self.done: dict[Path, int] = {}
        """The masks that were written when it was killed, and when they were."""

    def words(self) -> list[str]:
        """The command line."""
        return self.verb.words(self.checkpoint, self.data, self.output)

    def result(self) -> dict[str, object]:
        """What it has written, by name."""
        return self.verb.result(self.output)

    def again(self) -> int | str | None:
        """Masks that were written again; for other verbs what :func:`by_kill_of_verb` says."""
        if "predict" not in self.name:
            return None
        twice = [path for path, at in self.done.items() if path.stat().st_mtime_ns != at]
        return f"{len(twice)} of {len(self.done)} masks"


def by_kill_of_verb(run: Run) -> Came:
    """A power cut while another verb is at work."""
    assert isinstance(run, VerbRun)
    run.start()
    run.wait(run.verb.moment, 0)
    since, over = time.monotonic(), run.is_over()
    run.kill()
    run.done = {path: path.stat().st_mtime_ns for path in run.output.glob("*.png")}
    how = f"SIGKILL {run.verb.when}{' (it had ended)' if over else ''}"
    came = _ended(run, how, since)
    again: int | str = "all images"
    if "compare" in run.name:
        runs = [
            Run(run.setting, f"{run.name}/{f.name}") for f in run.output.iterdir() if f.is_dir()
        ]
        again = sum(max(0, each.reached() - each.saved()) for each in runs)
    return came._replace(again=again)


def _masks_of(output: Path) -> dict[str, object]:
    return {path.name: path.read_bytes() for path in output.glob("*.png")}


def _numbers_of(output: Path) -> dict[str, object]:
    summaries = {path: json.loads(path.read_text("utf-8")) for path in output.rglob("summary.json")}
    return {f"{path.parent.relative_to(output)} {side}": tree[side]
            for path, tree in summaries.items() for side in ("zero_shot", "tuned")}  # fmt: skip


class Came(NamedTuple):
    """What a fault came to, before the training goes on."""

    how: str
    code: int
    seconds: float
    line: str
    again: int | str


@dataclass
class Outcome:
    """One row of the table."""

    came: Came
    on: int = 0
    line: str = ""
    same: bool = False

    def row(self, setting: Setting, name: str) -> str:
        """It as Markdown."""
        came = self.came
        line = f"{came.line} / then: {self.line}" if self.on else came.line
        cells = [setting.processes, setting.workers, name, came.how, came.code]
        cells += [f"{came.seconds:.1f}", line, "yes" if self.on == 0 else f"no ({self.on})"]
        cells += ["the same" if self.same else "other", came.again]
        return "| " + " | ".join(map(str, cells)) + " |"


def _ended(run: Run, how: str, since: float, seconds: float = SOON) -> Came:
    code = run.end(seconds)
    took = (run.spoke or time.monotonic()) - since
    return Came(how, code, took, run.line, max(0, run.reached() - run.saved()))


Fault = Callable[[Run], Came]


def at_step(step: int) -> Moment:
    """When a step has been logged."""
    return lambda run: run.reached() >= step


def by_signal(number: int, step: int, launcher: bool) -> Fault:
    """A signal to the first process, or to the launcher."""

    def make(run: Run) -> Came:
        run.start(launcher)
        run.wait(at_step(step))
        since = time.monotonic()
        for process in run.processes:  # as a terminal, and a scheduler, send it to all
            with suppress(ProcessLookupError):
                os.kill(process, number)
        whom = "launcher" if launcher else "run"
        return _ended(run, f"{signal.Signals(number).name} to the {whom} after step {step}", since)

    return make


def by_signal_to_one(number: int, step: int) -> Fault:
    """A signal to the last of several processes alone."""

    def make(run: Run) -> Came:
        run.start()
        run.wait(at_step(step))
        since, last = time.monotonic(), len(run.processes) - 1
        os.kill(run.processes[last], number)
        how = f"{signal.Signals(number).name} to the rank {last} alone after step {step}"
        return _ended(run, how, since, LIMIT)

    return make


def by_signal_to_group(number: int, step: int) -> Fault:
    """A signal to all processes, also to those that load data, as a terminal sends it."""

    def make(run: Run) -> Came:
        run.start()
        run.wait(at_step(step))
        since, groups = time.monotonic(), [(p, *_below(p)) for p in run.processes]
        for process in (each for group in groups for each in group):
            with suppress(ProcessLookupError):
                os.kill(process, number)
        how = f"{signal.Signals(number).name} to the run and its loaders after step {step}"
        return _ended(run, how, since)

    return make


def by_ignored_hangup(run: Run) -> Came:
    """A lost terminal, of a training under ``nohup``, which goes on."""
    run.start(before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    run.wait(at_step(EVERY + 1))
    since = time.monotonic()
    for process in run.processes:
        os.kill(process, signal.SIGHUP)
    return _ended(run, f"SIGHUP after step {EVERY + 1} to a run under nohup", since, LIMIT)


def by_wish_to_save(run: Run) -> Came:
    """The signal that saves, while the model is validated; the training goes on and ends."""
    run.start()
    run.wait(at_step(EVERY), 0)
    since = time.monotonic()
    for process in run.processes:
        os.kill(process, signal.SIGUSR1)
    return _ended(run, f"SIGUSR1 while it validates, after step {EVERY}", since, LIMIT)


def by_second_signal(run: Run) -> Came:
    """A signal that ends a training, and another one while the state is written."""
    run.start()
    run.wait(at_step(EVERY + 1))
    since = time.monotonic()
    for process in run.processes:
        os.kill(process, signal.SIGTERM)
    run.wait(has("last/*.partial"), 0)
    over = run.is_over()
    for process in run.processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
    how = f"SIGTERM after step {EVERY + 1}, and again while its state is written"
    return _ended(run, f"{how}{' (it had ended)' if over else ''}", since)


def by_kill(moment: Moment, words: str, pause: float = 0.005) -> Fault:
    """A power cut at a moment."""

    def make(run: Run) -> Came:
        run.start()
        run.wait(moment, pause)
        since, over = time.monotonic(), run.is_over()
        run.kill()
        how = f"SIGKILL {words}, after step {run.reached()}"
        return _ended(run, f"{how}{' (it had ended)' if over else ''}", since)

    return make


def by_random_kill(draw: float, length: float) -> Fault:
    """A power cut at a random part of what a training takes."""

    def make(run: Run) -> Came:
        run.start()
        run.wait(has("config.yaml"))
        time.sleep(draw * length)
        since, over = time.monotonic(), run.is_over()
        run.kill()
        how = f"SIGKILL at {draw:.0%} of the time, after step {run.reached()}"
        return _ended(run, f"{how}{' (it had ended)' if over else ''}", since)

    return make


def by_loss_of(whom: str, rank: int, step: int, launcher: bool) -> Fault:
    """A kill of one rank, or of a process that loads its data."""

    def make(run: Run) -> Came:
        run.start(launcher)
        run.wait(at_step(step))
        ranks = _children(run.processes[0]) if launcher else run.processes
        target = ranks[min(rank, len(ranks) - 1)]
        if whom == "loader":
            limit = time.monotonic() + 60
            while not (loaders := _children(target)) and time.monotonic() < limit:
                time.sleep(0.001)
            target = loaders[0] if loaders else target
        since = time.monotonic()
        os.kill(target, signal.SIGKILL)
        under = ", under the launcher" if launcher else ""
        return _ended(run, f"SIGKILL to the {whom} {rank} after step {step}{under}", since)

    return make


def by_damage(file: str, damage: Callable[[bytes], bytes], what: str) -> Fault:
    """A power cut, and then a file of the run that is damaged."""

    def make(run: Run) -> Came:
        came = by_kill(at_step(EVERY + 2), "")(run)
        path = sorted(run.output.glob(file))[-1]
        path.write_bytes(damage(path.read_bytes()))
        name = path.relative_to(run.output)
        again = max(0, run.reached() - run.saved())
        return came._replace(how=f"{came.how.replace(' ,', ',')}; {name} {what}", again=again)

    return make


def by_bad_image(run: Run) -> Came:
    """Images that break while a training reads them."""
    run.start()
    run.wait(at_step(EVERY - 1))
    files = sorted((run.data / "images/train").iterdir())
    since, kept = time.monotonic(), {file: file.read_bytes() for file in files}
    for file, content in kept.items():
        file.write_bytes(content[: len(content) // 2])
    came = _ended(run, f"all training images cut after step {EVERY - 1}", since)
    for file, content in kept.items():
        file.write_bytes(content)
    return came


def by_changed_data(run: Run) -> Came:
    """An image that is another one when a training goes on; then it is put back."""
    by_kill(at_step(EVERY + 2), "")(run)
    again = max(0, run.reached() - run.saved())
    file = sorted((run.data / "images/train").iterdir())[0]
    content = file.read_bytes()
    Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    since = time.monotonic()
    run.start()
    came = _ended(run, "SIGKILL, then another image in place of one", since)
    file.write_bytes(content)
    return came._replace(again=again)


def by_added_data(run: Run) -> Came:
    """An image and a mask more when a training goes on; the line is its note on them."""
    by_kill(at_step(EVERY + 2), "")(run)
    again = max(0, run.reached() - run.saved())
    for kind in ("images", "masks"):
        first = sorted((run.data / kind / "train").iterdir())[0]
        Image.fromarray(np.asarray(Image.open(first))[::-1]).save(first.with_name("train-new.png"))
    since = time.monotonic()
    run.start()
    came = _ended(run, "SIGKILL, then an image and a mask more", since, LIMIT)
    return came._replace(again=again, line=run.note("are new"))


def by_removed_data(run: Run) -> Came:
    """An image and its mask that are gone when a training goes on; then they are put back."""
    by_kill(at_step(EVERY + 2), "")(run)
    again = max(0, run.reached() - run.saved())
    files = [sorted((run.data / kind / "train").iterdir())[0] for kind in ("images", "masks")]
    kept = {file: file.read_bytes() for file in files}
    for file in files:
        file.unlink()
    since = time.monotonic()
    run.start()
    came = _ended(run, "SIGKILL, then an image and its mask removed", since)
    for file, content in kept.items():
        file.write_bytes(content)
    return came._replace(again=again)


def by_second_run(run: Run) -> Came:
    """Two trainings with the same output; the line is the second one's."""
    run.start()
    run.wait(at_step(2))
    other = Run(run.setting, run.name)
    other._said = run.setting.folder / "second.txt"
    since = time.monotonic()
    other.start()
    came = _ended(other, "the same command again while it runs", since)
    run.end()
    return came._replace(again=0)


def by_no_memory(run: Run) -> Came:
    """A step whose allocation fails, since it wants more than any machine has."""
    run.start(before=_want_too_much)
    run.wait(at_step(EVERY + 1))
    since = time.monotonic()
    return _ended(run, f"an allocation of 1 PiB in the step after step {EVERY + 1}", since)


def _want_too_much() -> None:
    import torch

    from samtune.training.micro_batches import Gradients

    of_step = Gradients.of_step

    def too_much(self: Gradients, step: int, *rest: Any) -> Any:
        if step == EVERY + 1:
            torch.empty(2**50, dtype=torch.uint8)
        return of_step(self, step, *rest)

    Gradients.of_step = too_much


def by_full_disk(run: Run) -> Came:
    """A disk that is full from a step on."""
    ballast = run.output.parent / "ballast"
    run.start()
    run.wait(at_step(EVERY - 2))
    since = time.monotonic()
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(2**16)):
            pass
    came = _ended(run, f"disk full after step {EVERY - 2}", since)
    ballast.unlink()
    return came


def by_small_memory(run: Run) -> Came:
    """Too small a shared memory for what loaders hand over."""
    since = time.monotonic()
    run.start(before=_shrink_shared_memory)
    return _ended(run, "/dev/shm of 32 KiB", since, LIMIT)


def _mount(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)


def _mounts_of_its_own() -> bool:
    """Whether this process could have mounts that no other process sees."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        apart = libc.unshare(_UNSHARE_MOUNTS) == 0
        return apart and libc.mount(b"none", b"/", None, _PRIVATE, None) == 0
    except (AttributeError, OSError, TypeError):
        return False


def _shrink_shared_memory() -> None:
    _mounts_of_its_own()
    _mount(Path("/dev/shm"), "32k")


def flip(data: bytes) -> bytes:
    """One bit of the last part."""
    at = len(data) * 9 // 10
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def has(*names: str) -> Moment:
    """When files of a run are there."""
    return lambda run: any(next(run.output.glob(name), None) for name in names)


def has_logged(event: str) -> Moment:
    """When a row of some kind is in the log."""
    return lambda run: any(row["event"] == event for row in run.rows())


def faults(
    setting: Setting, kills: dict[int, float], length: float, apart: bool
) -> dict[str, Fault]:
    """How each fault is made, by its name."""
    several, after = setting.processes > 1, EVERY + 1
    ways: dict[str, Fault] = {
        "sigint": by_signal(signal.SIGINT, after, several),
        "sigterm": by_signal(signal.SIGTERM, after, several),
        "sighup": by_signal(signal.SIGHUP, after, several),
        "second-sigterm": by_second_signal,
        "sigusr1": by_wish_to_save,
    }
    ways["nohup"] = by_ignored_hangup
    if setting.workers:
        ways["sigint-to-all"] = by_signal_to_group(signal.SIGINT, after)
        ways["sigterm-to-all"] = by_signal_to_group(signal.SIGTERM, after)
        ways["loader-killed"] = by_loss_of("loader", setting.processes - 1, after, several)
    if several:
        ways["rank-1-killed"] = by_loss_of("rank", 1, after, True)
        ways["rank-0-killed"] = by_loss_of("rank", 0, after, True)
        ways["sigterm-to-one"] = by_signal_to_one(signal.SIGTERM, after)
        ways["sigusr1-to-one"] = by_signal_to_one(signal.SIGUSR1, after)
    partial = has("last/*.partial", "*.partial")
    ways |= {
        "bad-image": by_bad_image,
        "changed-data": by_changed_data,
        "added-data": by_added_data,
        "removed-data": by_removed_data,
        "second-run": by_second_run,
        "no-memory": by_no_memory,
        "best-damaged": by_damage("best.safetensors", flip, "with a flipped bit"),
        "before-a-state": by_kill(has("config.yaml"), "when the folder is made"),
        "in-base": by_kill(has("last/state.json"), "while the base is validated"),
        "in-write": by_kill(
            lambda run: run.reached() > 1 and partial(run), "while a file is written", 0
        ),
        "in-validation": by_kill(at_step(EVERY), "while it validates", 0),
        "at-the-end": by_kill(has_logged("strength"), "while it measures the test images", 0),
        "state-cut": by_damage("last/state.json", lambda data: data[:50], "cut"),
        "state-emptied": by_damage("last/state.json", lambda data: b"", "emptied"),
        "weights-flipped": by_damage("last/trained-*.safetensors", flip, "with a flipped bit"),
        "moments-cut": by_damage("last/optimizer-*.safetensors", lambda data: data[:-9], "cut"),
        "best-emptied": by_damage("best.safetensors", lambda data: b"", "emptied"),
        "log-garbled": by_damage("metrics.jsonl", lambda data: b"\xff\xfe{\n" + data, "garbled"),
    }
    if apart:
        ways["full-disk"] = by_full_disk
        ways |= {"small-shm": by_small_memory} if setting.workers else {}
    ways |= {f"kill-{i}": by_random_kill(draw, length) for i, draw in kills.items()}
    return ways


def verbs(setting: Setting) -> dict[str, Verb]:
    """The other verbs that are killed, by the name of the fault."""
    if setting.workers:
        return {}
    evaluation = Verb(
        lambda checkpoint, data, output: [
            "eval", str(checkpoint), f"data.root={data}", "data.split=all", "device=cpu",
            f"output={output}", "eval.metrics=boundaries",
        ],
        has("run.lock"), "while eval measures", _numbers_of,
    )  # fmt: skip
    if setting.processes > 1:
        return {"killed-eval": evaluation}
    prediction = Verb(
        lambda checkpoint, data, output: [
            "predict", str(checkpoint), str(setting.folder.parent / "many"), "--out", str(output),
            "--no-overlays", "--box", "12,12,52,52", "device=cpu",
        ],
        has("*.png"), "after the first masks of predict", _masks_of,
    )  # fmt: skip
    comparison = Verb(
        lambda checkpoint, data, output: [
            "compare", *setting.words(data, output)[1:3], "methods=decoder,lora", "seeds=1",
            *setting.words(data, output)[4:], "launcher=sequential",
        ],
        lambda run: sum(1 for _ in run.output.glob("*/last/state.json")) > 1,
        "in the second training of compare", _numbers_of,
    )  # fmt: skip
    return {"killed-predict": prediction, "killed-eval": evaluation, "killed-compare": comparison}


def outcome_of(run: Run, fault: Fault, whole: dict[str, object]) -> Outcome:
    """Makes a fault, goes on, and compares."""
    outcome = Outcome(fault(run))
    run.start()
    outcome.on = run.end()
    outcome.line = run.line if outcome.on else ""
    if outcome.on == 0:
        mine = run.result()
        alike = mine.keys() == whole.keys() and len(mine) > 0
        outcome.same = alike and all(_are_equal(mine[key], whole[key]) for key in mine)
        if (again := run.again()) is not None:
            outcome.came = outcome.came._replace(again=again)
    return outcome


def _are_equal(one: Any, other: Any) -> bool:
    return bool((one == other).all()) if isinstance(one, Tensor) else one == other


def write_data(folder: Path) -> None:
    """Pictures of a disc each, in three splits."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for split, count in (("train", TRAIN), ("val", OTHERS), ("test", OTHERS)):
        for i in range(count):
            cy, cx = draw.uniform(20, 44, 2)
            disc = (y - cy) ** 2 + (x - cx) ** 2 < draw.uniform(8, 16) ** 2
            noise = draw.integers(0, 80, (SIDE, SIDE, 3)) + disc[..., None] * [120, 60, 20]
            for kind, array in (("images", noise), ("masks", disc * 255)):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
                file = folder / kind / split / f"{split}{i}.png"
                Image.fromarray(array.astype(np.uint8)).save(file)
    many = folder.with_name("many")
    many.mkdir(exist_ok=True)
    for i in range(MANY):
        noise = draw.integers(0, 255, (SIDE, SIDE, 3))
        Image.fromarray(noise.astype(np.uint8)).save(many / f"{i}.png")


class Table:
    """The rows of all faults, in a file that an earlier call may have begun.

    Args:
        path: The file.
        head: What stands above the rows.
    """

    def __init__(self, path: Path, head: str) -> None:
        self.path, self.head = path, head
        self.rows: dict[tuple[str, ...], str] = {}
        for line in path.read_text("utf-8").splitlines() if path.exists() else []:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if len(cells) == len(COLUMNS) and cells[0].isdigit():
                self.rows[tuple(cells[:3])] = line

    def has(self, setting: Setting, name: str) -> bool:
        """Whether a fault was made."""
        return (str(setting.processes), str(setting.workers), name) in self.rows

    def add(self, setting: Setting, name: str, row: str) -> None:
        """Adds a row and writes the file; rows of one setting stay together."""
        self.rows[str(setting.processes), str(setting.workers), name] = row
        columns = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        rows = [self.rows[key] for key in sorted(self.rows, key=lambda key: key[:2])]
        self.path.write_text("\n".join([self.head, *columns, *rows, ""]), "utf-8")


def measure(
    setting: Setting, kills: dict[int, float], args: argparse.Namespace, apart: bool, table: Table
) -> None:
    """Makes the faults of one setting that the table lacks, and adds a row of each."""
    others = verbs(setting)
    ways = faults(setting, kills, 0.0, apart)
    names = args.only.split(",") if args.only else [*ways, *others]
    missing = [n for n in (*ways, *others) if n in names and not table.has(setting, n)]
    if not missing:
        return
    shutil.rmtree(setting.folder, ignore_errors=True)
    setting.folder.mkdir()
    modules = setting.folder / "modules.txt"
    for warm in (False, True):  # the first one loads modules late, and is slower for it
        alone = Run(setting, "whole")
        shutil.rmtree(alone.output, ignore_errors=True)
        alone.start(modules=modules)
        alone.wait(has("config.yaml"))
        start = time.monotonic()
        if alone.end():
            raise SystemExit(f"the training without a fault failed: {alone.line}")
        if not warm:
            load(modules)
    ways = faults(setting, kills, time.monotonic() - start, apart)
    whole = alone.result()
    disk = setting.folder / "disk"
    for name in missing:
        full = name == "full-disk"
        if full:
            disk.mkdir()
            _mount(disk, "64m")
        run, expected = Run(setting, name, disk if full else None), whole
        if name in others:
            how = others[name], alone.output / "best.safetensors"
            run = VerbRun(setting, name, *how)
            undisturbed = VerbRun(setting, f"{name}-whole", *how)
            undisturbed.start()
            if undisturbed.end():
                raise SystemExit(f"{name} without a fault failed: {undisturbed.line}")
            expected = undisturbed.result()
        fault = ways.get(name, by_kill_of_verb)
        row = outcome_of(run, fault, expected).row(setting, name)
        print(row, flush=True)
        table.add(setting, name, row)
        shutil.rmtree(run.output, ignore_errors=True)
        if full:
            subprocess.run(["umount", str(disk)], check=True)


def main() -> None:
    """Makes all faults of the settings asked for, and writes the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="a folder for the runs")
    parser.add_argument("--kills", type=int, default=20, help="random kills of all settings")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--workers", default="0,2")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=0.02, help="between states")
    parser.add_argument("--only", default="", help="names of faults, with commas")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    import samtune.report.page
    import samtune.runs.jobs  # noqa: F401  # once, for all forks

    os.environ |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    args.work.mkdir(parents=True, exist_ok=True)
    work = args.work.resolve()
    shutil.rmtree(work / "data", ignore_errors=True)
    write_data(work / "data")
    apart = os.name == "posix" and _mounts_of_its_own()
    facts = {"steps": args.steps, "minutes": args.minutes, "every": EVERY, "cores": os.cpu_count()}
    head = HEAD.format(images=TRAIN + 2 * OTHERS, **facts)
    head += "" if apart else "\nNo file systems of its own could be made: no full disks.\n"
    table = Table(args.out, head)
    sizes = [(p, w) for p in map(int, args.processes.split(","))
             for w in map(int, args.workers.split(","))]  # fmt: skip
    draw = random.Random(0)
    draws = {i + 1: draw.random() for i in range(args.kills)}
    for i, (processes, workers) in enumerate(sizes):
        folder = work / f"{processes}-{workers}"
        setting = Setting(folder, processes, workers, args.steps, args.minutes)
        kills = {number: draws[number] for number in list(draws)[i :: len(sizes)]}
        measure(setting, kills, args, apart, table)


if __name__ == "__main__":
    main()
