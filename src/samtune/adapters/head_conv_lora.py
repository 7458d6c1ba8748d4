r"""Low-rank residuals with convolutions inside, for each head, as in Generalized SAM.

Kato et al. 2024 (arXiv:2408.12406) call it ConvLoRA; the paper of that name (Zhong et al. 2024)
describes another method, ``conv_lora``. With ``z = t A`` as a map over the grid,

.. math:: t \leftarrow t + \frac{s}{r} \Big(\sum_{e=1}^{4} g_e \odot E_e(z)\Big) B,
    \quad g = \mathrm{softmax}(\mathrm{ReLU}(\mathrm{conv}(z)))

where expert :math:`E_e` enlarges the map ``e`` times, convolves it and shrinks it again (nearest
neighbours both times), and all experts contribute at every cell.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS
from samtune.adapters.head_lora import HeadLowRank, PerHead

EXPERTS = 4


def _kernel_on_map(weight: Tensor) -> Tensor:
    """Turns a 3 x 3 kernel on a map enlarged by nearest neighbours into a kernel on the map itself.

    Shrinking keeps the first pixel of each cell. Around that pixel the enlarged map holds, along
    each axis, the previous cell once and the cell itself twice, for every factor.
    """
    fold = weight.new_tensor([[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    return fold.T @ weight @ fold


class HeadConvLowRank(HeadLowRank):
    """A low-rank residual over a grid: four convolutions in the bottleneck, weighed by a gate.

    Args:
        dim: ``D``.
        rank: Width of the bottleneck.
        scale: The residual is weighed by ``scale / rank``.
    """

    def __init__(self, dim: int, rank: int, scale: float) -> None:
        super().__init__(dim, rank, scale)
        self.experts = nn.ModuleDict(
            {str(e): nn.Conv2d(rank, rank, 3, padding=1) for e in range(1, EXPERTS + 1)}
        )
        self.gate = nn.Conv2d(rank, EXPERTS, 3, padding=1)

    def forward(self, t: Tensor, grid: tuple[int, int]) -> Tensor:
        """``(b, heads, n, D)`` over a grid of ``n`` to the residual of the same shape."""
        z = (t @ self.a).flatten(0, 1).mT.unflatten(2, grid)
        convs: list[nn.Conv2d] = [*self.experts.values(), self.gate]  # type: ignore[list-item]
        weights = [conv.weight for conv in convs]
        weights[1:EXPERTS] = [_kernel_on_map(weight) for weight in weights[1:EXPERTS]]
        biases = [conv.bias for conv in convs if conv.bias is not None]
        # One convolution for all experts, which would otherwise each run on an enlarged map.
        out = F.conv2d(z, torch.cat(weights), torch.cat(biases), padding=1)
        maps, gate = out[:, :-EXPERTS], out[:, -EXPERTS:].relu().softmax(1)
        mixed = (maps.unflatten(1, (EXPERTS, -1)) * gate[:, :, None]).sum(1)
        mixed = mixed.flatten(2).mT.unflatten(0, t.shape[:2])
        return mixed @ self.b * self.scale


@ADAPTERS.register("head_conv_lora")
class HeadConvLoRA(PerHead):
    """Generalized SAM's ConvLoRA, on split heads; exact identity at the start."""

    paper = "Kato et al. 2024 (Generalized SAM), arXiv:2408.12406"
    sits = "each head's queries, keys and values"
    key_grid = "reads"
    residual = HeadConvLowRank
