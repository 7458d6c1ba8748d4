"""Zero-shot IoU of nano on data sets it was not trained on, beside guesses that need no model.

    python training/evaluate_nano.py runs/nano/last/ema.safetensors --kvasir FOLDER --dsb2018 FOLDER

Images are scaled so that the longest side has 256 pixels and padded right and below; masks are
compared in the original resolution; only objects of 100 pixels and more count. A set's figure is
the mean over its objects, and over its images where nothing is pointed at. Prompts: the tight
``box`` (``box_cut``: its mask cut off at the box); a ``point`` deep inside, answered by the mask
ranked first of three (``point_best``: the best of them, ``point_single``: the single mask);
``clicks_3``, that point and two clicks in the middle of the largest error; ``box_click``, the box
and one such click; a coarse ``mask`` that says where but not which outline; and ``none``, measured
against all objects of the image at once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

from samtune.data.config import PromptConfig
from samtune.data.draws import Draws
from samtune.data.prompters import Objects, Sampling, sample_mask
from samtune.data.transforms import fit_mask
from samtune.geometry import Geometry
from samtune.inference.clicks import central_clicks
from samtune.prompts import Prompts
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

SMALLEST = 100
CHUNK = 32


class Sample(NamedTuple):
    """An image and the objects to find in it."""

    image: np.ndarray
    """``(h, w, 3)`` u8 RGB."""
    masks: list[np.ndarray]
    """``(h, w)`` bool each."""


def read_rgb(path: Path) -> np.ndarray:
    """``(h, w, 3)`` u8 RGB of any picture, alpha dropped."""
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def kvasir(root: Path, part: str = "test") -> Iterator[Sample]:
    """Kvasir-SEG, the split ``part``: all polyps of an image are one object."""
    for name in (root / f"{part}.txt").read_text().split():
        stem = Path(name).stem
        mask = cv2.imread(str(root / "masks" / f"{stem}.jpg"), cv2.IMREAD_GRAYSCALE) > 127
        yield Sample(read_rgb(root / "images" / f"{stem}.jpg"), [mask])


def kvasir_train(root: Path) -> Iterator[Sample]:
    """The images of Kvasir-SEG's training split, from which nano never learnt."""
    return kvasir(root, "train")


def dsb2018(root: Path) -> Iterator[Sample]:
    """Data Science Bowl 2018: one object a nucleus."""
    for path in sorted((root / "masks").iterdir()):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        yield Sample(read_rgb(root / "images" / path.name), instances(labels))


def isbi2012(root: Path) -> Iterator[Sample]:
    """ISBI 2012: the connected interiors between membranes."""
    for path in sorted((root / "masks").iterdir()):
        inside = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127).astype(np.uint8)
        image = next((root / "images").glob(f"{path.stem}.*"))
        yield Sample(read_rgb(image), instances(cv2.connectedComponents(inside, connectivity=4)[1]))


def camvid(root: Path) -> Iterator[Sample]:
    """CamVid, test part: the connected components of each class."""
    for path in sorted((root / "masks" / "test").iterdir()):
        classes = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        masks = []
        for index in range(11):
            masks += instances(cv2.connectedComponents((classes == index).astype(np.uint8))[1])
        yield Sample(read_rgb(root / "images" / "test" / path.name), masks)


def coco(root: Path) -> Iterator[Sample]:
    """COCO val2017 images of the folder: one object an annotation that is no crowd."""
    from pycocotools.coco import COCO

    index = COCO(str(root / "annotations" / "instances_val2017.json"))
    for key in sorted(index.imgs):
        found = index.loadAnns(index.getAnnIds(imgIds=key, iscrowd=0))
        path = root / "images" / "val2017" / index.imgs[key]["file_name"]
        yield Sample(read_rgb(path), [index.annToMask(a).astype(bool) for a in found])


def instances(labels: np.ndarray) -> list[np.ndarray]:
    """The masks of a label map, background 0 left out."""
    return [labels == i for i in np.unique(labels) if i]


