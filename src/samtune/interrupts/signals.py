"""Signals that end a run, which wait until weights and counters agree, and those that save it.

SIGTERM (schedulers, containers, launchers) and SIGHUP (a lost terminal) end a run as Ctrl-C does;
SIGUSR1 has it save and go on. A signal that is ignored when the program starts stays so, as nohup
has it; signals that a platform lacks are left out.

An exception that a signal raises may be lost, since Python swallows what is raised in a
``__del__`` or a weak reference's callback. So the wish to end stays until the run has ended, and
:mod:`samtune.interrupts.boundaries` raises it again.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from samtune.errors import InputError

ENDS = ("SIGINT", "SIGTERM", "SIGHUP")
"""The names of the signals that end a run."""
SAVES = "SIGUSR1"
"""The name of the one that saves it."""
INSIST = 3
"""Ctrl-C is heard once, for launchers repeat it; so often it ends even what cleans up."""
OF_CHILDREN = "SIGCHLD"
"""The signal at which torch raises an error of a loading process, whatever runs meanwhile."""


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C's has ended the run.

    Args:
        number: The signal's.
        hint: How to go on.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(hint)
        self.number = number


@dataclass
class Wishes:
    """The wishes that signals have brought to this process."""

    is_heeding: bool = False
    """Whether signals are noted here."""
    stop: KeyboardInterrupt | None = None
    """The end of the run, by the first signal that asks for it."""
    count: int = 0
    """Signals that asked for it; from 0 on the next one raises."""
    is_held: bool = False
    """Whether the end waits for a point at which all processes come to it."""
    is_agreed: bool = False
    """Whether all processes know of the wish to end."""
    saves: bool = False
    """Whether a state is wanted."""
    saves_agreed: bool = False
    """Whether any of the processes has been asked for a state."""


wishes = Wishes()
"""The wishes that came to this process; signals reach its main thread only."""


def stop_by(number: int) -> KeyboardInterrupt:
    """The exception with which a signal ends a run."""
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(number)


def with_hint(error: KeyboardInterrupt, hint: str) -> KeyboardInterrupt:
    """The same end of a run, with another message."""
    return Stopped(error.number, hint) if isinstance(error, Stopped) else KeyboardInterrupt(hint)


def stop_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The end of a run that an error came up in, as processes that load data end with the run.

    Wrong input is reported as such, also if the run was to end.
    """
    return _stop_in(error) or (None if isinstance(error, InputError) else wishes.stop)


def _stop_in(error: BaseException | None) -> KeyboardInterrupt | None:
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
    """Signals that end a run raise within the block, and the one that saves it is noted.

    Only the first one raises, so that nothing cuts short what then cleans up; if it was lost, the
    next one does. A signal for which the program has a handler of its own keeps it. Within another
    such block, and outside of the main thread, which alone gets signals, nothing is changed.

    Raises:
        KeyboardInterrupt: A signal has asked for the end, but nothing has ended.
    """
    if wishes.is_heeding or threading.current_thread() is not threading.main_thread():
        yield
        return
    vars(wishes).update(vars(Wishes(is_heeding=True)))
    handlers = dict.fromkeys(_numbers(ENDS), _end) | dict.fromkeys(_numbers((SAVES,)), _note)
    usual = (signal.SIG_DFL, signal.default_int_handler)
    hook = sys.unraisablehook

    def note_lost(unraisable: Any) -> None:
        if wishes.stop is None or _stop_in(unraisable.exc_value) is not wishes.stop:
            hook(unraisable)
        else:  # it is raised again, so there is nothing to tell
            wishes.count = 0

    try:
        sys.unraisablehook = note_lost
        with _handling({k: v for k, v in handlers.items() if signal.getsignal(k) in usual}):
            yield
            if wishes.stop is not None:
                raise wishes.stop
    finally:
        sys.unraisablehook = hook
        vars(wishes).update(vars(Wishes()))


def _end(number: int, frame: FrameType | None) -> None:
    wishes.count += 1
    if wishes.stop is None:
        wishes.stop = stop_by(number)
    insists = number == signal.SIGINT and wishes.count >= INSIST
    if insists or (wishes.count == 1 and not wishes.is_held):
        raise wishes.stop


def _note(number: int, frame: FrameType | None) -> None:
    wishes.saves = True


@contextmanager
def holding_stops(is_held: bool) -> Iterator[None]:
    """The end of the run waits, within the block, for the points at which processes agree on it.

    Args:
        is_held: Whether it does; a process alone ends at once.

    Raises:
        KeyboardInterrupt: In the place of an error that came up while the run was to end, as
            processes that load data end with it.
    """
    before, wishes.is_held = wishes.is_held, is_held
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or wishes.stop is None:
            raise
        raise wishes.stop from error
    finally:
        wishes.is_held = before


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Lets what would end the run wait to the end of the block, where weights and counters agree.

    It then does what it would have done: raise, or end the process.
    """
    caught: list[int] = []

    def wait(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    children = [each for each in _numbers((OF_CHILDREN,)) if callable(signal.getsignal(each))]
    ends = _numbers(ENDS)
    try:
        with _handling(dict.fromkeys([*ends, *children], wait)):
            yield
    finally:
        first = next((number for number in caught if number in ends), None)
        for number in [number for number in (first, *children) if number in caught]:
            signal.raise_signal(number)


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
