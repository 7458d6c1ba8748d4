"""Images for one model: what it is trained or measured on, and the check that they are its own.

How images enter a model is stated in one place, the model: its frame, its way of resizing, its
bands and their range. A data set takes all of it from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from os import PathLike
from typing import Any

from torch.utils.data import DataLoader, Dataset

from samtune.data import SegmentationDataset
from samtune.data.changes import training_frame
from samtune.data.config import DataConfig, PromptConfig
from samtune.data.from_python import split_from
from samtune.data.intensity import reading
from samtune.data.opening import DataSplits
from samtune.data.scan import empty_split, no_objects, summary_of, usable
from samtune.data.split import Split
from samtune.errors import InputError, checks_keywords
from samtune.geometry import InputPolicy
from samtune.model.checks import check_model
from samtune.model.finetuned import FineTuned
from samtune.options import Settings, speaks_python
from samtune.options.arguments import check_switch, check_whole
from samtune.prompts import AUTOMATIC, PromptModes, listed_modes

Images = Split | SegmentationDataset | Sequence[Any] | Dataset[Any]
"""A split, what :func:`prepare` made of one, or samples as :func:`samtune.data_from` takes them."""
PromptSettings = str | Sequence[str] | PromptConfig | None
"""Prompt modes, as ``"box,point"`` or a list; or all that can be set about prompts."""
OF_THE_MODEL = frozenset({"mean", "std"})
"""Fields of an input policy that act in the model, after the images have left the data set."""


@speaks_python()
@checks_keywords(
    PromptConfig,
    DataConfig,
    InputPolicy,
    elsewhere={"device": "images stay on the CPU; batches are moved, as in batch.to(model.device)"},
)
def prepare(
    split: Split | Sequence[Any] | Dataset[Any],
    model: FineTuned,
    train: bool = False,
    *,
    prompts: PromptSettings = None,
    seed: int = 0,
) -> SegmentationDataset:
    """The images of a split as a model takes them: in its frame, with prompts and targets.

    Frame, resizing, bands, intensity and the size of mask prompts are those of the model. A torch
    data set comes out, which :func:`samtune.fit` and :func:`samtune.evaluate` take, and whose
    examples :func:`samtune.data.collate` joins into the batches of an own loop.

    Args:
        split: A split, as ``samtune.open_data("polyps").train``; or samples that
            :func:`samtune.data_from` could read without further settings.
        model: The model that will be trained or measured.
        train: Whether it is to be trained: then images are augmented, objects are drawn, and the
            prompts are those that the model is trained for.
        prompts: How the objects are asked for: in an evaluation a mode or several to draw from, by
            default the model's own; with a :class:`samtune.PromptConfig` also jitter, points and
            numbers of objects.
        seed: Start of all random choices.

    Raises:
        InputError: The split is empty, its settings say another way of reading images than the
            model's, or a training asks in other prompts than the model says.
    """
    check_model(model)
    check_switch("train", train)
    check_whole("seed", seed, 0)
    split = _with_settings(split)
    if not isinstance(split, Split):
        split = split_from(split)
    if not split:
        raise empty_split(split.name, split.config)
    policy = model.tuned_input if train else model.input
    data = as_model_reads(split.config, model)
    dataset = SegmentationDataset(
        split.records,
        data,
        policy.size,
        resize=policy.resize,
        input=policy,
        prompts=_prompts(prompts, model, train),
        mask_size=model.mask_size_of(training_frame(data, policy.size) if train else policy.size),
        train=train,
        seed=seed,
    )
    return dataset.with_dense_targets(model.decoder.dense_targets if train else ())


def training_images(
    model: FineTuned, train: Images | DataSplits, val: Images | None, seed: int = 0
) -> tuple[SegmentationDataset, SegmentationDataset | None]:
    """The prepared images for :func:`samtune.fit`, from everything that it takes.

    Splits are looked at, file by file, before they are prepared; what is prepared is checked.

    Args:
        model: The model that will be trained.
        train: Training images, or a whole data set.
        val: Validation images; of a whole data set its own split by default.
        seed: Start of all random choices, for splits.

    Raises:
        InputError: Files that cannot be used, or images that are prepared for something else.
    """
    if isinstance(train, DataSplits):
        val = train.val if val is None else val
        train = train.train
    return (
        _images(model, train, True, seed),
        None if val is None else _images(model, val, False, seed),
    )


def test_images(
    model: FineTuned, images: Images, prompts: PromptSettings = None, seed: int = 0
) -> dict[str, SegmentationDataset]:
    """The prepared images for :func:`samtune.evaluate`, by prompt mode.

    Prepared images that are asked for in several modes at once stay together, under their names.

    Args:
        model: The model that will be measured.
        images: A split, or prepared images.
        prompts: The modes, one after another; by default the model's, or those of the images.
        seed: Start of all random choices, for splits.

    Raises:
        InputError: As :func:`training_images`.
    """
    images = _with_settings(images)
    dataset = _images(model, images, False, seed, prompts)
    if prompts is None and not isinstance(images, Split):
        return {",".join(dataset.modes): dataset}
    modes = dataset.prompts.evaluated_modes
    if isinstance(images, SegmentationDataset) and prompts is not None:
        assert not isinstance(prompts, PromptConfig)
        modes = PromptConfig(eval=_names_in(prompts)).evaluated_modes
    return {mode: dataset if mode in AUTOMATIC else dataset.with_prompts(mode) for mode in modes}


def _images(
    model: FineTuned, images: Images, train: bool, seed: int, prompts: PromptSettings = None
) -> SegmentationDataset:
    """Images for one purpose, from a split or as they were prepared."""
    images = _with_settings(images)
    if isinstance(images, Split):
        dataset = prepare(images, model, train, prompts=prompts, seed=seed)
        look = summary_of(usable(images.records, dataset.data))
        if train and not look.objects:
            raise no_objects(look.images, dataset.data)
        return dataset
    if isinstance(images, DataLoader):
        raise InputError("DataLoader: batches are made here; give its data set, loader.dataset")
    if isinstance(images, Settings):
        name = type(images).__name__
        raise InputError(f"{name}: stands in the place of the images; give them before, as in fit("
                         f"model, data, {name}(...))")  # fmt: skip
    if not isinstance(images, SegmentationDataset):
        raise InputError(
            f"{type(images).__name__}: is no images that a model can be "
            f"{'trained' if train else 'measured'} on; give a split of samtune.open_data(...), "
            "samples as samtune.data_from takes them, or what samtune.prepare makes of either"
        )
    check_prepared(images, model, train)
    if prompts is None:
        return images
    if isinstance(prompts, PromptConfig):
        raise InputError("prompts=PromptConfig(...): of prepared images it is set in prepare")
    modes = [mode for mode in _names_in(prompts) if mode not in AUTOMATIC]
    return images.with_prompts(*modes) if modes else images


def _names_in(prompts: str | Sequence[str]) -> list[str]:
    """The names that Python code gives: a list, or with commas or ``+`` between."""
    joined = isinstance(prompts, str) and "+" in prompts
    names = list(listed_modes(str(prompts).split("+") if joined else prompts))
    if prompted := [name for name in names if name not in AUTOMATIC]:
        PromptModes.of(prompted, "prompts", AUTOMATIC)
    return names


def _with_settings(images: Images) -> Images:
    """Samples of Python code as a split; all else as it is."""
    if isinstance(images, DataSplits):
        raise InputError("one split is needed: give data.test, data.val or data.train")
    if isinstance(images, PathLike):
        images = str(images)  # is refused as such a text is
    raw = not isinstance(images, Split | SegmentationDataset) and hasattr(images, "__getitem__")
    return split_from(images) if raw else images


def as_model_reads(data: DataConfig, model: FineTuned) -> DataConfig:
    """The settings of a data set with the model's bands and their range.

    Args:
        data: The settings; if they say nothing, the model decides.
        model: States how images are read.

    Raises:
        InputError: They say another way than the model.
    """
    stated, silent = reading(data), reading(DataConfig())
    policy = model.tuned_input
    for key in ("bands", "intensity", "limits"):
        if stated[key] not in (silent[key], getattr(policy, key)):
            raise InputError(
                f"{key}={_plain(stated[key])}: the model reads images with {key}="
                f"{_plain(getattr(policy, key))}; make it with FineTuned(..., input="
                f"{{{key!r}: {_plain(stated[key])!r}}}), or open the data without it"
            )
    limits = "window" if policy.intensity == "window" else "range"
    own: dict[str, Any] = {"bands": policy.bands, "intensity": policy.intensity}
    own[limits] = policy.limits
    return replace(data, **own)


def _prompts(prompts: PromptSettings, model: FineTuned, train: bool) -> PromptConfig:
    """All settings of the prompts, with the modes of the model if none are named.

    Raises:
        InputError: An unknown mode, or a training in others than the model's.
    """
    settings = prompts if isinstance(prompts, PromptConfig) else PromptConfig()
    if prompts is not None and not isinstance(prompts, PromptConfig):
        modes = list(PromptModes.read(prompts).as_written) if train else _names_in(prompts)
        settings = PromptConfig(train=modes) if train else PromptConfig(eval=modes)
    if settings.train == PromptConfig.train:
        settings = replace(settings, train=list(model.prompt_modes.as_written))
    if train:
        check_trained_prompts(settings.modes(train=True), model)
    return settings


def check_trained_prompts(modes: PromptModes, model: FineTuned) -> None:
    """Refuses a training in other prompts than those that its checkpoint will name.

    Raises:
        InputError: With both.
    """
    if set(modes.names) != set(model.prompt_modes.names):
        raise InputError(
            f"prompts={','.join(modes)}: the model is made for {','.join(model.prompt_modes)}, and "
            f"its checkpoint says so; make it with FineTuned(..., prompts={'+'.join(modes)!r})"
        )


def check_prepared(dataset: SegmentationDataset, model: FineTuned, train: bool) -> None:
    """Refuses images that were prepared for another model, or for the other purpose.

    Args:
        dataset: The images on which a model is to be trained or measured.
        model: The model.
        train: Whether it is to be trained.

    Raises:
        InputError: What differs, in one line.
    """
    what, call = ("training", "samtune.prepare(split, model, train=True)") if train else (
        "validation and test", "samtune.prepare(split, model)"
    )  # fmt: skip
    if dataset.train != train:
        raise InputError(
            f"{what} images that are made with train={dataset.train}: "
            + ("they would not be augmented" if train else "they change at random")
            + f"; make them with {call}"
        )
    policies = (model.tuned_input,) if train else (model.input, model.tuned_input)
    differences = [_differences(dataset, model, policy) for policy in policies]
    if all(differences):
        raise InputError(
            f"{what} images that are made for another model: {differences[0]}; make them with "
            f"{call}"
        )
    if train:
        check_trained_prompts(dataset.modes, model)


def _differences(dataset: SegmentationDataset, model: FineTuned, policy: InputPolicy) -> str:
    """How a data set brings in images otherwise than a policy, in words; empty if it does not."""
    names = [row.name for row in fields(InputPolicy) if row.name not in OF_THE_MODEL]
    pairs = {name: (getattr(dataset.input, name), getattr(policy, name)) for name in names}
    frame = dataset.frame if dataset.train else policy.size
    pairs["mask_size"] = (dataset.mask_size, model.mask_size_of(frame))
    return " and ".join(
        f"{name}={_plain(its)}, where the model has {_plain(own)}"
        for name, (its, own) in pairs.items()
        if its != own
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
