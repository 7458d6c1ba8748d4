r"""Conv-LoRA (Zhong et al. 2024, arXiv:2401.17868): convolutions at several scales inside LoRA.

.. math::
    W x \leftarrow W x + \frac{\alpha}{r} B \Big(z + \sum_{e} g_e \, E_e(z)\Big), \quad z = A x \\
    E_e(z) = \mathrm{down}_e(\mathrm{GELU}(\mathrm{conv}_e(\mathrm{up}_e(z))))

Expert ``e`` enlarges the map ``e`` times (bicubic) before its 3 x 3 convolution. A noisy top-k gate
(Shazeer et al. 2017, arXiv:1701.06538) reads the mean of ``z`` over each window, or over the image
in a global block, and chooses the experts; a loss keeps all of them in use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.adapters.lora import LoRA, LowRank, chosen_blocks
from samtune.ops import windows
from samtune.options import Count, NotNegative, Range
from samtune.sam.edits import NONE, BlockEdits
from samtune.sam.encoder import Encoder, EncoderBlock
from samtune.sam.model import Sam

NOISE = 0.01
"""The least standard deviation of the noise on the gate's logits."""


class Gate(nn.Module):
    """Noisy top-k gating, with the loss that balances the experts.

    Args:
        rank: Width of its input.
        experts: Number of experts to choose from.
        top_k: Number of experts that it chooses.
    """

    def __init__(self, rank: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.choice = nn.Parameter(torch.zeros(rank, experts))
        self.noise = nn.Parameter(torch.zeros(rank, experts))
        self.top_k = top_k

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Maps ``(b, rank)`` to weights ``(b, experts)``, 0 if not chosen, and the training loss.

        Noise is added in training only. The loss is the squared coefficient of variation of the
        summed weights plus that of the expected load, which passes gradients although the choice
        itself does not.
        """
        clean = features @ self.choice
        if not self.training:
            return self._top_weights(clean), None
        spread = F.softplus(features @ self.noise) + NOISE
        noisy = clean + torch.randn_like(clean) * spread
        weights = self._top_weights(noisy)
        loss = _variation(weights.sum(0))
        if self.top_k < clean.shape[1]:
            loss = loss + _variation(self._load(clean, noisy, spread).sum(0))
        return weights, loss

    def _top_weights(self, logits: Tensor) -> Tensor:
        top = logits.topk(self.top_k)
        return torch.zeros_like(logits).scatter(1, top.indices, top.values.softmax(1))

    def _load(self, clean: Tensor, noisy: Tensor, spread: Tensor) -> Tensor:
        """The probability that each expert is chosen if its own noise were drawn again."""
        top = noisy.topk(self.top_k + 1).values
        last_in, first_out = top[:, -2:-1], top[:, -1:]
        # A chosen expert has to beat the k-th of the others; which one that is depends on whether
        # it is chosen itself.
        rival = torch.where(noisy > first_out, first_out, last_in)
        return torch.special.ndtr((clean - rival) / spread)


class Mixture(nn.Module):
    """Convolutions at the scales 1, 2, 3, ... of a map, weighted by a gate."""

    def __init__(self, rank: int, experts: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(rank, rank, 3, padding=1) for _ in range(experts))
        for conv in self.convs:
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor, weights: Tensor) -> Tensor:
        """``(b, h, w, r)`` and ``(b, experts)`` to ``(b, h, w, r)``, the map itself added."""
        z = z.permute(0, 3, 1, 2)
        size, out = z.shape[-2:], z
        # All experts run on all windows: together they cost little beside a block, and sending
        # windows only to the chosen ones would make the graph depend on the data.
        for scale, (conv, weight) in enumerate(zip(self.convs, weights.unbind(1), strict=True), 1):
            if scale == 1:
                answer = F.gelu(conv(z))
            else:
                large = F.interpolate(z, (scale * size[0], scale * size[1]), mode="bicubic")
                answer = F.interpolate(F.gelu(conv(large)), size, mode="bicubic")
            out = out + weight[:, None, None, None] * answer
        return out.permute(0, 2, 3, 1)


@dataclass
class Routing:
    """The decisions of the gates in one forward pass."""

    encoder: Encoder
    weights: dict[int, list[Tensor]] = field(default_factory=dict)
    """The weights ``(b, experts)`` of each pair, by block."""
    losses: list[Tensor] = field(default_factory=list)


@ADAPTERS.register("conv_lora")
class ConvLoRA(Adapter):
    """LoRA with a mixture of convolutions in the bottleneck; exact identity at the start.

    The gates add a loss of their own in training. In a stack, changes by other adapters within a
    block, or before it and later in the stack, reach the bottleneck but not its gate.
    """

    paper = "Zhong et al. 2024, arXiv:2401.17868"
    sits = "query, key and value projections"
    uses = ("qkv", "uniform")
    forms: ClassVar = {"parts": {"target": "q+v", "top_k": 2}}
    # An expert that no window chose in a step gets no gradient from it.
    untrained = ("experts",)

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of :class:`ConvLoRA`."""

        target: str = "qkv"
        """``qkv`` for one pair over the fused projection, as published, or several projections with
        one pair each: ``q+v``, ``q+k+v``, ..."""
        rank: Count = 3
        """Width of the low-rank bottleneck."""
        alpha: float = 8.0
        """The update is scaled by alpha / rank."""
        experts: Count = 8
        """Number of convolutions; the ``e``-th works on the map enlarged ``e`` times."""
        top_k: Annotated[int, Range(at_least=1, at_most="experts")] = 1
        """Number of convolutions that each window uses."""
        balance: NotNegative = 0.01
        """Weight of the loss that keeps all experts in use."""
        blocks: tuple[int, ...] | str = "all"
        """``all``, ``global``, ``windowed``, or block indices (negative ones count from the
        end)."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        slots, rank = LoRA.slots(config.target), config.rank
        dim, self.balance = sam.image_encoder.dim, config.balance
        blocks = sorted(chosen_blocks(config.blocks, sam))
        self.updates, self.experts, self.gates = (nn.ModuleDict() for _ in range(3))
        for i in map(str, blocks):
            self.updates[i] = LowRank(dim, dim, slots, rank, config.alpha, dropout=0.0)
            self.experts[i] = nn.ModuleList(Mixture(rank, config.experts) for _ in slots)
            self.gates[i] = nn.ModuleList(Gate(rank, config.experts, config.top_k) for _ in slots)

    def first_block(self, depth: int) -> int:
        """The first of the chosen blocks."""
        return min([*map(int, self.updates), depth])

    def begin(self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None) -> Routing:
        """Starts without any decision."""
        return Routing(encoder)

    def enter(self, i: int, x: Tensor, state: Routing) -> Tensor:
        """Lets the gates of block ``i`` choose; the stream stays as it is."""
        # Outside of the block, which may run twice, because noise must be drawn and the loss
        # counted once. The stream must therefore have the width and grid that the block projects.
        if str(i) in self.updates:
            block = state.encoder.blocks[i]
            state.weights[i] = []
            # In half precision the choice between nearly equal experts would differ.
            with torch.autocast(x.device.type, enabled=False):
                mean = _means(block, x.float())
                pairs = zip(self.updates[str(i)].a, self.gates[str(i)], strict=True)  # type: ignore[call-overload]
                for a, gate in pairs:
                    weights, loss = gate(mean @ a.T)
                    state.weights[i].append(weights)
                    state.losses += [] if loss is None else [loss]
        return x

    def edits(self, i: int, state: Routing) -> BlockEdits:
        """The update of block ``i``, if it is adapted."""
        if str(i) not in self.updates:
            return NONE
        update, experts = self.updates[str(i)], self.experts[str(i)]
        assert isinstance(update, LowRank)
        pairs = list(zip(update.a, update.b, experts, state.weights[i], strict=True))  # type: ignore[call-overload]

        def qkv(x: Tensor) -> Tensor:
            return update.place([mix(x @ a.T, weights) @ b.T for a, b, mix, weights in pairs])

        return BlockEdits(qkv=qkv)

    def auxiliary(self, state: Routing) -> Tensor | None:
        """The gates' losses, summed over the blocks; ``None`` in evaluation."""
        return self.balance * torch.stack(state.losses).sum() if state.losses else None


def _means(block: EncoderBlock, x: Tensor) -> Tensor:
    """The means of a block's projected tokens over each of its windows: ``(b, C)``."""
    normed = block.operation("norm1")(x)
    if block.window:
        normed, _ = windows.partition(normed, block.window)
    return normed.mean((1, 2))


def _variation(values: Tensor) -> Tensor:
    """The squared coefficient of variation; 0 for a single value."""
    if len(values) == 1:
        return values.new_zeros(())
    return values.var() / (values.mean() ** 2 + 1e-10)
