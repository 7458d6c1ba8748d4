"""The configuration of a run: recipe < file < ``key=value``, checked, and as plain YAML."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from samtune.adapters import ADAPTERS
from samtune.data.changes import check_changes, check_own_size, varied
from samtune.data.config import DataConfig, InputConfig, PromptConfig
from samtune.data.cuts import check_cuts
from samtune.data.layouts import defaults_of
from samtune.decoders import DECODERS
from samtune.errors import InputError, nearest
from samtune.metrics.config import EvalConfig
from samtune.metrics.config import check as check_measuring
from samtune.metrics.contract import expand
from samtune.model.finetuned import check_fit, check_pair
from samtune.options import setting, validated
from samtune.published.inputs import PRESETS
from samtune.registry import Registry
from samtune.runs.class_maps import check_classes, class_defaults, has_class_maps
from samtune.sam.weights import spec_of
from samtune.training.schedule import FitConfig, check_feature_cache
from samtune.training.schedule import check as check_training

Tree = dict[str, Any]

DEFAULTS = {"adapter": "lora", "decoder": "tuned"}
"""The method and read-out where none is named."""
FREE_ON_RESUME = {
    "resume", "output", "device", "base.weights", "data.root", "data.workers", "data.cache",
    "train.max_steps", "train.epochs", "train.feature_cache",
}  # fmt: skip
"""Settings that may change when a run is resumed: its length, and where and how it runs."""


@dataclass(frozen=True)
class BaseConfig:
    """The frozen SAM."""

    name: str = "nano"
    """vit_b, vit_l, vit_h, vit_t (MobileSAM), or nano, which ships with samtune."""
    weights: str | None = None
    """File or folder of its weights, or a hub id; nano needs none."""
    download: bool = False
    """Allow a hub id to be fetched."""
    any: bool = setting(False, level="expert")
    """Accept other weights than those that a checkpoint was trained on."""


@dataclass(frozen=True)
class InputSettings(InputConfig):
    """How images enter the model."""

    preset: str | None = setting(None, level="published", names=PRESETS)
    """Settings of input that the recipes of a published system share; those beside it win."""


@dataclass(frozen=True)
class RunConfig:
    """All that one run is made of."""

    base: BaseConfig = field(default_factory=BaseConfig)
    """The frozen SAM."""
    adapter: Tree = field(default_factory=lambda: {"name": DEFAULTS["adapter"]})
    """The method in the image encoder: its name and options, see ``samtune methods``."""
    decoder: Tree = field(default_factory=lambda: {"name": DEFAULTS["decoder"]})
    """The read-out: its name and options."""
    input: InputSettings = field(default_factory=InputSettings)
    """How images enter the model."""
    data: DataConfig = field(default_factory=DataConfig)
    """The data set."""
    prompts: PromptConfig = field(default_factory=PromptConfig)
    """Prompts in training and evaluation."""
    train: FitConfig = field(default_factory=FitConfig)
    """How training goes."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """What is measured."""
    seed: int = 0
    """Start of all random choices."""
    output: str | None = None
    """The run's folder; by default ``runs/`` and a name from method, base and data."""
    resume: str | None = None
    """Folder of an interrupted run to go on with."""
    device: str = "auto"
    """cpu, cuda, mps, or auto."""

    def tree(self) -> Tree:
        """The configuration as plain values, fit for YAML and JSON."""
        return _plain(dataclasses.asdict(self))

    def differing(self) -> Tree:
        """What differs from the defaults, and the names of base, method and decoder."""
        parts = {"adapter": _choice(ADAPTERS, {"name": self.adapter["name"]})}
        parts["decoder"] = _choice(DECODERS, {"name": self.decoder["name"]})
        plain = {**leaves(RunConfig().tree()), **leaves(parts)}
        named = ("base.name", "adapter.name", "decoder.name")
        tree: Tree = {}
        for key, value in leaves(self.tree()).items():
            if key in named or value != plain.get(key):
                tree = _add_up(tree, _nested(key, value))
        return tree


