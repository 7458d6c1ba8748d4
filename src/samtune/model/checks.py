"""Checks that an argument is a model."""

from __future__ import annotations

from typing import Any

from samtune.errors import InputError
from samtune.model.finetuned import FineTuned
from samtune.options.arguments import text_of_value


def check_model(model: Any) -> None:
    """Refuses what is no model of :class:`FineTuned`, such as a plain base.

    Raises:
        InputError: With how to make one.
    """
    if not isinstance(model, FineTuned):
        raise InputError(
            f"model={text_of_value(model)}: must be a FineTuned; a base is samtune.FineTuned(sam), "
            "and a file is samtune.load(FILE)"
        )
