"""What to take when, and why the defaults are what they are: each line names its measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RESULTS = "benchmarks/results"


@dataclass(frozen=True)
class Advice:
    """One line of the short list of what to take when."""

    case: str
    """What somebody has: how many images, and which prompts."""
    settings: str
    """The words of the command line, beside the data's and those of prompts; empty for the
    defaults."""
    reason: str
    """What was measured."""
    page: str
    """The file in :data:`RESULTS` that has the numbers."""
    section: str
    """The title in it."""


@dataclass(frozen=True)
class Evidence:
    """A default setting and the measurement that it rests on."""

    setting: str
    """Its name, as ``train.lr``."""
    finding: str
    """What was measured."""
    page: str = ""
    """The file in :data:`RESULTS`; empty if the value was not varied."""
    section: str = ""
    """The title in it."""


DEFAULTS_PAGE, METHODS_PAGE = "defaults.md", "methods.md"
RATE = "Learning rate, decoder alone"
NO_PROMPT = "ISBI 2012: cell interiors, no prompt"
CLASSES = "CamVid: eleven classes, no prompt"
ADVICE = (
    Advice(
        "boxes or points, a few images",
        "",
        "at train.lr=3e-4 boxes gain a little and no prompt loses much; at 1e-3 they lose",
        DEFAULTS_PAGE,
        RATE,
    ),
    Advice(
        "no prompt, one kind of object, as good as it gets",
        "adapter.name=ts_sam decoder.name=fusion",
        "IoU 0.870 after 200 steps, lora + tuned 0.799; it takes three times as long",
        METHODS_PAGE,
        NO_PROMPT,
    ),
    Advice(
        "no prompt, one kind of object, in the least time",
        "adapter.name=none decoder.name=hq",
        "IoU 0.850 in half the time of lora + tuned (0.799), with a fifth of its parameters",
        METHODS_PAGE,
        NO_PROMPT,
    ),
    Advice(
        "a class for each pixel",
        "adapter.name=sm_adaptformer decoder.name=semantic",
        "IoU 0.200 after 200 steps, lora 0.186, as fast; samus 0.204, three times as slow",
        METHODS_PAGE,
        CLASSES,
    ),
)
EVIDENCE = (
    Evidence(
        "train.lr",
        "3e-4 gains as much as 1e-3 without a prompt and does no harm with boxes; 1e-4 gains less",
        DEFAULTS_PAGE,
        RATE,
    ),
    Evidence("train.epochs", "20 if nothing is set; what all cells are bounded by is steps"),
    Evidence("train.batch_size", "cells have 2 or 4 images"),
    Evidence("train.warmup", "the same in all cells"),
    Evidence("train.weight_decay", "the same in all cells"),
    Evidence("data.augment", "with lora the same in all cells, with the decoder alone none"),
)


def list_advice() -> list[dict[str, str]]:
    """The short list as plain values."""
    return [vars(one) for one in ADVICE]


def advice_lines() -> str:
    """The short list for a terminal."""
    return "\n".join(
        f"{one.case}\n  take   {one.settings or 'the defaults'}\n  since  {one.reason}\n"
        f"  see    {RESULTS}/{one.page}, {one.section}"
        for one in ADVICE
    )


def advice_table() -> str:
    """The short list as a Markdown table, for the documentation."""
    lines = ["| you have | take | since | measured in |", "|---" * 4 + "|"]
    for one in ADVICE:
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
    for one in EVIDENCE:
        link = _link(one.page, one.section) if one.page else "not varied"
        lines.append(f"| `{one.setting}` | `{values[one.setting]}` | {one.finding} | {link} |")
    return "\n".join(lines) + "\n"


def _link(page: str, section: str) -> str:
    return f"[{section}](../{RESULTS}/{page})"
