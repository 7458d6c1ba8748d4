"""Every metric beside a library's: ``python benchmarks/metric_agreement.py`` prints a table.

Each row runs on the same random and degenerate masks and says by how much the two differ at most.
Where definitions differ the cases are left out and named. The test suite runs the same rows.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from samtune.metrics import MaskMetrics, Seen, iou_dice
from samtune.metrics.boundaries import BoundaryMetrics, boundary_iou
from samtune.metrics.instances import AveragePrecision, overlaps, segmentation_accuracy
from samtune.metrics.published import AbsentClassIoU
from samtune.metrics.regions import RegionMetrics
from samtune.metrics.saliency import SaliencyMetrics
from samtune.metrics.shadow import BalancedError

HOW = ("mean", "max")
SINGLE = "single precision there: 1e-7 of the distance"


@dataclass(frozen=True)
class Case:
    """One image: a probability map, its mask, and a target."""

    name: str
    probability: np.ndarray
    target: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The map above one half."""
        return self.probability > 0.5

    def seen(self) -> Seen:
        """As metrics take it."""
        masks = (torch.from_numpy(m)[None] for m in (self.predicted, self.target))
        return Seen(*masks, probability=torch.from_numpy(self.probability))


@dataclass(frozen=True)
class Row:
    """One metric against one library."""

    metric: str
    library: str
    cases: int
    difference: float
    reason: str = ""


