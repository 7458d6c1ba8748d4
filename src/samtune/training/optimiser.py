"""Which parameters the optimiser lets decay."""

from __future__ import annotations

from typing import Any

from samtune.model.finetuned import FineTuned
from samtune.training.schedule import FitConfig


def parameter_groups(model: FineTuned, config: FitConfig) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels; on biases and norms it is a pull to nowhere."""
    decay, flat_decay = config.weight_decay, config.weight_decay if config.decay_vectors else 0.0
    wide = [p for p in model.parameters() if p.dim() > 1]
    flat = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": wide, "weight_decay": decay}, {"params": flat, "weight_decay": flat_decay}]
    return [group for group in groups if group["params"]]
