"""The settings in a command line's words and files: recipe < file < ``key=value``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from samtune.errors import InputError
from samtune.files import as_path
from samtune.model.header import BEST, read_header
from samtune.model.packages import check_packages
from samtune.registry import named_in, trust
from samtune.runs.config import RunConfig, resolve
from samtune.runs.data_of_run import noted_settings
from samtune.runs.folder import CONFIG, DEFAULT, SUMMARY, has_begun
from samtune.runs.meanings import tree_of, value_of
from samtune.runs.trees import WHOLE, in_full, lay_over, leaves
from samtune.runs.values import Tree, add_up, named_parts, nested
from samtune.runs.word_kinds import names_data, no_such_word
from samtune.texts import read_text
from samtune.texts.plain_yaml import reason_of
from samtune.training.saves import LAST
from samtune.training.schedule import UNSAFE
from samtune.training.state import has_state

FREE_ON_RESUME = {
    "resume", "resume_changed", "output", "device", "trust", "base.weights", "data.root",
    "data.outside", "data.workers", "data.cache", "data.disk_cache", "data.cache_folder",
    "train.max_steps", "train.epochs", "train.time",
    "train.micro_batch",
    "train.feature_cache", "train.feature_folder", "train.save_every",
}  # fmt: skip
"""Settings that may change when a run is resumed: its length, and where and how it runs."""


SAME = "true"
"""The value of ``resume`` for the run in ``output``, whether it has begun or not."""


def parse_override(word: str) -> Tree:
    """Reads ``a.b=value``: a name or a path literally, anything else as YAML or as ``a,b``.

    Raises:
        InputError: There is no ``=``, or the value is not YAML.
    """
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise InputError(f"{word}: settings look like key=value, as in train.lr=1e-4")
    return nested(key, value_of(key, value))


INSTEAD = {
    ("predict", "prompts"): ", and ask with --box, --point or --prompts",
    ("predict", "output"): ", and give --out {value}",
    ("everything", "output"): ", and give --out {value}",
    ("predict", "everything"): "; samtune everything does",
    ("predict", "watershed"): "; samtune everything does",
    ("everything", "everything"): "; samtune calibrate does",
}
"""The words or options that a verb has in the place of a group of settings, in messages."""


def keys_in(words: Sequence[str]) -> list[str]:
    """The names of the settings among the words of a command line, as ``train.lr``."""
    return [key for word in words if "=" in word for key in leaves(parse_override(word))]


def chosen_keys(words: Sequence[str]) -> set[str]:
    """The names of the settings that words and the files among them set."""
    return {key for tree in layers(words) for key in leaves(tree)}


def refuse_unused(word: str, verb: str, is_used: Callable[[str], bool]) -> None:
    """Refuses a word of a command line that sets something of which the verb makes no use.

    Args:
        word: A setting; any other word is passed over.
        verb: The verb that reads it.
        is_used: Whether the verb uses a setting, by its name as ``train.precision``.

    Raises:
        InputError: It is not used.
    """
    key = next(iter(leaves(parse_override(word))), "") if "=" in word else ""
    group = key.partition(".")[0]
    if group in {row.name for row in dataclasses.fields(RunConfig)} and not is_used(key):
        instead = INSTEAD.get((verb, group), "").format(value=word.partition("=")[2])
        raise InputError(f"{word}: {verb} does not use {key}; leave it out{instead}")


def read_tree(path: Path) -> Tree:
    """Reads a configuration file.

    Raises:
        InputError: The file does not exist or is not a YAML mapping.
    """
    try:
        tree = tree_of(read_text(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give a recipe's name or a YAML file") from error
    except PermissionError:
        raise
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"{path}: not readable as YAML ({reason_of(error)}); correct it"
        ) from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: must be a mapping of settings, as in a run's config.yaml")
    return tree


def read_run(folder: Path) -> Tree:
    """The settings of a run, from its ``config.yaml``.

    Raises:
        InputError: As :func:`read_tree`, or the run began with other settings.
    """
    settings = read_tree(folder / CONFIG)
    if noted_settings(folder) not in (None, settings_digest(settings)):
        raise InputError(
            f"{folder / CONFIG}: is damaged or edited, it has other settings than the run began "
            "with; copy it back, or start a new run"
        )
    return lay_over({"train": UNSAFE}, lay_over(WHOLE, settings))


def config_of_run(folder: Path) -> RunConfig:
    """The configuration of a run; a setting that it lacks has its default.

    Raises:
        InputError: As :func:`read_run`, or a setting is wrong.
    """
    return _config_of(read_run(folder), folder)


def _config_of(tree: Tree, folder: Path) -> RunConfig:
    try:
        return resolve([tree])
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: {error}") from error


@cache
def recipes() -> dict[str, Tree]:
    """The shipped recipes by name: each a configuration with notes in its ``recipe`` entry.

    A recipe that ``extends`` another only contains the differences; the other one must be complete.
    """
    paths = [p for p in (files("samtune") / "recipes").iterdir() if p.name.endswith(".yaml")]
    read = {p.name.removesuffix(".yaml"): _recipe(p.read_text("utf-8")) for p in paths}
    whole = {name: tree for name, tree in read.items() if "extends" not in tree}
    more = {n: lay_over(whole[t.pop("extends")], t) for n, t in read.items() if n not in whole}
    return dict(sorted({**whole, **more}.items()))


def from_words(words: Sequence[str], first: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration for a command line; with ``resume=`` that of the earlier run.

    Args:
        words: A folder of data, recipe names, YAML files and ``key=value``, in any order.
        first: Defaults below everything else.

    Raises:
        InputError: See :func:`resolve`; or a word is none of these, or a setting differs from the
            run to resume.
    """
    trees = [in_full(first or {}), *layers(words)]
    config = resolve(trees)
    if config.resume is None:
        return config
    settings: Tree = {}
    for tree in trees:
        settings = lay_over(settings, tree)
    if config.resume == SAME:
        if config.output is None:
            config = dataclasses.replace(config, output=_only_open_run(config.data.root))
        config = begun_or_new(config)
        if config.resume is None:
            return config
    return _resumed(config, settings)


