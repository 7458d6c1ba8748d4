"""Values as they are written on a command line, by the kind of their setting; without torch."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

from samtune.errors import InputError
from samtune.texts import parse_yaml
from samtune.texts.plain_yaml import as_words, check_keys

Tree = dict[str, Any]
DEFAULTS = {"adapter": "lora", "decoder": "tuned"}
"""The default method and decoder."""

Kind = Literal["text", "texts", "yaml"]
"""The kind of a setting's values: a name or path; a list of them; or anything else."""
_QUOTES = "'\""


class Loader(yaml.SafeLoader):
    """YAML whose whole numbers are decimal: ``010`` is ten, and ``1:30`` is text."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping with distinct keys."""
        check_keys(node)
        return super().construct_mapping(node, deep=deep)


Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if not tag.endswith((":int", ":timestamp"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    yaml.resolver.re.compile(r"[-+]?[0-9][0-9_]*$|[-+]?0x[0-9a-fA-F]+$"),  # type: ignore[attr-defined]
    list("-+0123456789"),
)


def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 16 if "0x" in text else 10)


Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def value_in(key: str, text: str, kind: Kind) -> Any:
    """The value of a setting written as ``key=text``.

    A name or a path is literal, except for quotes around all of it; an empty text or ``null`` is
    none.

    Raises:
        InputError: The value of a non-text setting is not YAML.
    """
    bare = text.strip()
    if kind == "text" or (kind == "texts" and not bare.startswith("[")):
        if bare in ("", "null"):
            return None
        if kind == "texts" and "," in bare:
            return [_unquoted(part.strip()) for part in bare.split(",")]
        return _unquoted(text if bare else bare)
    try:
        if kind == "texts":
            return as_words(text)
        value = parse_yaml(text, Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{key}={text}: the value is not valid YAML; quote it") from error
    if isinstance(value, str) and "," in value and not any(c in value for c in " /\\"):
        return [parse_yaml(part, Loader) for part in value.split(",")]
    return value


def _unquoted(text: str) -> str:
    """The text without quotes around it, which a shell may have left."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES
    return text[1:-1] if quoted and text[0] not in text[1:-1] else text


def kind_of(hint: Any) -> Kind:
    """The kind of the values of a type."""
    members = list(_members(hint))
    texts = [m for m in members if m in (tuple[str, ...], list[str])]
    rest = [m for m in members if m not in (tuple[str, ...], list[str], type(None), str)]
    if rest:
        return "yaml"
    return "texts" if texts else "text"


def _members(hint: Any) -> Iterator[Any]:
    """The types that a value may have; a choice of words is text."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _members(get_args(hint)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _members(member)
    elif origin is Literal:
        yield from {type(choice) for choice in get_args(hint)}
    else:
        yield hint


def in_lists(tree: Tree) -> Tree:
    """A tree of settings with lists where a word alone stands for a list of one.

    Also with text for ``resume=true``, which YAML reads as a switch, and for a metric with commas.
    """
    lists = (("data", "class_names"), ("train", "trackers"), ("eval", "metrics"))
    for part, key in (*lists, ("everything", "fixed")):
        inner = tree.get(part)
        if isinstance(inner, Mapping) and isinstance(inner.get(key), str):
            tree = {**tree, part: {**inner, key: [inner[key]]}}
    if isinstance(tree.get("trust"), str):
        tree = {**tree, "trust": [tree["trust"]]}
    if tree.get("resume") in (True, False, "false"):  # as YAML reads the words
        tree = {**tree, "resume": "true" if tree["resume"] is True else None}
    train = tree.get("train")
    if isinstance(train, Mapping) and isinstance(train.get("metric"), list):
        # a word with commas, as min(iou@none,iou@point)
        tree = {**tree, "train": {**train, "metric": ",".join(map(str, train["metric"]))}}
    return tree


def nested(key: str, value: Any) -> Tree:
    """A setting such as ``train.lr`` as a tree."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def named_parts(tree: Mapping[str, Any]) -> Tree:
    """``adapter: lora`` as ``adapter: {name: lora}``, and the same for the decoder.

    ``everything: true`` is ``everything: {fit: msa}``; a metric or ``false`` is a fit too.
    """
    parts = {k: {"name": v} if k in DEFAULTS and isinstance(v, str) else v for k, v in tree.items()}
    fit = parts.get("everything")
    if isinstance(fit, bool | str):
        names = {True: "msa", False: "none"}
        parts["everything"] = {"fit": names[fit] if isinstance(fit, bool) else fit}
    return parts


def add_up(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """Joins two trees of one command line; for the same setting the second value wins."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        out[key] = add_up(old, value) if both else value  # type: ignore[arg-type]
    return out