SETS: dict[str, Callable[[Path], Iterator[Sample]]] = {
    f.__name__: f for f in (kvasir, kvasir_train, dsb2018, isbi2012, camvid, coco)
}


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """``x0 y0 x1 y1`` of the mask's outer pixels."""
    y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(x[0]), int(y[0]), int(x[-1]), int(y[-1])


def deepest(mask: np.ndarray) -> tuple[float, float]:
    """``x y`` of the pixel farthest from the boundary."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return float(x), float(y)


def guesses(mask: np.ndarray) -> dict[str, float]:
    """IoU of the filled box and of the ellipse inscribed in it."""
    x0, y0, x1, y1 = box_of(mask)
    cut = mask[y0 : y1 + 1, x0 : x1 + 1]
    h, w = cut.shape
    y, x = (np.arange(h) + 0.5) / h * 2 - 1, (np.arange(w) + 0.5) / w * 2 - 1
    ellipse = x**2 + y[:, None] ** 2 <= 1
    iou = (cut & ellipse).sum() / (cut | ellipse).sum()
    return {"guess_box": float(cut.mean()), "guess_ellipse": float(iou)}


def load(path: Path, device: str) -> Sam:
    """The spec nano with the weights of a file, any floating type."""
    sam = Sam(SPECS["nano"])
    sam.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return sam.freeze().to(device)


@torch.no_grad()
def predictions(sam: Sam, sample: Sample, device: str) -> dict[str, list[float]]:
    """IoU of every object by prompt, and of all of them at once without one; see the module."""
    h, w = sample.image.shape[:2]
    side = sam.spec.image_size
    scale = side / max(h, w)
    resized = (max(1, round(h * scale)), max(1, round(w * scale)))
    geometry = Geometry((h, w), resized, (side, side))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[: resized[0], : resized[1]] = cv2.resize(sample.image, resized[::-1], interpolation=how)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device)
    embedding = sam.image_encoder(sam.preprocess(image, torch.tensor([resized], device=device)))
    asked = Asked(sam, embedding, geometry)
    found: dict[str, list[float]] = defaultdict(list)
    for start in range(0, len(sample.masks), CHUNK):
        for key, values in asked.all(sample.masks[start : start + CHUNK]).items():
            found[key] += values
    everything = torch.from_numpy(np.any(sample.masks, 0))[None].to(device)
    found["none"] += asked.single(Prompts.of(count=1).to(device), everything)[0].tolist()
    return found


class Asked(NamedTuple):
    """One encoded image, ready to be asked."""

    sam: Sam
    embedding: torch.Tensor
    geometry: Geometry

    def all(self, masks: list[np.ndarray]) -> dict[str, list[float]]:
        """IoU of each of some objects, by prompt."""
        device = self.embedding.device
        truth = torch.from_numpy(np.stack(masks)).to(device)
        boxes = torch.tensor([box_of(m) for m in masks], dtype=torch.float, device=device)
        points = torch.tensor([deepest(m) for m in masks], dtype=torch.float, device=device)
        clicks = Prompts.of(points=points[:, None], labels=torch.ones(len(masks), 1, device=device))
        clicks, framed = (p.to_model(self.geometry) for p in (clicks, Prompts.of(boxes=boxes)))
        three = self.sam.decode(self.embedding, clicks, self.geometry.model, True)
        iou = self._iou(three.logits, truth)
        first = iou.gather(1, three.iou.argmax(1, keepdim=True))[:, 0]
        found = {"point": first, "point_best": iou.max(1).values}
        found["point_single"], _ = self.single(clicks, truth)
        low = three.best().logits
        for _ in range(2):
            clicks = self._corrected(clicks, low, truth)
            found["clicks_3"], low = self.single(clicks, truth)
        found["box"], low = self.single(framed, truth)
        inside = self.geometry.masks_to_original(low)[:, 0] > 0
        found["box_cut"] = _overlap(inside & _within(boxes, inside), truth)
        found["box_click"], _ = self.single(self._corrected(framed, low, truth), truth)
        found["mask"], _ = self.single(self._coarse(masks).to(device), truth)
        return {key: values.tolist() for key, values in found.items()}

    def single(self, prompts: Prompts, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """IoU ``(N,)`` of the single mask, and its logits ``(N, 1, 4H, 4W)``."""
        out = self.sam.decode(self.embedding, prompts, self.geometry.model, False)
        return self._iou(out.logits, truth)[:, 0], out.logits

    def _iou(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return _overlap(self.geometry.masks_to_original(logits) > 0, truth[:, None])

    def _corrected(self, prompts: Prompts, low: torch.Tensor, truth: torch.Tensor) -> Prompts:
        answers = (self.geometry.masks_to_original(low)[:, 0] > 0).cpu()
        everywhere = torch.ones(self.geometry.original, dtype=torch.bool)
        xy, labels = central_clicks(answers, truth.cpu(), everywhere)
        return prompts.with_click(self.geometry.to_model(xy), labels, low)

    def _coarse(self, masks: list[np.ndarray]) -> Prompts:
        grid = self.sam.spec.grid
        draws, size = Draws(np.random.default_rng(0)), (4 * grid[0], 4 * grid[1])
        how = Sampling(PromptConfig(), False, draws, size)
        one = np.zeros(1, np.int64)
        maps = [m.astype(np.uint8) for m in masks]
        objects = [Objects(m, fit_mask(m, self.geometry), 1) for m in maps]
        return Prompts.cat([sample_mask(o, one, how) for o in objects])


def _overlap(inside: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return (inside & truth).sum((-2, -1)) / (inside | truth).sum((-2, -1)).clamp(min=1)


def _within(boxes: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``(N, h, w)`` bool: the pixels of boxes whose last pixel belongs to them."""
    h, w = like.shape[-2:]
    y, x = torch.arange(h, device=boxes.device), torch.arange(w, device=boxes.device)
    x0, y0, x1, y1 = boxes.T[..., None]
    rows, columns = (y >= y0) & (y <= y1), (x >= x0) & (x <= x1)
    return rows[:, :, None] & columns[:, None, :]


