"""SAM's prompt encoder: points, boxes and masks to sparse and dense embeddings.

Official parameter names and numerics. A batch of ragged prompts is encoded in one call: slots
labelled ``ABSENT`` are marked in the ``present`` mask, which hides them from the decoder's
attention.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from samtune.errors import InputError
from samtune.ops import frozen
from samtune.ops.frozen import Conv2d
from samtune.prompts import ABSENT, Prompts, mask_size_over
from samtune.sam.layers import LayerNorm2d


@dataclass(frozen=True)
class PromptEmbedding:
    """Encoded prompts, ``N`` of them with up to ``n`` tokens each."""

    sparse: Tensor
    """``(N, n, C)``."""
    dense: Tensor
    """``(N, C, H, W)``, or ``(1, C, 1, 1)`` when no prompt has a mask."""
    present: Tensor | None
    """``(N, n)`` bool, false for filled-up slots; ``None`` when all are real."""


class PositionEmbeddingRandom(nn.Module):
    """Fourier features of coordinates (Tancik et al. 2020, arXiv:2006.10739), random but fixed."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, unit_xy: Tensor) -> Tensor:
        """Encodes ``(..., 2)`` coordinates in [0, 1] as ``(..., 2 * features)``."""
        along_x, along_y = self.positional_encoding_gaussian_matrix
        x, y = (2 * unit_xy - 1).split(1, dim=-1)
        # No matrix product, because autocast would run it in half precision, too coarse for angles.
        angles = 2 * torch.pi * (x * along_x + y * along_y)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def dense(self, grid: tuple[int, int]) -> Tensor:
        """Encodes the centre of every cell of a grid ``(H, W)`` as ``(1, 2 * features, H, W)``."""
        like = self.positional_encoding_gaussian_matrix
        y, x = ((torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n for n in grid)
        xy = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        return self(xy).permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    """Encodes prompts given in the pixels of the model's frame."""

    def __init__(self, dim: int, mask_channels: int = 16) -> None:
        super().__init__()
        self.pe_layer = PositionEmbeddingRandom(dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            Conv2d(1, mask_channels // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            Conv2d(mask_channels // 4, mask_channels, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            Conv2d(mask_channels, dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def dense_positions(self, grid: tuple[int, int]) -> Tensor:
        """The position code of every cell of the token grid, ``(1, C, H, W)``."""
        buffer = self.pe_layer.positional_encoding_gaussian_matrix
        return frozen.once(buffer, grid, lambda _: self.pe_layer.dense(grid), constant=True)

    def forward(
        self, prompts: Prompts, frame: tuple[int, int], grid: tuple[int, int]
    ) -> PromptEmbedding:
        """Encodes ``N`` prompts.

        Args:
            prompts: Coordinates in the pixels of ``frame``.
            frame: ``(h, w)`` of the model's frame.
            grid: ``(H, W)`` of the token grid; mask prompts must be ``(4H, 4W)``.

        Raises:
            InputError: Mask prompts of another size.
        """
        absent = prompts.labels == ABSENT
        is_ragged = torch.compiler.is_compiling() or prompts.has_absent()
        present = ~absent if is_ragged else None
        return PromptEmbedding(self._points(prompts, frame), self._masks(prompts, grid), present)

    def _points(self, prompts: Prompts, frame: tuple[int, int]) -> Tensor:
        size = torch.tensor(frame[::-1], dtype=torch.float32, device=prompts.coords.device)
        position = self.pe_layer((prompts.coords.float() + 0.5) / size)
        kinds = [self.not_a_point_embed, *self.point_embeddings]
        table = torch.cat([kind.weight for kind in kinds])
        kind = table[prompts.labels.clamp(min=-1) + 1]
        on_image = (prompts.labels >= 0)[..., None]
        return torch.where(on_image, position, 0.0) + kind

    def _masks(self, prompts: Prompts, grid: tuple[int, int]) -> Tensor:
        none = self.no_mask_embed.weight[:, :, None, None]
        if prompts.masks is None:
            return none
        expected = mask_size_over(grid)
        if tuple(prompts.masks.shape[-2:]) != expected:
            raise InputError(
                f"mask prompt of {tuple(prompts.masks.shape[-2:])}: must be the low-resolution "
                f"frame {expected}; pass the low_res output of an earlier prediction"
            )
        embedded = self.mask_downscaling(prompts.masks)
        if prompts.has_mask is None:
            return embedded
        return torch.where(prompts.has_mask[:, None, None, None], embedded, none)
