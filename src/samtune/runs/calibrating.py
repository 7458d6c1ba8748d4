"""Settings of automatic modes that are fitted, by a verb or at the end of a training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from samtune.data import SegmentationDataset, select
from samtune.data.layouts import find
from samtune.distributed import from_main, together
from samtune.errors import InputError
from samtune.evaluation.calibration import GRIDS, Calibration, calibrate, calibrate_watershed
from samtune.files import refuse_onto, refuse_to_replace
from samtune.inference.everything.config import EverythingConfig
from samtune.inference.everything.generator import check_points
from samtune.inference.everything.watershed import (
    WatershedConfig,
    check_generator,
    finds_by_watershed,
)
from samtune.model.checkpoint import add_to_header, write_checkpoint
from samtune.model.finetuned import FineTuned
from samtune.report.quantities import counted
from samtune.report.terminal import Display
from samtune.runs.assembly import dataset_of
from samtune.runs.automatic import changed_settings
from samtune.runs.config import RunConfig
from samtune.runs.data_of_run import altered, check_splits, data_name
from samtune.runs.screen_lines import of_answers
from samtune.runs.source import Source
from samtune.runs.values import Tree
from samtune.runs.words import chosen_keys

VERB = "calibrate"
WAYS: dict[str, tuple[type[EverythingConfig | WatershedConfig], str]] = {
    EverythingConfig.section: (EverythingConfig, "a grid of points"),
    WatershedConfig.section: (WatershedConfig, "a watershed"),
}
"""The settings of each way to find objects, and its name, by section."""
FIT, ANSWER = f"{EverythingConfig.section}.fit", f"{WatershedConfig.section}.answer"
SPLIT, METRIC = "val", "msa"
"""The split and the metric, unless words say others."""


def calibrate_checkpoint(source: str, words: Sequence[str], out: Path, display: Display) -> Tree:
    """Fits how a model finds objects, on images whose objects are known; writes a new checkpoint.

    Args:
        source: A checkpoint's path, or the folder of its run.
        words: ``key=value`` and YAML files, over the settings of the checkpoint; by default the
            validation images of its training are used. Settings of ``everything`` or ``watershed``
            among them are not fitted.
        out: The checkpoint to write.
        display: The output for the user.

    Returns:
        The entry of the checkpoint's header, and ``checkpoint``, the file.

    Raises:
        InputError: The checkpoint, settings or data are wrong, the model finds no objects by
            itself, or the file is one that is read or was not written by this verb.
    """
    origin = Source.of(source)
    if origin.is_base:
        raise InputError(
            f"{source}: is a base and no checkpoint, in which fitted thresholds could be kept; "
            "train it first, or give thresholds to samtune everything"
        )
    if out.suffix != ".safetensors":
        raise InputError(f"--out={out}: must end in .safetensors")
    refuse_onto(f"--out={out}", out, (origin.word,))
    refuse_to_replace(f"--out={out}", out, VERB)
    origin.refuse_damaged_run(words)
    config = origin.configure(words)
    chosen_names = chosen_keys(words)
    split = config.data.split if "data.split" in chosen_names else SPLIT
    with together(config.device == "cpu"):
        model = origin.model(config)
        way = _way(model, config, chosen_names)
        parts, remarks, run = origin.parts_to_measure(find(config.data), config, split)
        records = select(parts, split)
        look = check_splits({split: records}, config, thorough=run is not None)
        for line in [*remarks, *altered(run, parts, look.looks, config.resume_changed)]:
            display.say(f"note: {line}")
        dataset = dataset_of(config, model, records, False)
        place = {"data": data_name(config), "split": split}
        refuse_without_effect(way, chosen_names)
        fixed = fixed_settings(config, way, chosen_names)
        display.say(of_answers(model, config.train.precision, len(records), 1))
        entry = _fit(model, dataset, config, way, fixed, place, display)
        about = {k: v for k, v in (model.about or {}).items() if k != "summary"}
        write_checkpoint(model, out, VERB, **{**about, way: entry})
        display.result(f"{line_of(way, entry)}; {out}")
    return {**entry, "checkpoint": str(out)}


def refuse_without_effect(way: str, chosen_names: Collection[str]) -> None:
    """Refuses settings of the other way to find objects.

    Args:
        way: The section of the settings in force.
        chosen_names: The names of those that were chosen, as ``everything.points_per_side``.

    Raises:
        InputError: With the first of them.
    """
    other = next(section for section in WAYS if section != way)
    for name in sorted(chosen_names):
        if name.startswith(f"{other}.") and name not in (FIT, ANSWER):
            raise InputError(
                f"{name}: no effect, since the model finds objects by {WAYS[way][1]}; leave it out"
            )


def fixed_settings(config: RunConfig, way: str, chosen_names: Collection[str]) -> dict[str, Any]:
    """The settings of a generator that somebody chose, so that they are not fitted.

    Args:
        config: The settings.
        way: Their section.
        chosen_names: The names of those that were chosen, as ``everything.points_per_side``.
    """
    names = (name for name in WAYS[way][0].__dataclass_fields__ if f"{way}.{name}" in chosen_names)
    return {name: getattr(getattr(config, way), name) for name in names}


def _way(model: FineTuned, config: RunConfig, chosen_names: Collection[str] = ()) -> str:
    """The section of the settings by which a model finds objects.

    Raises:
        InputError: It cannot.
    """
    if finds_by_watershed(model, config.watershed.answer, ANSWER in chosen_names):
        check_generator(model, config.watershed)
        return WatershedConfig.section
    check_points(model)
    return EverythingConfig.section


def fit_after_training(
    model: FineTuned,
    dataset: SegmentationDataset,
    config: RunConfig,
    checkpoint: Path,
    display: Display,
) -> Tree | None:
    """Fits how a trained model finds objects, if ``everything.fit`` says so.

    The model and its checkpoint get the entry.

    Args:
        model: The model, with its best weights.
        dataset: The validation images.
        config: The settings.
        checkpoint: The file of the best weights.
        display: The output for the user.

    Returns:
        The entry of the header, under its name; ``None`` if nothing is fitted.
    """
    if config.everything.fit == "none":
        return None
    way = _way(model, config)
    changed = changed_settings(config)[way]
    place = {"data": data_name(config), "split": SPLIT}

    def fit_and_store() -> Tree:
        entry = _fit(model, dataset, config, way, changed, place, display)
        if checkpoint.is_file():
            add_to_header(checkpoint, **{way: entry})
        return entry

    entry = from_main(fit_and_store)
    model.about = {**(model.about or {}), way: entry}
    display.say(line_of(way, entry))
    return {way: entry}


def check_fit(config: RunConfig, model: FineTuned, images: int) -> None:
    """Refuses before a training what :func:`fit_after_training` could not do after it.

    Args:
        config: The settings.
        model: The model that will be trained.
        images: Number of validation images.

    Raises:
        InputError: The model finds no objects by itself, or there are no validation images.
    """
    if config.everything.fit == "none":
        return
    _way(model, config)
    if not images:
        raise InputError(
            f"everything.fit={config.everything.fit}: there are no validation images to fit "
            "thresholds on; give a split val, or set everything.fit=none"
        )


def line_of(way: str, entry: Mapping[str, Any]) -> str:
    """A fit in one line.

    Args:
        way: The section of its settings.
        entry: The entry of the header.
    """
    values = ", ".join(
        f"{name} {value}" if isinstance(value, str) else f"{name} {value:g}"
        for name, value in entry["settings"].items()
        if value is not None
    )
    usual = "SAM's thresholds" if way == EverythingConfig.section else "the usual settings"
    images, objects = counted(entry["images"], "image"), counted(entry["objects"], "object")
    return (
        f"{way}: {entry['metric']} {entry['value']:.3f} ({entry['default']:.3f} with {usual}) on "
        f"{images} with {objects}: {values}"
    )


def _fit(
    model: FineTuned,
    dataset: SegmentationDataset,
    config: RunConfig,
    way: str,
    fixed: dict[str, Any],
    place: Mapping[str, str],
    display: Display,
) -> Tree:
    metric = METRIC if config.everything.fit == "none" else config.everything.fit
    fit: Callable[..., Calibration] = calibrate_watershed
    if way == EverythingConfig.section:
        side = fixed.pop("points_per_side", None)
        fit = partial(calibrate, grids=GRIDS if side is None else (side,))
    result = fit(
        model,
        dataset,
        metric,
        precision=config.train.precision,
        progress=lambda done, total: display.progress(VERB, done, total),
        **fixed,
    )
    return result.entry(**place)