def disc(shape, y, x, radius) -> np.ndarray:
    """A mask of the pixels around a point."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def cases() -> list[Case]:
    """Random, blurred, constant and binary maps, each on ten kinds of target."""
    found = []
    for seed, shape in enumerate([(48, 64), (37, 53)]):
        random = np.random.default_rng(seed)
        h, w = shape
        none = np.zeros(shape, bool)
        targets = {
            "random": random.random(shape) > 0.6,
            "disc": disc(shape, h / 2, w / 3, 11),
            "two": disc(shape, 12, 14, 8) | disc(shape, 25, 40, 6),
            "touching the border": disc(shape, 0, w - 1, 15),
            "empty": none,
            "full": ~none,
            "one pixel": disc(shape, 20, 30, 0.5),
            "corner pixel": disc(shape, 0, 0, 0.5),
            "last row": none | (np.arange(h) == h - 1)[:, None],
            "all but one pixel": ~disc(shape, 9, 9, 0.5),
        }
        for name, target in targets.items():
            shifted = np.roll(target, (2, 3), (0, 1))
            maps = {
                "noise": random.random(shape),
                "good": 0.55 * target + 0.45 * random.random(shape),
                "shifted": 0.5 * shifted + 0.4 * random.random(shape),
                "low": 0.1 + 0.05 * random.random(shape),
                "binary": shifted.astype(float),
                "zero": np.zeros(shape),
                "one": np.ones(shape),
            }
            found += [Case(f"{kind} on {name}", p, target) for kind, p in maps.items()]
    return found


def worst(pairs: Iterator[tuple[float, float]]) -> tuple[int, float]:
    """How many pairs there are, and by how much one differs at most."""
    gaps = [abs(a - b) for a, b in pairs]
    return len(gaps), max(gaps)


def regions() -> Iterator[Row]:
    """IoU and Dice against torchmetrics and scikit-learn."""
    from sklearn.metrics import jaccard_score
    from torchmetrics.functional.classification import (
        binary_f1_score,
        binary_jaccard_index,
        multiclass_jaccard_index,
    )

    chosen = [c for c in cases() if c.predicted.any() or c.target.any()]
    for index, (name, theirs) in enumerate(
        (("iou", binary_jaccard_index), ("dice", binary_f1_score))
    ):
        pairs = (
            (
                float(iou_dice(c.seen().predicted, c.seen().target)[index]),
                float(theirs(c.seen().predicted[0].double(), c.seen().target[0].long())),
            )
            for c in chosen
        )
        yield Row(name, "torchmetrics", *worst(pairs), "both empty left out: 1 here, 0 there")
    metrics = MaskMetrics()
    for c in chosen:
        metrics.update(c.seen().predicted, c.seen().target)
    flat = (
        np.concatenate([getattr(c, k).ravel() for c in chosen]) for k in ("target", "predicted")
    )
    gap = abs(metrics.compute()["iou_pooled"] - jaccard_score(*flat))
    yield Row("iou_pooled", "scikit-learn", len(chosen), gap)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 4, (2, 6, 20, 30), generator=generator)
    maps[maps == 2] = 1  # a class that is nowhere
    metrics = RegionMetrics()
    for predicted, target in zip(*maps, strict=True):
        masks = torch.stack([m == torch.arange(5)[:, None, None] for m in (predicted, target)])
        met = masks.flatten(2).any(2).any(0)
        seen = Seen(*masks[:, met], classes=met.nonzero()[:, 0], mapped=True, background=0)
        metrics.update(seen)
    each = multiclass_jaccard_index(*maps, num_classes=5, average="none").double()
    there = torch.tensor([0, 1, 3])
    reason = "absent classes are left out here and 0 there: left out of both"
    gap = abs(metrics.compute()["miou"] - float(each[there].mean()))
    yield Row("miou", "torchmetrics", 6, gap, reason)
    gap = abs(metrics.compute()["miou_foreground"] - float(each[there[1:]].mean()))
    yield Row("miou_foreground", "torchmetrics", 6, gap, reason)


def boundaries() -> Iterator[Row]:
    """Contours against MONAI."""
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice
    from scipy.ndimage import binary_erosion
    from scipy.spatial.distance import cdist

    def paper(c: Case) -> float:
        width = max(1, round(0.02 * math.hypot(*c.target.shape)))
        bands = [m & ~binary_erosion(m, np.ones((3, 3)), width) for m in (c.predicted, c.target)]
        union = np.sum(bands[0] | bands[1])
        return np.sum(bands[0] & bands[1]) / union if union else 1.0

    pairs = ((boundary_iou(c.predicted, c.target), paper(c)) for c in cases())
    yield Row("boundary_iou", "the paper's definition with scipy", *worst(pairs))
    chosen = [c for c in cases() if c.predicted.any() and c.target.any()]

    def ours(c: Case, key: str) -> float:
        metrics = BoundaryMetrics()
        metrics.update(c.seen())
        return metrics.compute()[key]

    def monai(c: Case, key: str) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls a function of its own that it deprecates
            return measured(c, key)

    def measured(c: Case, key: str) -> float:
        predicted, target = (m[None].double() for m in (c.seen().predicted, c.seen().target))
        if key == "nsd":
            return float(compute_surface_dice(predicted, target, [2.0], include_background=True))
        found = compute_hausdorff_distance(
            predicted, target, include_background=True, percentile=95
        )
        return float(found)

    reason = "an empty mask left out: a value by the stated policy here, NaN or infinite there"
    for key, more in (("hd95", f"{SINGLE}; "), ("nsd", "")):
        pairs = ((ours(c, key), monai(c, key)) for c in chosen)
        yield Row(key, "MONAI", *worst(pairs), more + reason)

    def exact(c: Case) -> float:
        edges = [np.argwhere(m & ~binary_erosion(m)) for m in (c.predicted, c.target)]
        apart = cdist(*edges)
        return max(np.percentile(apart.min(axis), 95) for axis in (0, 1))

    pairs = ((ours(c, "hd95"), exact(c)) for c in chosen)
    yield Row("hd95", "all distances with scipy", *worst(pairs), "an empty mask left out")


def saliency() -> Iterator[Row]:
    """Maps against pysodmetrics."""
    import py_sod_metrics as sod

    def theirs(c: Case) -> dict[str, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its F-measure announces a successor
            made = [sod.MAE(), sod.Smeasure(), sod.Emeasure(), sod.Fmeasure()]
        made += [sod.WeightedFmeasure(), sod.WeightedFmeasure(beta=0.3)]
        for metric in made:
            metric.step(255 * c.probability, 255.0 * c.target)
        mae, s, e, f, weighted, lower = (metric.get_results() for metric in made)
        curves = {"e": e["em"], "f": f["fm"]}
        found = {f"{k}_{how}": getattr(v["curve"], how)() for k, v in curves.items() for how in HOW}
        found |= {f"{k}_adaptive": v["adp"] for k, v in curves.items()}
        found |= {"mae": mae["mae"], "s_measure": s["sm"], "weighted_f": weighted["wfm"]}
        return found | {"weighted_f_ts_sam": lower["wfm"]}

    def ours(c: Case) -> dict[str, float]:
        made = SaliencyMetrics(), SaliencyMetrics(["weighted_f"], weighted_beta2=0.3)
        for metric in made:
            metric.update(c.seen())
        return made[0].compute() | {"weighted_f_ts_sam": made[1].compute()["weighted_f"]}

    chosen = [c for c in cases() if not _parted(c)]
    both = [(ours(c), theirs(c)) for c in chosen]
    reason = "targets whose centre leaves an empty quarter left out: weight 0 here, NaN there"
    for name in both[0][0]:
        pairs = ((a[name], float(b[name])) for a, b in both)
        library = "pysodmetrics" + (", beta 0.3" if name.endswith("sam") else "")
        yield Row(name, library, *worst(pairs), reason if name == "s_measure" else "")


def _parted(c: Case) -> bool:
    """Whether the centre of the foreground leaves an empty quarter on one side."""
    if not 0 < c.target.mean() < 1:
        return False
    middle = [round(float(at.mean())) + 1 for at in c.target.nonzero()]
    return any(m >= n for m, n in zip(middle, c.target.shape, strict=True))


def shadow() -> Iterator[Row]:
    """The balanced error against scikit-learn's balanced accuracy."""
    from sklearn.metrics import balanced_accuracy_score

    chosen = [c for c in cases() if 0 < c.target.mean() < 1]

    def ours(c: Case) -> float:
        metrics = BalancedError()
        metrics.update(c.seen())
        return metrics.compute()["ber_per_image"]

    pairs = (
        (ours(c), 1 - balanced_accuracy_score(c.target.ravel(), c.predicted.ravel()))
        for c in chosen
    )
    reason = "one-sided targets left out: the side that is there decides here, a warning there"
    yield Row("ber_per_image", "scikit-learn", *worst(pairs), reason)
    metrics = BalancedError()
    for c in cases():
        metrics.update(c.seen())
    flat = (
        np.concatenate([getattr(c, k).ravel() for c in cases()]) for k in ("target", "predicted")
    )
    gap = abs(metrics.compute()["ber"] - (1 - balanced_accuracy_score(*flat)))
    yield Row("ber", "scikit-learn", len(cases()), gap)


