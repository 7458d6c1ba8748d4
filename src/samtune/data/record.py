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
    """The image file's stem, or what stands for it."""
    group: str | None = None
    """The volume that it is a slice of; made splits do not part it."""

    @property
    def file(self) -> Path:
        """The file of the image, for messages."""
        return path_of(self.image)

    @property
    def label(self) -> str:
        """What tells it apart: the file's name, or of a slice its own."""
        return self.file.name if self.group is None else self.name
