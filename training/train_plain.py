"""A first nano in minutes of one core: plain scenes, and their foreground when nothing is asked.

    PYTHONPATH=src python training/train_plain.py --out runs/plain --minutes 20
    PYTHONPATH=src python training/export_nano.py runs/plain/last --out nano.safetensors

Beside SAM's prompts each image is asked without any, for all of its objects at once: that answer
depends on the picture alone, and the decoder learns from it to look. Boxes and clicks follow.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from initial import whiten
from objective import corrected, decode, encode, first_rows, random_frame, score
from plain_scenes import plain_scene
from prompts import SLOTS, Samples, edges_of, prompt
from torch import nn
from train_nano import Settings, Trainer

from samtune.types import ABSENT

KIND_ODDS = [0.5, 0.3, 0.1, 0.1]
FOREGROUND = 4
"""Kind of the prompt-free question, after those of ``prompts.KINDS``."""
SHAPES = {128: (8, 6), 256: (2, 8)}
"""Images in a batch, and prompts per image, by the size of the crop."""
RATES = {"adamw": 1.5e-3, "muon": 3e-3}


def samples(rng: np.random.Generator, size: int, images: int, count: int) -> Samples:
    """A batch of plain scenes; the first prompt of each image is none, for its foreground."""
    columns: list[list[np.ndarray]] = [[] for _ in range(6)]
    while len(columns[0]) < images:
        picture, labels = plain_scene(rng, size)
        area = np.bincount(labels.ravel())
        area[0] = 0
        ids = np.flatnonzero(area >= 24)
        if not len(ids):
            continue
        masks = [labels > 0, *(labels == i for i in rng.choice(ids, count - 1))]
        kinds = np.array([FOREGROUND, *rng.choice(4, count - 1, p=KIND_ODDS)])
        told = zip(masks[1:], kinds[1:], strict=True)
        asked = [_nothing(), *(prompt(rng, mask, kind) for mask, kind in told)]
        coords, marks = (np.stack(part) for part in zip(*asked, strict=True))
        edges = edges_of(np.stack([labels, labels]))
        row = (picture.transpose(2, 0, 1), np.stack(masks), coords, marks, kinds, edges)
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    flat = [torch.from_numpy(np.concatenate(column)) for column in columns[1:5]]
    pixels, edges = (torch.from_numpy(np.stack(columns[i])) for i in (0, 5))
    return Samples(pixels, torch.full((images, 2), size), *flat, edges)


def _nothing() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((SLOTS, 2), np.float32), np.full(SLOTS, ABSENT)


def update(trainer: Trainer, batch: Samples, correct: bool) -> dict[str, float]:
    """One step: the edge task, the prompts, and a second round for some of them."""
    frame = random_frame(trainer.sam, batch.pixels.shape[-1], trainer.generator)
    with trainer.autocast():
        embedding = encode(trainer.sam, batch.pixels, batch.sizes, frame)
    leaf = embedding.detach().requires_grad_()
    edge = trainer.edge(leaf, batch.edges)
    (trainer.settings.edge_weight * edge).backward()
    rows, log = first_rows(batch, frame), {"edge": float(edge.detach())}
    for number in range(1 + correct):
        with trainer.autocast():
            result = score(*decode(trainer.sam, leaf, rows, frame), rows, entropic=True)
        (result.loss * (len(rows.coords) / len(batch.kinds))).backward()
        if number == 0:
            for kind, name in enumerate(("box", "point", "points", "box+point", "none")):
                log[f"iou_{name}"] = float(result.iou[batch.kinds == kind].mean())
            rows = corrected(rows, result, torch.arange(0, len(rows.coords), 3), frame)
    embedding.backward(leaf.grad)
    nn.utils.clip_grad_norm_([*trainer.sam.parameters(), *trainer.edge.parameters()], 1.0)
    for optimizer in trainer.optimizers.values():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    trainer._advance_average()
    return log


def main() -> None:
    """Reads the options and trains until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    trainer = Trainer(Settings(minutes=options.minutes), options.out, torch.device(options.device))
    encoder = trainer.sam.image_encoder
    encoder.pos_embed.data *= 0.02 / encoder.pos_embed.std()  # large ones hide the picture
    whiten(trainer.sam, samples(rng, 128, 48, 2).pixels.to(options.device), 0.5)
    start, done = time.monotonic(), 0.0
    with (options.out / "log.jsonl").open("a") as log:
        while done < 1:
            factor = min(1.0, (trainer.step + 1) / 100, (1 - done) / 0.7)
            for name, optimizer in trainer.optimizers.items():
                for group in optimizer.param_groups:
                    group["lr"] = RATES[name] * factor
            size = 128 if rng.random() < (0.85 if done < 0.5 else 0.5) else 256
            batch = Samples(*(t.to(trainer.device) for t in samples(rng, size, *SHAPES[size])))
            numbers = update(trainer, batch, trainer.step > 500 and trainer.step % 4 == 0)
            trainer.step, trainer.seconds = trainer.step + 1, time.monotonic() - start
            done = trainer.seconds / 60 / options.minutes
            log.write(json.dumps({"step": trainer.step, "size": size, **numbers}) + "\n")
            if trainer.step % 200 == 0 or done >= 1:
                trainer.save("last")


if __name__ == "__main__":
    main()
