"""Several adapters at once, chained in order; combinations that cannot chain are refused.

The name ``lora+adaptformer`` means both, each with its own options: ``adapter.lora.rank=8``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.errors import InputError
from samtune.registry.places import key_of
from samtune.sam.edits import BlockEdits, Fn, Heads
from samtune.sam.encoder import ABILITIES, ENCODERS, Ability, Encoder
from samtune.sam.model import Sam
from samtune.sam.spec import SamSpec


@dataclass(frozen=True)
class StackState:
    """One state for each stacked adapter."""

    states: tuple[Any, ...]


class Stack(Adapter):
    """Composes adapters: additions add up, functions run one after the other, tokens join.

    Raises:
        InputError: Two of them replace the patch embedding or the same tensor of a block, or one
            pools keys that a later one treats as an image.
    """

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        super().__init__()
        adapters = [b for a in adapters for b in (a._each() if isinstance(a, Stack) else [a])]
        self.adapters = nn.ModuleList(adapters)
        embedders = [a for a in adapters if type(a).embed is not Adapter.embed]
        if len(embedders) > 1:
            names = " and ".join(a.name for a in embedders)
            raise InputError(f"stack: {names} each replace the patch embedding; keep one of them")
        _refuse_conflicts(adapters)
        self._embedder = adapters.index(embedders[0]) if embedders else None
        self.stride = embedders[0].stride if embedders else None  # type: ignore[misc]
        self.joins = tuple(a.name for a in adapters)  # type: ignore[misc]
        self.name = "+".join(self.joins)  # type: ignore[misc]
        self.identity_at_init = all(a.identity_at_init for a in adapters)  # type: ignore[misc]
        clauses = dict.fromkeys(a.changes_at_start for a in adapters if not a.identity_at_init)
        self.changes_at_start = "; ".join(clauses)  # type: ignore[misc]
        self.learning_rate = _smallest_rate(adapters)  # type: ignore[misc]
        self.detached = all(a.detached for a in adapters)  # type: ignore[misc]
        self.decoders = _common_decoders(self.name, adapters)  # type: ignore[misc]
        self.uses = _joint_uses(self.name, adapters)  # type: ignore[misc]
        idle = (f"adapters.{i}.{part}" for i, a in enumerate(adapters) for part in a.untrained)
        self.untrained = tuple(idle)  # type: ignore[misc]

    def _each(self) -> list[Adapter]:
        return list(self.adapters)  # type: ignore[arg-type]

    def _with_states(self, state: StackState) -> Iterator[tuple[Adapter, Any]]:
        """Each adapter with its state of this forward pass, in order."""
        return zip(self._each(), state.states, strict=True)

    def embed(self, encoder: Encoder, pixels: Tensor) -> Tensor:
        """The embedding of the one adapter that defines its own, or the encoder's."""
        if self._embedder is None:
            return encoder.embed(pixels)
        return self._each()[self._embedder].embed(encoder, pixels)

    def begin(
        self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None
    ) -> StackState:
        """Begins every adapter."""
        return StackState(tuple(a.begin(encoder, pixels, x, tokens) for a in self._each()))

    def enter(self, i: int, x: Tensor, state: StackState) -> Tensor:
        """Runs every ``enter`` in order."""
        for adapter, part in self._with_states(state):
            x = adapter.enter(i, x, part)
        return x

    def leave(self, i: int, x: Tensor, state: StackState) -> Tensor:
        """Runs every ``leave`` in order."""
        for adapter, part in self._with_states(state):
            x = adapter.leave(i, x, part)
        return x

    def before_neck(self, x: Tensor, state: StackState) -> Tensor:
        """Runs every ``before_neck`` in order."""
        for adapter, part in self._with_states(state):
            x = adapter.before_neck(x, part)
        return x

    def after_neck(self, embedding: Tensor, state: StackState) -> Tensor:
        """Runs every ``after_neck`` in order."""
        for adapter, part in self._with_states(state):
            embedding = adapter.after_neck(embedding, part)
        return embedding

    def edits(self, i: int, state: StackState) -> BlockEdits:
        """Joins the edits of block ``i``."""
        parts = [a.edits(i, part) for a, part in self._with_states(state)]
        return BlockEdits(
            qkv=_join([p.qkv for p in parts], _add),
            heads=_join([p.heads for p in parts], _chain_heads),
            tokens=_tokens([p.tokens for p in parts]),
            attended=_join([p.attended for p in parts], _chain),
            mlp=_join([p.mlp for p in parts], _add),
            params=_params(i, parts),
            norm=next((p.norm for p in parts if p.norm is not None), None),
        )

    def first_block(self, depth: int) -> int:
        """The first block that any of the adapters changes."""
        return min([depth, *(a.first_block(depth) for a in self._each())])

    def reads(self, depth: int) -> frozenset[int]:
        """The streams that any of the adapters reads."""
        return frozenset().union(*(a.reads(depth) for a in self._each()))

    def auxiliary(self, state: StackState) -> Tensor | None:
        """The sum of the adapters' additions to the loss."""
        terms = [a.auxiliary(part) for a, part in self._with_states(state)]
        summands = [term for term in terms if term is not None]
        return torch.stack(summands).sum() if summands else None

    def deltas(self, sam: Any) -> dict[str, Tensor]:
        """The sum of all adapters' weight differences."""
        total: dict[str, Tensor] = {}
        for adapter in self._each():
            for key, delta in adapter.deltas(sam).items():
                total[key] = total[key] + delta if key in total else delta
        return total


