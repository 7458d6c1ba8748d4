"""The short list and the table of defaults name settings and measurements that are there."""

from pathlib import Path

import pytest
import torch

from samtune.cli.advice import RESULTS, advice, advice_table, evidence, evidence_table
from samtune.runs.assembly import tuned
from samtune.runs.config import RunConfig
from samtune.runs.trees import leaves
from samtune.runs.words import from_words, recipes
from samtune.sam.model import Sam
from samtune.sam.weights import spec_of

ROOT = Path(__file__).parents[2]


def shapes_of(config):
    """The model that a configuration describes, without values."""
    with torch.device("meta"):
        return tuned(config, Sam(spec_of(config.base.name)).freeze())


@pytest.mark.parametrize("one", [one for one in (*advice(), *evidence()) if one.page])
def test_what_is_cited_is_there(one):
    titles = (ROOT / RESULTS / one.page).read_text("utf-8").splitlines()
    assert f"## {one.section}" in titles


def test_what_is_advised_can_be_trained():
    for one in advice():
        words = [*one.settings.split(), "prompts.train=none", "prompts.eval=none"]
        if "semantic" in one.settings:
            words += ["data.masks=classes", "data.classes=3"]
        assert shapes_of(from_words(words)).trainable() > 0
        assert f"`{one.settings}`" in advice_table() or not one.settings


def test_defaults_are_those_of_a_run():
    values = leaves(RunConfig().tree())
    for one in evidence():
        assert f"| `{one.setting}` | `{values[one.setting]}` |" in evidence_table()


def test_no_published_recipe_relies_on_a_default_that_was_chosen_by_measurement():
    """So published trainings stay as published when a default changes."""
    length = {"train.epochs", "train.max_steps"}
    for name, tree in recipes().items():
        if name == "demo":  # it shows what the defaults do
            continue
        stated = leaves({key: part for key, part in tree.items() if key != "recipe"})
        lacks = {one.setting for one in evidence()} - stated.keys()
        assert lacks <= length, name
        assert length & stated.keys(), name


def test_on_the_command_line(samtune):
    told = samtune("methods", "--advise").out
    rows = samtune("methods", "--advise", "--json").json
    assert len(rows) == len(advice()) >= 4
    for row in rows:
        assert row["case"] in told and row["settings"] in told
    line = samtune("methods", "lora", "--advise").line
    assert "lora: --advise" in line
