"""The base that ships: how good its weights are, and that they are what they say."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import samtune
from samtune.assets import demo_data

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))

import evaluate_nano
import train_nano

SCRIPT = Path(train_nano.__file__).parent / "nano.sh"
FILE = demo_data().parent / "nano.safetensors"


def nuclei() -> Iterator[evaluate_nano.Sample]:
    for path in sorted((demo_data() / "masks" / "test").iterdir())[::2]:
        labels = np.asarray(Image.open(path))
        image = np.asarray(Image.open(demo_data() / "images" / "test" / path.name).convert("RGB"))
        yield evaluate_nano.Sample(image, evaluate_nano.instances(labels))


@pytest.mark.slow
def test_boxes_and_clicks_find_nuclei():
    """Boxes beat the ellipse inscribed in them, which needs no model; each click helps."""
    found = evaluate_nano.evaluate(samtune.load_sam("nano"), nuclei(), "cpu", 1)
    print(found)
    assert found["objects"] >= 100 and found["images"] == 4
    assert found["box"] > found["guess_ellipse"] + 0.005 > found["guess_box"]
    assert found["box_click"] > found["box"]
    assert 0.5 < found["point"] < found["point_best"]
    assert found["clicks_3"] > found["point_single"]


def test_the_file_is_what_its_header_says():
    assert FILE.stat().st_size <= 8 * 2**20
    with safe_open(FILE, "pt") as file:
        about = file.metadata()
        weights = {key: file.get_tensor(key) for key in file.keys()}
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    settings = json.loads(about["settings"])
    script = SCRIPT.read_text()
    stage = re.findall(r"^stage \w+ (.*?)(?=^\w)", script, re.MULTILINE | re.DOTALL)[-1]
    stage = stage.replace('"$precision"', "bf16")  # the processor that trained it has its products
    given = dict(re.findall(r"--([a-z]+) (\S+)", stage))
    known = {name: type(value) for name, value in vars(train_nano.Settings()).items()}
    asked = {name: known[name](value) for name, value in given.items() if name in known}
    assert len(asked) > 6
    assert settings == vars(train_nano.Settings(**asked))


def test_guesses_of_a_disc_and_a_square():
    y, x = np.mgrid[:60, :60]
    disc = evaluate_nano.guesses((y - 30) ** 2 + (x - 30) ** 2 <= 20**2)
    assert disc["guess_ellipse"] > 0.95
    assert disc["guess_box"] == pytest.approx(np.pi / 4, abs=0.05)
    square = evaluate_nano.guesses((abs(y - 30) <= 20) & (abs(x - 30) <= 10))
    assert square["guess_box"] == 1
    assert square["guess_ellipse"] == pytest.approx(np.pi / 4, abs=0.05)
