"""Settings as plain values: a mapping of mappings, as YAML and JSON hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import PurePath
from typing import Any

from samtune.data.config import DataConfig
from samtune.data.layouts.patterns import with_patterns
from samtune.geometry import PRESETS, InputConfig
from samtune.options.former import under_current_names
from samtune.runs.values import DEFAULTS, Tree, named_parts
from samtune.training.schedule import FitConfig

WHOLE: Tree = {"input": {"tiles": "whole"}}
"""The settings of sources without ``input.tiles=auto``: recipes, presets and older runs."""


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Tree:
    """A configuration as one flat mapping, with keys such as ``train.lr``."""
    out: Tree = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        out |= leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return out


def in_full(tree: Mapping[str, Any]) -> Tree:
    """A tree with its short forms expanded: a name alone, a preset of the input, former names.

    A preset becomes its settings, which those of the same tree override; it therefore overrides all
    earlier trees. Settings that only other presets have are reset to their defaults, so that
    presets do not mix.
    """
    tree, part = _under_current_names(named_parts(tree)), tree.get("input")
    if isinstance(tree.get("data"), Mapping):
        tree = {**tree, "data": with_patterns(tree["data"])}
    if not isinstance(part, Mapping) or part.get("preset") is None:
        return tree
    beside = {key: value for key, value in part.items() if key != "preset"}
    preset = PRESETS[str(part["preset"])]
    of_presets = {key for name in PRESETS for key in PRESETS[name].settings}
    plain = {row.name: row.default for row in fields(InputConfig) if row.name in of_presets}
    return {**tree, "input": {**plain, **preset.settings, **beside}}


def _under_current_names(tree: Tree) -> Tree:
    """A tree with the former names of settings replaced."""
    for schema in (DataConfig, FitConfig):
        part = tree.get(schema.section)
        if isinstance(part, Mapping):
            tree = {**tree, schema.section: under_current_names(schema, part)}
    return tree


def lay_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """Lays a tree over another one; a new method or decoder drops the old one's options."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        if key in DEFAULTS and isinstance(value, Mapping) and isinstance(old, Mapping):
            # Options of one method mean nothing to another, so a new name drops them.
            renamed = "name" in value and value["name"] != old.get("name", DEFAULTS[key])
            out[key] = dict(value) if renamed else lay_over(old, value)
        elif isinstance(value, Mapping) and isinstance(old, Mapping):
            out[key] = lay_over(old, value)
        else:
            out[key] = value
    return out


def plain_values(value: Any) -> Any:
    """A value with dicts, lists and text instead of other mappings, tuples and paths."""
    if isinstance(value, Mapping):
        return {key: plain_values(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(v) for v in value]
    return str(value) if isinstance(value, PurePath) else value
