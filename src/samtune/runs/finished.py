"""Whether a run has finished, so that nothing is left to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from samtune.errors import InputError
from samtune.files import as_path, read_sealed, read_tensors, sealed_json, write_whole
from samtune.model.header import BEST
from samtune.runs.config import RunConfig
from samtune.runs.folder import SUMMARY
from samtune.runs.per_image import checksum_of_items, read_items
from samtune.runs.values import Tree
from samtune.runs.words import config_of_run
from samtune.training.saves import LAST
from samtune.training.state import read_counters

OF_A_TRAINING: dict[str, Any] = {
    "steps": int, "seconds": (int, float), "images": int, "prompt": str, "contract": str,
    "zero_shot": dict, "tuned": dict, "trainable_parameters": int,
}  # fmt: skip
"""The entries of a training's summary and their types, for those who read it."""


OF_ITEMS = "images_checksum"
"""The entry of the summary's file that says what the rows of images were."""


def write_summary(folder: Path, summary: Tree) -> None:
    """Writes a summary that :func:`read_summary` gives again; the rows of images lie there already.

    Raises:
        InputError: It could not be written.
    """
    sealed = sealed_json({**summary, OF_ITEMS: checksum_of_items(folder)})
    write_whole(folder / SUMMARY, sealed)


def read_summary(folder: Path) -> Tree:
    """The summary of a training, if that and all that was measured with it is whole.

    Args:
        folder: The folder of its run.

    Raises:
        InputError: The summary, the rows of images or the best weights are missing or damaged.
    """
    remedy = f"go on with resume={folder}, which writes it again"
    tree = read_sealed(folder / SUMMARY, remedy)
    read_items(folder, tree.pop(OF_ITEMS, None))
    read_tensors(folder / BEST, remedy)
    for key, kind in OF_A_TRAINING.items():
        if not isinstance(tree.get(key), kind):
            what = f"is damaged ({key} is {str(tree.get(key))[:40]!r})"
            raise InputError(f"{folder / SUMMARY}: {what}; {remedy}")
    return tree


def length_of(config: RunConfig) -> Tree:
    """The settings for the length of a training."""
    train = config.train
    return {"max_steps": train.max_steps, "epochs": train.epochs, "time": train.time}


def finished_summary(config: RunConfig) -> Tree | None:
    """The summary of the run to resume, if it has all requested steps.

    The result is ``None`` if a file of its results is missing or damaged, or the data are at
    another place: the run is then resumed, checks the data, and writes the file.
    """
    if config.resume is None:
        return None
    folder = as_path(config.resume)
    try:
        summary = read_summary(folder)
        chosen = read_counters(folder / LAST).get("choice")
    except InputError:
        return None
    if _root(config) != _root(config_of_run(folder)):  # resuming checks whether the data are alike
        return None
    whole = chosen is not None and (folder / "report.html").is_file()
    return summary if whole and _is_as_long(config, summary) else None


def _root(config: RunConfig) -> Path | None:
    return None if config.data.root is None else as_path(config.data.root).resolve()


def _is_as_long(config: RunConfig, summary: dict[str, Any]) -> bool:
    wanted = length_of(config)
    if {"time": None, **summary.get("length", {})} == wanted:  # older ones know no time
        return True
    by_steps = wanted["epochs"] is None and wanted["time"] is None
    return by_steps and 0 < (wanted["max_steps"] or 0) <= summary["steps"]
