import json

import pytest

from samtune.inference.prompt_files import read_prompts
from samtune.inference.requests import ObjectRequest

A = ObjectRequest((1.0, 2.0, 4.0, 8.0))


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, "utf-8")
        return path

    return write


def coco(*annotations):
    images = [{"id": 7, "file_name": "x/a.png"}, {"id": 8, "file_name": "b.png"}]
    return {"images": images, "annotations": list(annotations)}


def test_coco_asks_with_the_boxes_of_its_annotations(written):
    box = {"image_id": 7, "bbox": [1, 2, 3, 6]}
    crowd = {"image_id": 8, "bbox": [0, 0, 5, 5], "iscrowd": 1}
    assert read_prompts(written("c.json", coco(box, crowd))) == {"x/a.png": (A,), "b.png": ()}
    rows = [{"image": "a.png", "bbox": [1, 2, 3, 6], "score": 1}]
    assert read_prompts(written("predictions.json", rows)) == {"a.png": (A,)}


def test_a_byte_order_mark_is_no_part_of_the_file(written):
    file = written("p.json", "\ufeff" + json.dumps({"a": {"boxes": [[1, 2, 4, 8]]}}))
    assert read_prompts(file) == {"a": (A,)}


def test_yolo_asks_with_boxes_and_those_of_polygons(written, tmp_path):
    written("a.txt", "0 0.5 0.5 0.5 1\n\n1 0.25 0 0.75 0 0.5 1\n2 0.5 0.5 0.5 1 0.9\n")
    written("b.txt", "")
    written("classes.txt", "cat\n")
    box = ObjectRequest((0.25, 0.0, 0.75, 1.0), relative=True)
    assert read_prompts(tmp_path) == {"a": (box, box, box), "b": ()}
    assert read_prompts(tmp_path / "a.txt") == {"a": (box, box, box)}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.json", "nothing", ["p.json", "JSON"]),
        ("p.json", [], ["must map"]),
        ("p.json", '{"a": {"boxes": []}, "a": {"boxes": [[1, 2, 4, 8]]}}', ["a: is there twice"]),
        ("p.json", coco({"image_id": 9, "bbox": [1, 2, 3, 4]}), ["annotation 0", "no image"]),
        ("p.json", coco({"image_id": 7, "bbox": [1, 2, 0, 4]}), ["x/a.png", "x0 < x1"]),
        ("p.json", coco({"image_id": 7, "bbox": [0.1, 0.2, 0.5, 0.5]}), ["first pixel", "times"]),
        (
            "p.json",
            {"images": [{"id": 1, "file_name": n} for n in "ab"], "annotations": []},
            ["image id 1", "both a and b"],
        ),
        ("p.json", coco({"image_id": 7}), ["x/a.png", "[x, y, width, height]"]),
        ("p.json", [{"image_id": 3, "bbox": [1, 2, 3, 4]}], ["by number", "annotations"]),
        ("a.txt", "0 0.5 0.5\n", ["a.txt, line 1", "fractions"]),
        ("a.txt", "cat 0.5 0.5 0.5 0.5\n", ["a.txt, line 1"]),
        ("a.txt", "0 50 50 20 20\n", ["a.txt, line 1", "divide pixels"]),
        ("a.txt", "0 0.5 0.5 0 0.5\n", ["a.txt, line 1", "x0 < x1"]),
    ],
)
def test_wrong_files_are_refused_by_name(written, refused, name, content, said):
    refused(said, read_prompts, written(name, content))


def test_a_folder_without_labels(refused, tmp_path):
    refused([tmp_path, ".txt"], read_prompts, tmp_path)
