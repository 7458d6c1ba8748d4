"""What samtune's parts import of each other, read from the sources, and the picture of it.

A part is a module or a package directly under ``samtune``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "samtune"
OPEN_TO_ALL = "errors"
"""The part whose arrows would only hide the others."""
LATE = {
    "model -> inference": "`load(...).predictor()` is the way in that a user types",
    "exports -> __init__": "programs that are copied into an export import samtune as users do",
    "data -> published": "a registry looks there for a name that it lacks",
    "geometry -> published": "a registry looks there for a name that it lacks",
    "training -> published": "a registry looks there for a name that it lacks",
}
"""Imports that point up, allowed only inside a function, for types and in a registry's ``members``,
each with its reason."""


def part_of(module: str) -> str:
    """``samtune.data.sources`` belongs to ``data``; the package itself to ``__init__``."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def is_late(node: ast.AST) -> bool:
    """Whether what is inside does not run on import: a function, or for type checkers only."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def imports_of(
    tree: ast.Module, module: str, is_package: bool, root: Path
) -> Iterator[tuple[str, int, bool]]:
    """Yields ``(target module, line, is late)`` of each import of samtune, by registries too."""
    late = {id(node) for body in ast.walk(tree) if is_late(body) for node in ast.walk(body)}
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: (None if is_package else -1)]
            base = base[: len(base) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            targets = [member_of(stem, alias.name, root) for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "Registry":
            words = [*node.args, *(keyword.value for keyword in node.keywords)]
            targets = [str(word.value) for word in words if isinstance(word, ast.Constant)]
            late.add(id(node))  # it is imported on the first name that the registry lacks
        for target in sorted(set(targets)):
            if target.split(".")[0] == "samtune":
                yield target, node.lineno, id(node) in late


def member_of(stem: str, name: str, root: Path) -> str:
    """``from stem import name`` means the module ``stem.name`` where there is one."""
    path = root.joinpath(*stem.split(".")[1:], name)
    exists = path.is_dir() or path.with_suffix(".py").exists()
    ours = stem == "samtune" or stem.startswith("samtune.")
    return f"{stem}.{name}" if ours and exists else stem


def modules(root: Path = SRC) -> Iterator[tuple[Path, str, bool]]:
    """Yields ``(file, module, is a package's __init__)`` of everything under ``root``."""
    for path in sorted(root.rglob("*.py")):
        names = ["samtune", *path.relative_to(root).with_suffix("").parts]
        is_package = names[-1] == "__init__"
        yield path, ".".join(names[:-1] if is_package else names), is_package


def arrows(root: Path = SRC) -> dict[str, set[str]]:
    """By part the parts that it imports, but for those of :data:`LATE`."""
    graph: dict[str, set[str]] = {}
    for path, module, is_package in modules(root):
        part = part_of(module)
        goals = graph.setdefault(part, set())
        tree = ast.parse(path.read_text(encoding="utf-8"), path)
        goals |= {part_of(target) for target, _, _ in imports_of(tree, module, is_package, root)}
        goals -= {part, OPEN_TO_ALL}
        goals -= {goal for goal in goals if f"{part} -> {goal}" in LATE}
    return graph


def picture(root: Path = SRC) -> str:
    """A Markdown table of the parts, the highest layer first: what each is, what it imports.

    A part is one layer above the highest one that it imports. What another of its imports imports
    already is left out.
    """
    graph = {part: goals for part, goals in arrows(root).items() if not part.startswith("__")}
    below: dict[str, set[str]] = {}
    layer: dict[str, int] = {}
    for part in TopologicalSorter(graph).static_order():
        goals = graph.get(part, set())
        below[part] = goals.union(*(below[goal] for goal in goals))
        layer[part] = max((layer[goal] + 1 for goal in goals), default=0)
    lines = ["| layer | part | what it is | imports |", "|---|---|---|---|"]
    for part in sorted(layer, key=lambda part: (-layer[part], part)):
        implied = set().union(*(below[goal] for goal in graph[part]))
        imported = ", ".join(f"`{goal}`" for goal in sorted(graph[part] - implied))
        lines.append(f"| {layer[part]} | `{part}` | {summary(root, part)} | {imported} |")
    return "\n".join(lines) + "\n"


def summary(root: Path, part: str) -> str:
    """The first line of a part's docstring."""
    file = root / part / "__init__.py" if (root / part).is_dir() else root / f"{part}.py"
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return doc.split("\n")[0].replace("``", "`")
