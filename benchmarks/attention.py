"""Folded against textbook attention: memory and time of one global block's attention, as ratios.

    python benchmarks/attention.py [--grid 64] [--heads 12] [--width 64] [--rounds 5] [--device cpu]

Forward and backward, both forms interleaved in one process; the median of the rounds. Memory is
what autograd keeps for the backward pass, counted by saved-tensor hooks (each storage once).
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from samtune.ops.attention import attend
from samtune.ops.resize import relative

FORMS = ("textbook", "folded")


def inputs(grid: int, heads: int, width: int, device: str) -> list[torch.Tensor]:
    """Queries, keys, values and the two relative tables, all with gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, grid * grid, width)] * 3 + [(2 * grid - 1, width)] * 2
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    return [t.to(device).requires_grad_() for t in made]


def run(form: str, tensors: list[torch.Tensor], grid: int) -> tuple[torch.Tensor, float, int]:
    """Output, seconds for forward and backward, and bytes kept between them."""
    q, k, v, table_h, table_w = tensors
    kept: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return t

    start = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        rel_h, rel_w = relative(table_h, grid, grid), relative(table_w, grid, grid)
        out = attend(q, k, v, rel_h, rel_w, form=form)
    out.sum().backward()
    return out.detach(), time.perf_counter() - start, sum(kept.values())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("grid", 64), ("heads", 12), ("width", 64), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    o = parser.parse_args()
    tensors = inputs(o.grid, o.heads, o.width, o.device)
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    outputs, memory = {}, {}
    for _ in range(o.rounds):
        for form in FORMS:
            outputs[form], spent, memory[form] = run(form, tensors, o.grid)
            seconds[form].append(spent)
    difference = float((outputs["textbook"] - outputs["folded"]).abs().max())
    middle = {form: statistics.median(seconds[form]) for form in FORMS}
    print(f"grid {o.grid}x{o.grid}, {o.heads} heads of {o.width}, differing by {difference:.1e}")
    print("| form | kept for backward, MB | ratio | seconds, median (least to most) | ratio |")
    print("|---|---|---|---|---|")
    for form in FORMS:
        spread = f"{min(seconds[form]):.2f} to {max(seconds[form]):.2f}"
        print(
            f"| {form} | {memory[form] / 1e6:.0f} | {memory[form] / memory['textbook']:.2f} | "
            f"{middle[form]:.2f} ({spread}) | {middle[form] / middle['textbook']:.2f} |"
        )


if __name__ == "__main__":
    main()
