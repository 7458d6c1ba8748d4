import unicodedata
from pathlib import Path

import pytest

from samtune.data.pairing import PairFile, assign, object_stem, without_word
from samtune.data.trees import roles_of


@pytest.mark.parametrize(
    ("stem", "rest"),
    [
        ("a_mask", "a"), ("mask_a", "a"), ("a-gt", "a"), ("a.mask", "a"), ("a mask", "a"),
        ("A_Mask", "A"), ("a (1)_mask", "a (1)"), ("a_mask (1)", "a (1)"), ("a_ground_truth", "a"),
        ("a_segmentation", "a"), ("amask", None), ("mask", None), ("a", None), ("_mask", None),
    ],
)  # fmt: skip
def test_the_word_of_a_mask(stem, rest):
    assert without_word(stem, ("mask", "gt", "ground_truth", "segmentation")) == rest


@pytest.mark.parametrize(
    ("stem", "image"),
    [("a_mask_0", "a"), ("a_mask12", "a"), ("a-mask-3", "a"), ("a_1", None), ("a_mask", None)],
)
def test_the_number_of_an_object(stem, image):
    assert object_stem(stem) == image


def paired(images, masks, apart=True):
    def named(path):
        return PairFile(Path(path), Path(path).parts[:-1], apart)

    found = assign([named(p) for p in images], [named(p) for p in masks])
    table = {str(image): [str(m) for m in masks] for image, masks in found.masks.items()}
    return table, {str(p) for p in found.objects}, [str(p) for p in found.alone]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.png", "a.png"), ("a.jpg", "a_mask.png"), ("a.v1.jpg", "a.v1_GT.png"),
        ("a_sat.jpg", "a_mask.png"), ("img_07.png", "mask_07.png"), ("A1.JPG", "a1.PNG"),
        ("a (1).jpg", "a (1)_mask.png"), ("a (1).jpg", "a_mask (1).png"),
        (unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")),
        (unicodedata.normalize("NFD", "ü/é.png"), unicodedata.normalize("NFC", "ü/é_mask.png")),
        ("p 1/x.png", "p 1/x.png"),
    ],
)  # fmt: skip
def test_a_mask_finds_its_image(image, mask):
    assert paired([image, "other.png"], [mask]) == ({image: [mask]}, set(), [])


def test_exact_names_come_first():
    images = ["a.png", "A.png", "x.png", "x_mask.png"]
    assert paired(images, images)[0] == {name: [name] for name in images}


def test_an_unclear_name_is_of_no_image():
    assert paired(["a_sat.png", "a_rgb.png"], ["a_mask.png"])[2] == ["a_mask.png"]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["a.png", "b.png"], ["a_mask_0.png", "a_mask_1.png"]),
        (["a.png", "b.png"], ["a_0.png", "a_1.png"]),
        (["a.png", "b.png"], ["a/0.png", "a/zz.png"]),
        (["a/a.png", "b/b.png"], ["a/0f.png", "a/1e.png"]),
        (["c/a.png", "c/b.png"], ["c/a/0.png", "c/a/1.png"]),
    ],
)
def test_a_mask_file_for_each_object(images, masks):
    assert paired(images, masks) == ({images[0]: masks}, set(masks), [])


def test_a_number_belongs_to_an_image_that_is_lacking_if_the_other_has_its_mask():
    assert paired(["a.png"], ["a.png", "a_1.png"])[2] == ["a_1.png"]


class TestTrees:
    def roles(self, tmp_path, *names):
        found = roles_of([tmp_path / name for name in names], tmp_path)
        return [
            sorted(str(each.path.relative_to(tmp_path)) for each in side)
            for side in (found.images, found.masks)
        ]

    def test_by_names(self, tmp_path):
        names = ["a.jpg", "a_mask.png", "p/b.jpg", "p/b_gt.png", "gas_mask.jpg",
                 "gas_mask_mask.png"]  # fmt: skip
        assert self.roles(tmp_path, *names) == [
            ["a.jpg", "gas_mask.jpg", "p/b.jpg"], ["a_mask.png", "gas_mask_mask.png", "p/b_gt.png"]
        ]  # fmt: skip

    def test_by_folders(self, tmp_path):
        names = ["c1/images/a.png", "c1/masks/a.png", "train_images/b.png", "train_labels/b.png"]
        assert self.roles(tmp_path, *names) == [names[::2], names[1::2]]

    def test_beside_a_jpeg_the_other_file_is_the_mask(self, tmp_path):
        assert self.roles(tmp_path, "a.JPG", "a.png") == [["a.JPG"], ["a.png"]]
