"""The meaning of every metric: the registry of names, and the contract printed with results.

Importing this module loads neither torch nor torchmetrics.
"""

from __future__ import annotations

from typing import Any

from samtune.metrics.instance_measures import instance_measures
from samtune.metrics.meaning import FRAME, IMAGES, Measure
from samtune.registry import Members

HEADLINE = ("iou", "dice")
"""The metrics that every table has."""
ALWAYS = (*HEADLINE, "iou_pooled", "dice_pooled")
"""Metrics that every evaluation measures."""
_BOTH = "1 if prediction and target are both empty, 0 if only one is"
_PROMPTS = "mean over all prompts of all images, with equal weights"
_POOLED = "pixels added up over all prompts first, so that large objects weigh more"
_SIZES = "mean over the prompts whose target is of this size"
_GROUPS = "mean over classes of the mean over each class's prompts"


def _regions() -> dict[str, Measure]:
    measures: dict[str, Measure] = {}
    for key, title in (("iou", "IoU"), ("dice", "Dice")):
        rows = {
            key: (f"{title} of each prompt's mask", _PROMPTS, _BOTH, "masks"),
            f"{key}_pooled": (f"{title} of all pixels", _POOLED, _BOTH, "masks"),
            f"{key}_per_image": (
                f"{title} of an image's prompts",
                "mean over an image's prompts, then over images that have any",
                _BOTH,
                "regions",
            ),
            f"{key}_by_class": (f"{title} of each class", _GROUPS, _BOTH, "regions"),
        }
        measures |= {name: Measure("regions", *row, name) for name, row in rows.items()}
    absent = "classes that occur in no target and no prediction are left out"
    pooled = "pixels added up over all images for each class, then the mean over classes"
    measures["miou"] = Measure(
        "regions",
        "mean of the IoU of each class, the background included; if the data has no maps of "
        "classes, the background is the area without any mask",
        *(pooled, absent, "regions", "miou"),
    )
    measures["miou_foreground"] = Measure(
        "regions",
        "like miou, without the background class (with every class if none is the background)",
        *(pooled, absent, "regions", "miou_foreground"),
    )
    ranges = {
        "small": "targets below 32 x 32 pixels of area (COCO)",
        "medium": "targets of 32 x 32 up to below 96 x 96 pixels of area (COCO)",
        "large": "targets of 96 x 96 pixels of area or more (COCO)",
        "share_small": "targets of less than 1 % of the image",
        "share_medium": "targets of 1 % to less than 10 % of the image",
        "share_large": "targets of 10 % of the image or more",
    }
    for name, what in ranges.items():
        row = (f"IoU of {what}", _SIZES, "empty targets have no size and are left out")
        measures[f"iou_{name}"] = Measure("regions", *row, "regions", f"iou_{name}")
    return measures


def _boundaries() -> dict[str, Measure]:
    outside = "ignored pixels are outside of both masks"
    edge = "surfaces are the mask's pixels with a neighbour (of 4) outside, the image's border too"
    return {
        "boundary_iou": Measure(
            "boundaries",
            "IoU of the bands inside the contours, as wide as eval.boundary_ratio of the image's "
            f"diagonal; {outside}",
            *(_PROMPTS, _BOTH, "boundaries", "boundary_iou"),
            source="Cheng et al. 2021, arXiv:2103.16562",
        ),
        "hd95": Measure(
            "boundaries",
            "the larger of the two directed 95th percentiles of surface distance, in pixels; "
            f"{edge}; {outside}",
            *(_PROMPTS, "0 if both are empty, the image's diagonal if only one is"),
            *("boundaries", "hd95"),
            higher=False,
            source="Huttenlocher et al. 1993, doi:10.1109/34.232073",
        ),
        "nsd": Measure(
            "boundaries",
            "fraction of both surfaces within eval.nsd_tolerance pixels of the other (normalised "
            f"surface Dice); {edge}; {outside}",
            *(_PROMPTS, _BOTH, "boundaries", "nsd"),
            source="Nikolov et al. 2018, arXiv:1809.04430",
        ),
    }


