"""What is wrong with the files of a data set: raised one by one, or collected by a check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from samtune.errors import InputError


@dataclass(frozen=True)
class Finding:
    """One thing about one file."""

    file: str
    kind: str
    """In two or three words, the same for all files that it holds for."""
    what: str
    remedy: str


_COLLECTED: ContextVar[list[InputError] | None] = ContextVar("collected", default=None)
_REMARKED: ContextVar[list[Finding] | None] = ContextVar("remarks", default=None)


class DataError(InputError):
    """Files against the rules, as one line that names the file, what is wrong, and the remedy.

    Args:
        file: The file or folder that the message names.
        kind: What is wrong in two or three words, the same for all files it happens to.
        what: What is wrong, with the values met.
        remedy: What to do.
        files: All files that it holds for, where the message names their folder.
    """

    def __init__(
        self,
        file: Path | str,
        kind: str,
        what: str,
        remedy: str,
        files: Sequence[Path] = (),
    ) -> None:
        super().__init__(f"{file}: {what}; {remedy}")
        self.file, self.kind, self.what, self.remedy = str(file), kind, what, remedy
        self.files = tuple(str(each) for each in files) or (self.file,)


def of_files(error: InputError, root: Path | str) -> DataError:
    """An error as one of files: its line taken apart, of the ``root`` where it names no file."""
    if isinstance(error, DataError):
        return error
    file, colon, rest = str(error).partition(": ")
    what, semicolon, remedy = (rest if colon else file).rpartition("; ")
    if not semicolon:
        what, remedy = remedy, "see what the message names"
    return DataError(file if colon else root, "against the rules", what, remedy)


def complain(error: InputError) -> None:
    """Raises the error; inside :func:`complaints` it notes it instead, and the caller goes on.

    Raises:
        InputError: The error itself.
    """
    found = _COLLECTED.get()
    if found is None:
        raise error
    found.append(error)


@contextmanager
def complaints() -> Iterator[list[InputError]]:
    """Gathers what is complained of inside the block, raised errors too, which end the block."""
    found: list[InputError] = []
    token = _COLLECTED.set(found)
    try:
        yield found
    except InputError as error:
        found.append(error)
    finally:
        _COLLECTED.reset(token)


def remark(file: Path | str, kind: str, what: str, remedy: str) -> None:
    """Notes what training bears and somebody should know; outside :func:`remarks` it is dropped.

    Args:
        file: The file that it is about.
        kind: In two or three words, the same for all files that it holds for.
        what: What was met.
        remedy: What to do, or why nothing need be done.
    """
    noted = _REMARKED.get()
    if noted is not None:
        noted.append(Finding(str(file), kind, what, remedy))


@contextmanager
def remarks() -> Iterator[list[Finding]]:
    """Gathers what is remarked inside the block, in this thread."""
    noted: list[Finding] = []
    token = _REMARKED.set(noted)
    try:
        yield noted
    finally:
        _REMARKED.reset(token)
