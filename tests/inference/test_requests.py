"""What prompts mean: one documented meaning for each form, and one line for any other."""

from pathlib import Path

import pytest
import torch

from samtune.data import Record
from samtune.errors import InputError
from samtune.inference.naming import requests_by_name
from samtune.inference.requests import ObjectRequest, check_prompts, prompts_of

BOX, OTHER = [1, 2, 9, 8], [10, 2, 19, 8]


def asked(**entry):
    return check_prompts({"a": entry}, "p.json")["a"]


@pytest.mark.parametrize(
    ("entry", "objects"),
    [
        ({"boxes": []}, ()),
        ({"points": []}, ()),
        ({"boxes": [BOX, OTHER]}, (ObjectRequest((1, 2, 9, 8)), ObjectRequest((10, 2, 19, 8)))),
        ({"boxes": BOX}, (ObjectRequest((1, 2, 9, 8)),)),
        ({"points": [[3, 4], [5, 6]]}, (ObjectRequest(None, ((3, 4), (5, 6)), (1, 1)),)),
        ({"points": [3, 4], "labels": [0]}, (ObjectRequest(None, ((3, 4),), (0,)),)),
        (
            {"points": [[[3, 4]], [[5, 6]]], "labels": [1, 0]},
            (ObjectRequest(None, ((3, 4),), (1,)), ObjectRequest(None, ((5, 6),), (0,))),
        ),
        (
            {"points": [[[3, 4], [5, 6]], [[7, 8]]], "labels": [[1, 0], [1]]},
            (ObjectRequest(None, ((3, 4), (5, 6)), (1, 0)), ObjectRequest(None, ((7, 8),), (1,))),
        ),
        (
            {"points": [[[3, 4], [5, 6]], [[7, 8]]], "labels": [1, 0, 1]},
            (ObjectRequest(None, ((3, 4), (5, 6)), (1, 0)), ObjectRequest(None, ((7, 8),), (1,))),
        ),
        (
            {"boxes": [BOX], "points": [[3, 4]], "labels": [0]},
            (ObjectRequest((1, 2, 9, 8), ((3, 4),), (0,)),),
        ),
        (
            {"boxes": [BOX, OTHER], "points": [[[3, 4]], []], "labels": [[0], []]},
            (ObjectRequest((1, 2, 9, 8), ((3, 4),), (0,)), ObjectRequest((10, 2, 19, 8))),
        ),
        (
            {"boxes": [BOX, OTHER], "points": [[3, 4]]},
            (
                ObjectRequest((1, 2, 9, 8)),
                ObjectRequest((10, 2, 19, 8)),
                ObjectRequest(None, ((3, 4),), (1,)),
            ),
        ),
    ],
)
def test_each_form_has_one_meaning(entry, objects):
    assert asked(**entry) == objects
    assert check_prompts({"a": objects}, "p.json")["a"] == objects


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, '"boxes": []'),
        ({"boxs": [BOX]}, "did you mean 'boxes'"),
        ({"boxes": [[1, 2, 3]]}, "[x0, y0, x1, y1]"),
        ({"boxes": [["1", 2, 3, 4]]}, "[x0, y0, x1, y1]"),
        ({"boxes": [[True, 2, 3, 4]]}, "[x0, y0, x1, y1]"),
        ({"boxes": {"x": 1}}, "[x0, y0, x1, y1]"),
        ({"boxes": [[9, 2, 1, 8]]}, "x0 < x1"),
        ({"boxes": [[1, 2, float("nan"), 8]]}, "finite"),
        ({"points": [[1, 2, 3]]}, "[x, y]"),
        ({"points": [[float("inf"), 2]]}, "finite"),
        ({"points": [[1, 2]], "labels": [2]}, "0 or 1"),
        ({"points": [[1, 2]], "labels": [0.5]}, "0 or 1"),
        ({"points": [[1, 2]], "labels": [True]}, "0 or 1"),
        ({"points": [[1, 2]], "labels": ["1"]}, "0 or 1"),
        ({"points": [[1, 2]], "labels": [1, 0]}, "as many labels"),
        ({"points": [[[1, 2]], [[3, 4]]], "labels": [1]}, "as many labels"),
        ({"points": [[[1, 2]], [[3, 4]]], "labels": [[1]]}, "labels of 1"),
        ({"points": [[[1, 2]], []]}, "no point"),
        ({"labels": [1]}, "labels without points"),
        ({"boxes": [BOX], "points": [[[1, 2]], [[3, 4]]]}, "points of 2 objects"),
        ({"boxes": [BOX, OTHER], "points": [[3, 4]], "labels": [0]}, "nest the points"),
    ],
)
def test_any_other_form_is_refused(refused, entry, said):
    refused(["p.json: a", said], check_prompts, {"a": entry}, "p.json")


def test_each_object_is_one_prompt():
    objects = (
        ObjectRequest((1, 2, 9, 8), ((3, 4), (5, 6)), (1, 0)),
        ObjectRequest(None, ((7, 8),), (1,)),
    )
    prompts = prompts_of(objects, (10, 20))
    assert len(prompts) == 2
    assert prompts.boxes()[0].tolist() == [1, 2, 9, 8] and prompts.boxes()[1].isnan().all()
    parts = ObjectRequest((0.25, 0.5, 0.75, 1.0), ((0.5, 0.5),), (1,), relative=True)
    relative = prompts_of((parts,), (10, 20))
    assert relative.boxes()[0].tolist() == [5, 5, 15, 10]
    assert torch.equal(relative.coords[0, 0], torch.tensor([10.0, 5.0]))
    assert len(prompts_of(None, (10, 20))) == 1


def test_a_whole_path_counts_before_a_name_that_several_images_have():
    records = [Record(Path(f"in/{name}.png"), None, name) for name in ("a", "more/a", "other/a")]
    requests = requests_by_name({"a.png": "first", "more/a.png": "second"}, records)
    assert requests == {"a": "first", "more/a": "second"}
    with pytest.raises(InputError, match=r"2 images have this name .* give the folder before it"):
        requests_by_name({"a.png": "either"}, records[1:])