def _saliency() -> dict[str, Measure]:
    blank = "an image without foreground scores 0"
    inverse = "without foreground 1 minus the map's mean"
    alike = "without foreground the fraction predicted as background"
    curves = f"over 256 thresholds of the map, {IMAGES} at each"
    adaptive = "map at least twice its mean (at most 1)"
    rows = {
        "mae": ("mean absolute error of the map", IMAGES, "no special case", "none"),
        "s_measure": ("S-measure, alpha 0.5", IMAGES, inverse, "none"),
        "e_mean": ("E-measure", f"mean {curves}", alike, "256 levels"),
        "e_max": ("E-measure", f"maximum {curves}", alike, "256 levels"),
        "e_adaptive": ("E-measure", IMAGES, alike, adaptive),
        "f_mean": ("F-measure, beta^2 0.3", f"mean {curves}", blank, "256 levels"),
        "f_max": ("F-measure, beta^2 0.3", f"maximum {curves}", blank, "256 levels"),
        "f_adaptive": ("F-measure, beta^2 0.3", IMAGES, blank, adaptive),
        "weighted_f": ("weighted F-measure, beta^2 1", IMAGES, blank, "none"),
    }
    sources = {
        "mae": "Perazzi et al. 2012",
        "s": "Fan et al. 2017, arXiv:1708.00786",
        "e": "Fan et al. 2018, arXiv:1805.10421",
        "f": "Achanta et al. 2009",
        "weighted": "Margolin et al. 2014",
    }
    note = "one map per image, the highest probability over its prompts, stretched to 0..1"
    return {
        name: Measure(
            *("saliency", f"{what}; {note}", averaged, empty, "saliency", name),
            higher=name != "mae",
            threshold=threshold,
            needs=("probability",),
            source=sources[name.split("_", maxsplit=1)[0]],
            maps=False,
        )
        for name, (what, averaged, empty, threshold) in rows.items()
    }


def _shadow() -> dict[str, Measure]:
    gone = "if foreground or background has no pixels, only the other's error counts"
    pooled, wrong = "pixels added up first", "fraction of the background predicted as foreground"
    rows = {
        "ber": ("balanced error rate: mean of shadow_error and lit_error", pooled, gone),
        "ber_per_image": ("balanced error rate of each image", IMAGES, gone),
        "shadow_error": (
            "fraction of the foreground missed",
            pooled,
            "NaN if there is no foreground",
        ),
        "lit_error": (wrong, pooled, "NaN if there is no background"),
    }
    return {
        name: Measure("shadow", *row, "shadow", name, higher=False, maps=False)
        for name, row in rows.items()
    }


def _published_measures() -> dict[str, Measure]:
    measures = {
        "iou_cat_sam": Measure(
            "published",
            "CAT-SAM's mIoU: foreground IoU of the union of an image's masks against all of its "
            "foreground, including objects too small to be prompted; for an image without prompts, "
            "the mask predicted without a prompt counts",
            "one 2 x 2 confusion matrix over all images; 1e-10 is added to the denominator",
            *("0 if there is no pixel at all", "pooled", "iou_cat_sam"),
            needs=("whole",),
            maps=False,
        )
    }
    for key, title in (("iou", "IoU"), ("dice", "Dice")):
        measures[f"{key}_kyyle"] = Measure(
            "published",
            f"{title} of the decoder tuning and the SAM-Adapter of Kyyle2114, of the union of an "
            "image's masks; 1e-3 is added to numerator and denominator",
            *(IMAGES, "1 if both are empty, nearly 0 if one is", "smoothed", key),
            maps=False,
        )
    rule = "a class neither in target nor prediction scores nearly -1"
    matrix = "one confusion matrix over all pixels, then the mean over all classes; 1e-7 is added"
    for name, images in (
        ("miou_gsam", "over all images"),
        ("miou_gsam_dropped", "without an incomplete last batch of 4, as published"),
    ):
        measures[name] = Measure(
            "published",
            f"Generalized SAM's mIoU with the background, {images}",
            *(matrix, rule, "gsam", name),
            threshold="probability 0.5 or above; for classes, the highest",
            resolution=FRAME,
            needs=("probability", "frame"),
        )
    measures["miou_gsam_soft"] = Measure(
        "published",
        "Generalized SAM's other mIoU, of probabilities p and targets y of 0 and 1: sum(p y) / "
        "(sum(p^2) + sum(y^2) - sum(p y)); for single masks the classes have the probabilities p "
        "and 1 - p, a case in which the published code fails",
        "sums over each batch of 4 images in the data set's order, without an incomplete last "
        "batch; 1e-7 is added to numerator and denominator; then the mean over all classes, then "
        "over batches",
        *("a class neither in target nor prediction scores nearly 0, not left out", "gsam_soft"),
        "miou_gsam_soft",
        threshold="none",
        resolution=FRAME,
        needs=("probability", "class_probabilities", "frame"),
    )
    return measures | _side_networks()


