"""Settings as a command line takes them, in paragraphs for a person."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from samtune.options import as_yaml

READABLE = 80
"""Columns of a paragraph of settings."""


def words_of(key: str, value: Any) -> list[str]:
    """A setting that is set, or each in a group, as ``key=value`` with the whole key."""
    if isinstance(value, Mapping):
        return [word for inner, v in value.items() for word in words_of(f"{key}.{inner}", v)]
    if value is None or value in ([], ""):
        return []
    return [f"{key}={shlex.quote(_value(value))}"]


def paragraph(words: Sequence[str], indent: str = " ", first: str = "") -> str:
    """Words in lines of at most :data:`READABLE` columns where they can be.

    Args:
        words: At least one.
        indent: Before each line but the first.
        first: Before the first line.
    """
    lines = [f"{first}{words[0]}"]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) > READABLE:
            lines.append(f"{indent}{word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def _value(value: Any) -> str:
    if not isinstance(value, list):
        return as_yaml(value)
    joined = ",".join(map(as_yaml, value))
    if value == [joined]:
        return joined
    # Without brackets one number is no list, and a text with spaces or slashes stays whole.
    return joined if "," in joined and not any(c in joined for c in " /\\") else f"[{joined}]"
