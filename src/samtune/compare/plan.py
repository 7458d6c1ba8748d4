"""The trainings of a comparison of methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from samtune.adapters import ADAPTERS
from samtune.compare.launchers.config import LaunchConfig
from samtune.data.changes import images_vary
from samtune.data.config import AUTO
from samtune.data.sample_store import FOLDER as DECODED
from samtune.decoders import DECODERS
from samtune.errors import InputError, nearest
from samtune.files import as_path, free_path
from samtune.model.finetuned import PLAIN
from samtune.options import validated
from samtune.registry import trust
from samtune.registry.outside import fitting
from samtune.registry.places import PLACE
from samtune.runs.config import RunConfig, resolve
from samtune.runs.data_of_run import data_name
from samtune.runs.folder import DEFAULT, check_output, has_begun
from samtune.runs.values import DEFAULTS, Tree
from samtune.runs.words import layers, parse_override, recipes
from samtune.texts import read_json
from samtune.training.caching import FOLDER, Caching, as_word, check_feature_cache

OF_PLAN = ("methods", "shots", "seeds")
"""Words that say which trainings there are."""
OF_COMPARISON = (*OF_PLAN, *(row.name for row in fields(LaunchConfig)))
"""Settings of a comparison, besides those of a training."""
DECODER = "decoder"
"""The method that tunes the mask decoder and leaves the image encoder as it is."""
COMPARISON, REPORT = "comparison.json", "report.html"
"""The files of a comparison, besides the folders of its runs."""
ALL = "all"
"""The word for the whole training split, instead of a number of shots."""
BUDGET = {
    "max_steps", "epochs", "epoch_fraction", "batch_size", "micro_batch", "last_batch",
    "accumulate", "time", "precision", "eval_every", "eval_epochs", "patience", "metric",
}  # fmt: skip
"""Settings of training that a method never sets itself."""


@dataclass(frozen=True)
class Run:
    """One training of the comparison."""

    method: str
    shots: int | None
    """``None`` for the whole training split."""
    seed: int
    config: RunConfig

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return Path(str(self.config.output))

    @property
    def title(self) -> str:
        """The run's name for people: method, shots and seed."""
        return f"{self.method}, {shots_name(self.shots)}, seed {self.seed}"


def launch_config(words: Sequence[str]) -> LaunchConfig:
    """How the trainings are run, as a command line says it.

    Raises:
        InputError: A value is wrong.
    """
    names = {row.name for row in fields(LaunchConfig)}
    values = {k: v for word in words for k, v in _comparison_setting(word).items() if k in names}
    return validated(LaunchConfig, "", values)


def plan_runs(words: Sequence[str]) -> list[Run]:
    """The runs of a command line, each with its checked configuration.

    Raises:
        InputError: A word is wrong, or a method is unknown or does not fit the settings.
    """
    settings = {key: value for word in words for key, value in _comparison_setting(word).items()}
    rest = [word for word in words if not _comparison_setting(word)]
    read = layers(rest)
    trees = [_cached_if_it_helps(tree) for tree in read]
    for key in ("adapter", "seed", "resume"):
        if key in trees[-1]:
            named = {"adapter": "methods=", "seed": "seeds="}.get(key, "the same command again")
            raise InputError(
                f"{key}={trees[-1][key]}: the comparison sets this itself; use {named} instead"
            )
    seeds = _seeds(settings.get("seeds", 3))
    shots = [_shots(value) for value in _as_list(settings.get("shots", ALL))]
    methods = [
        str(name) for name in _as_list(settings.get("methods", [DECODER, DEFAULTS["adapter"]]))
    ]
    for name, values in (("methods", methods), ("shots", shots), ("seeds", seeds)):
        if len(set(values)) < len(values) or not values:
            raise InputError(f"{name}={settings[name]}: has a value twice; give each once")
    trust(*(place for name in methods for place in PLACE.findall(name)))
    common = resolve(_with(methods[0], trees))
    check_output(common.output, common.data.root)
    for tree in read:  # also if no method trains late blocks
        vary = images_vary(common.data, common.input.until_chosen().tiles)
        check_feature_cache(_cache_of(tree), methods[0], True, vary)
    folder = as_path(common.output or DEFAULT / f"compare-{data_name(common)}")
    runs = [
        _run(method, k, seed, trees, folder) for k in shots for method in methods for seed in seeds
    ]
    if not any(has_begun(run.folder) for run in runs):  # else its files are written anew
        _check_folder(folder)
    return runs


def _check_folder(folder: Path) -> None:
    """Refuses a folder with a report that no comparison wrote.

    Raises:
        InputError: It names another folder.
    """
    lying = [name for name in (REPORT, COMPARISON) if (folder / name).exists()]
    if lying and not _is_comparison(folder / COMPARISON):
        raise InputError(
            f"output={folder}: holds a {lying[0]} that samtune compare did not write; choose "
            f"another folder, as in output={free_path(folder)}"
        )


def _is_comparison(file: Path) -> bool:
    try:
        tree = read_json(file)
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and {"rows", "runs", "comparison"} <= tree.keys()


def shots_name(shots: int | None) -> str:
    """A number of shots in words: ``1 shot``, ``16 shots``, ``all images``."""
    return "all images" if shots is None else f"{shots} shot{'s' if shots > 1 else ''}"


def _comparison_setting(word: str) -> Tree:
    """The value of a setting of the comparison, as ``shots=4``; empty for any other word."""
    return parse_override(word) if word.partition("=")[0] in OF_COMPARISON else {}


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _shots(value: Any) -> int | None:
    if value == ALL:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(
            f"shots={value}: must be numbers of images, at least 1, or {ALL}, as in shots=1,16"
        )
    return value


