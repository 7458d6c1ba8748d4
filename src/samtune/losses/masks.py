"""Losses on mask logits.

Every mask loss is a pure function ``(logits, target, valid) -> (N,)`` with ``logits`` ``(N, h, w)``
float, ``target`` ``(N, h, w)`` bool or float in [0, 1], ``valid`` ``(N, h, w)`` bool. It computes
in at least fp32, whatever the model's precision. Invalid pixels change neither value nor gradient,
whatever their values; a row without a valid pixel gives 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

MaskLoss = Callable[[Tensor, Tensor, Tensor], Tensor]

LOSSES: dict[str, MaskLoss] = {}
"""The mask losses, by their names in expressions."""

CLASS_LOSSES: dict[str, MaskLoss] = {}
"""The losses of class maps, from ``(N, K, h, w)`` logits over mutually exclusive classes and
``(N, h, w)`` int64 targets, the class of each pixel."""

HeadLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

IOU_HEAD = "iou_head"

HEADS: dict[str, HeadLoss] = {}
"""The losses of a decoder's estimate of its IoU, by their names in expressions."""

_PIXELS = (-2, -1)


def register(name: str, classes: bool = False) -> Callable[[MaskLoss], MaskLoss]:
    """Adds a loss to :data:`LOSSES`, or to :data:`CLASS_LOSSES`.

    Raises:
        ValueError: The name is taken.
    """

    def add(loss: MaskLoss) -> MaskLoss:
        if name in LOSSES or name in CLASS_LOSSES or name in HEADS:
            raise ValueError(f"the loss name {name!r} is taken: choose another")
        (CLASS_LOSSES if classes else LOSSES)[name] = loss
        return loss

    return add


