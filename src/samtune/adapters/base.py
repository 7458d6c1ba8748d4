"""The interface of an adapter, the trainable half of a fine-tuned image encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from samtune.errors import InputError
from samtune.options import Settings
from samtune.registry import Registry
from samtune.sam.edits import NONE, BlockEdits
from samtune.sam.encoder import ABILITIES, ENCODERS, Ability, Encoder
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, SamSpec

FORMER_NAMES = {
    "end": "is before_neck now; rename it",
    "finish": "is after_neck now; rename it",
    "encoders": "names encoders, which adapters no longer do; list the needed abilities in uses",
}
"""Attributes that adapters of version 0.1.0 define under older names, with the remedy for each."""


@dataclass(frozen=True)
class Factors:
    """A low-rank update ``scale * b @ a`` of a matrix ``(out, in)``."""

    a: Tensor
    """``(r, in)``."""
    b: Tensor
    """``(out, r)``."""
    scale: float = 1.0
    magnitudes: Tensor | None = None
    """``(out,)``: the lengths that the rows have after the update, if they are set anew."""
    bias: Tensor | None = None
    """``(out,)``: what is added to the matrix's bias, if anything is."""


class Adapter(nn.Module):
    """Changes the frozen encoder from outside; the default of every hook reproduces plain SAM.

    A subclass is constructed as ``(sam, config)``, reads sizes from ``sam`` and keeps no reference
    to it. All of its parameters are trained.
    """

    name: ClassVar[str] = "unregistered"
    """Set by the registry."""
    paper: ClassVar[str] = ""
    """Authors, year and arXiv number or venue."""
    sits: ClassVar[str] = ""
    """The place in the encoder where it acts, in a few words."""
    identity_at_init: ClassVar[bool] = True
    """Whether a fresh adapter leaves the embedding exactly as it is."""
    changes_at_start: ClassVar[str] = ""
    """The reason, as a clause, why a fresh adapter changes the embedding, if it does so by default
    or with some option."""
    decoders: ClassVar[tuple[str, ...] | None] = None
    """The decoders that it can be combined with; ``None`` for all."""
    uses: ClassVar[tuple[Ability, ...]] = ()
    """The abilities that it needs from an image encoder, in the words of
    ``samtune.sam.encoder.ABILITIES``: the fields of ``BlockEdits`` that it sets, and whatever else
    it reads."""
    learning_rate: ClassVar[float | None] = None
    """The learning rate that it declares, for ``train.lr=auto``, if that is another one than the
    decoder's; the smaller of both holds."""
    untrained: ClassVar[tuple[str, ...]] = ()
    """Modules that get no gradient under the default loss and prompts."""
    detached: ClassVar[bool] = False
    """Whether it only reads the streams: ``embed`` and ``edits`` are the defaults, and ``enter``,
    ``leave`` and ``before_neck`` return their input. The base then runs without gradients, and its
    output for an image never changes, so the output can be cached (see ``model/feature_cache.py``).
    An adapter that changes late blocks only says so by :meth:`first_block`."""

    key_grid: ClassVar[Literal["", "changes", "reads"]] = ""
    """Whether its ``heads`` change the grid of keys, or rely on it being the grid of the tokens."""
    stride: ClassVar[int | None] = None
    """Pixels from one token to the next, if the method sets its own; otherwise ``None``, for the
    encoder's."""
    initial: ClassVar[tuple[str, ...]] = ()
    """Options that only set initial weights; a checkpoint does not store them."""
    joins: ClassVar[tuple[str, ...]] = ()
    """The names of the adapters that it combines, if it is a stack of several."""
    forms: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Other published or structurally different forms of the method: options under a short name. A
    subclass declares its own."""
    small: ClassVar[Mapping[str, Any]] = {}
    """Options for a quick trial on a small base, if the defaults are too large for it."""

    @dataclass(frozen=True)
    class Config(Settings):
        """No options; a method's ``Config`` derives from it, and wrong values are refused."""

        section = "adapter"

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuses a subclass that uses names of version 0.1.0, which nothing would call or read.

        Raises:
            TypeError: Such a name; the message says the current one.
        """
        super().__init_subclass__(**options)
        for name in FORMER_NAMES.keys() & vars(cls).keys():
            raise TypeError(f"{cls.__name__}.{name}: {FORMER_NAMES[name]}")

    @classmethod
    def check(cls, spec: SamSpec) -> None:
        """Refuses bases that the method does not fit, before their weights are read.

        Raises:
            InputError: The base does not fit; the message gives the reason.
        """

    @classmethod
    def stored_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that a checkpoint stores: all except those that only set initial weights."""
        return {key: value for key, value in options.items() if key not in cls.initial}

    def embed(self, encoder: Encoder, pixels: Tensor) -> Tensor:
        """Patches and positions, ``(B, 3, h, w) -> (B, H, W, C)``."""
        return encoder.embed(pixels)

    def begin(self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None) -> Any:
        """Creates the state of one forward pass from pixels, first stream and decoder tokens."""
        return None

    def enter(self, i: int, x: Tensor, state: Any) -> Tensor:
        """Returns the stream ``(B, H, W, C)`` that block ``i`` receives."""
        return x

    def edits(self, i: int, state: Any) -> BlockEdits:
        """Returns the changes inside block ``i``."""
        return NONE

    def leave(self, i: int, x: Tensor, state: Any) -> Tensor:
        """Returns the stream ``(B, H, W, C)`` that follows block ``i``."""
        return x

    def before_neck(self, x: Tensor, state: Any) -> Tensor:
        """Returns the stream ``(B, H, W, C)`` that the neck receives."""
        return x

    def after_neck(self, embedding: Tensor, state: Any) -> Tensor:
        """Returns the image embedding ``(B, prompt_dim, H, W)`` that decoders receive."""
        return embedding

    def first_block(self, depth: int) -> int:
        """The first of ``depth`` blocks that it changes; the base computes what comes before.

        Before that block ``embed`` and ``edits`` are the defaults, and ``enter`` and ``leave``
        return their input. These blocks run without gradients, and their results can be cached.
        ``depth`` if it changes none, which is the default of a detached adapter; that of the others
        is 0.
        """
        return depth if self.detached else 0

    @classmethod
    def may_leave_blocks(cls) -> bool:
        """Whether some of its options leave the first block as it is."""
        return cls.detached or cls.first_block is not Adapter.first_block

    def reads(self, depth: int) -> frozenset[int]:
        """The streams before :meth:`first_block` that it reads; others come empty from a cache.

        -1 is the first stream; the others have the index of the block that they follow. By default
        all if it is detached, otherwise none.
        """
        return frozenset(range(-1, depth)) if self.detached else frozenset()

    def replaces(self) -> frozenset[str]:
        """The names of the block tensors that it replaces, as ``3.attn.qkv.bias``."""
        return frozenset()

    def auxiliary(self, state: Any) -> Tensor | None:
        """Returns a scalar to add to the training loss, from the state of a forward pass."""
        return None

    def deltas(self, sam: Sam) -> dict[str, Tensor]:
        """Returns the values to add to the base's tensors so that plain SAM computes the same.

        Raises:
            NotImplementedError: The method has no such closed form.
        """
        raise NotImplementedError(f"{self.name} has no form that plain SAM weights can express")

    def factors(self, sam: Sam) -> dict[str, Factors]:
        """Returns its updates of the base's matrices as products, by the matrices' names.

        Together they are all that it does.

        Raises:
            NotImplementedError: The method is not such an update.
        """
        raise NotImplementedError(f"{self.name} is no low-rank update of the base's matrices")


def _unknown_needs(cls: type[Adapter]) -> str:
    """The unknown words in the ``uses`` of another package's adapter, as a clause."""
    unknown = [word for word in cls.uses if word not in ABILITIES]
    return f"uses {unknown[0]!r}; the words are {', '.join(ABILITIES)}" if unknown else ""


ADAPTERS: Registry[Adapter] = Registry("adapter", contract=Adapter, check=_unknown_needs)
"""All adaptation methods by name."""


def lacking(method: Adapter | type[Adapter], spec: SamSpec) -> tuple[Ability, ...]:
    """Returns the abilities that a method uses and the image encoder of a base does not offer."""
    offers = ENCODERS[spec.encoder].offers
    return tuple(word for word in method.uses if word not in offers)


def check_base(method: Adapter | type[Adapter], spec: SamSpec) -> None:
    """Refuses a base that a method does not fit, before any weight is read.

    Raises:
        InputError: The base does not fit; the message names the missing abilities, and the bases
            and methods that fit.
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
