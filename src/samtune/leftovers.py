"""Files and folders that are being written, under names of their own, and what a kill leaves.

``NAME.samtune-MACHINE-PROCESS.partial`` becomes ``NAME`` when it is complete, and a folder that it
replaces is ``NAME.samtune-MACHINE-PROCESS.earlier`` for a moment. Only such names are removed.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path

PARTIAL, EARLIER = "partial", "earlier"
ABANDONED = 3600.0
"""Seconds after which an untouched partial file of another machine is one of a killed process."""
_LONGEST = 190
"""Bytes of a name to which the rest can be added; file systems take 255."""
_NAME = re.compile(
    r"(?P<name>.*)\.samtune-(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)\.(?P<kind>partial|earlier)",
    re.DOTALL,
)


def partial_path(path: Path) -> Path:
    """The path under which this process writes what will be ``path``."""
    return _path(path, PARTIAL)


def earlier_path(path: Path) -> Path:
    """The path of what this process replaces, until its successor is in its place."""
    return _path(path, EARLIER)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Removes what killed processes left in a folder, of which the caller holds the lock.

    A folder that was about to be replaced gets its name back if its successor is not there. What
    another process of this machine is writing stays, since verbs that write one file do not lock.

    Args:
        folder: Its subfolders are not looked into.
        name: Only what would have become this file or folder; by default anything.
    """
    for path, match in _leftovers(folder, name):
        pid = int(match["pid"])
        if pid != os.getpid() and _is_running(match["machine"], pid) and not _is_old(path):
            continue
        if match["kind"] == EARLIER and not os.path.lexists(path.with_name(match["name"])):
            with suppress(OSError):
                path.rename(path.with_name(match["name"]))
        else:
            _remove(path)


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Removes partial files of ended processes from a folder that nobody locks.

    Args:
        folder: See :func:`remove_leftovers`.
        name: See there.
    """
    for path, match in _leftovers(folder, name):
        if match["kind"] == PARTIAL and _is_abandoned(path, match["machine"], int(match["pid"])):
            _remove(path)


@cache
def boot() -> str:
    """An identifier that changes with each start of the machine, if the system provides one."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""


def _path(path: Path, kind: str) -> Path:
    return path.with_name(f"{_start(path.name)}.samtune-{_machine()}-{os.getpid()}.{kind}")


def _start(name: str) -> str:
    """The beginning of the name of a partial file: the name, or a digest of a long one."""
    text = os.fsencode(name)
    return name if len(text) <= _LONGEST else blake2b(text, digest_size=16).hexdigest()


@cache
def _machine() -> str:
    """A digest of this machine and its start, since only they give a process id its meaning."""
    return blake2b(f"{socket.gethostname()} {boot()}".encode(), digest_size=4).hexdigest()


def _leftovers(folder: Path, name: str | None) -> Iterator[tuple[Path, re.Match[str]]]:
    names: list[str] = []
    with suppress(OSError):  # there is no such folder
        names = os.listdir(folder)
    for each in names:
        match = _NAME.fullmatch(each)
        if match is not None and (name is None or match["name"] == _start(name)):
            yield folder / each, match


def _is_abandoned(path: Path, machine: str, pid: int) -> bool:
    return _is_running(machine, pid) is False or _is_old(path)


def _is_running(machine: str, pid: int) -> bool | None:
    """Whether a process still exists; ``None`` if this machine cannot tell."""
    if machine != _machine() or sys.platform == "win32":  # where to ask for a process is to end it
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        pass
    return True


def _is_old(path: Path) -> bool:
    """Whether nobody has touched a file for so long that its process must have been killed."""
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > ABANDONED
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
