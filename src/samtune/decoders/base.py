"""What a decoder is: how masks are read out of an image embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from samtune.batch import Masks
from samtune.prompts import Prompts
from samtune.registry import Registry
from samtune.sam.model import Sam
from samtune.sam.spec import SamSpec

COPY_RATE = 3e-4
"""The learning rate at which a trained copy of SAM's decoder gains without harm, measured in
``benchmarks/results/defaults.md``."""


@dataclass(frozen=True)
class Features:
    """What the encoder gives a decoder for ``B`` images."""

    embedding: Tensor
    """``(B, C, H, W)``."""
    frame: tuple[int, int]
    """``(h, w)`` of the model's input in pixels."""
    taps: dict[int, Tensor]
    """Streams ``(B, H, W, C)`` after the blocks that the decoder asked for."""
    state: Any = None
    """The adapter's state, for decoders made for it."""


class Decoder(nn.Module):
    """Reads masks out of :class:`Features`.

    Constructed as ``(sam, config)``; all its parameters are trained.
    """

    name: ClassVar[str] = "unregistered"
    """Set by the registry."""
    paper: ClassVar[str] = ""
    """Authors, year and arXiv number or venue."""
    sits: ClassVar[str] = ""
    """What it is, in a few words."""
    untrained: ClassVar[tuple[str, ...]] = ()
    """Modules that get no gradient under the default loss and prompts."""
    forms: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Its other forms, published or of another structure: options by a short name. A
    subclass declares its own."""
    adapters: ClassVar[tuple[str, ...] | None] = None
    """The adapters whose state it reads; ``None`` for all."""
    changes_at_start: ClassVar[str] = ""
    """Why a fresh one answers otherwise than SAM's own decoder, in a clause; empty if it does
    not."""
    learning_rate: ClassVar[float | None] = COPY_RATE
    """The learning rate that it bears, for ``train.lr=auto``; ``None`` if nothing is trained."""
    prompted: ClassVar[bool] = True
    """Whether its answer depends on the prompt."""
    classes: int | None = None
    """How many classes its masks stand for, one mask per class; ``None`` if it gives single
    masks."""

    @dataclass(frozen=True)
    class Config:
        """No options."""

    @classmethod
    def check(cls, spec: SamSpec) -> None:
        """Refuses bases that it cannot read, before their weights are.

        Raises:
            InputError: Such a base, with the reason.
        """

    @classmethod
    def for_classes(cls, count: int) -> Mapping[str, Any] | None:
        """Options with which it answers with a map of ``count`` classes; ``None`` if it has none.

        One that can has an option ``classes``.
        """
        return None

    @classmethod
    def class_count(cls, options: Mapping[str, Any]) -> int | None:
        """The attribute ``classes`` under some options; what they leave out is the default."""
        return None

    @property
    def tokens(self) -> Tensor | None:
        """Tokens ``(t, C)`` that an adapter may read (a prompt bridge)."""
        return None

    @property
    def taps(self) -> tuple[int, ...]:
        """Indices of the blocks whose output it wants."""
        return ()

    def sam_tensors(self) -> dict[str, Tensor]:
        """The base's tensors that it has other values of, by name: with them plain SAM is it.

        Raises:
            NotImplementedError: It is not SAM's own mask decoder.
        """
        raise NotImplementedError("is not SAM's own mask decoder")

    def forward(
        self, sam: Sam, features: Features, prompts: Prompts, multimask: bool = False
    ) -> Masks:
        """Masks of ``N`` prompts, whose coordinates are in the pixels of ``features.frame``."""
        raise NotImplementedError(f"{self.name} does not define forward")


DECODERS: Registry[Decoder] = Registry("decoder", contract=Decoder)
"""All decoders by name."""
