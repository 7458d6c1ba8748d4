"""Automatic modes: the instances that a model finds without prompts, beside those of the base.

The base always answers as SAM's automatic mask generation with its published thresholds, also
beside instances by a watershed: that is what one has without tuning. If thresholds were fitted for
the base too, it answers once more with these: the rest of a gain is the training's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import NamedTuple

import numpy as np

from samtune.data import SegmentationDataset
from samtune.data.labels import Sample
from samtune.data.shapes import large_enough
from samtune.distributed import place
from samtune.errors import InputError
from samtune.evaluation.automatic import evaluate_automatic, generator_of, inability
from samtune.evaluation.result import Evaluation
from samtune.inference.everything.config import OF_BASE, EverythingConfig, fitted_settings
from samtune.inference.everything.instances import InstanceGenerator, Instances
from samtune.inference.everything.nothing import remedy_if_nothing
from samtune.inference.everything.watershed import WatershedConfig
from samtune.model.finetuned import FineTuned
from samtune.prompts import AUTOMATIC, EVERYTHING
from samtune.report.instance_table import FITTED_BASE
from samtune.report.overlays import Overlay
from samtune.report.quantities import counted
from samtune.report.terminal import Display
from samtune.runs.config import RunConfig
from samtune.runs.values import Tree
from samtune.training.criterion import Criterion

PICTURES = 6
"""Number of images in the report for an automatic mode."""
MEANING = (
    "Automatic modes (everything, instances): iou and dice are of each target with the mask that "
    "matches it, one to one, the closest pair first; a target without a mask scores 0. Zero-shot "
    "is the base with the thresholds of SAM's own generator; zero-shot, fitted is the base with "
    "thresholds fitted on the images on which those of the tuned model were.\n"
)
"""The contract of what automatic modes add."""


@dataclass
class Finding:
    """An evaluation of an automatic mode, and what was found on some of the images."""

    evaluation: Evaluation
    settings: Tree
    """The thresholds in force."""
    remedy: str
    """The advice if there is no object; empty if there are any."""
    pictured: dict[int, tuple[Sample, Instances]] = field(default_factory=dict)
    """Some images with their instances, by index."""


class ModeResult(NamedTuple):
    """The measurements of an automatic mode."""

    zero_shot: Evaluation
    """The base with SAM's thresholds."""
    fitted: Evaluation | None
    """The base with thresholds that were fitted for it, if there are any."""
    tuned: Evaluation | None
    entry: Tree
    """Further entries of ``by_prompt``."""
    pictures: list[Overlay]


