"""Numbers of bytes, as people write them and of files on disk."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

_UNITS = {
    "": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate(("", "k", "m", "g", "t"))},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([a-zA-Z]*)")


def bytes_in(text: str) -> int | None:
    """The number of bytes in words such as ``8GB``, ``1.5 GiB`` or ``8000000000``; else ``None``.

    Args:
        text: A number with or without a unit, in capitals or not.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    return None if match is None or unit is None else int(float(match[1]) * unit)


def bytes_on_disk(folder: Path, ending: str) -> int:
    """The bytes of the files below a folder whose names have an ending, which others may remove."""
    total = 0
    for path in folder.rglob(f"*{ending}"):
        with suppress(OSError):  # it was removed meanwhile
            total += path.stat().st_size
    return total
