"""A model and its loss as one module; with clicks each prompt is answered several times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from samtune.batch import Batch, Masks
from samtune.inference.clicks import random_clicks
from samtune.losses import FunctionLoss, Loss
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts
from samtune.training.agreement import disagreement
from samtune.training.micro_batches import Shares

WHOLE = Shares()
"""The weights of a batch that is computed at once."""


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
        model: The model that is trained.
        loss: The loss of one round.
        multimask: Three masks for each prompt, in the first round.
        rounds: How often each prompt is answered.
        rehearsal: The weight of the prompts that must not be forgotten, which are asked of the
            same encoded images, once each.
        to_base: Compare the answers to those with the base's own instead of the targets; not where
            the base cannot see the model's frame.
    """

    def __init__(
        self,
        model: FineTuned,
        loss: Loss | FunctionLoss,
        multimask: bool,
        rounds: int = 1,
        rehearsal: float = 1.0,
        to_base: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.multimask, self.rounds = model, loss, multimask, rounds
        self.rehearsal = rehearsal
        self.of_rehearsal = loss.of_prompts if isinstance(loss, Loss) else loss
        self.base = model.plain() if to_base else None

    def forward(self, batch: Batch, shares: Shares = WHOLE) -> Tensor:
        """The loss of a batch on the model's device, a scalar.

        Args:
            batch: A batch, or a part of one.
            shares: The weights of the part in the loss of the whole.
        """
        features = self.model.encode(self.model.preprocess(batch.pixels, batch.sizes))
        prompts, multimask, losses = batch.prompts, self.multimask, []
        for last in (*[False] * (self.rounds - 1), True):
            masks = self.model.read(features, prompts, multimask)
            with torch.autocast(batch.pixels.device.type, enabled=False):
                losses.append(self.loss(masks, batch))
            if not last:
                prompts, multimask = _with_clicks(prompts, masks, batch), False
        loss = torch.stack(losses).mean() if self.rounds > 1 else losses[0]
        loss = loss * shares.images
        return loss if batch.rehearsal is None else loss + self._rehearse(features, batch, shares)

    def _rehearse(self, features: Any, batch: Batch, shares: Shares) -> Tensor:
        """The weighted loss of the prompts that must not be forgotten, a scalar."""
        assert batch.rehearsal is not None
        question = batch.asked_instead(batch.rehearsal)
        masks = self.model.read(features, question.prompts, self.multimask)
        answers = self._base_answers(features, question)
        with torch.autocast(batch.pixels.device.type, enabled=False):
            if answers is not None:
                each = disagreement(masks, answers, question)  # a mean over prompts
                return self.rehearsal * shares.rehearsed * each
            # what the adapter adds to the loss is in that of the other prompts
            alone = self.of_rehearsal(replace(masks, auxiliary=None), question)
            return self.rehearsal * shares.images * alone

    @torch.no_grad()
    def _base_answers(self, features: Any, batch: Batch) -> Masks | None:
        """The base's answers to a batch, if they are needed and its stride fits."""
        base, stride = self.base, self.model.sam.image_encoder.stride
        if base is None or any(side % stride for side in batch.pixels.shape[-2:]):
            return None
        if self.model.cache is not None and base.cache is None:  # it reads other streams
            base.cache = self.model.cache.beside(base.streams_read)
        base.eval()
        trained_encoder = any(True for _ in self.model.adapter.parameters())
        if trained_encoder or base.input != self.model.input:  # else both encode alike
            features = base.encode(base.preprocess(batch.pixels, batch.sizes))
        return base.read(features, batch.prompts)


@torch.no_grad()
def _with_clicks(prompts: Prompts, masks: Masks, batch: Batch) -> Prompts:
    low = masks.best().logits.float()
    xy, labels = random_clicks(
        batch.frame.masks_to_original(low)[:, 0] > 0, batch.targets, batch.valid[prompts.image]
    )
    return prompts.with_click(xy, labels, low)
