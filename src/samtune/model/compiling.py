"""Compilation of an encoder's blocks, one at a time.

All blocks of a kind share a graph, so that compiling takes as long for a deep base as for a shallow
one. An input of another size makes graphs of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from samtune.errors import InputError
from samtune.sam.edits import BlockEdits
from samtune.sam.encoder import EncoderBlock

Run = Callable[[EncoderBlock, Tensor, BlockEdits], Tensor]
Compiling = Literal["none", "blocks", "graphs"]
"""Nothing; the blocks; the blocks, launched as CUDA graphs."""

MOST_GRAPHS = 64
"""Most graphs of one function: kinds of blocks times sizes of inputs. Above torch's own limit of
eight it would go on uncompiled."""


def compiling_of(setting: Literal["auto", "graphs"] | bool, device: torch.device) -> Compiling:
    """The compilation that ``train.compile`` means on a device.

    ``auto`` compiles on GPUs, if the compiler that they need is installed. On the CPU the gain is
    about a tenth, and compiling takes a minute.

    Raises:
        InputError: CUDA graphs are wanted on a device without CUDA.
    """
    if setting == "graphs":
        if device.type != "cuda":
            raise InputError(
                f"train.compile=graphs: needs a GPU, not {device.type}; set train.compile=true"
            )
        return "graphs"
    if setting == "auto":
        return "blocks" if device.type == "cuda" and _has_triton() else "none"
    return "blocks" if setting else "none"


def _has_triton() -> bool:
    from torch.utils._triton import has_triton

    return bool(has_triton())


@cache
def compiled(compiling: Compiling) -> Run:
    """The function that runs a block, compiled at its first use."""
    if compiling == "none":
        return run_block
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_GRAPHS)
    options: dict[str, Any] = {"mode": "reduce-overhead"} if compiling == "graphs" else {}
    return torch.compile(run_block, dynamic=False, **options)


def run_block(block: EncoderBlock, x: Tensor, edits: BlockEdits) -> Tensor:
    """The next stream."""
    return block(x, edits)
