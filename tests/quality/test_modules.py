"""Test modules stand alone: what several of them share lies in ``tests/support``."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def borrowed(root: Path) -> list[str]:
    """Imports of one test module, or of a conftest, by another."""
    modules = {path.stem for path in root.rglob("*.py") if path.parent.name != "support"}
    found = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"), path)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(alias.name for alias in node.names)]
                names = names if node.level or node.module == "tests" else names[:1]
            parts = {part for name in names for part in name.split(".")}
            found += [f"{path.relative_to(root)}:{node.lineno}" for _ in sorted(parts & modules)]
    return found


def test_no_test_module_imports_a_test_module():
    assert len(list(TESTS.rglob("test_*.py"))) > 50
    assert borrowed(TESTS) == []


def test_support_holds_no_tests():
    assert [path.name for path in (TESTS / "support").glob("test_*.py")] == []


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("from test_one import x", ["test_two.py:1"]),
        ("import test_one", ["test_two.py:1"]),
        ("from . import test_one", ["test_two.py:1"]),
        ("from tests.data.test_one import x", ["test_two.py:1"]),
        ("import helper", []),
        ("from helper import test_one", []),
    ],
)
def test_the_rule_reports(tmp_path, line, lines):
    (tmp_path / "support").mkdir()
    (tmp_path / "support" / "helper.py").touch()
    (tmp_path / "test_one.py").touch()
    (tmp_path / "test_two.py").write_text(line + "\n")
    assert borrowed(tmp_path) == lines
