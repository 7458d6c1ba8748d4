"""The interface of a decoder, which predicts masks from an image embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from samtune.batch import Candidates, Masks
from samtune.options import Settings
from samtune.prompts import Prompts
from samtune.registry import Registry
from samtune.sam.model import Sam
from samtune.sam.spec import SamSpec

COPY_RATE = 3e-4
"""The learning rate at which a trained copy of SAM's decoder gains without harm, measured in
``benchmarks/results/defaults.md``."""
UNPROMPTED_RATE = 1e-3
"""The rate for a training without prompts alone. There the base answers poorly and there is more to
learn, while prompts that are not trained are answered by the base (``train.strength=auto``);
measured there too."""


@dataclass(frozen=True)
class Features:
    """The encoder's output for ``B`` images, as a decoder receives it."""

    embedding: Tensor
    """``(B, C, H, W)``."""
    frame: tuple[int, int]
    """``(h, w)`` of the model's input in pixels."""
    taps: dict[int, Tensor]
    """Streams ``(B, H, W, C)`` after the blocks that the decoder requests."""
    state: Any = None
    """The adapter's state, for decoders that work with that adapter only."""
    pixels: Tensor | None = None
    """``(B, 3, h, w)`` normalised pixels of the frame, for decoders that read them."""


class Decoder(nn.Module):
    """Predicts masks from :class:`Features`.

    A subclass is constructed as ``(sam, config)``; all its parameters are trained.
    """

    name: ClassVar[str] = "unregistered"
    """Set by the registry."""
    paper: ClassVar[str] = ""
    """Authors, year and arXiv number or venue."""
    sits: ClassVar[str] = ""
    """A short description."""
    untrained: ClassVar[tuple[str, ...]] = ()
    """Modules that get no gradient under the default loss and prompts."""
    forms: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Other published or structurally different forms of the decoder: options under a short name. A
    subclass declares its own."""
    adapters: ClassVar[tuple[str, ...] | None] = None
    """The adapters whose state it can read; ``None`` for all."""
    changes_at_start: ClassVar[str] = ""
    """The reason, as a clause, why a fresh decoder answers differently from SAM's own; empty if it
    does not."""
    learning_rate: ClassVar[float | None] = COPY_RATE
    """The learning rate that it declares, for ``train.lr=auto``; ``None`` if nothing is trained."""
    unprompted_rate: ClassVar[float | None] = None
    """The rate for trainings without prompts alone, if it declares another one for these."""
    prompted: ClassVar[bool] = True
    """Whether its answer depends on the prompt."""
    initial: ClassVar[tuple[str, ...]] = ()
    """Options that only say where weights start: not kept in a checkpoint."""
    dense_targets: tuple[str, ...] = ()
    """The targets that it reads in training besides masks, by their names in
    :data:`samtune.data.dense_targets.DENSE_TARGETS`; it answers each in :meth:`dense`."""
    reads_pixels: bool = False
    """Whether it reads the image itself besides the embedding."""
    object_classes: int = 0
    """Number of classes of objects that a decoder of dense maps tells apart; 0 if it has none."""
    classes: int | None = None
    """Number of classes that its masks stand for, one mask per class; ``None`` if it predicts
    single masks."""

    @dataclass(frozen=True)
    class Config(Settings):
        """No options; a decoder's ``Config`` derives from it, and wrong values are refused."""

        section = "decoder"

    @classmethod
    def stored_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that a checkpoint keeps: all but those of where weights start."""
        return {key: value for key, value in options.items() if key not in cls.initial}

    @classmethod
    def check(cls, spec: SamSpec) -> None:
        """Refuses bases that it does not fit, before their weights are read.

        Raises:
            InputError: The base does not fit; the message gives the reason.
        """

    @classmethod
    def for_classes(cls, count: int) -> Mapping[str, Any] | None:
        """Options for a map of ``count`` classes; ``None`` if it cannot predict maps.

        A decoder that can has an option ``classes``.
        """
        return None

    @classmethod
    def class_count(cls, options: Mapping[str, Any]) -> int | None:
        """The attribute ``classes`` under some options; unset options have their defaults."""
        return None

    @classmethod
    def dense_targets_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The attribute ``dense_targets`` under some options; unset options have their defaults."""
        return ()

    @classmethod
    def implied(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings of a run that follow from some options, as a tree; others override them."""
        return {}

    @classmethod
    def takes_prompts(cls, options: Mapping[str, Any]) -> bool:
        """The attribute ``prompted`` under some options; unset options have their defaults."""
        return cls.prompted

    def dense(self, features: Features) -> dict[str, Tensor]:
        """Its answers by the names of ``dense_targets``: logits ``(B, C, ., .)`` over the frame."""
        return {}

    @property
    def tokens(self) -> Tensor | None:
        """Tokens ``(t, C)`` that an adapter may read (a prompt bridge)."""
        return None

    @property
    def taps(self) -> tuple[int, ...]:
        """Indices of the blocks whose output it requests."""
        return ()

    def sam_tensors(self) -> dict[str, Tensor]:
        """The tensors, by name, with which plain SAM becomes this decoder.

        Raises:
            NotImplementedError: It is not SAM's own mask decoder.
        """
        raise NotImplementedError("is not SAM's own mask decoder")

    def forward(
        self, sam: Sam, features: Features, prompts: Prompts, multimask: bool = False
    ) -> Masks:
        """Predicts masks of ``N`` prompts, given in the pixels of ``features.frame``."""
        raise NotImplementedError(f"{self.name} does not define forward")

    def candidates(
        self,
        sam: Sam,
        features: Features,
        prompts: Prompts,
        least: float,
        multimask: bool = False,
    ) -> Candidates:
        """The masks of ``N`` prompts whose estimated IoU is above ``least``.

        They are those of :meth:`forward`. A subclass may come to them with less work.
        """
        return Candidates.of(self(sam, features, prompts, multimask), least)


DECODERS: Registry[Decoder] = Registry("decoder", contract=Decoder)
"""All decoders by name."""
