"""Text, JSON and YAML that others wrote, read within bounds.

Only files are read, never devices or pipes, which may have no end. What is nested so deeply that it
would exhaust Python, or says the same thing so often that it would exhaust memory, is refused like
text of another form: with the errors that readers of such text have anyway.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_BYTES = 2**32
"""Larger files are no lists that a person or a tool wrote."""
MOST_NODES = 5_000_000
"""Values of a YAML text, those that are repeated by an alias counted each time."""
TOO_DEEP = "it is nested too deeply"


def read_bytes(path: str | Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: It is not there, no file, or larger than any list.
    """
    path = Path(path)
    size = path.stat().st_size
    if not path.is_file():
        raise OSError(errno.EINVAL, "is no file", str(path))
    if size > MOST_BYTES:
        raise OSError(errno.EFBIG, f"has {size} bytes, more than any list", str(path))
    return path.read_bytes()


def read_text(path: str | Path, errors: str = "strict") -> str:
    """The content of a file of UTF-8 text, with or without a byte-order mark.

    Raises:
        OSError: As :func:`read_bytes`.
        UnicodeDecodeError: It is of another encoding.
    """
    return read_bytes(path).decode("utf-8-sig", errors).replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: As :func:`read_bytes`.
        ValueError: As :func:`parse_json`, or text of another encoding.
    """
    return parse_json(read_text(path))


def parse_json(
    text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """The value of a JSON text.

    Args:
        text: All of it.
        pairs: Makes something else than a dictionary of an object's members.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def parse_yaml(text: str, loader: Any = None) -> Any:
    """The value of a YAML text.

    Args:
        text: All of it.
        loader: A class of PyYAML, by default its ``SafeLoader``.

    Raises:
        yaml.YAMLError: It is not YAML, has a tag whose value is of another type, is nested too
            deeply, or repeats itself by aliases until it is too large.
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
        # PyYAML takes the value of a tag such as !!int or !!timestamp for granted
        raise yaml.YAMLError(f"a tag does not fit its value ({error})") from error
    finally:
        reader.dispose()


def _values(node: Any, counted: dict[int, float]) -> float:
    """How many values a node stands for; infinitely many if it is part of itself."""
    if id(node) not in counted:
        counted[id(node)] = float("inf")
        inner = node.value if isinstance(node.value, list) else []
        parts = [part for each in inner for part in (each if isinstance(each, tuple) else (each,))]
        counted[id(node)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(node)]
