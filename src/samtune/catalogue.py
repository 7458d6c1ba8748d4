"""What is registered, as tables: for the command line and for the documentation."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from typing import Any

import torch

from samtune.adapters import ADAPTERS, Adapter
from samtune.adapters.base import check_base
from samtune.decoders import DECODERS
from samtune.errors import InputError
from samtune.sam.model import SPECS, Sam, SamSpec


def list_methods(base: str = "vit_b") -> list[dict[str, Any]]:
    """Every adapter with its paper, place, size on ``base``, decoders and backbones."""
    return [describe_method(name, base) for name in ADAPTERS]


def describe_method(name: str, base: str = "vit_b") -> dict[str, Any]:
    """One adapter, with its options.

    Raises:
        InputError: No such method.
    """
    cls: Any = ADAPTERS[name]
    # Sizes need shapes only: on the meta device nothing is computed or stored.
    with torch.device("meta"):
        trained = sum(p.numel() for p in cls(Sam(SPECS[base]), cls.Config()).parameters())
    return {
        "name": name,
        "summary": (inspect.getdoc(cls) or "").split("\n")[0],
        "paper": cls.paper,
        "sits": cls.sits,
        "trainable_parameters": trained,
        "decoders": [
            d for d in cls.decoders or DECODERS if name in (DECODERS[d].adapters or (name,))
        ],
        "backbones": [base for base, spec in SPECS.items() if _fits(cls, spec)],
        "options": options(cls.Config),
    }


def _fits(method: type[Adapter], spec: SamSpec) -> bool:
    try:
        check_base(method, spec)
    except InputError:
        return False
    return True


def methods_table(base: str = "vit_b") -> str:
    """The methods as a Markdown table, for the documentation."""
    heads = ("method", "what it is", "where it sits", "trained on ViT-B", "decoders", "bases")
    lines = [f"| {' | '.join((*heads, 'paper'))} |", "|---" * 7 + "|"]
    for row in list_methods(base):
        trained = f"{row['trainable_parameters']:,}"
        fits = (", ".join(row[key]) for key in ("decoders", "backbones"))
        cells = (f"`{row['name']}`", row["summary"], row["sits"], trained, *fits, row["paper"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def method_rows(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """What :func:`list_methods` gives as rows for a terminal: name, size, all else."""
    return [(r["name"], f"{r['trainable_parameters']:,}", f"{facts(r)}\n") for r in rows]


def facts(row: dict[str, Any]) -> str:
    """What a method of :func:`list_methods` is, where it sits, what fits it, its paper: lines."""
    return "\n".join(
        (
            row["summary"],
            f"sits: {row['sits']}",
            f"decoders: {', '.join(row['decoders'])}",
            f"bases: {', '.join(row['backbones'])}",
            row["paper"],
        )
    )


def option_rows(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """What :func:`options` gives as rows for a terminal: name, default as in YAML, meaning."""
    return [
        (r["name"], _yaml(r["default"]), " ".join(r["help"].replace("``", "").split()))
        for r in rows
    ]


def _yaml(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def decoders_table(base: str = "vit_b") -> str:
    """The read-outs as a Markdown table, for the documentation."""
    lines = ["| decoder | what it is | trained on ViT-B | adapters | paper |", "|---" * 5 + "|"]
    for name in DECODERS:
        cls: Any = DECODERS[name]
        with torch.device("meta"):
            made = cls(Sam(SPECS[base]), cls.Config())
        trained = f"{sum(p.numel() for p in made.parameters()):,}"
        adapters = "all" if cls.adapters is None else ", ".join(cls.adapters)
        lines.append(f"| {' | '.join((f'`{name}`', cls.sits, trained, adapters, cls.paper))} |")
    return "\n".join(lines) + "\n"


def settings_table(config: type, prefix: str) -> str:
    """The fields of a configuration as a Markdown table, for the documentation."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for option in options(config):
        text = " ".join(option["help"].split()).replace("|", "\\|")
        default = "" if option["default"] is None else f"`{option['default']}`"
        lines.append(f"| `{prefix}{option['name']}` | {default} | {text} |")
    return "\n".join(lines) + "\n"


def options(config: type) -> list[dict[str, Any]]:
    """The fields of a configuration: name, default, and the docstring below each."""
    fields = dataclasses.fields(config)
    parts = {f.name: f.type for f in fields if dataclasses.is_dataclass(f.type)}
    if parts:  # of adapters joined by +, each with options of its own
        named = [(part, row) for part, kind in parts.items() for row in options(kind)]  # type: ignore[arg-type]
        return [{**row, "name": f"{part}.{row['name']}"} for part, row in named]
    helps = attribute_docs(config)
    return [{"name": f.name, "default": _default(f), "help": helps.get(f.name, "")} for f in fields]


def attribute_docs(cls: type) -> dict[str, str]:
    """The string below each annotated attribute of a class and its bases, by the name."""
    return {k: text for kind in cls.__mro__[-2::-1] for k, text in _own_docs(kind).items()}


def _own_docs(cls: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for here, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name):
            value = below.value if isinstance(below, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[here.target.id] = inspect.cleandoc(value.value)
    return found


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default
