"""Losses of masks and of class maps, and the expression that sums them.

Code that only measures belongs to `metrics`.
"""

from samtune.losses.comparison import LossAt
from samtune.losses.expression import DEFAULT_LOSS, Loss
from samtune.losses.functions import FunctionLoss
from samtune.losses.masks import (
    CLASS_LOSSES,
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
    register,
    structure,
)

__all__ = [
    "CLASS_LOSSES",
    "DEFAULT_LOSS",
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
    "focal",
    "iou",
    "iou_head",
    "multi_dice",
    "register",
    "structure",
]
