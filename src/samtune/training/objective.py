"""A model and its loss as one module; with clicks each prompt is answered several times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from samtune.batch import Batch, Masks
from samtune.inference.clicks import random_clicks
from samtune.losses import Loss
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts


class Objective(nn.Module):
    """A model and its loss as one module, which gives the loss of a batch.

    DDP looks from the output of what it wraps for the parameters that get no gradient. Masks and
    estimated IoUs would show it heads that the loss does not read.

    With several rounds each prompt is answered again, now with its last answer as a mask and one
    more click where that was wrong. This is SAM's own training (Kirillov et al. 2023,
    arXiv:2304.02643, appendix A), which has eleven rounds. The loss is the mean over the rounds;
    gradients do not flow from one to the next. Clicks lie in the model's frame, wherever the loss
    is taken.

    Args:
        model: What is trained.
        loss: The loss of one round.
        multimask: Three masks for each prompt, in the first round.
        rounds: How often each prompt is answered.
        rehearsal: The weight of the prompts that must not be forgotten, which are asked of the
            same encoded images, once each.
    """

    def __init__(
        self,
        model: FineTuned,
        loss: Loss,
        multimask: bool,
        rounds: int = 1,
        rehearsal: float = 1.0,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.multimask, self.rounds = model, loss, multimask, rounds
        self.rehearsal = rehearsal

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch on the model's device, a scalar."""
        features = self.model.encode(self.model.preprocess(batch.pixels, batch.sizes))
        prompts, multimask, losses = batch.prompts, self.multimask, []
        for last in (*[False] * (self.rounds - 1), True):
            masks = self.model.read(features, prompts, multimask)
            with torch.autocast(batch.pixels.device.type, enabled=False):
                losses.append(self.loss(masks, batch))
            if not last:
                prompts, multimask = _with_clicks(prompts, masks, batch), False
        loss = torch.stack(losses).mean() if self.rounds > 1 else losses[0]
        return loss if batch.rehearsal is None else loss + self._rehearse(features, batch)

    def _rehearse(self, features: Any, batch: Batch) -> Tensor:
        """The weighted loss of the prompts that must not be forgotten, a scalar."""
        assert batch.rehearsal is not None
        asked = batch.asked_instead(batch.rehearsal)
        masks = self.model.read(features, asked.prompts, self.multimask)
        with torch.autocast(batch.pixels.device.type, enabled=False):
            # what the adapter adds to the loss is in that of the other prompts
            return self.rehearsal * self.loss(replace(masks, auxiliary=None), asked)


@torch.no_grad()
def _with_clicks(prompts: Prompts, masks: Masks, batch: Batch) -> Prompts:
    low = masks.best().logits.float()
    xy, labels = random_clicks(
        batch.frame.masks_to_original(low)[:, 0] > 0, batch.targets, batch.valid[prompts.image]
    )
    return prompts.with_click(xy, labels, low)
