"""The meaning of a setting's text: a literal name or path, or a YAML value."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from samtune.model.packages import REGISTRIES
from samtune.runs.config import RunConfig
from samtune.runs.setting_names import SettingNames
from samtune.runs.values import Kind, Loader, value_in
from samtune.texts import parse_yaml
from samtune.texts.plain_yaml import as_words


@cache
def kind_of_setting(key: str) -> Kind:
    """See :meth:`.SettingNames.kind`."""
    return SettingNames(RunConfig, REGISTRIES).kind(key)


def value_of(key: str, text: str) -> Any:
    """The value of a setting written as ``key=text``.

    A name or a path is literal, except for quotes around all of it; an empty text or ``null`` is
    none.

    Raises:
        InputError: The value of a non-text setting is not YAML.
    """
    return value_in(key, text, kind_of_setting(key))


def tree_of(text: str) -> Any:
    """A YAML file's content, with names and paths as written.

    ``root: 2024``, ``name: no`` and ``root: 2024-01-01`` are texts; ``null`` and ``~`` are none.

    Raises:
        yaml.YAMLError: It is not YAML.
    """
    return copy.deepcopy(_tree_of(text))


@lru_cache(maxsize=16)
def _tree_of(text: str) -> Any:
    """Parses a text, cached: a command reads a run's file several times, and parsing is slow."""
    return _as_written(parse_yaml(text, Loader), as_words(text), "")


def _as_written(value: Any, texts: Any, key: str) -> Any:
    """A tree with the written form of each scalar whose setting is a text."""
    if isinstance(value, Mapping) and isinstance(texts, Mapping):
        return {
            name: _as_written(inner, texts.get(str(name)), f"{key}.{name}" if key else str(name))
            for name, inner in value.items()
        }
    kind = kind_of_setting(key) if key else "yaml"
    if isinstance(value, list) and isinstance(texts, list) and kind == "texts":
        return [_text(v, w) for v, w in zip(value, texts, strict=True)]
    return value if kind == "yaml" else _text(value, texts)


def _text(value: Any, texts: Any) -> Any:
    plain = value is None or isinstance(value, str | list | Mapping)
    return texts if not plain and isinstance(texts, str) else value
