"""How a command line ends: one line for what a user can mend, and the exit code."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress

import typer

from samtune.cli.console import Interrupted
from samtune.cli.hints import meant

OF_THE_MACHINE = tuple(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "ESTALE", "EROFS")
    if hasattr(errno, name)  # Windows has no quotas
)
"""Errors of a disk that the user can mend: one that is full, fails or must not be written."""
_REMEDIES = {
    **dict.fromkeys(OF_THE_MACHINE, "free some space or choose another output"),
    errno.EIO: "the disk fails, so look at it or choose another",
    errno.EROFS: "choose another output",
    errno.EACCES: "change its permissions or choose another path",
    errno.EPERM: "change its permissions or choose another path",
    errno.EMFILE: "allow more open files, as by ulimit -n 4096",
    errno.ENFILE: "allow more open files, or end other programs",
    errno.ENOMEM: "free some memory, or end other programs",
    errno.EAGAIN: "allow more processes, as by ulimit -u, or set data.workers=0",
}

INTERRUPTED = 130
"""The exit code after Ctrl-C, by the shells' custom: 128 and the number of the signal."""
WORD, LINE = 500, 1000
"""Characters of one word and of a whole line that are shown at most."""
SIGNALLED = 128
"""Exit codes above it are of signals."""


def end_of(error: BaseException, args: Sequence[str] = ()) -> int:
    """Says in one line what ended a command, and gives the exit code.

    Args:
        error: The exception; a fault of the program is raised again.
        args: The words of the command.
    """
    if isinstance(error, Interrupted):
        return _ended(str(error), error.code)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _stopped(error)
    return _wrong_file(error) if isinstance(error, OSError) else _wrong_input(error, args)


def prepare_streams() -> None:
    """Gives output somewhere to go, and lets names of files be shown that are no text."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            with suppress(OSError, ValueError):  # closed or full, which the first line tells
                stream.reconfigure(errors="backslashreplace")


def _wrong_file(error: OSError) -> int:
    """One line for what the system says of a file; nothing if nobody reads the output any more."""
    if error.errno == errno.EPIPE:
        with suppress(OSError, ValueError):  # what is left would be written at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if error.errno not in _REMEDIES and error.filename is None:
        return _wrong_input(error)
    where = f"{error.filename}: " if error.filename else ""
    remedy = _REMEDIES.get(error.errno or 0, "check the path")
    return _ended("; ".join([f"{where}{error.strerror}", remedy, *_notes(error)]), 2)


def _wrong_input(error: BaseException, args: Sequence[str] = ()) -> int:
    """One line for wrong input; anything else is a fault of the program and goes on."""
    from samtune.errors import InputError

    # Typer's releases differ in where click lives, but export this subclass of its errors.
    usage_error, click_error = typer.BadParameter.__mro__[1:3]
    if isinstance(error, InputError):
        return _ended(" ".join("; ".join([str(error), *_notes(error)]).split("\n")), 2)
    if isinstance(error, click_error):
        context = getattr(error, "ctx", None)
        command = context.command_path if context and isinstance(error, usage_error) else "samtune"
        line = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
        return _ended(f"{meant(error, args) or line}; see {command} --help", 2)
    from samtune.distributed import end_in_order
    from samtune.training.faults import PEER_ENDED, in_words

    fault = in_words(error)
    if fault is None:
        end_in_order()
        raise error
    # what befell this process alone is said at once: no other one can know of it
    return _ended("; ".join([fault, *_notes(error)]), 2, wait=fault == PEER_ENDED)


def _stopped(error: BaseException) -> int:
    """The line of a signal that came when no verb was at work; typer makes an error of its own."""
    from samtune.interrupts.signals import exit_code_of, words_of

    signalled = error if isinstance(error, KeyboardInterrupt) else error.__context__
    if not isinstance(signalled, KeyboardInterrupt):
        return _ended("interrupted", INTERRUPTED)
    return _ended(words_of(signalled), exit_code_of(signalled))


def _shortened(line: str) -> str:
    """A line without the middle of very long words and values; rule and remedy stay.

    What a refusal repeats may be of any length, as a value that was pasted or read from a file.
    """
    line = re.sub(rf"\S{{{WORD},}}", lambda word: _without_middle(word[0], WORD), line)
    return _without_middle(line, LINE)


def _without_middle(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}... ({len(text)} characters) ...{text[-most // 4 :]}"


def _notes(error: BaseException) -> list[str]:
    """Notes that were added to an error on its way, such as how to continue."""
    return getattr(error, "__notes__", [])


def _ended(line: str, code: int, wait: bool = True) -> int:
    from samtune import distributed
    from samtune.distributed import is_main, lost_processes

    if is_main() and distributed.others_have_spoken():  # of what ends this process too
        distributed.end_in_order()
        return code
    # Signals reach all of them at once, and the launcher too.
    speaks = is_main() or 0 in lost_processes() or not wait
    speaks = speaks or (code < SIGNALLED and not distributed.main_has_spoken())
    if speaks:
        if lost := lost_processes():
            line = f"process {lost[0]}, counted from 0, was killed or ran out of memory; {line}"
        with suppress(OSError):  # the terminal may be gone
            print(f"samtune: {_shortened(line)}", file=sys.stderr, flush=True)
    distributed.end_in_order(speaks)
    return code
