"""The state of an optimiser or a schedule as JSON and tensors, whatever it is; never a pickle."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samtune.errors import InputError

KIND, CONTENT = "__kind__", "content"
"""The keys of what JSON has no form for."""
_LISTS: dict[str, Any] = {"tuple": tuple, "set": set, "deque": deque}
_DICTS: dict[str, Any] = {"dict": dict, "Counter": Counter, "defaultdict": dict}


def packed(value: Any, tensors: dict[str, Tensor], place: str) -> Any:
    """A value as JSON; its tensors are added to ``tensors``, under their place.

    Args:
        value: Numbers, texts, tensors, and lists and dictionaries of them.
        tensors: By name; what is packed adds to it.
        place: A name of the value, for messages and as the start of the tensors' names.

    Raises:
        InputError: Something else is in it, which only a pickle could keep.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {KIND: "float", CONTENT: str(value)}
    if isinstance(value, Tensor | np.ndarray):
        name = f"{place}#{len(tensors)}"
        tensors[name] = torch.as_tensor(value).detach().cpu().contiguous().clone()
        return {KIND: "tensor", CONTENT: name}
    if isinstance(value, Mapping):
        return _packed_mapping(value, tensors, place)
    if isinstance(value, list | tuple | set | deque):
        content = [packed(each, tensors, place) for each in value]
        kind = next((name for name, form in _LISTS.items() if isinstance(value, form)), None)
        return content if kind is None else {KIND: kind, CONTENT: content}
    raise InputError(
        f"{place}: its state holds a {type(value).__name__}, which a run folder cannot keep; "
        "numbers, texts, tensors, lists and dictionaries can be kept"
    )


def _packed_mapping(value: Mapping[Any, Any], tensors: dict[str, Tensor], place: str) -> Any:
    """A dictionary; JSON has a form for those whose keys are texts."""
    named = type(value) is dict and all(isinstance(key, str) for key in value)
    if named and KIND not in value:
        return {key: packed(each, tensors, f"{place}.{key}") for key, each in value.items()}
    kind = type(value).__name__
    rows = [
        [packed(key, tensors, place), packed(each, tensors, f"{place}.{key}")]
        for key, each in value.items()
    ]
    return {KIND: kind if kind in _DICTS else "dict", CONTENT: rows}


def unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that :func:`packed` received.

    Raises:
        KeyError: A tensor is missing.
    """
    if isinstance(value, list):
        return [unpacked(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    if KIND not in value:
        return {key: unpacked(each, tensors) for key, each in value.items()}
    kind, content = value[KIND], value[CONTENT]
    if kind == "float":
        return float(content)
    if kind == "tensor":
        return tensors[content]
    parts = unpacked(content, tensors)
    return _LISTS[kind](parts) if kind in _LISTS else _DICTS[kind](dict(parts))
