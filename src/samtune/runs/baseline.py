"""Zero-shot beside tuned: numbers by prompt and class, guesses that need no model, and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from samtune.batch import Batch
from samtune.data import SegmentationDataset, collate
from samtune.distributed import is_main
from samtune.evaluation.streaming import Evaluation, evaluate, predict
from samtune.metrics.contract import ALWAYS, contract
from samtune.model.finetuned import FineTuned
from samtune.prompts import NONE, kind_of
from samtune.report.overlays import Overlay
from samtune.report.terminal import Display
from samtune.runs.config import RunConfig
from samtune.runs.trees import Tree

PER_CLASS = ("iou", "dice", "iou_pooled")
"""The numbers of each class; the last comes from the confusion matrix, its mean is ``miou``."""
GALLERY = 8
"""Images in the report's gallery."""


def measure(
    model: FineTuned,
    dataset: SegmentationDataset,
    config: RunConfig,
    display: Display,
    what: str,
    guesses: bool = False,
) -> Evaluation:
    """Evaluates with the configuration's settings, showing progress under the name ``what``."""
    return evaluate(
        model,
        in_frame_of(model, dataset),
        batch_size=config.train.batch_size,
        precision=config.train.precision,
        multimask=config.train.multimask,
        workers=config.data.workers,
        progress=lambda done, total: display.progress(what, done, total),
        guesses=guesses,
        measuring=config.eval,
    )


def in_frame_of(model: FineTuned, dataset: SegmentationDataset) -> SegmentationDataset:
    """A data set in the frame of another model, with the same prompts."""
    return dataset.in_frame(model.input.size, model.mask_size)


def compare_with_base(
    baseline: FineTuned,
    model: FineTuned | None,
    test: Mapping[str, SegmentationDataset],
    config: RunConfig,
    display: Display,
) -> tuple[Tree, list[Overlay]]:
    """Zero-shot beside tuned for each prompt mode, and the pictures for the first of them."""
    by_prompt: dict[str, Tree] = {}
    first, overlays = next(iter(test)), []
    summary: Tree = {}
    for mode, dataset in test.items():
        boxes = kind_of(mode) == "box"
        before = measure(baseline, dataset, config, display, f"zero-shot, {mode}", boxes)
        after = model and measure(model, dataset, config, display, f"tuned, {mode}")
        by_prompt[mode] = _of_prompt(mode, model, before, after or None)
        by_prompt[mode]["metrics"] = _by_metric(before, after or None, config)
        if mode == first:
            summary = {
                "zero_shot": numbers(before),
                "tuned": numbers(after) if after else None,
                "prompt": mode,
                "images": before.images,
                "objects": before.metrics["objects"],
                "by_class": _by_class(before, after or None, config),
                "metrics": by_prompt[mode]["metrics"],
                "contract": contract(dict.fromkeys((*ALWAYS, *config.eval.names))),
            }
            if is_main():
                overlays = _overlays(baseline, model, dataset, before, after or None, config)
    guesses = by_prompt[first].get("guesses")
    summary |= {"guesses": guesses} if guesses else {}
    return {**summary, "by_prompt": by_prompt}, overlays


def numbers(evaluation: Evaluation) -> dict[str, float]:
    """The headline numbers of an evaluation, as fractions."""
    return {key: evaluation.metrics[key] for key in ALWAYS}


def shortfalls(by_prompt: Mapping[str, Tree]) -> list[str]:
    """Remarks on where a tuned model is worse than no tuning, or than no model.

    Args:
        by_prompt: As :func:`compare_with_base` gives it.
    """
    worse, under = [], []
    for mode, entry in by_prompt.items():
        tuned = (entry.get("tuned") or {}).get("iou")
        if tuned is None:
            continue
        before = entry["zero_shot"]["iou"]
        if tuned < before:
            worse.append(f"{mode} {tuned:.3f}, before {before:.3f}")
        name, best = max(
            ((name, guess["iou"]) for name, guess in (entry.get("guesses") or {}).items()),
            key=lambda each: each[1],
            default=("", tuned),
        )
        if tuned < best:
            under.append(f"{mode} {tuned:.3f}, {name} {best:.3f}")
    remarks = []
    if worse:
        remarks.append(
            f"tuned is worse than zero-shot (IoU: {'; '.join(worse)}): try a lower train.lr or "
            "add training images"
        )
    if under:
        remarks.append(
            f"tuned is worse than what the boxes give without a model (IoU: {'; '.join(under)})"
        )
    return remarks


def _of_prompt(
    mode: str, model: FineTuned | None, before: Evaluation, after: Evaluation | None
) -> Tree:
    """One entry of ``by_prompt``, see :func:`samtune.report.prompt_table.prompt_rows`."""
    entry: Tree = {"zero_shot": _headline(before.metrics)}
    sides = {"zero_shot": before}
    if after:
        entry["tuned"] = _headline(after.metrics)
        sides["tuned"] = after
    entry["ground_truth"] = mode != NONE
    entry["trained"] = model is not None and mode in model.prompt_modes
    if before.guesses:
        entry["guesses"] = {name: _headline(metrics) for name, metrics in before.guesses.items()}
    if before.by_click:
        entry["by_click"] = {
            side: [_headline(metrics) for metrics in evaluation.by_click]
            for side, evaluation in sides.items()
        }
    return entry


