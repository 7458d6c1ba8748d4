import dataclasses

import pytest

from samtune.errors import SYNONYMS, nearest
from samtune.runs.config import RunConfig
from samtune.training.schedule import FitConfig

TRAIN = [field.name for field in dataclasses.fields(FitConfig)]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("learning_rate", "lr"), ("batch", "batch_size"), ("epoch", "epochs"),
        ("steps", "max_steps"), ("iterations", "max_steps"), ("wd", "weight_decay"),
        ("Batch-Size", "batch_size"), ("amp", "precision"), ("lerning_rat", "lr"),
    ],
)  # fmt: skip
def test_the_nearest_setting_of_training(word, name):
    assert nearest(word, TRAIN) == f"; did you mean {name!r}?"


def test_the_letters_decide_where_no_rule_does():
    assert nearest("acumulate", TRAIN) == "; did you mean 'accumulate'?"
    assert nearest("xyz", TRAIN) == nearest("", []) == ""


def test_a_synonym_means_nothing_where_its_name_is_not_known():
    assert nearest("amp", ["rank", "blocks"]) == ""


def test_synonyms_name_settings_that_exist():
    known = {f.name for f in dataclasses.fields(RunConfig)}
    for part in dataclasses.fields(RunConfig):
        made = part.default_factory() if callable(part.default_factory) else None
        if dataclasses.is_dataclass(made):
            known |= {f.name for f in dataclasses.fields(made)}
    assert set(SYNONYMS.values()) <= known
    assert all(
        nearest(word, sorted(known)) == f"; did you mean {name!r}?"
        for word, name in SYNONYMS.items()
    )


def test_the_command_line_suggests_it(samtune):
    assert (
        "train.learning_rate: no such setting; did you mean train.lr=1e-3?"
        in samtune("train", "train.learning_rate=1e-3").line
    )
