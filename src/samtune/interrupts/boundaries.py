"""The points at which a run ends by a signal, all of its processes at the same one.

A process that leaves alone keeps the others waiting in an exchange that never comes. So while
:func:`samtune.interrupts.signals.holding_stops` holds, processes tell each other what signals ask
of them with numbers that they exchange anyway, and end together.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from samtune.distributed import add_over_processes, place
from samtune.interrupts.signals import ENDS, SAVES, stop_by, wishes

_VOTED = (*ENDS, SAVES)
"""The names of the signals that votes count, in their order."""


def is_stopping() -> bool:
    """Whether a signal has asked this process to end, so that long work may stop here."""
    return wishes.stop is not None


def is_asked_to_save() -> bool:
    """Whether a signal has asked for a state since the last call: this process, or any of several.

    Of several processes, those of the last votes count.
    """
    name = "saves" if place()[1] == 1 else "saves_agreed"
    asked = getattr(wishes, name)
    setattr(wishes, name, False)
    return asked


def end_if_stopped() -> None:
    """Ends the run, if a signal has asked for it but what it raised was lost.

    Several processes end if all of them know, see :func:`heed_votes`.

    Raises:
        KeyboardInterrupt: The end.
    """
    if wishes.stop is not None and (wishes.is_agreed or not wishes.is_held):
        raise wishes.stop


def end_together(device: Any) -> None:
    """Ends all processes if a signal has asked any of them to; each of them calls this.

    Args:
        device: The device of torch on which the processes meet.

    Raises:
        KeyboardInterrupt: The end.
    """
    if place()[1] > 1:
        heed_votes(add_over_processes(votes(), device))
    end_if_stopped()


def votes() -> list[float]:
    """The wishes of this process, one number per signal, to be added over all processes."""
    number = None if wishes.stop is None else getattr(wishes.stop, "number", signal.SIGINT)
    asked = [number is not None and number == getattr(signal, name, None) for name in ENDS]
    return [float(each) for each in (*asked, wishes.saves)]


def heed_votes(sums: Sequence[float]) -> None:
    """Takes note of the wishes of all processes.

    Args:
        sums: The votes of all processes, added up.
    """
    *ends, saves = sums
    if saves:
        wishes.saves, wishes.saves_agreed = False, True
    for name, count in zip(ENDS, ends, strict=True):
        if count:
            wishes.stop = wishes.stop or stop_by(int(getattr(signal, name)))
            wishes.is_agreed = True
