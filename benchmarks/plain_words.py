"""Counts hard-to-read patterns in the project's texts: ``python benchmarks/plain_words.py [TREE]``.

The texts are help texts (the descriptions of settings), messages (all other string constants with
spaces in them), docstrings, comments, and the prose of the Markdown pages. The counts depend on the
files alone. ``--list PATTERN`` prints the passages behind a count.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SURFACES = ("help", "messages", "docstrings", "comments", "pages")
PAGES = ("README.md", "CONTRIBUTING.md", "docs/*.md", "docs/export/*.md", "docs/methods/*.md")

THINGS = (
    "adapter|axis|batch|block|branch|case|channel|class|column|concept|decoder|dialect|epoch|field"
    "|file|folder|frame|function|group|head|image|job|key|kind|layer|layout|line|map|mask|method"
    "|metric|mode|name|object|option|page|part|pixel|point|process|prompt|rank|record|recipe|row|run"
    "|second|seed|setting|side|slice|split|stage|step|test|tile|token|value|volume|word"
)
NUMBERS = r"one|two|three|four|five|six|seven|eight|ten|many|several|once|twice|half|\d[\d.]*"
DONE = (
    "added|asked|called|changed|checked|chosen|compared|counted|cut|done|drawn|evaluated|expected"
    "|filled|found|given|heard|held|kept|known|learned|left|listed|lost|made|marked|measured|meant"
    "|missing|named|needed|planned|predicted|printed|published|read|refused|said|saved|seen|set"
    "|shown|stored|taken|told|trained|used|wanted|written|wrong"
)
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
NEGATION = re.compile(
    r"\b(not|no|none|nor|nothing|nobody|never|neither|without|cannot|lacks?)\b", re.I
)
RELATIVE = re.compile(r"\b(which|that|whose|what)\b", re.I)


class Text(NamedTuple):
    """One text of the project: the kind of place, the file, the line and the words."""

    surface: str
    path: str
    line: int
    words: str


def _matches(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


PATTERNS: dict[str, re.Pattern[str]] = {
    'distributive "a" ("one a class")': _matches(
        rf"\b(?:{NUMBERS})(?: (?!is |as |or |of |in |has )[a-z]+)? an? (?:{THINGS})\b"
        rf"|\ban? (?:{THINGS}) an? (?:{THINGS})\b"
        rf"|\b(?:images|steps|pixels|bytes) an? (?:{THINGS})\b"
    ),
    '"share" for a fraction': _matches(
        r"\b(?:an?|the|this|that|of|its|whose|what|least|greatest) shares?\b"
    ),
    'participle as a noun ("what is asked")': _matches(
        rf"\bwhat (?:is|are|was|were|has been|it|they|you|\w+) (?:not )?(?:{DONE})\b"
        rf"|\bthose (?:{DONE})\b|\bthe (?:asked|given|found|kept|told)\b(?! [a-z])"
    ),
    '"what" clause as a subject': re.compile(
        r"(?:^|[.:;] )What (?!a |an |happens)[a-z` ]+\b|; what [a-z]+ "
    ),
    '"where" for "if"': _matches(
        r"\bwhere (?:nobody|nothing|none|no|not|it (?:is|has|says|states|names|can|does|was)|they"
        r"|there (?:is|are)|only|both|a |an |one |that|this|its|he|you|each|every|any)\b"
    ),
    '"told" and "asked"': _matches(r"\b(?:told|tells?|asked|asks?|asking)\b"),
}
CLAUSES = frozenset("As Of So That Those What When Where Which Whose Why".split())
"""First words with which a text is a clause instead of a noun or a sentence."""
SUBJECTLESS = CLAUSES | frozenset(
    """
    Above Across Along Among At Before Below Beside Between By For From If In Like On Out Over Then
    These They This To With Within Without
    """.split()
)
"""First words with which a docstring has no subject, or a subject that stands elsewhere."""

COUNTS = (
    "docstring without a subject",
    *PATTERNS,
    "two or more negations in a sentence",
    "three or more relative clauses in a sentence",
)


def hits(text: Text) -> Iterator[tuple[str, str]]:
    """Yields each pattern that a text has, with the passage, as often as it has it."""
    words = re.sub(r"``?[^`]*``?", "X", text.words)
    first = re.match(r"[A-Za-z']+", words)
    if text.surface == "docstrings" and first and first[0] in SUBJECTLESS:
        yield COUNTS[0], words.split("\n")[0]
    for sentence in SENTENCE.split(words):
        line = " ".join(sentence.split())
        for name, pattern in PATTERNS.items():
            for _ in pattern.finditer(line):
                yield name, line
        if len(NEGATION.findall(line)) > 1:
            yield COUNTS[-2], line
        if len(RELATIVE.findall(line)) > 2:
            yield COUNTS[-1], line


def texts_of_source(path: Path, name: str) -> Iterator[Text]:
    """Yields the texts of one Python file."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source, path)
    documented: set[ast.AST] = set()
    for node in ast.walk(tree):
        is_config = isinstance(node, ast.ClassDef) and node.name.endswith("Config")
        body = getattr(node, "body", None)
        for item in body if isinstance(body, list) else ():
            if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant):
                documented.add(item.value)
                if isinstance(item.value.value, str):
                    is_field = is_config and item is not body[0]
                    yield Text(
                        "help" if is_field else "docstrings",
                        name,
                        item.lineno,
                        _clean(item.value.value),
                    )
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node not in documented
        ):
            if re.search(r"[a-z] [a-z]", node.value):
                yield Text("messages", name, node.lineno, node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text("comments", name, token.start[0], token.string.lstrip("# "))


def _clean(docstring: str) -> str:
    return inspect.cleandoc(docstring)


def texts_of_page(path: Path, name: str) -> Iterator[Text]:
    """Yields the prose of a Markdown page: without code, HTML comments and the rules of tables."""
    words = re.sub(
        r"^```.*?^```|^~~~.*?^~~~|<!--.*?-->", "", path.read_text("utf-8"), flags=re.S | re.M
    )
    for block in re.split(r"\n\s*\n|\n(?=\s*[-|*#])", words):
        if block.strip():
            yield Text("pages", name, 0, block.strip())


def texts(root: Path) -> Iterator[Text]:
    """Yields all texts of a checkout."""
    for path in sorted((root / "src" / "samtune").rglob("*.py")):
        yield from texts_of_source(path, path.relative_to(root).as_posix())
    for pattern in PAGES:
        for path in sorted(root.glob(pattern)):
            yield from texts_of_page(path, path.relative_to(root).as_posix())


def main() -> None:
    """Prints one row per pattern and one column per surface, or the passages of one pattern."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", nargs="?", type=Path, default=ROOT, help="root of a checkout")
    parser.add_argument(
        "--list", metavar="PATTERN", help="print the passages of the patterns with this word"
    )
    args = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    words: Counter[str] = Counter()
    for text in texts(args.tree):
        words[text.surface] += len(text.words.split())
        for name, passage in hits(text):
            counts[name, text.surface] += 1
            if args.list and args.list in name:
                print(f"{text.path}:{text.line}: [{text.surface}] {passage}")
    if args.list:
        return
    print(f"| pattern | {' | '.join(SURFACES)} | all |")
    print(f"|---|{'--:|' * (len(SURFACES) + 1)}")
    for name in COUNTS:
        row = [counts[name, surface] for surface in SURFACES]
        print(f"| {name} | {' | '.join(map(str, row))} | {sum(row)} |")
    row = [words[surface] for surface in SURFACES]
    print(f"| words in all | {' | '.join(map(str, row))} | {sum(row)} |")


if __name__ == "__main__":
    main()
