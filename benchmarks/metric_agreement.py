"""Every metric beside a library's: ``python benchmarks/metric_agreement.py`` prints a table.

Each row runs on random and degenerate images and says by how much the two differ at most. Where
definitions differ the row says so. Of the metrics of published systems most are compared in
``tests/metrics/test_published.py`` instead. The test suite runs the same rows.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from samtune.metrics import MaskMetrics, Seen, iou_dice
from samtune.metrics.boundaries import BoundaryMetrics, boundary_iou
from samtune.metrics.conventions import AbsentClassIoU
from samtune.metrics.instance_result import InstanceResult, run_lengths_of_map
from samtune.metrics.instances import AveragePrecision, InstanceScores
from samtune.metrics.regions import AREAS, RegionMetrics
from samtune.metrics.saliency import SaliencyMetrics
from samtune.metrics.shadow import BalancedError

HOW = ("mean", "max")
RULE = "both empty is 1 in both"
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


def apart(a: float, b: float) -> float:
    """How far two numbers are apart: 0 where both are NaN, infinite where only one is."""
    if math.isnan(a) or math.isnan(b):
        return 0.0 if math.isnan(a) and math.isnan(b) else math.inf
    return abs(a - b)


def worst(pairs: Iterable[tuple[float, float]]) -> tuple[int, float]:
    """How many pairs there are, and by how much one differs at most."""
    gaps = [apart(a, b) for a, b in pairs]
    return len(gaps), max(gaps)


def regions() -> Iterator[Row]:
    """IoU and Dice against torchmetrics, scikit-learn and plain numpy."""
    from sklearn.metrics import f1_score, jaccard_score
    from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

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
    for c in cases():
        metrics.update(c.seen().predicted, c.seen().target)
    flat = [
        np.concatenate([getattr(c, k).ravel() for c in cases()]) for k in ("target", "predicted")
    ]
    for name, pooled in (("iou_pooled", jaccard_score), ("dice_pooled", f1_score)):
        yield Row(name, "scikit-learn", len(cases()), apart(metrics.compute()[name], pooled(*flat)))
    yield from averages()
    yield from class_maps()


def averages() -> Iterator[Row]:
    """Means over images, classes and sizes, each score and mean written out in numpy."""
    images = [image for images in scenes().values() for image in images]
    for number, c in enumerate(cases()):
        images.append(Scene(c.predicted[None], c.target[None], np.ones(1), np.array([number % 4])))
    metrics, rows = RegionMetrics(), []
    for number, image in enumerate(images):
        metrics.update(image.seen())
        for p, t, kind in zip(image.predicted, image.target, image.classes, strict=True):
            both, total = np.sum(p & t), np.sum(p) + np.sum(t)
            scores = (both / np.sum(p | t), 2 * both / total) if total else (1, 1)
            rows.append((number, kind, t.sum(), t.mean(), *scores))
    of_image, of_class, area, share, iou, dice = np.array(rows, float).T

    def over(groups: np.ndarray, scores: np.ndarray) -> float:
        return float(np.mean([scores[groups == group].mean() for group in np.unique(groups)]))

    expected = {}
    for name, scores in (("iou", iou), ("dice", dice)):
        expected[f"{name}_per_image"] = over(of_image, scores)
        expected[f"{name}_by_class"] = over(of_class, scores)
    for kind, size, edges in (("", area, (32**2, 96**2)), ("share_", share, (0.01, 0.1))):
        bounds = zip(("small", "medium", "large"), (0, *edges), (*edges, np.inf), strict=True)
        for name, low, high in bounds:
            inside = (size > 0) & (size >= low) & (size < high)
            expected[f"iou_{kind}{name}"] = float(iou[inside].mean())
    found = metrics.compute()
    for name, value in expected.items():
        reason = (
            "empty targets left out of both"
            if name.endswith(("small", "medium", "large"))
            else RULE
        )
        yield Row(name, "plain numpy", len(images), apart(found[name], value), reason)


def maps() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Maps of up to five classes, predicted and true: six images each, class 4 in none."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(0, 4, (2, 6, 20, 30), generator=generator)
    nothing, without = torch.zeros_like(first), [m.where(m != 2, 1) for m in (first, second)]
    return {
        "random": (first, second),
        "a class in neither": (without[0], without[1]),
        "a class that no target has": (first, without[1]),
        "a class never predicted": (without[0], second),
        "perfect": (second, second),
        "background alone": (nothing, nothing),
        "background alone predicted": (nothing, second),
        "background alone in the target": (first, nothing),
    }


def class_maps() -> Iterator[Row]:
    """The mean IoU of classes against torchmetrics."""
    from torchmetrics.functional.classification import multiclass_jaccard_index

    pairs: dict[str, list[tuple[float, float]]] = {"miou": [], "miou_foreground": []}
    for images in maps().values():
        metrics = RegionMetrics()
        for predicted, target in zip(*images, strict=True):
            masks = torch.stack([m == torch.arange(5)[:, None, None] for m in (predicted, target)])
            met = masks.flatten(2).any(2).any(0)
            seen = Seen(*masks[:, met], classes=met.nonzero()[:, 0], mapped=True, background=0)
            metrics.update(seen)
        each = multiclass_jaccard_index(*images, num_classes=5, average="none").double()
        there = torch.stack(images).unique()
        theirs = each[there].mean(), each[there[there > 0]].mean()
        for (name, found), value in zip(pairs.items(), theirs, strict=True):
            found.append((metrics.compute()[name], float(value)))
    reason = "classes in neither are left out here and 0 there: left out of both"
    for name, found in pairs.items():
        more = "; NaN in both where none is left" if name == "miou_foreground" else ""
        yield Row(name, "torchmetrics", 6 * len(found), worst(found)[1], reason + more)


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
            # Its F-measure announces a successor, its S-measure averages empty quarters.
            warnings.simplefilter("ignore")
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

    both = [(ours(c), theirs(c)) for c in cases()]
    whole = [pair for c, pair in zip(cases(), both, strict=True) if not _parted(c)]
    reason = "targets whose centre leaves an empty quarter left out: weight 0 here, NaN there"
    for name in both[0][0]:
        parts = name == "s_measure"
        pairs = ((a[name], float(b[name])) for a, b in (whole if parts else both))
        library = "pysodmetrics" + (", beta 0.3" if name.endswith("sam") else "")
        yield Row(name, library, *worst(pairs), reason if parts else "")


def _parted(c: Case) -> bool:
    """Whether the centre of the foreground leaves an empty quarter on one side."""
    if not 0 < c.target.mean() < 1:
        return False
    middle = [round(float(at.mean())) + 1 for at in c.target.nonzero()]
    return any(m >= n for m, n in zip(middle, c.target.shape, strict=True))


def shadow() -> Iterator[Row]:
    """The errors against scikit-learn's balanced accuracy and recall."""
    from sklearn.metrics import balanced_accuracy_score, recall_score

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
    flat = [
        np.concatenate([getattr(c, k).ravel() for c in cases()]) for k in ("target", "predicted")
    ]
    expected = {
        "ber": balanced_accuracy_score(*flat),
        "shadow_error": recall_score(*flat),
        "lit_error": recall_score(*flat, pos_label=False),
    }
    for name, kept in expected.items():
        yield Row(name, "scikit-learn", len(cases()), apart(metrics.compute()[name], 1 - kept))


