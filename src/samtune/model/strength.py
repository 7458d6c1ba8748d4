r"""How much of a training acts: nothing, which is the base, all of it, or a part in between.

.. math:: w(a) = w_0 + a\,(w_1 - w_0), \quad 0 < a < 1

for every trained tensor :math:`w_1` whose start :math:`w_0` is known: zeros, ones, and what was
copied or computed from the base. Tensors that start at random stay as they were trained. So LoRA's
update is scaled by :math:`a`, and a tuned decoder lies on the line from SAM's to itself (WiSE-FT,
Wortsman et al. 2022, arXiv:2109.01903). At 0 the base itself answers, at 1 what was trained.

Only a model that starts as the base has anything in between: see :func:`no_middle`. One that
answers with classes cannot be turned down to the base either: see :func:`no_base`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from samtune.adapters import ADAPTERS, Adapter
from samtune.decoders import DECODERS, Decoder
from samtune.errors import InputError
from samtune.geometry import InputPolicy, multiples
from samtune.sam.model import Sam

if TYPE_CHECKING:
    from samtune.model.finetuned import FineTuned

PLAIN = {"adapter": "none", "decoder": "frozen"}
"""The names of the parts that leave the base as it is."""


class Parts(NamedTuple):
    """An adapter and a decoder that act together."""

    adapter: Adapter
    decoder: Decoder


def build_adapter(
    sam: Sam, name: str, options: Mapping[str, Any]
) -> tuple[Adapter, dict[str, Any]]:
    """A fresh adapter by its name, and the options with which it can be made again.

    Raises:
        InputError: An unknown name or option.
    """
    config = ADAPTERS.config(name, dict(options))
    kept = ADAPTERS[name].stored_options(asdict(config))
    return ADAPTERS[name](sam, config), kept  # type: ignore[call-arg,arg-type]


def build_decoder(
    sam: Sam, name: str, options: Mapping[str, Any]
) -> tuple[Decoder, dict[str, Any]]:
    """A fresh decoder by its name, and the options with which it can be made again.

    Raises:
        InputError: An unknown name or option.
    """
    config = DECODERS.config(name, dict(options))
    kept = DECODERS[name].stored_options(asdict(config))
    return DECODERS[name](sam, config), kept  # type: ignore[call-arg,arg-type]


def check_strength(value: float) -> None:
    """Refuses what is no strength.

    Raises:
        InputError: Not a number from 0 to 1.
    """
    if not 0 <= value <= 1:
        raise InputError(f"strength={value}: a fraction of the training; choose 0 to 1")


def check_demanded(model: FineTuned, strength: float) -> None:
    """Refuses a strength that somebody demands of a model, and the model does not have.

    Raises:
        InputError: As setting :attr:`FineTuned.strength`; or 0 where the base cannot answer.
    """
    before = model.strength
    model.strength = strength
    model.strength = before
    if strength == 0 and (reason := no_base(model)):
        raise InputError(f"strength=0: {reason}; set 1, or nothing")


def plain_input(sam: Sam, policy: InputPolicy) -> InputPolicy:
    """How the base alone sees the images of a model: normalised as it was itself trained.

    Its frame is the model's, or the next larger one that the stride of its encoder divides.
    """
    size = multiples(policy.size, sam.image_encoder.stride)
    return replace(policy, size=size, mean=None, std=None)


def no_middle(model: FineTuned) -> str:
    """Why a model has no strength between 0 and 1, as a clause; empty if it has.

    With a small strength it would not answer as the base does, or nobody knows how it started.
    """
    adapter, decoder = model.adapter, model.decoder
    for kind in ("adapter", "decoder"):
        if getattr(model, f"{kind}_options") is None:
            return f"the {kind} was given as a module, of which the start is not known"
    if not adapter.identity_at_init:
        return f"{adapter.name} does not start as the base: {adapter.changes_at_start}"
    if decoder.changes_at_start:
        return f"the decoder {decoder.name} does not start as SAM's: {decoder.changes_at_start}"
    if model.tuned_input != plain_input(model.sam, model.tuned_input):
        return "images are normalised in another way than for the base"
    return ""


def no_base(model: FineTuned) -> str:
    """Why the base cannot answer in a model's place, as a clause; empty if it can.

    Without a prompt, or whatever the start of an adapter or a decoder, the base has an answer of
    the same kind: single masks. Of classes it knows nothing.
    """
    if model.decoder.classes is None:
        return ""
    return f"the base knows no classes, and {model.decoder.name} gives maps of them"


def starts(model: FineTuned) -> dict[str, Tensor]:
    """The trained tensors' start, of those that start alike whatever the seed; by their names."""
    before = torch.get_rng_state()
    try:
        first, second = (_fresh_tensors(model, seed) for seed in (0, 1))
    finally:
        torch.set_rng_state(before)
    return {name: start for name, start in first.items() if torch.equal(start, second[name])}


def weakened(model: FineTuned, strength: float) -> Parts:
    """Copies of a model's adapter and decoder, a part of the way from their start.

    Args:
        model: One that starts as its base, see :func:`no_middle`.
        strength: Above 0 and below 1.
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
    adapter, _ = build_adapter(sam, PLAIN["adapter"], {})
    decoder, _ = build_decoder(sam, PLAIN["decoder"], {})
    return Parts(adapter.eval(), decoder.eval())


def _fresh_tensors(model: FineTuned, seed: int) -> dict[str, Tensor]:
    torch.default_generator.manual_seed(seed)  # modules are made on the CPU
    adapter, _ = build_adapter(model.sam, model.names["adapter"], model.adapter_options or {})
    decoder, _ = build_decoder(model.sam, model.names["decoder"], model.decoder_options or {})
    parts = Parts(adapter, decoder)._asdict()
    tensors = ((kind, part.state_dict()) for kind, part in parts.items())
    return {f"{kind}.{name}": t for kind, state in tensors for name, t in state.items()}
