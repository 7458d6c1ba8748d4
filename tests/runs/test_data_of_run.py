"""What a run says of its splits before it starts, and when it goes on."""

import json

import numpy as np
import pytest
from pictures import blob, picture, save

from samtune.data import splits, write_split
from samtune.data.layouts import find
from samtune.data.scan import looks
from samtune.runs.config import resolve
from samtune.runs.data_of_run import (
    altered,
    check_splits,
    leaks,
    parts_of_run,
    trained_images,
    write_digests,
)


@pytest.fixture
def root(tmp_path):
    for i in range(8):
        save(tmp_path / "set/images" / f"a{i}.png", picture(seed=i))
        save(tmp_path / "set/masks" / f"a{i}.png", blob(value=1))
    return tmp_path / "set"


def said(root, **data):
    config = resolve([{"data": {"root": str(root), **data}}])
    parts = splits(config.data)
    return check_splits(parts, config, carved=True), parts, config


def test_what_does_not_occur_has_no_number_and_is_said(root):
    _, parts, _ = said(root)
    for record in parts["test"]:
        save(record.mask, np.zeros((12, 16), np.uint8))
    remarks = said(root)[0].remarks
    (line,) = (remark for remark in remarks if "object" in remark)
    assert (
        line == "test: 1 of 1 images have no object, so that there is nothing to measure; add some"
    )
    classes = {"masks": "classes", "classes": 3, "background": 0, "class_names": ["bg", "a", "b"]}
    remarks = said(root, **classes)[0].remarks
    assert "val: b does not occur, so there is no number of it" in remarks
    assert not any("class 0" in line for line in remarks)


def test_a_training_repeats_what_a_check_says(root):
    _, parts, _ = said(root)
    twin = parts["test"][0].image
    save(parts["train"][0].image, picture(seed=int(twin.stem[1:])))
    (line,) = (r for r in said(root)[0].remarks if r.startswith("leak between splits"))
    assert "is the same image as" in line and "remove one of the two" in line
    remarks = said(root, masks="classes", classes=2)[0].remarks
    assert any("class 0 is prompted as an object in 8 of 8 images" in r for r in remarks)


def test_an_evaluation_repeats_what_a_check_says_of_leaks(tmp_path):
    for split, seeds in (("train", (0, 1, 2)), ("val", (1,)), ("test", (4, 2))):
        for seed in seeds:
            save(tmp_path / split / "images" / f"{split}{seed}.png", picture(seed=seed))
            save(tmp_path / split / "masks" / f"{split}{seed}.png", blob())
    config = resolve([{"data": {"root": str(tmp_path)}}])
    layout = find(config.data)
    (tmp_path / "train/images/train0.png").write_bytes(b"spoiled")  # of no concern here
    measured = check_splits({"test": layout["test"]}, config, thorough=True).looks
    (line,) = leaks(measured, layout, config)
    assert line.startswith("leak between splits: test2.png in test is the same image as train2.png")
    assert "val" not in line and "remove one of the two" in line
    (tmp_path / "train/images/train2.png").unlink()
    assert leaks(measured, layout, config) == []
    assert leaks(measured, {None: layout["test"]}, config) == []


