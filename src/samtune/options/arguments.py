"""Checks of arguments that functions take in Python, in the words of their callers."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from samtune.errors import InputError


def text_of_value(value: Any) -> str:
    """A value of a wrong type, for a message: a text as it is, else the name of its type."""
    return repr(value) if isinstance(value, str) else type(value).__name__


def check_whole(name: str, value: Any, at_least: int) -> None:
    """Refuses what is not a whole number, or is too small a one.

    Raises:
        InputError: With the rule.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise InputError(f"{name}={value!r}: must be a whole number, {at_least} or more")


def check_switch(name: str, value: Any) -> None:
    """Refuses what is neither True nor False, as a text, which Python would take for True.

    Raises:
        InputError: With the rule.
    """
    if value is not True and value is not False:
        raise InputError(f"{name}={value!r}: must be True or False")


def check_made_as(name: str, value: Any, schema: type, example: str) -> None:
    """Refuses what is not an instance of a class of settings, such as a dictionary of them.

    Args:
        name: The argument.
        value: Its value; ``None`` stands for the defaults.
        schema: The class.
        example: How one is made, as ``samtune.FitConfig(epochs=20)``.

    Raises:
        InputError: With the class and the example.
    """
    if value is not None and not isinstance(value, schema):
        article = "an" if schema.__name__[0] in "AEIO" else "a"
        raise InputError(
            f"{name}={value!r}: must be {article} {schema.__name__}, as in {name}={example}"
        )


def check_rows(name: str, value: Any, sides: tuple[int | None, ...]) -> None:
    """Refuses a tensor of ``N`` things whose other sides are not as stated.

    Args:
        name: The argument.
        value: Its value; ``None`` if it is left out.
        sides: The sides after the first; ``None`` is any number.

    Raises:
        InputError: Another shape, or no tensor of torch.
    """
    if value is None:
        return
    rule = f"must be a tensor ({', '.join(['N', *('n' if s is None else str(s) for s in sides)])})"
    if not hasattr(value, "is_floating_point"):
        raise InputError(f"{name}={type(value).__name__}: {rule}; make it with torch.as_tensor")
    shape = tuple(value.shape)
    fits = len(shape) == len(sides) + 1
    if not fits or any(s not in (None, n) for s, n in zip(sides, shape[1:], strict=True)):
        hint = f"; one alone is {name}[None]" if len(shape) == len(sides) else ""
        raise InputError(f"{name} of shape {shape}: {rule}{hint}")
