"""Core names no published system: what repeats one stands in ``published`` or beside it."""

import ast
import re
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "samtune"
SYSTEMS = re.compile(
    r"kyyle|\bcat[-_ ]?sam|\bgsam|\bgeneralized sam|\bsamed\b|\bsamus\b|trans10k|\bts[-_ ]sam"
    r"|\bsam[-_ ]adapter\b",
    re.IGNORECASE,
)
NOT_CORE = {
    "adapters": "each file is a published method",
    "decoders": "each file is a published decoder",
    "foreign": "each file is another system's checkpoints",
    "metrics": "metrics are named after the systems whose conventions they follow",
    "published": "the room for what repeats them",
    "recipes": "experiments of published systems",
    "data/named": "published data sets, with the splits of the systems that made them",
    "cli/importing.py": "the verb import takes other systems' files",
}
CITING = ("losses",)
"""Packages whose docstrings may cite the papers that their formulas come from."""


def without_docstrings(text: str) -> str:
    """Code without the strings that stand alone; comments stay."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            if isinstance(node.value.value, str):
                lines[node.lineno - 1 : node.end_lineno] = [""] * (
                    node.end_lineno - node.lineno + 1
                )
    return "\n".join(lines)


def systems_in(root: Path) -> list[str]:
    """Every mention of a published system in the core's code below ``root``."""
    hits = []
    for path in sorted(root.rglob("*.py")):
        name, text = path.relative_to(root).as_posix(), path.read_text("utf-8")
        if name.startswith(tuple(f"{part}/" for part in NOT_CORE)) or name in NOT_CORE:
            continue
        if name.startswith(tuple(f"{part}/" for part in CITING)):
            text = without_docstrings(text)
        for number, line in enumerate(text.splitlines(), 1):
            hits += [f"{name}:{number}: {hit}" for hit in SYSTEMS.findall(line)]
    return hits


def test_core_names_no_system():
    assert systems_in(SRC) == []
    assert all((SRC / part).exists() for part in NOT_CORE)


@pytest.mark.parametrize(
    ("file", "text", "count"),
    [
        ("data/a.py", '"""As CAT-SAM has it."""\nx = "kyyle"  # of SAMed\n', 3),
        ("losses/a.py", '"""As SAM-Adapter has it."""\n# as TS-SAM\n', 1),
        ("adapters/cat_sam.py", "NAME = 'cat_sam'\n", 0),
        ("data/a.py", "prompts_sampled = other_ts[sam]  # prompts sampled, SAM adaptations\n", 0),
    ],
)
def test_mentions_are_found(tmp_path, file, text, count):
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(text)
    assert len(systems_in(tmp_path)) == count
