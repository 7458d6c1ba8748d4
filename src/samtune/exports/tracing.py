"""Modules as programs of ``torch.export``, from which files of onnx and torch are made."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from samtune.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

ELSEWHERE = "samtune predict runs the checkpoint, and so do the formats cvat and label-studio"
"""The remedy for a model that cannot be traced."""


@dataclass(frozen=True)
class TracedPart:
    """A module to trace."""

    module: nn.Module
    inputs: Mapping[str, Tensor]
    """Examples by name, in their order; a dynamic axis has at least two entries."""
    axes: Mapping[str, Mapping[int, str]]
    """The axes of any length by input, each with a name; axes of one name have one length."""
    outputs: Sequence[str]
    """The names of what it returns."""

    @cached_property
    def shapes(self) -> tuple[dict[int, Any] | None, ...]:
        """The dynamic shapes of a trace, one entry per input."""
        axes: dict[str, Any] = {}
        return tuple(
            {
                axis: axes.setdefault(name, torch.export.Dim(name, min=1, max=2**16))
                for axis, name in self.axes.get(key, {}).items()
            }
            or None
            for key in self.inputs
        )

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The module as a program, traced once.

        Raises:
            InputError: torch cannot trace it.
        """
        inputs = tuple(self.inputs.values())
        with torch.no_grad():
            program: torch.export.ExportedProgram = or_refused(
                f"torch cannot trace this model ({{}}); {ELSEWHERE}",
                lambda: torch.export.export(
                    self.module.eval(), inputs, dynamic_shapes=self.shapes, strict=False
                ),
            )
        return program


def or_refused(message: str, do: Callable[[], Any]) -> Any:
    """The result of a step of torch, which prints nothing.

    Args:
        message: The text of a refusal; ``{}`` in it becomes the reason.
        do: The step.

    Raises:
        InputError: It fails; torch raises many types, and each means that there is no file.
    """
    try:
        with silence():
            return do()
    except Exception as error:
        cause = error.__cause__ or error
        reason = f"{cause}".strip().partition("\n")[0] or type(cause).__name__
        raise InputError(message.format(reason)) from error


@contextmanager
def silence() -> Iterator[None]:
    """Keeps what exporters print of their own work from the user, and garbage until the end.

    They make millions of small objects that stay, and a fifth of their time went into looking which
    of these do.
    """
    logging.disable(logging.ERROR)
    collects = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        if collects:
            gc.enable()