@register("bce")
def bce(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy: the mean over the valid pixels."""
    z, g = _clean(logits, target, valid)
    return _mean(F.binary_cross_entropy_with_logits(z, g, reduction="none"), valid)


@register("bbce")
def bbce(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Balanced BCE: the mean of ``-(n⁻/n) g log p - (n⁺/n) (1 - g) log (1 - p)``.

    Foreground and background get equal weight whatever their areas ``n⁺`` and ``n⁻``, which are
    counted over all masks of the batch, as in shadow detection with SAM-Adapter (arXiv:2304.09148)
    and TS-SAM. A mask's loss therefore depends on the others; ``bbce_per_mask`` counts in each mask
    separately. A loss at the images' own sizes receives the masks of one image at a time.
    """
    inside = torch.where(valid, full_precision(target), 0).sum()
    return _balanced(logits, target, valid, inside / valid.sum().clamp(min=1))


@register("bbce_per_mask")
def bbce_per_mask(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Balanced BCE like ``bbce``, but with the areas of each mask alone."""
    share = _mean(full_precision(target), valid)
    return _balanced(logits, target, valid, share[:, None, None])


@register("dice")
def dice(logits: Tensor, target: Tensor, valid: Tensor, smooth: float = 1.0) -> Tensor:
    """Soft Dice loss, ``1 - (2 Σpg + s) / (Σp + Σg + s)``.

    Milletari et al. 2016 (arXiv:1606.04797) without the squares in the denominator and with
    smoothing ``s = 1``, as in the training of SAM 2, SAM-HQ and CAT-SAM.
    """
    z, g = _clean(logits, target, valid)
    p = _probability(z, valid)
    overlap, total = (p * g).sum(_PIXELS), p.sum(_PIXELS) + g.sum(_PIXELS)
    return 1 - (2 * overlap + smooth) / (total + smooth)


@register("focal")
def focal(
    logits: Tensor, target: Tensor, valid: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal loss ``-alpha_t (1 - p_t)^gamma log p_t`` (Lin et al. 2017): the mean.

    arXiv:1708.02002. SAM sums it with Dice as 20 : 1.
    """
    z, g = _clean(logits, target, valid)
    p = z.sigmoid()
    miss = p * (1 - g) + (1 - p) * g
    balance = alpha * g + (1 - alpha) * (1 - g)
    entropy = F.binary_cross_entropy_with_logits(z, g, reduction="none")
    return _mean(balance * miss**gamma * entropy, valid)


@register("iou")
def iou(logits: Tensor, target: Tensor, valid: Tensor, eps: float = 1e-3) -> Tensor:
    """Soft IoU loss, ``1 - (Σpg + ε) / (Σp + Σg - Σpg + ε)``.

    Source: Rahman and Wang 2016. Published SAM decoder tuning uses ``ε = 1e-3``; SAM-Adapter and
        TS-SAM use none, which differs by at most 1e-3 if the union has a pixel or more.
    """
    z, g = _clean(logits, target, valid)
    p = _probability(z, valid)
    overlap = (p * g).sum(_PIXELS)
    union = p.sum(_PIXELS) + g.sum(_PIXELS) - overlap
    return 1 - (overlap + eps) / (union + eps)


@register("structure")
def structure(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Weighted BCE plus weighted soft IoU (F3Net, Wei et al. 2020, arXiv:1911.11445).

    A pixel weighs ``1 + 5 |mean of the target over 31 x 31 around it - target|``, so edges and thin
    parts count up to six times. F3Net's window treats the outside of the image as background; here
    invalid pixels count as outside too, so padding an image does not change its loss.
    """
    z, g = _clean(logits, target, valid)
    weight = _edge_weight(g, valid)
    entropy = F.binary_cross_entropy_with_logits(z, g, reduction="none")
    # Every valid pixel has a weight of at least 1, so the clamp only affects rows without one.
    weighted_bce = (weight * entropy).sum(_PIXELS) / weight.sum(_PIXELS).clamp(min=1)
    p = z.sigmoid()
    overlap = (weight * (p * g)).sum(_PIXELS)
    union = (weight * (p + g)).sum(_PIXELS) - overlap
    return weighted_bce + 1 - (overlap + 1) / (union + 1)


@register("ce", classes=True)
def ce(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy over the classes: the mean over the valid pixels."""
    z, g = _clean_classes(logits, target, valid)
    return _mean(F.cross_entropy(z, g, reduction="none"), valid)


@register("ce_pooled", classes=True)
def ce_pooled(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy over the classes: the mean over the valid pixels of all images together.

    An image is weighted by its number of valid pixels, and its loss depends on the others. This is
    torch's ``cross_entropy`` with an ignored class, as in Generalized SAM (arXiv:2408.12406). The
    images are those of one batch on one device; a loss at their own sizes passes one at a time.
    """
    z, g = _clean_classes(logits, target, valid)
    each = torch.where(valid, F.cross_entropy(z, g, reduction="none"), 0).sum(_PIXELS)
    return len(each) * each / valid.sum().clamp(min=1)


@register("multi_dice", classes=True)
def multi_dice(logits: Tensor, target: Tensor, valid: Tensor, smooth: float = 1.0) -> Tensor:
    """The mean of :func:`dice` over all classes, of softmax probabilities.

    A class that is not in the image counts too, so predicting it is penalised. SAMed
    (arXiv:2304.13785) sums the loss with cross-entropy as 0.8 : 0.2, with squares in the
    denominator.
    """
    z, g = _clean_classes(logits, target, valid)
    inside = valid[:, None]
    p = torch.where(inside, z.softmax(1), 0)
    of_class = torch.zeros_like(p).scatter_(1, g[:, None], 1.0) * inside
    overlap, total = (p * of_class).sum(_PIXELS), p.sum(_PIXELS) + of_class.sum(_PIXELS)
    each = 1 - (2 * overlap + smooth) / (total + smooth)
    return torch.where(valid.any(-1).any(-1), each.mean(1), 0.0)


def head(name: str) -> Callable[[HeadLoss], HeadLoss]:
    """Adds a loss to :data:`HEADS`."""

    def add(loss: HeadLoss) -> HeadLoss:
        HEADS[name] = loss
        return loss

    return add


@head(IOU_HEAD)
def iou_head(predicted: Tensor, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Squared error of the decoder's estimate of its IoU (SAM, arXiv:2304.02643, appendix A).

    The true value is the IoU of the mask ``logits > 0`` over the valid pixels, without gradient; it
    is 1 if mask and target are both empty.

    Args:
        predicted: ``(N, K)`` estimates.
        logits: ``(N, K, h, w)``.
        target: ``(N, h, w)``; above 0.5 is inside.
        valid: ``(N, h, w)`` bool.

    Returns:
        ``(N,)``, the mean over K.
    """
    return _error_of_estimate(predicted, logits, target, valid, if_empty=1.0)


@head("quality_head")
def quality_head(predicted: Tensor, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """The loss of :func:`iou_head`, but the true value of an empty target is always 0.

    A prompt that shows no object has an answer of no worth, even a mask that is rightly empty: this
    is what keeps such answers out where masks are chosen by their estimate, as in segmenting
    everything.
    """
    return _error_of_estimate(predicted, logits, target, valid, if_empty=0.0)


def _error_of_estimate(
    predicted: Tensor, logits: Tensor, target: Tensor, valid: Tensor, if_empty: float
) -> Tensor:
    """The squared error ``(N,)`` of estimates ``(N, K)``, see :func:`iou_head`."""
    with torch.no_grad():
        inside = valid[:, None]
        mask = (logits > 0) & inside
        truth = (target > 0.5)[:, None] & inside
        overlap, union = (mask & truth).sum(_PIXELS), (mask | truth).sum(_PIXELS)
        actual = torch.where(union > 0, overlap / union.clamp(min=1), if_empty)
    error = (full_precision(predicted) - actual) ** 2
    return torch.where(valid.any(-1).any(-1)[:, None], error, 0.0).mean(1)


def full_precision(tensor: Tensor) -> Tensor:
    """Converts a tensor to at least fp32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _clean(logits: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and target in full precision, 0 at invalid pixels, so that no NaN comes from there."""
    z = full_precision(logits)
    return torch.where(valid, z, 0), torch.where(valid, target.to(z.dtype), 0)


def _clean_classes(logits: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Logits in full precision and targets, 0 at invalid pixels."""
    return torch.where(valid[:, None], full_precision(logits), 0), torch.where(valid, target, 0)


def _probability(z: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, z.sigmoid(), 0)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, values, 0).sum(_PIXELS) / valid.sum(_PIXELS).clamp(min=1)


def _balanced(logits: Tensor, target: Tensor, valid: Tensor, share: Tensor) -> Tensor:
    """BCE with foreground weighted by ``1 - share`` of the pixels, background by ``share``."""
    z, g = _clean(logits, target, valid)
    inside, outside = -F.logsigmoid(z), -F.logsigmoid(-z)
    return _mean((1 - share) * g * inside + share * (1 - g) * outside, valid)


def _edge_weight(g: Tensor, valid: Tensor) -> Tensor:
    """F3Net's pixel weights, 0 at invalid pixels."""
    # The mean over a square is a mean over columns of means over rows: 62 reads per pixel, not 961.
    rows = F.avg_pool2d(g[:, None], (31, 1), stride=1, padding=(15, 0))
    mean = F.avg_pool2d(rows, (1, 31), stride=1, padding=(0, 15))[:, 0]
    return torch.where(valid, 1 + 5 * (mean - g).abs(), 0)
