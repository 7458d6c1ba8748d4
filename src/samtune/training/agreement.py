r"""How far a model's answers are from those of its base, to the same prompts of the same images.

Learning without forgetting (Li & Hoiem 2016, arXiv:1606.09282): what a model knew is kept by its
own answers, whatever the targets say. With the base's probabilities :math:`q` and the model's
:math:`p` the loss of a mask is

.. math:: \mathrm{KL}(q, p) + \frac{2 \sum |p - q|}{\sum p + \sum q + \sum |p - q|}

where the second term is the distance of Jaccard for soft masks (Wang et al. 2023,
arXiv:2302.05666). Both are least where the two agree.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from samtune.batch import Batch, Masks


def disagreement(masks: Masks, answers: Masks, batch: Batch) -> Tensor:
    """The mean loss over masks, a scalar; 0 of none. Of several masks the best counts.

    Args:
        masks: The model's, of ``N`` prompts.
        answers: The base's, of the same prompts.
        batch: With these prompts; what is not valid in it does not count.
    """
    z, base = (batch.frame.masks_to_original(each.best().logits.float())[:, 0]
               for each in (masks, answers))  # fmt: skip
    valid, p, q = batch.valid[batch.prompts.image], z.sigmoid(), base.sigmoid()
    pixels = valid.sum((1, 2)).clamp(min=1)
    entropy = F.binary_cross_entropy_with_logits(base, q, reduction="none")
    cross = F.binary_cross_entropy_with_logits(z, q, reduction="none")
    divergence = ((cross - entropy) * valid).sum((1, 2)) / pixels
    apart = ((p - q).abs() * valid).sum((1, 2))
    either = ((p + q) * valid).sum((1, 2)) + apart
    return (divergence + 2 * apart / either.clamp(min=1)).sum() / max(1, len(z))
