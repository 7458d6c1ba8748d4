"""One image with its mask, as files or parts of files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from samtune.data.stored import Stored, path_of


@dataclass(frozen=True)
class Record:
    """One image with its mask, if it has one."""

    image: Path | Stored
    mask: Path | Stored | None
    name: str
    """The stem of the image file, or another unique name."""
    group: str | None = None
    """The volume of which it is a slice; splits made by samtune keep it together."""

    @property
    def file(self) -> Path:
        """The file of the image, for messages."""
        return path_of(self.image)

    @property
    def label(self) -> str:
        """A distinguishing name for messages: the file's name, or for a slice its own."""
        return self.file.name if self.group is None else self.name
