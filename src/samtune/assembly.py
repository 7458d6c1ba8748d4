"""Models and data sets as a configuration describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from samtune.config import RunConfig
from samtune.data import SegmentationDataset, intensity
from samtune.data import modes as named_modes
from samtune.errors import InputError
from samtune.finetuned import FineTuned
from samtune.sam.model import Sam
from samtune.sam.weights import load_sam
from samtune.types import InputPolicy


def cut_as_asked(policy: InputPolicy, config: RunConfig) -> InputPolicy:
    """An input policy with the configuration's tiles or crops, which need no training."""
    asked = config.input
    return replace(
        policy, tiles=asked.tiles, overlap=asked.overlap, scale=asked.scale, margin=asked.margin
    )


def models(config: RunConfig) -> tuple[FineTuned, FineTuned]:
    """The model to tune and the plain base beside it, over one and the same frozen base."""
    base = config.base
    torch.manual_seed(config.seed)
    device = device_of(config)
    if config.train.precision == "fp16" and device == "cpu":
        raise InputError("train.precision=fp16: needs a GPU; choose bf16 or fp32")
    sam = load_sam(base.name, base.weights, download=base.download, device=device)
    model = tuned(config, sam)
    return model.to(sam.device), FineTuned(sam, input=model.input)


def tuned(config: RunConfig, sam: Sam) -> FineTuned:
    """The model to tune over a base that is there.

    Raises:
        InputError: An option that the method does not bear, or a frame that does not fit the base.
    """
    frame = _frame(config, sam)
    policy = InputPolicy(frame, config.input.resize, **intensity.reading(config.data))
    policy = cut_as_asked(policy, config)
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
            prompts=_joined(config.prompts.train),
        )
    except InputError:
        raise
    except ValueError as error:  # a layer of torch refuses an option's value
        words = " ".join(f"adapter.{key}={value}" for key, value in options["adapter"].items())
        raise InputError(
            f"{words}: {error}; see samtune methods {config.adapter['name']}"
        ) from error


def _frame(config: RunConfig, sam: Sam) -> tuple[int, int]:
    size = config.input.size
    if size is None:
        return (sam.spec.image_size,) * 2
    h, w = (size, size) if isinstance(size, int) else size
    patch = sam.spec.patch_size
    if h % patch or w % patch or h <= 0 or w <= 0:
        up = tuple(max(patch, -(-side // patch) * patch) for side in (h, w))
        raise InputError(
            f"input.size={size}: both sides must be positive multiples of {patch}, the patch of "
            f"{sam.spec.name}; try {list(up)}"
        )
    return h, w


def device_of(config: RunConfig) -> str:
    """The device to work on, by its name in torch.

    Raises:
        InputError: The one asked for is not there.
    """
    if config.device != "auto":
        return _asked_device(config.device)
    if torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _asked_device(name: str) -> str:
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
    stride = model.stride
    h, w = model.input.size
    return SegmentationDataset(
        records,
        config.data,
        model.input.size,
        resize=model.input.resize,
        input=model.input,
        prompts=config.prompts,
        mask_size=(4 * h // stride, 4 * w // stride),
        train=train,
        mode=mode if train or mode is not None else modes(config)[0],
        seed=config.seed,
    )


def modes(config: RunConfig) -> list[str]:
    """The prompt modes of evaluation, one after another; ``mixed`` is the three it mixes."""
    return list(named_modes(config.prompts.eval, "prompts.eval"))


def _joined(mode: str | Sequence[str]) -> str:
    return mode if isinstance(mode, str) else "+".join(mode)
