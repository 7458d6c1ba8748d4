"""Random small exports of annotation tools: each writes its images and gives their objects."""

import base64
import random
import zlib

import numpy as np
from exports import brush_code, png, write
from pictures import picture, save

H, W = 12, 16
CLASSES = ("cat", "tree")
STAMP = "1a2b3c4d"
"""What Label Studio puts before the name of an image, and Roboflow behind it."""


def stem_of(image):
    """The name that an image had before its tool stamped it."""
    return image.stem.removeprefix(f"{STAMP}-").split(".rf.")[0]


def objects(*kinds):
    """Objects apart from each other, as ``(kind, class, box, mask)``; a ``mask`` has any pixels."""
    found = []
    for left, top in random.sample([(0, 0), (8, 0), (0, 6), (8, 6)], random.randint(1, 4)):
        x, y = left + random.randint(0, 5), top + random.randint(0, 3)
        w, h = random.randint(2, 8 + left - x), random.randint(2, 6 + top - y)
        kind, mask = random.choice(kinds), np.zeros((H, W), bool)
        mask[y : y + h, x : x + w] = True
        if kind == "mask":
            for row in range(y + 1, y + h):
                for column in range(x + 1, x + w):
                    mask[row, column] = random.random() < 0.5
        found.append((kind, random.choice(CLASSES), (x, y, w, h), mask))
    return found


def corners(box):
    x, y, w, h = box
    return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]


def within(box, mask):
    x, y, w, h = box
    return mask[y : y + h, x : x + w]


def truth(things):
    return [(label, mask) for _, label, _, mask in things]


def photo(path, seed):
    save(path, picture(H, W, seed=seed))


def cvat(root, names):
    """CVAT for images 1.1: polygons and masks of run lengths."""
    text, expected = "<annotations><version>1.1</version>", []
    for i, name in enumerate(names):
        photo(root / f"images/{name}.jpg", i)
        things = objects("polygon", "mask")
        expected.append(truth(things))
        text += f'<image id="{i}" name="{name}.jpg" width="{W}" height="{H}">'
        for kind, label, box, mask in things:
            text += f'<{kind} label="{label}" source="manual" occluded="0" z_order="0" '
            if kind == "polygon":
                text += f'points="{";".join(f"{x:.2f},{y:.2f}" for x, y in corners(box))}"'
            else:
                flat = within(box, mask).ravel()
                cuts = np.flatnonzero(np.diff(flat)) + 1  # the first pixel is one of the object
                runs = [0, *np.diff([0, *cuts, flat.size])]
                x, y, w, h = box
                text += f'rle="{", ".join(map(str, runs))}" left="{x}" top="{y}" '
                text += f'width="{w}" height="{h}"'
            text += f"></{kind}>"
        text += "</image>"
    write(root / "annotations.xml", text + "</annotations>")
    return expected


def label_studio(root, names):
    """JSON of uploaded files: brushes and polygons in percent."""
    tasks, expected = [], []
    for i, name in enumerate(names):
        photo(root / f"images/{STAMP}-{name}.jpg", i)
        things, results = objects("polygon", "mask"), []
        expected.append(truth(things))
        for k, (kind, label, box, mask) in enumerate(things):
            word = "brushlabels" if kind == "mask" else "polygonlabels"
            points = [[x * 100 / W, y * 100 / H] for x, y in corners(box)]
            value = {"points": points, "closed": True}
            if kind == "mask":
                value = {"format": "rle", "rle": brush_code(mask)}
            results.append(
                {"id": f"r{k}", "type": word, "value": {**value, word: [label]},
                 "image_rotation": 0, "original_width": W, "original_height": H, "from_name": "t",
                 "to_name": "image"}
            )  # fmt: skip
        done = [{"id": i, "completed_by": 1, "result": results, "was_cancelled": False}]
        image = f"/data/upload/3/{STAMP}-{name}.jpg"
        tasks.append({"id": i, "annotations": done, "predictions": [], "data": {"image": image}})
    write(root / f"project-3-at-2026-05-01-10-00-{STAMP}.json", tasks)
    return expected


