"""One export of each annotation tool, as it writes it today, is read without a setting."""

import base64
import io
import json

import numpy as np
import pytest
from exports import DISC, EXPORTS, SQUARE, H, W, cvat_xml, images, labelme, write
from pictures import picture, save
from PIL import Image

from samtune.data import read_sample, splits
from samtune.data.check import check
from samtune.data.layouts.base import layout_of


@pytest.mark.parametrize("export", EXPORTS)
def test_an_export_is_read_as_its_tool_means_it(tmp_path, completed, export):
    layout, names, expected = export(tmp_path)
    assert layout_of(tmp_path).name == layout
    config = completed(tmp_path)
    assert config.class_names == names
    found = check(config)
    assert not found.problems, found.problems
    first = ("a", "1a2b3c4d-a")
    records = [r for part in splits(config).values() for r in part if r.name.startswith(first)]
    labels = read_sample(records[0], config).labels
    assert labels.classes.tolist() == [category for category, _ in expected]
    for k, (_, mask) in enumerate(expected):
        wrong = int(((labels.map == k + 1) != mask).sum())
        assert wrong <= (16 if mask is DISC else 0), (k, wrong)


def test_what_is_no_area_is_counted_and_boxes_are_refused(tmp_path, completed):
    cvat_xml(tmp_path)
    found = check(completed(tmp_path))
    (note,) = (row for row in found.remarks if row.kind == "no areas")
    assert "1 points" in note.what or "3 points" in note.what
    file = tmp_path / "annotations.xml"
    box = '<box label="cat" xtl="1" ytl="1" xbr="9" ybr="9" occluded="0" z_order="0"></box></image>'
    file.write_text(file.read_text().replace("</image>", box, 1))
    (row,) = check(completed(tmp_path)).problems
    assert row.kind == "box, no outline" and "a.jpg, box" in row.what


@pytest.mark.parametrize("export", EXPORTS[:5])
def test_an_image_that_is_not_there_is_named(tmp_path, completed, export):
    export(tmp_path)
    for path in tmp_path.rglob("*b.jpg"):
        path.unlink()
    kinds = {(row.kind, "b.jpg" in row.what or "b.jpg" in row.file)
             for row in check(completed(tmp_path)).problems}  # fmt: skip
    assert ("missing image", True) in kinds


def test_images_within_labelme_files(tmp_path, completed):
    labelme(tmp_path)
    stored = picture(H, W, seed=7)
    for name in "abc":
        content = io.BytesIO()
        Image.fromarray(stored).save(content, "PNG")
        tree = json.loads((tmp_path / f"{name}.json").read_text())
        tree["imageData"] = base64.b64encode(content.getvalue()).decode()
        write(tmp_path / f"{name}.json", tree)
        (tmp_path / f"{name}.jpg").unlink()
    config = completed(tmp_path)
    record = splits(config)["train"][0]
    np.testing.assert_array_equal(read_sample(record, config).image, stored)


def test_roboflows_semantic_masks(tmp_path, completed):
    for part in ("train", "valid"):
        names = [f"{n}_png.rf.0123456789abcdef" for n in "abc"]
        images(tmp_path / part, [f"{n}.jpg" for n in names])
        for name in names:
            save(tmp_path / part / f"{name}_mask.png", SQUARE.astype(np.uint8) * 2)
        write(
            tmp_path / part / "_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n2, tree\n"
        )
    config = completed(tmp_path)
    assert config.class_names == ("background", "cat", "tree") and config.background == 0
    found = check(config)
    assert not found.problems and len(found.files) == 6
    assert found.files[0]["classes"][2] == 400 and found.files[0]["objects"] == 1