def begun_or_new(config: RunConfig) -> RunConfig:
    """The configuration that goes on with the run in its output folder, or begins one there.

    Args:
        config: With the settings of the run, if it has begun.

    Raises:
        InputError: Files of a run are there, but not its settings.
    """
    folder = str(config.output)
    if not has_begun(as_path(folder)):
        return dataclasses.replace(config, resume=None)
    _check_settings_are_there(folder)
    return dataclasses.replace(config, resume=folder)


def _check_settings_are_there(resume: str) -> None:
    folder = as_path(resume)
    if not (folder / CONFIG).is_file():
        what = "its config.yaml is missing; copy it back" if has_begun(folder) else "no run here"
        raise InputError(f"resume={resume}: {what}; give a folder with config.yaml")


def _only_open_run(root: str | None) -> str:
    """The run in the usual folder that has not come to its end, if there is just one.

    Args:
        root: The folder in which its data must be, if the command says so.

    Raises:
        InputError: There is none, or several.
    """
    runs = sorted(DEFAULT.iterdir()) if DEFAULT.is_dir() else []
    runs = [run for run in runs if has_state(run / LAST) and not (run / SUMMARY).is_file()]
    if root is not None:
        runs = [run for run in runs if _data_of(run) == as_path(root).resolve()]
    if len(runs) == 1:
        return str(runs[0])
    found = f"{len(runs)} runs in {DEFAULT} are" if runs else f"no run in {DEFAULT} is"
    remedy = f"say resume={' or resume='.join(map(str, runs))}" if runs else (
        "name the run's folder with output=FOLDER, where it begins or goes on"
    )  # fmt: skip
    raise InputError(f"resume={SAME}: {found} unfinished; {remedy}")


def _data_of(run: Path) -> Path | None:
    """The folder of data that a run's settings name; ``None`` without readable settings."""
    try:
        root = leaves(read_run(run)).get("data.root")
    except InputError:
        return None
    return None if root is None else as_path(str(root)).resolve()