def resolve(trees: Sequence[Mapping[str, Any]]) -> RunConfig:
    """Checks and joins configurations, later ones over earlier ones.

    Raises:
        InputError: An unknown key (the nearest is named), a value of the wrong kind, an unknown
            method, or a method and decoder that do not go together.
    """
    merged: Tree = {}
    for tree in trees:
        merged = _merged(merged, _in_full(tree))
    merged = _merged(_of_the_data_set(merged), merged)
    merged = _merged(class_defaults(merged), merged)
    _check_keys(merged, RunConfig, "")
    config = _validated(merged)
    spec = spec_of(config.base.name)
    config = dataclasses.replace(
        config,
        adapter=_choice(ADAPTERS, config.adapter),
        decoder=_choice(DECODERS, config.decoder),
    )
    check_pair(config.adapter["name"], config.decoder["name"])
    check_fit(config.adapter["name"], config.decoder["name"], spec)
    check_classes(config.data, config.prompts, config.decoder, config.train.loss)
    check_training(config.train)
    adapter, changes = config.adapter["name"], varied(config.data, config.input.tiles)
    check_feature_cache(config.train, adapter, ADAPTERS[adapter].detached, changes)
    mapped = has_class_maps(config.data, config.prompts)
    cut = config.input.tiles != "whole"
    check_measuring(config.eval, mapped, cut)
    expand((config.train.metric,), "train.metric", mapped, cut)
    check_cuts(config.input)
    check_changes(config.data, config.input.tiles)
    if config.train.loss_at == "image":
        check_own_size(config.data)
    for key in ("workers", "cache"):
        if getattr(config.data, key) < 0:
            raise InputError(f"data.{key}={getattr(config.data, key)}: choose 0 or more")
    if not 0 <= config.seed < 2**63:
        raise InputError(f"seed={config.seed}: must be a whole number from 0 on")
    return config


def _of_the_data_set(tree: Tree) -> Tree:
    """The settings that the data set itself states; every other source overrides them."""
    data = tree.get("data")
    return {"data": defaults_of(data)} if isinstance(data, Mapping) else {}


def parse_override(word: str) -> Tree:
    """Reads ``a.b=value``; the value is YAML, and ``a,b`` of plain words is a list.

    Raises:
        InputError: No ``=``, or a value that is not YAML.
    """
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise InputError(f"{word}: settings look like key=value, as in train.lr=1e-4")
    try:
        parsed: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"{word}: the value is not valid YAML; quote it") from error
    if isinstance(parsed, str) and "," in parsed and not any(c in parsed for c in " /\\"):
        parsed = [yaml.safe_load(part) for part in parsed.split(",")]
    return _nested(key, parsed)


def read_tree(path: Path) -> Tree:
    """A configuration file.

    Raises:
        InputError: No such file, or not a YAML mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give a recipe's name or a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: must be a mapping of settings, as in a run's config.yaml")
    return tree


@cache
def recipes() -> dict[str, Tree]:
    """The shipped recipes by name: each a configuration with a ``recipe`` entry of notes.

    One that ``extends`` another, which must be whole itself, only has what differs.
    """
    paths = [p for p in (files("samtune") / "recipes").iterdir() if p.name.endswith(".yaml")]
    read = {p.name.removesuffix(".yaml"): _recipe(p.read_text("utf-8")) for p in paths}
    whole = {name: tree for name, tree in read.items() if "extends" not in tree}
    more = {n: _merged(whole[t.pop("extends")], t) for n, t in read.items() if n not in whole}
    return dict(sorted({**whole, **more}.items()))


def from_words(words: Sequence[str], first: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration that a command line asks for; with ``resume=`` that of the earlier run.

    Args:
        words: Recipe names, YAML files and ``key=value``, in any order.
        first: Defaults below everything else.

    Raises:
        InputError: As :func:`resolve`, a word that is none of these, or a setting that differs
            from the run to resume.
    """
    trees = [_in_full(first or {}), *layers(words)]
    config = resolve(trees)
    if config.resume is None:
        return config
    settings: Tree = {}
    for tree in trees:
        settings = _merged(settings, tree)
    return _resumed(config, settings)


def layers(words: Sequence[str]) -> list[Tree]:
    """The settings in a command line's words: recipes, then files, then all ``key=value`` as one.

    Raises:
        InputError: A word that is none of these.
    """
    recipe_trees, file_trees = [], []
    overrides: Tree = {}
    shipped = recipes()
    for word in words:
        if "=" in word:
            # Among themselves they only add up: adapter.rank=8 may stand before adapter.name=lora.
            overrides = _add_up(overrides, _named_parts(parse_override(word)))
        elif word in shipped:
            recipe_trees.append({k: v for k, v in shipped[word].items() if k != "recipe"})
        elif word.endswith((".yaml", ".yml")):
            file_trees.append(_in_full(read_tree(Path(word).expanduser())))
        elif Path(word).expanduser().is_dir():
            raise InputError(f"{word}: a folder; give it as data.root={word}")
        else:
            raise InputError(
                f"{word}: neither a recipe, a .yaml file nor key=value{nearest(word, shipped)}; "
                "see samtune recipes"
            )
    return [*recipe_trees, *file_trees, _in_full(overrides)]


