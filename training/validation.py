"""Held-out procedural scenes by prompt kind, and the curve of a run."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from objective import Frame, Round, Rows, corrected, decode, encode
from prompts import BOX, POINT, choose, inner_point, tight_box
from scenes import FAMILIES, SIZE, scene
from torch import Tensor

from samtune.prompts import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NOT_A_POINT, POSITIVE
from samtune.sam.model import Sam

SEED = 777_001


def synthetic(sam: Sam, device: torch.device, count: int = 40) -> dict[str, float]:
    """Mean IoU at 128 x 128 on scenes never trained on.

    Keys: ``box``, ``point`` (the mask it ranks first of three), ``point_best`` (the best of three),
    ``refined`` (the box and two corrections), and ``box_<family>``.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for index in range(count):
        family = index % len(FAMILIES)
        rng = np.random.default_rng([SEED, index])
        picture = scene(SEED, index, family=family)
        masks = choose(rng, picture.labels, 6)
        if not masks:
            continue
        for key, values in _one(sam, device, picture.image, masks, rng).items():
            found[key] += values
            if key == "box":
                found[f"box_{FAMILIES[family].__name__}"] += values
    return {key: round(float(np.mean(values)), 4) for key, values in found.items()}


@torch.no_grad()
def _one(
    sam: Sam,
    device: torch.device,
    image: np.ndarray,
    masks: list[np.ndarray],
    rng: np.random.Generator,
) -> dict[str, list[float]]:
    frame = Frame(0, 0, SIZE // sam.spec.patch_size)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
    embedding = encode(sam, pixels, torch.tensor([[SIZE, SIZE]], device=device), frame)
    targets = torch.from_numpy(np.stack(masks)).float().to(device)
    targets = torch.nn.functional.avg_pool2d(targets[:, None], 2)[:, 0]
    found = {}
    for kind in (BOX, POINT):
        coords, labels = _slots(masks, kind, rng)
        none = torch.zeros(len(masks), dtype=torch.long, device=device)
        rows = Rows(coords.to(device), labels.to(device), none, targets, none.bool(), None)
        logits, estimate = decode(sam, embedding, rows, frame)
        iou = _iou(logits, targets)
        if kind == BOX:
            found["box"] = iou[:, 0].tolist()
            for _ in range(2):
                result = Round(torch.zeros(()), logits[:, 0], iou[:, 0])
                rows = corrected(rows, result, torch.arange(len(masks), device=device), frame)
                logits, _estimate = decode(sam, embedding, rows, frame)
                iou = _iou(logits, targets)
            found["refined"] = iou[:, 0].tolist()
        else:
            first = estimate[:, 1:].argmax(1, keepdim=True) + 1
            found["point"] = iou.gather(1, first)[:, 0].tolist()
            found["point_single"] = iou[:, 0].tolist()
            found["point_best"] = iou[:, 1:].max(1).values.tolist()
    return found


def _slots(masks: list[np.ndarray], kind: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    coords, labels = np.zeros((len(masks), 2, 2), np.float32), np.full((len(masks), 2), ABSENT)
    for row, mask in enumerate(masks):
        if kind == BOX:
            coords[row] = tight_box(mask).reshape(2, 2)
            labels[row] = BOX_TOP_LEFT, BOX_BOTTOM_RIGHT
        else:
            coords[row, 0], labels[row] = inner_point(rng, mask), (POSITIVE, NOT_A_POINT)
    return torch.from_numpy(coords), torch.from_numpy(labels)


def _iou(logits: Tensor, targets: Tensor) -> Tensor:
    inside, truth = logits > 0, (targets > 0.5)[:, None]
    return (inside & truth).sum((-2, -1)) / (inside | truth).sum((-2, -1)).clamp(min=1)


def curve(out: Path, width: int = 720, height: int = 360) -> None:
    """Draws ``curve.svg`` from the run's logs: validation IoU by prompt, training loss."""
    checks = [json.loads(line) for line in (out / "validation.jsonl").read_text().splitlines()]
    steps = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    wide, high = width - 150, height - 60
    start, end = 60 * (steps[0]["seconds"] // 60), max(checks[-1]["seconds"], 1.0)
    series = {
        key: [(c["seconds"], c[key]) for c in checks]
        for key in ("box", "refined", "point_best", "point")
    }
    block = max(1, len(steps) // 100)
    blocks = [steps[i : i + block] for i in range(0, len(steps), block)]
    series["loss / 4"] = [
        (b[-1]["seconds"], min(1.0, float(np.mean([s["loss1"] for s in b])) / 4)) for b in blocks
    ]
    colours = ("#1b6ca8", "#2a9d58", "#c26a1b", "#8a5bb5", "#999999")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">'
    ]
    for level in (0, 0.25, 0.5, 0.75, 1):
        y = 20 + high * (1 - level)
        parts.append(
            f'<path d="M40 {y:.1f}H{width - 110}" stroke="#ddd"/>'
            f'<text x="8" y="{y + 4:.1f}">{level}</text>'
        )
    for row, (colour, (name, points)) in enumerate(zip(colours, series.items(), strict=True)):
        xy = " ".join(
            f"{40 + wide * (t - start) / (end - start):.1f},{20 + high * (1 - v):.1f}"
            for t, v in points
        )
        parts.append(f'<polyline points="{xy}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{width - 100}" y="{30 + 18 * row}" fill="{colour}">{name}</text>')
    parts.append(
        f'<text x="40" y="{height - 10}">{start / 60:.0f} to {end / 60:.0f} minutes of the '
        "budget</text></svg>"
    )
    (out / "curve.svg").write_text("\n".join(parts))
