"""Settings of automatic modes that are fitted, by a verb or at the end of a training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from samtune.data import SegmentationDataset, select
from samtune.data.layouts import find
from samtune.data.scan import Look
from samtune.distributed import from_main, together
from samtune.errors import InputError
from samtune.evaluation.calibration import (
    GRID_IMAGES,
    GRIDS,
    IMAGES,
    Calibration,
    calibrate,
    calibrate_watershed,
    rows_to_fit_on,
)
from samtune.files import refuse_onto, refuse_to_replace
from samtune.inference.everything.config import OF_BASE, EverythingConfig
from samtune.inference.everything.generator import check_points
from samtune.inference.everything.watershed import (
    WatershedConfig,
    check_generator,
    finds_by_watershed,
)
from samtune.model.checkpoint import add_to_header, write_checkpoint
from samtune.model.finetuned import FineTuned
from samtune.prompts import AUTOMATIC
from samtune.report.quantities import counted
from samtune.report.terminal import Display
from samtune.runs.assembly import dataset_of
from samtune.runs.automatic import changed_settings
from samtune.runs.config import RunConfig
from samtune.runs.data_of_run import altered, check_splits, data_name
from samtune.runs.places import without_places
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
FITTING = tuple(f"{EverythingConfig.section}.{name}" for name in ("fit", "fit_images", "fit_base"))
"""The settings of the fit itself."""
ANSWER = f"{WatershedConfig.section}.answer"
SPLIT, METRIC = "val", "msa"
"""The split and the metric, unless words say others."""


def calibrate_checkpoint(source: str, words: Sequence[str], out: Path, display: Display) -> Tree:
    """Fits how a model finds objects, on images whose objects are known; writes a new checkpoint.

    A base is written as a checkpoint without trained weights, which keeps what was fitted.

    Args:
        source: A checkpoint's path, the folder of its run, or the name of a base.
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
        look = check_splits({split: records}, config, thorough=True)
        for line in [*remarks, *altered(run, parts, look.looks, config.resume_changed)]:
            display.say(f"note: {line}")
        dataset = dataset_of(config, model, records, False)
        place = {"data": data_name(config), "split": split}
        refuse_without_effect(way, chosen_names, config.everything.fit_base)
        fixed = {each: fixed_settings(config, each, chosen_names) for each in WAYS}
        display.say(of_answers(model, config.train.precision, len(records), 1))
        fit = _Fit(model, dataset, config, way, fixed, display)
        entry = fit.entry(look.looks, place)
        about = {k: v for k, v in (model.about or {}).items() if k != "summary"}
        if origin.is_base:
            about["config"] = without_places(config.tree())
        write_checkpoint(model, out, VERB, **{**about, way: entry})
        display.result(f"{line_of(way, entry)}; {out}")
    return {**entry, "checkpoint": str(out)}


def refuse_without_effect(way: str, chosen_names: Collection[str], of_base: bool = False) -> None:
    """Refuses settings of the other way to find objects.

    Args:
        way: The section of the settings in force.
        chosen_names: The names of those that were chosen, as ``everything.points_per_side``.
        of_base: Whether the base is fitted too, which always has a grid of points.

    Raises:
        InputError: With the first of them.
    """
    other = next(section for section in WAYS if section != way)
    for name in sorted(chosen_names):
        if of_base and other == EverythingConfig.section:
            return
        if name.startswith(f"{other}.") and name not in (*FITTING, ANSWER):
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
    looks: Sequence[Look],
    checkpoint: Path,
    display: Display,
) -> Tree | None:
    """Fits how a trained model finds objects, if ``everything.fit`` says so.

    The model and its checkpoint get the entry.

    Args:
        model: The model, with its best weights.
        dataset: The validation images.
        config: The settings.
        looks: Thorough looks at the images.
        checkpoint: The file of the best weights.
        display: The output for the user.

    Returns:
        The entry of the header, under its name; ``None`` if nothing is fitted.
    """
    if config.everything.fit == "none":
        return None
    way = _way(model, config)
    fit = _Fit(model, dataset, config, way, changed_settings(config), display)
    place = {"data": data_name(config), "split": SPLIT}

    def fit_and_store() -> Tree:
        entry = fit.entry(looks, place)
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
    base = entry.get(OF_BASE)
    beside = f"; the base with fitted thresholds: {base['value']:.3f}" if base else ""
    return (
        f"{way}: {entry['metric']} {entry['value']:.3f} ({entry['default']:.3f} with {usual}) on "
        f"{images} with {objects}: {values}{beside}"
    )