def _side_networks() -> dict[str, Measure]:
    rows = {
        "mae": ("mae", "mean absolute error", "no special case", "none"),
        "s_measure": ("s_measure", "S-measure; 0 if a quadrant or side has one pixel or none",
                      "without foreground 1 minus the map's mean", "none"),
        "e_measure": ("e_mean", "E-measure, mean over images for each of 256 thresholds, then over "
        "the thresholds",
                      "without foreground the fraction predicted as background", "256 levels"),
        "weighted_f": ("weighted_f", "weighted F-measure with beta^2 = 0.3, which cannot be "
        "compared with weighted_f",
                       "an image without foreground scores 0", "none"),
        "ber": ("ber_per_image", "balanced error rate of each image", "NaN as soon as an image "
                "has no foreground or no background", "probability above 125 / 255"),
    }  # fmt: skip
    measures = {}
    for system, title in (("ts_sam", "TS-SAM"), ("sam_adapter", "SAM-Adapter")):
        for name, (key, what, empty, threshold) in rows.items():
            measures[f"{name}_{system}"] = Measure(
                *("published", f"{title}'s {what}", IMAGES, empty),
                "shadow_framed" if name == "ber" else "saliency_framed",
                key,
                higher=name not in ("mae", "ber"),
                resolution=FRAME,
                threshold=threshold,
                needs=("probability", "frame"),
                maps=False,
            )
    return measures


def _measure_of(cls: Any, name: str) -> Measure:
    """The description of a metric of another package.

    Raises:
        TypeError: It is no such metric, or does not say what its number means.
    """
    from samtune.metrics.image_metric import ImageMetric

    if not (isinstance(cls, type) and issubclass(cls, ImageMetric)):
        raise TypeError("is no subclass of samtune.metrics.ImageMetric")
    meaning = cls.meaning or (vars(cls).get("__doc__") or "").strip().split("\n")[0].rstrip(".")
    for what, text in (("a docstring", meaning), ("empty", cls.empty)):
        if not text:
            raise TypeError(f"does not say what its number means: it lacks {what}")
    return Measure(
        group="plug-in",
        meaning=meaning,
        averaged=cls.averaged,
        empty=cls.empty,
        family=name,
        key="value",
        higher=cls.higher,
        threshold=cls.threshold,
        needs=cls.needs,
        source=cls.source,
        maps=cls.maps,
        made_by=cls,
    )


MEASURES: Members[Measure] = Members("metric", _measure_of)
"""Every metric by its name."""
for _measures in (
    _regions, _boundaries, _saliency, _shadow, instance_measures, _published_measures
):  # fmt: skip
    MEASURES.update(_measures())
GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(name for name, m in MEASURES.items() if m.group == group)
    for group in dict.fromkeys(m.group for m in MEASURES.values())
}
"""The names of each group."""
