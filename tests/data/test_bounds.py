"""No list of a data set leads out of its folder, unless somebody says so."""

import json

import pytest

from samtune.data import DataConfig, with_defaults
from samtune.data.check import check
from samtune.data.layouts import find

SHAPE = [[2, 2], [6, 2], [6, 6], [2, 6]]
FLAT = [v for corner in SHAPE for v in corner]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text), "utf-8")


def coco(root, name):
    write(
        root / "instances_train.json",
        {
            "images": [{"id": 1, "file_name": name, "height": 12, "width": 16}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [FLAT]}],
            "categories": [{"id": 1, "name": "cat"}],
        },
    )


def table(root, name):
    write(root / "pairs.csv", f"image,mask\n{name},mask.png\n")


def yolo_list(root, name):
    write(root / "data.yaml", "train: list.txt\nnames: [cat]\n")
    write(root / "list.txt", f"{name}\n")


def yolo_path(root, name):
    folder = name.rpartition("/")[0]
    top, _, last = folder.rpartition("/")
    write(root / "data.yaml", f"path: {top or '.'}\ntrain: {last}\nnames: [cat]\n")


def labelme(root, name):
    shape = {"label": "cat", "shape_type": "polygon", "points": SHAPE}
    tree = {"shapes": [shape], "imagePath": name, "imageHeight": 12, "imageWidth": 16}
    write(root / "ann.json", {"version": "5", "flags": {}, "imageData": None, **tree})


def label_studio(root, name):
    value = {"points": [[10, 10], [50, 10], [50, 50]], "polygonlabels": ["cat"]}
    row = {"type": "polygonlabels", "value": value, "original_width": 16, "original_height": 12}
    tree = {"id": 1, "data": {"image": name}, "annotations": [{"result": [{"id": "x", **row}]}]}
    write(root / "export.json", [tree])


def cvat(root, name):
    corners = ";".join(f"{x},{y}" for x, y in SHAPE)
    polygon = f'<polygon label="cat" points="{corners}"/>'
    image = f'<image id="0" name="{name}" width="16" height="12">{polygon}</image>'
    write(root / "annotations.xml", f"<annotations><version>1.1</version>{image}</annotations>")


def camvid(root, name):
    for split in ("train", "val", "test"):
        for kind in "dl":
            write(root / f"list/{split}_{kind}.txt", f"../{name}\n" if split == "train" else "")


WAYS = [coco, table, yolo_list, yolo_path, labelme, label_studio, cvat]


@pytest.fixture
def places(tmp_path, save_image, make_picture, make_blob):
    """A data set's folder with a mask, and a folder beside it with an image."""
    root, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    save_image(root / "mask.png", make_blob(12, 16))
    save_image(elsewhere / "photo.png", make_picture(12, 16, seed=0))
    write(elsewhere / "photo.txt", "0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    write(root / "labels/photo.txt", "0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    return root, elsewhere


def records(root, **settings):
    config = with_defaults(DataConfig(root=str(root), **settings))
    return [record for part in find(config).values() for record in part]


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_a_file_elsewhere_is_read_if_somebody_says_so(places, way, absolute, refused):
    root, elsewhere = places
    name = f"{elsewhere}/photo.png" if absolute else "../elsewhere/photo.png"
    way(root, name)
    refused(["elsewhere", "outside", "data.outside=true"], records, root)
    problems = check(with_defaults(DataConfig(root=str(root)))).problems
    assert [row.kind for row in problems if "outside" in row.what]
    [record] = records(root, outside=True)
    assert record.file.samefile(elsewhere / "photo.png")


@pytest.mark.parametrize("way", WAYS)
def test_what_is_linked_into_the_folder_belongs_to_it(places, way):
    root, elsewhere = places
    (root / "images").symlink_to(elsewhere)
    way(root, "images/photo.png")
    [record] = records(root)
    assert record.file == root / "images/photo.png"
    way(root, f"{root}/images/photo.png")  # as tools write it that ran on this machine
    [record] = records(root)
    assert record.file == root / "images/photo.png"


def test_ways_back_into_the_folder_are_none_out_of_it(places, save_image, make_picture, refused):
    root, elsewhere = places
    save_image(root / "images/a.png", make_picture(12, 16, seed=1))
    write(root / "lists/pairs.csv", "image,mask\n../images/a.png,../mask.png\n")
    refused(["a.png", "outside"], records, root / "lists/pairs.csv")
    (root / "labels/photo.txt").unlink()
    table(root, f"../{root.name}/images/a.png")
    assert len(records(root)) == 1
    (root / "link").symlink_to(elsewhere)
    table(root, "link/../elsewhere/photo.png")  # from where the link leads, not from the folder
    refused(["photo.png", "outside"], records, root)


def test_lists_of_published_sets_and_patterns_stay_in_the_folder(places, refused):
    root, _ = places
    camvid(root, "../elsewhere/photo.png")
    refused(["train_d.txt", "photo.png", "outside"], records, root, name="camvid")
    write(root / "lists_Synapse/train.txt", "../../elsewhere/case\n")
    for folder in ("train_npz", "test_vol_h5"):
        (root / folder).mkdir()
    refused(["train.txt", "case.npz", "outside"], records, root, name="synapse")
    for pattern in ("../elsewhere/*.png", "../elsewhere"):
        refused(["data.images", "no"], records, root, images=pattern, mask_files="mask.png")


def test_pictures_that_a_table_only_names_stay_in_the_folder(places, refused):
    datasets = pytest.importorskip("datasets")
    root, elsewhere = places
    picture = {"bytes": None, "path": f"{elsewhere}/photo.png"}
    columns = {name: datasets.Image(decode=False) for name in ("image", "mask")}
    rows = {name: [picture] for name in columns}
    features = datasets.Features(columns)
    datasets.Dataset.from_dict(rows, features).save_to_disk(str(root / "saved"))
    assert len(records(root / "saved")) == 1  # with its bytes
    [file] = (root / "saved").glob("*.arrow")
    with datasets.arrow_writer.ArrowWriter(features=features, path=str(file)) as writer:
        writer.write_batch(rows)
        writer.finalize()
    (root / "saved").touch()
    refused(["photo.png", "outside"], records, root / "saved")
