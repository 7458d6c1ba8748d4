"""What nano is trained on: SAM's losses over rounds of ever better prompts, and an edge task.

Kirillov et al. 2023 (arXiv:2304.02643), appendix A: the best of three masks for an ambiguous
prompt, mean squared error of the IoU head, clicks from the error region. The pixel loss differs.
"""

from __future__ import annotations

import types
from typing import NamedTuple

import torch
import torch.nn.functional as F
from prompts import POINT, Samples
from torch import Tensor, nn

from samtune.ops import resize
from samtune.prompts import ABSENT, NEGATIVE, POSITIVE, Prompts
from samtune.sam.image_encoder import Attention
from samtune.sam.mask_decoder import MASKS, DecoderAttention
from samtune.sam.model import Sam


class Frame(NamedTuple):
    """Where a crop of ``S`` pixels lies in the model's native frame, in tokens."""

    row: int
    column: int
    grid: int


def encode(sam: Sam, pixels: Tensor, sizes: Tensor, frame: Frame) -> Tensor:
    """Image embeddings ``(B, C, H, W)`` of crops that see the native positions of ``frame``.

    A small crop trains the same weights as the full frame does: it takes its slice of the absolute
    positions and the middle of the relative tables, where resampling would change their meaning.
    """
    encoder = sam.image_encoder
    x = encoder.patch_embed(sam.preprocess(pixels, sizes))
    rows, columns = (slice(a, a + frame.grid) for a in frame[:2])
    x = x + encoder.pos_embed[:, rows, columns]
    for block in encoder.blocks:
        x = block(x)
    return encoder.apply_neck(x)


def _middle(table: Tensor, queries: int, keys: int) -> Tensor:
    """``resize.relative`` for square grids that cuts the table's middle out, unresampled."""
    surplus = (table.shape[0] - (2 * queries - 1)) // 2
    table = table[surplus : table.shape[0] - surplus]
    at = torch.arange(queries, device=table.device)
    return table[at[:, None] - at + queries - 1]


def _plain_attention(
    self: DecoderAttention, q: Tensor, k: Tensor, v: Tensor, present: Tensor | None = None
) -> Tensor:
    """``DecoderAttention.forward`` by two products: CPU kernels are slow for 8-wide heads."""
    q, k, v = (
        proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        for proj, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
    )
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if present is not None:
        scores = scores.masked_fill(~present[:, None, None, :], -1e4)
    out = scores.softmax(-1).to(v.dtype) @ v
    return self.out_proj(out.transpose(1, 2).flatten(2))


def prepare(sam: Sam, cpu: bool) -> None:
    """Makes ``sam`` fit for training here: cut relative tables, and on a CPU the faster twins."""
    resize.relative = _middle
    if not cpu:
        return
    for module in sam.modules():
        if isinstance(module, DecoderAttention):
            module.forward = types.MethodType(_plain_attention, module)
        if isinstance(module, Attention):
            module.form = "textbook"


class Rows(NamedTuple):
    """Prompts of one round."""

    coords: Tensor
    labels: Tensor
    image: Tensor
    targets: Tensor
    """``(N, 4H, 4W)`` float coverage of the low-resolution cells."""
    ambiguous: Tensor
    """``(N,)`` bool: one click only."""
    masks: Tensor | None

    def take(self, index: Tensor) -> Rows:
        """The rows ``index``, with their tensors alone."""
        return Rows(*(None if t is None else t[index] for t in self))


def first_rows(samples: Samples, frame: Frame) -> Rows:
    """The prompts of a batch in the native frame, before any prediction."""
    count = samples.kinds.shape[0] // samples.pixels.shape[0]
    image = torch.arange(samples.pixels.shape[0], device=samples.kinds.device)
    scale = samples.pixels.shape[-1] // (4 * frame.grid)
    shift = samples.coords.new_tensor([frame.column, frame.row]) * 4 * scale
    return Rows(
        samples.coords + shift,
        samples.labels,
        image.repeat_interleave(count),
        F.avg_pool2d(samples.targets.float()[:, None], scale)[:, 0],
        samples.kinds == POINT,
        None,
    )


