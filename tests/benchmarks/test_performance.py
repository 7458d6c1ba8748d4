"""The table of performance is made on a tiny base: every part runs, on the CPU alone."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PARTS = {
    "cpu": ("operations at 1024 px", "kept for backward, bf16", "forward and backward fp32"),
    "gpu": ("attention, folded", "P6 forward", "P8 in the same", "P13", "P15", "P19"),
}
ONLY = {"cpu": "flops,kept,forward,backward,metrics", "gpu": ""}


@pytest.fixture
def here(monkeypatch):
    """This process, in which nothing is compiled: what tests of the model show."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tier", PARTS)
def test_every_part_of_a_tier_runs(tier, tmp_path, here):
    from benchmarks.__main__ import main

    words = ["run", tier, "--base", "tiny", "--size", "64", "--rounds", "1", "--device", "cpu"]
    words += ["--only", ONLY[tier], "--out", str(tmp_path / "page.md")]
    assert main(words) == 0
    page = (tmp_path / "page.md").read_text("utf-8")
    assert all(name in page for name in PARTS[tier])


def test_a_target_that_no_machine_excuses_fails_the_command(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.performance.table import Row, Table

    rows = Table()
    rows.add(
        Row("time", 3.0, "s", 2.0, at_most=True),
        Row("bytes", 0.5, target=0.4, at_most=True, exact=True),
        Row("operations", 0.3, target=0.4, at_most=True, exact=True),
        Row("speed", 2.0, "x", 1.5),
    )
    assert rows.missed == ["bytes"]
    assert [row.cells[-1] for row in rows.rows] == ["missed", "missed", "met", "met"]
    assert "| bytes | 0.5 |  | <= 0.4 | missed |" in rows.page("T", "c")
