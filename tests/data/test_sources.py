from dataclasses import replace

import numpy as np
import pytest

from samtune.data import (
    DataConfig,
    find_images,
    find_records,
    read_mask,
    read_split,
    select,
    splits,
    write_split,
)

SIX = [f"img{i}" for i in range(6)]


def names(parts):
    return {split: [r.name for r in records] for split, records in parts.items()}


@pytest.mark.parametrize(
    ("images", "masks"),
    [("images", "masks"), ("Imgs", "GT"), ("JPEGImages", "Annotations"), ("img", "label")],
)
def test_folder_names_in_any_case(make_pairs, images, masks):
    root = make_pairs(["b", "a"], images, masks)
    records = find_records(root)
    assert [r.name for r in records] == ["a", "b"]
    assert records[0].image == root / images / "a.png"
    assert records[0].mask == root / masks / "a.png"


@pytest.mark.parametrize("ending", ["_mask", "_gt", "_label", "_segmentation", "_Segmentation"])
def test_mask_endings(tmp_path, save_image, make_picture, make_blob, ending):
    save_image(tmp_path / "images/a.v1.jpg", make_picture())
    save_image(tmp_path / f"masks/a.v1{ending}.png", make_blob())
    (record,) = find_records(tmp_path)
    assert record.mask.name == f"a.v1{ending}.png"


def test_image_that_ends_like_a_mask_keeps_its_stem(make_pairs):
    assert [r.name for r in find_records(make_pairs(["x", "x_mask"]))] == ["x", "x_mask"]


def test_hidden_and_other_files_are_ignored(make_pairs):
    root = make_pairs(["a", "b"])
    (root / "images" / "._a.png").write_bytes(b"")
    (root / "images" / "notes.txt").write_text("")
    assert len(find_records(root)) == 2


