"""Exported weights in the programs that they are for, asked beside samtune.

    python benchmarks/exports/judge_weights.py FOLDER [BASE ...]

It tunes nothing: it fills bases of the official sizes (vit_b and vit_t) and an adapter with random
numbers, exports them as ``pth`` into new folders in FOLDER, and loads the files with the strict
readers of segment-anything and Ultralytics, whichever is installed (``pip install segment-anything
torchvision ultralytics``; torchvision must be the one for the torch that is installed). It prints
the IoU of masks, or the largest difference of embeddings, on an image of the demo. vit_b takes
minutes of one core.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import torch

from samtune.assets import demo_data
from samtune.data import read_image
from samtune.exports.writing import export
from samtune.model.finetuned import FineTuned
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

BOX = np.array([60.0, 50.0, 190.0, 200.0])
POINT = np.array([[120.0, 110.0]])


def random_model(name: str, adapter: str) -> FineTuned:
    """A model of an official size whose numbers are drawn, with masks of both signs."""
    torch.manual_seed(0)
    sam = Sam(SPECS[name])
    with torch.no_grad():
        for tensor in sam.image_encoder.parameters():
            if tensor.dim() < 2:
                continue
            tensor.normal_(std=0.02)
    model = FineTuned(sam.freeze(), adapter, "tuned", prompts="box+point")
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.02 * torch.randn_like(tensor))
    return model.eval()


def predicted(predictor: object, image: np.ndarray) -> list[np.ndarray]:
    """Masks of a box, a point, and both, from anything with ``SamPredictor``'s methods."""
    predictor.set_image(image)  # type: ignore[attr-defined]
    asks = ({"box": BOX}, {"point_coords": POINT, "point_labels": np.array([1])})
    asks += ({**asks[0], **asks[1]},)
    masks = [predictor.predict(**ask, multimask_output=False)[0] for ask in asks]  # type: ignore[attr-defined]
    return [np.asarray(mask[0], bool) for mask in masks]


def iou(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The least IoU of two lists of masks."""
    pairs = zip(ours, theirs, strict=True)
    return min(float((a & b).sum() / max(1, (a | b).sum())) for a, b in pairs)


def segment_anything(name: str, file: Path, image: np.ndarray, ours: list[np.ndarray]) -> str:
    """The file in segment-anything, which loads strictly."""
    from segment_anything import SamPredictor, sam_model_registry

    sam = sam_model_registry[name](str(file))
    return f"IoU {iou(ours, predicted(SamPredictor(sam), image)):.5f}"


def ultralytics(name: str, file: Path, image: np.ndarray, ours: list[np.ndarray]) -> str:
    """The file in Ultralytics' builder, which knows it by its name and loads strictly."""
    from ultralytics.models.sam.build import build_sam

    sam = build_sam(str(file))
    pixels = np.zeros((1024, 1024, 3), np.float32)
    pixels[:] = (123.675, 116.28, 103.53)
    pixels[:700, :900] = np.random.default_rng(0).uniform(0, 255, (700, 900, 3))
    x = (torch.as_tensor(pixels).permute(2, 0, 1)[None] - sam.pixel_mean) / sam.pixel_std
    with torch.no_grad():
        theirs = sam.image_encoder(x)
        mine = MERGED[name].image_encoder(x)
    return f"embedding differs by {float((theirs - mine).abs().max()):.2g}"


MERGED: dict[str, Sam] = {}


CASES = {"vit_b": ("lora", (segment_anything, ultralytics)), "vit_t": ("bitfit", (ultralytics,))}
"""The adapter and the programs of each base."""


def main(folder: Path, names: list[str]) -> None:
    """Prints one line for each base and program."""
    photo = next((demo_data() / "images" / "test").glob("*.png"))
    (folder / "photo").mkdir(parents=True, exist_ok=True)
    shutil.copy(photo, folder / "photo")
    for name in names:
        adapter, judges = CASES[name]
        model = random_model(name, adapter)
        image = read_image(photo, model.input)
        MERGED[name] = model.merge()
        ours = predicted(model.predictor(), image)
        out = folder / name
        export(model, out, "pth", name="polyps", check=folder / "photo", ultralytics=True)
        file = next(out.glob("*.pt"))
        for judge in judges:
            try:
                print(f"{name} {file.name} in {judge.__name__}: {judge(name, file, image, ours)}")
            except ImportError as error:
                print(f"{name} {file.name} in {judge.__name__}: not installed ({error})")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(CASES))
