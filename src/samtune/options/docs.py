"""The docstrings below the fields of a dataclass: its help, on the command line and in Python."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import MISSING
from functools import cache
from typing import Any

from samtune.options.fields import as_yaml, names_of
from samtune.options.former import under_current_names


def attribute_docs(cls: type) -> dict[str, str]:
    """The string below each annotated attribute of a class and its bases, by the name."""
    return {k: text for kind in cls.__mro__[-2::-1] for k, text in _docs_of(kind).items()}


@cache
def _docs_of(cls: type) -> dict[str, str]:
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    except (OSError, TypeError):  # no source, as of a class that was typed at a prompt
        return {}
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for here, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name):
            value = below.value if isinstance(below, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docs[here.target.id] = inspect.cleandoc(value.value)
    return docs


class WithFieldDocs(type):
    """Classes whose docstring goes on with those of their fields, so that ``help()`` shows them.

    They can also be called with former names of their fields, see ``former_names``.
    """

    def __call__(cls, *args: Any, **values: Any) -> Any:
        """Makes an instance."""
        return super().__call__(*args, **under_current_names(cls, values))

    @property
    def __doc__(cls) -> Any:  # type: ignore[override]
        text = cls.__dict__.get("__doc__")
        fields = cls.__dict__.get("__match_args__")
        if fields is None:  # the decorator asks before the class is whole
            return text
        docs = attribute_docs(cls)
        rows = [f"    {name}: {' '.join(docs.get(name, '').split())}" for name in fields]
        rows = [f"{row}{_choice(cls, name)}" for row, name in zip(rows, fields, strict=True)]
        return "\n".join([str(text).rstrip(), "", "Settings:", *rows])


def _choice(cls: type, name: str) -> str:
    """The names among which a field chooses, and its default, as sentences."""
    row = cls.__dataclass_fields__[name]  # type: ignore[attr-defined]
    names = names_of(row)
    choices = f" One of {', '.join(names)}." if names else ""
    if row.default in (MISSING, None, ()):
        return choices
    return f"{choices} Default: {as_yaml(row.default)}."
