"""Several checkpoints on the same prompts: a table of trained by asked prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from samtune.errors import InputError
from samtune.model.checkpoint import read_header
from samtune.prompts import PromptModes
from samtune.report.terminal import Display
from samtune.runs.config import Tree, layers
from samtune.runs.jobs import evaluate_run
from samtune.sam.spec import SPECS


def is_source(word: str) -> bool:
    """Whether a word of the command line names a model: a checkpoint's file, or a base."""
    return "=" not in word and (word.endswith(".safetensors") or word in SPECS)


def evaluate_several(sources: Sequence[str], words: Sequence[str], display: Display) -> Tree:
    """Measures several checkpoints, one after another, on the same prompts and data.

    Args:
        sources: Checkpoints or bases, two or more, each once.
        words: As for :func:`samtune.runs.jobs.evaluate_run`, over the data settings of the first
            checkpoint, which hold for all. Without ``prompts.eval`` all are asked with
            what any of them was trained with; ``output`` is a folder of a run for each.
        display: Where to speak.

    Returns:
        The first one's summary, and ``matrix``: for each base and checkpoint ``checkpoint``
        (``None`` for zero-shot), ``base``, ``trained_with``, ``by_prompt`` with IoU and Dice, and
        ``report``; ``matrix_guesses``: for each prompt with a box what it gives without a model.

    Raises:
        InputError: As :func:`samtune.runs.jobs.evaluate_run`, or a checkpoint given twice.
    """
    if len(set(sources)) < len(sources):
        raise InputError(f"{' '.join(sources)}: the same checkpoint twice; give each once")
    trained = {source: _trained(source) for source in sources}
    given = layers(words)
    own = [*_data(sources), *(word for word in words if not word.startswith("output="))]
    if not any("eval" in tree.get("prompts", {}) for tree in given):
        modes = dict.fromkeys(name for each in trained.values() if each for name in each.stated)
        own.append(f"prompts.eval=[{','.join(modes or ['box'])}]")
    folder = next((tree["output"] for tree in reversed(given) if tree.get("output")), None)
    summaries: list[Tree] = []
    matrix: list[Tree] = []
    for i, source in enumerate(sources, 1):
        output = [] if folder is None else [f"output={Path(str(folder)) / str(i)}"]
        display.say(f"{source}:")
        summary = evaluate_run(source, [*own, *output], display)
        summaries.append(summary)
        base = _base(source)
        common = {"base": base, "report": summary["report"]}
        if base not in [row["base"] for row in matrix]:
            row = {"checkpoint": None, "trained_with": None, **common}
            matrix.append({**row, "by_prompt": _side(summary, "zero_shot")})
        if trained[source] is not None:
            row = {"checkpoint": source, "trained_with": str(trained[source]), **common}
            matrix.append({**row, "by_prompt": _side(summary, "tuned")})
    return {**summaries[0], "matrix": matrix, "matrix_guesses": _guesses(summaries[0])}


def _data(sources: Sequence[str]) -> list[str]:
    """The data settings of the first checkpoint that has some, as words."""
    configs = (read_header(s).get("config", {}) for s in sources if not _is_base(s))
    settings: Tree = next((c["data"] for c in configs if "data" in c), {})
    return [f"data.{key}={json.dumps(value)}" for key, value in settings.items()]


def _trained(source: str) -> PromptModes | None:
    """The prompts that a checkpoint was trained with; ``None`` for a base."""
    return None if _is_base(source) else PromptModes.parse(read_header(source)["prompts"])


def _base(source: str) -> str:
    return source if _is_base(source) else read_header(source)["base"]["name"]


def _is_base(source: str) -> bool:
    return source in SPECS and not Path(source).exists()


def _side(summary: Tree, side: str) -> Tree:
    return {mode: values[side] for mode, values in summary["by_prompt"].items()}


def _guesses(summary: Tree) -> Tree:
    return {
        mode: values["guesses"]
        for mode, values in summary["by_prompt"].items()
        if "guesses" in values
    }