@pytest.mark.parametrize("pattern", ["{kind}/{split}", "{split}/{kind}"], ids=["inside", "outside"])
@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_split_folders(make_pairs, pattern, val):
    for split, stems in {"train": ["a", "b"], val: ["c"], "test": ["d"]}.items():
        folders = (pattern.format(kind=kind, split=split) for kind in ("images", "masks"))
        root = make_pairs(stems, *folders)
    parts = splits(DataConfig(root=str(root)))
    assert names(parts) == {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
    assert [r.name for r in find_records(root, "val")] == ["c"]
    assert [r.name for r in select(parts, "all")] == ["a", "b", "c", "d"]


def test_split_lists(make_pairs):
    root = make_pairs([*SIX, "unlisted.v2"])
    (root / "train.txt").write_text("img1.png\nimg0\n\nimages/img2.png\n")
    (root / "validation.txt").write_text("img3\n")
    (root / "test.txt").write_text("img4\nunlisted.v2\n")
    assert names(splits(DataConfig(root=str(root)))) == {
        "train": ["img0", "img1", "img2"],
        "val": ["img3"],
        "test": ["img4", "unlisted.v2"],
    }


@pytest.mark.parametrize("count", [3, 4, 7, 30])
def test_made_split_is_whole_disjoint_and_repeatable(make_pairs, count):
    root = make_pairs([f"s{i:02}" for i in range(count)], size=(2, 2))
    config = DataConfig(root=str(root), val_fraction=0.2, test_fraction=0.3)
    made = names(splits(config))
    assert all(made.values())
    assert sorted(n for part in made.values() for n in part) == [f"s{i:02}" for i in range(count)]
    assert made == names(splits(config))
    if count == 30:
        assert [len(made[s]) for s in ("train", "val", "test")] == [15, 6, 9]
        assert made != names(splits(replace(config, split_seed=1)))


def test_two_pairs_share_validation_and_test(make_pairs):
    made = splits(DataConfig(root=str(make_pairs(["a", "b"]))))
    assert made["val"] == made["test"]
    assert [len(made[s]) for s in ("train", "val", "test")] == [1, 1, 1]
    assert made["train"] != made["val"]
    assert len(select(made, "all")) == 2


@pytest.mark.parametrize("missing", ["val", "test"])
def test_missing_split_is_carved_from_training(make_pairs, missing):
    given = "test" if missing == "val" else "val"
    make_pairs(SIX, "images/train", "masks/train")
    root = make_pairs(["given"], f"images/{given}", f"masks/{given}")
    made = names(splits(DataConfig(root=str(root))))
    assert made[given] == ["given"]
    assert len(made[missing]) == 1
    assert sorted(made["train"] + made[missing]) == SIX


def test_test_folder_alone_serves_evaluation(make_pairs):
    made = splits(DataConfig(root=str(make_pairs(["a"], "images/test", "masks/test"))))
    assert names(made) == {"train": [], "val": [], "test": ["a"]}


def test_shots_are_nested_and_seeded(make_pairs):
    root = make_pairs([f"s{i:02}" for i in range(20)], size=(2, 2))
    config = DataConfig(root=str(root))
    few, more = (splits(replace(config, shots=k)) for k in (2, 8))
    assert len(few["train"]) == 2
    assert set(few["train"]) < set(more["train"])
    assert few["test"] == splits(config)["test"]
    assert few["train"] != splits(replace(config, shots=2, shot_seed=1))["train"]


def of_class(classes, size=(4, 8)):
    """A class map with a column of each of some classes on class 0."""
    mask = np.zeros(size, np.uint8)
    mask[:, : len(classes)] = classes
    return mask


@pytest.mark.parametrize("seed", range(4))
def test_shots_are_balanced_over_classes(make_pairs, seed):
    """Nine images in ten are of class 1 alone; each other class has its few."""
    for i in range(60):
        rare = {0: 2, 1: 3, 2: 4}.get(i % 20, 1)
        root = make_pairs([f"s{i:02}"], mask=of_class([rare]), size=(4, 8))
    config = DataConfig(
        root=str(root), masks="classes", classes=6, background=0, shot_seed=seed,
        val_fraction=0.02, test_fraction=0.02,
    )  # fmt: skip
    drawn, before = [], set()
    for shots in (4, 6, 8, 12):
        train = splits(replace(config, shots=shots))["train"]
        assert before < {r.name for r in train} and len(train) == shots
        before = {r.name for r in train}
        seen = np.bincount([read_mask(r.mask).max() for r in train], minlength=5)[1:]
        # at most three images hold class 2, 3 or 4, less what validation and test took
        assert seen[1:].min() >= min(shots // 4, 1) and seen.sum() == shots
        drawn.append(seen.tolist())
    assert drawn[0] == [1, 1, 1, 1]
    assert splits(replace(config, shots=8)) == splits(replace(config, shots=8))


def test_an_image_of_more_unseen_classes_comes_first(make_pairs):
    make_pairs([f"a{i}" for i in range(9)], mask=of_class([1]), size=(4, 8))
    root = make_pairs(["both"], mask=of_class([1, 2]), size=(4, 8))
    make_pairs(["val", "test"], mask=of_class([1]), size=(4, 8))
    (root / "train.txt").write_text(
        "".join(f"{n}\n" for n in ["both", *(f"a{i}" for i in range(9))])
    )
    (root / "val.txt").write_text("val\n")
    (root / "test.txt").write_text("test\n")
    config = DataConfig(root=str(root), masks="classes", classes=3, background=0, shots=1)
    assert [r.name for r in splits(config)["train"]] == ["both"]


def test_a_broken_mask_is_told_when_shots_are_balanced(make_pairs, refused):
    root = make_pairs(SIX, mask=of_class([7]), size=(4, 8))
    config = DataConfig(root=str(root), masks="classes", classes=3, shots=1)
    refused(["{7}", "data.classes"], splits, config)


def test_written_split_names_every_file(make_pairs, tmp_path):
    parts = splits(DataConfig(root=str(make_pairs(SIX))))
    write_split(tmp_path / "split.json", parts)
    assert read_split(tmp_path / "split.json") == names(parts)


def test_images_to_predict_on(make_pairs, tmp_path, refused):
    root = make_pairs(["b", "a"])
    assert [(r.name, r.mask) for r in find_images(root / "images")] == [("a", None), ("b", None)]
    assert [r.name for r in find_images(root / "images" / "b.png")] == ["b"]
    (tmp_path / "empty").mkdir()
    refused([tmp_path / "empty", "no image file"], find_images, tmp_path / "empty")
    refused([tmp_path / "nowhere", "does not exist"], find_images, tmp_path / "nowhere")


def test_bad_roots(tmp_path, make_pairs, refused):
    refused("data.root", splits, DataConfig())
    refused([tmp_path / "no", "does not exist"], find_records, tmp_path / "no")
    (tmp_path / "pictures").mkdir()
    refused([tmp_path, "looked for images|", "masks|", "pictures/"], find_records, tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    refused([tmp_path / "images", "no image and mask pairs"], find_records, tmp_path)
    root = make_pairs(["only"])
    refused(["only.png", "only pair", "add pairs"], splits, DataConfig(root=str(root)))
    refused(["'val'", "none"], find_records, root, "val")


def test_unpaired_files(make_pairs, refused):
    root = make_pairs(SIX)
    for stem in SIX[:4]:
        (root / "masks" / f"{stem}.png").unlink()
    words = [root / "images", "4 file(s)", "img0.png, img1.png, img2.png, ...", "add the mask"]
    refused(words, find_records, root)
    for stem in SIX[:5]:
        (root / "images" / f"{stem}.png").unlink()
    refused([root / "masks", "img4.png", "add the image"], find_records, root)


def test_split_of_images_without_masks(make_pairs, refused):
    root = make_pairs(["a"], "images/train", "masks/train")
    make_pairs(["b"], "images/test", "elsewhere")
    refused([root / "images" / "test", "'test'"], find_records, root)


def test_split_folder_without_masks(make_pairs, refused):
    root = make_pairs(["a"], "train/images", "train/masks")
    make_pairs(["b"], "test/images", "elsewhere")
    refused([root / "test", "the other splits have"], find_records, root)


def test_duplicate_stems(make_pairs, save_image, make_picture, refused):
    root = make_pairs(["a", "b"])
    save_image(root / "images" / "a.jpg", make_picture())
    refused(["a.png", "a.jpg", "same stem"], find_records, root)
    (root / "images" / "a.jpg").unlink()
    save_image(root / "masks" / "b_gt.png", make_picture())
    refused(["b_gt.png", "b.png", "keep one"], find_records, root)


def test_bad_lists(make_pairs, refused):
    root = make_pairs(SIX)
    (root / "train.txt").write_text("img0\nghost\n")
    refused([root / "train.txt", "'ghost'", "no image", "remove the line"], find_records, root)
    (root / "train.txt").write_text("img0\n")
    (root / "test.txt").write_text("img0\n")
    refused([root / "test.txt", "'img0'", "train.txt"], find_records, root)
    (root / "test.txt").write_text("\n")
    refused([root / "test.txt", "lists no file"], find_records, root)
    (root / "test.txt").write_bytes(b"img\xff0")
    refused([root / "test.txt", "UTF-8"], find_records, root)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shots": 9}, ["data.shots=9", "4 pairs"]),
        ({"shots": 0}, ["shots=0"]),
        ({"classes": 3, "class_names": ("a", "b")}, ["class_names", "2 names", "3 classes"]),
        ({"val_fraction": 0.0}, ["data.val_fraction=0.0"]),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, ["_fraction=0.5", "both together below 1"]),
    ],
)
def test_bad_numbers(make_pairs, refused, change, words):
    root = str(make_pairs(SIX))
    refused(words, lambda: splits(DataConfig(root=root, **change)))


def test_bad_selection(make_pairs, refused):
    parts = splits(DataConfig(root=str(make_pairs(["a"], "images/test", "masks/test"))))
    refused(["data.split=train", "empty", "test"], select, parts, "train")
    refused("data.split=other", select, parts, "other")
