"""Documentation that can be checked: docstrings exist and name what is there."""

import ast
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "samtune"
WORDS = runpy.run_path(str(ROOT / "benchmarks" / "plain_words.py"))
"""The lists of the counter, which are kept in one place."""

Callable = ast.FunctionDef | ast.AsyncFunctionDef
SECTION = re.compile(r"^(\s*)(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note):\s*$")

DISTRIBUTIVE = re.compile(
    r"\b(?:one|two|a|an|many|several|\d+) (?:(?!of|in|as|is|to|has)\w+ )?an? "
    r"(?:class|image|epoch|process|slice|file|row|step)\b",
    re.IGNORECASE,
)
"""Phrases such as "one a class", over which readers stumbled; "one per class" says the same."""


def is_public(name: str) -> bool:
    """Dunder methods are documented by Python, underscored names are private."""
    return not name.startswith("_")


def decorators(node: ast.ClassDef | Callable) -> set[str]:
    """The last names of a definition's decorators: ``typing.override`` is ``override``."""
    calls = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return {ast.unparse(call).rpartition(".")[2] for call in calls}


def entries(docstring: str) -> list[tuple[int, str, str]]:
    """Of each entry under ``Args:`` or ``Attributes:`` the line in the docstring, name and text."""
    rows, inside, indent = [], False, 0
    for number, line in enumerate(docstring.splitlines()):
        section = SECTION.match(line)
        pattern = rf" {{{indent}}}(\*{{0,2}}\w+)(?: \([^)]*\))?:(.*)"
        if section:
            inside, indent = section[2] in ("Args", "Attributes"), len(section[1]) + 4
        elif inside and (entry := re.match(pattern, line)):
            rows.append((number, entry[1].lstrip("*"), entry[2].strip()))
        elif inside and line.strip() and len(line) - len(line.lstrip()) < indent:
            inside = False
    return rows


def documented_arguments(docstring: str) -> list[str]:
    """The names under ``Args:`` of a Google docstring."""
    return [name for _, name, _ in entries(docstring)]


def has_subject(text: str, of_argument: bool = False) -> bool:
    """Whether a text begins as a noun or a sentence does.

    An argument's name stands before its text, as in ``model: In evaluation mode.``
    """
    first = re.match(r"[A-Za-z']*", text.strip())[0]
    return first not in WORDS["CLAUSES" if of_argument else "SUBJECTLESS"]


def parameters(node: Callable) -> set[str]:
    """All names in a function's signature."""
    a = node.args
    rest = [arg for arg in (a.vararg, a.kwarg) if arg]
    return {arg.arg for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs, *rest]}


def constructor_parameters(node: ast.ClassDef) -> set[str]:
    """What a class takes: its annotated fields and the parameters of its ``__init__``."""
    names = {f.target.id for f in annotated_fields(node)}
    for item in node.body:
        if isinstance(item, Callable) and item.name == "__init__":
            names |= parameters(item)
    return names


def annotated_fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """The fields a dataclass would have."""
    found = [
        f for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)
    ]
    return [f for f in found if "ClassVar" not in ast.unparse(f.annotation)]


def undescribed_fields(node: ast.ClassDef) -> list[str]:
    """The public fields that no string literal follows."""
    found = []
    for item in annotated_fields(node):
        after = node.body[node.body.index(item) + 1 :][:1]
        text = after and isinstance(after[0], ast.Expr) and isinstance(after[0].value, ast.Constant)
        if is_public(item.target.id) and not (text and isinstance(after[0].value.value, str)):
            found.append(item.target.id)
    return found


def problems_of(node: ast.ClassDef | Callable, name: str) -> list[str]:
    """What is wrong with the documentation of one definition."""
    docstring, marks = ast.get_docstring(node), decorators(node)
    found = []
    if docstring is None and not marks & {"overload", "override", "setter"}:
        found.append(f"{name} has no docstring")
    is_class = isinstance(node, ast.ClassDef)
    known = constructor_parameters(node) if is_class else parameters(node)
    for argument in documented_arguments(docstring or ""):
        if argument not in known:
            found.append(f"{name} documents {argument!r}, which it does not take")
    if is_class and "dataclass" in marks and node.name.endswith("Config"):
        found += [f"{name}.{field} is not described" for field in undescribed_fields(node)]
    return found


