"""A model and its loss as one module, asked once for each prompt or again with clicks."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from samtune.clicks import chosen, drawn_clicks
from samtune.finetuned import FineTuned
from samtune.losses import Loss
from samtune.types import Batch, Geometry, Masks, Prompts


class Objective(nn.Module):
    """A model and its loss as one module, which gives the loss of a batch.

    DDP looks from the output of what it wraps for the parameters that get no gradient. Masks and
    estimated IoUs would show it heads that the loss does not read.

    With several rounds each prompt is asked again, its last answer given as a mask and with one
    more click where that was wrong, after SAM's own training (Kirillov et al. 2023,
    arXiv:2304.02643, appendix A), which has eleven. The loss is the mean over the rounds; gradients
    do not flow from one to the next.

    Args:
        model: What is trained.
        loss: Of one round.
        multimask: Three masks for each prompt, in the first round.
        rounds: How often each prompt is asked.
        at: Where the loss is taken: in the model's frame, or at each image's own size.
    """

    def __init__(
        self,
        model: FineTuned,
        loss: Loss,
        multimask: bool,
        rounds: int = 1,
        at: Literal["frame", "image"] = "frame",
    ) -> None:
        super().__init__()
        self.model, self.loss, self.multimask, self.rounds = model, loss, multimask, rounds
        self.at = at

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch on the model's device, a scalar."""
        features = self.model.encode(self.model.preprocess(batch.pixels, batch.sizes))
        prompts, multimask, losses = batch.prompts, self.multimask, []
        for last in (*[False] * (self.rounds - 1), True):
            masks = self.model.read(features, prompts, multimask)
            with torch.autocast(batch.pixels.device.type, enabled=False):
                if self.at == "image":
                    losses.append(at_own_size(self.loss, masks, batch))
                else:
                    losses.append(self.loss(masks, batch))
            if not last:
                prompts, multimask = _clicked(prompts, masks, batch), False
        return torch.stack(losses).mean() if self.rounds > 1 else losses[0]


def at_own_size(loss: Loss, masks: Masks, batch: Batch) -> Tensor:
    """The mean of the images' losses, each at the image's own size.

    CAT-SAM (arXiv:2402.03631) and Kyyle2114's trainings take it there: the logits are brought to
    the image, as it is once it has been changed, and its masks stay as they are.
    """
    losses = []
    for i, geometry in enumerate(batch.geometries):
        mine = batch.prompts.image == i
        logits = geometry.masks_to_original(masks.logits[mine].float())
        alone = replace(
            batch,
            pixels=batch.pixels[i : i + 1],
            prompts=batch.prompts.only(mine).at(0),
            targets=batch.originals[i].to(logits.device),
            valid=batch.original_valid[i][None].to(logits.device),
        )
        losses.append(loss(replace(masks, logits=logits, iou=masks.iou[mine]), alone))
    return torch.stack(losses).mean()


@torch.no_grad()
def _clicked(prompts: Prompts, masks: Masks, batch: Batch) -> Prompts:
    low = chosen(masks).float()
    size = (batch.targets.shape[-2], batch.targets.shape[-1])
    frame = Geometry(size, size, size)
    xy, labels = drawn_clicks(
        frame.masks_to_original(low)[:, 0] > 0, batch.targets, batch.valid[prompts.image]
    )
    return prompts.clicked(xy, labels, low)
