"""Parts of a training that users may provide, besides its settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn
from torch.optim import Optimizer

from samtune.errors import InputError
from samtune.losses import DEFAULT_LOSS, FunctionLoss, Loss
from samtune.losses.functions import LossFunction
from samtune.training.callbacks import Callbacks
from samtune.training.optimiser import OptimizerFactory, ScheduleFactory
from samtune.training.schedule import FitConfig


@dataclass(frozen=True)
class UserParts:
    """The parts of a training that the user wrote; by default none."""

    loss: LossFunction | None = None
    optimizer: Optimizer | OptimizerFactory | None = None
    schedule: ScheduleFactory | None = None
    callbacks: Callbacks = field(default_factory=Callbacks)

    def loss_of(self, config: FitConfig) -> Loss | FunctionLoss:
        """The user's loss, or that of the settings.

        Raises:
            InputError: Both are given, or the function cannot be called as a loss is.
        """
        if self.loss is None:
            return Loss.parse(config.loss, config.loss_at)
        if config.loss != DEFAULT_LOSS:
            raise InputError(
                f"train.loss={config.loss}: has no effect beside a given loss; leave one of the "
                "two out"
            )
        return FunctionLoss(self.loss, config.loss_at)

    def place(self, device: object) -> None:
        """Moves what tensors the loss has to the model's device."""
        if isinstance(self.loss, nn.Module):
            self.loss.to(device)  # type: ignore[call-overload]
