"""Each adapter and decoder has a golden test: its values come from elsewhere than its own code."""

import ast
from pathlib import Path

from samtune.adapters import ADAPTERS
from samtune.decoders import DECODERS

TESTS = Path(__file__).parents[1]


def golden_names(source: str) -> set[str]:
    """The methods that tests of a file name in ``@pytest.mark.golden("METHOD", ...)``."""
    marks = [
        mark
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        for mark in node.decorator_list
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.golden"
    ]
    return {name.value for mark in marks for name in mark.args if isinstance(name, ast.Constant)}


def test_every_method_has_a_golden_test():
    names = set().union(*(golden_names(p.read_text("utf-8")) for p in TESTS.rglob("test_*.py")))
    assert names == {*ADAPTERS, *DECODERS}, "mark a test of each with @pytest.mark.golden"


def test_only_marks_of_tests_count():
    code = """
@pytest.mark.golden("lora", "ssf")
def test_a(): pass
@pytest.mark.golden("fact")
def helper(): pass
golden("vpt")
"""
    assert golden_names(code) == {"lora", "ssf"}
