"""The lock of a folder that a command writes, which lasts as long as its process.

If the file system supports ``flock``, the system itself releases the lock of a process that has
ended. Otherwise the content of the lock file decides (host, process, and their start times), and
across hosts its age, because the holder of a lock touches the file.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from samtune.errors import InputError
from samtune.leftovers import age, boot, remove_leftovers
from samtune.texts import read_json

LOCK = "run.lock"
"""The lock file, which exists while a process is at work."""
RUN = "a run"
"""The work in most folders that are locked."""
HEARTBEAT = 20.0
"""Seconds between two updates of the file's time."""
STALE = 120.0
"""Seconds without an update after which the lock of another host is ignored."""
TRIES = 20
_descriptors: set[int] = set()
_holders: dict[Path, FolderLock] = {}
"""The locks of this process, by the lock file's real path."""


def _let_go_in_child() -> None:
    """Releases the lock in processes that load data, which may outlive a killed run."""
    for descriptor in _descriptors:
        with suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()
    _holders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


class FolderLock:
    """The lock of a folder, from its making to :meth:`release`.

    Args:
        folder: An existing folder, or if ``whole`` one in an existing folder.
        option: Its name in messages, as in ``output=run``.
        work: The work there, in messages.
        whole: Whether the folder comes into its place complete, so that the lock lies beside it.

    Raises:
        InputError: Another process is at work in the folder.
    """

    def __init__(self, folder: Path, option: str, work: str = RUN, whole: bool = False) -> None:
        self._work = work
        self.before: dict[str, Any] | None = None
        """The process that had the lock before and ended without its release."""
        self.path, self._over = _lock_of(folder, whole), threading.Event()
        for _ in range(TRIES):
            descriptor = self._try(option)
            if descriptor is not None:
                break
        else:
            raise InputError(f"{option}: {self.path} changes all the time; choose another folder")
        self._descriptor = descriptor
        self._key = self.path.resolve()
        _descriptors.add(descriptor)
        self.thread = threading.get_ident()
        _holders[self._key] = self
        threading.Thread(target=self._touch, daemon=True).start()

    def release(self) -> None:
        """Releases the lock, and removes the file."""
        self._over.set()
        _descriptors.discard(self._descriptor)
        if sys.platform != "win32":  # where an open file cannot be removed
            self._remove()  # before another thread can lock a file that is about to go
        with suppress(OSError):
            os.close(self._descriptor)
        if sys.platform == "win32":
            self._remove()
        if _holders.get(self._key) is self:
            del _holders[self._key]

    def _remove(self) -> None:
        with suppress(OSError):  # its folder may no longer exist
            self.path.unlink()

    def _try(self, option: str) -> int | None:
        """Tries to take the lock once; fails if another process intervened."""
        _refuse_other_kinds(self.path)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            free = _flock(descriptor)
            owner = _owner(self.path)
            if free is False or (owner is not None and _is_alive(owner, self.path)):
                raise _refusal(option, owner, self._work)
            if not _is_same(descriptor, self.path):
                os.close(descriptor)
                return None
            self.before = owner
            if free is None:
                if self._exclusive(owner):  # which has written its owner
                    return descriptor
                os.close(descriptor)
                return None
            text = json.dumps(_this_process(self._work)).encode()
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text, 0) if hasattr(os, "pwrite") else os.write(descriptor, text)
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise
        return descriptor

    def _exclusive(self, owner: dict[str, Any] | None) -> bool:
        """Whether this process, of several at once, is the one that may go on without ``flock``.

        The claim is a folder, which only one process can create, also on a network disk. A claim
        left by a crash is valid as long as a lock of another host.
        """
        claim = self.path.with_suffix(".claim")
        try:
            claim.mkdir()
        except FileExistsError:
            with suppress(OSError):
                if age(claim) > STALE:
                    claim.rmdir()
            time.sleep(0.1)
            return False
        try:
            if _owner(self.path) != owner:
                return False
            # the file names its owner before another process can claim it
            self.path.write_text(json.dumps(_this_process(self._work)), "utf-8")
            return True
        finally:
            claim.rmdir()

    def _touch(self) -> None:
        while not self._over.wait(HEARTBEAT):
            with suppress(OSError):
                os.utime(self.path)


