"""The criterion of a training on its validation images, and its outcome in words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from samtune.metrics.prompt_names import key_of, modes_with
from samtune.model.strength import Strength
from samtune.prompts import AUTOMATIC, kind_of
from samtune.report.quantities import counted, metric
from samtune.runs.assembly import evaluation_modes
from samtune.runs.class_maps import has_class_maps
from samtune.runs.config import RunConfig
from samtune.runs.values import Tree
from samtune.training.criterion import Criterion, over_modes
from samtune.training.result import FitResult
from samtune.training.schedule import NONE, FitConfig


def judged_by(config: RunConfig) -> tuple[FitConfig, str]:
    """The settings of a training with its criterion, and the prompt mode of its validation images.

    Those of ``prompts.eval`` that are trained count, by the mean over them; without such the first,
    if its kind is trained. Any other would judge what the training is not about: then all prompts
    that are trained count. If nothing is kept, as in published trainings, it is always the first.
    """
    settings, names = config.train, evaluation_modes(config).names
    modes, mapped = config.prompts.modes(train=True), has_class_maps(config.data, config.prompts)
    if settings.keep == NONE or mapped:
        return settings, names[0]
    judges = tuple(mode for mode in names if mode in modes)
    if not judges:
        judges = names[:1] if kind_of(names[0]) in modes.kinds else modes.names
    criterion = Criterion.parse(settings.metric)
    if len(judges) > 1:
        criterion = over_modes(criterion, judges)
    return replace(settings, metric=str(criterion)), judges[0]


def selection(result: FitResult, settings: FitConfig) -> Tree:
    """The choice on the validation images, and its candidates, for the summary."""
    best, criterion = result.best, Criterion.parse(settings.metric)
    watched = (*result.watched_modes, *criterion.modes)
    sides = {"zero_shot": result.zero_shot or {}, "tuned": best or {}}
    return {
        "metric": settings.metric,
        "weights": None if best is None else best.get("weights", f"step {best['step']}"),
        "worth_it": None if best is None else _is_better(result, criterion),
        "kept": list(result.kept_modes),
        "watched": {
            mode: {side: row.get(key_of("iou", mode)) for side, row in sides.items()}
            for mode in dict.fromkeys(watched)
        },
        **_by_prompt(result),
        "curve_of": result.weights,
        "curve": list(result.curve),
    }


def _by_prompt(result: FitResult) -> Tree:
    """The strength of each prompt mode on the curve, if kinds of prompts have their own."""
    strength = Strength.read(result.best or {})
    if not strength.by_kind or not result.curve:
        return {}
    modes = modes_with("iou", result.curve[-1])
    prompted = (mode for mode in modes if mode not in AUTOMATIC)
    return {"strengths": {mode: strength.of(kind_of(mode)) for mode in prompted}}


def verdict(result: FitResult, settings: FitConfig, causes: Sequence[str] = ()) -> list[str]:
    """Sentences about the choice for the user; the first one is its outcome.

    Args:
        result: The result of the training.
        settings: Its settings, with the criterion.
        causes: The diagnoses, the most serious first. Without any there is general advice.
    """
    criterion, best, before = Criterion.parse(settings.metric), result.best, result.zero_shot
    ended = _end_in_words(result, settings)
    if best is None:
        measured = before is not None and criterion.rank(before) > -math.inf
        nothing = "" if before is None else "the validation images have nothing to measure, so "
        nothing = "no trained weights gave a number, so " if measured else nothing
        return [f"{nothing}the last weights were kept, of step {result.steps}", *ended]
    remarks = []
    values = {
        name: metric(criterion.value(row))
        for name, row in (("best", best), ("before", before or {}), ("top", result.top or {}))
    }
    strength = Strength.read(best)
    if not strength:
        remarks.append(
            f"not worth it: on the validation images {_why_not(result, settings, values)}; the "
            "checkpoint answers as the base (strength 0); "
            + _advice(causes, "more images or another method may help")
        )
    elif result.no_base and not _is_better(result, criterion):
        remarks.append(
            f"not worth it: on the validation images {_why_not(result, settings, values)}; the "
            f"best trained ones are kept all the same, since {result.no_base}; "
            + _advice(causes, "more steps or images may help, or another method")
        )
    else:
        which = best.get("weights", f"step {best['step']}")
        acts = "" if str(strength) == "1" else f" at strength {strength}"
        remarks.append(
            f"best {criterion} on the validation images: {values['best']} (zero-shot "
            f"{values['before']}), {which} of {result.steps}{acts}"
        )
    if result.rehearsed_modes:
        remarks.append(
            f"{' and '.join(result.rehearsed_modes)} kept: also used in training (train.keep)"
        )
    return [*remarks, *ended]


def _advice(causes: Sequence[str], otherwise: str) -> str:
    """The most likely cause, which a line of its own explains with its remedy, or advice."""
    if not causes:
        return f"{otherwise}, see samtune methods --advise"
    return f"the likely cause: {re.split('[:;] ', causes[0])[0]}"


def _end_in_words(result: FitResult, settings: FitConfig) -> list[str]:
    """A remark on what ended a training before its steps were done."""
    after = f"ended the training after {counted(result.steps, 'step')}"
    if result.end == "time":
        return [f"train.time={settings.time} {after}"]
    if result.end == "patience":
        without = counted(settings.patience or 0, "validation")
        return [f"train.patience={settings.patience} {after}: {without} without a better one"]
    return []


def _is_better(result: FitResult, criterion: Criterion) -> bool:
    """Whether the chosen weights beat the base on the validation images."""
    before = -math.inf if result.zero_shot is None else criterion.rank(result.zero_shot)
    return result.best is not None and criterion.rank(result.best) > before


def _why_not(result: FitResult, settings: FitConfig, values: Mapping[str, str]) -> str:
    top, before = result.top, result.zero_shot or {}
    if top is None:
        return "no trained weights gave a number"
    criterion = Criterion.parse(settings.metric)
    if criterion.rank(top) <= criterion.rank(before):
        return (
            f"no weights beat zero-shot ({criterion} {values['before']}; the best trained ones "
            f"{values['top']}, step {top['step']})"
        )
    what = f"{criterion} {values['before']} to {values['top']}, step {top['step']}"
    better = f"what is better ({what})"
    modes = {mode: key_of("iou", mode) for mode in modes_with("iou", top)}
    losses = [
        f"{mode} {metric(before[key])} to {metric(top[key])}"
        for mode, key in modes.items()
        if key in before and top[key] < before[key] - settings.forget
    ]
    if not losses:
        return f"{better} is so only of prompts that were not trained, which the base answers"
    return (
        f"{better} loses too much elsewhere ({', '.join(losses)}; train.forget={settings.forget:g})"
    )
