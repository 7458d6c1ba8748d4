"""No eight lines of code stand twice in the sources."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "samtune"
LINES = 8


def lines_of_code(text: str) -> list[tuple[int, str]]:
    """The lines of a module that count, with their numbers.

    Imports, signatures, docstrings, comments, and lines of punctuation alone do not.
    """
    tree, left_out = ast.parse(text), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            left_out.update(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            left_out.update(range(node.lineno, node.body[0].lineno))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            left_out.update(range(node.lineno, node.end_lineno + 1))
    lines = ((n, line.split("#")[0].strip()) for n, line in enumerate(text.splitlines(), 1))
    return [(n, line) for n, line in lines if n not in left_out and re.search(r"\w", line)]


def copies(folder: Path) -> list[str]:
    """Each place where so many lines of another place begin again; one per stretch of lines."""
    places = defaultdict(list)
    for path in sorted(folder.rglob("*.py")):
        code = lines_of_code(path.read_text(encoding="utf-8"))
        for start in range(len(code) - LINES + 1):
            window = code[start : start + LINES]
            places[tuple(line for _, line in window)].append((path, start, window[0][0]))
    found, joined = [], set()
    for (first, start, line), *others in (group for group in places.values() if len(group) > 1):
        for other, begin, number in others:
            joined.add((first, start, other, begin))
            if (first, start - 1, other, begin - 1) not in joined:
                found.append(f"{other.relative_to(folder)}:{number} repeats {first.name}:{line}")
    return found


def test_no_eight_lines_stand_twice():
    assert copies(SRC) == []


def write_pair(folder: Path, lines: int) -> Path:
    """Two modules that share ``lines`` statements, and imports and docstrings that do not count."""
    head = (
        '"""The same\nlong\ndocstring\nin\nboth\nof\nthe\nfiles."""\n\nimport json\nimport math\n'
    )
    head += "\nfrom os import (\n    path,\n    sep,\n)\n\n"
    shared = "".join(f"    total += math.sqrt(x + {i})\n    # \n\n" for i in range(lines - 1))
    for name in ("one", "two"):
        start = f"    total = len({name!r}) + x\n"
        text = (
            f"{head}def {name}(\n    x,\n    y,\n):\n{start}{shared}    return json.dumps(total)\n"
        )
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(("lines", "count"), [(12, 1), (8, 1), (7, 0)])
def test_a_copy_is_found_and_told_once(tmp_path, lines, count):
    assert len(copies(write_pair(tmp_path, lines))) == count
