"""Thresholds of masks of everything that are fitted, by a verb or at the end of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samtune.data import SegmentationDataset, select
from samtune.data.layouts import find
from samtune.distributed import from_main, together
from samtune.errors import InputError
from samtune.evaluation.calibration import GRIDS, Calibration, calibrate
from samtune.files import refuse_onto, refuse_to_replace
from samtune.inference.everything.config import HEADER, EverythingConfig
from samtune.inference.everything.generator import check_points
from samtune.model.checkpoint import add_to_header, save
from samtune.model.finetuned import FineTuned
from samtune.report.quantities import counted
from samtune.report.terminal import Display
from samtune.runs.assembly import dataset_of
from samtune.runs.config import RunConfig
from samtune.runs.data_of_run import altered, check_splits, data_name
from samtune.runs.source import Source
from samtune.runs.trees import leaves
from samtune.runs.values import Tree
from samtune.runs.words import layers

VERB = "calibrate"
SPLIT, METRIC = "val", "msa"
"""The split and the metric, unless words say others."""


def calibrate_checkpoint(source: str, words: Sequence[str], out: Path, display: Display) -> Tree:
    """Fits grid and thresholds on images whose objects are known, and writes a new checkpoint.

    Args:
        source: A checkpoint's path, or the folder of its run.
        words: ``key=value`` and YAML files, over the settings of the checkpoint; by default the
            validation images of its training are used. Settings of ``everything`` are not fitted.
        out: The checkpoint to write.
        display: The output for the user.

    Returns:
        The entry of the checkpoint's header, and ``checkpoint``, the file.

    Raises:
        InputError: The checkpoint, settings or data are wrong, the model cannot be asked with
            points, or the file is one that is read or was not written by this verb.
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
    chosen_names = {key for tree in layers(words) for key in leaves(tree)}
    split = config.data.split if "data.split" in chosen_names else SPLIT
    with together(config.device == "cpu"):
        model = origin.model(config)
        check_points(model)
        parts, remarks, run = origin.parts_to_measure(find(config.data), config, split)
        records = select(parts, split)
        look = check_splits({split: records}, config, thorough=run is not None)
        for line in [*remarks, *altered(run, look.looks, config.resume_changed)]:
            display.say(f"note: {line}")
        dataset = dataset_of(config, model, records, False)
        place = {"data": data_name(config), "split": split}
        entry = _fit(model, dataset, config, fixed_settings(config, chosen_names), place, display)
        about = {k: v for k, v in (model.about or {}).items() if k != "summary"}
        save(model, out, VERB, **{**about, HEADER: entry})
        display.result(f"{line_of(entry)}; {out}")
    return {**entry, "checkpoint": str(out)}


def fixed_settings(config: RunConfig, chosen_names: set[str]) -> dict[str, Any]:
    """The settings of the generator that somebody chose, so that they are not fitted.

    Args:
        config: The settings.
        chosen_names: The names of those that were chosen, as ``everything.points_per_side``.
    """
    group = f"{EverythingConfig.section}."
    names = (name for name in EverythingConfig.__dataclass_fields__ if group + name in chosen_names)
    return {name: getattr(config.everything, name) for name in names}


def fit_after_training(
    model: FineTuned,
    dataset: SegmentationDataset,
    config: RunConfig,
    checkpoint: Path,
    display: Display,
) -> Tree | None:
    """Fits grid and thresholds for a trained model, if ``everything.fit`` says so.

    The model and its checkpoint get the entry.

    Args:
        model: The model, with its best weights.
        dataset: The validation images.
        config: The settings.
        checkpoint: The file of the best weights.
        display: The output for the user.

    Returns:
        The entry of the header, if there is one.
    """
    if config.everything.fit == "none":
        return None
    plain = vars(EverythingConfig())
    changed = {k: v for k, v in vars(config.everything).items() if k in plain and v != plain[k]}
    place = {"data": data_name(config), "split": SPLIT}

    def fit_and_store() -> Tree:
        entry = _fit(model, dataset, config, changed, place, display)
        if checkpoint.is_file():
            add_to_header(checkpoint, **{HEADER: entry})
        return entry

    entry = from_main(fit_and_store)
    model.about = {**(model.about or {}), HEADER: entry}
    display.say(line_of(entry))
    return entry


def check_fit(config: RunConfig, model: FineTuned, images: int) -> None:
    """Refuses before a training what :func:`fit_after_training` could not do after it.

    Args:
        config: The settings.
        model: That will be trained.
        images: Number of validation images.

    Raises:
        InputError: The model cannot be asked with points, or there are no validation images.
    """
    if config.everything.fit == "none":
        return
    check_points(model)
    if not images:
        raise InputError(
            f"everything.fit={config.everything.fit}: there are no validation images to fit "
            "thresholds on; give a split val, or set everything.fit=none"
        )


def line_of(entry: Mapping[str, Any]) -> str:
    """A fit in one line."""
    values = ", ".join(f"{name} {value:g}" for name, value in entry["settings"].items())
    images, objects = counted(entry["images"], "image"), counted(entry["objects"], "object")
    return (
        f"everything: {entry['metric']} {entry['value']:.3f} ({entry['default']:.3f} with SAM's "
        f"thresholds) on {images} with {objects}: {values}"
    )


def _fit(
    model: FineTuned,
    dataset: SegmentationDataset,
    config: RunConfig,
    fixed: dict[str, Any],
    place: Mapping[str, str],
    display: Display,
) -> Tree:
    grids = (fixed.pop("points_per_side"),) if "points_per_side" in fixed else GRIDS
    metric = METRIC if config.everything.fit == "none" else config.everything.fit
    result: Calibration = calibrate(
        model,
        dataset,
        metric,
        grids=grids,
        precision=config.train.precision,
        progress=lambda done, total: display.progress(VERB, done, total),
        **fixed,
    )
    return result.entry(**place)
