"""What a check and a training both say of a data set."""

import numpy as np
import pytest
from pictures import blob, picture, save

from samtune.data import DataConfig
from samtune.data.check import check

CLASSES = {"masks": "classes", "classes": 3}


def remarks(root, **settings):
    found = check(DataConfig(root=str(root), **settings))
    return {row.kind: row for row in found.remarks if not row.kind.startswith("single")}


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("patient {}/x{}", "^([^/]+)/"), ("images/p{}/x{}", "^images/([^/]+)/"),
        ("images/patient{}_{}", "patient"), ("p{}/images/{}", "^([^/]+)/"),
    ],
)  # fmt: skip
def test_cases_on_both_sides_of_a_made_split(tmp_path, name, pattern):
    for case in range(3):
        for i in range(4):
            path = name.format(case, i)
            save(tmp_path / f"{path}.jpg", picture(seed=4 * case + i))
            mask = path.replace("images", "masks") if "images" in path else f"{path}_mask"
            save(tmp_path / f"{mask}.png", blob())
    row = remarks(tmp_path)["cases in two splits"]
    assert "of 3 cases" in row.what and f"data.group='{pattern}" in row.remedy.replace("(?i:", "")
    group = row.remedy.split("'")[1]
    assert "cases in two splits" not in remarks(tmp_path, group=group)


def test_folders_that_are_no_cases_are_not_remarked(make_pairs):
    assert "cases in two splits" not in remarks(make_pairs([f"img{i}" for i in range(6)]))


def test_folders_of_splits_are_no_cases(tmp_path):
    for split in ("train", "val"):
        for i in range(4):
            save(tmp_path / f"images/{split}/{split}{i}.png", picture(seed=len(split) * 10 + i))
            save(tmp_path / f"masks/{split}/{split}{i}.png", blob())
    assert "cases in two splits" not in remarks(tmp_path)


def test_class_0_as_an_object(make_pairs):
    mask = np.full((12, 16), 2, np.uint8)
    root = make_pairs([f"a{i}" for i in range(4)], mask=blob(value=2))
    make_pairs(["b0", "b1"], mask=mask)
    row = remarks(root, **CLASSES)["class 0 as object"]
    assert "in 4 of 6 images: 10 objects, 6 without it" in row.what
    assert "data.background=0" in row.remedy
    for settings in ({"background": 0}, {"background": 1}, {"ignore": 0}):
        assert "class 0 as object" not in remarks(root, **CLASSES, **settings)


def test_masks_of_several_regions(make_pairs):
    mask = np.zeros((12, 16), np.uint8)
    names = [f"a{i}" for i in range(4)]
    mask[1:6, 1:6] = mask[7:10, 9:14] = 255
    root = make_pairs(names, mask=mask)
    row = remarks(root)["several regions in a mask"]
    assert "4 of 4" in row.what and "data.objects=component" in row.remedy
    for objects in ("component", "mask"):
        assert "several regions in a mask" not in remarks(root, objects=objects)
    mask[7, 9:14] = mask[8:10] = 0
    mask[7, 9] = 255  # a speck
    assert "several regions in a mask" not in remarks(make_pairs(names, mask=mask))