class Scene(NamedTuple):
    """One image of several masks, ``(N, h, w)`` predicted and true, their scores and classes."""

    predicted: np.ndarray
    target: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def seen(self, index: int = 0) -> Seen:
        """As metrics take it."""
        predicted, target, scores, classes = (torch.from_numpy(part) for part in self)
        return Seen(predicted, target, classes=classes, scores=scores, index=index)

    def only(self, chosen: np.ndarray) -> Scene:
        """Of some of the masks."""
        return Scene(*(part[chosen] for part in self))

    def perfect(self) -> Scene:
        """With every target predicted."""
        return self._replace(predicted=self.target)

    def without(self, *parts: str) -> Scene:
        """With the masks of these parts empty."""
        return self._replace(**{part: np.zeros_like(self.target) for part in parts})


def scene(seed: int, count: int = 12, shape=(150, 190)) -> Scene:
    """Discs of all sizes, predicted with errors."""
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
    return Scene(np.stack(predicted), np.stack(target), scores, random.integers(0, 3, count))


def scenes() -> dict[str, list[Scene]]:
    """Sets of images: random ones, and ones that lack targets, predictions or sizes."""
    one, two = scene(1), scene(2)
    small = one.only(one.target.sum((1, 2)) < AREAS[0])
    crowd = scene(6, 130)._replace(classes=np.zeros(130, np.int64)).perfect()
    return {
        "random": [scene(image, 12 if image else 110) for image in range(5)],
        "an image without targets": [one, two.without("target")],
        "no target anywhere": [one.without("target"), two.without("target")],
        "an image with empty predictions": [one, two.without("predicted")],
        "empty predictions everywhere": [one.without("predicted"), two.without("predicted")],
        "an image with neither": [one, two.without("predicted", "target")],
        "an image without masks": [one, two.only(np.zeros(len(two.scores), bool))],
        "perfect": [one.perfect(), two.perfect()],
        "small targets": [small],
        "small targets, perfect": [small.perfect()],
        "more masks of a class than count": [crowd],
    }


