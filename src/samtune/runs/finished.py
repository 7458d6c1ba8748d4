"""Whether a run has come to its end, so that nothing is left to do."""

from __future__ import annotations

import json
from typing import Any

from samtune.errors import InputError
from samtune.files import as_path
from samtune.model.checkpoint import BEST, read_header
from samtune.runs.config import RunConfig
from samtune.runs.folder import SUMMARY
from samtune.runs.trees import Tree
from samtune.training.saves import LAST
from samtune.training.state import read_counters


def length_of(config: RunConfig) -> Tree:
    """The settings that say how long a training is."""
    return {"max_steps": config.train.max_steps, "epochs": config.train.epochs}


def finished_summary(config: RunConfig) -> Tree | None:
    """The summary of the run to resume, if it has all the steps that are asked for.

    Nothing if a file of its results is missing or damaged: the run then goes on, and writes it.
    """
    if config.resume is None:
        return None
    folder = as_path(config.resume)
    try:
        summary = json.loads((folder / SUMMARY).read_text("utf-8"))
        read_header(folder / BEST)
        chosen = read_counters(folder / LAST).get("choice")
    except (OSError, ValueError, InputError):
        return None
    known = isinstance(summary, dict) and isinstance(summary.get("steps"), int)
    whole = known and chosen is not None and (folder / "report.html").is_file()
    return summary if whole and _is_as_long(config, summary) else None


def _is_as_long(config: RunConfig, summary: dict[str, Any]) -> bool:
    wanted = length_of(config)
    if summary.get("length") == wanted:
        return True
    return wanted["epochs"] is None and 0 < (wanted["max_steps"] or 0) <= summary["steps"]
