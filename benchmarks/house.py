"""The shape of the sources in numbers: ``python benchmarks/house.py [SRC/samtune ...]``.

Prints a Markdown table with one column per tree. Parts are the modules and packages directly under
``samtune``; an arrow is one part's import of another, late ones and those for types included. A
circle is a set of modules each of which imports, by way of others, itself.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
from imports import SRC, imports_of, modules, part_of

Graph = dict[str, set[str]]


def graph_of(root: Path) -> Graph:
    """By module the modules of samtune that it imports."""
    graph: Graph = {module: set() for _, module, _ in modules(root)}
    for path, module, is_package in modules(root):
        tree = ast.parse(path.read_text(encoding="utf-8"), path)
        targets = {target for target, _, _ in imports_of(tree, module, is_package, root)}
        graph[module] = {target for target in targets if target in graph} - {module}
    return graph


def circles(graph: Graph) -> list[set[str]]:
    """The sets of modules that reach each other."""
    reach = {module: reachable(graph, module) for module in graph}
    sets = {
        frozenset({module} | {other for other in reach[module] if module in reach[other]})
        for module in graph
    }
    return [set(members) for members in sets if len(members) > 1]


def reachable(graph: Graph, start: str) -> set[str]:
    """The modules that ``start`` imports, directly or by way of others."""
    todo, reach = [start], set()
    while todo:
        for goal in graph[todo.pop()] - reach:
            reach.add(goal)
            todo.append(goal)
    return reach


def functions(root: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines and the name of every function."""
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                yield lines, f"{path.relative_to(root)}:{node.name}"


def facts(root: Path) -> dict[str, str]:
    """What the table says of one tree."""
    graph = graph_of(root)
    files = [
        (len(path.read_text("utf-8").splitlines()), str(path.relative_to(root)))
        for path in root.rglob("*.py")
    ]
    arrows = {(part_of(a), part_of(b)) for a in graph for b in graph[a]}
    top = [path for path in root.glob("*.py") if not path.name.startswith("__")]
    packages = [path for path in root.iterdir() if (path / "__init__.py").is_file()]
    longest_file, longest_function = max(files), max(functions(root))
    return {
        "modules at the top": str(len(top)),
        "packages at the top": str(len(packages)),
        "parts": str(len({part_of(module) for module in graph})),
        "arrows between parts": str(len({(a, b) for a, b in arrows if a != b})),
        "circles of modules": str(len(circles(graph))),
        "files": str(len(files)),
        "lines": f"{sum(lines for lines, _ in files):,}",
        "longest file": f"{longest_file[0]} ({longest_file[1]})",
        "longest function": f"{longest_function[0]} ({longest_function[1]})",
    }


def main() -> None:
    """Prints the table."""
    roots = [Path(word) for word in sys.argv[1:]] or [SRC]
    columns = [facts(root) for root in roots]
    print(f"| | {' | '.join(str(root) for root in roots)} |")
    print("|---" * (len(roots) + 1) + "|")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(column[name] for column in columns)} |")


if __name__ == "__main__":
    main()
