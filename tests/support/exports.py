"""Small exports of annotation tools, each as its tool writes it today."""

import base64
import io
import json
import zlib

import numpy as np
from pictures import picture, save
from PIL import Image

H, W = 40, 60
SQUARE = np.zeros((H, W), bool)
SQUARE[10:30, 5:25] = True
RING = SQUARE.copy()
RING[15:20, 10:15] = False
DISC = (np.mgrid[:H, :W][0] - 19.5) ** 2 + (np.mgrid[:H, :W][1] - 39.5) ** 2 <= 100
CORNERS = [[5, 10], [25, 10], [25, 30], [5, 30]]


def images(folder, names=("a.jpg", "b.jpg", "c.jpg")):
    for i, name in enumerate(names):
        save(folder / name, picture(H, W, seed=i))


def write(path, tree):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree), "utf-8")


def png(mask):
    content = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(content, "PNG")
    return content.getvalue()


def brush_code(mask):
    """Label Studio's code: one block for each run of a picture in which only alpha varies."""
    values = np.repeat(mask.ravel()[:, None] * 255, 4, axis=1).ravel().tolist()
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 8, 11, 16))
    at = 0
    while at < len(values):
        end = at
        while end < len(values) and values[end] == values[at] and end - at < 60000:
            end += 1
        bits += f"1{3:02b}{end - at - 1:016b}{values[at]:08b}"
        at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def cvat_xml(root):
    """CVAT for images 1.1 of a project: subsets, a polygon, a mask over it, an ellipse, points."""
    images(root / "images/default")
    cuts = np.flatnonzero(np.diff(RING[10:30, 5:25].ravel())) + 1
    rle = ", ".join(map(str, [0, *np.diff([0, *cuts, 400])]))
    text = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>7</id><name>blobs</name><size>3</size><mode>annotation</mode><labels>
    <label><name>tree</name><color>#33ddff</color><type>any</type><attributes></attributes></label>
    <label><name>cat</name><color>#fa3253</color><type>mask</type><attributes></attributes></label>
    <label><name>tip</name><color>#fa3253</color><type>points</type><attributes></attributes></label>
  </labels></task><dumped>2026-05-01 10:00:00.000000+00:00</dumped></meta>
"""
    of = 'source="manual" occluded="0"'
    for i, name in enumerate("abc"):
        text += f"""  <image id="{i}" name="{name}.jpg" subset="default" width="{W}" height="{H}">
    <mask label="cat" {of} rle="{rle}" left="5" top="10" width="20" height="20" z_order="1"></mask>
    <ellipse label="tree" {of} cx="40" cy="20" rx="10.0" ry="10.0" z_order="0"></ellipse>
    <points label="tip" {of} points="3.00,4.00" z_order="0"></points>
    <polygon label="tree" {of} points="12.0,17.0;13.0,17.0;13.0,18.0;12.0,18.0" z_order="2">
    </polygon>
  </image>
