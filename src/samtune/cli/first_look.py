"""A first look at a verb's words: those that are wrong for sure are refused without torch.

It asks the functions that ask the same of a run's settings, about the dataclasses of
:mod:`samtune.cli.settings_index`, so it says what they would say. What it is not sure of, it leaves
to them: settings that do not go together, and whatever a recipe, a file or an earlier run decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_type_hints

from samtune.cli.completion import recipe_names
from samtune.cli.settings_index import setting_names
from samtune.errors import InputError
from samtune.files import CHECK_PATH, as_path, why_no_folder
from samtune.options import is_pattern, validated
from samtune.options.former import under_current_names
from samtune.registry import checked_options, installed, no_such_name
from samtune.runs.values import (
    DEFAULTS,
    Tree,
    add_up,
    in_lists,
    named_parts,
    nested,
    value_in,
)
from samtune.runs.word_kinds import names_data, no_such_word


def look(words: Sequence[str], others: Collection[str] = ()) -> None:
    """Refuses words, names, values and a folder that are wrong whatever else is set.

    Args:
        words: The words of the verb.
        others: Settings of the verb itself and groups that something else decides, which are passed
            over; also ``data.root`` if its folder is.

    Raises:
        InputError: The first that is wrong.
    """
    names, alone, roots = setting_names(), True, []
    groups, shipped = get_type_hints(names.root), recipe_names()
    tree: Tree = {}
    for word in words:
        key, equals, text = word.partition("=")
        if names_data(word, groups):
            roots.append(word)
        elif equals:
            if key and key.partition(".")[0] not in others:
                value = value_in(key, text, names.kind(key))
                tree = add_up(tree, named_parts(nested(key, value)))
        elif word in shipped or word.endswith((".yaml", ".yml")):
            alone = False
        else:
            raise no_such_word(word, shipped)
    tree = in_lists(_under_current_names(tree))
    names.check(tree)
    _check_values(tree, names.root)
    if alone and "resume" not in tree:
        _check_parts(tree, [kind for kind in names.parts if kind not in others])
        if not roots and "data.root" not in others:
            _check_root(tree.get("data", {}))


def _under_current_names(tree: Tree) -> Tree:
    """A tree with the former names of settings replaced."""
    for group, schema in get_type_hints(setting_names().root).items():
        if isinstance(tree.get(group), Mapping) and hasattr(schema, "former_names"):
            tree = {**tree, group: under_current_names(schema, tree[group])}
    return tree


def _check_values(tree: Tree, root: Any) -> None:
    """Refuses values that their types do not allow."""
    hints = get_type_hints(root, include_extras=True)
    for key, value in tree.items():
        if dataclasses.is_dataclass(hints[key]):
            values = dict(value)
            if is_pattern(values.get("masks")):  # it stands for another setting
                del values["masks"]
            if values:
                validated(hints[key], key, values)
        elif key not in setting_names().parts:
            row = next(row for row in dataclasses.fields(root) if row.name == key)
            alone = dataclasses.make_dataclass(
                key, [(key, hints[key], dataclasses.field(default=row.default))]
            )
            validated(alone, "", {key: value})


def _check_parts(tree: Tree, kinds: Sequence[str]) -> None:
    """Refuses unknown methods and decoders, and their options."""
    for kind in kinds:
        parts, part = setting_names().parts[kind], tree.get(kind, {})
        if not isinstance(part, Mapping) or not all(isinstance(key, str) for key in part):
            continue  # it is refused with the other groups
        name = part.get("name", DEFAULTS[kind])
        if isinstance(name, str) and name in parts:
            options = {key: value for key, value in part.items() if key != "name"}
            checked_options(parts[name].Config, kind, name, options)
        elif isinstance(name, str) and name.isidentifier():
            known = [*parts, *(each.name for each in installed(kind) if each.name not in parts)]
            if name not in known:
                raise no_such_name(f"{kind}.name", name, known)


def _check_root(data: Mapping[str, Any]) -> None:
    """Refuses a folder of data that does not exist, if nothing says that it is something else."""
    root = data.get("root")
    if not isinstance(root, str) or not root or "layout" in data:
        return
    folder = as_path(root)
    if not folder.exists():
        raise InputError(f"{folder}: {why_no_folder(folder)}; {CHECK_PATH}")
