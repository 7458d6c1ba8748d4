"""Decoders of dense maps: the settings that follow from them, and those that must fit them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samtune.data.config import DataConfig, PromptConfig
from samtune.decoders import DECODERS
from samtune.errors import InputError
from samtune.losses import Loss, LossAt
from samtune.losses.dense import check_dense


def decoder_defaults(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings that follow from the decoder and its options; all others override them.

    Args:
        tree: A configuration as plain values.
    """
    decoder = tree.get("decoder")
    name = decoder.get("name") if isinstance(decoder, Mapping) else None
    if not isinstance(decoder, Mapping) or not isinstance(name, str) or name not in DECODERS:
        return {}
    options = {key: value for key, value in decoder.items() if key != "name"}
    implied = DECODERS[name].implied(options)
    # options of an adapter without its name are those of the usual one
    return {key: value for key, value in implied.items() if key != "adapter" or not tree.get(key)}


def needs_objects(decoder: Mapping[str, Any]) -> bool:
    """Whether a decoder, by name and options, is trained on maps of single objects."""
    options = {key: value for key, value in decoder.items() if key != "name"}
    return "name" in decoder and bool(DECODERS[decoder["name"]].dense_targets_of(options))


def check_dense_maps(
    data: DataConfig, prompts: PromptConfig, decoder: Mapping[str, Any], loss: str, at: LossAt
) -> None:
    """Refuses settings that do not go with a decoder's dense maps, and data without objects.

    Args:
        data: The settings of the data.
        prompts: The settings of the prompts.
        decoder: The decoder's name, with all of its options.
        loss: ``train.loss``.
        at: ``train.loss_at``.

    Raises:
        InputError: With the setting to change.
    """
    kind, options = DECODERS[decoder["name"]], {k: v for k, v in decoder.items() if k != "name"}
    targets, prompted = kind.dense_targets_of(options), kind.takes_prompts(options)
    check_dense(Loss.parse(loss, at), targets, prompted, prompts.modes(train=True))
    if targets and data.masks != "instance" and data.objects != "component":
        raise InputError(
            f"data.masks={data.masks}: {targets[0]} need single objects, and all of the foreground "
            "is one; set data.masks=instance, or data.objects=component for connected parts"
        )
