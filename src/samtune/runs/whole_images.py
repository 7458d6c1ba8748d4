"""The base as it is shipped, beside a model whose frame shows tiles, or images in more pixels.

Zero-shot is the base in the frame of the tuned model, so that the difference is the training's. A
frame that suits narrow objects may cost other prompts more than a training gives them: then the
base on whole images, in its own frame, is what one had before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from samtune.data import SegmentationDataset
from samtune.evaluation.streaming import Evaluation
from samtune.evaluation.uncertainty import intervals_beside
from samtune.metrics.measures import HEADLINE
from samtune.model.finetuned import FineTuned
from samtune.report.prompt_table import BASE_ON_WHOLE, BEYOND_WHOLE, ON_WHOLE
from samtune.report.terminal import Display
from samtune.runs.assembly import dataset_of
from samtune.runs.config import RunConfig
from samtune.runs.measuring import measure
from samtune.runs.values import Tree


def base_on_whole_images(baseline: FineTuned) -> FineTuned | None:
    """The base on whole images in its own frame; ``None`` if it has no larger frame or tiles."""
    policy, side = baseline.input, baseline.sam.spec.image_size
    if policy.tiles == "whole" and max(policy.size) <= side:
        return None
    return FineTuned(baseline.sam, input=replace(policy, tiles="whole", size=(side, side)))


def add_whole_images(
    entry: Tree,
    base: FineTuned,
    dataset: SegmentationDataset,
    mode: str,
    after: Evaluation | None,
    config: RunConfig,
    display: Display,
) -> None:
    """Adds the base on whole images to a prompt mode's entry: its metrics, and their intervals.

    Args:
        entry: The entry, with ``intervals``.
        base: See :func:`base_on_whole_images`.
        dataset: The images, in another frame.
        mode: The prompts.
        after: The results of the tuned model.
        config: How they are measured.
        display: The output for progress.
    """
    images = dataset_of(config, base, dataset.records, False, mode)
    whole = measure(base, images, config, display, f"{BASE_ON_WHOLE}, {mode}")
    ends: Mapping[str, Tree] = {}
    if whole.draws is not None and after is not None and after.draws is not None:
        sides = {"zero_shot": whole.draws.values, "tuned": after.draws.values}
        ends = intervals_beside(sides, {}, HEADLINE, whole.draws.images)
    keys = {ON_WHOLE: "zero_shot", BEYOND_WHOLE: "difference"}
    entry[ON_WHOLE] = {name: whole.metrics[name] for name in HEADLINE}
    entry["intervals"] |= {key: ends[side] for key, side in keys.items() if side in ends}