def instances() -> Iterator[Row]:
    """Average precision against pycocotools, segmentation accuracy against every matching."""
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for images in scenes().values():
        metrics = AveragePrecision()
        for index, image in enumerate(images):
            metrics.update(image.seen(index))
        ours = metrics.compute()
        for name, theirs in zip(names, coco_precision(images), strict=True):
            pairs[name].append((ours[name], math.nan if theirs == -1 else theirs))
    count = sum(len(images) for images in scenes().values())
    for name, found in pairs.items():
        size = name.removeprefix("ap_") + " " if "_" in name else ""
        reason = f"a set of images without any {size}target: NaN here, -1 there, taken as equal"
        yield Row(name, "pycocotools", count, worst(found)[1], reason)
    yield accuracy()
    yield from free_masks()


def coco_precision(images: list[Scene]) -> list[float]:
    """The first six numbers of pycocotools, -1 where there is no target."""
    from pycocotools import mask as coco
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    pack = lambda m: coco.encode(np.asfortranarray(m.astype(np.uint8)))  # noqa: E731
    truth, found = [], []
    for index, image in enumerate(images):
        for p, t, score, kind in zip(*image, strict=True):
            common = {"image_id": index, "category_id": int(kind)}
            found.append({**common, "segmentation": pack(p), "score": float(score)})
            extra = {"id": len(truth) + 1, "iscrowd": 0, "area": int(t.sum())}
            truth += [{**common, "segmentation": pack(t), **extra}] if t.any() else []
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {
            "info": {},
            "images": [{"id": i, "height": 150, "width": 190} for i in range(len(images))],
            "categories": [{"id": i} for i in range(3)],
            "annotations": truth,
        }
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[:6]]


def accuracy() -> Row:
    """The mean segmentation accuracy of each image, and of all together."""
    images = [scene(seed, 6, (60, 70)) for seed in range(8)]
    one = images[0]
    half = one.predicted * (np.arange(6) < 3)[:, None, None]
    images += [one.perfect(), one._replace(predicted=half), one._replace(target=half)]
    images += [one.without(*parts) for parts in (["predicted"], ["target"], Scene._fields[:2])]
    images.append(one.only(np.zeros(6, bool)))

    def ours(*shown: Scene) -> float:
        metrics = InstanceScores()
        for image in shown:
            metrics.update(image.seen())
        return metrics.compute()["msa"]

    expected = [exhaustive(image) for image in images]
    pairs = [(ours(image), value) for image, value in zip(images, expected, strict=True)]
    pairs.append((ours(*images), float(np.nanmean(expected))))
    reason = "an image with neither is NaN in both, and left out of the mean over images"
    return Row("msa", "every matching tried", len(images), worst(pairs)[1], reason)


