"""Processes of their own that need not import torch: forks of one that has, and has run nothing.

To import torch and what the command line needs takes four seconds of a CPU, and many a test starts
a process for less work than that. A fork has its own signals, files, folder and environment, and
ends as Python ends. What it says goes to files, so nobody has to read meanwhile.

Run as a program, this module is the process that forks: of each process that is asked for it makes
a keeper, which starts it, tells its number, waits for it, and tells its exit code.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

SUPPORT = Path(__file__).parent
IMPORTS = (
    "accelerate", "commands", "cv2", "jinja2", "pydantic", "torch._dynamo", "torchmetrics",
    "samtune.metrics.suite", "samtune.planning", "samtune.published", "samtune.report.page",
    "samtune.runs.jobs", "samtune.sam.image_encoder",
)  # fmt: skip
"""What a fork has imported: most of what a training needs."""


class Fork:
    """A process that has been started; ``stdout`` and ``stderr`` are what it has said so far."""

    def __init__(self, answers: socket.socket, out: Path, err: Path) -> None:
        self._answers, self._out, self._err = answers, out, err
        self._lines = answers.makefile()
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def poll(self, timeout: float = 0) -> int | None:
        """The exit code, or the negative number of the signal that ended it; None if it runs."""
        if self.returncode is None and select.select([self._answers], [], [], timeout)[0]:
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._answers.close()
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        """The exit code, once it has ended."""
        code = self.poll(timeout)
        assert code is not None, f"it runs on after {timeout} seconds: {self.stderr[-3000:]}"
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it, unless it has ended."""
        self.send_signal(signal.SIGKILL)
        self.wait()


class Forks:
    """Starts processes; ``close`` ends the one that they are forks of."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Fork] = []
        self._control, there = socket.socketpair()
        source = SUPPORT.parents[1] / "src"
        paths = os.pathsep.join([str(SUPPORT), str(source), *filter(None, sys.path)])
        with there:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(there.fileno())],
                env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def start(
        self,
        code: str,
        *words: object,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Fork:
        """Starts ``python -c CODE WORDS`` in a folder, with more in its environment."""
        asked = {
            "code": code,
            "words": ["-c", *map(str, words)],
            "folder": str(folder or Path.cwd()),
            "environment": {**os.environ, **(environment or {})},
        }
        place = Path(tempfile.mkdtemp(dir=self._folder))
        (place / "asked.json").write_text(json.dumps(asked))
        here, there = socket.socketpair()
        files = [
            open(place / name, mode)
            for name, mode in (("asked.json", "rb"), ("out", "wb"), ("err", "wb"))
        ]
        with there:
            handles = [there.fileno(), *(file.fileno() for file in files)]
            socket.send_fds(self._control, [b"."], handles)
        for file in files:
            file.close()
        self._started.append(Fork(here, place / "out", place / "err"))
        return self._started[-1]

    def close(self) -> None:
        for each in self._started:
            each.kill()
        self._control.close()
        self._process.wait()


def asked_of_a_fork(control: socket.socket) -> dict:
    """Starts what is asked for; returns in each process that is started, with what it runs."""
    while True:
        sign, handles, *_ = socket.recv_fds(control, 1, 4)
        with suppress(ChildProcessError):  # whose seconds count as those of this process then
            while os.waitpid(-1, os.WNOHANG if sign else 0)[0]:
                pass
        if not sign:
            os._exit(0)
        if os.fork() == 0:
            control.close()
            answers, *files = handles
            _be_kept(answers)
            os.close(answers)
            with open(files[0], encoding="utf-8") as asked:
                for number, file in enumerate(files[1:], 1):
                    os.dup2(file, number)
                    os.close(file)
                return json.load(asked)
        for handle in handles:
            os.close(handle)


def _be_kept(answers: int) -> None:
    """Returns in a process of its own; this one tells its number and its end, and ends with it."""
    child = os.fork()
    if child == 0:
        return
    with suppress(OSError):  # nobody may be left to hear it
        os.write(answers, b"%d\n" % child)
        _, status = os.waitpid(child, 0)
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


if __name__ == "__main__":
    for name in IMPORTS:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    asked = asked_of_a_fork(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv = asked["words"]
    exec(compile(asked["code"], "<string>", "exec"), {"__name__": "__main__"})
