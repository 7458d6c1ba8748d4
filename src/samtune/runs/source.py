"""The model that a command line names: a checkpoint file, or a base by its name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from samtune.data import DataConfig, InputConfig, intensity
from samtune.data.layouts import SplitRecords
from samtune.errors import InputError
from samtune.files import as_path
from samtune.losses import Loss
from samtune.model.checkpoint import load
from samtune.model.finetuned import PLAIN, FineTuned
from samtune.model.header import BUNDLE, check_modules, checkpoint_file, read_header
from samtune.model.on_hub import is_on_hub
from samtune.model.packages import check_packages, lacking_packages
from samtune.model.strength import setting_text
from samtune.options import changeable
from samtune.options.former import under_current_names
from samtune.prompts import PromptModes
from samtune.runs.assembly import device_of, models
from samtune.runs.class_maps import settings_of_maps
from samtune.runs.config import RunConfig, resolve
from samtune.runs.data_of_run import SPLIT, Parts, parts_of_run, parts_to_train_on
from samtune.runs.dense_maps import needs_objects
from samtune.runs.folder import CONFIG
from samtune.runs.places import OUTSIDE, with_places
from samtune.runs.trees import WHOLE, lay_over, leaves
from samtune.runs.values import Tree, nested
from samtune.runs.words import layers, read_run
from samtune.sam.spec import SPECS
from samtune.training.criterion import Criterion
from samtune.training.schedule import FitConfig

OF_THE_RUN = ("output", "resume", "resume_changed", "device", "strength", "trust")
"""Settings about where a training ran or how it is used, which later steps do not repeat."""


@dataclass(frozen=True)
class Source:
    """A checkpoint, or a base alone."""

    word: str
    """The path of a ``.safetensors`` file, or the name of a base."""

    @staticmethod
    def of(word: str, words: Sequence[str] = ()) -> Source:
        """The model that a word names; it may also be a run's folder with a checkpoint.

        Args:
            word: A path, a base's name, or a repository as ``hf:owner/name``.
            words: Settings; with ``base.download=true`` a repository may be fetched.

        Raises:
            InputError: A repository that is not in the local cache, and may not be fetched.
        """
        may_fetch = is_on_hub(word) and any(
            leaves(tree).get("base.download") is True for tree in layers(words)
        )
        file = checkpoint_file(word, may_fetch)
        return Source(str(file) if file != as_path(word) else word)

    @staticmethod
    def is_named_by(word: str) -> bool:
        """Whether a word of the command line names a model, rather than a setting or data."""
        if "=" in word:
            return False
        known = word.endswith(".safetensors") or word in SPECS
        return known or checkpoint_file(word) != as_path(word)

    def __str__(self) -> str:
        return self.word

    @property
    def is_base(self) -> bool:
        """Whether the word is a base's name and not a file."""
        return self.word in SPECS and not Path(self.word).exists()

    @property
    def base_name(self) -> str:
        """The name of the base."""
        return self.word if self.is_base else read_header(self.word)["base"]["name"]

    @property
    def prompt_modes(self) -> PromptModes | None:
        """The prompts of the model's training; ``None`` for a base."""
        return None if self.is_base else PromptModes.parse(read_header(self.word)["prompts"])

    def settings(self) -> Tree:
        """The settings of the checkpoint's training, or those of the base alone."""
        if self.is_base:
            parts = {part: {"name": PLAIN[part]} for part in PLAIN}
            return {**WHOLE, "base": {"name": self.word}, **parts}
        header = read_header(self.word)
        check_modules(header, self.word)
        check_packages(header, self.word)
        if "config" in header:
            config = with_places(header["config"], as_path(self.word))
            of_run = {k: value for k, value in config.items() if k not in OF_THE_RUN}
            whole = lay_over(WHOLE, _without_what_is_gone(of_run))
            return lay_over(whole, self._base_within(header))
        # saved from Python: the header describes the model, but not its training
        parts = {key: header[key] for key in ("adapter", "decoder")}
        known = {f.name for f in fields(InputConfig)}
        of_model = {key: v for key, v in header["input"].items() if key in known}
        parts["input"] = {**WHOLE["input"], **of_model}
        parts["data"] = intensity.settings_of(header["input"])
        prompts = {"eval": list(PromptModes.parse(header["prompts"]).as_written)}
        alone: Tree = {"base": {"name": header["base"]["name"]}, "prompts": prompts, **parts}
        alone = lay_over(alone, settings_of_maps(header["decoder"]))
        if names := header.get("classes"):
            alone = lay_over(alone, {"data": {"class_names": names}})
        return lay_over(alone, self._base_within(header))

    def _base_within(self, header: Tree) -> Tree:
        """The setting that names a bundle as the place of its own base."""
        return {"base": {"weights": self.word}} if BUNDLE in header else {}

    def training_data(self) -> Tree:
        """The data settings of the training; empty for a base, or for a model saved from Python."""
        header = {} if self.is_base else read_header(self.word)
        return with_places(header.get("config", {}), as_path(self.word)).get("data", {})

    def refuse_damaged_run(self, words: Sequence[str]) -> None:
        """Refuses damaged settings of the run beside the checkpoint if they must name its data.

        Args:
            words: The words of the command line, which may name the data.

        Raises:
            InputError: It names the damaged file.
        """
        folder = as_path(self.word).parent
        named = any(leaves(tree).get("data.root") is not None for tree in layers(words))
        if not (self.is_base or named) and os.path.lexists(folder / CONFIG):
            if leaves(read_header(self.word).get("config", {})).get("data.root") is None:
                read_run(folder)

    def run_beside(self, config: RunConfig) -> tuple[Path | None, list[str]]:
        """The folder of the checkpoint's run, if it was trained on the same data.

        Args:
            config: The configuration, for the data on which the checkpoint is used.

        Returns:
            The folder, and a remark if it lacks the file that would say whether it is one.

        Raises:
            InputError: The run's settings are damaged, so that its data are not known.
        """
        folder = as_path(self.word).parent
        missing = [file for file in (CONFIG, SPLIT) if not os.path.lexists(folder / file)]
        if self.is_base or len(missing) == 2:  # a checkpoint alone
            return None, []
        before = under_current_names(DataConfig, self.training_data())
        now = config.tree()["data"]
        of_use = ("root", "outside", "split", "workers", "cache")
        if any(before.get(k, value) != value for k, value in now.items() if k not in of_use):
            return None, []
        if missing:
            line = f"{folder / missing[0]}: is missing, so the splits are those of the data now"
            return None, [f"{line}, which need not be the run's"]
        read_run(folder)
        roots = [as_path(str(data.get("root"))).resolve() for data in (before, now)]
        return (folder if roots[0] == roots[1] else None), []

    def parts_to_measure(
        self, layout: SplitRecords, config: RunConfig, split: str
    ) -> tuple[Parts, list[str], Path | None]:
        """The splits of the checkpoint's run, and its folder; or the splits of the data.

        Args:
            layout: The files of the data set.
            config: The configuration.
            split: The one that is measured, or ``all``.

        Raises:
            InputError: See :meth:`run_beside`, or images of the run are missing.
        """
        run, remarks = self.run_beside(config)
        if run is None:
            parts, more = parts_to_train_on(config, layout)
            return parts, [*remarks, *more], None
        used = None if split == "all" else (split,)
        data = parts_of_run(run, layout, config.resume_changed, used)
        return data.parts, data.lines, run

    def configure(self, words: Sequence[str], measures: bool = True) -> RunConfig:
        """The model's settings, overridden by those of a command line.

        Args:
            words: The words of the command line.
            measures: Whether the model is measured on a data set, or only predicts.

        Raises:
            InputError: A setting contradicts the model, or code outside samtune is not available.
        """
        over = [_without_choice(tree) for tree in layers(words)]  # sets the trusted modules
        settings = self.settings()
        if not measures:
            settings = _without_measuring(settings)
        if any("data.root" in leaves(layer) for layer in over):
            settings = lay_over(settings, nested(OUTSIDE, False))
        try:
            config = resolve([settings, *over])
        except InputError as error:
            lacking = "" if self.is_base else lacking_packages(read_header(self.word))
            raise InputError(f"{error}; {lacking}" if lacking else str(error)) from error
        # Its data may no longer exist, and do not describe the model.
        alone = resolve([{**settings, "data": config.tree()["data"]}])
        before, after = leaves(alone.tree()), leaves(config.tree())
        fixed = ("base.name", "adapter.", "decoder.", *(() if self.is_base else ("input.",)))
        cuts = {f"input.{name}" for name in changeable(InputConfig)}
        keys = dict.fromkeys(key for layer in over for key in leaves(layer))
        for key in (key for key in keys if key.startswith(fixed) and key not in cuts):
            if _pair(after.get(key)) != _pair(before.get(key)):
                raise InputError(
                    f"{key}={after.get(key)}: {self.word} has {before.get(key)}, which cannot be "
                    "changed; leave it out"
                )
        return config

    def model(self, config: RunConfig) -> FineTuned:
        """The checkpoint's model, or the base alone, on its device and with the cuts of ``input``.

        Args:
            config: See :meth:`configure`.

        Raises:
            InputError: Weights are wrong, or data would be read differently than in training.
        """
        if self.is_base:
            if config.strength is not None:
                raise InputError(
                    f"strength={setting_text(config.strength)}: {self.word} is a base without a "
                    "training; leave it out, or give a checkpoint"
                )
            return models(config)[1]
        base, device = config.base, device_of(config)
        strength = config.strength
        model = load(
            self.word,
            base.weights,
            any_base=base.any,
            device=device,
            strength=strength,
            download=base.download,
        )
        intensity.check_same(config.data, model.tuned_input)
        policy = model.tuned_input.cut_as(config.input)
        model.tuned_input = replace(policy, slice_axis=config.data.slice_axis)
        return model


