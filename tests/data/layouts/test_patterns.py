"""Files that patterns name, and cases that splits keep together."""

import pytest
from pictures import blob, picture, save

from samtune.data import DataConfig, splits
from samtune.data.layouts import find


@pytest.fixture
def root(tmp_path):
    for i in range(3):
        save(tmp_path / "photos" / f"s{i}.tif", picture(seed=i))
        save(tmp_path / "photos" / f"s{i}.bmp", blob())
        save(tmp_path / "truth of all" / f"seen_s{i}.png", blob())
    return tmp_path


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("photos/*.tif", "photos/*.bmp"), ("*/*.tif", "*/*.bmp"),
        ("photos/*.tif", "truth of all/seen_*.png"), ("**/*.tif", "**/*.bmp"),
        ("photos/s?.tif", "photos/s?.bmp"), ("photos/s[0-9].tif", "photos/s[0-9].bmp"),
    ],
)  # fmt: skip
def test_wildcards_stand_for_the_same_in_both(root, images, masks):
    config = DataConfig(root=str(root), images=images, mask_files=masks)
    (records,) = find(config).values()
    assert [record.name for record in records] == ["s0", "s1", "s2"]
    for record in records:
        assert record.image.name == f"{record.name}.tif"
        assert record.mask.stem in (record.name, f"seen_{record.name}")


def test_the_others_are_what_no_pattern_names(root):
    for path in (root / "truth of all").iterdir():
        path.unlink()
    for settings in ({"images": "**/*.tif"}, {"mask_files": "photos/*.bmp"}):
        (records,) = find(DataConfig(root=str(root), **settings)).values()
        assert [(r.image.suffix, r.mask.suffix) for r in records] == [(".tif", ".bmp")] * 3


def test_wrong_patterns(root, refused):
    def given(images, masks):
        return find, DataConfig(root=str(root), images=images, mask_files=masks)

    refused(["data.images=*.png", "images/*.jpg"], *given("*.png", None))
    refused(["data.mask_files=a/*", "**/*_mask.png"], *given(None, "a/*"))
    refused(["s0.bmp", "tell them apart"], *given("photos/*", "photos/*.bmp"))
    (root / "photos/s1.bmp").unlink()
    refused(["s1.tif", "without a mask"], *given("photos/*.tif", "photos/*.bmp"))


def test_a_case_is_on_one_side_of_a_made_split(tmp_path, refused):
    for case in range(6):
        for i in range(3):
            save(tmp_path / f"p {case}/x{i}.jpg", picture(seed=3 * case + i))
            save(tmp_path / f"p {case}/x{i}_mask.png", blob())
    for group in (r"p \d", "^([^/]+)/", "^p (.)"):
        parts = splits(DataConfig(root=str(tmp_path), group=group))
        cases = {split: {r.file.parent.name for r in part} for split, part in parts.items()}
        assert [len(cases[s]) for s in ("train", "val", "test")] == [4, 1, 1]
        assert len(set.union(*cases.values())) == 6
        assert sum(map(len, parts.values())) == 18

    def refuse(group, *said):
        words = [f"group={group}", *said]
        refused(words, lambda g=group: splits(DataConfig(root=str(tmp_path), group=g)))

    refuse("p (", "no regular expression")
    refuse("p [0-3]", "6 of 18 images", "p 4/x0.jpg")
    refused(["only case"], splits, DataConfig(root=str(tmp_path), group="^p"))