def _join(values: list[Any], join: Callable[[Any, Any], Any]) -> Any:
    """Joins the values that are set, from the first to the last; ``None`` if all are unset."""
    given = [v for v in values if v is not None]
    return reduce(join, given) if given else None


def _add(first: Fn, second: Fn) -> Fn:
    return lambda x: first(x) + second(x)


def _chain(first: Fn, second: Fn) -> Fn:
    return lambda x: second(first(x))


def _chain_heads(first: Heads, second: Heads) -> Heads:
    return lambda q, k, v, grid: second(*first(q, k, v, grid))


def _tokens(values: list[Tensor | None]) -> Tensor | None:
    """Joins all extra tokens; tokens of one image are repeated for the batch if needed."""
    given = [v for v in values if v is not None]
    batch = max([0, *(v.shape[0] for v in given if v.dim() == 3)])
    if batch:
        given = [v.expand(batch, -1, -1) for v in given]
    return torch.cat(given, dim=-2) if given else None


def _params(i: int, parts: list[BlockEdits]) -> dict[str, Tensor]:
    """The tensors with which all edits together replace those of block ``i``."""
    params: dict[str, Tensor] = {}
    for part in parts:
        twice = params.keys() & part.params.keys()
        if twice:  # for adapters that do not declare their replacements
            raise InputError(
                f"stack: two adapters replace {min(twice)} of block {i}; keep one of them"
            )
        params.update(part.params)
    return params


def _refuse_conflicts(adapters: Sequence[Adapter]) -> None:
    owner: dict[str, Adapter] = {}
    pooling: Adapter | None = None
    for adapter in adapters:
        twice = sorted(adapter.replaces() & owner.keys())
        if twice:
            block, _, name = twice[0].partition(".")
            raise InputError(
                f"stack: {owner[twice[0]].name} and {adapter.name} each replace {name} of block "
                f"{block}; keep one of them"
            )
        owner |= dict.fromkeys(adapter.replaces(), adapter)
        if adapter.key_grid == "reads" and pooling is not None:
            raise InputError(
                f"stack: {pooling.name} pools the keys that {adapter.name} treats as an image; "
                f"write {adapter.name}+{pooling.name}"
            )
        pooling = adapter if adapter.key_grid == "changes" else pooling


def _common_decoders(name: str, parts: Sequence[Adapter | type[Adapter]]) -> Any:
    limits = [set(part.decoders) for part in parts if part.decoders is not None]
    common = tuple(sorted(set.intersection(*limits))) if limits else None
    if common == ():
        raise InputError(f"adapter.name={name}: no decoder fits all of them; keep one of them")
    return common


def _joint_uses(name: str, parts: Sequence[Adapter | type[Adapter]]) -> tuple[Ability, ...]:
    joint = tuple(word for word in ABILITIES if any(word in part.uses for part in parts))
    if not any(ENCODERS[kind].offers.issuperset(joint) for kind in ENCODERS):
        raise InputError(f"adapter.name={name}: no base fits all of them; keep one of them")
    return joint


def _smallest_rate(parts: Sequence[Adapter | type[Adapter]]) -> float | None:
    rates = (part.learning_rate for part in parts if part.learning_rate is not None)
    return min(rates, default=None)


class Combination:
    """Stands in for a class under the name ``a+b``, with the options of both by adapter name.

    Raises:
        InputError: An unknown or repeated adapter, or no decoder or base fits all of them.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        classes: list[type[Adapter]] = [ADAPTERS[part] for part in name.split("+")]
        self.joins = tuple(cls.name for cls in classes)
        self.keys = tuple(map(key_of, name.split("+")))
        """The names under which the options of each part are set."""
        if len(set(self.keys)) < len(self.keys) or len(set(classes)) < len(classes):
            raise InputError(f"adapter.name={name}: names an adapter twice; name each once")
        self._classes: dict[str, Any] = dict(zip(self.keys, classes, strict=True))
        self.__doc__ = f"Several adapters at once: {', '.join(self.joins)}."
        self.paper = "; ".join(cls.paper for cls in classes)
        self.sits = "; ".join(cls.sits for cls in classes)
        clauses = dict.fromkeys(cls.changes_at_start for cls in classes)
        self.changes_at_start = "; ".join(clause for clause in clauses if clause)
        self.decoders = _common_decoders(name, classes)
        self.uses = _joint_uses(name, classes)
        self.learning_rate = _smallest_rate(classes)
        self.detached = all(cls.detached for cls in classes)
        self.stride = next((cls.stride for cls in classes if cls.stride), None)

        self.Config = make_dataclass(
            "Config",
            [(p, c.Config, field(default_factory=c.Config)) for p, c in self._classes.items()],
            bases=(Adapter.Config,),
            namespace={"__doc__": f"Options of {name}, by adapter."},
            frozen=True,
        )

    def check(self, spec: SamSpec) -> None:
        """Refuses bases that one of the adapters does not fit.

        Raises:
            InputError: The base does not fit; the message gives the reason.
        """
        for cls in self._classes.values():
            cls.check(spec)

    def may_leave_blocks(self) -> bool:
        """Whether some options of all of them leave the first block as it is."""
        return all(cls.may_leave_blocks() for cls in self._classes.values())

    def stored_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of each adapter that a checkpoint stores."""
        parts = {p: o for p, o in options.items() if p in self._classes and isinstance(o, Mapping)}
        return {**options, **{p: self._classes[p].stored_options(o) for p, o in parts.items()}}

    def __call__(self, sam: Sam, config: Any) -> Stack:
        """The stack of the adapters, each built on ``sam`` with its own options."""
        return Stack([c(sam, getattr(config, part)) for part, c in self._classes.items()])


ADAPTERS.combine = Combination
