"""Former names of settings, which are still read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samtune.errors import InputError


def under_current_names(schema: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a dataclass's fields with the former names of fields replaced.

    Args:
        schema: Its ``former_names`` maps former names to the present ones.
        values: By the name of the field.

    Raises:
        InputError: A field is set under both names.
    """
    former: Mapping[str, str] = getattr(schema, "former_names", {})
    for old, new in former.items():
        if old in values and new in values:
            raise InputError(f"{old}={values[old]}: is the former name of {new}; set {new} alone")
    return {former.get(name, name): value for name, value in values.items()}
