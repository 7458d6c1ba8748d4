"""One optimiser step of LoRA and the decoder on ViT-B at 1024 pixels, on this machine.

    python benchmarks/vit_b_step.py [--device cpu] [--precision fp32] [--checkpointing]

Weights are random, in an official-format ``.pth`` that is written and loaded first. The batch
holds two
images with one and three box prompts. Printed: seconds and peak memory of the step, and that the
loss of the batch is the mean of the two images' own losses.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

import samtune
from samtune.batch import Batch
from samtune.geometry import Geometry
from samtune.losses import Loss
from samtune.prompts import Prompts
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS
from samtune.training.memory import peak_memory


def official_file(folder: Path) -> Path:
    """Random ViT-B weights under the official names."""
    torch.manual_seed(0)
    path = folder / "sam_vit_b_random.pth"
    torch.save(Sam(SPECS["vit_b"]).state_dict(), path)
    return path


def batch(counts: tuple[int, ...], size: int = 1024) -> Batch:
    """Random images with that many box prompts each."""
    generator = torch.Generator().manual_seed(1)
    parts, targets = [], []
    for image, count in enumerate(counts):
        corner = torch.rand(count, 2, generator=generator) * size / 2
        boxes = torch.cat([corner, corner + size / 4], 1)
        parts.append(Prompts.of(boxes=boxes).at(image))
        for x0, y0, x1, y1 in boxes.long().tolist():
            target = torch.zeros(size, size, dtype=torch.bool)
            target[y0:y1, x0:x1] = True
            targets.append(target)
    n = len(counts)
    return Batch(
        pixels=torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator),
        sizes=torch.full((n, 2), size),
        prompts=Prompts.cat(parts),
        targets=torch.stack(targets),
        valid=torch.ones(n, size, size, dtype=torch.bool),
        classes=torch.zeros(sum(counts), dtype=torch.long),
        geometries=(Geometry((size, size), (size, size), (size, size)),) * n,
        names=tuple(str(i) for i in range(n)),
    )


def alone(whole: Batch, image: int) -> Batch:
    """One image of a batch, as a batch of one."""
    mine = whole.prompts.image == image
    prompts = Prompts(
        whole.prompts.coords[mine], whole.prompts.labels[mine], torch.zeros(int(mine.sum())).long()
    )
    return Batch(
        whole.pixels[image : image + 1],
        whole.sizes[image : image + 1],
        prompts,
        whole.targets[mine],
        whole.valid[image : image + 1],
        whole.classes[mine],
        whole.geometries[image : image + 1],
        whole.names[image : image + 1],
    )


def main() -> None:
    """Prints one row of a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--checkpointing", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sam = samtune.load_sam("vit_b", official_file(Path(folder)), device=options.device)
    model = samtune.FineTuned(sam, "lora", "tuned").to(options.device).train()
    model.checkpointing = options.checkpointing
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    criterion, whole = Loss.parse("bce + dice"), batch((1, 3)).to(options.device)

    def loss_of(part: Batch) -> torch.Tensor:
        with torch.autocast(
            torch.device(options.device).type, torch.bfloat16, enabled=options.precision == "bf16"
        ):
            masks = model(part.pixels, part.prompts, part.sizes)
        return criterion(masks, part)

    start = time.perf_counter()
    loss = loss_of(whole)
    loss.backward()
    optimizer.step()
    seconds, memory = time.perf_counter() - start, peak_memory(torch.device(options.device))
    model.load_state_dict(samtune.FineTuned(sam, "lora", "tuned").state_dict(), strict=True)
    with torch.no_grad():
        torch.manual_seed(0)
        together = float(loss_of(whole))
        apart = [float(loss_of(alone(whole, image))) for image in (0, 1)]
    print(
        "| device | precision | checkpointing | s | peak GB | loss of two | mean of one and one |"
    )
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {options.device} | {options.precision} | {options.checkpointing} | {seconds:.1f} | "
        f"{memory / 1e9:.2f} | {together:.7f} | {sum(apart) / 2:.7f} |"
    )


if __name__ == "__main__":
    main()
