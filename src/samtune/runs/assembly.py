"""Builds models and data sets from a configuration."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from samtune.adapters import ADAPTERS
from samtune.data import SegmentationDataset, intensity
from samtune.data.changes import training_frame
from samtune.data.split import Split
from samtune.errors import InputError
from samtune.evaluation.prepare import prepare
from samtune.geometry import RESIZES, InputPolicy, check_divided
from samtune.model.finetuned import FineTuned
from samtune.precision import device_named, fastest_device
from samtune.prompts import PromptModes
from samtune.runs.config import RunConfig
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.weights import load_sam, spec_of


def models(config: RunConfig, to_train: bool = False) -> tuple[FineTuned, FineTuned]:
    """The model to tune and the plain base, over one shared frozen base.

    Args:
        config: The configuration.
        to_train: Whether to refuse a model without trainable parts.

    Raises:
        InputError: See :func:`tuned` and :func:`check_trainable`, before any weights are read; or
            the weights are wrong.
    """
    base = config.base
    device = device_of(config)
    if config.train.precision == "fp16" and device == "cpu":
        raise InputError("train.precision=fp16: needs a GPU; choose bf16 or fp32")
    with shapes_alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a file in an option is read without its values
        sketch = tuned(config, Sam(spec_of(base.name)).freeze())
    if to_train:
        check_trainable(config, sketch)
    torch.manual_seed(config.seed)
    sam = load_sam(base.name, base.weights, download=base.download, device=device)
    model = tuned(config, sam)
    return model.to(sam.device), model.plain()


def check_trainable(config: RunConfig, model: FineTuned) -> None:
    """Refuses a model without trainable parameters.

    Raises:
        InputError: Nothing is trained; the message says what to set instead.
    """
    if not model.trainable():
        raise InputError(
            f"adapter.name={config.adapter['name']} decoder.name={config.decoder['name']}: nothing "
            "to train; set decoder.name=tuned or an adapter that trains (samtune methods)"
        )


def frame_remarks(model: FineTuned | None, baseline: FineTuned) -> list[str]:
    """A remark if the base sees images in another frame than the model."""
    if model is None or model.input.size == baseline.input.size:
        return []
    other, frame = ("x".join(map(str, one.input.size)) for one in (baseline, model))
    whose = f"{baseline.sam.spec.name}'s {_step_word(baseline.sam)}"
    return [f"zero-shot sees images in a frame of {other}: {whose} does not divide {frame}"]


def tuned(config: RunConfig, sam: Sam) -> FineTuned:
    """The model to tune, built over a given base.

    Raises:
        InputError: The method does not support an option, or the frame does not fit the base.
    """
    frame = _frame(config, sam)
    policy = InputPolicy.of_settings(config.input, frame, **intensity.reading(config.data))
    RESIZES[policy.resize].check_installed()  # once, rather than for each image
    options = {
        part: {key: value for key, value in tree.items() if key != "name"}
        for part, tree in (("adapter", config.adapter), ("decoder", config.decoder))
    }
    try:
        return FineTuned(
            sam,
            config.adapter["name"],
            config.decoder["name"],
            input=policy,
            adapter_options=options["adapter"],
            decoder_options=options["decoder"],
            prompts=str(config.prompts.modes(train=True)),
        )
    except InputError:
        raise
    except ValueError as error:  # a torch layer refuses an option's value
        words = " ".join(f"adapter.{key}={value}" for key, value in options["adapter"].items())
        raise InputError(
            f"{words}: {error}; see samtune methods {config.adapter['name']}"
        ) from error


def _frame(config: RunConfig, sam: Sam) -> tuple[int, int]:
    size, adapter = config.input.size, config.adapter["name"]
    step, whose = sam.image_encoder.stride, f"{_step_word(sam)} of {sam.spec.name}"
    if (stride := ADAPTERS[adapter].stride) is not None:
        step, whose = stride, f"stride of {adapter}"
    if size is None:
        frame = (sam.spec.image_size,) * 2
    else:
        frame = (size, size) if isinstance(size, int) else size
    check_divided(frame, step, f"input.size={size}", whose)
    crop = training_frame(config.data, frame)
    check_divided(crop, step, f"data.crop={list(crop)}", whose)
    if crop[0] > frame[0] or crop[1] > frame[1]:
        raise InputError(
            f"data.crop={list(crop)}: larger than the model's frame of {list(frame)}; choose a "
            "smaller one, or a larger input.size"
        )
    return frame


def _step_word(sam: Sam) -> str:
    """The step of which a frame's sides are multiples: the patch, or the stride of later tokens."""
    encoder = sam.image_encoder
    return "patch" if encoder.patch == encoder.stride else "stride"


def device_of(config: RunConfig) -> str:
    """The device to work on, by its torch name.

    Raises:
        InputError: The requested device does not exist.
    """
    if config.device != "auto":
        return str(device_named(config.device))
    return str(fastest_device())


def dataset_of(
    config: RunConfig,
    model: FineTuned,
    records: Sequence[Any],
    train: bool,
    mode: str | None = None,
) -> SegmentationDataset:
    """Images with prompts, in the frame of a model.

    Args:
        config: Data, prompts and seed.
        model: The model, for its frame and input policy.
        records: The files.
        train: Whether it is for training or for evaluation.
        mode: The prompts of evaluation; by default the first of ``prompts.eval``.
    """
    prompts = config.prompts
    if not train:
        prompts = replace(prompts, eval=mode or evaluation_modes(config).names[0])
    split = Split(tuple(records), config.data)
    return prepare(split, model, train, prompts=prompts, seed=config.seed)


def evaluation_modes(config: RunConfig) -> PromptModes:
    """The prompt modes of evaluation, one after another; ``mixed`` is the three it mixes."""
    return config.prompts.modes(train=False)
