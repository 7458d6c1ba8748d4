"""Files and folders that are being written, under names of their own, and what a kill leaves.

``NAME.samtune-MACHINE-PROCESS.partial`` becomes ``NAME`` when it is complete, and a folder that it
replaces is ``NAME.samtune-MACHINE-PROCESS.earlier`` for a moment. Only such names are removed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from samtune.errors import InputError

PARTIAL, EARLIER = "partial", "earlier"
ABANDONED = 3600.0
"""Seconds after which an untouched partial file of another machine is one of a killed process."""
_BEGUN = time.monotonic()
"""The begin of this process; before a container's last start another may have had its number."""
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


def refuse_other_kind(path: Path, kind: str) -> None:
    """Refuses to write a file or a folder where something else is, as a device, which would go.

    Args:
        path: The path to write. A link there is replaced, unless it leads to a folder.
        kind: ``file`` or ``folder``.

    Raises:
        InputError: It names what is there.
    """
    kinds = {"folder": path.is_dir(), "file": path.is_file()}
    there = next((each for each, holds in kinds.items() if holds), "device or pipe")
    if path.exists() and there != kind and (path.is_dir() or not path.is_symlink()):
        raise InputError(
            f"{path}: is a {there}, and a {kind} is to be written there; choose another path"
        )


def put_in_place(partial: Path, path: Path, lasting: bool) -> None:
    """Gives a complete file its name.

    Args:
        partial: Its path so far.
        path: Its path from now on; a file there is replaced.
        lasting: Whether to wait until it is on the disk, content before name, so that after a power
            cut either the earlier file or the new one is there.

    Raises:
        OSError: The disk is full or broken.
    """
    if lasting:
        sync(partial)
    os.replace(partial, path)
    if lasting:
        _sync_names(path.parent)


def sync(path: Path) -> None:
    """Waits until a power cut can no longer take what was written to a file.

    Raises:
        OSError: The disk is full or broken.
    """
    with path.open("rb+") as file:
        _sync(file.fileno())


def _sync_names(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folder
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise  # else it is of a file system that cannot wait


def remove_leftovers(
    folder: Path, name: str | None = None, ended: Mapping[str, Any] | None = None
) -> None:
    """Removes what killed processes left in a folder, of which the caller holds the lock.

    A folder that was about to be replaced gets its name back if its successor is not there. What
    another process is writing stays, on any machine, since verbs that write one file do not lock.

    Args:
        folder: Its subfolders are not looked into.
        name: Only what would have become this file or folder; by default anything.
        ended: ``host``, ``boot`` and ``pid`` of a process that is known to have ended, as the one
            that had the lock before.
    """
    for path, match in _leftovers(folder, name):
        if not _is_of(match, ended) and not _is_abandoned(path, match):
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
        if match["kind"] == PARTIAL and _is_abandoned(path, match):
            _remove(path)


def age(path: Path) -> float:
    """Seconds since a file, or any in a folder, was touched, by its file system's clock.

    Raises:
        OSError: It does not exist, or its folder cannot be written.
    """
    with tempfile.TemporaryFile(dir=path.parent) as probe:  # whose name nobody else can remove
        now = os.fstat(probe.fileno()).st_mtime
    touched = [path.stat().st_mtime]
    for each in path.rglob("*") if path.is_dir() else ():
        with suppress(OSError):  # it is gone meanwhile
            touched.append(each.stat().st_mtime)
    return now - max(touched)


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
def _machine(host: str = socket.gethostname(), start: str | None = None) -> str:
    """A digest of a machine and its start, since only they give a process id its meaning."""
    text = f"{host} {boot() if start is None else start}"
    return blake2b(text.encode(), digest_size=4).hexdigest()


def _leftovers(folder: Path, name: str | None) -> Iterator[tuple[Path, re.Match[str]]]:
    names: list[str] = []
    with suppress(OSError):  # there is no such folder
        names = os.listdir(folder)
    for each in names:
        match = _NAME.fullmatch(each)
        if match is not None and (name is None or match["name"] == _start(name)):
            yield folder / each, match


def _is_of(leftover: re.Match[str], process: Mapping[str, Any] | None) -> bool:
    """Whether a process wrote a partial file."""
    if process is None or not all(isinstance(process.get(key), str) for key in ("host", "boot")):
        return False
    machine = _machine(process["host"], process["boot"])
    return (leftover["machine"], leftover["pid"]) == (machine, str(process.get("pid")))


def _is_abandoned(path: Path, leftover: re.Match[str]) -> bool:
    """Whether the process that wrote a partial file has ended, as far as can be told."""
    machine, pid = leftover["machine"], int(leftover["pid"])
    is_mine = (machine, pid) == (_machine(), os.getpid())
    if not is_mine and _is_running(machine, pid) is False:
        return True
    try:
        return age(path) > (time.monotonic() - _BEGUN if is_mine else ABANDONED)
    except OSError:
        return False


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


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
