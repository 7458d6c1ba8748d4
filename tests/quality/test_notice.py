"""Each method's paper is attributed in NOTICE."""

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
