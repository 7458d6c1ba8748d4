"""Recommended settings for common cases, and the measurements behind the defaults."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

RESULTS = "benchmarks/results"


@dataclass(frozen=True)
class Advice:
    """One line of the short list of what to take when."""

    case: str
    """The user's situation: the number of images, and the prompts."""
    reason: str
    """The measurement."""
    page: str
    """The file in :data:`RESULTS` that has the numbers."""
    section: str
    """The title in it."""
    settings: str = ""
    """The words of the command line, beside the data's and those of prompts; empty for the
    defaults."""


@dataclass(frozen=True)
class Evidence:
    """A default setting and the measurement that it rests on."""

    setting: str
    """Its name, as ``train.lr``."""
    finding: str
    """The measurement."""
    page: str = ""
    """The file in :data:`RESULTS`; empty if the value was not varied."""
    section: str = ""
    """The title in it."""


@cache
def _lists() -> dict[str, list[dict[str, str]]]:
    return yaml.safe_load((files("samtune") / "cli" / "advice.yaml").read_text("utf-8"))


def advice() -> list[Advice]:
    """The short list of what to take when."""
    return [Advice(**row) for row in _lists()["advice"]]


def evidence() -> list[Evidence]:
    """The default settings that are said to be measured, or not."""
    return [Evidence(**row) for row in _lists()["evidence"]]


def list_advice() -> list[dict[str, str]]:
    """The short list as plain values."""
    return [vars(one) for one in advice()]


def advice_lines() -> str:
    """The short list for a terminal."""
    return "\n".join(
        f"{one.case}\n  take   {one.settings or 'the defaults'}\n  since  {one.reason}\n"
        f"  see    {RESULTS}/{one.page}, {one.section}"
        for one in advice()
    )


def advice_table() -> str:
    """The short list as a Markdown table, for the documentation."""
    lines = ["| you have | take | since | measured in |", "|---" * 4 + "|"]
    for one in advice():
        words = f"`{one.settings}`" if one.settings else "the defaults"
        link = _link(one.page, one.section)
        lines.append(f"| {one.case} | {words} | {one.reason} | {link} |")
    return "\n".join(lines) + "\n"


def evidence_table() -> str:
    """The defaults and what they rest on as a Markdown table, for the documentation."""
    from samtune.runs.config import RunConfig
    from samtune.runs.trees import leaves

    values: dict[str, Any] = leaves(RunConfig().tree())
    lines = ["| setting | default | what was measured | where |", "|---" * 4 + "|"]
    for one in evidence():
        link = _link(one.page, one.section) if one.page else "not varied"
        lines.append(f"| `{one.setting}` | `{values[one.setting]}` | {one.finding} | {link} |")
    return "\n".join(lines) + "\n"


def _link(page: str, section: str) -> str:
    return f"[{section}](../{RESULTS}/{page})"
