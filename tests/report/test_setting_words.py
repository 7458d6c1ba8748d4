"""Settings become words that a command line takes."""

import shlex

import pytest

from samtune.report.setting_words import READABLE, paragraph, words_of
from samtune.runs.config import resolve
from samtune.runs.words import layers


def words_of_tree(tree) -> list[str]:
    return [word for group, value in tree.items() for word in words_of(group, value)]


def test_what_is_not_set_is_left_out():
    tree = {"train": {"lr": 1e-05, "epochs": None, "trackers": []}, "seed": 0, "output": None}
    words = words_of_tree({**tree, "prompts": {"eval": ["box", "point"]}, "input": {"size": None}})
    assert words == ["train.lr=1e-05", "seed=0", "prompts.eval=box,point"]


@pytest.mark.parametrize(
    "words",
    [
        ["adapter.name=lora+adaptformer", "adapter.lora.rank=8"],
        ["input.antialias=false", "input.size=32,48"],
        ["data.bands=[2]", "data.class_names=[road sign,sky]", "seed=3"],
        ["train.loss=20.5*focal + dice", "train.lr=0.000123456789", "eval.metrics=boundaries"],
    ],
)
def test_a_command_line_takes_the_words(words):
    tree = resolve(layers(words)).differing()
    said = shlex.split(" ".join(words_of_tree(tree)))
    assert set(words) <= set(said)
    assert resolve(layers(said)).differing() == tree


def test_paragraphs_have_80_columns():
    words = words_of_tree({"train": {f"setting_{i}": "x" * 12 for i in range(9)}})
    lines = paragraph([*words, "seed=3"]).splitlines()
    assert all(len(line) <= READABLE for line in lines) and len(lines) == 5
    assert lines[1].startswith(" train.setting_") and lines[-1].endswith("seed=3")
