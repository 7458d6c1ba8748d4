"""Takes away what Windows has not, before samtune is imported, and runs command lines there.

Last, one step from Python reads the folder ``set`` through a process, which is spawned.
"""

import contextlib
import ctypes
import importlib
import io
import json
import multiprocessing
import os
import pkgutil
import signal
import sys

import torch.utils.data  # noqa: F401 - what other packages need of this system is loaded by now

if __name__ == "__main__":  # processes that load data import this file too, and need no more
    import accelerate  # noqa: F401
    import torchmetrics  # noqa: F401
    import typer  # noqa: F401

for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None  # type: ignore[assignment]
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGPIPE", "SIGALRM"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in (
    "fork", "getuid", "geteuid", "mkfifo", "killpg", "getpgid", "sysconf", "uname",
    "sched_getaffinity", "pwrite", "pread", "register_at_fork",
):  # fmt: skip
    if hasattr(os, name):
        delattr(os, name)


class Library(ctypes.CDLL):
    """A library, which has a name."""

    def __init__(self, name, *words, **more):
        if name is None:
            raise TypeError("bad argument type for built-in operation")
        super().__init__(name, *words, **more)


ctypes.CDLL = Library


def import_all() -> None:
    """Imports every module, but the programs that other tools run."""
    import samtune

    for each in pkgutil.walk_packages(samtune.__path__, "samtune."):
        if not each.name.startswith(("samtune.exports.programs.", "samtune.__main__")):
            importlib.import_module(each.name)


def main() -> None:
    """Runs each argument as a command line, words parted by spaces; prints their exit codes."""
    from samtune.cli.main import main as run

    import_all()
    codes = {}
    for line in sys.argv[1:]:
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                run(line.split(" "))
            except SystemExit as end:
                codes[line] = end.code
    train_with_a_worker()
    print(json.dumps(codes))


def train_with_a_worker() -> None:
    """One process and no more: each imports torch."""
    import samtune

    small = samtune.InputPolicy((64, 64))
    model = samtune.FineTuned(samtune.load_sam("nano"), decoder="tuned", input=small)
    settings = samtune.FitConfig(max_steps=1, batch_size=1)
    result = samtune.fit(
        model, samtune.open_data("set", workers=1).train, None, settings, device="cpu"
    )
    assert result.steps == 1


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn", force=True)
    main()
