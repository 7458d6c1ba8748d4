"""``samtune data check`` names all faults of the other layouts at once, with kinds and remedies."""

import json
import shutil
from pathlib import Path

import pytest
from named_miniatures import MINIATURES
from pictures import blob, picture, save

from samtune.data import DataConfig, splits, with_defaults
from samtune.data.check import check
from samtune.errors import InputError

SQUARE = [2, 2, 6, 2, 6, 6, 2, 6]


def coco(root):
    """A bad category, an image that is missing, one that is broken, and polygons of 4 numbers."""
    images = [{"id": i, "file_name": f"{i}.png", "height": 12, "width": 16} for i in range(12)]
    objects = [[1, SQUARE] for _ in range(12)]
    objects[3], objects[4], objects[5] = [9, SQUARE], [1, [1, 1, 4, 4]], [1, [2, 2, 5, 5]]
    annotations = [
        {"id": 100 + i, "image_id": i, "category_id": category, "segmentation": [polygon]}
        for i, (category, polygon) in enumerate(objects)
    ]
    annotations += [
        {**annotations[4], "id": 112, "segmentation": [[1, 1, 4, 5]]},
        {**annotations[0], "id": 113, "image_id": 77},
        {**annotations[0], "id": 114, "segmentation": []},
        {"id": 115},
    ]
    for i in range(12):
        save(root / "images" / f"{i}.png", picture(seed=i))
    (root / "images/1.png").unlink()
    (root / "images/2.png").write_bytes(b"nothing")
    tree = {"images": images, "annotations": annotations}
    tree["categories"] = [{"id": 1, "name": "cat"}]
    (root / "annotations.json").write_text(json.dumps(tree))
    return [
        ("annotations.json", "incomplete entry"),
        ("annotations.json", "no outline"),
        ("annotations.json", "unknown category"),
        ("annotations.json", "unknown image"),
        ("annotations.json", "wrong polygon"),
        ("annotations.json", "wrong polygon"),
        ("1.png", "missing image"),
        ("2.png", "unreadable image"),
    ]


def table(root):
    for i in range(12):
        save(root / "p" / f"{i}.png", picture(seed=i))
        save(root / "t" / f"{i}.png", blob())
    lines = ["image,mask,split", *(f"p/{i}.png,t/{i}.png,train" for i in range(10))]
    lines += ["p/3.png,t/3.png,train", "p/10.png,t/99.png,train", "p/98.png,t/11.png,train"]
    lines += ["p/10.png,t/10.png,exam", ",t/11.png,train"]
    (root / "pairs.csv").write_text("\n".join(lines))
    save(root / "t" / "4.png", blob(9, 9))
    kinds = ["image twice", "missing mask", "missing image", "image twice", "unknown split"]
    found = [("pairs.csv", kind) for kind in (*kinds, "no image")]
    return [*found, ("4.png", "size mismatch")]


def yolo(root):
    line = "0 0.1 0.1 0.5 0.1 0.5 0.5"
    for i in range(12):
        save(root / "images/train" / f"{i}.png", picture(seed=i))
        (root / "labels/train").mkdir(parents=True, exist_ok=True)
        (root / "labels/train" / f"{i}.txt").write_text(line)
    (root / "labels/train/1.txt").write_text("0 0.5 0.5 0.2 0.2\n0 1 2\n" + line)
    (root / "labels/train/2.txt").write_text(line.replace("0 ", "7 ", 1))
    (root / "images/train/3.png").write_bytes(b"nothing")
    (root / "val.txt").write_text("images/train/77.png\nimages/train/78.png\n")
    (root / "data.yaml").write_text(
        "train: images/train\nval: val.txt\ntest: images/none\nnames: [cat]\n"
    )
    return [
        ("1.txt", "box, no polygon"),
        ("2.txt", "unknown class"),
        ("3.png", "unreadable image"),
        ("77.png", "missing image"),
        ("78.png", "missing image"),
        ("data.yaml", "missing folder"),
    ]


def voc(root):
    for i in range(12):
        save(root / "JPEGImages" / f"{i}.jpg", picture(seed=i))
        save(root / "SegmentationClass" / f"{i}.png", blob(value=3))
    sets = root / "ImageSets/Segmentation"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("\n".join(str(i) for i in range(10)) + "\n50\n")
    (sets / "val.txt").write_text("")
    (root / "SegmentationClass/10.png").unlink()
    (sets / "test.txt").write_text("10\n11")
    save(root / "SegmentationClass/2.png", blob(value=40))
    return [
        ("train.txt", "listed but missing"),
        ("train.txt", "listed but missing"),
        ("test.txt", "listed but missing"),
        ("val.txt", "empty list"),
        ("2.png", "class out of range"),
    ]


