"""The names, types and ranges of all settings, without torch and without what they set.

``settings.json`` has them as text, written by ``docs/generate.py``. From it dataclasses are made
that are checked by the same functions as those of a run.
"""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from samtune.options import Range, SwitchOrName, as_yaml
from samtune.registry import no_such_name
from samtune.runs.setting_names import SettingNames

FILE = "settings.json"
"""The file with the result of :func:`index`."""
_WORDS = {
    "Annotated": Annotated, "Any": Any, "Literal": Literal, "Range": Range,
    "SwitchOrName": SwitchOrName,
}  # fmt: skip
"""The words in the text of a type, besides Python's own."""


def index() -> dict[str, Any]:
    """The settings of a run, and the options of every method and decoder, as plain values."""
    from samtune.model.packages import REGISTRIES
    from samtune.runs.config import RunConfig

    parts = {
        kind: {name: _group(registry[name].Config) for name in registry}
        for kind, registry in REGISTRIES.items()
    }
    return {"settings": _group(RunConfig), "parts": parts}


def _group(schema: Any) -> dict[str, Any]:
    """The fields of a dataclass of settings, and their former names."""
    from samtune.options.fields import names_of

    hints = get_type_hints(schema, include_extras=True)
    fields = {}
    for row in dataclasses.fields(schema):
        about: dict[str, Any] = {"type": _text_of(hints[row.name])}
        if dataclasses.is_dataclass(hints[row.name]):
            about = _group(hints[row.name])
        elif row.default is not dataclasses.MISSING:
            about["default"] = repr(row.default)
        names: Any = names_of(row)
        if names is not None:
            about |= {"key": names.key, "names": [*names]}
        fields[row.name] = about
    former = dict(getattr(schema, "former_names", {}))
    return {"fields": fields, **({"former": former} if former else {})}


def _text_of(hint: Any) -> str:
    """A type as Python code, the same on every version of Python."""
    if hint == SwitchOrName:
        return "SwitchOrName"
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " | ".join(map(_text_of, parts))
    if origin is Annotated:
        marks = [_text_of_range(mark) for mark in hint.__metadata__]
        return f"Annotated[{', '.join([_text_of(parts[0]), *marks])}]"
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, parts))}]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_text_of, parts))}]"
    return {...: "...", type(None): "None"}.get(hint) or hint.__name__


def _text_of_range(mark: Range) -> str:
    rows = ((row.name, row.default, getattr(mark, row.name)) for row in dataclasses.fields(mark))
    return f"Range({', '.join(f'{name}={value!r}' for name, d, value in rows if value != d)})"


@dataclass(frozen=True)
class KnownNames:
    """Names that a setting takes, in the place of their registry."""

    key: str
    names: Sequence[str]

    def check(self, name: object) -> None:
        """Refuses a name that is none of them.

        Raises:
            InputError: As the registry's.
        """
        if (word := as_yaml(name)) not in self.names:
            raise no_such_name(self.key, word, self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)


@dataclass(frozen=True)
class Part:
    """A method or a decoder, of which only the options are known."""

    Config: type


class Parts(dict[str, Part]):
    """The methods or decoders by name."""


@cache
def setting_names() -> SettingNames:
    """The names of all settings, as :class:`SettingNames` has them from a run's settings."""
    read = json.loads((files("samtune.cli") / FILE).read_text("utf-8"))
    parts = {
        kind: Parts((name, Part(_dataclass_of(name, group))) for name, group in groups.items())
        for kind, groups in read["parts"].items()
    }
    return SettingNames(_dataclass_of("settings", read["settings"]), parts)


def _dataclass_of(name: str, group: Mapping[str, Any]) -> type:
    """The dataclass of a group."""
    rows: list[tuple[str, Any, Any]] = []
    for key, about in group["fields"].items():
        if "fields" in about:
            inner = _dataclass_of(key, about)
            rows.append((key, inner, dataclasses.field(default_factory=inner)))
            continue
        known = KnownNames(about["key"], about["names"]) if "names" in about else None
        default = ast.literal_eval(about["default"]) if "default" in about else None
        row = dataclasses.field(default=default, metadata={"names": known})
        if isinstance(default, list | dict):
            row = dataclasses.field(default_factory=default.copy, metadata={"names": known})
        rows.append((key, _type_of(about["type"]), row))
    space = {"former_names": group["former"]} if "former" in group else {}
    return dataclasses.make_dataclass(name, rows, namespace=space, frozen=True)


@cache
def _type_of(text: str) -> Any:
    """The type that a text of the file stands for."""
    return eval(text, dict(_WORDS))  # a file of samtune itself