def _headline(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {key: metrics[key] for key in ("iou", "dice")}


def _by_metric(before: Evaluation, after: Evaluation | None, config: RunConfig) -> Tree:
    """For each metric both models' values, and those of the guesses that have one."""
    sides = {"zero_shot": before, **({"tuned": after} if after else {})}
    by_name: Tree = {}
    for name in config.eval.names:
        by_name[name] = {side: evaluation.metrics[name] for side, evaluation in sides.items()}
        guesses = {guess: has[name] for guess, has in before.guesses.items() if name in has}
        by_name[name] |= {"guesses": guesses} if guesses else {}
    return by_name


def _by_class(before: Evaluation, after: Evaluation | None, config: RunConfig) -> Tree:
    names = config.data.class_names
    if config.data.masks != "classes" and len(names) < 2:
        return {}
    sides = {"zero_shot": before, **({"tuned": after} if after else {})}
    classes_by_side = {side: each.metrics["by_class"] for side, each in sides.items()}
    # of class maps one model may answer with a class that the other never does
    out = {}
    for index in sorted(set().union(*classes_by_side.values())):
        name = names[index] if index < len(names) else f"class {index}"
        out[name] = {
            side: {key: classes[index][key] for key in PER_CLASS}
            for side, classes in classes_by_side.items()
            if index in classes
        }
        guesses = {
            guess: {key: each["by_class"][index][key] for key in PER_CLASS}
            for guess, each in before.guesses.items()
            if index in each["by_class"]
        }
        out[name] |= {"guesses": guesses} if guesses else {}
    return out


def _overlays(
    baseline: FineTuned,
    model: FineTuned | None,
    dataset: SegmentationDataset,
    before: Evaluation,
    after: Evaluation | None,
    config: RunConfig,
) -> list[Overlay]:
    """Pictures of the worst, the middle and the best images."""
    rows = sorted((after or before).items, key=lambda item: _sortable(item["iou"]))
    zero_shot = {item["index"]: item["iou"] for item in before.items}
    tuned = {item["index"]: item["iou"] for item in after.items} if after else {}
    overlays = []
    for item in spread(rows, GALLERY):
        index = item["index"]
        overlay, (first, second) = answers_to_image([baseline, model], dataset, index, config)
        overlays.append(
            replace(
                overlay,
                before=first,
                after=second,
                iou_before=_number(zero_shot[index]),
                iou_after=_number(tuned.get(index)),
            )
        )
    return overlays


def answers_to_image(
    models: Sequence[FineTuned | None], dataset: SegmentationDataset, index: int, config: RunConfig
) -> tuple[Overlay, list[np.ndarray | None]]:
    """One image with its truth and prompts, and each model's answer ``(h, w)`` bool.

    The answer is ``None`` without a model, or if the image has no prompt.
    """
    batch = collate([dataset[index]])
    how = (config.train.precision, config.train.multimask, dataset.rounds)

    def batch_for(model: FineTuned) -> Batch:
        of_model = in_frame_of(model, dataset)
        return batch if of_model is dataset else collate([of_model[index]])

    masks = [
        _union(predict(model, batch_for(model), *how)[0], dataset).numpy()
        if model is not None and len(batch.prompts)
        else None
        for model in models
    ]
    boxes, points = original_prompts(batch.prompts, batch.geometries[0])
    overlay = Overlay(
        name=batch.names[0],
        image=dataset.sample(index).image,
        truth=_union(batch.originals[0], dataset).numpy(),
        boxes=boxes,
        points=points,
    )
    return overlay, masks


def _union(masks: torch.Tensor, dataset: SegmentationDataset) -> torch.Tensor:
    """``(h, w)`` bool for a picture: all objects, or all classes but the background.

    Without a class named as the background, it is the first.
    """
    if not dataset.class_maps:
        return masks.any(0)
    background = dataset.data.background or 0
    if masks.dtype != torch.bool:
        return (masks[0] != background) & (masks[0] >= 0)
    return masks[0] if len(masks) == 1 else ~masks[background]


def original_prompts(prompts: Any, geometry: Any) -> tuple[list[list[float]], list[list[float]]]:
    """Boxes ``xyxy`` and points ``(x, y, label)`` of prompts, back in the original frame."""
    corners = geometry.to_original(prompts.boxes().reshape(-1, 2, 2)).flatten(1)
    boxes = [box.tolist() for box in corners if not box.isnan().any()]
    xy = geometry.to_original(prompts.coords)
    real = (prompts.labels == 0) | (prompts.labels == 1)
    points = torch.cat([xy[real], prompts.labels[real][:, None]], 1).tolist()
    return boxes, points


def spread(items: list[Any], count: int) -> list[Any]:
    """Some of a ranked list, from its first to its last, evenly."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _sortable(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