def rows(found):
    return sorted((Path(row.file).name, row.kind) for row in found.problems)


@pytest.mark.parametrize("spoil", [coco, table, yolo, voc])
def test_all_faults_of_a_layout_are_named_at_once(tmp_path, spoil):
    expected = spoil(tmp_path)
    config = with_defaults(DataConfig(root=str(tmp_path)))
    found = check(config)
    made = [row for row in rows(found) if row[1] not in ("empty split", "single image split")]
    assert made == sorted(expected), found.problems
    assert all(row.remedy for row in found.problems)
    with pytest.raises(InputError) as caught:  # and training ends with the first
        splits(config)
    first = found.problems[0]
    assert first.what in str(caught.value) or first.remedy in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "files", "named", "what", "remedy"),
    [
        ("nnunet", {"dataset.json": "{"}, "dataset.json", "not readable as JSON", "write it again"),
        ("nnunet", {"dataset.json": "{}"}, "dataset.json", "channel_names", "convert"),
        ("coco", {"train.json": "[1"}, "train.json", "JSON", ""),
        ("coco", {"notes.txt": ""}, "", "no annotation file", "data.root"),
        ("yolo", {"notes.txt": ""}, "", "no data.yaml", "data.root"),
        ("csv", {"pairs.csv": "picture;truth\n"}, "pairs.csv", "no column image", "first line"),
        ("voc", {"notes.txt": ""}, "", "no folders JPEGImages", "data.root"),
    ],
)
def test_a_fault_of_the_whole_folder_is_a_problem_like_any_other(
    samtune, tmp_path, layout, files, named, what, remedy
):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    answer = samtune("data", "check", f"data.root={tmp_path}", f"data.layout={layout}", "--json")
    assert answer.code == 2
    (problem,) = answer.json["problems"]
    assert problem["file"] == str(tmp_path / named)
    assert what in problem["what"] and remedy in problem["remedy"]


def test_a_wrong_outline_is_named_with_its_annotation_and_how_many_more(tmp_path):
    coco(tmp_path)
    found = check(with_defaults(DataConfig(root=str(tmp_path))))
    whats = sorted(row.what for row in found.problems if row.kind == "wrong polygon")
    assert [what.split(":")[0] for what in whats] == ["annotation 104", "annotation 105"]
    assert "1 more objects" in whats[0] and "more" not in whats[1].split("least")[1]


def test_what_a_published_set_lacks_is_named_file_by_file(tmp_path):
    mini = MINIATURES["istd"]
    mini.write(tmp_path)
    images = sorted((tmp_path / "ISTD_Dataset/train/train_A").iterdir())
    masks = sorted((tmp_path / "ISTD_Dataset/train/train_B").iterdir())
    images[0].unlink()
    masks[1].unlink()
    images[2].write_bytes(b"nothing")
    found = check(with_defaults(DataConfig(name="istd", root=str(tmp_path))))
    assert set(rows(found)) >= {
        (masks[0].name, "missing or alone"),
        (images[1].name, "missing or alone"),
        (images[2].name, "unreadable image"),
    }


def test_volumes_of_a_published_set_are_all_looked_at(tmp_path):
    MINIATURES["synapse"].write(tmp_path)
    for case in ("case0008", "case0022"):
        (tmp_path / f"test_vol_h5/{case}.npy.h5").write_bytes(b"no volume")
    found = check(with_defaults(DataConfig(name="synapse", root=str(tmp_path))))
    wanted = {(f"{c}.npy.h5", "unreadable volume") for c in ("case0008", "case0022")}
    assert set(rows(found)) >= wanted
    shutil.rmtree(tmp_path / "test_vol_h5")
    assert ("incomplete download") in {
        row.kind
        for row in check(with_defaults(DataConfig(name="synapse", root=str(tmp_path)))).problems
    }


def test_images_that_no_annotation_file_lists_are_remarked(tmp_path):
    coco(tmp_path)
    save(tmp_path / "images/extra.png", picture())
    found = check(with_defaults(DataConfig(root=str(tmp_path))))
    never = [(Path(row.file).name, row.kind) for row in found.remarks if "unused" in row.kind]
    assert never == [("extra.png", "unused file")]
