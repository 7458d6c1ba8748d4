"""The card of a model: what a reader needs to judge and to use it, from its checkpoint alone.

The front matter is that of the Hugging Face hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from samtune.model.strength import Strength
from samtune.prompts import NONE, PromptModes

UNKNOWN = "not stated; ask whoever trained the model"
METRICS = ("iou", "dice", "boundary_iou", "hd95", "nsd", "mae", "ber", "ap", "miou")
"""Metrics that a card shows first, if there are some of them."""


def card_of(
    header: Mapping[str, Any],
    name: str,
    *,
    licence: str = "",
    data: str = "",
    data_licence: str = "",
    base_model: str = "",
    picture: str = "",
) -> str:
    """A model card as Markdown with front matter.

    Args:
        header: The header of the checkpoint.
        name: The name of the model.
        licence: The licence of the weights, as the hub writes it: ``apache-2.0``.
        data: The data of the training, in words or as the id of a data set on the hub.
        data_licence: The licence of the data.
        base_model: The hub id of its base.
        picture: The name of a picture beside the card.
    """
    summary = header.get("summary") or {}
    front = _front_matter(header, name, summary, licence, data, base_model)
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        f"# {name}",
        "",
        *_what_it_is(header),
        *([f"![A mask of the model]({picture})", ""] if picture else []),
        *_how_to_use(header, name, base_model),
        *_numbers(summary),
        "## Data",
        "",
        f"- Trained on: {data or _data_name(header) or UNKNOWN}",
        f"- Licence of the data: {data_licence or UNKNOWN}",
        f"- Licence of these weights: {licence or UNKNOWN}",
        "",
        *_settings(header),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _front_matter(
    header: Mapping[str, Any],
    name: str,
    summary: Mapping[str, Any],
    licence: str,
    data: str,
    base_model: str,
) -> dict[str, Any]:
    adapter = header["adapter"]["name"]
    prompted = set(PromptModes.parse(header["prompts"]).kinds) != {NONE}
    front: dict[str, Any] = {
        "library_name": "samtune",
        "pipeline_tag": "mask-generation" if prompted else "image-segmentation",
    }
    if licence:
        front["license"] = licence
    if base_model:
        front |= {"base_model": base_model, "base_model_relation": "adapter"}
    front["tags"] = ["segment-anything", "sam", *adapter.split("+"), "samtune"]
    if "/" in data and " " not in data:
        front["datasets"] = [data]
    results = [
        {"type": metric, "value": value, "name": f"{metric}, {side}"}
        for side, values in _sides(summary)
        for metric, value in values.items()
    ]
    if results:
        front["metrics"] = sorted({each["type"] for each in results})
        of_data = {"name": data or _data_name(header) or "unnamed", "type": data or "own"}
        task = {"type": "image-segmentation"}
        entry = {"task": task, "dataset": of_data, "metrics": results}
        front["model-index"] = [{"name": name, "results": [entry]}]
    return front


def _what_it_is(header: Mapping[str, Any]) -> Iterator[str]:
    base, policy = header["base"], header["input"]
    size = policy.get("size") or []
    way = policy.get("resize", "longest")
    yield (
        f"Segment Anything ({base['name']}) fine-tuned with samtune {header.get('samtune', '')}: "
        f"adapter `{header['adapter']['name']}`, decoder `{header['decoder']['name']}`."
    )
    yield ""
    yield f"- Prompts that it was trained for: `{header['prompts']}`"
    yield f"- Images enter as `{way}` at {' x '.join(map(str, size))} pixels (height x width)"
    for key in ("mean", "std", "channels"):
        if policy.get(key) is not None:
            yield f"- `input.{key}`: {policy[key]}"
    if classes := header.get("classes") or _of_data(header).get("class_names"):
        yield f"- Classes: {', '.join(map(str, classes))}"
    if "strength" in header:
        yield f"- It acts at strength {Strength.read(header)}"
    yield f"- sha256 of its base, as samtune counts it: `{base['sha256']}`"
    yield ""


def _how_to_use(header: Mapping[str, Any], name: str, base_model: str) -> Iterator[str]:
    within = "bundle" in header
    weights = f', base="{base_model or "WEIGHTS OF THE BASE"}"'
    alone = within or header["base"]["name"] == "nano"
    place = f"{name}.safetensors" if within else "hf:OWNER/NAME"
    fetch = "" if within else ", download=True"
    yield "## How to use it"
    yield ""
    yield "```python"
    yield "import samtune"
    yield ""
    yield f'model = samtune.load("{place}"{"" if alone else weights}{fetch})'
    yield "predictor = model.predictor()"
    yield "```"
    yield ""
    of_base = "" if alone else " base.weights=FILE"
    yield f"On the command line: `samtune predict {place} PHOTOS{of_base}`."
    yield ""


def _sides(summary: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """The numbers of the tuned model, of the base, and of guesses that need no model, by name."""
    pairs = [("tuned", summary.get("tuned")), ("zero-shot", summary.get("zero_shot"))]
    guesses = summary.get("guesses")
    pairs += list(guesses.items()) if isinstance(guesses, Mapping) else []
    for side, values in pairs:
        if isinstance(values, Mapping):
            numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
            first = {key: numbers[key] for key in METRICS if key in numbers}
            shown = first or dict(list(numbers.items())[:6])
            if shown:
                yield side, {key: round(float(value), 4) for key, value in shown.items()}


def _numbers(summary: Mapping[str, Any]) -> Iterator[str]:
    sides = list(_sides(summary))
    yield "## Numbers"
    yield ""
    if not sides:
        yield "None came with the checkpoint; `samtune eval` measures it beside the base."
        yield ""
        return
    metrics = list(dict.fromkeys(key for _, values in sides for key in values))
    yield "| | " + " | ".join(metrics) + " |"
    yield "|---" * (len(metrics) + 1) + "|"
    for side, values in sides:
        yield f"| {side} | " + " | ".join(f"{values.get(key, '')}" for key in metrics) + " |"
    yield ""
    yield (
        "Zero-shot is the base with the same prompts; the other rows, if there are any, need no "
        "model at all."
    )
    yield ""


def _data_name(header: Mapping[str, Any]) -> str:
    return str(_of_data(header).get("name") or "")


def _of_data(header: Mapping[str, Any]) -> Mapping[str, Any]:
    data = header.get("config", {}).get("data", {})
    return data if isinstance(data, Mapping) else {}


def _settings(header: Mapping[str, Any]) -> Iterator[str]:
    config = header.get("config")
    if not config:
        return
    of_machine = ("output", "resume", "device")
    shown = {key: value for key, value in config.items() if key not in of_machine}
    yield "## Settings"
    yield ""
    yield "```yaml"
    yield yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).rstrip()
    yield "```"
    yield ""
