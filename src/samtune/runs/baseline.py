"""Zero-shot beside tuned: metrics by prompt and class, guesses without a model, and pictures."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from samtune.batch import Batch
from samtune.data import SegmentationDataset, collate
from samtune.distributed import is_main
from samtune.evaluation.automatic import automatic_metrics
from samtune.evaluation.streaming import Evaluation, predict_in_parts
from samtune.evaluation.uncertainty import intervals_beside
from samtune.metrics.contract import ALWAYS, contract
from samtune.metrics.intervals import LEVEL, RESAMPLES
from samtune.metrics.measures import HEADLINE
from samtune.model.finetuned import FineTuned
from samtune.prompts import AUTOMATIC, NONE
from samtune.report.instance_table import BEYOND, FITTED_BASE
from samtune.report.overlays import Overlay
from samtune.report.terminal import Display
from samtune.runs.automatic import MEANING, Automatic
from samtune.runs.config import RunConfig
from samtune.runs.measuring import in_frame_of, measure
from samtune.runs.values import Tree
from samtune.runs.whole_images import add_whole_images, base_on_whole_images

PER_CLASS = ("iou", "dice", "iou_pooled")
"""The metrics of each class; the last comes from the confusion matrix, and its mean is ``miou``."""
INTERVAL = {"level": LEVEL, "draws": RESAMPLES, "over": "images", "method": "expanded percentile"}
"""The kind of interval in a summary, see :mod:`samtune.metrics.intervals`."""
GALLERY = 8
"""Number of images in the report's gallery."""


def compare_with_base(
    baseline: FineTuned,
    model: FineTuned | None,
    test: Mapping[str, SegmentationDataset],
    config: RunConfig,
    display: Display,
    chosen_names: Collection[str] = (),
) -> tuple[Tree, RunPictures]:
    """Zero-shot beside tuned for each prompt mode, and pictures for the first mode.

    Each automatic mode has pictures of its own. In the summary, ``items`` has one row per prompt
    mode and image. What was fitted for a model gives way to the settings of ``chosen_names``.
    """
    items: list[Tree] = []
    by_prompt: dict[str, Tree] = {}
    first, overlays = next(iter(test)), []
    instances: dict[str, list[Overlay]] = {}
    summary: Tree = {}
    automatic = Automatic(baseline, model, config, display, chosen_names)
    whole = None if model is None else base_on_whole_images(baseline)
    for mode, dataset in test.items():
        names: Sequence[str] = config.eval.names
        of_mode: Tree = {}
        fitted: Evaluation | None = None
        if mode in AUTOMATIC:
            names = automatic_metrics(config.eval)
            measured = automatic.measure(mode, dataset)
            before, fitted, after, of_mode, instances[mode] = measured
        else:
            before = measure(baseline, dataset, config, display, f"zero-shot, {mode}", guesses=True)
            after = None
            if model is not None:
                after = measure(model, dataset, config, display, f"tuned, {mode}")
        by_prompt[mode] = _of_prompt(mode, model, before, after) | of_mode
        by_prompt[mode]["metrics"] = _by_metric(before, after, names)
        if whole is not None and mode not in AUTOMATIC:
            add_whole_images(by_prompt[mode], whole, dataset, mode, after, config, display)
        if fitted is not None:
            _add_fitted(by_prompt[mode]["metrics"], fitted, after, names)
        items += _items(mode, before, fitted, after)
        if mode == first:
            summary = {
                "zero_shot": numbers(before),
                "tuned": numbers(after) if after else None,
                "prompt": mode,
                "images": before.images,
                "objects": before.metrics["objects"],
                "by_class": _by_class(before, after, config),
                "metrics": by_prompt[mode]["metrics"],
                "intervals": _intervals(before, after, ALWAYS),
                "interval": INTERVAL,
                "images_per_second": (after or before).images_per_second,
            }
            if is_main() and mode not in AUTOMATIC:
                overlays = _overlays(baseline, model, dataset, before, after, config)
    guesses = by_prompt[first].get("guesses")
    summary |= {"guesses": guesses} if guesses else {}
    summary["contract"] = _contract(by_prompt, config)
    return {**summary, "by_prompt": by_prompt, "items": items}, RunPictures(overlays, instances)


