r"""The strength of a training: 0 is the base, 1 is the whole training, with values in between.

.. math:: w(a) = w_0 + a\,(w_1 - w_0), \quad 0 < a < 1

for every trained tensor :math:`w_1` whose start :math:`w_0` is known: zeros, ones, and copies or
functions of the base's tensors. Tensors that start at random keep their trained values. LoRA's
update is therefore scaled by :math:`a`, and a tuned decoder is interpolated between SAM's and
itself (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903). At 0 the base itself answers, at 1 the
trained model.

Only a model that starts as the base has values in between: see :func:`no_middle`. A model that
answers with classes cannot be reduced to the base: see :func:`no_base`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from samtune.adapters import ADAPTERS, Adapter
from samtune.decoders import DECODERS, Decoder
from samtune.errors import InputError
from samtune.geometry import InputPolicy, multiples
from samtune.registry import Registry
from samtune.sam.model import Sam

if TYPE_CHECKING:
    from samtune.model.finetuned import FineTuned

PLAIN = {"adapter": "none", "decoder": "frozen"}
"""The names of the parts that leave the base as it is."""
Part = TypeVar("Part", Adapter, Decoder)


class Parts(NamedTuple):
    """An adapter and a decoder that act together."""

    adapter: Adapter
    decoder: Decoder


def build(
    registry: Registry[Part], sam: Sam, name: str, options: Mapping[str, Any]
) -> tuple[Part, dict[str, Any]]:
    """A new adapter or decoder by its name, and the options with which it can be built again.

    Args:
        registry: The registry of adapters or of decoders.
        sam: The base.
        name: One of the registry's.
        options: The options that differ from the defaults.

    Raises:
        InputError: A name or option is unknown.
    """
    config, cls = registry.config(name, dict(options)), registry[name]
    kept = cls.stored_options(asdict(config))
    return cls(sam, config), kept  # type: ignore[call-arg,arg-type]


def check_strength(value: float) -> None:
    """Refuses an invalid strength.

    Raises:
        InputError: It is not a number from 0 to 1.
    """
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"strength={value}: must be a fraction of the training, from 0 to 1")


def check_demanded(model: FineTuned, strength: float) -> None:
    """Refuses a requested strength that the model does not support.

    Raises:
        InputError: See :attr:`FineTuned.strength`; or it is 0 and the base cannot answer.
    """
    before = model.strength
    model.strength = strength
    model.strength = before
    if strength == 0 and (reason := no_base(model)):
        raise InputError(f"strength=0: {reason}; set 1, or nothing")


def plain_input(sam: Sam, policy: InputPolicy) -> InputPolicy:
    """The input policy of the base alone on a model's images: normalised as in its own training.

    Its frame is the model's, or the next larger one that is a multiple of its encoder's stride.
    """
    size = multiples(policy.size, sam.image_encoder.stride)
    return replace(policy, size=size, mean=None, std=None)


def no_middle(model: FineTuned) -> str:
    """The reason, as a clause, why a model has no strength between 0 and 1; empty if it has.

    Such a model would not answer like the base at a small strength, or its start is unknown.
    """
    adapter, decoder = model.adapter, model.decoder
    for kind in ("adapter", "decoder"):
        if getattr(model, f"{kind}_options") is None:
            return f"the {kind} was given as a module, whose start is unknown"
    if not adapter.identity_at_init:
        return f"{adapter.name} does not start as the base: {adapter.changes_at_start}"
    if decoder.changes_at_start:
        return f"the decoder {decoder.name} does not start as SAM's: {decoder.changes_at_start}"
    if decoder.dense_targets:  # what is trained to read one embedding does not read another
        return f"{decoder.name} predicts {decoder.dense_targets[0]}, which the base does not know"
    if model.tuned_input != plain_input(model.sam, model.tuned_input):
        return "images are normalised differently than for the base"
    return ""


def no_base(model: FineTuned) -> str:
    """The reason, as a clause, why the base cannot answer in a model's place; empty if it can.

    The base has an answer of the same kind (single masks) even without a prompt, and whatever the
    start of an adapter or a decoder. It has no answer for classes.
    """
    if model.decoder.classes is None:
        return ""
    return f"the base knows no classes, and {model.decoder.name} predicts maps of them"


def starts(model: FineTuned) -> dict[str, Tensor]:
    """The initial values, by name, of the trained tensors that do not depend on the seed."""
    before = torch.get_rng_state()
    try:
        first, second = (_fresh_tensors(model, seed) for seed in (0, 1))
    finally:
        torch.set_rng_state(before)
    return {name: start for name, start in first.items() if torch.equal(start, second[name])}


def weakened(model: FineTuned, strength: float) -> Parts:
    """Copies of a model's adapter and decoder, interpolated from their start.

    Args:
        model: A model that starts as its base, see :func:`no_middle`.
        strength: A value above 0 and below 1.
    """
    parts = {name: copy.deepcopy(getattr(model, name)).eval() for name in Parts._fields}
    first = starts(model)
    with torch.no_grad():
        for kind, part in parts.items():
            for name, tensor in part.state_dict().items():
                start = first.get(f"{kind}.{name}")
                if start is not None and tensor.is_floating_point():
                    start = start.to(tensor.device)
                    tensor.copy_(start + strength * (tensor - start))
    return Parts(**parts)


def base_parts(sam: Sam) -> Parts:
    """The parts that leave the base as it is."""
    adapter, _ = build(ADAPTERS, sam, PLAIN["adapter"], {})
    decoder, _ = build(DECODERS, sam, PLAIN["decoder"], {})
    return Parts(adapter.eval(), decoder.eval())


def _fresh_tensors(model: FineTuned, seed: int) -> dict[str, Tensor]:
    torch.default_generator.manual_seed(seed)  # modules are made on the CPU
    adapter, _ = build(ADAPTERS, model.sam, model.names["adapter"], model.adapter_options or {})
    decoder, _ = build(DECODERS, model.sam, model.names["decoder"], model.decoder_options or {})
    parts = Parts(adapter, decoder)._asdict()
    tensors = ((kind, part.state_dict()) for kind, part in parts.items())
    return {f"{kind}.{name}": t for kind, state in tensors for name, t in state.items()}
