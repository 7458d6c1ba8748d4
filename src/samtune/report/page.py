"""Results as one self-contained page: ``report.html``, and picture strips beside it.

The page needs no network and contains no script; its pictures are embedded, its curves are SVG.
"""

from __future__ import annotations

import base64
import io
import json
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samtune.files import write_whole
from samtune.report.charts import charts
from samtune.report.instance_table import (
    BEYOND,
    FITTED_BASE,
    Line,
    automatic_modes,
    instance_lines,
    lines_by_size,
    thresholds,
)
from samtune.report.overlays import (
    AFTER,
    BEFORE,
    PANEL,
    TRUTH,
    Overlay,
    Pictures,
    draw_overlay,
    panels,
    strip,
)
from samtune.report.prompt_table import (
    BASE_ON_WHOLE,
    about_trained,
    asked_with,
    metric_rows,
    on_whole_images,
    prompt_rows,
    sureness,
    title_of,
    with_guesses,
)
from samtune.report.quantities import duration, is_number, metric, quantity, rate_of, span

if TYPE_CHECKING:
    from jinja2 import Environment, Template

__all__ = ["Overlay", "Report", "draw_overlay", "render", "write_report"]

PACKAGES = ("samtune", "torch", "accelerate", "numpy", "kornia", "transformers")


@dataclass(frozen=True)
class Report:
    """The contents of one run's report; only ``title`` and ``summary`` are needed."""

    title: str
    summary: Mapping[str, Any]
    """The keys of the command line's JSON: ``zero_shot`` and ``tuned`` (metric name -> fraction),
    ``intervals`` (by side and for their ``difference``, metric name -> ends), ``interval`` (their
    description), ``prompt``, ``images``, ``images_per_second``, ``split``,
    ``trainable_parameters``, ``total_parameters``, ``seconds``, ``peak_memory_bytes``,
    ``precision``; ``guesses`` (masks that need no model: name -> metrics); ``by_class`` and
    ``by_prompt`` (name -> metrics, or name -> ``zero_shot`` and ``tuned``, each metrics)."""
    subtitle: str = ""
    command: str = ""
    contract: str = ""
    """The definition of the metrics, in words."""
    history: Sequence[Mapping[str, Any]] = ()
    """Rows of ``metrics.jsonl`` by ``event``: ``train`` (step, loss, lr), ``val`` (step, iou, dice,
    loss), and ``zero_shot`` (iou) if the baseline was measured on the validation images."""
    overlays: Sequence[Overlay] = ()
    instances: Mapping[str, Sequence[Overlay]] = field(default_factory=dict)
    """Images with their instances as label maps, by automatic mode."""
    config: Mapping[str, Any] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    misfits: Sequence[Overlay] = ()
    """Training images that the tuned model cannot fit, if ``summary`` has ``diagnoses``."""
    versions: Mapping[str, str] | None = None
    """Package -> version; by default those of this process."""


def write_report(folder: Path, report: Report) -> Path:
    """Writes ``report.html`` and ``samples/*.png``; each file is replaced whole or not at all.

    Raises:
        ValueError: A mask differs in size from its image.
        InputError: A file could not be written.
    """
    overlays = sorted(report.overlays, key=_tuned_iou)
    rows = [panels(o) for o in overlays]
    html = render(report, rows).encode("utf-8", "backslashreplace")
    strips = {
        name: encoded(strip(o, row), "PNG")
        for (name, o), row in zip(_file_names(overlays).items(), rows, strict=True)
    }
    for mode, images in report.instances.items():
        names = _file_names(images).items()
        strips |= {f"{mode}-{name}": encoded(strip(o), "PNG") for name, o in names}
    for name, data in strips.items():
        write_whole(Path(folder) / "samples" / f"{name}.png", data)
    return write_whole(Path(folder) / "report.html", html)


def render(report: Report, rows: Sequence[Pictures] | None = None) -> str:
    """The page's HTML; overlays run from the worst tuned IoU to the best.

    Args:
        report: The contents of the page.
        rows: The panels of each overlay, in this order; without them they are drawn here.
    """
    import yaml

    overlays = sorted(report.overlays, key=_tuned_iou)
    rows = [panels(o) for o in overlays] if rows is None else rows
    config = json.loads(json.dumps(dict(report.config), default=str))
    return page("report.html.j2").render(
        report=report,
        headline=_headline(report.summary),
        sureness=sureness(report.summary),
        facts=_facts(report.summary),
        tables={
            title: _group_table(groups)
            for title, groups in (
                ("By class", with_guesses(report.summary.get("by_class") or {})),
                (title_of(report.summary.get("by_prompt") or {}), _prompts(report.summary)),
                ("By metric", _by_metric(report.summary)),
            )
            if groups
        },
        instances=[
            _instances(mode, entry, report.instances.get(mode, ()))
            for mode, entry in automatic_modes(report.summary.get("by_prompt")).items()
        ],
        charts=charts(report.history, report.summary),
        misfits=[_figure(o, panels(o)) for o in report.misfits],
        gallery=[_figure(o, row) for o, row in zip(overlays, rows, strict=True)],
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else "",
        versions=versions() if report.versions is None else report.versions,
    )


