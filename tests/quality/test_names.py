"""The rule of names: a participle alone says what was done, and not what a thing is."""

import ast
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).parents[2] / "src" / "samtune"

PARTICIPLES = frozenset(
    "asked called checked chosen clicked computed cut drawn found framed gathered given gone"
    " guessed held joined kept listed made matched measured met moved named own placed planned"
    " ranked reported said seen shown smoothed spoken taken told touched trained wanted"
    " written".split()
)
"""Names that are riddles. JSON keys and words of the command line are no names in this sense."""

LINES = 5
"""A local variable that is used no further than this may have such a name."""

STAYS = {"metrics/image_result.py": ("Seen", "counted")}
"""Names of version 0.1.0 that others import or call."""


def is_riddle(name: str) -> bool:
    """Whether a name, without underscores around it, is one of the participles."""
    return name.strip("_").lower() in PARTICIPLES


def acts_on_nothing(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function is called by a participle of one word, and has no argument.

    One with an argument may be called so, as Python's ``sorted``: it gives what was done to that.
    """
    args, word = function.args, function.name.strip("_")
    given = [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    nothing = set(given) <= {"self", "cls"} and not args.vararg and not args.kwarg
    return nothing and word.endswith("ed") and "_" not in word and word not in NOUNS


NOUNS = frozenset({"embed", "seed", "speed"})
"""Words that only look like participles."""


def definitions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The names of functions, classes, attributes and module-level variables, with their lines."""
    bodies = [tree.body] if isinstance(tree, ast.Module) else []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        if isinstance(node, ast.ClassDef):
            bodies.append(node.body)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
    for statement in (statement for body in bodies for statement in body):
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            for name in ast.walk(statement):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    yield name.id, name.lineno


def spans(function: ast.AST) -> dict[str, tuple[int, int]]:
    """The first and the last line of each variable and argument of a function."""
    lines: dict[str, list[int]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            lines.setdefault(node.id, []).append(node.lineno)
        elif isinstance(node, ast.arg):
            lines.setdefault(node.arg, []).append(node.lineno)
    return {name: (min(numbers), max(numbers)) for name, numbers in lines.items()}


def riddles(root: Path) -> list[str]:
    """The names under ``root`` that break the rule."""
    out = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"), path)
        lines = {(line, each) for each, line in definitions(tree) if is_riddle(each)}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines |= {(node.lineno, node.name)} if acts_on_nothing(node) else set()
                for each, (first, last) in spans(node).items():
                    if is_riddle(each) and last - first > LINES:
                        lines.add((first, each))
        out += [
            f"{name}:{n}: {each}" for n, each in sorted(lines) if each not in STAYS.get(name, ())
        ]
    return out


def test_names_say_what_things_are():
    assert list(SRC.rglob("*.py"))
    assert riddles(SRC) == []


def test_the_rule_reports(tmp_path):
    (tmp_path / "a.py").write_text(
        "MADE = 1\n"
        "class Found:\n"
        "    kept: int\n"
        "    def _asked(self, chosen):\n"
        "        self.seen = 1\n"
        "        made = 2\n"
        "        chosen += made\n"
        "        shown = 3\n" + "\n" * 6 + "        return chosen, shown\n"
        "    def hushed(self): pass\n"
        "    def seed(self): pass\n"
        "    def renamed(self, names): pass\n"
        "    def short(self):\n"
        "        found = 1\n"
        "        return found\n"
    )
    lines = [
        "1: MADE",
        "2: Found",
        "3: kept",
        "4: _asked",
        "4: chosen",
        "5: seen",
        "8: shown",
        "16: hushed",
    ]
    assert riddles(tmp_path) == [f"a.py:{line}" for line in lines]
