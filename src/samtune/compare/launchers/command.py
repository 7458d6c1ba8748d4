"""One training of a comparison as a process of its own: ``samtune train`` on a file of settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from samtune.compare.launchers.outcome import Failure

PROGRAM = ("-m", "samtune", "train")
"""The arguments of Python."""
REFUSED = 2
"""The exit code of wrong input."""
PREFIX = "samtune: "
"""The beginning of the line that says why a command ended."""


def settings_of(folder: Path) -> Path:
    """The file of settings beside a run's folder."""
    return folder.with_name(f"{folder.name}.yaml")


def log_of(folder: Path) -> Path:
    """The log beside a run's folder."""
    return folder.with_name(f"{folder.name}.log")


class TrainCommand:
    """``samtune train`` on settings that lie beside the run's folder, as its log does.

    Both files are removed when the training has succeeded.

    Args:
        folder: The run's.
        program: The arguments of Python; by default :data:`PROGRAM`.
    """

    def __init__(self, folder: Path, program: Sequence[str] | None = None) -> None:
        self.program = tuple(program or PROGRAM)
        self.settings, self.log = settings_of(folder), log_of(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def __call__(self, environment: Mapping[str, str]) -> Failure | None:
        """Trains, or goes on with what is there, and waits for the end.

        Args:
            environment: Variables besides those of this process.
        """
        command = [sys.executable, *self.program, str(self.settings), "resume=true"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **environment},
            )  # fmt: skip
            try:
                if self._stopped:  # while the process began
                    self._process.terminate()
                code = self._process.wait()
            except BaseException:
                self.stop()
                raise
        if code:
            return Failure(f"{self._reason(code)}; see {self.log}", code == REFUSED)
        for file in (self.settings, self.log):
            file.unlink(missing_ok=True)
        return None

    def stop(self) -> None:
        """Has the training save and end, and waits for it; one that begins later ends at once."""
        self._stopped = True
        if self._process is not None:
            with suppress(OSError):  # it has ended
                self._process.terminate()
            self._process.wait()

    def _reason(self, code: int) -> str:
        """The last line of the log, without what comes before the reason."""
        if code < 0:
            return f"killed by signal {-code}"
        lines = self.log.read_text("utf-8", "replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), f"ended with {code}")
        return last.removeprefix(PREFIX).strip()
