"""Problems of a data set's files: raised one by one, or collected by a check."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samtune.errors import InputError


@dataclass(frozen=True)
class Finding:
    """One finding about one file."""

    file: str
    kind: str
    """The kind in two or three words, shared by all files with this finding."""
    what: str
    remedy: str


_COLLECTED: ContextVar[list[InputError] | None] = ContextVar("collected", default=None)
_REMARKED: ContextVar[list[Finding] | None] = ContextVar("remarks", default=None)


class DataError(InputError):
    """Files that violate the rules, as one line with the file, the problem and the remedy.

    Args:
        file: The file or folder that the message names.
        kind: The kind of problem in two or three words, shared by all files that have it.
        what: The problem, with the values found.
        remedy: The action that solves it.
        files: All files with the problem, if the message names their folder.
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
    """An error split into a finding; it belongs to the ``root`` if its line names no file."""
    if isinstance(error, DataError):
        return error
    file, colon, rest = str(error).partition(": ")
    what, semicolon, remedy = (rest if colon else file).rpartition("; ")
    if not semicolon:
        what, remedy = remedy, "see the message"
    return DataError(file if colon else root, "against the rules", what, remedy)


def complain(error: InputError) -> None:
    """Raises the error; inside :func:`complaints` it records the error instead and continues.

    Raises:
        InputError: The error itself.
    """
    found = _COLLECTED.get()
    if found is None:
        raise error
    found.append(error)


@contextmanager
def complaints() -> Iterator[list[InputError]]:
    """Collects the errors that are recorded or raised inside the block; a raised one ends it."""
    found: list[InputError] = []
    token = _COLLECTED.set(found)
    try:
        yield found
    except InputError as error:
        found.append(error)
    finally:
        _COLLECTED.reset(token)


def remark(file: Path | str, kind: str, what: str, remedy: str) -> None:
    """Records a finding that does not stop training; outside :func:`remarks` it is dropped.

    Args:
        file: The file.
        kind: The kind in two or three words, shared by all files with this finding.
        what: The finding.
        remedy: The action to take, or the reason why none is needed.
    """
    noted = _REMARKED.get()
    if noted is not None:
        noted.append(Finding(str(file), kind, what, remedy))


def remark_invisible(
    file: Path,
    areas: Sequence[int] | NDArray[np.integer],
    on_top: NDArray[np.integer],
    names: Sequence[str] = (),
    crowds: Container[int] = (),
) -> None:
    """Remarks objects that draw nothing, and objects that others cover completely.

    Args:
        file: The file that holds them.
        areas: The pixel count of each object.
        on_top: ``(h, w)``: ``k + 1`` where object ``k`` is the uppermost.
        names: The names of the objects within the file, if it has some.
        crowds: The indices of those that are no objects.
    """
    visible = np.bincount(on_top.ravel(), minlength=len(areas) + 1)[1:]
    hidden = [i for i, seen in enumerate(visible) if not seen and i not in crowds]
    for kind, which, what in (
        ("draws nothing", [i for i in hidden if not areas[i]], "lie outside or have no area"),
        ("covered object", [i for i in hidden if areas[i]], "lie wholly under others"),
    ):
        if which:
            first = f", {names[which[0]]} the first" if names and names[which[0]] else ""
            said = f"{len(which)} of {len(areas)} objects {what}{first}"
            remark(file, kind, said, "legal; remove them, or draw them again")


@contextmanager
def remarks() -> Iterator[list[Finding]]:
    """Collects the remarks made inside the block, in this thread."""
    noted: list[Finding] = []
    token = _REMARKED.set(noted)
    try:
        yield noted
    finally:
        _REMARKED.reset(token)