def page(template: str) -> Template:
    """A template of this package; what is compiled once serves all pages of a process."""
    return _environment().get_template(template)


@cache
def _environment() -> Environment:
    """The filters and colours that all pages share."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("samtune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": metric,
        "signed": lambda value: metric(value, sign=True),
        "span": span,
        "signed_span": lambda ends: span(ends, sign=True),
    }
    colours = {"truth": TRUTH, "before": BEFORE, "after": AFTER}
    environment.globals["colours"] = {name: f"rgb{rgb}" for name, rgb in colours.items()}
    return environment


def _headline(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of the first table: guesses without a model, zero-shot, tuned, and the gain."""
    of_first, summary = summary, about_trained(summary)
    prompt = "" if summary is of_first else summary["prompt"]
    ends = summary.get("intervals") or {}
    of_guesses = ends.get("guesses") or {}
    rows = [
        ("guess", name, _metrics(value), of_guesses.get(name) or {})
        for name, value in (summary.get("guesses") or {}).items()
    ]
    before, after = summary.get("zero_shot"), summary.get("tuned")
    whole, of_whole = on_whole_images(summary)
    rows += [("before", BASE_ON_WHOLE.capitalize(), dict(whole), of_whole)] if whole else []
    rows += [("before", "Zero-shot", dict(before), ends.get("zero_shot") or {})] if before else []
    rows += [("after", "Tuned", dict(after), ends.get("tuned") or {})] if after else []
    gain = {}
    if before and after:
        gain = {
            k: after[k] - before[k]
            for k in after
            if is_number(after[k]) and is_number(before.get(k))
        }
    columns = _columns([row[2] for row in rows])
    ends = ends.get("difference") or {}
    return {"rows": rows, "columns": columns, "gain": gain, "ends": ends, "prompt": prompt}


