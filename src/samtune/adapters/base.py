"""What an adapter is: the trainable half of a fine-tuned image encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from samtune.errors import InputError
from samtune.registry import Registry
from samtune.sam.edits import NONE, BlockEdits
from samtune.sam.encoder import ABILITIES, ENCODERS, Ability, Encoder
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, SamSpec

FORMER_NAMES = {
    "end": "is before_neck now; rename it",
    "finish": "is after_neck now; rename it",
    "encoders": "names encoders, which no adapter does any more; say what it needs of one in uses",
}
"""What adapters of version 0.1.0 define under other names, with the remedy."""


class Adapter(nn.Module):
    """Changes the frozen encoder from outside; every method's default reproduces plain SAM.

    A subclass is constructed as ``(sam, config)``, reads sizes from ``sam`` and keeps no reference
    to it. All of its parameters are trained.
    """

    name: ClassVar[str] = "unregistered"
    """Set by the registry."""
    paper: ClassVar[str] = ""
    """Authors, year and arXiv number or venue."""
    sits: ClassVar[str] = ""
    """Where in the encoder it acts, in a few words."""
    identity_at_init: ClassVar[bool] = True
    """Whether a fresh adapter leaves the embedding exactly as it is."""
    changes_at_start: ClassVar[str] = ""
    """Why a fresh one changes the embedding, in a clause, where it does or an option makes it."""
    decoders: ClassVar[tuple[str, ...] | None] = None
    """The decoders it can go with; ``None`` for all."""
    uses: ClassVar[tuple[Ability, ...]] = ()
    """What it needs of an image encoder, in the words of ``samtune.sam.encoder.ABILITIES``: the
    fields of ``BlockEdits`` that it sets, and what else it reads."""
    untrained: ClassVar[tuple[str, ...]] = ()
    """Modules that get no gradient under the default loss and prompts."""
    detached: ClassVar[bool] = False
    """Whether it only reads the streams: ``embed`` and ``edits`` are the defaults, and ``enter``,
    ``leave`` and ``before_neck`` give back what they get. The base then runs without gradients, and
    what it gives for an image never changes, so that it can be kept
    (see ``model/feature_cache.py``)."""

    key_grid: ClassVar[Literal["", "changes", "reads"]] = ""
    """Whether its heads change the grid of keys, or take it for that of the tokens."""
    stride: ClassVar[int | None] = None
    """Pixels from one token to the next where the method has its own; the encoder's if not."""
    initial: ClassVar[tuple[str, ...]] = ()
    """Options that only say where weights start: not kept in a checkpoint."""
    joins: ClassVar[tuple[str, ...]] = ()
    """The names of the adapters that it joins, if it is several at once."""
    forms: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Its other forms, published or of another structure: options by a short name. A
    subclass declares its own."""
    small: ClassVar[Mapping[str, Any]] = {}
    """Options for a quick trial on a small base, where the defaults are too large for it."""

    @dataclass(frozen=True)
    class Config:
        """No options."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuses a subclass with the names of version 0.1.0, which nothing would call or read.

        Raises:
            TypeError: With the name that it has now.
        """
        super().__init_subclass__(**options)
        for name in FORMER_NAMES.keys() & vars(cls).keys():
            raise TypeError(f"{cls.__name__}.{name}: {FORMER_NAMES[name]}")

    @classmethod
    def check(cls, spec: SamSpec) -> None:
        """Refuses bases that the method does not fit, before their weights are read.

        Raises:
            InputError: Such a base, with the reason.
        """

    @classmethod
    def stored_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that a checkpoint keeps: all but those of where weights start."""
        return {key: value for key, value in options.items() if key not in cls.initial}

    def embed(self, encoder: Encoder, pixels: Tensor) -> Tensor:
        """Patches and positions, ``(B, 3, h, w) -> (B, H, W, C)``."""
        return encoder.embed(pixels)

    def begin(self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None) -> Any:
        """State of one forward pass, from the pixels, the first stream and the decoder's tokens."""
        return None

    def enter(self, i: int, x: Tensor, state: Any) -> Tensor:
        """The stream ``(B, H, W, C)`` before block ``i``."""
        return x

    def edits(self, i: int, state: Any) -> BlockEdits:
        """What changes inside block ``i``."""
        return NONE

    def leave(self, i: int, x: Tensor, state: Any) -> Tensor:
        """The stream ``(B, H, W, C)`` after block ``i``."""
        return x

    def before_neck(self, x: Tensor, state: Any) -> Tensor:
        """The stream ``(B, H, W, C)`` before the neck."""
        return x

    def after_neck(self, embedding: Tensor, state: Any) -> Tensor:
        """The image embedding ``(B, prompt_dim, H, W)`` after the neck."""
        return embedding

    def reads(self, depth: int) -> frozenset[int]:
        """Which streams a detached one of ``depth`` blocks reads; of the others it gets empty ones.

        -1 is the first, others have the number of the block before them; by default all.
        """
        return frozenset(range(-1, depth))

    def replaces(self) -> frozenset[str]:
        """The tensors of blocks that it puts others in place of, as ``3.attn.qkv.bias``."""
        return frozenset()

    def auxiliary(self, state: Any) -> Tensor | None:
        """A scalar to add to the loss in training, from the state of a forward pass."""
        return None

    def deltas(self, sam: Sam) -> dict[str, Tensor]:
        """What to add to the base's tensors, by name, so that plain SAM computes the same.

        Raises:
            NotImplementedError: The method has no such closed form.
        """
        raise NotImplementedError(f"{self.name} has no form that plain SAM weights can express")


ADAPTERS: Registry[Adapter] = Registry("adapter")
"""All adaptation methods by name."""


def lacking(method: Adapter | type[Adapter], spec: SamSpec) -> tuple[Ability, ...]:
    """What a method uses and the image encoder of a base does not offer."""
    offers = ENCODERS[spec.encoder].offers
    return tuple(word for word in method.uses if word not in offers)


def check_base(method: Adapter | type[Adapter], spec: SamSpec) -> None:
    """Refuses a base that a method does not fit, before any weight is read.

    Raises:
        InputError: Such a base, with what it lacks, and the bases and methods that fit.
    """
    if missing := lacking(method, spec):
        needs = " and ".join(ABILITIES[word] for word in missing)
        fits = [name for name in ADAPTERS if not lacking(ADAPTERS[name], spec)]
        bases = [name for name, other in SPECS.items() if not lacking(method, other)]
        change = f"base.name to one of {', '.join(bases)}, or " if bases else ""
        raise InputError(
            f"base.name={spec.name}: {method.name} needs {needs}, which {spec.name} does not have; "
            f"set {change}adapter.name to one of {', '.join(fits)}"
        )
    method.check(spec)