def problems_in(tree: ast.Module | ast.ClassDef, prefix: str = "") -> list[str]:
    """The same for every public definition of a module; nested functions are private."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef | Callable) and is_public(node.name):
            found += problems_of(node, prefix + node.name)
            if isinstance(node, ast.ClassDef):
                found += problems_in(node, f"{prefix}{node.name}.")
    return found


def problems(root: Path) -> list[str]:
    """The documentation problems of every file under ``root``."""
    found = []
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), path)
        if ast.get_docstring(tree) is None:
            found.append(f"{path}: the module has no docstring")
        found += [f"{path}: {problem}" for problem in problems_in(tree)]
    return found


def documentation(tree: ast.Module) -> list[tuple[int, str]]:
    """The line and the text of each docstring, of modules, definitions and fields alike."""
    bodies = [node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)]
    statements = [item for body in bodies for item in body if isinstance(item, ast.Expr)]
    values = [item.value for item in statements if isinstance(item.value, ast.Constant)]
    return [(value.lineno, value.value) for value in values if isinstance(value.value, str)]


def unclear(root: Path) -> list[str]:
    """The docstrings under ``root`` that begin without a subject, or have a phrase to avoid."""
    found = []
    for path in sorted(root.rglob("*.py")):
        for line, text in documentation(ast.parse(path.read_text(encoding="utf-8"), path)):
            phrase = DISTRIBUTIVE.search(" ".join(text.split()))
            texts = [(line, text, False)]
            texts += [(line + n, of_argument, True) for n, _, of_argument in entries(text)]
            found += [
                f"{path.name}:{n}: begins with {words.split()[0]!r}; name the subject"
                for n, words, of_argument in texts
                if not has_subject(words, of_argument)
            ]
            if phrase and has_subject(text):
                found.append(f"{path.name}:{line}: {phrase[0]!r}; write 'per'")
    return found


def test_docstrings_have_a_subject_and_plain_words():
    assert unclear(SRC) == []


def test_unclear_docstrings_are_reported(tmp_path):
    (tmp_path / "a.py").write_text(
        '"""What a module is."""\nX = 1\n"""Of all, the first."""\n'
        'def e():\n    """For each image its masks."""\n'
        'def f():\n    """One mask a class."""\ndef g():\n    """One mask per class."""\n'
        'def h(a, b, c):\n    """H.\n\n    Args:\n        a: That is trained.\n'
        "        c: In evaluation mode.\n"
        '        b: The images\n            of a split.\n    """\n'
    )
    lines = ["a.py:1", "a.py:3", "a.py:5", "a.py:7", "a.py:14"]
    assert [line.split(": ")[0] for line in unclear(tmp_path)] == lines


def test_sources_are_documented():
    assert list(SRC.rglob("*.py"))
    assert problems(SRC) == []


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("x = 1", "the module has no docstring"),
        ('"""M."""\ndef f(): pass', "f has no docstring"),
        ('"""M."""\nclass C: pass', "C has no docstring"),
        ('"""M."""\nclass C:\n    """C."""\n    def m(self): pass', "C.m has no docstring"),
        (
            '"""M."""\ndef f(a):\n    """F.\n\n    Args:\n        b: Gone.\n    """',
            "f documents 'b'",
        ),
        (
            '"""M."""\nclass C:\n    """C.\n\n    Args:\n        b: Gone.\n    """\n'
            "    def __init__(self, a): pass",
            "C documents 'b'",
        ),
        (
            '"""M."""\n@dataclass(frozen=True)\nclass FitConfig:\n    """C."""\n    lr: float = 1',
            "FitConfig.lr is not described",
        ),
    ],
)
def test_what_is_missing_is_reported(tmp_path, code, complaint):
    (tmp_path / "module.py").write_text(code)
    found = problems(tmp_path)
    assert len(found) == 1
    assert complaint in found[0]


def test_what_is_complete_passes(tmp_path):
    (tmp_path / "module.py").write_text('''"""A module."""
class Method:
    """A class.

    Args:
        sam: The base.
    """

    @dataclass(frozen=True)
    class Config:
        """Its settings."""

        kind: ClassVar[str] = "x"
        rank: int = 4
        """Rank of the update."""

    def __init__(self, sam): ...

    @typing.override
    def edits(self, i): ...

    def run(self, x, *rest, **options):
        """Runs.

        Args:
            x: Wrapped over
                two: lines.
            *rest: More.
            **options: Even more.

        Returns:
            nothing: at all.
        """
        def inner(): ...

def _private(): ...
''')
    assert problems(tmp_path) == []


def test_every_package_says_what_belongs_there():
    folders = {path.parent for path in SRC.rglob("*.py")}
    for folder in folders - {SRC}:
        doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
        first, _, rest = doc.partition("\n\n")
        assert first and rest, f"{folder.name}: say what belongs there, and what does not"
