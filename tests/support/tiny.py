"""The tiny base that tests share, and miniature data to train it on.

A module rather than fixtures alone, so that the processes of distributed tests can use it too.
"""

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import deterministic
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from samtune.adapters import ADAPTERS
from samtune.batch import Batch
from samtune.data.dense_targets import DENSE_TARGETS
from samtune.geometry import Geometry
from samtune.prompts import Prompts
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SamSpec
from samtune.sam.weights import from_state

TINY = SamSpec(
    "tiny",
    embed_dim=32,
    depth=4,
    heads=2,
    global_blocks=(1, 3),
    image_size=64,
    patch_size=8,
    window=3,  # does not divide the grid of 8: windows are padded
    prompt_dim=32,
    decoder_hidden=64,
    iou_hidden=32,
)

SHALLOW = replace(TINY, depth=2, global_blocks=(1,))
"""One block of each kind, for what takes the longer the more there are."""


def options(adapter: str) -> dict[str, Any]:
    """What a method says of small bases; a combination holds for the defaults."""
    return {} if "+" in adapter else dict(ADAPTERS[adapter].small)


def base(spec: SamSpec = TINY) -> Sam:
    """A frozen base; every tensor, relative positions too, holds numbers that hide nothing."""
    return copy.deepcopy(_filled(spec))


@cache
def _filled(spec: SamSpec) -> Sam:
    """What is copied: to fill it takes longer than many a test."""
    with shapes_alone():
        names = Sam(spec).state_dict()
    return from_state(spec, deterministic.fill(names))


def pixels(images: int = 2, size: tuple[int, int] = (64, 64), name: str = "pixels") -> torch.Tensor:
    """``(B, 3, h, w)`` in 0..255; each image depends on its index alone."""
    return torch.stack(
        [deterministic.tensor(f"{name}.{i}", (3, *size), 0, 255) for i in range(images)]
    )


def boxes(image: list[int], size: tuple[int, int] = (64, 64)) -> Prompts:
    """One box for each entry of ``image``, the index of the image that it lies in."""
    n, scale = len(image), torch.tensor([size[1], size[0]] * 2)
    top_left = deterministic.tensor("top left", (n, 2), 0.05, 0.4)
    bottom_right = deterministic.tensor("bottom right", (n, 2), 0.6, 0.95)
    corners = torch.cat([top_left, bottom_right], 1) * scale
    return Prompts.of(boxes=corners, image=torch.tensor(image, dtype=torch.long))


def batch(image: list[int], images: int = 2, size: tuple[int, int] = (64, 64)) -> Batch:
    """A batch with one box and one target for each entry of ``image``."""
    targets = [deterministic.tensor(f"target.{k}", size) > 0.6 for k in range(len(image))]
    valid = torch.ones(images, *size, dtype=torch.bool)
    valid[:, -5:] = False
    return Batch(
        pixels=pixels(images, size).to(torch.uint8),
        sizes=torch.tensor([size] * images),
        prompts=boxes(image, size),
        targets=torch.stack(targets) if targets else torch.zeros(0, *size, dtype=torch.bool),
        valid=valid,
        classes=torch.zeros(len(image), dtype=torch.long),
        geometries=(Geometry(size, size, size),) * images,
        names=tuple(str(i) for i in range(images)),
    )


def dense(batch: Batch, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Dense targets of a batch: each image has two objects, of the first two classes."""
    h, w = batch.pixels.shape[-2:]
    objects = np.zeros((h, w), np.uint8)
    objects[h // 8 : h // 2, w // 8 : w // 2], objects[h // 2 : -4, w // 3 : -6] = 1, 2
    maps = {name: DENSE_TARGETS[name](objects, np.arange(2)) for name in names}
    return {name: map.expand(len(batch.pixels), *map.shape) for name, map in maps.items()}


def own_size(
    prompts: Prompts, geometries: list[Geometry], targets: list[Tensor], valid: list[Tensor]
) -> Batch:
    """A batch for a loss at the images' own sizes: nothing in its frame counts.

    Args:
        prompts: In the model's frame.
        geometries: Of each image.
        targets: Of each image ``(N_b, h0, w0)``, in the order of its prompts.
        valid: Of each image ``(h0, w0)``.
    """
    b, n, frame = len(geometries), len(prompts), geometries[0].model
    return Batch(
        pixels=torch.zeros(b, 3, *frame, dtype=torch.uint8),
        sizes=torch.tensor([g.resized for g in geometries]),
        prompts=prompts,
        targets=torch.zeros(n, *frame, dtype=targets[0].dtype),
        valid=torch.zeros(b, *frame, dtype=torch.bool),
        classes=torch.zeros(n, dtype=torch.long),
        geometries=tuple(geometries),
        names=tuple(str(i) for i in range(b)),
        originals=tuple(targets),
        original_valid=tuple(valid),
    )


def write_pairs(root: Path, count: int = 8, size: tuple[int, int] = (48, 64)) -> Path:
    """Writes ``images/`` and ``masks/``: bright ellipses on dark noise; gives the root."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        rng = np.random.default_rng(i)
        y, x, a, b = rng.uniform((0.3, 0.3, 0.12, 0.12), (0.7, 0.7, 0.28, 0.28)) * (size * 2)
        inside = ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1
        image = rng.integers(0, 90, (*size, 3)) + 120 * inside[..., None]
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{i:02}.png")
        Image.fromarray(inside.astype(np.uint8) * 255).save(root / "masks" / f"{i:02}.png")
    return root
