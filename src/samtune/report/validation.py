"""The validations of a training and the resulting strength, in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samtune.metrics.prompt_names import key_of, modes_with
from samtune.report.quantities import counted, duration, metric


def validation_line(event: Mapping[str, Any]) -> str:
    """A validation in one line: its results, and each prompt that is monitored."""
    names = {"zero_shot": "zero-shot", "val": f"step {event['step']}"}
    name = names.get(event["event"]) or f"strength {event['strength']:g}"
    text = f"{name}: validation IoU {metric(event['iou'])}, Dice {metric(event['dice'])}"
    modes = modes_with("iou", event)
    if len(modes) > 1:
        text += "; " + ", ".join(f"{mode} {metric(event[key_of('iou', mode)])}" for mode in modes)
    if event.get("forgotten"):
        text += f" (below the base: {', '.join(event['forgotten'])})"
    return text


def length_line(event: Mapping[str, Any]) -> str:
    """How many steps fit into the time of a training, in one line."""
    steps = counted(event["steps"], "step")
    each = duration(event["seconds_per_step"])
    validation = event["seconds_per_validation"]
    also = f", a validation {duration(validation)}" if validation else ""
    return f"time      {event['time']} are about {steps}; a step takes {each}{also}"


def strength_note(summary: Mapping[str, Any]) -> str:
    """A note on the strength of a checkpoint, unless it acts in full."""
    by_kind = summary.get("strengths", {})
    if by_kind:
        parts = ",".join(f"{kind}:{value:g}" for kind, value in by_kind.items())
        return f" (strength {parts})"
    strength = summary.get("strength", 1)
    return "" if strength == 1 else f" (strength {strength:g})"
