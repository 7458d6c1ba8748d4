"""Lines that a later call reads again, each with a checksum of the whole line."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

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


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)
