"""Everything that a training needs, read and checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from samtune.data import SegmentationDataset
from samtune.data.layouts import SplitRecords, find
from samtune.data.shapes import Shapes
from samtune.data.shapes import measure as measure_objects
from samtune.model.finetuned import FineTuned
from samtune.prompts import AUTOMATIC
from samtune.runs.assembly import dataset_of, frame_remarks, models
from samtune.runs.automatic import check_modes, one_target_remark
from samtune.runs.calibrating import check_fit
from samtune.runs.config import RunConfig
from samtune.runs.data_of_run import altered, check_splits, parts_to_train_on
from samtune.runs.evidence import Examination
from samtune.runs.framing import choose_framing
from samtune.runs.selection import judged_by
from samtune.runs.values import Tree
from samtune.training.criterion import Criterion
from samtune.training.schedule import FitConfig

if TYPE_CHECKING:
    from samtune.data.record import Record
    from samtune.runs.data_of_run import Look


@dataclass(frozen=True)
class Plan:
    """Everything that a training needs, checked before its folder is created."""

    config: RunConfig
    differing: Tree
    """The settings that were set."""
    lines: list[str]
    """Lines for the user about the data and the frame."""
    remarks: list[str]
    parts: dict[str, list[Record]]
    looks: list[Look]
    """Looks at the images that are used."""
    layout: SplitRecords
    """All records, by split on disk."""
    model: FineTuned
    baseline: FineTuned
    settings: FitConfig
    """The settings of the training, with the metric of its validations."""
    train: SegmentationDataset
    val: SegmentationDataset
    test: dict[str, SegmentationDataset]
    """The test images by prompt mode."""
    examination: Examination


def plan_training(config: RunConfig) -> Plan:
    """Reads and checks the data, chooses the frame, and builds models and data sets.

    Args:
        config: The configuration as typed; ``input.tiles=auto`` is resolved.

    Raises:
        InputError: Data, settings or weights are wrong.
    """
    records = find(config.data)
    parts, remarks = parts_to_train_on(config, records)
    look = check_splits(parts, config, carved=not {"val", "test"} <= records.keys())
    differences = altered(config.resume, parts, look.looks, config.resume_changed)
    shapes = measure_objects(parts["train"], config.data)
    differing, (config, line) = config.differing(), with_framing(config, shapes)
    model, baseline = models(config, to_train=True)
    check_fit(config, model, len(parts["val"]))
    check_modes(model, Criterion.parse(config.train.metric).modes, "train.metric")
    settings, mode = judged_by(config)
    return Plan(
        config=config,
        differing=differing,
        lines=[look.counts, *line, *_rate_line(config)],
        remarks=[
            *remarks,
            *look.remarks,
            *one_target_remark(config),
            *differences,
            *frame_remarks(model, baseline),
        ],
        parts=parts,
        looks=look.looks,
        layout=records,
        model=model,
        baseline=baseline,
        settings=settings,
        train=dataset_of(config, model, parts["train"], True),
        val=dataset_of(config, model, parts["val"], False, mode),
        test=test_sets(config, model, parts["test"]),
        examination=Examination((baseline, model), parts, config, shapes),
    )


def _rate_line(config: RunConfig) -> list[str]:
    """A line about the learning rate if the method declares its own."""
    rate = config.usual_rate
    return [] if rate.is_usual or config.train.peak_lr != rate.value else [str(rate)]


def test_sets(
    config: RunConfig, model: FineTuned, records: Sequence[Record]
) -> dict[str, SegmentationDataset]:
    """The test images, by the prompt mode with which they are measured.

    Args:
        config: The configuration, for the modes.
        model: The model, for its frame.
        records: The files.

    Raises:
        InputError: The model cannot do an automatic mode.
    """
    modes = config.prompts.evaluated_modes
    check_modes(model, modes)
    return {
        mode: dataset_of(config, model, records, False, None if mode in AUTOMATIC else mode)
        for mode in modes
    }


def with_framing(config: RunConfig, shapes: Shapes) -> tuple[RunConfig, list[str]]:
    """A configuration whose frame is chosen, and a line about the choice if there was one.

    Args:
        config: The settings; ``input.tiles=auto`` is resolved.
        shapes: The objects of the training masks.
    """
    if config.input.tiles != "auto":
        return config, []
    framing = choose_framing([config], shapes)
    return framing.over(config), [str(framing)]
