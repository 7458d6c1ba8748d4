"""The registered methods as tables, for the command line and for the documentation."""

from __future__ import annotations

import dataclasses
import inspect
from functools import cache
from typing import Any

from samtune.adapters import ADAPTERS
from samtune.adapters.base import check_base
from samtune.decoders import DECODERS, Decoder
from samtune.errors import InputError, nearest
from samtune.options import as_yaml, attribute_docs, level_of, names_of, ranges
from samtune.registry import Registry, installed, settings, trust
from samtune.registry.outside import fitting, rows_in
from samtune.registry.places import PLACE
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, SamSpec


def list_methods(base: str = "vit_b") -> list[dict[str, Any]]:
    """Every adapter with its paper, place, size on ``base``, decoders and backbones."""
    return [describe_method(name, base) for name in ADAPTERS]


def list_decoders(base: str = "vit_b") -> list[dict[str, Any]]:
    """Every decoder with its paper, size on ``base``, adapters and backbones."""
    return [describe_method(name, base) for name in DECODERS]


def describe_method(name: str, base: str = "vit_b") -> dict[str, Any]:
    """One adapter or decoder, with its options.

    Returns:
        ``name``, ``kind`` (adapter or decoder), ``summary``, ``paper``, ``sits``,
        ``starts_as_sam`` (whether a fresh one with default options computes what SAM does),
        ``changes_at_start`` (why a fresh one does not, by default or with some option; or empty),
        ``learning_rate`` (that it declares for ``train.lr=auto``, or ``None``),
        ``trainable_parameters`` (of this part alone, on ``sized_on``: ``base``, or the first that
        it fits), ``decoders`` or ``adapters`` that it goes with, ``backbones``, ``options``,
        ``forms``: the options of its other forms by name, and ``packages``: where the parts of it
        come from that are not samtune's own.

    Raises:
        InputError: No such method, or one of another package that is broken.
    """
    registry = _registry_of(name)
    cls: Any = registry[name]
    fits = [name for name, spec in SPECS.items() if _fits(cls, spec)]
    if not fits:
        raise InputError(f"{name}: fits none of the bases {', '.join(SPECS)}; correct what it uses")
    base = base if base in fits else fits[0]
    return {
        "name": name,
        "kind": registry.kind,
        "summary": (inspect.getdoc(cls) or "").split("\n")[0],
        "paper": cls.paper,
        "sits": cls.sits,
        "starts_as_sam": getattr(cls, "identity_at_init", not cls.changes_at_start),
        "changes_at_start": cls.changes_at_start,
        "learning_rate": cls.learning_rate,
        "unprompted_rate": getattr(cls, "unprompted_rate", None),
        "trainable_parameters": _size_of(cls, base),
        "sized_on": base,
        **_partners(name, registry),
        "backbones": fits,
        "options": options(cls.Config),
        "forms": {form: dict(own) for form, own in registry.forms(name).items()},
        "packages": rows_in({f"{registry.kind}.name": name}, (registry.kind,)),
    }


def _registry_of(name: str) -> Registry[Any]:
    """The adapters or the decoders, whichever has a method that a person names.

    Raises:
        InputError: None has it.
    """
    known = [*ADAPTERS.names(), *DECODERS.names()]
    whole, colon, _ = name.partition(":")
    if colon and whole in known:
        raise InputError(f"{name}: a form of {whole}, whose page lists it: samtune methods {whole}")
    trust(*PLACE.findall(name))
    joint = ADAPTERS.is_joint(name)
    registry = ADAPTERS if joint else fitting(name, (DECODERS, ADAPTERS), name)
    if registry is None:
        raise InputError(
            f"{name}: no such method{nearest(name, known)}; adapters are "
            f"{', '.join(ADAPTERS.names())}, and decoders {', '.join(DECODERS.names())}"
        )
    return registry


def list_plugins() -> list[dict[str, str]]:
    """The parts from installed packages, as their metadata describe them; nothing is imported.

    Returns:
        For each ``kind``, ``name``, ``class``, ``package``, ``version``, and a ``remark`` where its
        name leads elsewhere.
    """
    from samtune.data.layouts import LAYOUTS
    from samtune.losses.plugins import TERMS
    from samtune.metrics import MEASURES

    outsides = (
        ADAPTERS.outside,
        DECODERS.outside,
        TERMS.outside,
        MEASURES.outside,
        LAYOUTS.outside,
    )
    rows = []
    for outside in (each for each in outsides if each is not None):
        for plugin in installed(outside.kind.name):
            row = {"kind": plugin.kind, "name": plugin.name, "class": plugin.place}
            row |= {"package": plugin.package, "version": plugin.version}
            rows.append({**row, "remark": outside.remark(plugin)})
    return rows


