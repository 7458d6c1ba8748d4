"""Several checkpoints on the same prompts: one table, by prompts in training and in evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from samtune.errors import InputError
from samtune.report.instance_table import (
    FITTED_BASE,
    SIDE_NAMES,
    automatic_modes,
    has_fitted_base,
    instance_lines,
)
from samtune.report.terminal import Display
from samtune.runs.jobs import evaluate_run
from samtune.runs.source import Source
from samtune.runs.values import Tree
from samtune.runs.words import layers


def evaluate_several(sources: Sequence[str], words: Sequence[str], display: Display) -> Tree:
    """Measures several checkpoints, one after another, on the same prompts and data.

    Args:
        sources: Two or more checkpoints or bases, without repetition.
        words: See :func:`samtune.runs.jobs.evaluate_run`; they override the data settings of the
            first checkpoint, which are used for all. Without ``prompts.eval`` all are evaluated
            with the training prompts of all of them; ``output`` is a folder with one run for each.
        display: The terminal that results go to.

    Returns:
        The first one's summary, and ``matrix``: for each base and checkpoint ``checkpoint``
        (``None`` for zero-shot), ``base``, ``trained_with``, ``by_prompt`` with IoU and Dice, and
        ``report``, ``intervals``, and ``instances`` with what counts in automatic modes, of which
        those are left out that a model cannot do; beside a checkpoint whose thresholds were fitted
        also ``zero-shot, fitted``, the base with thresholds of its own; ``matrix_guesses``: for
        each prompt what needs no model, and ``matrix_guess_intervals``.

    Raises:
        InputError: See :func:`samtune.runs.jobs.evaluate_run`; or a checkpoint is given twice.
    """
    if len(set(sources)) < len(sources):
        raise InputError(f"{' '.join(sources)}: the same checkpoint twice; give each once")
    models = [Source.of(word, words) for word in sources]
    modes = {model: model.prompt_modes for model in models}
    trees = layers(words)
    settings = [*_data(models), *(word for word in words if not word.startswith("output="))]
    if not any("eval" in tree.get("prompts", {}) for tree in trees):
        names = dict.fromkeys(name for each in modes.values() if each for name in each.as_written)
        settings.append(f"prompts.eval=[{','.join(names or ['box'])}]")
    folder = next((tree["output"] for tree in reversed(trees) if tree.get("output")), None)
    summaries: list[Tree] = []
    matrix: list[Tree] = []
    for i, model in enumerate(models, 1):
        output = [] if folder is None else [f"output={Path(str(folder)) / str(i)}"]
        display.say(f"{model}:")
        summary = evaluate_run(model.word, [*settings, *output], display, among_others=True)
        summaries.append(summary)
        common = {"base": model.base_name, "report": summary["report"]}
        if model.base_name not in [row["base"] for row in matrix]:
            row = {"checkpoint": None, "trained_with": None, **common}
            matrix.append({**row, **_side(summary, "zero_shot")})
        if fitted := _fitted_base(summary):
            row = {"checkpoint": None, "trained_with": SIDE_NAMES[FITTED_BASE], **common}
            matrix.append({**row, "by_prompt": {}, "intervals": {}, "instances": fitted})
        if not model.is_base:
            row = {"checkpoint": model.word, "trained_with": str(modes[model]), **common}
            matrix.append({**row, **_side(summary, "tuned")})
    return {
        **summaries[0],
        "matrix": matrix,
        "matrix_guesses": _guesses(summaries[0]),
        "matrix_guess_intervals": _intervals(summaries[0], "guesses"),
    }


def _data(models: Sequence[Source]) -> list[str]:
    """The data settings of the first checkpoint that has any, as words."""
    settings: Tree = next((tree for model in models if (tree := model.training_data())), {})
    return [f"data.{key}={json.dumps(value)}" for key, value in settings.items()]


def _side(summary: Tree, side: str) -> Tree:
    """The part of a model's row that comes from one side of a summary."""
    entries = summary["by_prompt"]
    return {
        "by_prompt": {mode: values[side] for mode, values in entries.items()},
        "intervals": _intervals(summary, side),
        "instances": _instances(entries, side),
    }


def _instances(entries: Tree, side: str) -> Tree:
    """The numbers of automatic modes, of one side, by mode and name."""
    return {
        mode: {line.name: getattr(line, side) for line in instance_lines(entry, short=True)}
        for mode, entry in automatic_modes(entries).items()
    }


def _fitted_base(summary: Tree) -> Tree:
    """The base with thresholds fitted for it, in automatic modes in which it was measured.

    They were fitted together with those of one checkpoint, on the same images.
    """
    modes = automatic_modes(summary["by_prompt"]).items()
    asked = {mode: each for mode, each in modes if has_fitted_base(instance_lines(each))}
    return _instances(asked, FITTED_BASE)


def _intervals(summary: Tree, key: str) -> Tree:
    """The intervals of a side, or of the guesses, by mode."""
    entries = summary["by_prompt"].items()
    return {mode: (values.get("intervals") or {}).get(key) for mode, values in entries}


def _guesses(summary: Tree) -> Tree:
    return {
        mode: values["guesses"]
        for mode, values in summary["by_prompt"].items()
        if "guesses" in values
    }
