"""The learning rate that a method tolerates, for ``train.lr=auto``.

Each adapter and decoder may declare one (``learning_rate``). The smallest rate that a part of the
model declares is used for the whole model, so that no part is trained faster than it tolerates. By
default an adapter declares none, and a decoder declares the rate at which a trained copy of SAM's
does no harm. A method therefore only deviates from that rate if its decoder, or its adapter over
SAM's frozen decoder, declares another. A decoder may declare a second rate for trainings in which
no prompt is given.
"""

from __future__ import annotations

from typing import NamedTuple

from samtune.adapters import Adapter
from samtune.decoders import Decoder
from samtune.decoders.base import COPY_RATE
from samtune.prompts import NONE, PromptModes


class Rate(NamedTuple):
    """A learning rate, and the name of the adapter or decoder that declares it."""

    value: float
    source: str = ""

    def __str__(self) -> str:
        """The rate in words."""
        return f"train.lr={self.value:g}: the default with {self.source}"

    @property
    def is_usual(self) -> bool:
        """Whether it is the rate of most methods."""
        return self.value == COPY_RATE


USUAL = Rate(COPY_RATE)
"""The rate if no part declares one."""


def rate_of(
    adapter: Adapter | type[Adapter],
    decoder: Decoder | type[Decoder],
    trained_modes: PromptModes | None = None,
) -> Rate:
    """The smallest rate that an adapter, or one of a stack, or a decoder declares.

    Args:
        adapter: The adapter.
        decoder: The decoder.
        trained_modes: The prompt modes of the training; ``None`` for some with prompts.
    """
    of_decoder = Rate(decoder.learning_rate, decoder.name) if decoder.learning_rate else None
    if decoder.unprompted_rate and trained_modes and set(trained_modes.kinds) == {NONE}:
        of_decoder = Rate(decoder.unprompted_rate, f"{decoder.name} without prompts")
    of_adapter = Rate(adapter.learning_rate, adapter.name) if adapter.learning_rate else None
    rates = [rate for rate in (of_decoder, of_adapter) if rate is not None]
    return min(rates, key=lambda rate: rate.value, default=USUAL)
