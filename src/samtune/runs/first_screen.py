"""The first screen of a run: one line per matter about how it understood its command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from samtune.data import SegmentationDataset
from samtune.data.layouts.base import layout_of
from samtune.distributed import place
from samtune.files import as_path
from samtune.model.finetuned import FineTuned
from samtune.precision import arithmetic
from samtune.report.quantities import counted, quantity
from samtune.report.setting_words import paragraph, words_of
from samtune.runs.config import RunConfig
from samtune.runs.folder import CONFIG
from samtune.runs.plan import Plan
from samtune.runs.screen_lines import COLUMN, line
from samtune.runs.trees import leaves
from samtune.runs.values import Tree
from samtune.training.order import batches_per_epoch
from samtune.training.schedule import FitConfig, total_steps

ELSEWHERE = ("data.root", "output", "resume", "resume_changed")
"""Settings that other lines show."""
NAMES = ("base.name", "adapter.name", "decoder.name")
"""Settings that a configuration states in any case; the defaults among them were not changed."""
MASKS = {
    "auto": "masks of 0 and 1, or 0 and 255",
    "binary": "masks of one foreground",
    "instance": "masks with one value per object",
    "classes": "masks with one value per class",
}
"""The meaning of the values of masks in words, by ``data.masks``."""
FEW = 6
"""Largest number of class names that are printed."""


def of_training(plan: Plan, folder: Path, more: Sequence[str] = ()) -> str:
    """The first screen of a training.

    Args:
        plan: The plan of the training that is about to begin.
        folder: The folder of the run.
        more: Further lines, after those on the device.
    """
    config, counts, frame = plan.config, plan.lines[0], plan.lines[1:]
    changed = changed_words(plan.differing)
    return "\n".join(
        (
            of_data(config, counts),
            line("base", f"{config.base.name}, frozen; {_frame(plan.model)}"),
            *(line("", each) for each in frame),
            line("method", _method(plan.model)),
            line("prompt", _prompts(config, plan.test)),
            line("training", _length(plan.settings, len(plan.train))),
            line("device", _device(plan.model, config)),
            *more,
            paragraph(changed or ["nothing"], " " * COLUMN, line("changed", "")),
            line("folder", f"{folder}; {CONFIG} in it has all settings"),
        )
    )


def of_evaluation(
    model: FineTuned,
    source: str,
    config: RunConfig,
    counts: str,
    test: Mapping[str, SegmentationDataset],
) -> str:
    """The first screen of an evaluation.

    Args:
        model: The checkpoint's, or the base alone.
        source: How the command line names it.
        config: The settings.
        counts: The contents of the data, a line for each split.
        test: The images by prompt mode.
    """
    prompts = f"measured with {', '.join(test)}"
    if model.trainable():
        prompts = f"trained with {model.prompts}, {prompts}"
    return "\n".join(
        (
            line("model", f"{source} on {model.sam.spec.name}"),
            *([line("method", _method(model))] if model.trainable() else []),
            of_data(config, counts),
            line("prompt", prompts),
            line("device", _device(model, config)),
        )
    )


def _device(model: FineTuned, config: RunConfig) -> str:
    """The device, and the arithmetic that the setting means there."""
    return f"{model.device}, {arithmetic(config.train.precision, model.device)}"


def of_data(config: RunConfig, counts: str) -> str:
    """The data in lines: where and how they lie, what masks mean, and each split.

    Args:
        config: The settings.
        counts: A line for each split.
    """
    data = config.data
    about = [str(data.root), MASKS[data.masks]]
    if data.images is None and data.mask_files is None:
        about[1:1] = [f"layout {layout_of(as_path(str(data.root)), data.layout).name}"]
    if data.masks == "classes" or len(data.class_names) > 1:
        about.append(_classes(data.classes or len(data.class_names), data.class_names))
    splits = (each.partition(": ") for each in counts.split("\n"))
    return "\n".join(
        [line("data", ", ".join(about)), *(line(f"  {name}", text) for name, _, text in splits)]
    )


def changed_words(differing: Tree) -> list[str]:
    """The settings that are not the defaults, as words of a command line."""
    plain = leaves(RunConfig().tree())
    kept = {
        key: value
        for key, value in leaves(differing).items()
        if key not in ELSEWHERE and not (key in NAMES and value == plain.get(key))
    }
    return [word for key, value in kept.items() for word in words_of(key, value)]


def _classes(number: int, names: Sequence[str]) -> str:
    listed = ", ".join(names[:FEW]) + (", ..." if len(names) > FEW else "")
    return counted(number, "class", "classes") + (f" ({listed})" if listed else "")


def _frame(model: FineTuned) -> str:
    height, width = model.input.size
    return f"frame of {height} x {width} pixels"


def _method(model: FineTuned) -> str:
    part = model.trainable()
    whole = part + sum(parameter.numel() for parameter in model.sam.parameters())
    return (
        f"{model.adapter.name}, decoder {model.decoder.name}; {quantity(part)} of "
        f"{quantity(whole)} parameters are trained"
    )


def _prompts(config: RunConfig, test: Mapping[str, SegmentationDataset]) -> str:
    also = ", and what the training must keep" if config.prompts.eval == "auto" else ""
    return f"trained with {config.prompts.modes(train=True)}; measured with {', '.join(test)}{also}"


def _length(settings: FitConfig, images: int) -> str:
    processes = place()[1]
    share, last = settings.epoch_fraction, settings.last_batch
    batches = batches_per_epoch(images, settings.whole_batch, processes, share, last)
    steps, step = total_steps(settings, batches), counted(images_per_step(settings), "image")
    epochs = steps * settings.accumulate / batches
    noun = "epoch" if f"{epochs:.3g}" == "1" else "epochs"
    length = f"{counted(steps, 'step')} of {step} ({epochs:.3g} {noun})"
    if settings.time is not None:
        bound = f", at most {length}" if settings.is_bounded else f", in steps of {step}"
        length = f"{settings.time} in all{bound}"
    return f"{length}, lr {settings.lr:g}, loss {settings.loss}"


def images_per_step(settings: FitConfig) -> int:
    """How many images all processes together take for a step of the optimiser."""
    return settings.whole_batch * settings.accumulate * place()[1]
