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
from samtune.interrupts.boundaries import heed_votes, votes
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
            state: The state of the training.
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
        device: The device of the model.
        precision: The precision, as the setting says.
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
        accelerator: The accelerator of the training.
        optimizer: The optimiser as the accelerator wrapped it.
        inner: The optimiser itself.
        clip: The greatest norm of the gradient; 0 for no limit.
        precision: The precision, as the setting says.
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
        self._row: Tensor
        self._outcome: Outcome

    def measure(self, losses: Sequence[Tensor]) -> None:
        """Clips the gradient in the parameters, and has the processes agree on the outcome.

        Nothing that a state has is changed, so that a training whose processes fail to meet here
        can be saved.

        Args:
            losses: The losses of the step's batches, scalars.
        """
        norm = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.clip)
        if self.waits:
            self._outcome = self._agreed([float(loss) for loss in losses], float(norm))
        else:
            self._row = torch.stack([*losses, norm.to(losses[0])])

    def take(self) -> None:
        """Takes the step that was measured if it is sound; the gradient is then dropped."""
        if self.waits:
            # fp16's scaler meets gradients that overflow by skipping the step itself
            if self._outcome.is_sound or self.precision == "fp16":
                self.optimizer.step()  # a step on NaN would spoil the weights for good
            self._outcomes.append(self._outcome)
        else:
            inner: Any = self.inner
            bad = (~self._row.isfinite().all()).to(torch.float32)
            inner.grad_scale, inner.found_inf = None, bad
            self.optimizer.step()
            self._unread.append(self._row)
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

    def _agreed(self, losses: Sequence[float], norm: float) -> Outcome:
        mean, not_finite, sums = mean_over_processes(losses, self.accelerator.device, votes())
        if place()[1] > 1:
            heed_votes(sums)
        is_sound = not not_finite and (self.precision == "fp16" or math.isfinite(norm))
        return Outcome(mean, not_finite, is_sound)
