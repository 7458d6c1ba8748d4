"""Losses of masks, of class maps and of dense maps, and the expression that sums them.

Code that only measures belongs to `metrics`.
"""

from samtune.losses.comparison import LossAt
from samtune.losses.dense import DENSE_LOSSES, distances, object_ce
from samtune.losses.expression import DEFAULT_LOSS, Loss
from samtune.losses.functions import FunctionLoss
from samtune.losses.masks import (
    CLASS_LOSSES,
    HEADS,
    IOU_HEAD,
    LOSSES,
    MaskLoss,
    bbce,
    bbce_per_mask,
    bce,
    ce,
    ce_pooled,
    dice,
    focal,
    iou,
    iou_head,
    multi_dice,
    quality_head,
    register,
    structure,
)

__all__ = [
    "CLASS_LOSSES",
    "DEFAULT_LOSS",
    "DENSE_LOSSES",
    "HEADS",
    "IOU_HEAD",
    "LOSSES",
    "FunctionLoss",
    "Loss",
    "LossAt",
    "MaskLoss",
    "bbce",
    "bbce_per_mask",
    "bce",
    "ce",
    "ce_pooled",
    "dice",
    "distances",
    "focal",
    "iou",
    "iou_head",
    "multi_dice",
    "object_ce",
    "quality_head",
    "register",
    "structure",
]