def _data_root(roots: Sequence[str], overrides: Tree) -> Tree:
    """The setting for the folder that stands alone among the words.

    Raises:
        InputError: There are several, or it has the name of a recipe.
    """
    stated = overrides.get("data", {})
    if not isinstance(stated, Mapping):
        return {}  # it is refused as a group that is set to a value
    root = stated.get("root")
    others = [root] if root and isinstance(root, str) else []  # others are refused later
    known = list(dict.fromkeys([*others, *roots]))
    if len(known) > 1:
        raise InputError(
            f"{known[1]}: is a second folder of data beside {known[0]}; give one of them"
        )
    for root in roots:
        if root in recipes():
            raise InputError(f"{root}: is a folder and a recipe; write ./{root} for the folder")
        if (as_path(root) / CONFIG).is_file() and has_begun(as_path(root)):
            raise InputError(
                f"{root}: is the folder of a run; go on with it by samtune train resume={root}, or "
                "give the folder of the data"
            )
    return {"data": {"root": roots[0]}} if roots else {}


def layers(words: Sequence[str]) -> list[Tree]:
    """The settings in a command line's words: recipes, then files, then all ``key=value`` as one.

    A folder that stands alone is ``data.root``.

    Raises:
        InputError: A word is none of these.
    """
    recipe_trees, file_trees, roots = [], [], []
    overrides: Tree = {}
    shipped, groups = recipes(), {row.name for row in dataclasses.fields(RunConfig)}
    for word in words:
        if names_data(word, groups):
            roots.append(word)
        elif "=" in word:
            # Among themselves they only add up: adapter.rank=8 may stand before adapter.name=lora.
            overrides = add_up(overrides, named_parts(parse_override(word)))
        elif word in shipped:
            settings = {k: v for k, v in shipped[word].items() if k != "recipe"}
            recipe_trees.append(lay_over(WHOLE, settings))
        elif word.endswith((".yaml", ".yml")):
            file_trees.append(in_full(read_tree(as_path(word))))
        else:
            raise no_such_word(word, shipped)
    overrides = add_up(overrides, _data_root(roots, overrides))
    for tree in (*file_trees, overrides):
        _trust_what_it_names(tree)
    return [*recipe_trees, *file_trees, in_full(overrides)]


def _trust_what_it_names(tree: Tree) -> None:
    """Allows the code outside samtune that the user's own settings name to be imported.

    Raises:
        InputError: ``trust`` is no name of a module, or no list of such names.
    """
    trusted = tree.get("trust") or []
    names = trusted if isinstance(trusted, list) else [trusted]
    trust(*map(str, names), *named_in(leaves(tree)))


def _resumed(config: RunConfig, settings: Tree) -> RunConfig:
    _check_settings_are_there(str(config.resume))
    folder = as_path(str(config.resume))
    tree = read_run(folder)
    _check_packages_of_run(folder)
    earlier, now = leaves(_config_of(tree, folder).tree()), leaves(config.tree())
    for key in leaves(settings):
        chosen = (key, now.get(key)) == ("input.tiles", "auto")  # it was checked when the run began
        if key not in FREE_ON_RESUME and not chosen and now.get(key) != earlier.get(key):
            raise InputError(
                f"{key}={now.get(key)}: the run in {folder} has {earlier.get(key)}, and only "
                "its length may change; leave it out, or start a new run"
            )
    free = {key: value for key, value in leaves(settings).items() if key in FREE_ON_RESUME}
    trees = [nested(key, value) for key, value in free.items()]
    return resolve([tree, *trees, {"resume": str(folder)}])


def _check_packages_of_run(folder: Path) -> None:
    """Refuses a run whose method is of a package that is not there, or is not trusted.

    Raises:
        InputError: It names the package, which its checkpoint states.
    """
    try:
        header = read_header(folder / BEST)
    except InputError:
        return  # it has none yet, or a damaged one that will be restored from the state
    check_packages(header, f"resume={folder}")


def settings_digest(tree: Tree) -> str:
    """A digest of the settings in a run's ``config.yaml`` that stay when it is resumed.

    Args:
        tree: The file's settings as they are read.
    """
    kept = {key: value for key, value in leaves(tree).items() if key not in FREE_ON_RESUME}
    text = json.dumps(kept, sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _recipe(text: str) -> Tree:
    # The loader in C, if there is one, takes a tenth of the time for all recipes.
    tree = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {**tree, **in_full({k: v for k, v in tree.items() if k == "input"})}
