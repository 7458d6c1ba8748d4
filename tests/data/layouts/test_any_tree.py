"""Random trees of each layout come back as they were, and damage to them is told in one line."""

import json
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from random_exports import TOOLS, stem_of

from samtune.data import DataConfig, read_mask, read_sample, with_defaults
from samtune.data.check import check
from samtune.data.layouts import find
from samtune.errors import InputError

SIZE = (6, 8)
BOUNDED = settings(
    max_examples=6, deadline=None, database=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
NAMES = st.lists(
    st.text("abÄé 9()._-", min_size=1, max_size=7).filter(
        lambda name: name.strip(" ._-") == name and not name.endswith(")")
    ),
    min_size=2, max_size=5, unique_by=str.lower,
)  # fmt: skip


def draw(path, seed, values):
    """A picture whose pixels are random among ``values``; the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).choice(np.array(values, np.uint8), SIZE)
    Image.fromarray(pixels).save(path)
    return pixels


def photo(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(noise).save(path)


def folders(root, names):
    words = random.choice([("images", "masks"), ("Imgs", "GT"), ("img", "labels")])
    ending = random.choice(["", "_mask", "-gt"])
    masks = []
    for i, name in enumerate(names):
        photo(root / words[0] / f"{name}.png", i)
        masks.append(draw(root / words[1] / f"{name}{ending}.png", i, [0, 255]))
    return masks


def beside(root, names):
    form = random.choice(["{}_mask", "mask_{}", "{}.gt", "{} label"])
    masks = []
    for i, name in enumerate(names):
        photo(root / f"{name}.jpg", i)
        masks.append(draw(root / f"{form.format(name)}.png", i, [0, 255]))
    return masks


def twins(root, names):
    masks = []
    for i, name in enumerate(names):
        photo(root / f"{name}.JPG", i)
        masks.append(draw(root / f"{name}.png", i, [0, 255]))
    return masks


def cases(root, names):
    masks = []
    for i, name in enumerate(names):
        photo(root / f"case {i % 2}" / f"{name}.bmp", i)
        masks.append(draw(root / f"case {i % 2}" / f"{name}_seg.png", i, [0, 1]))
    return masks


def cells(root, names):
    """A folder for each image, with a mask file for each object."""
    masks = []
    for i, name in enumerate(names):
        photo(root / name / "images" / f"{name}.png", i)
        labels = np.zeros(SIZE, np.uint8)
        for k in range(1 + i % 3):
            own = np.zeros(SIZE, np.uint8)
            own[2 * k : 2 * k + 2, i : i + 3] = 255
            path = root / name / "masks" / f"o{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(own).save(path)
            labels[own > 0] = k + 1
        masks.append(labels)
    return masks


def table(root, names):
    masks, lines = [], ["image,mask"]
    for i, name in enumerate(names):
        photo(root / "p" / f"{name}.png", i)
        masks.append(draw(root / "q" / f"{name}.png", i, [0, 255]))
        lines.append(f"p/{name}.png,q/{name}.png")
    (root / "pairs.csv").write_text("\n".join(lines), "utf-8")
    return masks


def coco(root, names):
    masks, images, annotations = [], [], []
    for i, name in enumerate(names):
        photo(root / "images" / f"{name}.png", i)
        mask = np.zeros(SIZE, np.uint8)
        mask[1:4, i % 4 : i % 4 + 3] = 1
        masks.append(mask)
        size = {"height": SIZE[0], "width": SIZE[1]}
        images.append({"id": i + 1, "file_name": f"{name}.png", **size})
        x, y = i % 4, 1
        outline = [[x, y, x + 3, y, x + 3, y + 3, x, y + 3]]
        entry = {"id": i + 1, "image_id": i + 1, "category_id": 1, "iscrowd": 0}
        annotations.append({**entry, "segmentation": outline, "bbox": [x, y, 3, 3], "area": 9})
    (root / "annotations").mkdir(parents=True)
    categories = [{"id": 1, "name": "blob"}]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations/instances_default.json").write_text(json.dumps(tree), "utf-8")
    return masks


WRITERS = (folders, beside, twins, cases, cells, table, coco)


@pytest.mark.parametrize("write", WRITERS)
@given(names=NAMES, seed=st.integers(0, 9))
@example(names=["a", "b"], seed=0)
@BOUNDED
def test_a_tree_comes_back(write, names, seed):
    random.seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        masks = write(Path(folder), names)
        config = with_defaults(DataConfig(root=folder))
        records = [record for part in find(config).values() for record in part]
        assert len(records) == len(names)
        for record in records:
            (at,) = (i for i, name in enumerate(names) if record.image.stem == name)
            stored = read_mask(record.mask)
            assert np.array_equal(stored > 0, masks[at] > 0), record
            assert len(np.unique(stored)) == len(np.unique(masks[at]))


@pytest.mark.parametrize("write", TOOLS)
@given(names=NAMES, seed=st.integers(0, 9))
@BOUNDED
def test_an_export_comes_back(write, names, seed):
    random.seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        expected = write(Path(folder), names)
        config = with_defaults(DataConfig(root=folder))
        records = [record for part in find(config).values() for record in part]
        assert sorted(stem_of(record.image) for record in records) == sorted(names)
        for record in records:
            objects = expected[names.index(stem_of(record.image))]
            labels = read_sample(record, config).labels
            stored = {
                (config.class_names[category], (labels.map == k + 1).tobytes())
                for k, category in enumerate(labels.classes)
            }
            assert stored == {(name, mask.tobytes()) for name, mask in objects}, record


def damage(root, seed):
    """Spoils up to three files: removed, cut, emptied, exchanged, moved, or made something else."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 3)):
        files = sorted(path for path in root.rglob("*") if path.is_file())
        if not files:
            return
        file, other = chance.choice(files), chance.choice(files)
        data = file.read_bytes()
        kind = chance.randrange(7)
        if kind == 0:
            file.unlink()
        elif kind == 1:
            file.write_bytes(data[: chance.randint(0, len(data))])
        elif kind == 2:
            spoiled = bytearray(data)
            for _ in range(4):
                spoiled[chance.randrange(len(data))] = chance.randrange(256) if data else 0
            file.write_bytes(bytes(spoiled))
        elif kind == 3:
            file.write_bytes(other.read_bytes())
        elif kind == 4:
            file.rename(file.with_name(chance.choice(["x", "a_mask", "é", "Mask"]) + file.suffix))
        elif kind == 5:
            (file.parent / "more").mkdir(exist_ok=True)
            file.rename(file.parent / "more" / file.name)
        else:
            file.unlink()
            file.mkdir()


@pytest.mark.parametrize("write", (*WRITERS, *TOOLS))
@given(names=NAMES, seed=st.integers(0, 999))
@BOUNDED
def test_damage_is_told_in_one_line(write, names, seed):
    random.seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), names)
        damage(Path(folder), seed)
        try:
            found = check(with_defaults(DataConfig(root=folder)))
        except InputError as error:
            assert "\n" not in str(error) and str(error)
        else:
            for row in (*found.problems, *found.remarks):
                assert row.what and row.remedy and "\n" not in row.what + row.remedy
