"""One step of the optimiser, and its outcome, which is read from the device when it is needed.

Reading a number from a GPU waits for all that was launched before it; meanwhile nothing new is
launched, and the device idles afterwards. So losses stay on the device until they are logged. A
step that is not sound must be left out all the same: the optimiser's own kernel does that, by the
flag that torch's ``GradScaler`` uses too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from samtune.distributed import finite_mean, mean_over_processes, place
from samtune.precision import Precision
from samtune.training.faults import Diverged

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.optim import Optimizer

    from samtune.training.state import TrainingState

BAD_STEPS = 10
"""Training stops after this many steps in a row without a finite loss."""
ASYNCHRONOUS = ("cuda",)
"""The kinds of devices on which reading a number waits."""


@dataclass(frozen=True)
class Outcome:
    """The result of a step that was taken or left out."""

    loss: float
    """The mean of the finite losses of its batches."""
    not_finite: int
    """Number of the others."""
    is_sound: bool
    """Whether losses and gradient were finite."""

    def note(self, state: TrainingState, lr: object) -> None:
        """Takes it into the state of a training.

        Args:
            state: Where the training stands.
            lr: The learning rate, for the error.

        Raises:
            Diverged: The loss stays not finite.
        """
        state.bad = 0 if self.is_sound else state.bad + 1
        state.losses.append(self.loss)
        state.not_finite += self.not_finite
        if state.bad >= BAD_STEPS:
            raise Diverged(
                f"train.lr={lr}: the loss was not finite {BAD_STEPS} times in a row; lower "
                "train.lr, or use train.precision=fp32"
            )


def leaves_out_by_itself(device: torch.device, precision: Precision) -> bool:
    """Whether samtune's optimiser decides on the device which steps are left out.

    Processes agree on that, and the scaler of fp16 does it in its own way.

    Args:
        device: Of the model.
        precision: As the setting says.
    """
    return device.type in ASYNCHRONOUS and precision != "fp16" and place()[1] == 1


def exact(loss: Tensor) -> Tensor:
    """A loss without its graph, in double precision if the device has it."""
    kind = torch.float32 if loss.device.type == "mps" else torch.float64
    return loss.detach().to(kind)


class Stepper:
    """Clips the gradient, takes a step if it is sound, and keeps the outcome.

    Args:
        wrapped: The model with its loss.
        accelerator: Of the training.
        optimizer: As the accelerator wrapped it.
        inner: The optimiser itself.
        clip: The greatest norm of the gradient; 0 for no limit.
        precision: As the setting says.
    """

    def __init__(
        self,
        wrapped: nn.Module,
        accelerator: Accelerator,
        optimizer: Any,
        inner: Optimizer,
        clip: float,
        precision: Precision,
    ) -> None:
        self.wrapped, self.accelerator, self.optimizer = wrapped, accelerator, optimizer
        self.inner, self.clip, self.precision = inner, clip or math.inf, precision
        alone = leaves_out_by_itself(accelerator.device, precision)
        self.waits = not (alone and getattr(inner, "_step_supports_amp_scaling", False))
        """Whether each step waits for its outcome."""
        self._unread: list[Tensor] = []
        """Losses and the norm of each step whose outcome is still on the device."""
        self._outcomes: list[Outcome] = []

    def step(self, losses: Sequence[Tensor]) -> None:
        """Takes a step by the gradient in the parameters, which is then dropped.

        Args:
            losses: Of its batches, scalars.
        """
        norm = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.clip)
        if self.waits:
            self._step_knowing([float(loss) for loss in losses], float(norm))
        else:
            row = torch.stack([*losses, norm.to(losses[0])])
            inner: Any = self.inner
            inner.grad_scale, inner.found_inf = None, (~row.isfinite().all()).to(torch.float32)
            self.optimizer.step()
            self._unread.append(row)
        self.optimizer.zero_grad()

    def outcomes(self) -> list[Outcome]:
        """The outcomes of the steps since the last call."""
        if self._unread:
            for *losses, norm in torch.stack(self._unread).tolist():
                bad = sum(not math.isfinite(loss) for loss in losses)
                is_sound = not bad and math.isfinite(norm)
                self._outcomes.append(Outcome(finite_mean(losses), bad, is_sound))
        outcomes, self._unread, self._outcomes = self._outcomes, [], []
        return outcomes

    def _step_knowing(self, losses: Sequence[float], norm: float) -> None:
        # fp16's scaler meets gradients that overflow by skipping the step itself
        is_scaled = self.precision == "fp16"
        mean, not_finite = mean_over_processes(losses, self.accelerator.device)
        is_sound = not not_finite and (is_scaled or math.isfinite(norm))
        if is_sound or is_scaled:  # a step on NaN would spoil the weights for good
            self.optimizer.step()
        self._outcomes.append(Outcome(mean, not_finite, is_sound))
