"""``samtune.MaskGenerator`` beside the official generator: the same masks, and the time of both.

    python benchmarks/everything.py PACKAGE [--points 32] [--out benchmarks/results/everything.md]

PACKAGE is the folder that holds ``segment_anything``, as of ``pip download segment-anything`` (1.0)
and ``unzip``. Both run in one process, on one thread, with the same weights, image, grid and
thresholds. The two functions of torchvision that the package needs for masks, non-maximum
suppression and areas of boxes, are replaced by the plain ones below, and its resizing of images by
Pillow, of which torchvision makes use for pictures too; so torchvision need not be installed.

Time is that of the processor: other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import sys
import time
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

import samtune
from samtune.inference.everything.instances import Instances
from samtune.inference.everything.run_lengths import as_coco
from samtune.model.finetuned import FineTuned
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, SamSpec

SMALL = SamSpec(
    "small",
    embed_dim=64,
    depth=2,
    heads=2,
    global_blocks=(1,),
    image_size=1024,
    patch_size=16,
    window=14,
    prompt_dim=256,
    decoder_hidden=2048,
    iou_hidden=256,
)
"""SAM's frame and decoder, behind a small random encoder."""


def nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression, box by box, in place of ``torchvision.ops.boxes.batched_nms``."""
    assert not groups.any()
    order = scores.sort(stable=True, descending=True).indices
    stays: list[Tensor] = []
    while len(order):
        best, order = order[0], order[1:]
        stays.append(best)
        low = torch.maximum(boxes[best, :2], boxes[order, :2])
        high = torch.minimum(boxes[best, 2:], boxes[order, 2:])
        both = (high - low).clamp(min=0).prod(1)
        union = areas(boxes[best][None]) + areas(boxes[order]) - both
        order = order[~(both / union > iou_threshold)]
    return torch.stack(stays) if stays else torch.zeros(0, dtype=torch.long)


def areas(boxes: Tensor) -> Tensor:
    """In place of ``torchvision.ops.boxes.box_area``."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def stand_in() -> None:
    """Puts modules with these functions in torchvision's place."""

    def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        return image.resize(size[::-1], Image.Resampling.BILINEAR)

    parts: dict[str, dict[str, Any]] = {
        "torchvision": {},
        "torchvision.ops": {},
        "torchvision.ops.boxes": {"batched_nms": nms, "box_area": areas},
        "torchvision.transforms": {},
        "torchvision.transforms.functional": {"resize": resize, "to_pil_image": Image.fromarray},
    }
    for name, functions in parts.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(functions)


def official(sam: Sam) -> nn.Module:
    """The official model with the weights of a base of samtune."""
    from segment_anything.modeling import (  # type: ignore[import-not-found]
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        TwoWayTransformer,
    )
    from segment_anything.modeling import Sam as OfficialSam

    spec = sam.spec
    side = spec.image_size // spec.patch_size
    encoder = ImageEncoderViT(
        depth=spec.depth,
        embed_dim=spec.embed_dim,
        img_size=spec.image_size,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=spec.heads,
        patch_size=spec.patch_size,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=spec.global_blocks,
        window_size=spec.window,
        out_chans=spec.prompt_dim,
    )
    frame = (spec.image_size, spec.image_size)
    prompts = PromptEncoder(spec.prompt_dim, (side, side), frame, mask_in_chans=16)
    transformer = TwoWayTransformer(2, spec.prompt_dim, 8, spec.decoder_hidden)
    decoder = MaskDecoder(
        transformer_dim=spec.prompt_dim,
        transformer=transformer,
        iou_head_hidden_dim=spec.iou_hidden,
    )
    model = OfficialSam(encoder, prompts, decoder)
    model.load_state_dict(sam.state_dict())
    return model.eval()


def random_base() -> Sam:
    """A small random SAM whose logits and scores spread as those of a trained one."""
    torch.manual_seed(0)
    sam = Sam(SMALL)
    decoder = sam.mask_decoder
    with torch.no_grad():
        for head in decoder.output_hypernetworks_mlps:
            head.layers[-1].weight *= 60
        decoder.iou_prediction_head.layers[-1].bias += 0.6
    return sam.freeze()


