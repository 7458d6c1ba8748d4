"""``samtune data check`` and training accept and refuse the same folders."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from pictures import blob, picture, save

from samtune.data import DataConfig, scan, splits
from samtune.data.check import check
from samtune.data.named import DATASETS

TEN = [f"img{i}" for i in range(10)]
CLASSES = {"masks": "classes", "classes": 3}


def rows(found):
    return [(Path(row.file).name, row.kind) for row in found]


# Each writes a fault into a sound folder of ten pairs, and says: the settings, what is found
# (file, kind), and words of the remedy.


def image_without_mask(root):
    for stem in TEN[:4]:
        (root / "masks" / f"{stem}.png").unlink()
    return {}, [(f"{stem}.png", "unmatched image") for stem in TEN[:4]], "add the mask"


def mask_without_image(root):
    (root / "images" / "img3.png").unlink()
    return {}, [("img3.png", "unmatched mask")], "add the image"


def one_stem_twice(root):
    save(root / "images" / "img0.bmp", picture())
    return {}, [("img0.png", "stem twice")], "keep one"


def no_image(root):
    (root / "images" / "img2.png").write_bytes(b"nothing")
    return {}, [("img2.png", "unreadable image")], "replace the file"


def cut_image(root):
    path = root / "images" / "img2.png"
    path.write_bytes(path.read_bytes()[:-100])
    return {}, [("img2.png", "unreadable image")], "replace the file"


def spoiled_inside(root):
    """Whole by its header and end: only decoding it tells."""
    path = root / "images" / "img2.png"
    data = bytearray(path.read_bytes())
    data[60:120] = bytes(60)
    path.write_bytes(data)
    return {}, [("img2.png", "unreadable image")], "replace the file"


def no_mask(root):
    (root / "masks" / "img2.png").write_bytes(b"")
    return {}, [("img2.png", "unreadable mask")], "remove it and its partner"


def other_size(root):
    save(root / "masks" / "img1.png", blob(12, 15))
    save(root / "masks" / "img2.png", blob(11, 16))
    found = [("img1.png", "size mismatch"), ("img2.png", "size mismatch")]
    return {}, found, "export the mask again"


def odd_values(root):
    save(root / "masks" / "img4.png", blob() + (np.arange(16) % 7).astype(np.uint8))
    return {}, [("img4.png", "unexpected mask values")], "data.masks=classes"


def size_and_values(root):
    save(root / "masks" / "img4.png", np.arange(20, dtype=np.uint8).reshape(4, 5))
    found = [("img4.png", "size mismatch"), ("img4.png", "unexpected mask values")]
    return {}, found, "same size"


def coloured(root):
    save(root / "masks" / "img5.png", picture())
    return {}, [("img5.png", "coloured mask")], "grey or palette PNG"


def fractions(root):
    (root / "masks" / "img6.png").unlink()
    tifffile.imwrite(root / "masks" / "img6.tif", np.full((12, 16), 0.5, np.float32))
    return {}, [("img6.tif", "fractional mask")], "threshold it"


def a_stack(root):
    (root / "images" / "img6.png").unlink()
    stack = np.zeros((5, 7, 12, 16), np.uint8)
    tifffile.imwrite(root / "images" / "img6.tif", stack, photometric="minisblack")
    return {}, [("img6.tif", "not one image")], "each slice"


def class_too_high(root):
    for stem in TEN:
        save(root / "masks" / f"{stem}.png", blob(value=1))
    save(root / "masks" / "img7.png", blob(value=9))
    return CLASSES, [("img7.png", "class out of range")], "data.ignore"


def jpeg_classes(root):
    for stem in TEN:
        save(root / "masks" / f"{stem}.png", blob(value=1))
    (root / "masks" / "img8.png").unlink()
    save(root / "masks" / "img8.jpg", blob(value=2))
    return CLASSES, [("img8.jpg", "lossy mask")], "PNG"


def negative_objects(root):
    (root / "masks" / "img9.png").unlink()
    tifffile.imwrite(root / "masks" / "img9.tif", blob().astype(np.int16) - 1)
    return {"masks": "instance"}, [("img9.tif", "negative instance")], "positive values"


def listed_but_missing(root):
    (root / "train.txt").write_text("img0\nghost\nimg1\nspirit\n")
    return {}, [("train.txt", "listed but missing")] * 2, "remove the line"


def listed_in_two(root):
    (root / "train.txt").write_text("\n".join(TEN[:6]))
    (root / "test.txt").write_text("img5\nimg6\n")
    return {}, [("test.txt", "listed twice")], "one of the two"


def an_empty_list(root):
    (root / "train.txt").write_text("\n".join(TEN[:6]))
    (root / "test.txt").write_text("\n")
    return {}, [("test.txt", "empty list")], "one name per line"


def a_list_of_another_encoding(root):
    (root / "train.txt").write_bytes(b"img\xff0\n")
    return {}, [("train.txt", "unreadable list")], "UTF-8"


def other_folder_names(root):
    (root / "masks").rename(root / "truths")
    return {}, [(root.name, "no folders")], "name the two folders"


def empty_folders(root):
    for path in root.glob("*/*"):
        path.unlink()
    return {}, [("images", "no pairs")], "put images here"


def a_split_without_masks(root):
    for split in ("train", "test"):
        save(root / "images" / split / "a.png", picture())
        save(root / "images" / split / "b.png", picture(seed=1))
        save(root / "masks" / "train" / ("a.png" if split == "train" else "b.png"), blob())
    for path in root.glob("*/*.png"):
        path.unlink()
    return {}, [("test", "split without masks")], "add the masks"


def nothing_to_learn(root):
    for stem in TEN:
        save(root / "masks" / f"{stem}.png", blob(value=0))
    return {}, [(root.name, "no objects")], "data.masks"


def test_images_only(root):
    for kind in ("images", "masks"):
        (root / kind).rename(root / "test")
        (root / kind).mkdir()
        (root / "test").rename(root / kind / "test")
    return {}, [(root.name, "empty split")] * 2, "add pairs"


def too_many_shots(root):
    return {"shots": 50}, [("data.shots=50", "against the rules")], "choose 1 to 8"


BROKEN = [
    image_without_mask, mask_without_image, one_stem_twice, no_image, cut_image, no_mask,
    other_size, odd_values, size_and_values, coloured, fractions, a_stack, class_too_high,
    jpeg_classes, negative_objects, listed_but_missing, listed_in_two, an_empty_list,
    a_list_of_another_encoding, other_folder_names, empty_folders, a_split_without_masks,
    nothing_to_learn, test_images_only, too_many_shots,
]  # fmt: skip
test_images_only.__test__ = False


@pytest.mark.parametrize("spoil", BROKEN)
def test_what_is_broken_is_named_with_its_remedy(make_pairs, samtune, tmp_path, spoil):
    root = make_pairs(TEN, root=tmp_path / "set")
    settings, expected, remedy = spoil(root)
    found = check(DataConfig(root=str(root), **settings))
    assert not found.ok
    assert sorted(rows(found.problems)) == sorted(expected)
    assert any(remedy in row.remedy for row in found.problems), found.problems
    words = [f"data.{key}={value}" for key, value in settings.items()]
    answer = samtune("data", "check", f"data.root={root}", *words, "--json")
    assert answer.code == 2 and answer.json["ok"] is False
    assert [row["kind"] for row in answer.json["problems"]] == [r.kind for r in found.problems]
    # what check refuses, training refuses, with the first of the same reasons
    refused = samtune("train", f"data.root={root}", *words).line
    assert any(row.what.split(":")[0] in refused or row.remedy in refused for row in found.problems)


def test_only_decoding_finds_what_is_spoiled_inside(make_pairs, tmp_path):
    root = make_pairs(TEN, root=tmp_path / "set", size=(40, 50))
    _, expected, _ = spoiled_inside(root)
    assert rows(check(DataConfig(root=str(root))).problems) == expected


def test_all_faults_at_once(make_pairs, tmp_path):
    root = make_pairs(TEN, root=tmp_path / "set")
    faults = [image_without_mask, odd_values, coloured, one_stem_twice]
    expected = [row for spoil in faults for row in spoil(root)[1]]
    # img0.bmp stays, of which the mask is gone
    expected = [("img0.bmp" if row[0] == "img0.png" and "un" in row[1] else row[0], row[1])
                for row in expected]  # fmt: skip
    assert sorted(rows(check(DataConfig(root=str(root))).problems)) == sorted(expected)


# Legal, but worth a word.


def a_duplicate(root):
    parts = splits(DataConfig(root=str(root)))
    one, two = parts["train"][:2]
    two.image.write_bytes(one.image.read_bytes())
    return {}, (two.image.name, "duplicate image"), "remove one"


def a_leak(root):
    """The same pixels in another format."""
    parts = splits(DataConfig(root=str(root)))
    one, two = parts["train"][0], parts["test"][0]
    two.image.unlink()
    cv2.imwrite(str(two.image.with_suffix(".bmp")), cv2.imread(str(one.image)))
    name = max(one.image.name, two.image.with_suffix(".bmp").name)
    return {}, (name, "leak between splits"), "training images"


def an_empty_mask(root):
    save(root / "masks" / "img3.png", blob(value=0))
    return {}, ("img3.png", "empty mask"), "check"


def only_ignored(root):
    save(root / "masks" / "img3.png", np.full((12, 16), 7, np.uint8))
    return {"ignore": 7}, ("img3.png", "all ignored"), "label it"


def a_speck(root):
    mask = blob() * 0
    mask[0, :3] = 255
    save(root / "masks" / "img3.png", mask)
    return {}, ("img3.png", "tiny objects"), "data.min_area=16"


def ones_among_255(root):
    save(root / "masks" / "img3.png", blob(value=1))
    return {}, ("img3.png", "mixed mask values"), "alike"


def jpeg_mask(root):
    mask = blob()
    mask[3:8, 4:11] = np.random.default_rng(0).integers(247, 256, (5, 7))
    save(root / "masks" / "img3.png", mask)
    return {}, ("img3.png", "JPEG mask"), "threshold of 127"


def soft_mask(root):
    save(root / "masks" / "img3.png", blob(value=90))
    return {"masks": "binary"}, ("img3.png", "many mask values"), "data.threshold"


def palette(root):
    from PIL import Image

    image = Image.fromarray(blob(value=1), "P")
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.save(root / "masks" / "img3.png")
    return {}, ("img3.png", "palette mask"), "indices"


def a_missing_class(root):
    for stem in TEN:
        save(root / "masks" / f"{stem}.png", blob(value=2))
    return CLASSES, (root.name, "class without pixels"), "add images"


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize(
    "change",
    [a_duplicate, a_leak, an_empty_mask, only_ignored, a_speck, ones_among_255, jpeg_mask,
     soft_mask, palette, a_missing_class],
)  # fmt: skip
def test_what_is_odd_is_remarked_and_trains(make_pairs, tmp_path, change):
    root = make_pairs(TEN, root=tmp_path / "set")
    settings, expected, remedy = change(root)
    config = DataConfig(root=str(root), val_fraction=0.2, test_fraction=0.2, **settings)
    found = check(config)
    assert found.ok
    assert expected in rows(found.remarks), found.remarks
    assert any(remedy in row.remedy for row in found.remarks if row.kind == expected[1])
    for records in splits(config).values():
        scan(records, config)


def test_a_clean_folder(make_pairs, samtune, tmp_path):
    root = make_pairs(TEN, root=tmp_path / "set")
    words = [f"data.root={root}", "data.val_fraction=0.2", "data.test_fraction=0.2"]
    answer = samtune("data", "check", *words, "--json")
    assert answer.code == 0 and answer.out.count("\n") == 1
    assert answer.json["ok"] is True
    assert answer.json["problems"] == [] and answer.json["remarks"] == []
    counts = answer.json["counts"]
    assert counts["masks"] == {"0/255": 10} and counts["images"] == 10
    assert {name: part["images"] for name, part in counts["splits"].items()} == {
        "train": 6, "val": 2, "test": 2,
    }  # fmt: skip


def test_the_histogram_of_classes(make_pairs, tmp_path):
    mask = np.zeros((12, 16), np.uint8)
    mask[:3], mask[3, :8] = 2, 9
    root = make_pairs(TEN, mask=mask, root=tmp_path / "set")
    names = ("ground", "body", "edge")
    config = DataConfig(root=str(root), **CLASSES, class_names=names, background=0, ignore=9)
    found = check(config)
    by_name = {row["name"]: row for row in found.counts["classes"]}
    assert list(by_name) == list(names)
    assert [by_name[name]["pixels"] for name in names] == [10 * (192 - 48 - 8), 0, 480]
    assert [by_name[name]["objects"] for name in names] == [0, 0, 10]
    assert by_name["edge"]["share"] == pytest.approx(48 / 184)
    assert found.counts["splits"]["train"]["ignored"] == pytest.approx(8 / 192)
    assert json.loads(json.dumps(found.tree()))["remarks"]


def test_one_image_for_validation_and_test(make_pairs, tmp_path):
    root = make_pairs(["a", "b"], root=tmp_path / "set")
    kinds = [row.kind for row in check(DataConfig(root=str(root))).remarks]
    assert kinds.count("single image split") == 3 and "leak between splits" in kinds


def test_what_a_person_sees(make_pairs, samtune, tmp_path):
    root = make_pairs([f"img{i}" for i in range(20)], root=tmp_path / "set")
    for i in range(9):
        save(root / "masks" / f"img{i}.png", blob(5, 5))
    answer = samtune("data", "check", f"data.root={root}")
    assert answer.code == 2 and answer.err == ""
    lines = answer.out.splitlines()
    start = lines.index("problem: size mismatch, 9 times")
    assert lines[start + 1] == "  masks/img0.png: the mask is 5x5 pixels but img0.png is 16x12"
    assert lines[start + 4] == "  ... and 6 more; --json lists them all"
    assert "export the mask again" in lines[start + 5]
    assert lines[-1].startswith("not ok: 9 problems, training would fail")


def test_a_published_set_of_another_size_is_remarked(make_pairs, tmp_path):
    root = make_pairs([f"img{i}" for i in range(6)], root=tmp_path / "Kvasir-SEG")
    found = check(DataConfig(root=str(root), name="kvasir", masks="binary"))
    (row,) = (row for row in found.remarks if row.kind == "not the published size")
    assert "6 images" in row.what and "1000" in row.what and "download it again" in row.remedy
    assert found.ok


def test_a_folder_that_is_called_like_a_published_set_is_remarked(make_pairs, tmp_path):
    root = make_pairs([f"img{i}" for i in range(20)], root=tmp_path / "Kvasir-SEG")
    (row,) = (row for row in check(DataConfig(root=str(root))).remarks if row.kind == "known name")
    assert "Kvasir-SEG" in row.what and "data.name=kvasir" in row.remedy
    assert not any(
        row.kind == "known name" for row in check(DataConfig(root=str(root), name="mine")).remarks
    )


@pytest.mark.parametrize(("name", "said"), [("kvasri", ["did you mean 'kvasir'"]), ("cars", [])])
def test_a_name_that_is_nearly_a_published_one_is_remarked(make_pairs, tmp_path, name, said):
    root = make_pairs([f"img{i}" for i in range(20)], root=tmp_path / "set")
    found = check(DataConfig(root=str(root), name=name))
    whats = [row.what for row in found.remarks if row.kind == "unknown name"]
    assert found.ok and len(whats) == len(said)
    assert all(hint in what for hint, what in zip(said, whats, strict=True))


def test_masks_of_0_and_255_are_no_class_map(make_pairs, tmp_path):
    root = make_pairs([f"img{i}" for i in range(6)], root=tmp_path / "set")
    found = check(DataConfig(root=str(root), masks="classes", classes=2))
    assert {row.kind for row in found.problems} == {"class out of range"}
    assert all("data.masks=binary" in row.remedy for row in found.problems)
    assert "class without pixels" not in {row.kind for row in found.remarks}


def test_a_folder_may_stand_alone(samtune, make_pairs):
    answer = samtune("data", "check", make_pairs(TEN), "--json")
    assert answer.code == 0 and answer.json["counts"]["images"] == 10


def test_wrong_settings_are_no_finding(samtune):
    assert "data.rot" in samtune("data", "check", "data.rot=x").line
    assert "data.root=FOLDER" in samtune("data", "check").line


def test_the_lists(samtune):
    sets = samtune("data", "list", "--json").json
    assert [row["name"] for row in sets] == sorted(DATASETS)
    keys = {"name", "task", "classes", "title", "paper", "url", "layout"}
    assert all(row.keys() >= keys and row["classes"] >= 1 for row in sets)
    ways = samtune("data", "list", "--layouts", "--json").json
    assert "folders" in {row["name"] for row in ways}
    out = samtune("data", "list").out
    assert "folders" in out and "data.layout" in out


def test_what_is_never_read_is_remarked(make_pairs, tmp_path):
    root = make_pairs(TEN, root=tmp_path / "set")
    (root / "train.txt").write_text("\n".join(TEN[:6]))
    (root / "val.txt").write_text("img6\nimg7\n")
    (root / "test.txt").write_text("img8\n")
    save(root / "images" / "more" / "img10.png", picture())
    (root / "images" / "empty").mkdir()
    (root / "masks" / "img3.xcf").write_bytes(b"layers")
    (root / "masks" / "notes.txt").write_text("drawn in June")
    found = check(DataConfig(root=str(root)))
    never = [row for row in found.remarks if "never" in row.what or "un" in row.kind[:2]]
    assert sorted((str(Path(row.file).relative_to(root)), row.kind) for row in never) == [
        ("images/img9.png", "unused file"),
        ("images/more", "unused folder"),
        ("masks/img3.xcf", "unknown ending"),
        ("masks/img9.png", "unused file"),
    ]
    assert found.ok


def test_facts_of_every_file(make_pairs, samtune, tmp_path):
    root = make_pairs(TEN, root=tmp_path / "set")
    save(root / "masks" / "img1.png", blob(value=0))
    save(root / "masks" / "img2.png", blob(9, 9))
    (root / "images" / "img3.png").write_bytes(b"nothing")
    answer = samtune("data", "check", f"data.root={root}", "--json").json
    assert list(answer) == ["ok", "problems", "remarks", "counts", "files"]
    rows = {row["name"]: row for row in answer["files"]}
    assert list(rows) == TEN
    assert rows["img0"] == {
        "name": "img0",
        "file": str(root / "images/img0.png"),
        "mask": str(root / "masks/img0.png"),
        "splits": rows["img0"]["splits"],
        "ok": True,
        "size": [12, 16],
        "kind": "0/255",
        "values": {"0": 157, "255": 35},
        "classes": {"0": 35},
        "objects": 1,
        "empty": False,
    }
    assert rows["img1"]["empty"] and rows["img1"]["kind"] == "0 only"
    assert (rows["img2"]["ok"], rows["img2"]["size"], rows["img2"]["objects"]) == (
        False, [12, 16], None,
    )  # fmt: skip
    assert rows["img3"]["size"] is None and not rows["img3"]["ok"]
    assert {split for row in rows.values() for split in row["splits"]} == {"train", "val", "test"}


def test_ten_kinds_of_damage_at_once_fit_on_a_screen(samtune, make_pairs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"s{i:02}" for i in range(24)]
    root = make_pairs(names)
    image, mask = (lambda name, k=kind: root / k / f"{name}.png" for kind in ("images", "masks"))
    mask("s00").unlink()
    image("s01").unlink()
    save(root / "images/s02.bmp", picture(seed=2))
    image("s03").write_bytes(b"nothing")
    mask("s04").write_bytes(b"")
    save(mask("s05"), blob(9, 9))
    save(mask("s06"), blob() + (np.arange(16) % 7).astype(np.uint8))
    save(mask("s07"), picture())
    save(mask("s08"), np.zeros((12, 16), np.uint8))
    save(image("s09"), picture(seed=10))
    mask("s10").unlink()
    tifffile.imwrite(root / "masks/s10.tif", np.full((12, 16), 0.5, np.float32))
    answer = samtune("data", "check", root)
    assert answer.code == 2 and "Traceback" not in answer.err
    kinds = ["unmatched image", "unmatched mask", "stem twice", "unreadable image",
             "unreadable mask", "size mismatch", "unexpected mask values", "coloured mask",
             "empty mask", "fractional mask"]  # fmt: skip
    lines = answer.out.splitlines()
    for kind in kinds:
        at = [i for i, line in enumerate(lines) if f": {kind}" in line]
        assert len(at) == 1, kind
        assert any(line.startswith("  -> ") for line in lines[at[0] + 1 : at[0] + 4]), kind
    assert len(lines) <= 50, answer.out
