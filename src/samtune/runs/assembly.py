"""Models and data sets as a configuration describes them."""

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
from samtune.geometry import RESIZES, InputPolicy, multiples
from samtune.model.finetuned import FineTuned
from samtune.prompts import PromptModes
from samtune.runs.config import RunConfig
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.weights import load_sam, spec_of


def models(config: RunConfig, to_train: bool = False) -> tuple[FineTuned, FineTuned]:
    """The model to tune and the plain base beside it, over one and the same frozen base.

    Args:
        config: What they are made of.
        to_train: Refuse a model without anything to train.

    Raises:
        InputError: As :func:`tuned` and :func:`check_trainable`, before any weights are read; or
            wrong weights.
    """
    base = config.base
    device = device_of(config)
    if config.train.precision == "fp16" and device == "cpu":
        raise InputError("train.precision=fp16: needs a GPU; choose bf16 or fp32")
    with shapes_alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a file given as an option is read into nothing
        sketch = tuned(config, Sam(spec_of(base.name)).freeze())
    if to_train:
        check_trainable(config, sketch)
    torch.manual_seed(config.seed)
    sam = load_sam(base.name, base.weights, download=base.download, device=device)
    model = tuned(config, sam)
    return model.to(sam.device), model.plain()


def check_trainable(config: RunConfig, model: FineTuned) -> None:
    """Refuses a model of which nothing would be trained.

    Raises:
        InputError: With what to set instead.
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
    """The model to tune over a base that is there.

    Raises:
        InputError: An option that the method does not bear, or a frame that does not fit the base.
    """
    frame = _frame(config, sam)
    policy = InputPolicy.of_settings(config.input, frame, **intensity.reading(config.data))
    RESIZES[policy.resize].check_installed()  # once, and not at each image
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
    except ValueError as error:  # a layer of torch refuses an option's value
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
    _check_divided(frame, step, f"input.size={size}", whose)
    crop = training_frame(config.data, frame)
    _check_divided(crop, step, f"data.crop={list(crop)}", whose)
    if crop[0] > frame[0] or crop[1] > frame[1]:
        raise InputError(
            f"data.crop={list(crop)}: larger than the model's frame of {list(frame)}; choose a "
            "smaller one, or a larger input.size"
        )
    return frame


def _step_word(sam: Sam) -> str:
    """What a frame is made of whole multiples of: the patch, unless later tokens are wider."""
    encoder = sam.image_encoder
    return "patch" if encoder.patch == encoder.stride else "stride"


def _check_divided(frame: tuple[int, int], step: int, what: str, whose: str) -> None:
    if min(frame) <= 0 or multiples(frame, step) != frame:
        raise InputError(
            f"{what}: both sides must be positive multiples of {step}, the {whose}; try "
            f"{list(multiples(frame, step))}"
        )


def device_of(config: RunConfig) -> str:
    """The device to work on, by its name in torch.

    Raises:
        InputError: The one asked for is not there.
    """
    if config.device != "auto":
        return _named_device(config.device)
    if torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _named_device(name: str) -> str:
    try:
        torch.empty(1, device=name)
        if name.startswith("cuda:"):
            torch.cuda.set_device(name)  # where accelerate puts the model
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise InputError(f"device={name}: {reason}; choose cpu, cuda, mps or auto") from error
    return name


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
        model: Whose frame and input policy.
        records: The files.
        train: For training, or for evaluation.
        mode: Of evaluation, the prompts; by default the first of ``prompts.eval``.
    """
    prompts = config.prompts
    if not train:
        prompts = replace(prompts, eval=mode or evaluation_modes(config).names[0])
    split = Split(tuple(records), config.data)
    return prepare(split, model, train, prompts=prompts, seed=config.seed)


def evaluation_modes(config: RunConfig) -> PromptModes:
    """The prompt modes of evaluation, one after another; ``mixed`` is the three it mixes."""
    return config.prompts.modes(train=False)
