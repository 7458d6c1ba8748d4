"""The configuration of a run: its settings, checked one by one and against each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from samtune.adapters import ADAPTERS
from samtune.data.changes import check_changes, check_own_size, images_vary
from samtune.data.config import DataConfig, InputConfig, PromptConfig
from samtune.data.layouts import defaults_of
from samtune.decoders import DECODERS
from samtune.errors import InputError, nearest
from samtune.geometry import PRESETS
from samtune.inference.everything.config import EverythingConfig
from samtune.inference.everything.watershed import WatershedConfig
from samtune.metrics.config import EvalConfig
from samtune.metrics.contract import expand
from samtune.model.packages import REGISTRIES
from samtune.model.parts import check_fit, check_pair
from samtune.model.rates import Rate, rate_of
from samtune.options import Count, Fraction, Range, Settings, setting, validated
from samtune.registry import Registry
from samtune.runs.class_maps import check_classes, class_defaults, has_class_maps
from samtune.runs.dense_maps import check_dense_maps, decoder_defaults
from samtune.runs.setting_names import SettingNames
from samtune.runs.trees import WHOLE, in_full, lay_over, leaves, plain_values
from samtune.runs.values import DEFAULTS, Tree, add_up, in_lists, nested
from samtune.sam.encoder import ENCODERS
from samtune.sam.spec import SPECS
from samtune.sam.weights import spec_of
from samtune.training.caching import check_feature_cache
from samtune.training.criterion import Criterion
from samtune.training.schedule import FitConfig


@dataclass(frozen=True)
class BaseConfig(Settings):
    """The frozen SAM."""

    section = "base"

    name: str = "nano"
    """vit_b, vit_l, vit_h, vit_t (MobileSAM), or nano, which ships with samtune."""
    weights: str | None = None
    """File or folder of its weights, or a hub id, as facebook/sam-vit-base; nano needs none."""
    download: bool = False
    """Allow downloading a hub id, also that of a checkpoint (``hf:owner/name``)."""
    any: bool = setting(False, level="expert")
    """Accept other weights than those on which a checkpoint was trained."""


@dataclass(frozen=True, init=False)
class InputSettings(InputConfig):
    """The settings of how images enter the model."""

    preset: str | None = setting(None, level="published", names=PRESETS)
    """Name for the input settings of a published system; individual settings override it."""

    def __init__(self, **settings: Any) -> None:
        rows = {row.name: row.default for row in dataclasses.fields(self)}
        if unknown := settings.keys() - rows.keys():
            raise TypeError(f"InputSettings has no {min(unknown)}; it has {', '.join(rows)}")
        if settings.get("preset") is not None:
            rows |= WHOLE["input"]
        for name, value in {**rows, **in_full({"input": settings})["input"]}.items():
            object.__setattr__(self, name, value)
        self.__post_init__()


@dataclass(frozen=True)
class EverythingSettings(EverythingConfig):
    """The settings of ``samtune everything``, and of fitting them to data."""

    fit: Literal["none", "msa", "ap"] = setting("none", level="expert")
    """Fit the grid and its thresholds, or those of the watershed, at the end of a training, on its
    validation images: for msa, the metric of cell segmentation, or for ap, that of COCO. The
    checkpoint keeps and uses them. everything=true is short for everything.fit=msa."""
    fit_images: Count | None = setting(None, level="expert")
    """Images on which is fitted, at most, evenly spread; by default 50 for a watershed and 20 for a
    grid of points, which takes longer."""
    fit_base: bool = setting(True, level="expert")
    """Fit the base's grid of points on the same images too, so that tables show what fitted
    thresholds alone are worth, beside the training."""
    fixed: tuple[str, ...] = setting((), level="expert")
    """Settings of everything and watershed that are not fitted, as everything.points_per_side; by
    default those that were set, also to their usual values."""

    def check_together(self) -> None:
        """Refuses names of no setting that could be fitted."""
        kinds = (EverythingConfig, WatershedConfig)
        known = [f"{kind.section}.{row.name}" for kind in kinds for row in dataclasses.fields(kind)]
        for name in self.fixed:
            if name not in known:
                raise InputError(
                    f"everything.fixed={name}: no such setting{nearest(name, known)}; give names "
                    "of everything and watershed, as everything.points_per_side"
                )


@dataclass(frozen=True)
class RunConfig(Settings):
    """All settings of one run."""

    base: BaseConfig = field(default_factory=BaseConfig)
    """The frozen SAM."""
    adapter: Tree = field(default_factory=lambda: {"name": DEFAULTS["adapter"]})
    """The method in the image encoder: its name and options, see ``samtune methods``."""
    decoder: Tree = field(default_factory=lambda: {"name": DEFAULTS["decoder"]})
    """The mask decoder: its name and options, see ``samtune methods``."""
    input: InputSettings = field(default_factory=InputSettings)
    """How images enter the model."""
    data: DataConfig = field(default_factory=DataConfig)
    """The data set."""
    prompts: PromptConfig = field(default_factory=PromptConfig)
    """Prompts in training and evaluation."""
    train: FitConfig = field(default_factory=FitConfig)
    """The training."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """The measured metrics."""
    everything: EverythingSettings = field(default_factory=EverythingSettings)
    """All objects of images without prompts."""
    watershed: WatershedConfig = field(default_factory=WatershedConfig)
    """The same by a decoder of distances."""
    strength: Fraction | str | list[str] | None = None
    """Blend of a checkpoint's weights, from the base (0) to the trained ones (1), in an evaluation,
    a prediction or an export, for all prompts or by kind, as in none:1,box:0; box alone takes that
    of boxes for all. By default as the checkpoint says. For a training, set train.strength."""
    preset: Literal["8gb", "12gb", "16gb", "24gb", "80gb", "cpu", "auto"] | None = None
    """Makes a training fit into a memory size: 8gb, 12gb, 16gb, 24gb, 80gb, auto (the free memory
    of this machine's device) or cpu (the same, on the processor). It sets what samtune plan finds;
    recipes, files and other words override it."""
    seed: Annotated[int, Range(at_least=0, below=2**63)] = 0
    """Seed of all random choices."""
    output: str | None = None
    """The run's folder; by default below ``runs/``, named by method, base and data."""
    resume: str | None = None
    """Folder of an interrupted run to continue; true for the run in output, which is started if it
    does not exist, or without output for the only unfinished run of these data in runs/."""
    resume_changed: bool = setting(False, level="expert")
    """Continue, or measure a checkpoint, although images or masks of the run have changed or are
    missing; earlier measurements are then repeated."""
    device: str = "auto"
    """cpu, cuda, mps, or auto."""
    trust: tuple[str, ...] = setting((), level="expert")
    """Python modules outside samtune, as my_pkg, whose code may be imported if a checkpoint or the
    run to resume names it; what you name yourself, and installed plug-ins, need no trust."""

    def tree(self) -> Tree:
        """The configuration as plain values, fit for YAML and JSON."""
        return plain_values(dataclasses.asdict(self))

    @property
    def usual_rate(self) -> Rate:
        """The learning rate for the adapter and the decoder, see ``train.lr``."""
        parts = ADAPTERS[self.adapter["name"]], DECODERS[self.decoder["name"]]
        return rate_of(*parts, self.prompts.modes(train=True))

    def differing(self) -> Tree:
        """The settings that differ from the defaults, and the names of base, method and decoder."""
        parts: Tree = {"adapter": _choice(ADAPTERS, {"name": self.adapter["name"]})}
        parts["decoder"] = _choice(DECODERS, {"name": self.decoder["name"]})
        parts["train"] = {"lr": self.usual_rate.value}
        plain = {**leaves(RunConfig().tree()), **leaves(parts)}
        named = ("base.name", "adapter.name", "decoder.name")
        tree: Tree = {}
        for key, value in leaves(self.tree()).items():
            if key in named or value != plain.get(key):
                tree = add_up(tree, nested(key, value))
        return tree


def resolve(trees: Sequence[Mapping[str, Any]]) -> RunConfig:
    """Checks and joins configurations, later ones over earlier ones.

    Raises:
        InputError: A key is unknown (the message names the nearest), a value has the wrong kind, a
            method is unknown, or method and decoder do not fit together.
    """
    merged: Tree = {}
    for tree in trees:
        merged = lay_over(merged, in_full(plain_values(tree)))
    merged = lay_over(_not_fitted(trees), merged)
    merged = lay_over(_of_the_base(merged), merged)
    merged = lay_over(_of_the_data_set(merged), merged)
    merged = lay_over(class_defaults(merged), merged)
    merged = lay_over(decoder_defaults(merged), merged)
    SettingNames(RunConfig, REGISTRIES).check(merged)
    config = _as_published(_validated(merged))
    spec = spec_of(config.base.name)
    config = replace(
        config,
        adapter=_choice(ADAPTERS, config.adapter),
        decoder=_choice(DECODERS, config.decoder),
    )
    check_pair(config.adapter["name"], config.decoder["name"])
    check_fit(config.adapter["name"], config.decoder["name"], spec)
    config = replace(config, train=config.train.with_rate(config.usual_rate.value))
    check_classes(config.data, config.prompts, config.decoder, config.train.loss)
    how = config.train.loss, config.train.loss_at
    check_dense_maps(config.data, config.prompts, config.decoder, *how)
    tiles = config.input.until_chosen().tiles
    adapter, changes = config.adapter["name"], images_vary(config.data, tiles)
    serves = ADAPTERS[adapter].may_leave_blocks()
    check_feature_cache(config.train.feature_cache, adapter, serves, changes)
    mapped = has_class_maps(config.data, config.prompts)
    cut = tiles != "whole"
    expand(config.eval.metrics, maps=mapped, views=cut)
    expand(Criterion.parse(config.train.metric).measures, "train.metric", mapped, cut)
    check_changes(config.data, tiles)
    if config.train.loss_at == "image":
        check_own_size(config.data)
    return config


def _not_fitted(trees: Sequence[Mapping[str, Any]]) -> Tree:
    """The settings of automatic modes that were set, unless a tree says itself which those are.

    The settings of a run are whole groups, of which all but the usual values count as set; those of
    a present version say themselves which were.
    """
    names: set[str] = set()
    for kind in (EverythingConfig, WatershedConfig):
        usual = {row.name: row.default for row in dataclasses.fields(kind)}
        for tree in trees:
            group = tree.get(kind.section)
            group = group if isinstance(group, Mapping) else {}
            is_whole = usual.keys() <= group.keys()
            names |= {
                f"{kind.section}.{name}"
                for name, value in group.items()
                if name in usual and not (is_whole and value == usual[name])
            }
    return {EverythingConfig.section: {"fixed": sorted(names)}} if names else {}


def _of_the_base(tree: Tree) -> Tree:
    """The setting that the base's encoder implies; every other source overrides it."""
    base = tree.get("base", {})
    name = base.get("name", BaseConfig.name) if isinstance(base, Mapping) else None
    if not isinstance(name, str) or name not in SPECS:
        return {}  # it is refused later, with the other values
    return {"input": {"resize": ENCODERS[SPECS[name].encoder].resize}}


def _as_published(config: RunConfig) -> RunConfig:
    """The configuration with whole images instead of a choice, if images enter as published.

    Images enter as published if a setting that presets have, other than the frame's size, differs
    from the base's.
    """
    encoder = ENCODERS[spec_of(config.base.name).encoder]
    plain = InputSettings(resize=encoder.resize)
    keys = {key for name in PRESETS for key in PRESETS[name].settings} - {"size"}
    changed = any(getattr(config.input, key) != getattr(plain, key) for key in keys)
    return replace(config, input=config.input.until_chosen()) if changed else config


def _of_the_data_set(tree: Tree) -> Tree:
    """The settings that the data set itself implies; every other source overrides them."""
    data = tree.get("data")
    return {"data": defaults_of(data)} if isinstance(data, Mapping) else {}


def _validated(tree: Tree) -> RunConfig:
    for part, default in DEFAULTS.items():
        value = tree.get(part, {})
        if not isinstance(value, Mapping):
            raise InputError(f"{part}={value}: give a name, as in {part}.name={default}")
        tree = {**tree, part: {"name": default, **value}}
    return validated(RunConfig, "", in_lists(tree))


def _choice(registry: Registry[Any], part: Tree) -> Tree:
    """A registered name with all of its options, checked and with defaults filled in."""
    options = {key: value for key, value in part.items() if key != "name"}
    config = registry.config(part["name"], options)
    return {"name": part["name"], **plain_values(dataclasses.asdict(config))}
