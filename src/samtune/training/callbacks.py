"""Callbacks of the user, called after each step and each validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from samtune.distributed import any_process
from samtune.errors import InputError, nearest
from samtune.model.finetuned import FineTuned
from samtune.options import further_inputs, name_of
from samtune.training.result import in_words

ON_STEP, ON_VALIDATION = HOOKS = ("on_step", "on_validation")
"""The points at which functions are called."""
Callback = Callable[["CallbackState"], Any]


@dataclass
class CallbackState:
    """The state of a training as a user's function sees it; the function may stop the training.

    Each process of a distributed training has its own, with the same numbers.
    """

    step: int
    """Steps of the optimiser that are done."""
    total: int
    """Steps of the whole training."""
    epoch: float
    """Passes over the training images that are done."""
    loss: float
    """The mean loss of this step, over its batches and all processes; NaN if none was finite."""
    lr: float
    """The learning rate of this step, of the optimiser's first group."""
    metrics: Mapping[str, Any]
    """The latest validation by metric, as ``iou``, with its ``step``; empty before the first."""
    best: Mapping[str, Any] | None
    """The validation of what would be chosen now, with its ``step`` and ``strength``."""
    zero_shot: Mapping[str, Any] | None
    """The validation of the base; ``None`` without validation images."""
    model: FineTuned
    """The model; in training mode in ``on_step``, in evaluation mode in ``on_validation``."""
    optimizer: Optimizer
    output: Path | None
    """The folder that the training writes to."""
    is_main: bool
    """Whether this process is the one that writes."""
    stopping: bool = field(default=False, init=False)
    """Whether the training stops."""

    def __str__(self) -> str:
        line = f"step {self.step} of {self.total}: loss {self.loss:.4g}, lr {self.lr:.3g}"
        if not self.metrics:
            return line
        step = self.metrics.get("step")
        when = "" if step == self.step else f" of step {step}"
        return f"{line}; validation{when}: {in_words(self.metrics)}"

    def stop(self) -> None:
        """Ends the training after this step: it is validated and saved as after the last one."""
        self.stopping = True


class Callbacks:
    """The functions of a user, by when they are called.

    Args:
        on_step: Called after each step of the optimiser.
        on_validation: Called after each validation, but for that of the base before the first step.
        objects: One with a method of these names, or several.

    Raises:
        InputError: No such function, or an object without such a method.
    """

    def __init__(
        self,
        on_step: Callback | None = None,
        on_validation: Callback | None = None,
        objects: Any | Sequence[Any] = (),
    ) -> None:
        self.functions: dict[str, list[Callback]] = {
            ON_STEP: [] if on_step is None else [on_step],
            ON_VALIDATION: [] if on_validation is None else [on_validation],
        }
        for each in objects if isinstance(objects, list | tuple) else [objects]:
            for hook in _hooks(each):
                self.functions[hook].append(getattr(each, hook))
        for hook, functions in self.functions.items():
            for function in functions:
                further_inputs(function, hook, ("state",))

    def call(self, hook: str, make_state: Callable[[], CallbackState]) -> bool:
        """Calls the functions of one time; whether any of them, in any process, stops the training.

        Args:
            hook: ``on_step`` or ``on_validation``.
            make_state: Makes what they get; not called if there are none.

        Raises:
            InputError: One returned a truth value, of which nobody knows what it stands for.
        """
        functions = self.functions[hook]
        if not functions:
            return False
        state = make_state()
        for function in functions:
            answer = function(state)
            if isinstance(answer, bool):
                raise InputError(
                    f"{hook}: {name_of(function)} returned {answer}; call state.stop() to end the "
                    "training, and return nothing"
                )
        return any_process(state.stopping, state.model.device)


def _hooks(each: Any) -> list[str]:
    """The names under which an object has functions."""
    hooks = [name for name in HOOKS if hasattr(each, name)]
    others = [name for name in dir(each) if name.startswith("on_") and name not in HOOKS]
    if others:
        raise InputError(
            f"callbacks: {name_of(each)} has {others[0]}, which is never called; "
            f"{' and '.join(HOOKS)} are{nearest(others[0], HOOKS)}"
        )
    if not hooks:
        remedy = "give a function as on_step= or on_validation=" if callable(each) else "add one"
        raise InputError(f"callbacks: {name_of(each)} has neither {' nor '.join(HOOKS)}; {remedy}")
    return hooks
