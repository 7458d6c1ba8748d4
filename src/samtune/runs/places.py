"""The locations of files, which are in a run's folder but not in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from samtune.errors import InputError
from samtune.files import as_path
from samtune.model.packages import REGISTRIES
from samtune.registry import Registry
from samtune.runs.trees import leaves
from samtune.runs.values import Tree, add_up, nested
from samtune.runs.words import read_run

LEFT_OUT = ("output", "resume", "data.root", "train.feature_folder", "data.cache_folder")
"""Settings that are only locations on a machine."""
OUTSIDE = "data.outside"
"""The setting that allows data outside of their folder, for one location only."""
NAMES = ("base.weights", "data.colors")
"""Settings of files whose names identify them."""


def without_places(tree: Tree) -> Tree:
    """The settings of a run as its checkpoint stores them: without folders of the machine."""
    tree = {**tree, **{kind: _stored(part, tree[kind]) for kind, part in REGISTRIES.items()}}
    for key, value in leaves(tree).items():
        if key in LEFT_OUT:
            tree = add_up(tree, nested(key, None))
        elif key in NAMES and isinstance(value, str) and as_path(value).exists():
            tree = add_up(tree, nested(key, as_path(value).name))
        elif key == OUTSIDE:
            tree = add_up(tree, nested(key, False))
    return tree


def _stored(registry: Registry[Any], part: Tree) -> Tree:
    """A method with the options that a checkpoint keeps: none that is a file to start from."""
    options = {key: value for key, value in part.items() if key != "name"}
    return {"name": part["name"], **registry[part["name"]].stored_options(options)}


def with_places(tree: Tree, checkpoint: Path) -> Tree:
    """The settings of a checkpoint, with the locations from its run's folder, if it is in one.

    Args:
        tree: A result of :func:`without_places`; trees of earlier versions contain locations and
            keep them.
        checkpoint: The file.
    """
    mine, run = leaves(tree), dict[str, object]()
    if mine.get("data.root") is None and (checkpoint.parent / "config.yaml").is_file():
        with suppress(InputError):  # a damaged file provides nothing
            run = leaves(read_run(checkpoint.parent))
    if not _alike(mine, run):
        return tree
    for key in ("data.root", *NAMES):
        value = run.get(key)
        if isinstance(value, str) and (key in LEFT_OUT or as_path(value).name == mine.get(key)):
            tree = add_up(tree, nested(key, value))
    if mine.get("data.root") is None and run.get(OUTSIDE) is True:
        tree = add_up(tree, nested(OUTSIDE, True))
    return tree


def _alike(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether two runs have the same base, method and start."""
    keys = [key for key in one if key.startswith(("base.name", "adapter.", "decoder.", "seed"))]
    return bool(other) and all(one[key] == other.get(key) for key in keys)