def test_the_data_of_a_run(root, tmp_path, refused):
    _, parts, config = said(root)
    layout = find(config.data)
    run = tmp_path / "r"
    run.mkdir()
    write_split(run / "split.json", parts)

    def seen():
        return [*looks(find(config.data)[None], config.data, thorough=True)]

    write_digests(
        run, parts, [each for each in seen() if each.record in parts["train"]], layout, ""
    )
    assert parts_of_run(run, layout) == (parts, [], False) and altered(run, parts, seen()) == []
    assert altered(None, parts, seen()) == []
    save(root / "images/new.png", picture(seed=99))
    save(root / "masks/new.png", blob())
    first, second = (record.name for record in parts["train"][:2])
    save(root / "images" / f"{first}.png", picture(seed=98))
    save(root / "masks" / f"{second}.png", blob(value=255))
    again, lines, _ = parts_of_run(run, find(config.data))
    assert again == parts and "1 images are new" in lines[0] and "(new)" in lines[0]
    refused([f"resume={run}", first, "resume_changed=true"], altered, run, parts, seen())
    images, masks = altered(run, parts, seen(), allow=True)
    assert f"1 images have changed since the run began ({first})" in images
    assert f"1 masks have changed since the run began ({second})" in masks
    whole = (run / "files.json").read_bytes()
    for damage in (
        b"",
        whole[:50],
        whole.replace(b"new", b"old"),
        whole.replace(b"a1", b"a9"),
        b"[]",
    ):
        if damage != whole:
            (run / "files.json").write_bytes(damage)
            refused("files.json", altered, run, parts, seen())
    (run / "files.json").unlink()  # a run of an earlier version
    assert altered(str(run), parts, seen()) == []
    assert "are in no split of the run" in parts_of_run(str(run), find(config.data)).lines[0]
    lacking = {None: [record for record in layout[None] if record.name != first]}
    refused([f"resume={run}", first, "put them back"], parts_of_run, str(run), lacking)
    less = parts_of_run(run, lacking, allow=True)
    assert less.changed and first in less.lines[0] and len(less.parts["train"]) == 5
    assert parts_of_run(run, lacking, splits_used=("test",)).parts["test"] == parts["test"]
    text = (run / "split.json").read_text()
    flipped = text.replace(first, f"{first[:-1]}_")
    for damage in ("", text[:40], "[]", '{"train": 3}', '{"train": [3]}', text + "x", flipped):
        (run / "split.json").write_text(damage)
        refused([f"{run}/split.json", "is damaged"], parts_of_run, run, layout)
    names = {split: [record.name for record in part] for split, part in parts.items()}
    (run / "split.json").write_text(json.dumps(names))  # an earlier version's, unsealed
    assert parts_of_run(run, layout).parts == parts
    (run / "split.json").unlink()
    refused([f"resume={run}", "split.json"], parts_of_run, str(run), layout)


def test_images_of_the_same_name_in_two_splits_are_not_confused(tmp_path, refused):
    for i, split in enumerate(("train", "val", "test")):
        for name in ("1", "2"):
            save(tmp_path / f"set/{split}/images/{name}.png", picture(seed=10 * i + int(name)))
            save(tmp_path / f"set/{split}/masks/{name}.png", blob(value=1))
    root, run = tmp_path / "set", tmp_path / "r"
    config = resolve([{"data": {"root": str(root)}}])
    layout, parts = find(config.data), splits(config.data)
    seen = check_splits(parts, config, thorough=True).looks
    run.mkdir()
    write_split(run / "split.json", parts)
    write_digests(run, parts, seen, layout, "")
    assert parts_of_run(run, layout) == (parts, [], False)
    assert altered(run, parts, seen) == []
    assert trained_images(run, layout) == {*parts["train"]}
    save(root / "val/images/2.png", picture(seed=98))
    now = check_splits({"val": parts["val"]}, config, thorough=True).looks
    refused([f"resume={run}", "(val/2)"], altered, run, parts, now)
    (root / "train/images/1.png").unlink()
    (root / "train/masks/1.png").unlink()
    refused([f"resume={run}", "1 of the 6 images", "(1)"], parts_of_run, run, find(config.data))
    assert [r.file for r in parts_of_run(run, find(config.data), allow=True).parts["train"]] == [
        root / "train/images/2.png"
    ]
    save(root / "train/images/3.png", picture(seed=97))
    save(root / "train/masks/3.png", blob(value=1))
    lines = parts_of_run(run, find(config.data), allow=True).lines
    assert "1 images are new since the run began and are not used (3)" in lines[1]


def test_an_image_that_moved_to_the_folder_of_another_split_is_told_and_keeps_its_split(tmp_path):
    root, run = tmp_path / "set", tmp_path / "r"
    for split, names in {"train": "abcd", "val": "e", "test": "f"}.items():
        for name in names:
            save(root / split / "images" / f"{name}.png", picture(seed=ord(name)))
            save(root / split / "masks" / f"{name}.png", blob(value=1))
    config = resolve([{"data": {"root": str(root)}}]).data
    parts = splits(config)
    write_split(run / "split.json", parts)
    for kind in ("images", "masks"):
        (root / "val" / kind / "e.png").rename(root / "train" / kind / "e.png")
        save(root / "val" / kind / "g.png", picture(seed=1) if kind == "images" else blob(value=1))
        (root / "train" / kind / "a.png").rename(root / "test" / kind / "a.png")
    now = parts_of_run(run, find(config))
    assert now.lines[0] == (
        "2 images of the run are in the folder of another split (a: of train, now in test, e: of "
        "val, now in train); the run uses them as split.json lists them"
    )
    assert "new" in now.lines[1] or "in no split of the run" in now.lines[1]
    assert [record.name for record in now.parts["val"]] == ["e"] and not now.changed
    assert [record.name for record in now.parts["train"]] == [*"abcd"]
