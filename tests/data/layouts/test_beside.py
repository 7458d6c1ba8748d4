"""Images and masks in one folder, or in a folder for each case."""

import unicodedata

import numpy as np
import pytest
from pictures import blob, picture, save

from samtune.data import DataConfig, find_images, read_mask, splits, with_defaults
from samtune.data.layouts import find
from samtune.data.pictures import pictures_in


@pytest.fixture
def pairs_at(tmp_path):
    """Writes images and masks at the named places; gives the records as names."""

    def write(*names, **settings):
        for i, (image, *masks) in enumerate(names):
            save(tmp_path / image, picture(seed=i))
            for k, mask in enumerate(masks):
                shape = np.roll(blob(), -4 * k, axis=1) if len(masks) > 1 else blob()
                save(tmp_path / mask, shape)
        config = with_defaults(DataConfig(root=str(tmp_path), **settings))
        found = find(config)
        return {split: [r.name for r in part] for split, part in found.items()}, found, config

    return write


def nfd(text):
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a{}.jpg", "a{}_mask.png"), ("a{}.JPG", "a{}.PNG"), ("a{}.jpg", "a{}_gt.png"),
        ("a ({}).jpg", "a ({})_mask.png"), ("a{}_sat.jpg", "a{}_mask.png"),
        ("image_{}.png", "mask_{}.png"), ("é{}.png", nfd("é{}_Mask.tif")), 
        ("a{}.png", "gt-a{}.png"), ("a{}.tif", "a{}.png"),
    ],
)  # fmt: skip
def test_images_and_masks_in_one_folder(pairs_at, image, mask):
    names, found, _ = pairs_at(*[(image.format(i), mask.format(i)) for i in range(3)])
    assert [len(part) for part in names.values()] == [3]
    for record in found[None]:
        assert record.image.name in [image.format(i) for i in range(3)]
        assert read_mask(record.mask).sum() == 35 * 255


def test_one_folder_for_each_case(pairs_at):
    files = [(f"patient {p:02}/img_{i}.jpg", f"patient {p:02}/img_{i}_mask.png")
             for p in (1, 2) for i in (0, 1)]  # fmt: skip
    names, _, _ = pairs_at(*files)
    assert names == {None: [f"patient {p:02}_img_{i}" for p in (1, 2) for i in (0, 1)]}


def test_a_folder_for_each_case_with_a_file_called_mask(pairs_at):
    names, found, _ = pairs_at(*[(f"c{i}/image.png", f"c{i}/Mask.tif") for i in range(3)])
    assert names == {None: [f"c{i}_image" for i in range(3)]}
    assert {record.mask.parent == record.image.parent for record in found[None]} == {True}


@pytest.mark.parametrize("patterns", [{}, {"images": "*/*.jpg", "mask_files": "*/*_mask.png"}])
def test_lists_at_the_root_say_the_splits(pairs_at, tmp_path, refused, patterns):
    """By stems, names with their endings, or paths; what no list has is not used."""
    (tmp_path / "train.txt").write_text("p1/a.jpg\np2\\a\n")
    (tmp_path / "val.txt").write_text("b.jpg\n")
    files = [("p1/a.jpg", "p1/a_mask.png"), ("p2/a.jpg", "p2/a_mask.png"),
             ("p2/b.jpg", "p2/b_mask.png"), ("p2/c.jpg", "p2/c_mask.png")]  # fmt: skip
    names, _, config = pairs_at(*files, **patterns)
    assert names == {"train": ["p1_a", "p2_a"], "val": ["p2_b"]}
    (tmp_path / "val.txt").write_text("b\nz.jpg\np1/a\n")
    refused(["val.txt", "'z'"], find, config)


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("a{}.png", ["a{}_mask_0.png", "a{}_mask_1.png"]),
        ("images/a{}.png", ["masks/a{}_0.png", "masks/a{}_1.png"]),
        ("images/a{}.png", ["masks/a{}/0.png", "masks/a{}/1.png"]),
        ("a{}/images/a{}.png", ["a{}/masks/00f.png", "a{}/masks/e77.png"]),
        ("a{}/a{}.png", ["a{}/masks/0.png", "a{}/masks/1.png"]),
        ("a ({}).png", ["a ({})_mask.png", "a ({})_mask_1.png"]),
    ],
)
def test_one_mask_file_for_each_object(pairs_at, image, masks):
    def name(form, i):
        return form.replace("{}", str(i))

    _, found, config = pairs_at(
        *[(name(image, i), *(name(mask, i) for mask in masks)) for i in range(3)]
    )
    (records,) = found.values()
    assert len(records) == 3 and config.masks == "instance"
    values, areas = np.unique(read_mask(records[0].mask), return_counts=True)
    # the second lies over the first where they meet: 7 columns, the one from 4, the other from 0
    assert values.tolist() == [0, 1, 2] and areas[1:].tolist() == [4 * 5, 7 * 5]


def test_object_files_are_no_class_maps(pairs_at, refused):
    files = [(f"{i}.png", f"{i}_mask_0.png", f"{i}_mask_1.png") for i in range(2)]
    refused(["_mask_0.png", "data.masks=instance"], pairs_at, *files, masks="classes", classes=2)


def test_an_object_file_of_several_values_is_refused(pairs_at, tmp_path, refused):
    _, found, _ = pairs_at(*[(f"{i}.png", f"{i}_mask_0.png", f"{i}_mask_1.png") for i in range(2)])
    save(tmp_path / "0_mask_1.png", np.arange(192, dtype=np.uint8).reshape(12, 16))
    refused(["0_mask_1.png", "0 and 255"], read_mask, found[None][0].mask)
    save(tmp_path / "0_mask_1.png", blob(5, 16))
    refused(["0_mask_1.png", "16x5", "16x12"], read_mask, found[None][0].mask)


def test_split_folders_with_pairs(pairs_at):
    files = [
        (f"{s}/{i}_sat.jpg", f"{s}/{i}_mask.png") for s in ("train", "valid") for i in range(2)
    ]
    assert set(pairs_at(*files)[0]) == {"train", "val"}
    parts = splits(DataConfig(root=str(pairs_at()[2].root)))
    assert len(parts["val"]) == 2 and len(parts["train"]) + len(parts["test"]) == 2


def test_what_lacks_its_partner_is_refused(pairs_at, refused):
    refused(["b.jpg", "without a mask"], pairs_at, ("a.jpg", "a_mask.png"), ("b.jpg",))
    refused(["c_mask.png", "without an image"], pairs_at, ("b.jpg", "b_gt.png"), ("c_mask.png",))


@pytest.mark.parametrize("endings", [("bmp", "tif"), ("jpg", "png")])
def test_two_files_of_one_name_that_may_both_be_images(pairs_at, refused, endings):
    files = [("a.tif", "a_mask.png"), *((f"b.{ending}",) for ending in endings)]
    refused(
        ["b.{} and b.{}".format(*endings), "data.images=", "data.mask_files="], pairs_at, *files
    )


def test_masks_among_images_are_left_out_of_a_prediction(pairs_at, tmp_path):
    pairs_at(("a.jpg", "a_mask.png"), ("p/images/b.png", "p/masks/b.png"), ("gas_mask.jpg",
             "gas_mask.png"))  # fmt: skip
    found = pictures_in(tmp_path)
    assert [record.name for record in found.records] == ["a", "gas_mask", "p/images/b"]
    assert [mask.name for mask in found.masks] == ["a_mask.png", "gas_mask.png", "b.png"]
    assert [r.name for r in find_images(tmp_path / "p/masks")] == ["b"]