"""
    write(root / "annotations.xml", text + "</annotations>\n")
    dot = np.zeros_like(SQUARE)
    dot[17, 12] = True
    return "cvat", ("tree", "cat"), [(1, RING), (0, DISC), (0, dot)]


def label_studio(root):
    """JSON of uploaded files: a brush, a polygon and an ellipse, in percent; a cancelled task."""
    images(root / "images", ("1a2b3c4d-a.jpg", "b.jpg", "c.jpg"))
    tasks = []
    for i, name in enumerate("abc"):
        of = {"original_width": W, "original_height": H, "image_rotation": 0, "origin": "manual",
              "from_name": "tag", "to_name": "image"}  # fmt: skip
        points = [[x * 100 / W, y * 100 / H] for x, y in CORNERS]
        disc = {"x": 40 / W * 100, "y": 50, "radiusX": 10 / W * 100, "radiusY": 10 / H * 100}
        results = [
            {**of, "id": "p", "type": "polygonlabels",
             "value": {"points": points, "closed": True, "polygonlabels": ["tree"]}},
            {**of, "id": "e", "type": "ellipselabels",
             "value": {**disc, "rotation": 0, "ellipselabels": ["cat"]}},
        ]  # fmt: skip
        if i == 0:
            value = {"format": "rle", "rle": brush_code(SQUARE), "brushlabels": ["tree"]}
            results[0] = {**of, "id": "x", "type": "brushlabels", "value": value}
        done = [{"id": i, "completed_by": 1, "result": results, "was_cancelled": False}]
        done.append({"id": 9, "completed_by": 1, "result": [], "was_cancelled": True})
        tasks.append({"id": i + 1, "annotations": done, "predictions": [],
                      "data": {"image": f"/data/upload/3/{'1a2b3c4d'}-{name}.jpg"}})  # fmt: skip
    write(root / "project-3-at-2026-05-01-10-00-1a2b3c4d.json", tasks)
    return "label_studio", ("cat", "tree"), [(1, SQUARE), (0, DISC)]


def labelme(root):
    """LabelMe 5: a JSON file beside each image, with a polygon, a mask, a circle, a line."""
    images(root)
    for name in "abc":
        flags = {"flags": {}, "group_id": None, "description": ""}
        points = [[5.0, 10.0], [24.0, 29.0]]
        inside = base64.b64encode(png(RING[10:30, 5:25])).decode()
        shapes = [
            {**flags, "label": "tree", "shape_type": "polygon", "mask": None, "points": CORNERS},
            {**flags, "label": "cat", "shape_type": "mask", "points": points, "mask": inside},
            {**flags, "label": "cat", "shape_type": "circle", "mask": None,
             "points": [[40.0, 20.0], [50.2, 20.0]]},
            {**flags, "label": "tip", "shape_type": "line", "points": [[0, 0], [9, 9]]},
        ]  # fmt: skip
        tree = {"version": "5.8.1", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg",
                "imageData": None, "imageHeight": H, "imageWidth": W}  # fmt: skip
        write(root / f"{name}.json", tree)
    return "labelme", ("cat", "tree"), [(1, SQUARE & ~RING), (0, RING), (0, DISC)]


def x_anylabeling(root):
    """X-AnyLabeling: rectangles of four corners, its own keys, two shapes as one object."""
    images(root / "images")
    for name, turned in zip("abc", ("polygon", "rotation", "oriented_rectangle"), strict=True):
        more = {"score": None, "difficult": False, "attributes": {}, "kie_linking": [], "flags": {},
                "description": ""}  # fmt: skip
        top = [[5, 10], [25, 10], [25, 20], [5, 20]]
        low = [[5, 20], [25, 20], [25, 30], [5, 30]]
        shapes = [
            {**more, "label": "tree", "shape_type": "rectangle", "points": top, "group_id": 1},
            {**more, "label": "tree", "shape_type": turned, "points": low, "group_id": 1},
        ]
        tree = {"version": "3.2.1", "flags": {}, "checked": False, "shapes": shapes,
                "imagePath": f"..\\images\\{name}.jpg", "imageData": None, "imageHeight": H,
                "imageWidth": W, "description": ""}  # fmt: skip
        write(root / "labels" / f"{name}.json", tree)
    return "labelme", ("tree",), [(0, SQUARE)]


def supervisely(root):
    """A project: bitmaps at their origin, a polygon of pixels with a hole."""
    for part in ("train", "val"):
        images(root / part / "img")
        for name in "abc":
            data = base64.b64encode(zlib.compress(png(DISC[9:31, 29:51]))).decode()
            hole = [[10, 15], [14, 15], [14, 19], [10, 19]]
            rim = [[5, 10], [24, 10], [24, 29], [5, 29]]
            things = [
                {"id": 1, "classId": 2, "classTitle": "tree", "geometryType": "polygon",
                 "points": {"exterior": rim, "interior": [hole]}, "tags": []},
                {"id": 2, "classId": 1, "classTitle": "cat", "geometryType": "bitmap",
                 "bitmap": {"data": data, "origin": [29, 9]}, "tags": []},
            ]  # fmt: skip
            tree = {"description": "", "tags": [], "size": {"height": H, "width": W}}
            write(root / part / "ann" / f"{name}.jpg.json", {**tree, "objects": things})
    classes = [
        {"title": "cat", "shape": "bitmap", "color": "#8A0F55", "geometry_config": {}, "id": 1},
        {"title": "tree", "shape": "polygon", "color": "#0F8A1C", "geometry_config": {}, "id": 2},
    ]
    write(root / "meta.json", {"classes": classes, "tags": [], "projectType": "images"})
    return "supervisely", ("cat", "tree"), [(1, RING), (0, DISC)]


def roboflow_coco(root):
    """COCO segmentation: a class above all classes, with id 0, that nothing is annotated as."""
    for part in ("train", "valid"):
        names = [f"{n}_jpg.rf.0123456789abcdef.jpg" for n in "abc"]
        images(root / part, names)
        flat = [v for corner in CORNERS for v in corner]
        tree = {
            "info": {"year": "2026", "version": "1", "description": "Exported from roboflow.com"},
            "licenses": [{"id": 1, "url": "", "name": "CC BY 4.0"}],
            "categories": [
                {"id": 0, "name": "blobs", "supercategory": "none"},
                {"id": 1, "name": "cat", "supercategory": "blobs"},
                {"id": 2, "name": "tree", "supercategory": "blobs"},
            ],
            "images": [{"id": i, "license": 1, "file_name": n, "height": H, "width": W}
                       for i, n in enumerate(names)],
            "annotations": [{"id": i, "image_id": i, "category_id": 2, "bbox": [5, 10, 20, 20],
                             "area": 400, "segmentation": [flat], "iscrowd": 0} for i in range(3)],
        }  # fmt: skip
        write(root / part / "_annotations.coco.json", tree)
    return "coco", ("cat", "tree"), [(1, SQUARE)]


def roboflow_yolo(root):
    for part in ("train", "valid"):
        images(root / part / "images")
        line = "1 " + " ".join(str(v) for x, y in CORNERS for v in (x / W, y / H))
        for name in "abc":
            write(root / part / "labels" / f"{name}.txt", line)
    text = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n"
    text += "names: ['cat', 'tree']\n\nroboflow:\n  workspace: w\n  version: 1\n"
    (root / "test/images").mkdir(parents=True)
    images(root / "test/images", ["d.jpg"])
    write(root / "test/labels/d.txt", line)
    write(root / "data.yaml", text)
    return "yolo", ("cat", "tree"), [(1, SQUARE)]


def cvat_yolo(root):
    """CVAT's Ultralytics YOLO Segmentation: a list with paths of its own."""
    images(root / "images/train")
    line = "0 " + " ".join(f"{v:.6f}" for x, y in CORNERS for v in (x / W, y / H))
    for name in "abc":
        write(root / "labels/train" / f"{name}.txt", line + "\n")
    write(root / "data.yaml", "names:\n  0: cat\npath: .\ntrain: train.txt\n")
    write(root / "train.txt", "".join(f"data/images/train/{n}.jpg\n" for n in "abc"))
    return "yolo", ("cat",), [(0, SQUARE)]


def label_studio_yolo(root):
    images(root / "images")
    line = "1 " + " ".join(str(v) for x, y in CORNERS for v in (x / W, y / H))
    for name in "abc":
        write(root / "labels" / f"{name}.txt", line)
    write(root / "classes.txt", "cat\ntree\n")
    write(root / "notes.json", {"categories": [{"id": 0, "name": "cat"}], "info": {}})
    return "yolo", ("cat", "tree"), [(1, SQUARE)]


EXPORTS = [
    cvat_xml, label_studio, labelme, x_anylabeling, supervisely, roboflow_coco, roboflow_yolo,
    cvat_yolo, label_studio_yolo,
]  # fmt: skip
