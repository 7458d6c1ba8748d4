"""YAML as people write it: a repeated key is refused, and words can stay words."""

from __future__ import annotations

from typing import Any

import yaml

from samtune.texts import parse_yaml


def check_keys(node: yaml.MappingNode) -> None:
    """Refuses a mapping with a repeated key, because YAML readers silently use the last one.

    Raises:
        yaml.YAMLError: A key is repeated; the message names it and its line.
    """
    keys: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in keys:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: the key {key.value} appears twice")
            keys.add(key.value)


class WordLoader(yaml.BaseLoader):
    """Keeps all scalars as they are written: YAML converts yes, no and 007 to other values."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping with distinct keys."""
        check_keys(node)
        return super().construct_mapping(node, deep=deep)


def as_words(text: str) -> Any:
    """A YAML text with all its scalars as strings.

    Raises:
        yaml.YAMLError: It is not YAML, or has a key twice.
    """
    return parse_yaml(text, WordLoader)


def reason_of(error: Exception) -> str:
    """The reason why a YAML text is invalid, with its line, as part of a one-line message."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error).splitlines()[0]
    return f"line {mark.line + 1}: {getattr(error, 'problem', None) or 'not readable'}"
