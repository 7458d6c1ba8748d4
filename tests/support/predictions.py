"""Answers that a test knows, written in a format."""

from itertools import chain

import numpy as np
from PIL import Image

from samtune.data.config import DataConfig
from samtune.data.layouts import find
from samtune.data.layouts.base import with_defaults
from samtune.data.pictures import find_images
from samtune.geometry import InputPolicy
from samtune.inference.answers import entry_of
from samtune.inference.format_folders import signed_folder
from samtune.inference.formats import WRITERS, Predicted, Task
from samtune.inference.naming import label_of

H, W = 40, 56


def shapes():
    """Masks by name: ``disc``, ``ring`` (with a hole), and ``two`` (two regions)."""
    y, x = np.mgrid[:H, :W]
    disc = (y - 20) ** 2 + (x - 14) ** 2 < 90
    ring = ((y - 20) ** 2 + (x - 40) ** 2 < 150) & ((y - 20) ** 2 + (x - 40) ** 2 > 30)
    two = np.zeros((H, W), bool)
    two[2:7, 3:20] = two[30:38, 5:9] = True
    return {"disc": disc, "ring": ring, "two": two}


def pictures(folder, count=1, ending="png"):
    """Records of pictures ``0``, ``1``, ... that are made in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 255, (H, W, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.{ending}")
    return find_images(folder)


def geotiff(path, crs="EPSG:32633"):
    """The record of a GeoTIFF that is made, in pixels of half a metre."""
    import rasterio
    from rasterio.transform import from_origin

    values = np.random.default_rng(0).integers(0, 255, (3, H, W)).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=W, height=H, count=3, dtype="uint8", crs=crs,
        transform=from_origin(500_000, 5_000_000, 0.5, 0.5),
    ) as file:  # fmt: skip
        file.write(values)
    return find_images(path)[0]


def predicted(record, masks, classes=False, by_prompt=True):
    """The answer to the prompts of one image: a mask each, or maps of classes 0, 1, ..."""
    size = masks[0].shape if masks else (H, W)
    entries = [
        entry_of(record, mask, 0.75, size, i if classes else None) for i, mask in enumerate(masks)
    ]
    return Predicted(record, label_of(record), size, entries, by_prompt and not classes)


def written(name, results, out, classes=None, tolerance=1.0):
    """Writes answers as one format; its folder, and what it could not hold."""
    policy = InputPolicy((64, 64))
    count = len(classes.names) if classes else 0
    writer = WRITERS[name](Task("images", policy, classes, count, tolerance))
    writer.check([result.record for result in results])
    with signed_folder(out / name, "") as folder:
        troubles = list(writer.write(results, folder))
    return out / name, [str(error) for _, error in troubles]


def read_back(folder, **settings):
    """What samtune reads of a folder as a data set: its records, and the names of its classes."""
    config = with_defaults(DataConfig(root=str(folder), **settings))
    parts = find(config)
    return list(dict.fromkeys(chain(*parts.values()))), config.class_names


def iou(one, other):
    """The intersection over the union of two masks."""
    return (one & other).sum() / (one | other).sum()
