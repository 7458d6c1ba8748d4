"""A model and its loss as one module; with clicks each prompt is answered several times."""

from __future__ import annotations

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
    """

    def __init__(self, model: FineTuned, loss: Loss, multimask: bool, rounds: int = 1) -> None:
        super().__init__()
        self.model, self.loss, self.multimask, self.rounds = model, loss, multimask, rounds

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
        return torch.stack(losses).mean() if self.rounds > 1 else losses[0]


@torch.no_grad()
def _with_clicks(prompts: Prompts, masks: Masks, batch: Batch) -> Prompts:
    low = masks.best().logits.float()
    xy, labels = random_clicks(
        batch.frame.masks_to_original(low)[:, 0] > 0, batch.targets, batch.valid[prompts.image]
    )
    return prompts.with_click(xy, labels, low)