def _by_metric(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The requested metrics, if there are others than IoU and Dice."""
    metrics = summary.get("metrics") or {}
    if not set(metrics) - {"iou", "dice"} or summary.get("prompt") in automatic_modes(
        summary.get("by_prompt")
    ):
        return {}
    return {
        label: {
            "zero_shot": {"value": before},
            "tuned": {"value": after},
            "intervals": {side: {"value": each} for side, each in ends.items()},
        }
        for label, before, after, ends in metric_rows(metrics)
    }


def _instances(mode: str, entry: Mapping[str, Any], images: Sequence[Overlay]) -> dict[str, Any]:
    """An automatic mode: its tables, over all sizes and by size, its thresholds and pictures."""
    tables = {
        "All sizes": {line.name: _one_number(line) for line in instance_lines(entry)},
        "By size": {
            title: {
                **{
                    side: {size: getattr(line, side) for size, line in lines.items()}
                    for side in ("zero_shot", FITTED_BASE, "tuned")
                },
                "intervals": {
                    side: {size: line.intervals.get(side) for size, line in lines.items()}
                    for side in ("zero_shot", FITTED_BASE, "tuned", "difference", BEYOND)
                },
            }
            for title, lines in lines_by_size(entry)
        },
    }
    return {
        "mode": mode,
        "short": _group_table(
            {line.name: _one_number(line) for line in instance_lines(entry, short=True)}
        ),
        "tables": {title: _group_table(rows) for title, rows in tables.items()},
        "thresholds": thresholds(entry),
        "gallery": [_figure(o, panels(o)) for o in images],
    }


def _one_number(line: Line) -> dict[str, Any]:
    """A line of a table that has one number for each side."""
    return {
        **{side: {"value": getattr(line, side)} for side in ("zero_shot", FITTED_BASE, "tuned")},
        "intervals": {side: {"value": ends} for side, ends in line.intervals.items()},
    }


def _prompts(summary: Mapping[str, Any]) -> dict[str, Any]:
    rows = prompt_rows(summary.get("by_prompt") or {})
    labels = [row.label if row.origin else f"{row.mode}: {row.label}" for row in rows]
    return {
        label: {"zero_shot": row.zero_shot, "tuned": row.tuned, "intervals": row.intervals}
        for label, row in zip(labels, rows, strict=True)
    }


def _group_table(groups: Mapping[str, Any]) -> dict[str, Any]:
    """A table with one row per group: flat metrics, or zero-shot, tuned and the difference."""
    in_pairs = any(
        "tuned" in v or "zero_shot" in v for v in groups.values() if isinstance(v, Mapping)
    )
    if not in_pairs:
        rows = {str(name): _metrics(value) for name, value in groups.items()}
        return {"paired": False, "rows": rows, "columns": _columns(list(rows.values()))}
    pairs = {
        str(name): (
            _metrics(v.get("zero_shot") or {}),
            _metrics(v.get("tuned") or {}),
            {side: of or {} for side, of in (v.get("intervals") or {}).items()},
            _metrics(v.get(FITTED_BASE) or {}),
        )
        for name, v in groups.items()
    }
    columns = _columns([values for row in pairs.values() for values in row[:2]])
    fitted = any(row[3] for row in pairs.values())
    return {"paired": True, "rows": pairs, "columns": columns, "fitted": fitted}


def _metrics(value: Any) -> dict[str, float]:
    return (
        {k: v for k, v in value.items() if is_number(v)}
        if isinstance(value, Mapping)
        else {"iou": value}
    )


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    names = {"iou": "IoU", "dice": "Dice"}
    keys = dict.fromkeys(key for row in rows for key, value in row.items() if is_number(value))
    ordered = [k for k in names if k in keys] + [k for k in keys if k not in names]
    return {k: names.get(k, k.replace("_", " ")) for k in ordered}


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Costs and counts besides the metrics: name, value, remark."""
    facts = []
    trainable, total = summary.get("trainable_parameters"), summary.get("total_parameters")
    if trainable is not None:
        share = f"{100 * trainable / total:.2g} % of {quantity(total)}" if total else ""
        facts.append(("Trainable parameters", quantity(trainable), share))
    if summary.get("seconds") is not None:
        facts.append(("Time", duration(summary["seconds"]), ""))
    if summary.get("peak_memory_bytes") is not None:
        facts.append(("Peak memory", quantity(summary["peak_memory_bytes"], "B"), ""))
    if summary.get("precision") is not None:
        facts.append(("Arithmetic", str(summary["precision"]), "of forward passes"))
    if summary.get("images_per_second") is not None:
        rate = rate_of(summary["images_per_second"])
        facts.append(("Images per second", rate, "answers alone, without reading and measuring"))
    if summary.get("images") is not None:
        facts.append(("Images measured", str(summary["images"]), str(summary.get("split") or "")))
    if summary.get("prompt") is not None:
        asked = asked_with(str(summary["prompt"]), summary.get("by_prompt"))
        facts.append(("Prompt", asked, ""))
    return facts


def _tuned_iou(overlay: Overlay) -> tuple[float, str]:
    iou = overlay.iou_before if overlay.iou_after is None else overlay.iou_after
    return (math.inf if iou is None or math.isnan(iou) else iou), overlay.name


def _figure(overlay: Overlay, row: Pictures) -> dict[str, Any]:
    # JPEG blurs the enlarged pixels of small images; PNG makes photographs five times larger.
    small = 2 * max(overlay.image.shape[:2]) <= PANEL
    kind = "PNG" if small else "JPEG"
    pictures = [
        (
            caption,
            f"data:image/{kind.lower()};base64,{base64.b64encode(encoded(p, kind)).decode()}",
            p.shape,
        )
        for caption, p in row
    ]
    return {"overlay": overlay, "pictures": pictures}


def encoded(picture: np.ndarray, kind: str) -> bytes:
    """An image file of ``(h, w, 3)`` uint8 RGB; ``kind`` is PNG or JPEG."""
    from PIL import Image

    data = io.BytesIO()
    # PNG's fourth level takes half the time of its usual one for as many bytes, of photographs too.
    options = {"compress_level": 4} if kind == "PNG" else {"optimize": True, "quality": 88}
    Image.fromarray(picture).save(data, kind, **options)
    return data.getvalue()


def _file_names(overlays: Sequence[Overlay]) -> dict[str, Overlay]:
    """A distinct plain file name for each overlay, whatever characters its own name has."""
    names: dict[str, Overlay] = {}
    for overlay in overlays:
        stem = re.sub(r"\.(png|jpe?g|tiff?|bmp|webp)$", "", overlay.name, flags=re.IGNORECASE)
        stem = re.sub(r"[^\w.-]+", "_", stem).strip("._")[:80] or "image"
        number, name = 1, stem
        while name.lower() in names:
            number += 1
            name = f"{stem}-{number}"
        names[name.lower()] = overlay
    return names


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """The versions of Python and of each of some packages that is installed."""
    installed = {package: _version_of(package) for package in packages}
    return {"python": platform.python_version()} | {k: v for k, v in installed.items() if v}


@cache
def _version_of(package: str) -> str | None:
    """An installed package's version, as its files state it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