def plugin_rows(rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
    """The rows of :func:`list_plugins` for a terminal: first the titles of the columns."""
    titles = ("plug-in", "kind", "package", "class")
    cells = [
        (row["name"], row["kind"], f"{row['package']} {row['version']}", row["class"])
        for row in rows
    ]
    return [titles, *cells]


@cache
def _size_of(method: Any, base: str) -> int:
    """The parameters of an adapter or a decoder with its defaults."""
    with shapes_alone():
        return sum(p.numel() for p in method(_hollow(base), method.Config()).parameters())


@cache
def _hollow(base: str) -> Sam:
    """Shapes alone; sizes need no more, and no method changes its base."""
    with shapes_alone():
        return Sam(SPECS[base])


def _partners(name: str, registry: Registry[Any]) -> dict[str, list[str]]:
    """The decoders that an adapter goes with, or the adapters of a decoder, of samtune's own."""
    cls: Any = registry[name]
    others: Registry[Any] = ADAPTERS if registry is DECODERS else DECODERS
    return {f"{others.kind}s": [other for other in others if _joint_bases(cls, others[other])]}


def _joint_bases(one: Any, other: Any) -> list[str]:
    """The bases on which an adapter and a decoder, in either order, go with each other."""
    if not _go_together(one, other):
        return []
    return [name for name, spec in SPECS.items() if _takes(one, spec) and _takes(other, spec)]


def _go_together(one: Any, other: Any) -> bool:
    """Whether an adapter and a decoder, in either order, go with each other."""
    adapter, decoder = (other, one) if _is_decoder(one) else (one, other)
    fits, reads = adapter.decoders, decoder.adapters
    wanted = reads is None or bool(set(reads) & {adapter.name, *adapter.joins})
    return wanted and (fits is None or decoder.name in fits)


def _is_decoder(method: Any) -> bool:
    return isinstance(method, type) and issubclass(method, Decoder)


def _fits(method: Any, spec: SamSpec) -> bool:
    """Whether a method can have a base; a decoder needs an adapter that can too."""
    if not _takes(method, spec):
        return False
    if not _is_decoder(method):
        return True
    partners = (ADAPTERS[a] for a in ADAPTERS if _go_together(method, ADAPTERS[a]))
    return any(_takes(partner, spec) for partner in partners)


def _takes(method: Any, spec: SamSpec) -> bool:
    """Whether an adapter or a decoder, seen alone, accepts a base."""
    try:
        if _is_decoder(method):
            method.check(spec)
        else:
            check_base(method, spec)
    except InputError:
        return False
    return True


def methods_table(base: str = "vit_b") -> str:
    """The methods as a Markdown table, for the documentation."""
    size = "trained parameters, ViT-B"
    heads = ("adapter", "what it does", "where it sits", size, "decoders", "bases")
    lines = [f"| {' | '.join((*heads, 'paper'))} |", "|---" * 7 + "|"]
    for row in list_methods(base):
        trained = _sized(row, base)
        fits = (_partner_words(row), ", ".join(row["backbones"]))
        cells = (f"`{row['name']}`", row["summary"], row["sits"], trained, *fits, row["paper"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def method_rows(rows: list[dict[str, Any]], brief: bool = False) -> list[tuple[str, ...]]:
    """The methods of :func:`list_methods` as rows for a terminal: first the titles of the columns.

    Args:
        rows: The rows of adapters or decoders.
        brief: Only the name, the size, and where it sits or what it is.
    """
    kind = rows[0]["kind"]
    other = "decoders" if kind == "adapter" else "adapters"
    place = "where it sits" if kind == "adapter" else "what it is"
    if brief:
        columns: tuple[str, ...] = (kind, "size, vit_b", place)
        return [columns] + [(row["name"], _sized(row), row["sits"]) for row in rows]
    about = [] if kind == "decoder" else ["what it is"]
    columns = (kind, f"{kind} alone,\nvit_b", *about, place, other, "bases", "paper")
    return [columns] + [
        (
            row["name"],
            _sized(row),
            *([row["summary"]] if about else []),
            row["sits"],
            _partner_words(row),
            _all_or(row["backbones"], list(SPECS)),
            row["paper"],
        )
        for row in rows
    ]


def _sized(row: dict[str, Any], base: str = "vit_b") -> str:
    """The parameters of a method, and the base for which they are counted if not ``base``."""
    other = "" if row["sized_on"] == base else f" ({row['sized_on']})"
    return f"{row['trainable_parameters']:,}{other}"


def facts(row: dict[str, Any]) -> str:
    """The description of :func:`describe_method` without the options, as lines."""
    kind = row["kind"]
    forms = [f"{name} ({settings(kind, own)})" for name, own in row["forms"].items()]
    return "\n".join(
        (
            row["summary"],
            f"{'sits' if kind == 'adapter' else 'is'}: {row['sits']}",
            *_start(row),
            f"trained: {row['trainable_parameters']:,} parameters, {kind} alone, {row['sized_on']}",
            *_rates(row),
            f"{'decoders' if kind == 'adapter' else 'adapters'}: {_partner_words(row)}",
            f"bases: {', '.join(row['backbones'])}",
            *([f"paper: {row['paper']}"] if row["paper"] else []),
            *(f"of another package: {_origin(each)}" for each in row["packages"]),
            *([f"other forms: {', '.join(forms)}"] if forms else []),
        )
    )


def _rates(row: dict[str, Any]) -> list[str]:
    """The learning rates that a method declares, if it declares any."""
    usual, unprompted = row["learning_rate"], row["unprompted_rate"]
    if usual is None:
        return []
    other = "" if unprompted is None else f", without prompts {unprompted:g}"
    return [f"train.lr=auto: {usual:g}{other}"]


def _start(row: dict[str, Any]) -> list[str]:
    """The line that says what a fresh method changes; none if it changes nothing."""
    if not (clause := row["changes_at_start"]):
        return []
    if row["starts_as_sam"]:
        return [f"exception to the identity at the start: {clause}"]
    subject = "the embedding" if row["kind"] == "adapter" else "SAM's masks"
    return [f"changes {subject} from the start: {clause}"]


def _partner_words(row: dict[str, Any]) -> str:
    """The decoders or adapters that a method goes with, and the bases on which one does not."""
    if row["kind"] == "decoder":
        return _all_or(row["adapters"], list(ADAPTERS))
    words = [_all_or(row["decoders"], list(DECODERS))]
    for name in row["decoders"]:
        without = [base for base in row["backbones"] if not _takes(DECODERS[name], SPECS[base])]
        words += [f"{name} not on {', '.join(without)}"] if without else []
    return "; ".join(words)


def _origin(row: dict[str, str]) -> str:
    package = f"{row['package']} {row['version']}, " if "package" in row else ""
    return f"{package}{row['class']}"


def _all_or(names: list[str], known: list[str]) -> str:
    others = [name for name in known if name not in names]
    if 2 * len(others) > len(known):
        return ", ".join(names)
    return f"all but {', '.join(others)}" if others else "all"


def option_rows(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """The options of :func:`options` as rows for a terminal: name, default as in YAML, meaning."""
    return [(r["name"], as_yaml(r["default"]), _meaning(r)) for r in rows]


def _meaning(row: dict[str, Any]) -> str:
    """The help of an option as plain text, with its range."""
    text = " ".join(row["help"].replace("``", "").split())
    return f"{text} ({row['range']})" if row["range"] else text


def decoders_table(base: str = "vit_b") -> str:
    """The decoders as a Markdown table, for the documentation."""
    heads = ("decoder", "what it is", "trained parameters, ViT-B", "adapters", "bases", "paper")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in list_decoders(base):
        trained = _sized(row, base)
        fits = (_partner_words(row), ", ".join(row["backbones"]))
        cells = (f"`{row['name']}`", row["sits"], trained, *fits, row["paper"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def options(config: type, whole: bool = False) -> list[dict[str, Any]]:
    """The fields of a configuration: name, default, range, level, and the docstring below each.

    If a field names members of a registry, ``names`` lists them.

    Args:
        config: The dataclass.
        whole: One row for a part that is a dataclass itself, not one for each of its fields.
    """
    fields = dataclasses.fields(config)
    parts = {f.name: f.type for f in fields if dataclasses.is_dataclass(f.type)}
    if parts and not whole:  # of adapters joined by +, each with options of its own
        named = [(part, row) for part, kind in parts.items() for row in options(kind)]  # type: ignore[arg-type]
        return [{**row, "name": f"{part}.{row['name']}"} for part, row in named]
    helps = attribute_docs(config)
    return [
        {
            "name": field.name,
            "default": _default(field),
            "range": ", ".join(map(str, ranges(config).get(field.name, ()))),
            "help": f"{helps.get(field.name, '')}{_members(field)}",
            "names": list(names_of(field) or ()),
            "level": level_of(field),
        }
        for field in fields
    ]


def _members(field: dataclasses.Field[Any]) -> str:
    """The meaning of each value of a field that names members of a registry, by its docstring."""
    registry = names_of(field)
    if registry is None:
        return ""
    lines = {name: (inspect.getdoc(registry[name]) or "").split("\n")[0] for name in registry}
    told = [f"{name}: {line.rstrip('.')}" for name, line in lines.items()]
    return f" {'; '.join(told)}."


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default
