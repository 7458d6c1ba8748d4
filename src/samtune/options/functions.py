"""Functions that a user gives: what they can be called with, seen before they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from samtune.errors import InputError, nearest


def name_of(function: Any) -> str:
    """A function's or an object's name, for messages."""
    name = getattr(function, "__name__", type(function).__name__)
    return "a lambda" if name == "<lambda>" else str(name)


def further_inputs(
    function: Callable[..., Any], what: str, inputs: Sequence[str], by_name: Sequence[str] = ()
) -> tuple[str, ...]:
    """The further inputs that a function takes, which are passed by their names.

    Args:
        function: The user's function; of a module of torch its ``forward`` counts.
        what: The argument that it was given as, for messages.
        inputs: The inputs that it is called with, in this order.
        by_name: The further inputs that it may take, by parameters of these names.

    Raises:
        InputError: It takes fewer inputs, or needs one that nothing gives.
    """
    if not callable(function):
        raise InputError(
            f"{what}={function!r}: is no function; give one that takes ({', '.join(inputs)})"
        )
    try:
        called = getattr(function, "forward", function)
        parameters = list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):  # some functions in C do not say
        return ()
    ordered = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = [p for p in parameters if p.kind in ordered]
    many = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    gets = f"it is called with ({', '.join(inputs)})"
    if by_name:
        gets += f", and by name with {' and '.join(by_name)}"
    if len(places) < len(inputs) and not many:
        takes = ", ".join(p.name for p in places)
        raise InputError(
            f"{what}: {name_of(function)} takes ({takes}), but {gets}; put it into a function of "
            "these"
        )
    others = [p for p in parameters if p not in places[: len(inputs)] and "VAR" not in p.kind.name]
    for parameter in others:
        if parameter.name not in by_name and parameter.default is inspect.Parameter.empty:
            raise InputError(
                f"{what}: {name_of(function)} needs {parameter.name}, but {gets}"
                f"{nearest(parameter.name, by_name) or '; put it into a function of these'}"
            )
    return tuple(p.name for p in others if p.name in by_name)
