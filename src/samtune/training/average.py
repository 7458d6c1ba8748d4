"""The mean of the weights over the last part of a training, on the CPU.

Stochastic weight averaging (Izmailov et al. 2018, arXiv:1803.05407) along the end of the cosine.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from samtune.training.schedule import AUTO, NONE, FitConfig

LAST_PART = 0.25
"""The fraction of the steps that ``train.average=auto`` takes."""
MOST = 32
"""Largest number of weights that are averaged, evenly spaced."""


def is_averaged(config: FitConfig, step: int, total: int) -> bool:
    """Whether the weights after step ``1..total`` are in the mean."""
    if config.average == NONE:
        return False
    fraction = LAST_PART if config.average == AUTO else float(config.average)
    count = math.ceil(round(fraction * total, 6))
    return total - step < count and (total - step) % math.ceil(count / MOST) == 0


@torch.no_grad()
def add_to_mean(mean: dict[str, Tensor], count: int, model: nn.Module) -> None:
    """Takes a model's present tensors into a mean of ``count`` earlier ones, in place.

    Integer tensors are copied, not averaged.
    """
    for name, tensor in model.state_dict().items():
        value = tensor.detach().to("cpu", copy=True)
        if count and value.is_floating_point():
            mean[name] += (value - mean[name]) / (count + 1)
        else:
            mean[name] = value