def decode(sam: Sam, embedding: Tensor, rows: Rows, frame: Frame) -> tuple[Tensor, Tensor]:
    """All four masks of each prompt: logits ``(N, 4, 4H, 4W)`` and IoU estimates ``(N, 4)``."""
    native, side = sam.spec.grid, sam.spec.image_size
    prompts = Prompts(rows.coords, rows.labels, rows.image, rows.masks)
    grid = (frame.grid, frame.grid)
    embedded = sam.prompt_encoder(prompts, (side, side), grid)
    rows_, columns = (slice(a, a + frame.grid) for a in frame[:2])
    positions = sam.prompt_encoder.dense_positions(native)[:, :, rows_, columns]
    decoder = sam.mask_decoder
    tokens, image = decoder.transform(embedding[rows.image], positions, embedded)
    heads = decoder.output_hypernetworks_mlps
    weights = torch.stack([heads[i](tokens[:, 1 + i]) for i in range(MASKS)], 1)
    upscaled = decoder.output_upscaling(image).flatten(2)
    logits = (weights @ upscaled).unflatten(2, (4 * frame.grid, 4 * frame.grid))
    return logits.float(), decoder.iou_prediction_head(tokens[:, 0]).float()


def mask_losses(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Twice the cross entropy plus Dice, and the IoU of each mask, both ``(N, K)``.

    SAM has focal loss where the cross entropy stands: from a random start, and in minutes, focal
    loss settles on empty masks. Targets may be coverages.
    """
    targets = targets[:, None].expand_as(logits)
    p = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    overlap, total = (p * targets).sum((-2, -1)), (p + targets).sum((-2, -1))
    loss = 2 * entropy.mean((-2, -1)) + 1 - (2 * overlap + 1) / (total + 1)
    with torch.no_grad():
        inside, truth = logits > 0, targets > 0.5
        union = (inside | truth).sum((-2, -1))
        iou = (inside & truth).sum((-2, -1)) / union.clamp(min=1)
    return loss, iou


class Round(NamedTuple):
    """The outcome of one decoding of some rows."""

    loss: Tensor
    best: Tensor
    """``(N, 4H, 4W)`` logits that the next round starts from."""
    iou: Tensor
    """``(N,)`` IoU of ``best``."""


def score(logits: Tensor, iou_estimate: Tensor, rows: Rows) -> Round:
    """SAM's loss. One click: the best of masks 1 to 3; anything more: mask 0.

    Both answers are trained for every prompt, the other one at a lower weight, so that either way
    of asking works with any prompt.
    """
    losses, iou = mask_losses(logits, rows.targets)
    least, which = losses[:, 1:].min(1)
    single = losses[:, 0]
    weighted = torch.where(rows.ambiguous, least + 0.5 * single, single + 0.25 * least)
    loss = weighted.mean() + F.mse_loss(iou_estimate, iou)
    chosen = torch.where(rows.ambiguous, which + 1, 0)
    index = torch.arange(len(chosen), device=chosen.device)
    return Round(loss, logits[index, chosen].detach(), iou[index, chosen])


def corrected(rows: Rows, result: Round, index: Tensor, frame: Frame) -> Rows:
    """The rows ``index`` with the last logits as mask prompt and a click where they are wrong."""
    rows = rows.take(index)
    logits = result.best[index]
    truth = rows.targets > 0.5
    wrong = (logits > 0) != truth
    noise = torch.rand(wrong.shape, device=wrong.device) * wrong
    at = noise.flatten(1).argmax(1)
    side = wrong.shape[-1]
    y, x = at // side, at % side
    cell = 2  # pixels of the native frame in a cell of the low-resolution masks
    xy = torch.stack([x, y], 1) * cell + (cell - 1) / 2
    xy = xy + xy.new_tensor([frame.column, frame.row]) * 4 * cell
    label = torch.where(truth.flatten(1).gather(1, at[:, None]), POSITIVE, NEGATIVE)
    label[~wrong.flatten(1).any(1)] = ABSENT
    return rows._replace(
        coords=torch.cat([rows.coords, xy[:, None].to(rows.coords)], 1),
        labels=torch.cat([rows.labels, label], 1),
        ambiguous=torch.zeros_like(rows.ambiguous),
        masks=logits[:, None].clamp(-32, 32),
    )


class EdgeHead(nn.Module):
    """Reads every pixel's edge off the embedding: a dense task that only training has.

    One prompt says little about a picture; its label map says where all borders are.
    """

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.read = nn.Conv2d(dim, patch * patch, 1)
        self.patch = patch

    def forward(self, embedding: Tensor, edges: Tensor) -> Tensor:
        """Cross entropy with ``edges (B, S, S)`` bool, rare pixels weighted up."""
        logits = F.pixel_shuffle(self.read(embedding).float(), self.patch)[:, 0]
        weight = edges.new_tensor(3.0, dtype=torch.float)
        return F.binary_cross_entropy_with_logits(logits, edges.float(), pos_weight=weight)


def random_frame(sam: Sam, size: int, generator: torch.Generator) -> Frame:
    """A place for a crop of ``size`` pixels on the native token grid."""
    grid = size // sam.spec.patch_size
    free = sam.spec.grid[0] - grid + 1
    row, column = torch.randint(free, (2,), generator=generator).tolist()
    return Frame(row, column, grid)
