"""Signals that end a run, at the points where that loses nothing."""

import signal
import sys

import pytest

from samtune.errors import InputError
from samtune.interrupts.boundaries import end_if_stopped, heed_votes, is_asked_to_save, votes
from samtune.interrupts.signals import (
    Stopped,
    heeding_signals,
    holding_stops,
    stop_behind,
    without_interrupts,
)

TERM, USR1 = signal.SIGTERM, signal.SIGUSR1


@pytest.fixture(autouse=True)
def as_in_a_shell():
    """Whatever the program that runs the tests has these signals do."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (TERM, USR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class SignalsLate:
    def __del__(self):
        signal.raise_signal(TERM)


def test_a_signal_that_was_lost_is_raised_again():
    hook, said = sys.unraisablehook, []
    sys.unraisablehook = said.append
    try:
        with pytest.raises(Stopped), heeding_signals():
            SignalsLate()
            end_if_stopped()
        with pytest.raises(Stopped), heeding_signals():
            SignalsLate()
            with pytest.raises(Stopped):  # the next one need not wait
                signal.raise_signal(TERM)
            signal.raise_signal(TERM)  # what cleans up is left alone
        with pytest.raises(Stopped), heeding_signals(), heeding_signals():
            SignalsLate()  # at the latest at the end, which is that of the outer block
    finally:
        sys.unraisablehook = hook
    assert not said
    with heeding_signals():
        end_if_stopped()
    assert signal.getsignal(TERM) is signal.SIG_DFL


def test_a_handler_of_the_program_stays(monkeypatch):
    heard = []
    for handler in (signal.SIG_IGN, lambda number, frame: heard.append(number)):
        before = signal.signal(TERM, handler)
        try:
            with heeding_signals():
                signal.raise_signal(TERM)
        finally:
            signal.signal(TERM, before)
    assert heard == [TERM]


def test_what_is_held_waits_until_all_processes_know():
    with pytest.raises(Stopped), heeding_signals(), holding_stops(True):
        signal.raise_signal(TERM)
        signal.raise_signal(TERM)
        end_if_stopped()  # another process would wait for this one
        sums = votes()
        assert sum(sums) == 1
        heed_votes(sums)
        end_if_stopped()
        raise AssertionError
    with pytest.raises(Stopped) as stop, heeding_signals(), holding_stops(True):
        heed_votes(sums)  # of another process, and this one has heard nothing
        end_if_stopped()
    assert stop.value.number == TERM
    with heeding_signals(), holding_stops(True):
        signal.raise_signal(USR1)
        assert votes()[-1] and is_asked_to_save() and not is_asked_to_save()


def test_an_error_that_the_end_brought_about_is_not_told_in_its_place():
    killed, wrong = RuntimeError("a loader was killed"), InputError("no such image")
    for error, told in ((killed, Stopped), (wrong, InputError)):
        with pytest.raises(told), heeding_signals(), holding_stops(True):
            signal.raise_signal(TERM)
            assert isinstance(stop_behind(error), Stopped) == (told is Stopped)
            raise error


def test_a_loader_that_ends_does_not_cut_short_what_must_be_whole():
    """Torch's handler for it raises wherever the program is."""

    def of_torch(number, frame):
        raise RuntimeError("DataLoader worker is killed")

    before, done = signal.signal(signal.SIGCHLD, of_torch), []
    try:
        with pytest.raises(RuntimeError), without_interrupts():
            signal.raise_signal(signal.SIGCHLD)
            done.append(1)
        assert signal.getsignal(signal.SIGCHLD) is of_torch
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert done