def exhaustive(image: Scene) -> float:
    """The mean segmentation accuracy with the best of all one-to-one matches."""
    from itertools import permutations

    iou = ious(*(masks[masks.any((1, 2))] for masks in (image.predicted, image.target)))
    few, many = sorted(iou.shape)
    if not many:
        return math.nan
    scores = []
    for threshold in np.linspace(0.5, 0.95, 10):
        near = (iou if len(iou) == few else iou.T) >= threshold
        orders = permutations(range(many), few)
        hits = max(sum(near[i, j] for i, j in enumerate(order)) for order in orders)
        scores.append(hits / (few + many - hits))
    return float(np.mean(scores))


def ious(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """IoU of every mask ``(D, h, w)`` with every target ``(G, h, w)``."""
    common = np.einsum("dhw,ghw->dg", predicted.astype(float), target.astype(float))
    areas = predicted.sum((1, 2))[:, None] + target.sum((1, 2))
    return common / np.maximum(areas - common, 1)


class Cells(NamedTuple):
    """One image of instances as label maps, of which neither overlap, as microscopes give them."""

    predicted: np.ndarray
    target: np.ndarray
    ignored: np.ndarray | None = None
    predicted_classes: np.ndarray | None = None
    target_classes: np.ndarray | None = None

    def result(self, index: int = 0) -> InstanceResult:
        """As metrics take it; of each mask the score is a tenth of its number."""
        masks = run_lengths_of_map(self.predicted, self.predicted.max())
        crowd = None
        if self.ignored is not None:
            [crowd] = run_lengths_of_map(self.ignored.astype(int), 1)
        return InstanceResult(
            masks,
            run_lengths_of_map(self.target, self.target.max()),
            scores=np.arange(len(masks)) * 7 % 10 / 10,
            predicted_classes=self.predicted_classes,
            target_classes=self.target_classes,
            ignored=crowd,
            index=index,
        )


def cells(seed: int, count: int = 40, shape: tuple[int, int] = (150, 190)) -> Cells:
    """Touching discs, some of them missed, invented, cut in two or joined with a neighbour."""
    random = np.random.default_rng([20, seed])
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    predicted, target = np.zeros((2, *shape), int)
    for k in range(count):
        y, x, radius = *random.random(2) * shape, random.choice([4, 9, 20, 40])
        fate = random.random()
        for labels, wrong in ((target, 0.0), (predicted, radius / 9)):
            dy, dx, grow = random.normal(0, wrong + 1e-9, 3)
            inside = (rows - y - dy) ** 2 + (columns - x - dx) ** 2 < max(radius + grow, 1) ** 2
            found = labels is predicted
            if (fate > 0.9) if found else (fate < 0.1):
                continue
            labels[inside] = k + 1
            if found and fate < 0.2:
                labels[inside & (rows > y)] = count + k + 1
            elif found and fate < 0.3 and k:
                labels[inside] = k
    numbered = (np.unique(labels, return_inverse=True)[1] for labels in (predicted, target))
    return Cells(*(labels.reshape(shape) for labels in numbered))


def slides() -> list[Cells]:
    """Images of cells: random ones, all right, and ones that lack targets or masks."""
    images = [cells(seed) for seed in range(6)] + [cells(6, 150), cells(7, 3)]
    one, nothing = images[0], np.zeros_like(images[0].target)
    images += [one._replace(predicted=one.target), one._replace(predicted=nothing)]
    return [*images, one._replace(target=nothing), Cells(nothing, nothing)]


def of_each(images: list[Cells], name: str) -> list[float]:
    """A score of each image."""
    scores = []
    for image in images:
        metrics = InstanceScores(["aji_plus"])
        metrics.update(image.result())
        scores.append(metrics.compute()[name])
    return scores


def free_masks() -> Iterator[Row]:
    """Any number of masks beside the targets, as automatic modes give them."""
    images = slides()
    yield from unlimited(images)
    yield from matched(images)
    yield from panoptic(images)
    nothing = "an image with neither is NaN in both"
    for name, theirs in (("aji", kumar), ("aji_plus", graham)):
        pairs = zip(of_each(images, name), map(theirs, images), strict=True)
        yield Row(name, "the definition, written out", len(images), worst(pairs)[1], nothing)
    yield from counted(images)
    yield from by_size()


def unlimited(images: list[Cells]) -> Iterator[Row]:
    """Average precision of many masks, and with a crowd, against pycocotools without a limit."""
    from pycocotools.cocoeval import COCOeval

    crowded = []
    for seed in range(8, 14):
        image = cells(seed)
        crowd = np.zeros_like(image.target, bool)
        crowd[:, 120:] = True
        alone = np.isin(image.predicted, np.unique(image.predicted[image.target > 0]))
        predicted = np.where(crowd & alone, 0, image.predicted)  # COCO does not cut masks
        target = np.where(crowd, 0, image.target)
        labels = [
            np.unique(m, return_inverse=True)[1].reshape(m.shape) for m in (predicted, target)
        ]
        crowded.append(Cells(*labels, ignored=crowd))
    for chosen, what in ((images, "no limit of masks"), (crowded, "a crowd, no limit of masks")):
        ours = AveragePrecision()
        for index, image in enumerate(chosen):
            ours.update(image.result(index))
        reference = coco_files([image.result() for image in chosen], chosen[0].target.shape)
        evaluation = COCOeval(*reference, "segm")
        evaluation.params.maxDets = [1000]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.evaluate()
            evaluation.accumulate()
        theirs = evaluation.eval["precision"][..., 0, :, 0]  # thresholds, recalls, areas
        for name, value in (
            ("ap", theirs[..., 0]), ("ap50", theirs[0, :, 0]), ("ap75", theirs[5, :, 0])
        ):  # fmt: skip
            yield Row(
                name, f"pycocotools, {what}", len(chosen), apart(ours.compute()[name], value.mean())
            )


def coco_files(results: list[InstanceResult], shape: tuple[int, int]) -> tuple[object, object]:
    """Targets and masks as pycocotools reads them."""
    from pycocotools import mask as coco
    from pycocotools.coco import COCO

    truth, found = [], []
    for index, result in enumerate(results):
        common = {"image_id": index, "category_id": 0}
        for mask, score in zip(result.predicted, result.scores, strict=True):
            found.append({**common, "segmentation": mask, "score": float(score)})
        for mask in [*result.target, *([] if result.ignored is None else [result.ignored])]:
            row = {**common, "id": len(truth) + 1, "segmentation": mask}
            row |= {"area": int(coco.area(mask)), "iscrowd": int(mask is result.ignored)}
            truth.append(row)
    sizes = [{"id": i, "height": shape[0], "width": shape[1]} for i in range(len(results))]
    reference = COCO()
    reference.dataset = {
        "info": {}, "images": sizes, "categories": [{"id": 0}], "annotations": truth
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        reference.createIndex()
        return reference, reference.loadRes(found)


def matched(images: list[Cells]) -> Iterator[Row]:
    """Segmentation accuracy against the assignment that StarDist and Cellpose describe."""
    from scipy.optimize import linear_sum_assignment

    def assigned(image: Cells, threshold: float) -> float:
        iou = iou_of_maps(image)
        few, many = min(iou.shape), sum(iou.shape)
        if not many:
            return math.nan
        cost = -(iou >= threshold).astype(float) - iou / (2 * max(few, 1))
        hits = int((iou[linear_sum_assignment(cost)] >= threshold).sum()) if few else 0
        return hits / (many - hits)

    def mean(score, image: Cells) -> float:
        return float(np.mean([score(image, t) for t in np.linspace(0.5, 0.95, 10)]))

    ours = {name: of_each(images, name) for name in ("sa50", "sa75", "msa")}
    libraries = {"the assignment of StarDist and Cellpose, written out": assigned}
    for library, score in {**libraries, **installed()}.items():
        # neither library has a number for an image without masks and targets
        some = [k for k, image in enumerate(images) if image.predicted.any() or image.target.any()]
        for name, at in (("sa50", 0.5), ("sa75", 0.75), ("msa", None)):
            theirs = [mean(score, images[k]) if at is None else score(images[k], at) for k in some]
            pairs = zip([ours[name][k] for k in some], theirs, strict=True)
            single = f"{SINGLE_SCORE}; " if library.startswith("Cellpose") else ""
            reason = f"{single}an image with neither left out"
            yield Row(name, library, len(some), worst(pairs)[1], reason)


SINGLE_SCORE = "single precision there"


def installed() -> dict[str, object]:
    """The same by StarDist and Cellpose, of which each is there if it is installed."""
    found = {}
    with contextlib.suppress(ImportError):
        from stardist.matching import matching

        def stardist(image: Cells, threshold: float) -> float:
            return float(matching(image.target, image.predicted, thresh=threshold).accuracy)

        found["StarDist"] = stardist
    with contextlib.suppress(ImportError):
        from cellpose.metrics import average_precision

        def cellpose(image: Cells, threshold: float) -> float:
            maps = (image.target.astype(np.int32), image.predicted.astype(np.int32))
            return float(average_precision(*maps, threshold=[threshold])[0][0])

        found["Cellpose"] = cellpose
    return found


def iou_of_maps(image: Cells) -> np.ndarray:
    """The IoU of every mask with every target, ``(D, G)``."""
    common = common_of_maps(image)
    areas = [np.bincount(labels.ravel())[1:] for labels in image[:2]]
    return common / np.maximum(areas[0][:, None] + areas[1] - common, 1)


def common_of_maps(image: Cells) -> np.ndarray:
    """The pixels that every mask shares with every target, ``(D, G)``."""
    table = np.zeros((image.predicted.max() + 1, image.target.max() + 1))
    np.add.at(table, (image.predicted, image.target), 1)
    return table[1:, 1:]


def panoptic(images: list[Cells]) -> Iterator[Row]:
    """Panoptic quality of one class and of several against torchmetrics."""
    from torchmetrics.functional.detection import panoptic_quality

    several = []
    for seed, image in enumerate(images):
        random = np.random.default_rng(seed)
        kinds = [random.integers(0, 3, int(m.max())) for m in image[:2]]
        several.append(image._replace(predicted_classes=kinds[0], target_classes=kinds[1]))
    for chosen, what in ((images, "one class"), (several, "three classes")):
        metrics, maps = InstanceScores(), ([], [])
        for image in chosen:
            metrics.update(image.result())
            for side, labels, kinds in (
                (maps[0], image.predicted, image.predicted_classes),
                (maps[1], image.target, image.target_classes),
            ):
                none = np.zeros(int(labels.max()), int)
                kind = np.append([9], none if kinds is None else kinds)[labels]
                side.append(torch.from_numpy(np.stack([kind, labels], -1)))
        theirs = panoptic_quality(
            *map(torch.stack, maps), things={0, 1, 2}, stuffs={9},
            return_sq_and_rq=True, return_per_class=True, allow_unknown_preds_category=True,
        )  # fmt: skip
        there = theirs[:-1][torch.tensor([what == "three classes" or k == 0 for k in range(3)])]
        for name, value in zip(("pq", "sq", "rq"), there.mean(0).tolist(), strict=True):
            gap = apart(metrics.compute()[name], value)
            yield Row(name, f"torchmetrics, {what}", len(chosen), gap, "background is stuff there")


def kumar(image: Cells) -> float:
    """The aggregated Jaccard index as its paper's algorithm says it."""
    iou, common = iou_of_maps(image), common_of_maps(image)
    masks, targets = (np.bincount(m.ravel())[1:] for m in image[:2])
    over, below, unused = 0.0, 0.0, set(range(len(masks)))
    for target, area in enumerate(targets):
        best = iou[:, target].argmax() if len(masks) else 0
        if not len(masks) or not iou[best, target]:
            below += area
            continue
        over += common[best, target]
        below += area + masks[best] - common[best, target]
        unused.discard(best)
    below += sum(masks[k] for k in unused)
    return over / below if below else math.nan


def graham(image: Cells) -> float:
    """The same with the assignment of the largest sum of IoU, over the whole matrix."""
    from scipy.optimize import linear_sum_assignment

    common = common_of_maps(image)
    over = common[linear_sum_assignment(iou_of_maps(image), maximize=True)].sum()
    below = sum(np.count_nonzero(labels) for labels in image[:2]) - over
    return over / below if below else math.nan


def counted(images: list[Cells]) -> Iterator[Row]:
    """Errors of counts against plain numpy."""
    metrics = InstanceScores()
    for image in images:
        metrics.update(image.result())
    masks, targets = np.array([[m.max() for m in image[:2]] for image in images]).T
    some = targets > 0
    expected = {
        "count_error": np.abs(masks - targets).mean(),
        "count_bias": (masks - targets).mean(),
        "count_error_relative": (np.abs(masks - targets)[some] / targets[some]).mean(),
    }
    for name, value in expected.items():
        gap = apart(metrics.compute()[name], float(value))
        yield Row(name, "plain numpy", len(images), gap)


def by_size() -> Iterator[Row]:
    """Scores by size, where every mask and target is of one size, against those of all sizes."""
    sized = {}
    for name, low, high in (("small", 0, AREAS[0]), ("medium", *AREAS), ("large", AREAS[1], 1e9)):
        sized[name] = []
        for seed in range(6):
            image = cells(seed, 30, (300, 400)) if name != "large" else discs(seed)
            maps = []
            for labels in image[:2]:
                areas = np.bincount(labels.ravel())
                of_size = (areas >= low) & (areas < high)
                of_size[0] = True
                part = np.where(of_size[labels], labels, 0)
                maps.append(np.unique(part, return_inverse=True)[1].reshape(part.shape))
            sized[name].append(Cells(*maps))
    for metric in ("msa", "pq", "aji", "count_error"):
        for name, chosen in sized.items():
            whole, alone = InstanceScores(), InstanceScores()
            for image in chosen:
                alone.update(image.result())
            for other in sized.values():  # of other sizes, which must not count
                for image in other:
                    whole.update(image.result())
            pair = [whole.compute()[f"{metric}_{name}"], alone.compute()[metric]]
            if metric == "count_error":  # the mean is over all images
                pair[0] *= sum(map(len, sized.values())) / len(chosen)
            reason = "images of one size each; the others must not count"
            yield Row(
                f"{metric}_{name}", "the same without sizes", len(chosen), apart(*pair), reason
            )


def discs(seed: int) -> Cells:
    """A few large discs, predicted with errors."""
    random, labels = np.random.default_rng(seed), np.zeros((2, 300, 400), int)
    for k, x in enumerate((70, 200, 330)):
        radius, dx, grow = 60, *random.normal(0, 9, 2)
        labels[1][disc((300, 400), 150, x, radius)] = k + 1
        labels[0][disc((300, 400), 150, x + dx, radius + grow)] = k + 1
    return Cells(*labels)


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
    gap = apart(metrics.compute()["miou_gsam"], theirs)
    yield Row("miou_gsam", "scikit-learn's confusion matrix and the rule", len(chosen), gap)


HEADER = """# Agreement of metrics

Largest difference from the library named, or from the definition written out where it names none.
A case is an image, also where a row compares one number over all of them; NaN beside a number would
be an infinite difference. Every row is over random and degenerate images, but for what its last
column leaves out:

- `miou` and `miou_foreground`: maps of classes, with a class in neither, one that no target has,
  one never predicted, all right, and background alone in one or both;
- `ap*` and the first row of `msa`: several prompted masks an image, with empty targets, empty
  predictions, both empty, no masks at all, all right, and, for `ap*`, no target of a size and more
  masks of a class than count;
- the other metrics of instances: label maps of touching discs, of which some are missed, invented,
  cut in two or joined, with all right, no masks, no targets, and neither; the rows of StarDist
  (`matching`) and Cellpose (`average_precision`) are there if they are installed;
- per image, by class and by size: these images of `ap*` and those of the next line;
- the others: probability maps or their masks, random, all zero or all one, on targets that are
  random, empty, full, a single pixel, all but one pixel, or at the border.

`python benchmarks/metric_agreement.py` prints this page.
"""
FAMILIES = (regions, boundaries, saliency, shadow, instances, published)


def main() -> None:
    """Prints the table."""
    print(HEADER)
    print("| metric | library | cases | max difference | where definitions differ |")
    print("|---|---|---|---|---|")
    for family in FAMILIES:
        for row in family():
            difference = f"{row.difference:.1e}"
            print(f"| {row.metric} | {row.library} | {row.cases} | {difference} | {row.reason} |")


if __name__ == "__main__":
    main()
