"""One folder, one run: a lock that holds as long as its process lives, and no longer.

Where the file system knows ``flock``, the system itself lets go of a lock whose process has ended.
What the lock's file says (host, process, and when both were started) decides elsewhere, and across
hosts its age does: who holds a lock touches it.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from samtune.errors import InputError

LOCK = "run.lock"
"""The file, which is there while a run is."""
HEARTBEAT = 20.0
"""Seconds between two touches of the file."""
STALE = 120.0
"""Seconds after which a lock of another host, which is not touched, counts no longer."""
TRIES = 20
_descriptors: set[int] = set()


def _let_go_in_child() -> None:
    """Processes that load data must not hold the lock when the run itself is killed."""
    for descriptor in _descriptors:
        with suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


class RunLock:
    """The lock of a folder, from its making to :meth:`release`.

    Args:
        folder: It must be there.
        option: What a refusal calls it, as in ``output=run``.

    Raises:
        InputError: A run in the folder is going on.
    """

    def __init__(self, folder: Path, option: str) -> None:
        self.path, self._over = folder / LOCK, threading.Event()
        for _ in range(TRIES):
            descriptor = self._try(option)
            if descriptor is not None:
                break
        else:
            raise InputError(f"{option}: {self.path} changes all the time; choose another folder")
        self._descriptor = descriptor
        _descriptors.add(descriptor)
        threading.Thread(target=self._touch, daemon=True).start()

    def release(self) -> None:
        """Lets go, and removes the file."""
        self._over.set()
        _descriptors.discard(self._descriptor)
        with suppress(OSError):
            os.close(self._descriptor)
        with suppress(OSError):  # its folder may be gone
            self.path.unlink()

    def _try(self, option: str) -> int | None:
        """Takes the lock once; nothing if another process was in between."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            free = _flock(descriptor)
            owner = _owner(self.path)
            if free is False or (owner is not None and _is_alive(owner, self.path)):
                raise _refusal(option, owner)
            if not _is_same(descriptor, self.path):
                os.close(descriptor)
                return None
            if free is None:
                if self._exclusive(owner):  # which has written who holds it
                    return descriptor
                os.close(descriptor)
                return None
            text = json.dumps(_this_process()).encode()
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text, 0) if hasattr(os, "pwrite") else os.write(descriptor, text)
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise
        return descriptor

    def _exclusive(self, owner: dict[str, Any] | None) -> bool:
        """Without ``flock``: whether this process, of several at once, is the one that may go on.

        The claim is a folder, which one process alone can make, also on a network disk. One that a
        crash has left counts as long as a lock of another host.
        """
        claim = self.path.with_suffix(".claim")
        try:
            claim.mkdir()
        except FileExistsError:
            with suppress(OSError):
                if _age(claim) > STALE:
                    claim.rmdir()
            time.sleep(0.1)
            return False
        try:
            if _owner(self.path) != owner:
                return False
            # the file says who holds it, before anybody else can claim it
            self.path.write_text(json.dumps(_this_process()), "utf-8")
            return True
        finally:
            claim.rmdir()

    def _touch(self) -> None:
        while not self._over.wait(HEARTBEAT):
            with suppress(OSError):
                os.utime(self.path)


def refuse_running(folder: Path, option: str) -> None:
    """Refuses a folder in which a run is going on, and leaves it as it is.

    Raises:
        InputError: It tells which run.
    """
    path = folder / LOCK
    owner = _owner(path)
    if owner is not None and _is_alive(owner, path):
        raise _refusal(option, owner)


def _refusal(option: str, owner: dict[str, Any] | None) -> InputError:
    return InputError(f"{option}: {_who(owner)}; wait for it, or choose another folder")


def _flock(descriptor: int) -> bool | None:
    """Whether the lock could be had; ``None`` if there is no such thing here."""
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
    """Whether the file that was opened is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": pid,
        "started": _started(pid),
        "since": when,
    }


def _owner(path: Path) -> dict[str, Any] | None:
    """What a lock's file says; nothing of an empty or a damaged one."""
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) and type(tree.get("pid")) is int else None


def _is_alive(owner: dict[str, Any], path: Path) -> bool:
    """Whether the process that a lock names is still there."""
    here = (owner.get("host"), owner.get("boot")) == (socket.gethostname(), _boot())
    if owner.get("host") == socket.gethostname() and not here:
        return False  # this machine has been started anew
    if not here or sys.platform == "win32":  # where to ask for a process is to end it
        with suppress(OSError):
            return _age(path) < STALE
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return owner["pid"] != os.getpid() and _started(owner["pid"]) == owner.get("started")


def _age(path: Path) -> float:
    """Seconds since a file was touched, by the clock of its file system."""
    probe = path.with_name(f"{path.name}.{os.getpid()}.probe")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _boot() -> str:
    """What is another one after each start of the machine, as far as it tells."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""


def _started(pid: int) -> str:
    """When a process was started, as far as the system tells: numbers of processes come again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "dead" if fields[0] in ("Z", "X") else fields[19]


def _who(owner: dict[str, Any] | None) -> str:
    if owner is None:
        return "another process has just begun a run here"
    where = "" if owner.get("host") == socket.gethostname() else f" on {owner.get('host')}"
    return f"a run is going on here (process {owner['pid']}{where}, since {owner.get('since')})"