def evaluate(sam: Sam, samples: Iterator[Sample], device: str, every: int) -> dict[str, float]:
    """The mean of every figure over every ``every``-th image, and how many were measured."""
    found: dict[str, list[float]] = defaultdict(list)
    images = 0
    for index, sample in enumerate(samples):
        masks = [m for m in sample.masks if m.sum() >= SMALLEST]
        if index % every or not masks:
            continue
        images += 1
        for mask in masks:
            for key, value in guesses(mask).items():
                found[key].append(value)
        for key, values in predictions(sam, Sample(sample.image, masks), device).items():
            found[key] += values
    means = {key: round(float(np.mean(values)), 4) for key, values in found.items()}
    return {"objects": len(found["box"]), "images": images} | means


@torch.no_grad()
def encoding(sam: Sam, device: str, repeats: int = 30) -> dict[str, float]:
    """Milliseconds to encode one image of native size, in the threads that torch has."""
    side, spent = sam.spec.image_size, []
    pixels = sam.preprocess(torch.zeros(1, 3, side, side, dtype=torch.uint8, device=device))
    for _ in range(repeats + 3):
        start = time.perf_counter()
        sam.image_encoder(pixels).sum().item()
        spent.append(1e3 * (time.perf_counter() - start))
    spent = spent[3:]
    median = round(float(np.median(spent)), 1)
    return {
        "median_ms": median,
        "least_ms": round(min(spent), 1),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Prints one JSON line per set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="safetensors of nano")
    for name in SETS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="FOLDER")
    parser.add_argument("--every", type=int, default=1, help="take every n-th image")
    parser.add_argument("--time", action="store_true", help="time the encoding of an image too")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    sam = load(args.weights, args.device)
    if args.time:
        print(json.dumps({"encoding": encoding(sam, args.device)}))
    for name, reader in SETS.items():
        root = getattr(args, name)
        if root is not None:
            result = evaluate(sam, reader(root), args.device, args.every)
            print(json.dumps({"set": name} | result), flush=True)


if __name__ == "__main__":
    main()
