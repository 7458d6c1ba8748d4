"""Writes the generated tables of the documentation: ``python docs/generate.py``.

A table stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; a test says when one is
out of date.
"""

from __future__ import annotations

import re
from pathlib import Path

from imports import picture

from samtune.cli.catalogue import decoders_table, methods_table
from samtune.cli.recipe_list import recipes_table
from samtune.cli.setting_list import settings_table
from samtune.data.named import datasets_table
from samtune.metrics.contract import metrics_table

PAGES = Path(__file__).parent
MARK = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """Every generated table by the name in its mark."""
    made = {level: settings_table(level) for level in ("everyday", "expert", "published")}
    made["metrics"] = metrics_table()
    made["datasets"] = datasets_table()
    made["imports"] = picture()
    made["recipes"] = recipes_table()
    return {**made, "methods": methods_table(), "decoders": decoders_table()}


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


if __name__ == "__main__":
    main()
