"""Signals that end a run, which wait until weights and counters agree, and those that save it.

SIGTERM (schedulers, containers, launchers) and SIGHUP (a lost terminal) end a run as Ctrl-C does;
SIGUSR1 has it save and go on. A signal that is ignored when the program starts stays so, as nohup
has it; signals that a platform lacks are left out.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDS = ("SIGINT", "SIGTERM", "SIGHUP")
"""The names of the signals that end a run."""
SAVES = "SIGUSR1"
"""The name of the one that saves it."""
INSIST = 3
"""Ctrl-C is heard once, for launchers repeat it; so often it ends even what cleans up."""
_wishes: list[int] = []


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C's has ended the run.

    Args:
        number: The signal's.
        hint: How to go on.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(hint)
        self.number = number


def with_hint(error: KeyboardInterrupt, hint: str) -> KeyboardInterrupt:
    """The same end of a run, with another message."""
    return Stopped(error.number, hint) if isinstance(error, Stopped) else KeyboardInterrupt(hint)


def stop_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The end of a run that an error came up in, as processes that load data end with the run."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def exit_code_of(error: KeyboardInterrupt) -> int:
    """128 and the signal's number, by the shells' custom."""
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


def words_of(error: KeyboardInterrupt) -> str:
    """The signal that ended the run, with the hint if there is one."""
    what = "interrupted"
    if isinstance(error, Stopped):
        what = f"stopped by {signal.Signals(error.number).name}"
    return f"{what}; {error}" if str(error) else what


@contextmanager
def heeding_signals() -> Iterator[None]:
    """Within the block, signals that end a run raise, and the one that saves it is noted.

    Only the first one raises, so that nothing cuts short what then cleans up. Outside of the main
    thread no signal arrives, and nothing is changed.
    """
    count = 0

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 1 or (number == signal.SIGINT and count >= INSIST):
            raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)

    def note(number: int, frame: FrameType | None) -> None:
        _wishes.append(number)

    _wishes.clear()
    handlers = dict.fromkeys(_numbers(ENDS), end) | dict.fromkeys(_numbers((SAVES,)), note)
    with _handling(handlers):
        yield


def is_asked_to_save() -> bool:
    """Whether somebody has sent the signal that saves, since the last call."""
    asked = bool(_wishes)
    _wishes.clear()
    return asked


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Lets what would end the run wait to the end of the block, where weights and counters agree.

    It then does what it would have done: raise, or end the process.
    """
    caught: list[int] = []

    def wait(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    try:
        with _handling(dict.fromkeys(_numbers(ENDS), wait)):
            yield
    finally:
        if caught:
            signal.raise_signal(caught[0])


def _numbers(names: tuple[str, ...]) -> list[int]:
    """The signals of these names that the platform has."""
    return [int(getattr(signal, name)) for name in names if hasattr(signal, name)]


@contextmanager
def _handling(handlers: dict[int, Any]) -> Iterator[None]:
    """Other handlers within a block, but not of what is ignored or handled outside of Python."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in handlers}
        before = {k: v for k, v in before.items() if v not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handlers[number])
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