@contextmanager
def locked(
    folder: Path,
    option: str,
    work: str = RUN,
    *,
    within: Iterable[Path] = (),
    whole: bool = False,
    inner: bool = False,
) -> Iterator[None]:
    """Makes a folder and locks it for the block; if nothing was written into it, it goes again.

    What a killed process left unfinished is removed.

    Args:
        folder: The folder.
        option: See :class:`FolderLock`, also for the other argument.
        work: The work there.
        within: Folders below it in which files are written.
        whole: See :class:`FolderLock`; then only the folder's parent is made.
        inner: Whether a thread that holds the lock may enter, as for a step of the work for which
            it locked the folder.

    Raises:
        InputError: Another process is at work in the folder, or it cannot be written.
    """
    path = _lock_of(folder, whole)
    holder = _holders.get(path.resolve())
    if inner and holder is not None and holder.thread == threading.get_ident():
        yield
        return
    new_folders = [each for each in (path.parent, *path.parents[1:]) if not each.exists()]
    lock = None
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(folder, option, work, whole)
        except OSError as error:
            raise InputError(f"{option}: cannot be locked ({error}); choose another") from error
        remove_leftovers(path.parent, folder.name if whole else None, lock.before)
        for each in within:
            remove_leftovers(each, ended=lock.before)
        yield
    finally:
        if lock is not None:
            lock.release()
        with suppress(OSError):
            for each in new_folders:
                each.rmdir()


def refuse_running(folder: Path, option: str) -> None:
    """Refuses a folder in which a run is active, without changing it.

    Raises:
        InputError: A run is active; the message identifies it.
    """
    path = folder / LOCK
    _refuse_other_kinds(path)
    owner = _owner(path)
    if owner is not None and _is_alive(owner, path):
        raise _refusal(option, owner)


def _refusal(option: str, owner: dict[str, Any] | None, work: str = RUN) -> InputError:
    return InputError(f"{option}: {_who(owner, work)}; wait for it, or choose another folder")


def _refuse_other_kinds(path: Path) -> None:
    """Refuses a folder, or a pipe, from which reading would wait for ever."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path}: is not a file, and a lock is to be written there; move it away")


def _lock_of(folder: Path, whole: bool) -> Path:
    """The lock file of a folder."""
    return folder.with_name(f".{folder.name}.lock") if whole else folder / LOCK


def _flock(descriptor: int) -> bool | None:
    """Whether the lock was obtained; ``None`` if the system has no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether the opened file is still the file of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _this_process(work: str = RUN) -> dict[str, Any]:
    pid = os.getpid()
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    return {
        "work": work,
        "host": socket.gethostname(),
        "boot": boot(),
        "pid": pid,
        "started": _started(pid),
        "since": when,
    }


def _owner(path: Path) -> dict[str, Any] | None:
    """The content of a lock file; empty for an empty or damaged one."""
    try:
        tree = read_json(path)
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) and type(tree.get("pid")) is int else None


def _is_alive(owner: dict[str, Any], path: Path) -> bool:
    """Whether the process named in a lock still exists."""
    here = (owner.get("host"), owner.get("boot")) == (socket.gethostname(), boot())
    if owner.get("host") == socket.gethostname() and not here:
        return False  # this machine has been started anew
    if not here or sys.platform == "win32":  # where to ask for a process is to end it
        try:
            return age(path) < STALE
        except OSError:  # nobody knows its age, unless it has been released
            return os.path.lexists(path)
    try:
        os.kill(owner["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        pass
    if owner["pid"] == os.getpid():
        return path.resolve() in _holders
    return _started(owner["pid"]) == owner.get("started")


def _started(pid: int) -> str:
    """The start time of a process, if the system provides it, because process ids are reused."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _started_by_ps(pid)
    return "dead" if fields[0] in ("Z", "X") else fields[19]


def _started_by_ps(pid: int) -> str:
    """The start time of a process on systems without ``/proc``, as macOS."""
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=10, env={**os.environ, "LC_ALL": "C"}
        )
        return done.stdout.decode("ascii", "replace").strip()
    return ""


def _who(owner: dict[str, Any] | None, work: str) -> str:
    if owner is None:
        return f"another process has just begun {work} here"
    where = "" if owner.get("host") == socket.gethostname() else f" on {owner.get('host')}"
    work = owner.get("work", work)
    return f"{work} is going on here (process {owner['pid']}{where}, since {owner.get('since')})"
