"""What the shell asks for when somebody presses the tabulator key, by its own protocol."""

import os
import subprocess
import sys

import pytest
from generate import names_file

from samtune.cli.completion import NAMES, complete_words
from samtune.cli.main import FIVE_THINGS

COMPLETE = "import sys; sys.argv[0] = 'samtune'; from samtune.cli.main import main; main()"


def completed(words: list[str]) -> list[str]:
    """The lines that bash gets for the last of some words."""
    asked = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    run = subprocess.run(
        [sys.executable, "-c", COMPLETE],
        env={**os.environ, **asked, "_SAMTUNE_COMPLETE": "complete_bash",
             "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return run.stdout.splitlines()


@pytest.mark.slow
def test_verbs_recipes_methods_and_settings_are_completed():
    assert "train" in completed(["samtune", "tr"])
    assert "train.lr=" in completed(["samtune", "train", "train.l"])
    assert completed(["samtune", "train", "dem"]) == ["demo"]
    assert completed(["samtune", "methods", "adaptf"]) == ["adaptformer"]
    assert completed(["samtune", "recipes", "dem"]) == ["demo"]
    assert completed(["samtune", "train", "data.masks=i"]) == ["data.masks=instance"]
    assert completed(["samtune", "train", "data.masks", "=", "i"]) == ["instance"]  # bash parts it


class Context:
    def __init__(self, verb, words=()):
        self.info_name, self.params = verb, {"words": list(words)}


def test_each_verb_has_its_own_words():
    assert "methods=" in complete_words(Context("compare"), "me")
    assert complete_words(Context("eval"), "demo") == []
    assert complete_words(Context("train"), "train.loss_at=") == [
        "train.loss_at=frame", "train.loss_at=image",
    ]  # fmt: skip
    assert complete_words(Context("train", ["decoder.name"]), "=")[:1] == ["frozen"]


def test_the_names_that_ship_are_those_of_today():
    import samtune.cli.completion as module

    shipped = os.path.join(os.path.dirname(module.__file__), NAMES)
    with open(shipped, encoding="utf-8") as file:
        assert file.read() == names_file(), "run python docs/generate.py"
    assert "samtune data check FOLDER" in FIVE_THINGS
