"""Messages in the words of Python: ``input={'size': 512}`` for ``input.size=512``.

A rule is written once, with the names of settings that a command line has. Whoever calls samtune
from Python reads those that Python has: a field of a dataclass by its name, an option of a method
in the argument that takes it.
"""

from __future__ import annotations

import functools
import re
import sys
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from types import MappingProxyType
from typing import Any, TypeVar

from samtune.errors import InputError, is_of_samtune

SCHEMAS: list[Any] = []
"""All classes of settings, which enter themselves."""
Function = TypeVar("Function", bound=Callable[..., Any])

ARGUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "adapter.name": "adapter",
        "decoder.name": "decoder",
        "base.name": "base",
        "base.weights": "base",
        "base.download": "download",
        "base.any": "any_base",
        "prompts.train": "prompts",
        "prompts.eval": "prompts",
    }
)
"""Settings for which functions have an argument of another name."""
MAPPINGS: Mapping[str, str] = MappingProxyType(
    {"adapter": "adapter_options", "decoder": "decoder_options", "input": "input"}
)
"""Sections whose settings an argument takes by name, as in ``adapter_options={"rank": 8}``."""
_CONSTANTS = {"true": "True", "false": "False", "null": "None"}
_VALUE = r"(?:\[[^\]]*\]|\{[^}]*\}|(?:[^\s;:,()]|[:,](?=\S))+)"
_SETTING = re.compile(
    rf"(?<![\w./'\"-])([a-z]+)\.([a-z_]\w*(?:\.[a-z_]\w*)*)(?:=({_VALUE})|\b(?!\(|\.\w))"
)
_FLAG = re.compile(rf"(?<!\S)--([a-z][a-z-]*)(?:[= ]({_VALUE}))?")
_RULE = re.compile(r"\bmust be [^;]*")
_SWITCH = re.compile(r"\b(?:true|false)\b")
_BOTH = re.compile(r" \(in Python [^()]*(?:\([^()]*\)[^()]*)*\)")


def in_python(text: str, arguments: Mapping[str, str] | None = None, section: str = "") -> str:
    """A message with the names that Python has for settings of a command line.

    Args:
        text: The message.
        arguments: Settings for which the called function has an argument, with its name.
        section: The section whose settings are the fields of the dataclass that is made.
    """
    names = {**ARGUMENTS, **(arguments or {})}
    plain = {(row.section, each.name) for row in SCHEMAS for each in fields(row)}

    def renamed(match: re.Match[str]) -> str:
        group, name, value = match.groups()
        end = "." if value and value.endswith(".") else ""
        value = value.removesuffix(".") if value else None
        key = f"{group}.{name}"
        if group == section and (group, name) in plain:
            return _assigned(name, value) + end
        if key in names:
            return _assigned(names[key], value) + end
        if group in MAPPINGS and (group != "input" or (group, name) in plain):
            return _within(MAPPINGS[group], name.split("."), value, match[0]) + end
        if (group, name) in plain or group == "format":
            return _assigned(name, value) + end
        return match[0]

    def argument(match: re.Match[str]) -> str:
        name, value = match.groups()
        return _assigned(name.replace("-", "_"), None if value is None else _quoted(value))

    text = _RULE.sub(lambda rule: _SWITCH.sub(_capital, rule[0]), _BOTH.sub("", text))
    return _FLAG.sub(argument, _SETTING.sub(renamed, text))


@contextmanager
def as_typed_in_python(schema: Any) -> Iterator[None]:
    """Errors within name the fields of a dataclass without its section, as Python does.

    Raises:
        InputError: With such names.
    """
    try:
        yield
    except InputError as error:
        error.args = (in_python(str(error), section=schema.section),)
        raise


def _capital(word: re.Match[str]) -> str:
    return word[0].capitalize()


def _assigned(name: str, value: str | None) -> str:
    return name if value is None else f"{name}={_CONSTANTS.get(value, value)}"


def _within(argument: str, names: list[str], value: str | None, text: str) -> str:
    """A setting among those that an argument takes, as ``input={'size': 512}``."""
    if value is None:
        is_file = names[-1] in ("onnx", "pt", "pt2", "yaml", "json", "safetensors")
        return text if is_file else argument + "".join(f"[{name!r}]" for name in names)
    inner = _quoted(value)
    for name in reversed(names):
        inner = f"{{{name!r}: {inner}}}"
    return f"{argument}={inner}"


def _quoted(value: str) -> str:
    """A value of a command line as Python writes it; what stands for a value stays."""
    if value in _CONSTANTS:
        return _CONSTANTS[value]
    if value.isupper() or value[0] in "[{<'\"" or value == "...":
        return value
    try:
        literal_eval(value)
    except (ValueError, SyntaxError):
        return repr(value)
    return value


def speaks_python(arguments: Mapping[str, str] | None = None) -> Callable[[Function], Function]:
    """Has a function that users call raise its errors in the words of Python.

    Calls from within samtune, as a command's, are told in those of the command line.

    Args:
        arguments: Settings that the function takes as arguments of its own, with their names.
    """

    def speaking(function: Function) -> Function:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except InputError as error:
                if not is_of_samtune(sys._getframe(1)):
                    error.args = (in_python(str(error), arguments),)
                raise

        return call  # type: ignore[return-value]

    return speaking
