"""Reasons why a training fails or disappoints: rules that map a run's records to one sentence.

A sentence names the likely cause, the numbers that support it, and a remedy. A healthy run gets
none: the bounds below are too large to be reached by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOSS_RISES = 1.1
"""Factor by which the last third of the losses exceeds the first."""
WEIGHTS_GROW = 3.0
"""Factor by which the norm of all trained weights grows."""
STILL_RISING = 0.15
"""Fraction of the whole gain that came in the last third of the validations."""
LEAST_RISE = 0.01
"""Smallest rise of the validation that counts."""
LEAST_FALL = 0.02
"""Smallest fall of the validation below the base that counts."""
FAR = 0.75
"""Fraction of zero-shot below which the first validation of trained weights is far from it."""
SAME_ANSWER = 0.8
"""IoU from which two answers count as the same; objects that overlap by at most half of it should
get different answers."""
GAP = 0.15
"""How much better training images are answered than validation images, beyond the base's
difference."""
MISFIT, FITS = 0.5, 0.5
"""A training image counts as not fitted below this fraction of the median IoU, if the median is
this high."""
OTHER_COLOUR = 20.0
"""Difference of two splits' mean colours, in 0..255, that counts as more than chance."""
OTHER_CONTRAST = 1.5
"""Factor between two splits' contrasts that is worth a word."""


@dataclass(frozen=True)
class Colours:
    """The mean colours of some images of a split, ``(n, 3)`` RGB in 0..255, and their contrast."""

    means: NDArray[np.float64]
    contrasts: NDArray[np.float64]
    """The standard deviation of each image's brightness, ``(n,)``, in 0..255."""


@dataclass(frozen=True)
class Evidence:
    """The records of a training, and measurements after it; unknown values are left out."""

    rows: Sequence[Mapping[str, Any]] = ()
    """Rows of ``metrics.jsonl``: ``train`` (step, loss), ``val`` and ``zero_shot`` (the metric)."""
    metric: str = "iou"
    """The metric of the validations to use; higher is better."""
    lr: float = 1e-3
    weights: tuple[float, float] | None = None
    """Norm of all trained weights, before the first step and after the last."""
    width: float | None = None
    """Median width of the objects in tokens of the frame."""
    wider: Sequence[tuple[str, float]] = ()
    """Settings that would show objects larger, with their width then."""
    pairs: Sequence[tuple[float, float]] = ()
    """The IoU between the answers to two prompts of one image, and that between their objects."""
    training: Mapping[str, float] = field(default_factory=dict)
    """IoU of training images by name, with the prompts of evaluation."""
    training_before: float | None = None
    """Their mean for the base, if measured, see :func:`needs_base`."""
    starts_as_base: bool = True
    """Whether the untrained model answers as the base."""
    colours: Mapping[str, Colours] = field(default_factory=dict)
    """Colours by split; ``train`` is compared with the others."""


def diagnose(evidence: Evidence) -> list[str]:
    """A sentence for each likely cause, the most serious first; none for a healthy run."""
    sentences = (rule(evidence) for rule in RULES)
    return [sentence for sentence in sentences if sentence is not None]


