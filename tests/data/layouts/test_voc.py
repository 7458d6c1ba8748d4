import numpy as np
import pytest
from PIL import Image

from samtune.data import read_sample, scan, splits
from samtune.data.layouts.base import layout_of
from samtune.data.layouts.voc import CLASSES


def palette(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values, "L").convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [9] * 759)
    image.save(path)


@pytest.fixture
def voc(tmp_path, save_image, make_picture, make_blob):
    """Four images in VOC's layout; 255 is a line around the one object, of class 15."""
    root = tmp_path / "VOC2012"
    for i in range(4):
        save_image(root / f"JPEGImages/2007_{i}.jpg", make_picture(seed=i))
        for folder, value in (("SegmentationClass", 15), ("SegmentationObject", 1)):
            values = make_blob(value=value)
            values[2] = 255
            if folder == "SegmentationObject":
                values[3:8, 9:11] = 2
            palette(root / folder / f"2007_{i}.png", values)
    (root / "Annotations").mkdir()
    (root / "Annotations/2007_0.xml").write_text("<annotation/>")
    sets = root / "ImageSets/Segmentation"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("2007_0\n2007_1\n")
    (sets / "val.txt").write_text("2007_2\n2007_3\n")
    (sets / "trainval.txt").write_text("2007_0\n2007_1\n2007_2\n2007_3\n")
    return root


@pytest.mark.parametrize("above", [False, True])
def test_class_maps_by_the_lists(voc, completed, above):
    root = voc.parent if above else voc
    assert layout_of(root).name == "voc"
    config = completed(root)
    assert (config.masks, config.classes, config.background, config.ignore) == (
        "classes", 21, 0, 255,
    )  # fmt: skip
    assert config.class_names == CLASSES
    parts = splits(config)
    assert [r.name for r in parts["val"]] == ["2007_2", "2007_3"]
    labels = read_sample(parts["val"][0], config).labels
    assert labels.classes.tolist() == [15]
    assert not labels.valid[2].any()
    assert scan(parts["val"], config).class_objects == {15: 2}


def test_objects_with_their_classes(voc, record_of):
    record, config = record_of(voc, "2007_2", masks="instance")
    assert (config.classes, config.class_names[14]) == (20, "person")
    labels = read_sample(record, config).labels
    assert labels.classes.tolist() == [14, 14]
    assert not labels.valid[2].any()
    assert (labels.map[4, 5], labels.map[4, 10]) == (1, 2)


def test_names_of_an_annotation_tool_and_no_lists(voc, completed):
    (voc / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nrest:0,0,0::\nnail:1,1,1::")
    for file in (voc / "ImageSets/Segmentation").iterdir():
        file.unlink()
    config = completed(voc)
    assert config.class_names == ("rest", "nail")
    assert sum(map(len, splits(config).values())) == 4
    assert completed(voc, classes=16).class_names == ()


def test_what_is_missing(voc, completed, refused):
    (voc / "SegmentationObject/2007_1.png").unlink()
    refused(["train.txt", "'2007_1'", "SegmentationObject", "remove the line"],
            splits, completed(voc, masks="instance"))  # fmt: skip
    (voc / "JPEGImages/2007_3.jpg").unlink()
    refused(["val.txt", "'2007_3'", "JPEGImages"], splits, completed(voc))
    (voc / "ImageSets/Segmentation/train.txt").write_text("\n")
    refused(["train.txt", "lists no image"], splits, completed(voc))
    (voc / "SegmentationObject").rename(voc / "Objects")
    refused(["SegmentationObject", "data.masks=classes"], splits, completed(voc, masks="instance"))
    (voc / "SegmentationClass").rename(voc / "Classes")
    refused([voc, "SegmentationClass"], splits, completed(voc, layout="voc"))


def test_several_years_other_sizes_and_no_names(voc, completed, record_of, refused):
    palette(voc / "SegmentationClass/2007_0.png", np.zeros((5, 5), np.uint8))
    record, config = record_of(voc, "2007_0", masks="instance")
    refused(["2007_0.png", "differs in size", "export both"], read_sample, record, config)
    (voc / "labelmap.txt").write_text("# nothing\n")
    refused(["labelmap.txt", "names no class"], completed, voc)
    other = voc.parent / "VOC2007"
    for name in ("JPEGImages", "SegmentationClass"):
        (other / name).mkdir(parents=True)
    refused([voc.parent, "VOC2007, VOC2012", "data.root"], completed, voc.parent)
