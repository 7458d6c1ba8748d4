"""Where training starts: not from plain noise, but with positions and spectra already in order.

A few hundred steps decide how much of a short budget is left. Cosine patches see detail at once,
slow waves tell places apart, and matched projections let a prompt find its place from the start.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from samtune.sam.mask_decoder import DecoderAttention, TwoWayBlock
from samtune.sam.model import Sam

POSITIONS = 0.03
"""Size of the absolute positions: at 0.3 they drown the picture, and masks never follow it."""


def initialise(sam: Sam, generator: torch.Generator) -> None:
    """Small normal weights, whitened cosine patches, prompt positions of several scales."""
    for module in sam.image_encoder.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    sam.image_encoder.pos_embed.data = POSITIONS * wave_positions(
        sam.spec.embed_dim, sam.spec.grid[0]
    )
    for module in sam.image_encoder.neck:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
    sam.image_encoder.patch_embed.proj.weight.data = cosine_patches(
        sam.spec.embed_dim, sam.spec.patch_size
    )
    for module in sam.mask_decoder.transformer.modules():
        if isinstance(module, TwoWayBlock):
            match_positions(module.cross_attn_token_to_image, generator)
            match_positions(module.cross_attn_image_to_token, generator)
    match_positions(sam.mask_decoder.transformer.final_attn_token_to_image, generator)
    sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.copy_(
        frequencies(sam.spec.prompt_dim // 2, generator)
    )


def frequencies(count: int, generator: torch.Generator) -> Tensor:
    """``(2, count)`` prompt position frequencies: half along the axes, half of any direction.

    SAM's unit normal ones suit objects of a fifth of the frame. Nuclei need finer ones, and whether
    a place is inside a box is easiest told by slow ones along the axes.
    """
    matrix = torch.randn(2, count, generator=generator) * torch.logspace(-0.8, 0.6, count)
    axis = torch.logspace(-0.9, 0.6, count // 4)
    matrix[:, : count // 2] = 0
    matrix[0, : count // 4], matrix[1, count // 4 : count // 2] = axis, axis
    return matrix


def match_positions(
    attention: DecoderAttention, generator: torch.Generator, gain: float = 1.6
) -> None:
    """Starts queries and keys as the same projection, so that equal positions attend to each other.

    From independent projections the decoder needs many thousand prompts to find where a prompt is.
    """
    nn.init.orthogonal_(attention.q_proj.weight, gain, generator)
    attention.k_proj.weight.data.copy_(attention.q_proj.weight)
    nn.init.zeros_(attention.q_proj.bias)
    nn.init.zeros_(attention.k_proj.bias)


def wave_positions(dim: int, grid: int) -> Tensor:
    """``(1, grid, grid, dim)``: sines and cosines of row and column, half a wave and up."""
    at = (torch.arange(grid) + 0.5) / grid
    angles = torch.pi * at[:, None] * torch.logspace(0, np.log10(grid / 2), dim // 4)
    axis = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = axis[:, None].expand(-1, grid, -1), axis[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], 2)[None]


def cosine_patches(dim: int, patch: int) -> Tensor:
    """``(dim, 3, patch, patch)``: unit cosines of grey and two colour differences, the lowest."""
    n = np.arange(patch)
    basis = np.cos(np.pi * (n[None] + 0.5) * n[:, None] / patch)
    opponent = np.array([[1, 1, 1], [1, -1, 0], [0.5, 0.5, -1]])
    filters = []
    for colour, cost in zip(opponent, (1.0, 2.5, 2.5), strict=True):
        for v in range(patch):
            for u in range(patch):
                kernel = np.einsum("c,v,u->cvu", colour, basis[v], basis[u])
                filters.append((np.hypot(u, v) * cost, kernel / np.linalg.norm(kernel)))
    filters.sort(key=lambda item: item[0])
    return torch.tensor(np.stack([k for _, k in filters[:dim]]), dtype=torch.float32)


def whiten(sam: Sam, pixels: Tensor, target: float = 0.5) -> None:
    """Scales every patch filter to the same output on ``pixels (B, 3, h, w)``.

    Natural spectra fall with frequency: unscaled, detail would drown in brightness for many epochs.
    """
    proj = sam.image_encoder.patch_embed.proj
    with torch.no_grad():
        size = proj(sam.preprocess(pixels)).std((0, 2, 3))
        proj.weight *= (target / size.clamp(min=0.02 * float(size.max())))[:, None, None, None]