def scene(seed: int, count: int = 12, shape=(150, 190)) -> tuple[np.ndarray, ...]:
    """Discs of all sizes, predicted with errors: masks, targets, scores and classes."""
    random = np.random.default_rng(seed)
    predicted, target = [], []
    for _ in range(count):
        y, x, radius = (
            random.random() * shape[0],
            random.random() * shape[1],
            random.choice([7, 25, 60]),
        )
        dy, dx, grow = random.normal(0, radius / 7, 3)
        target.append(disc(shape, y, x, radius))
        predicted.append(disc(shape, y + dy, x + dx, max(radius + grow, 1)))
    scores = np.round(random.random(count), 1)  # with ties
    return np.stack(predicted), np.stack(target), scores, random.integers(0, 3, count)


def instances() -> Iterator[Row]:
    """Average precision against pycocotools."""
    from pycocotools import mask as coco
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    pack = lambda m: coco.encode(np.asfortranarray(m.astype(np.uint8)))  # noqa: E731
    metrics, truth, found = AveragePrecision(), [], []
    images = 5
    for image in range(images):
        predicted, target, scores, classes = scene(image, 12 if image else 110)
        metrics.update(
            Seen(
                torch.from_numpy(predicted),
                torch.from_numpy(target),
                classes=torch.from_numpy(classes),
                scores=torch.from_numpy(scores),
                index=image,
            )
        )
        for p, t, score, kind in zip(predicted, target, scores, classes, strict=True):
            common = {"image_id": image, "category_id": int(kind)}
            found.append({**common, "segmentation": pack(p), "score": float(score)})
            extra = {"id": len(truth) + 1, "iscrowd": 0, "area": int(t.sum())}
            truth.append({**common, "segmentation": pack(t), **extra})
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {
            "info": {},
            "images": [{"id": i, "height": 150, "width": 190} for i in range(images)],
            "categories": [{"id": i} for i in range(3)],
            "annotations": truth,
        }
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    for name, theirs in zip(names, evaluation.stats, strict=False):
        yield Row(name, "pycocotools", images, abs(metrics.compute()[name] - theirs))
    pairs = (
        (segmentation_accuracy(p, t), exhaustive(overlaps(p, t)))
        for p, t, *_ in (scene(seed, 6, (60, 70)) for seed in range(8))
    )
    yield Row("msa", "every matching tried", *worst(pairs))


def exhaustive(iou: np.ndarray) -> float:
    """The mean segmentation accuracy with the best of all one-to-one matches."""
    from itertools import permutations

    scores = []
    for threshold in np.linspace(0.5, 0.95, 10):
        near = iou >= threshold
        orders = permutations(range(near.shape[1]))
        hits = max(sum(near[i, j] for i, j in enumerate(order)) for order in orders)
        scores.append(hits / (sum(near.shape) - hits))
    return float(np.mean(scores))


def published() -> Iterator[Row]:
    """Published conventions against a library's parts."""
    from sklearn.metrics import confusion_matrix

    chosen, metrics = cases(), AbsentClassIoU()
    total = np.zeros((2, 2))
    for c in chosen:
        seen = c.seen()
        metrics.update(Seen(seen.predicted, seen.target, frame=seen, total=len(chosen)))
        taken = c.probability >= 0.5
        total += confusion_matrix(c.target.ravel(), taken.ravel(), labels=[False, True])
    hits = total.diagonal() + 1e-7
    theirs = (hits / (total.sum(0) + total.sum(1) - hits)).mean()
    gap = abs(metrics.compute()["miou_gsam"] - theirs)
    yield Row("miou_gsam", "scikit-learn's confusion matrix and the rule", len(chosen), gap)


FAMILIES = (regions, boundaries, saliency, shadow, instances, published)


def main() -> None:
    """Prints the table."""
    print("# Agreement of metrics\n")
    print("Largest difference from the library named, on random and degenerate maps (all zero, all")
    print("one, empty and full targets, single pixels, borders); `python")
    print("benchmarks/metric_agreement.py` prints this page.\n")
    print("| metric | library | cases | max difference | where definitions differ |")
    print("|---|---|---|---|---|")
    for family in FAMILIES:
        for row in family():
            difference = f"{row.difference:.1e}"
            print(f"| {row.metric} | {row.library} | {row.cases} | {difference} | {row.reason} |")


if __name__ == "__main__":
    main()