def photograph(size: tuple[int, int]) -> np.ndarray:
    """Blobs of several sizes on a gradient, with noise: ``(h, w, 3)`` uint8."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.stack([rows, columns, rows + columns], 2) * (80 / sum(size))
    for _ in range(40):
        y, x, r = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(5, 60)
        inside = (rows - y) ** 2 + ((columns - x) * rng.uniform(0.6, 1.6)) ** 2 < r**2
        image[inside] = rng.uniform(0, 255, 3)
    return (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)


def thresholds(model: FineTuned, image: np.ndarray) -> dict[str, float]:
    """Thresholds that about half of the masks pass each, half way between two neighbours.

    Suppression stays as it is, so of the masks that pass them one of each object is left.
    """
    loose = {"pred_iou_thresh": 0, "stability_score_thresh": 0, "box_nms_thresh": 1}
    masks = samtune.MaskGenerator(model, points_per_side=8, **loose)(image)
    assert masks.stability is not None
    rows = {"pred_iou_thresh": masks.scores, "stability_score_thresh": masks.stability}
    ordered = {name: np.sort(values) for name, values in rows.items()}
    return {name: float(values[len(values) // 2 :][:2].mean()) for name, values in ordered.items()}


def agreement(mine: Instances, theirs: list[dict[str, Any]]) -> tuple[int, float]:
    """Pairs of masks one to one, and the least IoU of them."""
    others = Instances.of_masks([row["segmentation"] for row in theirs], mine.size)
    coded = [[as_coco(c, mine.size) for c in each.counts] for each in (mine, others)]
    iou = coco.iou(*coded, [0] * len(others))
    rows, columns = linear_sum_assignment(-iou)
    return len(rows), float(iou[rows, columns].min())


def compare(sam: Sam, image: np.ndarray, settings: dict[str, Any]) -> str:
    """A row of the table: both generators on one image."""
    from segment_anything import SamAutomaticMaskGenerator

    model = FineTuned(sam)
    generator = samtune.MaskGenerator(model, **settings)
    other = SamAutomaticMaskGenerator(official(sam), **settings)
    with torch.no_grad():  # the first pass of each pays for memory
        small = {**settings, "points_per_side": 2, "crop_n_layers": 0}
        samtune.MaskGenerator(model, **small)(image)
        SamAutomaticMaskGenerator(other.predictor.model, **small).generate(image)
        start = time.process_time()
        theirs = other.generate(image)
        middle = time.process_time()
        mine = generator(image)
        end = time.process_time()
    pairs, least = agreement(mine, theirs)
    seconds = middle - start, end - middle
    h, w = image.shape[:2]
    side = settings["points_per_side"]
    more = [f"{k} {v}" for k, v in settings.items() if k.startswith(("crop", "min_", "box"))]
    name = ", ".join([sam.spec.name, *more])
    cells = [name, f"{w} x {h}", f"{side} x {side}", f"{len(theirs)}", f"{len(mine)}"]
    cells += [f"{pairs}", f"{least:.4f}", *(f"{s:.1f}" for s in seconds)]
    return "| " + " | ".join([*cells, f"{seconds[0] / seconds[1]:.1f}"]) + " |"


def main() -> None:
    """Prints the table, and writes it if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--points", type=int, default=32, help="on a side, of SAM's decoder")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(options.package))
    stand_in()
    base, nano = random_base(), samtune.load_sam("nano")
    assert nano.spec == SPECS["nano"]
    small = photograph((200, 300))
    head = "| base | image | points | official | samtune | pairs | least IoU "
    head += "| official, s | samtune, s | ratio |"
    lines = [head, "|---" * 10 + "|"]

    def row(sam: Sam, image: np.ndarray, points: int, **more: Any) -> None:
        limits = thresholds(FineTuned(sam), image)
        lines.append(compare(sam, image, {"points_per_side": points, **limits, **more}))
        print(lines[-1], flush=True)

    print(*lines, sep="\n")
    row(nano, photograph((256, 256)), 32)
    row(nano, small, 8, crop_n_layers=1)
    row(nano, small, 8, min_mask_region_area=50)
    row(base, small, options.points)
    row(base, small, options.points, box_nms_thresh=1.0)
    if options.out:
        options.out.write_text(f"# Masks of everything\n\n{__doc__}\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