class Automatic:
    """The automatic modes of one evaluation; what the base finds is measured once for all of them.

    Args:
        baseline: The base.
        model: The tuned model; ``None`` if the base is measured alone.
        config: The settings.
        display: The output for progress.
        chosen_names: Names of the settings that words of this command set.
    """

    def __init__(
        self,
        baseline: FineTuned,
        model: FineTuned | None,
        config: RunConfig,
        display: Display,
        chosen_names: Collection[str] = (),
    ) -> None:
        self.baseline, self.model, self.config, self.display = baseline, model, config, display
        self.chosen_names = chosen_names
        self._zero_shot: Finding | None = None
        self._fitted: Finding | None = None

    def measure(self, mode: str, dataset: SegmentationDataset) -> ModeResult:
        """Zero-shot and tuned of a mode, what ``by_prompt`` says besides, and pictures."""
        if self._zero_shot is None:
            self._zero_shot = self._finding(
                self.baseline, EVERYTHING, dataset, "zero-shot, everything"
            )
            self._fitted = self._fitted_base(dataset)
        before, fitted = self._zero_shot, self._fitted
        after = None
        if self.model is not None:
            # A model that was not worth it (strength 0) answers as the base does.
            able = inability(self.model, mode) is None
            after = self._finding(self.model, mode, dataset, f"tuned, {mode}") if able else before
        sides = {"zero_shot": before, FITTED_BASE: fitted, "tuned": after}
        entry: Tree = {
            "automatic": True,
            "ground_truth": False,
            "seconds_per_image": {
                side: 1 / (each.evaluation.images_per_second or 1)
                for side, each in sides.items()
                if each is not None
            },
            "settings": {side: each.settings for side, each in sides.items() if each is not None},
        }
        if after and after.remedy:
            entry["hint"] = f"{mode}: {after.remedy}"
        shown = fitted or before  # SAM's own thresholds often leave nothing to see
        pictures = [
            _picture(dataset, sample, first, after.pictured[index][1] if after else None)
            for index, (sample, first) in sorted(shown.pictured.items())
        ]
        of_fitted, of_tuned = (e.evaluation if e else None for e in (fitted, after))
        return ModeResult(before.evaluation, of_fitted, of_tuned, entry, pictures)

    def _fitted_base(self, dataset: SegmentationDataset) -> Finding | None:
        """The base with thresholds of its own, if they were fitted with the model's."""
        entries = ((self.model and self.model.about) or {}).values()
        of_base = [
            each[OF_BASE] for each in entries if isinstance(each, Mapping) and OF_BASE in each
        ]
        if not of_base:
            return None
        settings = {EVERYTHING: fitted_settings({EVERYTHING: of_base[0]})}
        what = "zero-shot, fitted thresholds"
        return self._finding(self.baseline, EVERYTHING, dataset, what, settings)

    def _finding(
        self,
        model: FineTuned,
        mode: str,
        dataset: SegmentationDataset,
        what: str,
        fitted: Mapping[str, Tree] | None = None,
    ) -> Finding:
        changes = changes_for(model, self.config, self.chosen_names)
        changes = {name: {**(fitted or {}).get(name, {}), **each} for name, each in changes.items()}
        generator = generator_of(model, mode, self.config.train.precision, changes)
        rank, world = place()
        mine = range(rank, len(dataset), world)
        step = max(1, -(-len(mine) // PICTURES))
        shown = set(mine[::step]) if rank == 0 else set()
        pictured: dict[int, tuple[Sample, Instances]] = {}

        def watch(index: int, sample: Sample, instances: Instances) -> None:
            if index in shown:
                pictured[index] = sample, instances

        evaluation = evaluate_automatic(
            model,
            dataset,
            generator,
            progress=lambda done, total: self.display.progress(what, done, total),
            measuring=self.config.eval,
            watch=watch,
        )
        nothing = not any(row["masks"] for row in evaluation.items)
        remedy = remedy_if_nothing(generator) if nothing else ""
        return Finding(evaluation, _settings_of(generator), remedy, pictured)


def changed_settings(config: RunConfig, chosen_names: Collection[str] = ()) -> dict[str, Tree]:
    """The settings of automatic modes that somebody chose, or that differ from the usual ones.

    Args:
        config: The settings; ``everything.fixed`` names those that were chosen for a training.
        chosen_names: Names of others that were chosen, as ``everything.points_per_side``.

    Returns:
        By section and name.
    """
    changes: dict[str, Tree] = {}
    for usual in (EverythingConfig(), WatershedConfig()):
        settings, section = getattr(config, usual.section), usual.section
        names = [each.name for each in fields(usual)]  # those of a run also say what to fit
        changes[section] = {
            name: value
            for name in names
            if (value := getattr(settings, name)) != getattr(usual, name)
            or f"{section}.{name}" in {*chosen_names, *config.everything.fixed}
        }
    return changes


def changes_for(
    model: FineTuned, config: RunConfig, chosen_names: Collection[str] = ()
) -> dict[str, Tree]:
    """The same for a model: what was fitted for it gives way to chosen settings alone.

    A fit knows the settings of the training that were changed, and has them in its entry.

    Args:
        model: The model.
        config: See :func:`changed_settings`.
        chosen_names: See there.
    """
    changes, about = changed_settings(config, chosen_names), model.about or {}
    return {
        section: {
            name: value
            for name, value in values.items()
            if f"{section}.{name}" in chosen_names or not fitted_settings(about, section)
        }
        for section, values in changes.items()
    }


def _settings_of(generator: InstanceGenerator) -> Tree:
    """The settings of a generator, as far as it has any."""
    settings = getattr(generator, "config", None)
    if is_dataclass(settings) and not isinstance(settings, type):
        return {key: value for key, value in asdict(settings).items() if value is not None}
    return {}


def _picture(
    dataset: SegmentationDataset, sample: Sample, before: Instances, after: Instances | None
) -> Overlay:
    labels = sample.labels
    objects = int(large_enough(labels.map, len(labels), dataset.data).sum())
    captions = {"truth": counted(objects, "object"), "before": counted(len(before), "mask")}
    if after is not None:
        captions["after"] = counted(len(after), "mask")
    return Overlay(
        name=sample.name,
        image=sample.image,
        truth=labels.map.astype(np.int32),
        before=before.label_map(),
        after=None if after is None else after.label_map(),
        captions=captions,
    )


def check_modes(model: FineTuned, modes: Sequence[str], setting: str = "prompts.eval") -> None:
    """Refuses automatic modes that a model cannot do.

    Args:
        model: The model.
        modes: Modes of evaluation, with and without prompts.
        setting: The setting that names them.

    Raises:
        InputError: With what to do.
    """
    for mode in modes:
        if mode in AUTOMATIC and (reason := inability(model, mode)):
            raise InputError(f"{setting}={mode}: {reason}")


def with_able_modes(model: FineTuned, config: RunConfig) -> tuple[RunConfig, list[str]]:
    """The settings without the automatic modes that a model cannot do, and sentences about these.

    Args:
        model: The model.
        config: The settings; they stay as they are if the model can do no mode at all.
    """
    modes = config.prompts.evaluated_modes
    reasons = {mode: reason for mode in modes if (reason := inability(model, mode))}
    able = [mode for mode in modes if mode not in reasons]
    if not reasons or not able:
        return config, []
    prompts = replace(config.prompts, eval=able)
    left_out = [f"{mode} is left out: {reason}" for mode, reason in reasons.items()]
    return replace(config, prompts=prompts), left_out


def one_target_remark(config: RunConfig) -> list[str]:
    """A remark if each image has one target, its whole foreground, beside which parts are wrong."""
    data = config.data
    modes = (*config.prompts.evaluated_modes, *Criterion.parse(config.train.metric).modes)
    automatic = [mode for mode in dict.fromkeys(modes) if mode in AUTOMATIC]
    one = data.objects == "mask" or (data.objects == "auto" and data.masks != "instance")
    if not automatic or not one:
        return []
    return [
        f"{' and '.join(automatic)}: the target is the whole foreground of an image as one object; "
        "data.objects=component makes each connected part an object"
    ]
