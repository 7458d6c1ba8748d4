"""The meaning of every metric of instances.

Importing this module loads neither torch nor torchmetrics.
"""

from __future__ import annotations

from samtune.metrics.meaning import IMAGES, Measure

_MASKS = (
    "in an automatic mode the masks are all that it finds; with prompts each mask belongs to one "
    "prompted target"
)
_CLASS = "takes that target's class, so the value cannot be compared with a detector's AP"
_COUNTED = "a mask with more than half of its pixels ignored counts only if it matches a target"
_ALL_AREAS = {
    "small": "of less than 32 x 32",
    "medium": "of 32 x 32 to less than 96 x 96",
    "large": "of 96 x 96 or more",
}
_AREAS_OF_COCO = {
    "small": "of up to 32 x 32",
    "medium": "of 32 x 32 to 96 x 96",
    "large": "of 96 x 96 or more",
}
"""The same for average precision, where both ends of a range belong to it, as in COCO."""
_BY_SIZE = "targets, and masks without a match, {} pixels"
_NOTHING = "images with neither targets nor predictions are left out"
_OF_THIS_SIZE = "images with neither targets nor predictions of this size are left out"


def instance_measures() -> dict[str, Measure]:
    """The measures of instances by name: average precision, matches, counts."""
    averaged = "mean over IoU thresholds 0.5 to 0.95 and over classes that have targets"
    scored = (
        "by the model's own scores; classes are compared if the predicted masks have classes, "
        "otherwise all targets are one class; a mask whose ignored fraction reaches the IoU "
        "threshold is left out, as COCO does in a crowd; overlapping annotations are flattened "
        "first, the smaller over the larger"
    )
    masks = (
        f"{_MASKS} and {_CLASS}; of prompted masks at most 100 per image and class count, as in "
        "COCO, of automatic ones all, because 100 of 3,000 objects would bound recall at 0.03"
    )
    row = {
        "ap": ("average precision (COCO)", averaged),
        "ap50": ("average precision at IoU 0.5", "mean over classes that have targets"),
        "ap75": ("average precision at IoU 0.75", "mean over classes that have targets"),
    }
    for size, what in _AREAS_OF_COCO.items():
        row[f"ap_{size}"] = (f"average precision of targets {what} pixels", averaged)
    measures = {
        name: Measure(
            *("instances", f"{what}; {scored}", over, "NaN without any target", "precision", name),
            needs=("scores",),
            masks=masks,
            maps=False,
            source="Lin et al. 2014, arXiv:1405.0312",
        )
        for name, (what, over) in row.items()
    }
    return measures | _matches() | _counts()


_BOWL = "2018 Data Science Bowl, doi:10.1038/s41592-019-0612-7"
_KIRILLOV = "Kirillov et al. 2019, arXiv:1801.00868"
_KUMAR = "Kumar et al. 2017, doi:10.1109/TMI.2017.2677499"
_GRAHAM = "Graham et al. 2019, arXiv:1812.06499"
_OVER_THRESHOLDS = "mean over IoU thresholds 0.5, 0.55 .. 0.95, then over images"
_POOLED = "matches counted over all images for each class, then the mean over classes"
_ABSENT = "classes without targets and predictions are left out"
_ACCURACY = "TP / (TP + FP + FN) of one-to-one matches, whatever the classes"


def _matches() -> dict[str, Measure]:
    """Measures of matches between masks and targets."""
    at = "segmentation accuracy at IoU {} or above: " + _ACCURACY
    quality = (_POOLED, _ABSENT, _KIRILLOV)
    index = "aggregated Jaccard index"
    rows = {
        "msa": (
            *(f"mean segmentation accuracy: {_ACCURACY}", _OVER_THRESHOLDS),
            *(_NOTHING, _BOWL),
        ),
        "sa50": (at.format(0.5), IMAGES, _NOTHING, _BOWL),
        "sa75": (at.format(0.75), IMAGES, _NOTHING, _BOWL),
        "pq": ("panoptic quality: sq times rq for each class", *quality),
        "sq": (
            "segmentation quality: mean IoU of the matches, those above 0.5",
            *(_POOLED, f"{_ABSENT}; 0 without a match", _KIRILLOV),
        ),
        "rq": (
            "recognition quality: TP / (TP + FP / 2 + FN / 2) of matches above IoU 0.5",
            *quality,
        ),
        "aji": (
            f"{index}: each target with the mask of the highest IoU; their common pixels as a "
            "fraction of the pixels of their unions and of all other masks",
            *(IMAGES, _NOTHING, _KUMAR),
        ),
        "aji_plus": (
            f"{index} with one-to-one matches, those with the largest sum of IoU",
            *(IMAGES, _NOTHING, _GRAHAM),
        ),
    }
    for size, what in _ALL_AREAS.items():
        of_size = _BY_SIZE.format(what)
        accuracy = f"mean segmentation accuracy of {of_size}"
        rows[f"msa_{size}"] = (accuracy, _OVER_THRESHOLDS, _OF_THIS_SIZE, _BOWL)
        rows[f"pq_{size}"] = (f"panoptic quality of {of_size}", *quality)
        rows[f"aji_{size}"] = (f"{index} of {of_size}", IMAGES, _OF_THIS_SIZE, _KUMAR)
    return {
        name: Measure(
            *("instances", what, over, empty, "matches", name),
            masks=f"{_MASKS}; {_COUNTED}",
            maps=False,
            source=source,
        )
        for name, (what, over, empty, source) in rows.items()
    }


def _counts() -> dict[str, Measure]:
    """Measures of the numbers of masks and targets."""
    none = "no special case"
    rows = {
        "count_error": (
            "difference between the numbers of masks and of targets, without its sign, in objects "
            "per image",
            IMAGES,
            none,
        ),
        "count_error_relative": (
            "count_error as a fraction of the number of targets, which may exceed 1",
            IMAGES,
            "images without targets are left out",
        ),
        "count_bias": (
            "the number of masks minus that of targets, in objects per image",
            IMAGES,
            none,
        ),
    }
    for size, what in _ALL_AREAS.items():
        rows[f"count_error_{size}"] = (
            f"count_error of masks and targets {what} pixels, each by its own size",
            IMAGES,
            none,
        )
    return {
        name: Measure(
            *("instances", what, over, empty, "matches", name),
            higher=False,
            signed=name == "count_bias",
            masks=f"{_MASKS}; {_COUNTED}",
            maps=False,
        )
        for name, (what, over, empty) in rows.items()
    }