class RunPictures(NamedTuple):
    """The pictures of a comparison with the base."""

    overlays: list[Overlay]
    """Answers to the first mode, if that has prompts."""
    instances: dict[str, list[Overlay]]
    """Images with their instances, by automatic mode."""


def _contract(by_prompt: Mapping[str, Tree], config: RunConfig) -> str:
    """The meaning of all metrics of an evaluation."""
    names = dict.fromkeys((*ALWAYS, *config.eval.names))
    if not any(mode in AUTOMATIC for mode in by_prompt):
        return contract(names)
    return contract(names | dict.fromkeys(automatic_metrics(config.eval))) + MEANING


def numbers(evaluation: Evaluation) -> dict[str, float]:
    """The headline metrics of an evaluation, as fractions."""
    return {key: evaluation.metrics[key] for key in ALWAYS}


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
        pairs = zip(
            before.click_draws, after.click_draws if after else before.click_draws, strict=True
        )
        entry["click_intervals"] = [
            intervals_beside(_pair(first.values, second.values, after), {}, HEADLINE, first.images)
            for first, second in pairs
        ]
    entry["intervals"] = _intervals(before, after, HEADLINE)
    return entry


def _pair(before: Any, tuned: Any, after: Evaluation | None) -> dict[str, Any]:
    """Both sides of a table, or the only one."""
    return {"zero_shot": before, **({"tuned": tuned} if after else {})}


def _intervals(before: Evaluation, after: Evaluation | None, names: Sequence[str]) -> Tree:
    """The intervals of these metrics, see :func:`intervals_beside`; empty without draws."""
    if before.draws is None or (after and after.draws is None):
        return {}
    sides = _pair(before.draws.values, after and after.draws and after.draws.values, after)
    guesses = {name: draws.values for name, draws in before.guess_draws.items()}
    return intervals_beside(sides, guesses, names, before.draws.images)


def _items(
    mode: str, before: Evaluation, fitted: Evaluation | None, after: Evaluation | None
) -> list[Tree]:
    """One row per image: its name, and for each side its masks and their mean IoU and Dice."""
    measured = {"zero_shot": before, FITTED_BASE: fitted, "tuned": after}
    sides = {side: each for side, each in measured.items() if each is not None}
    rows = {item["index"]: {"prompt": mode, "image": item["name"]} for item in before.items}
    for side, evaluation in sides.items():
        for item in evaluation.items:
            for key in ("objects", *HEADLINE, "masks", "matches", "msa"):
                if key in item:
                    rows[item["index"]][f"{side}_{key}"] = item[key]
    return list(rows.values())


