"""Images and masks that are not picture files themselves: a volume's slice, a drawn polygon."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from samtune.files import as_path


@dataclass(frozen=True)
class Stored(ABC):
    """An image or mask within a file, which is read on demand.

    Subclasses are frozen dataclasses of plain values, so that they can be compared, hashed and
    sent to the processes that load data. Errors of reading may be of any of the usual kinds
    (``OSError``, ``ValueError``, ``KeyError``); they become one line that names ``path``.
    """

    path: Path
    """The file that messages name."""
    lies_in_files: ClassVar[bool] = True
    """Whether the files that the fields name, and these values, decide what is read."""

    @abstractmethod
    def read(self) -> NDArray:
        """``(h, w)`` or ``(h, w, channels)`` as stored, any bit depth."""

    def size(self) -> tuple[int, int]:
        """Height and width; subclasses override it if they know them without reading everything."""
        height, width = self.read().shape[:2]
        return height, width

    def object_classes(self) -> tuple[int, ...] | None:
        """The class of object ``k + 1`` of an instance map at index ``k``; or ``None``."""
        return None

    def window(self) -> tuple[float, float] | None:
        """The display window (values of black and of white) stored in the file; usually none."""
        return None

    @property
    def lossy(self) -> bool:
        """Whether the compression changes values, as JPEG's does."""
        return False


def path_of(source: Path | Stored) -> Path:
    """The file that messages name."""
    return source.path if isinstance(source, Stored) else source


def as_source(source: str | Path | Stored) -> Path | Stored:
    """A file as a user names it, or an image within one."""
    return source if isinstance(source, Stored) else as_path(source)


def files_of(value: Any) -> Iterator[Path]:
    """The files from which an image or mask is read, as far as its values name them.

    Args:
        value: A path, an image within a file, or a tuple of such.
    """
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Stored):
        for each in fields(value):
            yield from files_of(getattr(value, each.name))
    elif isinstance(value, tuple):
        for part in value:
            yield from files_of(part)
