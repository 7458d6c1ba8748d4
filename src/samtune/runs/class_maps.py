"""Maps of classes: the settings of data, prompts, decoder and loss that must fit together.

A map gives each pixel one class. It is the target if mask values are classes and the prompt is
``none``; it needs a decoder that predicts classes and a loss over classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samtune.data.config import DataConfig, PromptConfig, targets_are_maps
from samtune.decoders import DECODERS
from samtune.errors import InputError
from samtune.losses import DEFAULT_LOSS, Loss
from samtune.prompts import NONE
from samtune.registry import settings

CLASS_LOSS = "ce + multi_dice"
"""The default loss over maps of classes."""


def has_class_maps(data: DataConfig, prompts: PromptConfig) -> bool:
    """Whether the targets are maps of classes."""
    return targets_are_maps(data, _all_modes(prompts))


def class_defaults(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of decoder and loss that follow from the data set's classes.

    Args:
        tree: A configuration as plain values, including the settings that its data set implies.
    """
    data, decoder = (
        part if isinstance(part := tree.get(key), Mapping) else {} for key in ("data", "decoder")
    )
    name, count = decoder.get("name", ""), data.get("classes")
    if not _can_answer(name) or data.get("masks") != "classes" or not count:
        return {}
    below: dict[str, Any] = {"decoder": {"name": name, "classes": count}}
    if DECODERS[name].class_count({**decoder, "classes": count}) is not None:
        below["train"] = {"loss": CLASS_LOSS}
    return below


def settings_of_maps(decoder: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of data and prompts that a decoder implies if it answers with a map of classes.

    Args:
        decoder: Its name and options, as a checkpoint has them.
    """
    name = decoder["name"]
    count = DECODERS[name].class_count(decoder) if name in DECODERS else None
    if count is None:
        return {}
    return {"data": {"masks": "classes", "classes": count}, "prompts": {"train": [NONE]}}


def check_classes(
    data: DataConfig, prompts: PromptConfig, decoder: Mapping[str, Any], loss: str
) -> None:
    """Refuses a mixture of settings for maps of classes and for single masks.

    Raises:
        InputError: A setting conflicts with the others; the message names the first.
    """
    mapped, modes = has_class_maps(data, prompts), _all_modes(prompts)
    of_maps = Loss.parse(loss).of_classes
    if data.masks == "classes" and not data.classes and (of_maps or _can_answer(decoder["name"])):
        raise InputError(
            "data.masks=classes: the number of classes is unknown; set data.classes=K, for "
            "mask values 0 to K - 1"
        )
    answers = DECODERS[decoder["name"]].class_count(decoder)
    if mapped and answers is None:
        fitting = next(name for name in DECODERS if _can_answer(name))
        options = DECODERS[fitting].for_classes(data.classes or 0) or {}
        raise InputError(
            f"prompts=none: one mask cannot answer for {data.classes} classes; set "
            f"{settings('decoder', {'name': fitting, **options})}, or other prompts"
        )
    if answers is not None and not (mapped and data.classes == answers and modes == {NONE}):
        raise InputError(
            f"decoder.classes={answers}: answers with a map of {answers} classes; set data.masks="
            f"classes data.classes={answers} prompts.train=none prompts.eval=none"
        )
    if of_maps != mapped:
        fits = CLASS_LOSS if mapped else DEFAULT_LOSS
        kind = "maps of classes" if mapped else "single masks"
        raise InputError(f"train.loss={loss}: not for {kind}; set train.loss='{fits}'")


def _can_answer(decoder: Any) -> bool:
    """Whether a decoder of that name exists and can predict maps of classes."""
    return decoder in DECODERS and DECODERS[decoder].for_classes(2) is not None


def _all_modes(prompts: PromptConfig) -> set[str]:
    """The prompt modes of training and evaluation."""
    return {*prompts.modes(train=True), *prompts.modes(train=False)}