def _without_what_is_gone(settings: Tree) -> Tree:
    """Settings without a loss and metric of the training that are no longer available.

    They came from another package, and are only needed in training.
    """
    train = settings.get("train")
    if not isinstance(train, dict):
        return settings
    training = dict(train)
    for name, parse in (("loss", Loss.parse), ("metric", Criterion.parse)):
        try:
            parse(str(train.get(name, getattr(FitConfig, name))))
        except InputError:
            del training[name]
    return {**settings, "train": training}


def _without_measuring(settings: Tree) -> Tree:
    """Settings without those that only an evaluation needs: metrics, and the layout of files."""
    data = settings.get("data", {})
    of_images = {key: value for key, value in data.items() if key != "layout"}
    if needs_objects(settings.get("decoder", {})):
        # No mask is read, and a model that was saved in Python does not say how its were.
        of_images = {**of_images, "masks": "instance", "objects": "auto"}
    rest = {key: value for key, value in settings.items() if key != "eval"}
    return {**rest, "data": of_images}


def _without_choice(tree: Tree) -> Tree:
    """Settings with ``input.tiles=auto`` removed, because it was resolved before the training."""
    if not isinstance(part := tree.get("input"), dict) or part.get("tiles") != "auto":
        return tree
    return {**tree, "input": {key: value for key, value in part.items() if key != "tiles"}}


def _pair(value: Any) -> Any:
    """Converts one number for both sides to a pair."""
    return [value, value] if isinstance(value, int) and not isinstance(value, bool) else value
