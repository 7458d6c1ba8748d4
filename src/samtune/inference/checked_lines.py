"""Files that grow line by line and that a later call reads again, with a checksum in each line."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from samtune.errors import OutputError
from samtune.texts import parse_json

_DIGITS = 8
"""Digits of the checksum, before a space and the content."""


def checked_line(content: Mapping[str, Any]) -> bytes:
    """A line with a JSON object, and its checksum before it."""
    text = json.dumps(content).encode("ascii")
    return b"%s %s\n" % (_checksum(text), text)


def content_of(line: bytes) -> dict[str, Any] | None:
    """The object of a line of :func:`checked_line`; ``None`` if it is cut off or has changed."""
    checksum, space, text = line[:_DIGITS], line[_DIGITS : _DIGITS + 1], line[_DIGITS + 1 : -1]
    if space != b" " or line[-1:] != b"\n" or checksum != _checksum(text):
        return None
    with suppress(ValueError):
        content = parse_json(text)
        return content if isinstance(content, dict) else None
    return None


def append(path: Path, content: bytes, remedy: str) -> int:
    """Appends to a file, and returns where that begins.

    Raises:
        OutputError: The disk is full.
    """
    try:
        with path.open("ab") as file:
            place = file.tell()
            file.write(content)
    except OSError as error:
        message = f"{path}: could not be written ({error.strerror}); {remedy}"
        raise OutputError(message) from error
    return place


def changed_meanwhile(path: Path) -> OutputError:
    """The error about a file that is not as this process has written it."""
    return OutputError(f"{path}: has changed meanwhile; give the same command again")


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)
