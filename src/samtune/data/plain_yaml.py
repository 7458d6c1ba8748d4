"""YAML as people write it: a key that is there twice is refused, and words can stay words."""

from __future__ import annotations

from typing import Any

import yaml

from samtune.texts import parse_yaml


def check_keys(node: yaml.MappingNode) -> None:
    """Refuses a mapping with a key twice, of which YAML's readers take the last without a word.

    Raises:
        yaml.YAMLError: It names the key and its line.
    """
    keys: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in keys:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: the key {key.value} is there twice")
            keys.add(key.value)


class WordLoader(yaml.BaseLoader):
    """All scalars as they are written: YAML takes yes, no and 007 for other things."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys differ."""
        check_keys(node)
        return super().construct_mapping(node, deep=deep)


def as_words(text: str) -> Any:
    """A YAML text with all its scalars as texts.

    Raises:
        yaml.YAMLError: It is not YAML, or has a key twice.
    """
    return parse_yaml(text, WordLoader)


def reason_of(error: Exception) -> str:
    """What is wrong with a YAML text, with its line, for one line of a message."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error).splitlines()[0]
    return f"line {mark.line + 1}: {getattr(error, 'problem', None) or 'not readable'}"