def rate_too_high(evidence: Evidence) -> str | None:
    """The loss rises or is not a number, the weights grow without bound, or the base is far off."""
    losses = [(row["step"], row["loss"]) for row in evidence.rows if row["event"] == "train"]
    remedy = f"try train.lr={evidence.lr / 10:g}"
    start = f"train.lr={evidence.lr:g} is too high"
    for step, loss in losses:
        if loss is None or not math.isfinite(loss):
            return f"{start}: up to step {step} the loss was no number; {remedy}"
    if len(losses) >= 2:
        third = max(1, len(losses) // 3)
        first, last = (float(np.mean([v for _, v in part])) for part in
                       (losses[:third], losses[-third:]))  # fmt: skip
        if last > LOSS_RISES * first:
            return f"{start}: the loss rises from {first:.3g} to {last:.3g}; {remedy}"
    if evidence.weights is not None:
        before, after = evidence.weights
        if not after <= WEIGHTS_GROW * before:
            grew = f"the norm of the trained weights grew from {before:.3g} to {after:.3g}"
            return f"{start}: {grew}; {remedy}"
    worse = _worse_than_base(evidence)
    return f"{start}: {worse}; {remedy}" if worse else None


def _worse_than_base(evidence: Evidence) -> str:
    """How the training left the base, as a clause; empty unless that points to the rate."""
    if not evidence.starts_as_base or not _is_harmed(evidence):
        return ""
    (_, zero), (step, first), *_ = _validations(evidence, "iou")
    if first < FAR * zero:
        return (
            f"IoU on the validation images falls from {zero:.3f} (zero-shot) to {first:.3f} at "
            f"step {step}, the first validation, and stays below zero-shot"
        )
    before, train = evidence.training_before, _mean(evidence.training)
    if before is None or not train <= before or too_few_steps(evidence) is not None:
        return ""
    return (
        f"training images are answered no better than by the base (IoU {before:.3f} to "
        f"{train:.3f}), and validation images worse"
    )


def too_few_steps(evidence: Evidence) -> str | None:
    """The validation metric still rises at the end."""
    curve = _validations(evidence, evidence.metric)
    if len(curve) < 4:
        return None
    (_, start), (middle, between), (end, last) = curve[0], curve[-1 - len(curve) // 3], curve[-1]
    rise = last - between
    if last < max(value for _, value in curve[1:]) or rise < LEAST_RISE:
        return None
    if rise < STILL_RISING * (last - start):
        return None
    return (
        f"too few steps: {evidence.metric} on the validation images still rises, from "
        f"{between:.3f} at step {middle} to {last:.3f} at the last; try "
        f"train.max_steps={2 * end}"
    )


def objects_too_narrow(evidence: Evidence) -> str | None:
    """Objects are narrow in tokens, and a setting would show them larger."""
    if evidence.width is None or not evidence.wider:
        return None
    others = ", ".join(f"{words} ({width:.2g})" for words, width in evidence.wider)
    return (
        f"objects are only {evidence.width:.2g} tokens wide in the frame (median), too narrow to "
        f"be outlined; try {others}"
    )


def prompt_ignored(evidence: Evidence) -> str | None:
    """Different prompts of one image get the same answer."""
    pairs = [pair for pair in evidence.pairs if not math.isnan(pair[0])]
    if len(pairs) < 3:
        return None
    answers, objects = (float(np.mean(values)) for values in zip(*pairs, strict=True))
    if answers < SAME_ANSWER or objects > SAME_ANSWER / 2:
        return None
    return (
        f"the prompt is ignored: answers to different prompts of one image are alike (IoU "
        f"{answers:.2f}, of their objects {objects:.2f}, in {len(pairs)} pairs); give each object "
        "a mask value of its own (data.masks=instance, or data.objects=component), or train with "
        "prompts.train=none if all of the foreground is meant"
    )


def overfitted(evidence: Evidence) -> str | None:
    """Training images are answered better than by the base, and others worse or not nearly so."""
    at_first, train = evidence.training_before, _mean(evidence.training)
    if at_first is None or not train > at_first or not needs_base(evidence):
        return None
    values = [value for _, value in _validations(evidence, "iou")]
    before, val, last = values[0], max(values[1:]), values[-1]
    gap = (train - val) - (at_first - before)
    fell = last < val - LEAST_FALL
    apart = gap >= GAP and (fell or val - before < LEAST_RISE or gap > 2 * GAP)
    if not apart and (not _is_harmed(evidence) or too_few_steps(evidence) is not None):
        return None
    at_last = f" at best and {last:.3f} at the last" if fell else ""
    return (
        f"overfitted: IoU goes from {at_first:.3f} to {train:.3f} on training images, from "
        f"{before:.3f} to {val:.3f}{at_last} on those of the validation; add training images, "
        "train fewer steps or at a smaller train.lr, or choose a method with fewer parameters "
        "(samtune methods)"
    )


def needs_base(evidence: Evidence) -> bool:
    """Whether the base's answers to training images say more of the cause.

    That is if these images are answered much better than those of the validation, or if these
    became worse.
    """
    values = [value for _, value in _validations(evidence, "iou")]
    if len(values) < 2:
        return False
    return _mean(evidence.training) - max(values[1:]) >= GAP / 2 or _is_harmed(evidence)


def _is_harmed(evidence: Evidence) -> bool:
    """Whether no validation is above zero-shot, and the last one well below."""
    values = [value for _, value in _validations(evidence, "iou")]
    if len(values) < 2:
        return False
    return max(values[1:]) <= values[0] and values[-1] < values[0] - LEAST_FALL


def labels_disagree(evidence: Evidence) -> str | None:
    """A few training images are not fit, where the others are."""
    names = misfits(evidence)
    if not names:
        return None
    listed = ", ".join(f"{name} {evidence.training[name]:.2f}" for name in names[:4])
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    median = float(np.nanmedian(list(evidence.training.values())))
    return (
        f"labels disagree: of {len(evidence.training)} training images {len(names)} cannot be fit "
        f"(IoU: {listed}{more}; median {median:.2f}); look at their masks, which the report shows"
    )


def misfits(evidence: Evidence) -> list[str]:
    """The training images that are not fitted although most are, the worst first."""
    finite = {name: iou for name, iou in evidence.training.items() if not math.isnan(iou)}
    if len(finite) < 4:
        return []
    median = float(np.median(list(finite.values())))
    low = sorted((iou, name) for name, iou in finite.items() if iou < MISFIT * median)
    few = len(low) <= len(finite) / 4
    return [name for _, name in low] if median >= FITS and few else []


def colours_differ(evidence: Evidence) -> str | None:
    """Images of one split have other channels or another brightness than the training images."""
    if "train" not in evidence.colours:
        return None
    train = evidence.colours["train"].means
    for split, colours in evidence.colours.items():
        other = colours.means
        if split == "train" or not len(other):
            continue
        a, b = train.mean(0), other.mean(0)
        chance = 4 * np.sqrt((train.std(0) ** 2) * (1 / len(train) + 1 / len(other)))
        if (np.abs(a - b) <= np.maximum(OTHER_COLOUR, chance)).all():
            continue
        means = ["(" + ", ".join(f"{value:.0f}" for value in each) + ")" for each in (a, b)]
        how = _kind_of_difference(evidence.colours["train"], colours)
        return (
            f"images differ between splits: mean red, green and blue are {means[0]} in train and "
            f"{means[1]} in {split}, {how}; save all alike, or see data.intensity and data.bands"
        )
    return None


def _mean(ious: Mapping[str, float]) -> float:
    """The mean of the values that are numbers; NaN if there are none."""
    finite = [iou for iou in ious.values() if not math.isnan(iou)]
    return sum(finite) / len(finite) if finite else math.nan


def _kind_of_difference(train: Colours, other: Colours) -> str:
    a, b = train.means.mean(0), other.means.mean(0)
    if np.abs(a - b[::-1]).max() < np.abs(a - b).max() / 2:
        return "as if red and blue were exchanged"
    if min(np.ptp(a), np.ptp(b)) < 1 and max(np.ptp(a), np.ptp(b)) > OTHER_COLOUR / 2:
        return "grey in one and coloured in the other"
    shade = "brighter" if b.mean() > a.mean() else "darker"
    before, after = float(train.contrasts.mean()), float(other.contrasts.mean())
    if max(before, after) <= OTHER_CONTRAST * min(before, after):
        return shade
    amount = "less" if after < before else "more"
    return f"{shade} and with {amount} contrast ({before:.0f} and {after:.0f})"


def _validations(evidence: Evidence, metric: str) -> list[tuple[int, float]]:
    """The steps and values of a metric, from zero-shot on."""
    rows = (row for row in evidence.rows if row["event"] in ("zero_shot", "val"))
    curve = [(int(row["step"]), row.get(metric)) for row in rows]
    return [(step, float(v)) for step, v in curve if v is not None and not math.isnan(v)]


RULES: tuple[Callable[[Evidence], str | None], ...] = (
    rate_too_high, colours_differ, objects_too_narrow, labels_disagree, prompt_ignored, overfitted,
    too_few_steps,
)  # fmt: skip
"""The rules, the most serious cause first."""
