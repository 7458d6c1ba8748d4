"""The learning rate that a method bears, for ``train.lr=auto``.

Each adapter and decoder may declare one (``learning_rate``). The smallest that a part of the model
declares holds for all of it, so that none is trained faster than it bears. Adapters declare none
unless they say so, a decoder the one at which a trained copy of SAM's does no harm, so a method
only departs from that with a decoder, or an adapter over SAM's frozen one, that declares its own.
"""

from __future__ import annotations

from typing import NamedTuple

from samtune.adapters import Adapter
from samtune.decoders import Decoder
from samtune.decoders.base import COPY_RATE


class Rate(NamedTuple):
    """A learning rate, and the name of the adapter or decoder that declares it."""

    value: float
    source: str = ""

    def __str__(self) -> str:
        """For a person."""
        return f"train.lr={self.value:g}: the default with {self.source}"

    @property
    def is_usual(self) -> bool:
        """Whether it is what most methods have."""
        return self.value == COPY_RATE


USUAL = Rate(COPY_RATE)
"""What holds if no part declares a rate."""


def rate_of(adapter: Adapter | type[Adapter], decoder: Decoder | type[Decoder]) -> Rate:
    """The smallest rate that an adapter, or one of a stack, or a decoder declares."""
    rates = [
        Rate(part.learning_rate, part.name)
        for part in (decoder, adapter)
        if part.learning_rate is not None
    ]
    return min(rates, key=lambda rate: rate.value, default=USUAL)
