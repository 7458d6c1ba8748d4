from importlib import import_module

import pytest

from samtune.moved import HOMES

NAMES = {
    "samtune.display": {"Display", "PLAIN_SECONDS", "WIDE"},
    "samtune.merging": {"merge"},
    "samtune.metrics.seen": {"Seen", "ImageResult"},
    "samtune.predictor": {"Predictor"},
    "samtune.types": {"Geometry", "InputPolicy", "Prompts", "Masks", "Batch", "inside", "ABSENT"},
}


@pytest.mark.parametrize("name", HOMES)
def test_a_module_that_moved_has_its_names_and_says_where_they_are(name):
    module = import_module(name)
    assert set(vars(module)) >= NAMES[name]
    assert all(home in module.__doc__ for home in HOMES[name])


@pytest.mark.parametrize("name", HOMES)
def test_a_module_that_moved_has_nothing_that_its_homes_only_import(name):
    leaked = {
        "annotations",
        "Any",
        "F",
        "Tensor",
        "dataclass",
        "field",
        "np",
        "torch",
        "InputError",
    }
    assert not leaked & set(vars(import_module(name)))
