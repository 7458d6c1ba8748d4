"""The meaning of a setting's text: a literal name or path, or a YAML value."""

from __future__ import annotations

import copy
import dataclasses
import types
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from samtune.adapters import ADAPTERS
from samtune.data.plain_yaml import as_words, check_keys
from samtune.decoders import DECODERS
from samtune.errors import InputError
from samtune.runs.config import RunConfig
from samtune.texts import parse_yaml

Kind = Literal["text", "texts", "yaml"]
"""The kind of a setting's values: a name or path; a list of them; or anything else."""
_QUOTES = "'\""


class Loader(yaml.SafeLoader):
    """YAML whose whole numbers are decimal: ``010`` is ten, and ``1:30`` is text."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping with distinct keys."""
        check_keys(node)
        return super().construct_mapping(node, deep=deep)


Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if not tag.endswith((":int", ":timestamp"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    yaml.resolver.re.compile(r"[-+]?[0-9][0-9_]*$|[-+]?0x[0-9a-fA-F]+$"),  # type: ignore[attr-defined]
    list("-+0123456789"),
)


def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 16 if "0x" in text else 10)


Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


@cache
def kind_of_setting(key: str) -> Kind:
    """The kind of a setting's values by its type; ``yaml`` for unknown settings.

    For an option, all methods that have an option of this name decide.

    Args:
        key: As ``data.root`` or ``adapter.rank``.
    """
    part, dot, name = key.partition(".")
    schemas = list(_schemas(part)) if dot else [RunConfig]
    hints = [get_type_hints(schema, include_extras=True) for schema in schemas]
    kinds = {_kind(hint[name or part]) for hint in hints if (name or part) in hint}
    if part in ("adapter", "decoder") and name in ("", "name"):
        return "text" if name else "yaml"
    return kinds.pop() if len(kinds) == 1 else "yaml"


def value_of(key: str, text: str) -> Any:
    """The value of a setting written as ``key=text``.

    A name or a path is literal, except for quotes around all of it; an empty text or ``null`` is
    none.

    Raises:
        InputError: The value of a non-text setting is not YAML.
    """
    kind = kind_of_setting(key)
    bare = text.strip()
    if kind == "text" or (kind == "texts" and not bare.startswith("[")):
        if bare in ("", "null"):
            return None
        if kind == "texts" and "," in bare:
            return [_unquoted(part.strip()) for part in bare.split(",")]
        return _unquoted(text if bare else bare)
    try:
        if kind == "texts":
            return as_words(text)
        value = parse_yaml(text, Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{key}={text}: the value is not valid YAML; quote it") from error
    if isinstance(value, str) and "," in value and not any(c in value for c in " /\\"):
        return [parse_yaml(part, Loader) for part in value.split(",")]
    return value


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


def _unquoted(text: str) -> str:
    """The text without quotes around it, which a shell may have left."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES
    return text[1:-1] if quoted and text[0] not in text[1:-1] else text


def _schemas(part: str) -> Iterator[Any]:
    """The dataclasses that a group of settings may be."""
    for name, registry in (("adapter", ADAPTERS), ("decoder", DECODERS)):
        if part == name:
            yield from (registry[each].Config for each in registry)  # type: ignore[attr-defined]
    schema = get_type_hints(RunConfig).get(part)
    if dataclasses.is_dataclass(schema):
        yield schema


def _kind(hint: Any) -> Kind:
    members = list(_members(hint))
    texts = [m for m in members if m in (tuple[str, ...], list[str])]
    rest = [m for m in members if m not in (tuple[str, ...], list[str], type(None), str)]
    if rest:
        return "yaml"
    return "texts" if texts else "text"


def _members(hint: Any) -> Iterator[Any]:
    """The types that a value may have; a choice of words is text."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _members(get_args(hint)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _members(member)
    elif origin is Literal:
        yield from {type(choice) for choice in get_args(hint)}
    else:
        yield hint