def _resumed(config: RunConfig, settings: Tree) -> RunConfig:
    folder = Path(str(config.resume)).expanduser()
    if not (folder / "config.yaml").is_file():
        raise InputError(f"resume={config.resume}: no run here; give a folder with config.yaml")
    tree = read_tree(folder / "config.yaml")
    # the file may have been edited, or lack a setting that is new
    earlier, now = leaves(resolve([tree]).tree()), leaves(config.tree())
    for key in leaves(settings):
        if key not in FREE_ON_RESUME and now.get(key) != earlier.get(key):
            raise InputError(
                f"{key}={now.get(key)}: the run in {folder} has {earlier.get(key)}, and only "
                "its length may change; leave it out, or start a new run"
            )
    free = {key: value for key, value in leaves(settings).items() if key in FREE_ON_RESUME}
    trees = [_nested(key, value) for key, value in free.items()]
    return resolve([tree, *trees, {"resume": str(folder)}])


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Tree:
    """A configuration as one flat mapping, with keys such as ``train.lr``."""
    out: Tree = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        out |= leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return out


def _nested(key: str, value: Any) -> Tree:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _in_full(tree: Mapping[str, Any]) -> Tree:
    """A tree with its short forms spelt out: a part's name alone, and a preset of the input.

    A preset becomes the settings that it stands for, below those of the same tree; so it acts over
    all that earlier trees say.
    """
    tree, part = _named_parts(tree), tree.get("input")
    if not isinstance(part, Mapping) or part.get("preset") is None:
        return tree
    beside = {key: value for key, value in part.items() if key != "preset"}
    return {**tree, "input": {**PRESETS[str(part["preset"])].settings, **beside}}


def _recipe(text: str) -> Tree:
    tree = yaml.safe_load(text)
    return {**tree, **_in_full({k: v for k, v in tree.items() if k == "input"})}


def _named_parts(tree: Mapping[str, Any]) -> Tree:
    """``adapter: lora`` as ``adapter: {name: lora}``, and the same for the decoder."""
    return {k: {"name": v} if k in DEFAULTS and isinstance(v, str) else v for k, v in tree.items()}


def _add_up(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        out[key] = _add_up(old, value) if both else value  # type: ignore[arg-type]
    return out


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        if key in DEFAULTS and isinstance(value, Mapping) and isinstance(old, Mapping):
            # Options of one method mean nothing to another: a new name starts afresh.
            renamed = "name" in value and value["name"] != old.get("name", DEFAULTS[key])
            out[key] = dict(value) if renamed else _merged(old, value)
        elif isinstance(value, Mapping) and isinstance(old, Mapping):
            out[key] = _merged(old, value)
        else:
            out[key] = value
    return out


def _check_keys(tree: Mapping[str, Any], schema: Any, prefix: str) -> None:
    """Refuses unknown keys; the registries check those of adapter and decoder."""
    hints = get_type_hints(schema)
    known = [f.name for f in dataclasses.fields(schema)]
    for key, value in tree.items():
        if key not in known:
            raise InputError(
                f"{prefix}{key}: no such setting{nearest(str(key), known)}; "
                f"known are {', '.join(prefix + k for k in known)}"
            )
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise InputError(f"{prefix}{key}={value}: has parts, set them as {key}.part=value")
            _check_keys(value, hints[key], f"{prefix}{key}.")


def _validated(tree: Tree) -> RunConfig:
    for part, default in DEFAULTS.items():
        value = tree.get(part, {})
        if not isinstance(value, Mapping):
            raise InputError(f"{part}={value}: give a name, as in {part}.name={default}")
        tree = {**tree, part: {"name": default, **value}}
    for part, key in (
        ("data", "class_names"),
        ("train", "trackers"),
        ("eval", "metrics"),
    ):  # a list of one
        if isinstance(tree.get(part, {}).get(key), str):
            tree = {**tree, part: {**tree[part], key: [tree[part][key]]}}
    return validated(RunConfig, "", tree)


def _choice(registry: Registry[Any], part: Tree) -> Tree:
    """A registered part's name with all of its options, checked and with defaults filled in."""
    options = {key: value for key, value in part.items() if key != "name"}
    config = registry.config(part["name"], options)
    return {"name": part["name"], **_plain(dataclasses.asdict(config))}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
