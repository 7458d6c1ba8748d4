import math

from samtune.runs.per_image import PER_IMAGE, read_items, write_items


def test_what_is_written_is_read_again(tmp_path):
    rows = [
        {"prompt": "box", "image": 'a, "b"', "zero_shot_objects": 2, "zero_shot_iou": 0.1 + 0.2},
        {"prompt": "box", "image": "naïve.png", "zero_shot_objects": 0, "zero_shot_iou": math.nan},
    ]  # fmt: skip
    write_items(tmp_path, rows)
    again = read_items(tmp_path)
    assert [row["image"] for row in again] == [row["image"] for row in rows]
    assert [row["zero_shot_objects"] for row in again] == [2, 0]
    assert again[0]["zero_shot_iou"] == 0.3 and math.isnan(again[1]["zero_shot_iou"])
    assert (tmp_path / PER_IMAGE).read_text("utf-8").splitlines()[2].endswith(",0,")


def test_a_run_of_an_earlier_version_has_no_rows(tmp_path):
    assert read_items(tmp_path) == []
    assert write_items(tmp_path, []) is None and not (tmp_path / PER_IMAGE).exists()