class _Fit:
    """A fit of a model, and of its base, on the images of a data set.

    Args:
        model: The model.
        dataset: The images.
        config: The settings.
        way: The section of the settings by which the model finds objects.
        fixed: By section the settings that are not fitted.
        display: The output for the user.
    """

    def __init__(
        self,
        model: FineTuned,
        dataset: SegmentationDataset,
        config: RunConfig,
        way: str,
        fixed: Mapping[str, Tree],
        display: Display,
    ) -> None:
        self.model, self.dataset, self.config, self.way = model, dataset, config, way
        self.fixed, self.display = fixed, display

    def entry(self, looks: Sequence[Look], place: Mapping[str, str]) -> Tree:
        """The entry of a header: what was fitted, on which images, and the same of the base.

        Args:
            looks: Thorough looks at the images, for the digests of their pixels.
            place: Entries about the data set.
        """
        rows = rows_to_fit_on(len(self.dataset), self._most(self.way))
        if len(rows) < len(self.dataset):
            self.display.say(
                f"note: thresholds are fitted on {len(rows)} of {len(self.dataset)} images, evenly "
                f"spread; everything.fit_images={len(self.dataset)} takes all"
            )
        entry = self._result(self.model, self.way, self.dataset, VERB).entry(**place)
        contents = {look.record: look.content for look in looks}
        entry["contents"] = [contents.get(self.dataset.records[row], "") for row in rows]
        if self.config.everything.fit_base and self.model.trainable():
            base = self.model.plain()
            images = self.dataset.in_frame(base.input.size, base.mask_size)
            result = self._result(base, EverythingConfig.section, images, f"{VERB}, base").entry()
            entry[OF_BASE] = {
                key: result[key] for key in ("settings", "value", "default", "images")
            }
        return entry

    def _most(self, way: str) -> int:
        """Number of images on which is fitted, at most."""
        usual = GRID_IMAGES if way == EverythingConfig.section else IMAGES
        return self.config.everything.fit_images or usual

    def _result(
        self, model: FineTuned, way: str, dataset: SegmentationDataset, what: str
    ) -> Calibration:
        metric = self.config.everything.fit
        fit: Callable[..., Calibration] = calibrate_watershed
        fixed = dict(self.fixed[way])
        if way == EverythingConfig.section:
            side = fixed.pop("points_per_side", None)
            fit = partial(calibrate, grids=GRIDS if side is None else (side,))
        return fit(
            model,
            dataset,
            METRIC if metric == "none" else metric,
            images=self._most(way),
            precision=self.config.train.precision,
            progress=lambda done, total: self.display.progress(what, done, total),
            **fixed,
        )


def fitted_on(about: Mapping[str, Any]) -> set[str]:
    """The digests of the images on which a model's thresholds were fitted; empty if not known.

    Args:
        about: The entries of its header.
    """
    entries = (about.get(way) for way in WAYS)
    return {
        key for each in entries if isinstance(each, Mapping) for key in each.get("contents", ())
    }


def flattered(about: Mapping[str, Any], looks: Sequence[Look], modes: Collection[str]) -> list[str]:
    """A remark if thresholds were fitted on measured images.

    Args:
        about: The entries of the model's header.
        looks: Thorough looks at the measured images.
        modes: The modes in which it is measured.
    """
    fitted = fitted_on(about) if {*AUTOMATIC} & {*modes} else set()
    again = sum(look.content in fitted for look in looks)
    if not again:
        return []
    return [
        f"on {again} of the {len(looks)} images the thresholds of objects without prompts were "
        "fitted (samtune calibrate), so those numbers flatter; measure other images"
    ]
