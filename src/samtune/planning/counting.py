"""A step counted without computing it: operations and bytes, from the model itself.

A step runs on fake tensors, which have shapes and no values. Every operation passes, so whatever
the model does (another form of attention, recomputed blocks, a custom backward) is in the numbers.
"""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from samtune.batch import Batch
from samtune.errors import InputError
from samtune.precision import Precision, autocast


@dataclass(frozen=True)
class Count:
    """The operations and bytes of one step, for some images at once."""

    flops: int
    """Floating-point operations forward and backward, recomputed ones included; a multiplication
    with an addition is two."""
    weights: int
    """Bytes of the frozen and the trained weights."""
    for_backward: int
    """Bytes that the forward pass keeps for the backward pass."""
    peak: int
    """The most bytes at a time, besides the weights."""

    def for_images(self, fewer: Count, images: int) -> Count:
        """The same for other images at once, on the line through two counts.

        Args:
            fewer: The count for one image; this one is for two.
            images: How many.
        """

        def line(one: int, two: int) -> int:
            return one + (two - one) * (images - 1)

        return Count(
            line(fewer.flops, self.flops),
            self.weights,
            line(fewer.for_backward, self.for_backward),
            line(fewer.peak, self.peak),
        )


class _Ledger(TorchDispatchMode):
    """Adds up operations, and the bytes of all tensors that they return until they are freed."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry

        super().__init__()
        self.flops = self.now = self.peak = 0
        self._alive: set[int] = set()
        self._formulas = flop_registry

    def add(self, tensors: Iterable[Any]) -> None:
        """Counts the memory of tensors, once each."""
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._alive:
                self._alive.add(key)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if (formula := self._formulas.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        self.add((out,) if isinstance(out, Tensor) else tree_leaves(out))
        return out


@contextmanager
def _without_redraws() -> Iterator[None]:
    """A context in which nothing is drawn again until its values lie within bounds.

    Some releases of torch do that for a truncated normal distribution, and look at the values.
    """
    before = nn.init.trunc_normal_
    nn.init.trunc_normal_ = lambda tensor, *_, **__: tensor
    try:
        yield
    finally:
        nn.init.trunc_normal_ = before


@contextmanager
def _without_collection() -> Iterator[None]:
    """A context in which cycles of objects are not looked for.

    If that happens while torch makes tensors without values, those of an earlier count go, and
    memory is damaged, and Python crashed in the second count of a method.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextmanager
def shapes_with_operations() -> Iterator[Any]:
    """A context in which modules and tensors are made without values; gives its mode."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about fake tensors, whose addresses nobody reads
        with mode:
            yield mode


@_without_collection()
def count_step(make_objective: Callable[[], Any], batch: Batch, precision: Precision) -> Count:
    """Counts a step: forward, loss and backward.

    Args:
        make_objective: Makes the model with its loss, an ``Objective`` of training; called where
            modules get no values.
        batch: With values in its prompts only; its pixels are taken as shapes.
        precision: Arithmetic of the forward pass.

    Raises:
        InputError: The model or the loss decides by values.
    """
    from torch._subclasses.fake_tensor import DataDependentOutputException
    from torch._subclasses.fake_tensor import DynamicOutputShapeException as Dynamic

    whose, live = "the method", _Ledger()
    try:
        with shapes_with_operations() as mode, _without_redraws():
            objective = make_objective().train()
            model = objective.model
        whose = f"{model.adapter.name}, {model.decoder.name}"
        live.add([*model.sam.parameters(), *model.sam.buffers()])
        live.add([*model.parameters(), *model.buffers()])
        weights = live.now
        with warnings.catch_warnings(), live:
            warnings.simplefilter("ignore")
            step = _with_shapes_for_pixels(batch, mode)
            with autocast(model.device, precision):
                loss = objective(step)
            after_forward = live.now - weights
            loss.backward()
    except (DataDependentOutputException, Dynamic) as error:
        raise InputError(
            f"{whose}: decides by values, so that a step cannot be counted without running it; set "
            "the same settings in a short training"
        ) from error
    return Count(live.flops, weights, after_forward, live.peak - weights)


def _with_shapes_for_pixels(batch: Batch, mode: Any) -> Batch:
    return replace(batch, pixels=mode.from_tensor(batch.pixels))