def _headline(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {key: metrics[key] for key in HEADLINE}


def _by_metric(before: Evaluation, after: Evaluation | None, names: Sequence[str]) -> Tree:
    """The values of both models by metric, and of the guesses that have the metric."""
    sides = {"zero_shot": before, **({"tuned": after} if after else {})}
    by_name: Tree = {}
    ends = _intervals(before, after, names)
    for name in names:
        by_name[name] = {side: evaluation.metrics[name] for side, evaluation in sides.items()}
        guesses = {guess: has[name] for guess, has in before.guesses.items() if name in has}
        by_name[name] |= {"guesses": guesses} if guesses else {}
        by_name[name] |= {"intervals": _of_name(ends, name)} if ends else {}
    return by_name


def _add_fitted(
    by_name: Tree, fitted: Evaluation, after: Evaluation | None, names: Sequence[str]
) -> None:
    """Adds the base with fitted thresholds to each metric, and what tuning is worth beyond it."""
    ends = _intervals(fitted, after, names)
    for name in names:
        by_name[name][FITTED_BASE] = fitted.metrics[name]
        of_name = _of_name(ends, name)
        sides = {FITTED_BASE: "zero_shot", BEYOND: "difference"}
        more = {key: of_name[side] for key, side in sides.items() if side in of_name}
        by_name[name].setdefault("intervals", {}).update(more)


def _of_name(ends: Tree, name: str) -> Tree:
    """The intervals of one metric, without its name."""
    row: Tree = {}
    for key, values in ends.items():
        if key in ("guesses", "above_guesses"):
            row[key] = {guess: has[name] for guess, has in values.items() if name in has}
        elif name in values:
            row[key] = values[name]
    return row


def _by_class(before: Evaluation, after: Evaluation | None, config: RunConfig) -> Tree:
    names = config.data.class_names
    if config.data.masks != "classes" and len(names) < 2:
        return {}
    sides = {"zero_shot": before, **({"tuned": after} if after else {})}
    classes_by_side = {side: each.metrics["by_class"] for side, each in sides.items()}
    # with class maps one model may predict a class that the other never predicts
    out = {}
    for index in sorted(set().union(*classes_by_side.values())):
        name = config.data.class_name(index)
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
        ends = _class_intervals(before, after, index)
        out[name] |= {"intervals": ends} if ends else {}
    return out


def _class_intervals(before: Evaluation, after: Evaluation | None, index: int) -> Tree:
    """The intervals of a class, see :func:`intervals_beside`."""
    if before.draws is None:
        return {}
    draws = {"zero_shot": before.draws, **({"tuned": after.draws} if after else {})}
    sides = {side: d.by_class[index] for side, d in draws.items() if d and index in d.by_class}
    guesses = {
        name: d.by_class[index] for name, d in before.guess_draws.items() if index in d.by_class
    }
    return intervals_beside(sides, guesses, PER_CLASS, before.draws.images)


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
    """One image with its truth and prompts, and each model's answer ``(h, w)``.

    Truth and answers are bool, or have the number of the object of each pixel. The answer is
    ``None`` without a model, or if the image has no prompt.
    """
    dataset = dataset.with_object_maps()
    batch = collate([dataset[index]])
    how = (config.train.precision, config.train.multimask, dataset.rounds, config.eval.memory)

    def batch_for(model: FineTuned) -> Batch:
        of_model = in_frame_of(model, dataset)
        return batch if of_model is dataset else collate([of_model[index]])

    def answer_of(model: FineTuned) -> np.ndarray:
        parts = (masks for [masks] in predict_in_parts(model, batch_for(model), *how))
        return _foreground(next(parts), dataset) if dataset.class_maps else _numbered(parts)

    masks = [
        answer_of(model) if model is not None and len(batch.prompts) else None for model in models
    ]
    boxes, points = original_prompts(batch.prompts, batch.geometries[0])
    if batch.objects:
        truth = batch.objects[0].places().numpy()
    else:
        truth = _foreground(batch.originals[0], dataset)
    overlay = Overlay(
        name=batch.names[0],
        image=dataset.sample(index).image,
        truth=truth,
        boxes=boxes,
        points=points,
    )
    return overlay, masks


def _numbered(parts: Iterator[torch.Tensor]) -> np.ndarray:
    """``(h, w)`` int32: the number of each pixel's object, from 1; of several masks the last.

    Args:
        parts: Masks ``(n, h, w)`` bool of some of the objects each, in their order.
    """
    masks = (mask for part in parts for mask in part.numpy())
    first = next(masks)
    numbers = first.astype(np.int32)
    for number, mask in enumerate(masks, 2):
        numbers[mask] = number
    return numbers


def _foreground(masks: torch.Tensor, dataset: SegmentationDataset) -> np.ndarray:
    """``(h, w)`` bool: all classes of a map except the background, by default the first."""
    background = dataset.data.background or 0
    if masks.dtype != torch.bool:
        return ((masks[0] != background) & (masks[0] >= 0)).numpy()
    return (masks[0] if len(masks) == 1 else ~masks[background]).numpy()


def original_prompts(prompts: Any, geometry: Any) -> tuple[list[list[float]], list[list[float]]]:
    """Boxes ``xyxy`` and points ``(x, y, label)`` of prompts, in the original frame."""
    corners = geometry.to_original(prompts.boxes().reshape(-1, 2, 2)).flatten(1)
    boxes = [box.tolist() for box in corners if not box.isnan().any()]
    xy = geometry.to_original(prompts.coords)
    real = (prompts.labels == 0) | (prompts.labels == 1)
    points = torch.cat([xy[real], prompts.labels[real][:, None]], 1).tolist()
    return boxes, points


def spread(items: list[Any], count: int) -> list[Any]:
    """Some members of a ranked list, evenly spaced from first to last."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _sortable(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
