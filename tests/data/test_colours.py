"""Coloured masks: what colours mean is a setting, or a file as annotation tools write it."""

import json

import numpy as np
import pytest
from pictures import picture, save
from PIL import Image

from samtune.data import DataConfig, read_mask, splits, with_defaults
from samtune.data.check import check
from samtune.data.colours import table_in, table_of, voc_colours
from samtune.runs.words import from_words

ROAD, CAR = (128, 64, 128), (0, 0, 142)
MAP = np.zeros((12, 16), np.uint8)
MAP[2:6, 3:9], MAP[8:10, 4:6] = 1, 2


def painted(colours=((0, 0, 0), ROAD, CAR)):
    return np.array(colours, np.uint8)[MAP]


def pairs(root, mask, names="abc"):
    for i, name in enumerate(names):
        save(root / f"images/{name}.png", picture(seed=i))
        mask(root / f"masks/{name}.png")
        (root / "masks").mkdir(exist_ok=True)
    return root


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labelmap.txt", "# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:0,0,142::\n"),
        ("label_colors.txt", "128 64 128 road\n0 0 142 car\n"),
        ("class_dict.csv", "name,r,g,b\nroad,128,64,128\ncar, 0, 0, 142\n"),
        ("c.json", json.dumps({"road": ROAD, "car": "#00008E"})),
        ("meta.json", json.dumps({"classes": [{"title": "road", "color": "#804080"},
                                              {"title": "car", "color": "#00008E"}]})),
        ("x.json", json.dumps({"type": "rgb", "colors": {"road": ROAD, "car": CAR}})),
        ("labels.json", json.dumps([{"name": "road", "color": "#804080"},
                                    {"name": "car", "color": "#00008e"}])),
        ("c.yaml", "road: [128, 64, 128]\ncar: '#00008E'\n"),
    ],
)  # fmt: skip
def test_files_of_colours(tmp_path, file, text):
    (tmp_path / file).write_text("\ufeff" + text, "utf-8")
    table = table_in(tmp_path / file)
    assert table.names == ("background", "road", "car") and table.background == 0
    assert table.colours == {(0, 0, 0): 0, ROAD: 1, CAR: 2}
    save(tmp_path / "m.png", painted())
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", table), MAP)


def test_names_of_colours_in_yaml_are_words(tmp_path, refused):
    (tmp_path / "c.yaml").write_text("yes: [128, 64, 128]\n007: [0, 0, 142]\n")
    assert table_in(tmp_path / "c.yaml").names == ("background", "yes", "007")
    (tmp_path / "c.yaml").write_text("car: [128, 64, 128]\ncar: [0, 0, 142]\n")
    refused(["c.yaml", "line 2", "the key car appears twice"], table_in, tmp_path / "c.yaml")


def test_colours_as_a_setting(tmp_path, refused):
    words = ["data.colors={road: [128,64,128], car: [0,0,142]}", "data.root=x"]
    assert from_words(words).data.colors == {"road": ROAD, "car": CAR}
    root = pairs(tmp_path, lambda path: save(path, painted()))
    refused(["a.png", "coloured", "data.colors"], read_mask, root / "masks/a.png")
    config = with_defaults(DataConfig(root=str(root), colors={"road": ROAD, "car": CAR}))
    assert (config.masks, config.classes, config.background) == ("classes", 3, 0)
    found = check(config)
    assert not found.problems
    assert [row["objects"] for row in found.files] == [2, 2, 2]
    assert found.files[0]["classes"] == {0: 192 - 28, 1: 24, 2: 4}
    few = with_defaults(DataConfig(root=str(root), colors={"road": ROAD}))
    words = {row.what for row in check(few).problems if row.kind == "unknown colour"}
    assert words == {"the colour [0, 0, 142] stands for no class"}
    refused(["colors=", "must be a mapping"], DataConfig, colors={"a": (1, 2)})
    for colors, said in (({"a": (1, 2, 256)}, "0 to 255"), ({"a": ROAD, "b": ROAD}, "both"),
                         ("none.txt", "no such file")):  # fmt: skip
        refused([said], table_of, DataConfig(colors=colors))
    both = with_defaults(DataConfig(root=str(root), masks="binary", colors={"r": ROAD, "c": CAR}))
    assert {row["objects"] for row in check(both).files} == {1}


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "P", "jpeg", "L"])
def test_a_file_of_colours_beside_the_masks(tmp_path, kind):
    """Palettes go by colour, damaged colours to the nearest, clear pixels to the background."""

    def mask(path):
        if kind == "P":
            image = Image.fromarray((MAP + 1) % 3, "P")
            image.putpalette([*CAR, 0, 0, 0, *ROAD])
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
        elif kind == "RGBA":
            clear = np.where(MAP, 255, 0).astype(np.uint8)
            save(path, np.dstack([painted(((9, 9, 9), ROAD, CAR)), clear]))
        elif kind == "jpeg":
            path.parent.mkdir(parents=True, exist_ok=True)
            large = Image.fromarray(painted()).resize((128, 96), Image.Resampling.NEAREST)
            large.save(path.with_suffix(".jpg"), quality=95, subsampling=0)
        else:
            save(path, MAP if kind == "L" else painted())

    root = pairs(tmp_path, mask)
    if kind == "jpeg":
        for path in (root / "images").iterdir():
            Image.open(path).resize((128, 96)).save(path)
    text = "background:0,0,0::\nroad:128,64,128::\ncar:0,0,142::\n"
    (root / "labelmap.txt").write_text(text)
    if kind == "L":  # numbers need no colours
        config = with_defaults(DataConfig(root=str(root), masks="classes", classes=3, background=0))
        assert config.colors is None
    else:
        config = with_defaults(DataConfig(root=str(root)))
    found = check(config)
    assert not found.problems, found.problems
    records = [r for part in splits(config).values() for r in part if r.name == "a"]
    values = read_mask(records[0].mask, table_of(config))
    expected = MAP.repeat(8, 0).repeat(8, 1) if kind == "jpeg" else MAP
    assert (values != expected).mean() < (0.05 if kind == "jpeg" else 1e-9)


def test_vocs_colours_without_a_file(tmp_path):
    """As LabelMe and VOC paint classes: 1 is maroon, 2 green, 255 the line around objects."""
    colours = voc_colours()
    assert colours[:3] == [(0, 0, 0), (128, 0, 0), (0, 128, 0)]
    assert colours[255] == (224, 224, 192)
    classes = MAP.copy()
    classes[0] = 255
    for i, name in enumerate("abc"):
        save(tmp_path / f"JPEGImages/{name}.jpg", picture(seed=i))
        save(tmp_path / f"SegmentationClass/{name}.png", np.array(colours, np.uint8)[classes])
        save(tmp_path / f"SegmentationObject/{name}.png", np.array(colours, np.uint8)[classes])
    for masks, objects in (("classes", 2), ("instance", 2)):
        config = with_defaults(DataConfig(root=str(tmp_path), masks=masks))
        found = check(config)
        assert not found.problems, found.problems
        assert {row["objects"] for row in found.files} == {objects}
        assert found.files[0]["values"][255] == 16
    assert [row["class"] for row in found.counts["classes"] if row["objects"]] == [0, 1]
