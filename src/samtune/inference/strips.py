"""The strips of a raster's mask that are done, from which a stopped prediction goes on.

A TIFF has its list of blocks at its end, so one that was cut off cannot be continued. Strips are
therefore collected in a file of their own, each with its window, and checksums of both.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from samtune.files import write_whole
from samtune.inference.checked_lines import append, changed_meanwhile, checked_line, content_of
from samtune.ops.tiling import Window

_LONGEST = 1000
"""Maximum number of bytes in a line."""
_LEVEL = 1
"""Level of the compression: masks are mostly even, so the fastest one shrinks them enough."""


class Strips:
    """A file with the strips of one mask; it is there until :meth:`remove`.

    An incomplete or damaged strip is dropped with what follows it, and so are those of another
    prediction.

    Args:
        path: The file.
        identity: A digest of everything that affects the mask; an empty one begins anew.
        kind: The values' kind.
        remedy: See :func:`samtune.files.replacing`.
    """

    def __init__(self, path: Path, identity: str, kind: DTypeLike, remedy: str) -> None:
        self.path, self.kind, self.remedy = path, np.dtype(kind), remedy
        self.windows: list[Window] = []
        """The place of each strip, in the order of the file."""
        first = f"{json.dumps({'of': identity})}\n".encode()
        end = self._read(first) if identity else 0
        if not end:
            write_whole(path, first, remedy)
        elif end < path.stat().st_size:
            with path.open("r+b") as file:
                file.truncate(end)

    def add(self, window: Window, values: NDArray[np.integer]) -> None:
        """Appends a strip.

        Args:
            window: ``(y0, x0, y1, x1)`` in pixels.
            values: ``(y1 - y0, x1 - x0)``.

        Raises:
            OutputError: The disk is full.
        """
        packed = zlib.compress(values.astype(self.kind).tobytes(), _LEVEL)
        about = {"window": window, "bytes": len(packed), "checksum": zlib.crc32(packed)}
        append(self.path, checked_line(about) + packed, self.remedy)
        self.windows.append(window)

    def __iter__(self) -> Iterator[tuple[Window, NDArray[np.integer]]]:
        with self.path.open("rb") as file:
            file.readline(_LONGEST)
            count = 0
            for count, (window, packed) in enumerate(_strips(file), 1):  # noqa: B007
                y0, x0, y1, x1 = window
                values = np.frombuffer(zlib.decompress(packed), self.kind)
                yield window, values.reshape(y1 - y0, x1 - x0)
        if count < len(self.windows):
            raise changed_meanwhile(self.path)

    def remove(self) -> None:
        """Removes the file."""
        self.path.unlink(missing_ok=True)

    def _read(self, first: bytes) -> int:
        """Reads where the strips lie, and returns the end of the last complete one."""
        end = 0
        with suppress(OSError), self.path.open("rb") as file:
            if file.readline(_LONGEST) != first:
                return 0
            end = file.tell()
            for window, _ in _strips(file):
                self.windows.append(window)
                end = file.tell()
        return end


def _strips(file: IO[bytes]) -> Iterator[tuple[Window, bytes]]:
    """The windows and the packed values, up to the first strip that is incomplete or damaged."""
    while line := file.readline(_LONGEST):
        about = content_of(line)
        if about is None:
            return
        packed, (y0, x0, y1, x1) = file.read(about["bytes"]), about["window"]
        if zlib.crc32(packed) != about["checksum"]:
            return
        yield (y0, x0, y1, x1), packed