def _seeds(value: Any) -> list[int]:
    """The seeds: ``seeds=3`` means 0, 1, 2; a list means itself."""
    seeds = value if isinstance(value, list) else list(range(value if _is_count(value) else 0))
    if not seeds or not all(_is_count(seed) for seed in seeds):
        raise InputError(
            f"seeds={value}: must be a number of seeds, as in seeds=3, or a list of whole numbers"
        )
    return seeds


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _run(method: str, shots: int | None, seed: int, trees: Sequence[Tree], folder: Path) -> Run:
    name = f"{method.replace(':', '.')}-{ALL if shots is None else shots}shot-seed{seed}"
    last: Tree = {
        "data": {"shots": shots, "shot_seed": seed}, "seed": seed, "output": str(folder / name)
    }  # fmt: skip
    config = _with_shared_cache(resolve([*_with(method, trees), last]), folder)
    if (
        config.prompts.eval == AUTO
    ):  # runs may keep other prompts besides, but the table has one prompt
        prompts = replace(config.prompts, eval=config.prompts.train)
        config = replace(config, prompts=prompts)
    return Run(method, shots, seed, config)


def _cache_of(tree: Tree) -> Any:
    """The setting ``train.feature_cache`` of a tree; off if it has none."""
    return tree.get("train", {}).get("feature_cache", False)


def _cached_if_it_helps(tree: Tree) -> Tree:
    """Settings with a cache of features for the methods that can use one, and none for others."""
    setting = _cache_of(tree)
    if not Caching.read(setting).is_demanded:
        return tree
    return {**tree, "train": {**tree["train"], "feature_cache": f"{AUTO},{as_word(setting)}"}}


def _with_shared_cache(config: RunConfig, folder: Path) -> RunConfig:
    """A run whose cached features and samples lie beside those of the others."""
    train, data = config.train, config.data
    if Caching.read(train.feature_cache) and train.feature_folder is None:
        train = replace(train, feature_folder=str(folder / FOLDER))
    if data.bytes_on_disk and data.cache_folder is None:
        data = replace(data, cache_folder=str(folder / DECODED))
    return replace(config, train=train, data=data)


def _with(method: str, trees: Sequence[Tree]) -> list[Tree]:
    """Settings with a method's own below those of the command line.

    Raises:
        InputError: The method is unknown, or its decoder conflicts with one set for all methods.
    """
    of_method, decoder = _method(method), trees[-1].get("decoder", {}).get("name")
    named = of_method.get("decoder", {}).get("name")
    of_decoder = _split_form(method)[0] == named
    if of_decoder and decoder not in (None, named):
        raise InputError(
            f"methods={method}: conflicts with decoder.name={decoder}, which is for all methods; "
            "leave one of them out"
        )
    return [*trees[:-1], of_method, trees[-1]]


def _method(name: str) -> Tree:
    """The settings of a method: adapter and decoder, and for a recipe its training settings.

    Raises:
        InputError: The method is unknown.
    """
    shipped = recipes()
    whole, form = _split_form(name)
    if form and ADAPTERS.is_joint(name):
        raise InputError(f"methods={name}: adapters joined by + have no forms; leave the form out")
    if form and (whole in DECODERS or whole in ADAPTERS):
        return _in_form(whole, form)
    if name == DECODER:
        return {"adapter": {"name": PLAIN["adapter"]}, "decoder": {"name": DEFAULTS["decoder"]}}
    if name in shipped:
        tree = shipped[name]
        learning = {key: value for key, value in tree.get("train", {}).items() if key not in BUDGET}
        parts: Tree = {key: tree[key] for key in DEFAULTS if key in tree}
        return {**parts, "train": learning}
    registry = ADAPTERS if ADAPTERS.is_joint(name) else _registry_of(name)
    if registry is DECODERS:
        return {"adapter": {"name": PLAIN["adapter"]}, "decoder": {"name": name}}
    if registry is None:
        known = [DECODER, *ADAPTERS.names(), *DECODERS.names(), *shipped]
        raise InputError(
            f"methods={name}: no such method{nearest(name, known)}; give {DECODER}, an adapter or "
            "decoder (samtune methods), also in another form as vpt:shallow, or a recipe "
            "(samtune recipes)"
        )
    fitting: tuple[str, ...] | None = ADAPTERS[name].decoders
    reads = DEFAULTS["decoder"]
    if fitting and reads not in fitting:
        reads = fitting[0]
    return {"adapter": {"name": name}, "decoder": {"name": reads}}


def _registry_of(name: str) -> Any:
    """The decoders or the adapters, whichever has a name; ``None`` if none has it."""
    if name.partition(":")[0] in (DECODER, *recipes()):  # they have no forms
        return None
    return fitting(name, (DECODERS, ADAPTERS), f"methods={name}")


def _split_form(name: str) -> tuple[str, str]:
    """A method's name and that of its form; an adapter's and a decoder's are written alike."""
    registry = DECODERS if name.partition(":")[0] in list(DECODERS) else ADAPTERS
    return registry.split_form(name)


def _in_form(name: str, form: str) -> Tree:
    """The settings of another form of an adapter or decoder.

    Raises:
        InputError: The form is unknown.
    """
    registry = _registry_of(name)
    kind, forms = registry.kind, registry.forms(name)
    if form not in forms:
        has = f"its forms are {', '.join(forms)}" if forms else "it has only one form"
        raise InputError(f"methods={name}:{form}: {has}{nearest(form, forms)}")
    parts = _method(name)
    return {**parts, kind: {**parts[kind], **forms[form]}}
