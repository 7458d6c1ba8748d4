"""Text, JSON and YAML from elsewhere, read with limits on size and nesting.

Only files are read, never devices or pipes, which may have no end. Text that is nested too deeply
for Python, or repeats itself until memory is full, is refused with the same errors as malformed
text.
"""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

MOST_BYTES = 2**32
"""Largest size of a file; a list that a person or a tool wrote is never larger."""
MOST_NODES = 5_000_000
"""Largest number of values in a YAML text; values repeated by an alias count each time."""
TOO_DEEP = "it is nested too deeply"


def read_bytes(path: str | Path) -> bytes:
    """Reads the content of a file.

    Raises:
        OSError: It is missing, not a file, or too large.
    """
    path = Path(path)
    size = path.stat().st_size
    if not path.is_file():
        raise OSError(errno.EINVAL, "is not a file", str(path))
    if size > MOST_BYTES:
        raise OSError(errno.EFBIG, f"has {size} bytes, too large for a list", str(path))
    return path.read_bytes()


def read_text(path: str | Path, errors: str = "strict") -> str:
    """Reads a file of UTF-8 text, with or without a byte-order mark.

    Raises:
        OSError: See :func:`read_bytes`.
        UnicodeDecodeError: The text has another encoding.
    """
    return read_bytes(path).decode("utf-8-sig", errors).replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        OSError: See :func:`read_bytes`.
        ValueError: See :func:`parse_json`; or the text has another encoding.
    """
    return parse_json(read_text(path))


def parse_json(
    text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Parses a JSON text.

    Args:
        text: The whole text.
        pairs: Called with an object's members; by default they become
            a dictionary.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def parse_csv(
    lines: Iterable[str], delimiter: str = ",", skip_spaces: bool = False
) -> Iterator[list[str]]:
    """Parses the lines of a table.

    Args:
        lines: Its lines.
        delimiter: The character between two cells.
        skip_spaces: Whether spaces after a delimiter are left out.

    Raises:
        ValueError: A cell is too long.
    """
    try:
        yield from csv.reader(lines, delimiter=delimiter, skipinitialspace=skip_spaces)
    except csv.Error as error:
        raise ValueError(str(error)) from None


def parse_yaml(text: str, loader: Any = None) -> Any:
    """Parses a YAML text.

    Args:
        text: All of it.
        loader: A class of PyYAML, by default its ``SafeLoader``.

    Raises:
        yaml.YAMLError: It is not YAML, a tag does not fit its value, it is nested too deeply, or
            its aliases make it too large.
    """
    import yaml

    reader = (loader or yaml.SafeLoader)(text)
    try:
        node = reader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > MOST_NODES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_NODES} values")
        return reader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError(TOO_DEEP) from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        # PyYAML does not check the value of a tag such as !!int or !!timestamp
        raise yaml.YAMLError(f"a tag does not fit its value ({error})") from error
    finally:
        reader.dispose()


def _values(node: Any, counted: dict[int, float]) -> float:
    """Number of values that a node stands for; infinite if it contains itself."""
    if id(node) not in counted:
        counted[id(node)] = float("inf")
        inner = node.value if isinstance(node.value, list) else []
        parts = [part for each in inner for part in (each if isinstance(each, tuple) else (each,))]
        counted[id(node)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(node)]
