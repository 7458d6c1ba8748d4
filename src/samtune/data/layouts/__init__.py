"""Layouts: ways in which data sets lie on disk; each finds the records of a folder, by split.

The meaning of mask values belongs to `data.labels`.
"""

from samtune.data.layouts import (
    beside,
    coco,
    cvat,
    folders,
    huggingface,
    label_studio,
    labelme,
    nnunet,
    roboflow,
    sa1b,
    supervisely,
    table,
    voc,
    yolo,
)
from samtune.data.layouts.base import (
    LAYOUTS,
    Layout,
    SplitRecords,
    defaults_of,
    find,
    with_defaults,
)

_TOOLS = (cvat, label_studio, supervisely, labelme, roboflow)
_ORDER = (nnunet, huggingface, sa1b, voc, yolo, *_TOOLS, coco, table, beside, folders)
LAYOUTS.update({each.LAYOUT.name: each.LAYOUT for each in _ORDER})

__all__ = ["LAYOUTS", "Layout", "SplitRecords", "defaults_of", "find", "with_defaults"]
