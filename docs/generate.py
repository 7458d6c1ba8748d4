"""Writes generated tables and the help of settings: ``python docs/generate.py``.

A table stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; a test says when one is
out of date.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

from imports import SRC, picture

from samtune.cli.advice import advice_table, evidence_table
from samtune.cli.catalogue import decoders_table, methods_table
from samtune.cli.completion import NAMES, completion_names
from samtune.cli.outward import list_formats
from samtune.cli.recipe_list import recipes_table
from samtune.cli.setting_list import EVERYDAY, everyday_help, settings_table
from samtune.cli.settings_index import FILE, index
from samtune.data.named import datasets_table
from samtune.geometry import PRESETS
from samtune.inference.formats import PNG, PNG_ABOUT, WRITERS
from samtune.losses.dense import DENSE_LOSSES
from samtune.losses.masks import CLASS_LOSSES, HEADS, LOSSES
from samtune.metrics.contract import metrics_table
from samtune.options import as_yaml

PAGES = Path(__file__).parent
MARK = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """Every generated table by the name in its mark."""
    made = {level: settings_table(level) for level in ("everyday", "expert", "published")}
    made["everything"] = settings_table("expert", "everything")
    made["metrics"] = metrics_table()
    made["datasets"] = datasets_table()
    made["imports"] = picture()
    made["presets"] = presets_table()
    made["losses"] = losses_table()
    made["recipes"] = recipes_table()
    made["formats"] = formats_table()
    made["predictions"] = predictions_table()
    made["advice"], made["evidence"] = advice_table(), evidence_table()
    return {**made, "methods": methods_table(), "decoders": decoders_table()}


def presets_table() -> str:
    """The settings that each value of ``input.preset`` stands for, as a Markdown table."""
    lines = ["| preset | settings of `input` |", "|---|---|"]
    for name in PRESETS:
        settings = PRESETS[name].settings.items()
        words = (f"`{key}={as_yaml(value).replace(' ', '')}`" for key, value in settings)
        lines.append(f"| `{name}` | {', '.join(words)} |")
    return "\n".join(lines) + "\n"


def losses_table() -> str:
    """The losses of ``train.loss``, with the first paragraphs of their docstrings."""
    dense = {name: loss.function for name, loss in DENSE_LOSSES.items()}
    groups = {
        "masks": LOSSES,
        "the decoder's estimate of its IoU": HEADS,
        "maps of classes": CLASS_LOSSES,
        "the decoder `instances`": dense,
    }
    lines = ["| loss | of | definition |", "|---|---|---|"]
    for of, losses in groups.items():
        for name, loss in losses.items():
            first = inspect.cleandoc(loss.__doc__ or "").split("\n\n")[0].replace("\n", " ")
            text = re.sub(r":\w+:`([^`]*)`", r"`\1`", first).replace("``", "`").replace("|", "\\|")
            lines.append(f"| `{name}` | {of} | {text} |")
    return "\n".join(lines) + "\n"


def formats_table() -> str:
    """The formats of export, as a Markdown table with links to their pages."""
    keys = ("format", "for", "writes", "precisions", "needs")
    lines = ["| format | for | writes | precisions | needs |", "|---|---|---|---|---|"]
    for row in list_formats():
        link = f"[`{row['format']}`]({row['format']}.md)"
        cells = {**row, "format": link, "needs": f"`{row['needs']}`"}
        lines.append(f"| {' | '.join(cells[key] if row[key] else '' for key in keys)} |")
    return "\n".join(lines) + "\n"


def predictions_table() -> str:
    """The formats of predictions, as a Markdown table."""
    lines = ["| `--as` | for | needs |", "|---|---|---|", f"| `{PNG}` | {PNG_ABOUT} | |"]
    for name in WRITERS:
        extra = WRITERS[name].extra
        needs = f"`samtune[{extra}]`" if extra else ""
        lines.append(f"| `{name}` | {WRITERS[name].about} | {needs} |")
    return "\n".join(lines) + "\n"


def filled(page: str, made: dict[str, str]) -> str:
    """A page with its generated tables brought up to date."""
    return MARK.sub(lambda m: m[1] + made[m[2]] + m[3], page)


def main() -> None:
    """Rewrites the pages that hold tables."""
    made = tables()
    for path in sorted(PAGES.rglob("*.md")):
        text = path.read_text("utf-8")
        if filled(text, made) != text:
            path.write_text(filled(text, made), "utf-8")
    (SRC / "cli" / EVERYDAY).write_text(everyday_help(), "utf-8")
    (SRC / "cli" / NAMES).write_text(names_file(), "utf-8")
    (SRC / "cli" / FILE).write_text(settings_file(), "utf-8")


def names_file() -> str:
    """The names that the shell completes, as the file that ships has them."""
    return json.dumps(completion_names(), indent=1) + "\n"


def settings_file() -> str:
    """The names, types and ranges of all settings, as the file that ships has them."""
    return json.dumps(index(), indent=1) + "\n"


if __name__ == "__main__":
    main()