def _labelme(root, names, version, kinds, place, more):
    expected = []
    for i, name in enumerate(names):
        photo(root / place[0] / f"{name}.jpg", i)
        things, shapes = objects(*kinds), []
        expected.append(truth(things))
        for kind, label, box, mask in things:
            shape = {"label": label, "shape_type": kind, "points": corners(box), "group_id": None}
            if kind == "mask":
                x, y, w, h = box
                shape["points"] = [[x, y], [x + w - 1, y + h - 1]]
                shape["mask"] = base64.b64encode(png(within(box, mask))).decode()
            shapes.append({**shape, **more})
        tree = {"version": version, "flags": {}, "shapes": shapes, "imageData": None,
                "imagePath": f"{place[1]}{name}.jpg", "imageHeight": H,
                "imageWidth": W}  # fmt: skip
        write(root / place[2] / f"{name}.json", tree)
    return expected


def labelme(root, names):
    """A JSON file beside each image: polygons and masks."""
    return _labelme(root, names, "5.8.1", ("polygon", "mask"), ("", "", ""), {"flags": {}})


def x_anylabeling(root, names):
    """Its own kinds of outlines, in a folder beside that of the images."""
    kinds = ("rectangle", "polygon", "rotation")
    more = {"score": None, "difficult": False, "attributes": {}, "kie_linking": [], "flags": {}}
    return _labelme(root, names, "3.2.1", kinds, ("images", "..\\images\\", "labels"), more)


def supervisely(root, names):
    """A project of one data set: bitmaps at their origin, polygons of pixels."""
    expected = []
    for i, name in enumerate(names):
        photo(root / f"ds/img/{name}.jpg", i)
        things, stored = objects("polygon", "mask"), []
        expected.append(truth(things))
        for kind, label, box, mask in things:
            x, y, w, h = box
            entry = {"classTitle": label, "geometryType": kind, "tags": []}
            if kind == "polygon":
                rim = corners((x, y, w - 1, h - 1))  # of pixels, the last ones included
                entry["points"] = {"exterior": rim, "interior": []}
            else:
                data = base64.b64encode(zlib.compress(png(within(box, mask)))).decode()
                entry |= {"geometryType": "bitmap", "bitmap": {"data": data, "origin": [x, y]}}
            stored.append(entry)
        tree = {"description": "", "tags": [], "size": {"height": H, "width": W}}
        write(root / f"ds/ann/{name}.jpg.json", {**tree, "objects": stored})
    classes = [{"title": name, "shape": "any", "color": "#8A0F55"} for name in CLASSES]
    write(root / "meta.json", {"classes": classes, "tags": [], "projectType": "images"})
    return expected


def roboflow(root, names):
    """COCO segmentation: a class above all, and names with a stamp behind them."""
    images, entries, expected = [], [], []
    for i, name in enumerate(names):
        file = f"{name}.rf.{STAMP}.jpg"
        photo(root / "train" / file, i)
        images.append({"id": i, "license": 1, "file_name": file, "height": H, "width": W})
        things = objects("polygon")
        expected.append(truth(things))
        for _, label, box, _ in things:
            flat = [value for corner in corners(box) for value in corner]
            entries.append(
                {"id": len(entries), "image_id": i, "category_id": 1 + CLASSES.index(label),
                 "bbox": list(box), "area": box[2] * box[3], "segmentation": [flat], "iscrowd": 0}
            )  # fmt: skip
    categories = [{"id": 0, "name": "blobs", "supercategory": "none"}]
    categories += [
        {"id": i + 1, "name": name, "supercategory": "blobs"} for i, name in enumerate(CLASSES)
    ]
    tree = {"info": {}, "licenses": [], "categories": categories, "images": images}
    write(root / "train/_annotations.coco.json", {**tree, "annotations": entries})
    return expected


TOOLS = (cvat, label_studio, labelme, x_anylabeling, supervisely, roboflow)
