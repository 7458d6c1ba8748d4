"""Each method's paper is attributed in NOTICE, and each part of the package stands in the docs."""

import re
from pathlib import Path

import pytest

from samtune.adapters import ADAPTERS
from samtune.decoders import DECODERS

ROOT = Path(__file__).parents[2]
ARXIV = re.compile(r"\d{4}\.\d{5}")


@pytest.mark.parametrize("registry", [ADAPTERS, DECODERS], ids=["adapters", "decoders"])
def test_every_paper_is_attributed(registry):
    notice = (ROOT / "NOTICE").read_text("utf-8")
    for name in registry:
        papers = ARXIV.findall(registry[name].paper)
        assert papers, f"{name}: its paper has no arXiv number"
        assert set(papers) <= set(ARXIV.findall(notice)), f"{name}: give NOTICE a line"


def test_the_architecture_names_every_part():
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    parts = page.split("## The parts")[1].split("\n## ")[0]
    for path in (ROOT / "src" / "samtune").iterdir():
        if path.name.startswith("_") or path.suffix not in ("", ".py"):
            continue
        name = path.name + "/" * path.is_dir()
        found = re.search(rf"(?<![\w]){re.escape(name)}(?!\w)", parts)
        assert found, f"{name}: give it a line in docs/architecture.md"
