"""What repeats published trainings is looked up by name, from a room that core does not import."""

import subprocess
import sys
from pathlib import Path

import pytest

from samtune import published
from samtune.data.augmentations import AUGMENTATIONS
from samtune.data.corners import CORNERS
from samtune.data.draws import DRAWS
from samtune.data.prompters import BOX_RULES, MASK_RULES
from samtune.geometry import INPUT_RULES, PRESETS, RESIZES
from samtune.registry import Registry
from samtune.training.last_batch import LAST_BATCHES
from samtune.training.schedule import COSINES, FitConfig


@pytest.mark.slow
def test_a_name_of_core_loads_nothing_and_another_one_loads_the_room():
    code = (
        "import sys\n"
        "from samtune.data.config import PromptConfig\n"
        "from samtune.data.prompters import BOX_RULES, MASK_RULES, rule_of\n"
        "from samtune.training.schedule import COSINES\n"
        "COSINES['step']\n"
        "plain = PromptConfig(train=['none', 'point'], points=3)\n"
        "rule_of(BOX_RULES, plain), rule_of(MASK_RULES, plain)\n"
        "assert not [m for m in sys.modules if m.startswith('samtune.published')]\n"
        "print(COSINES['kyyle'].__module__, *COSINES)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["samtune.published.cosine_of_batches", "epoch", "kyyle", "step"]


def test_an_unknown_name_is_refused_with_all_that_there_are(refused):
    said = ["cosine=kyle: must be one of epoch, kyyle, step", "did you mean 'kyyle'"]
    refused(said, FitConfig, cosine="kyle")
    refused("last_batch=full", FitConfig, last_batch="full")
    assert list(LAST_BATCHES) == ["drop", "fill", "short"]


def test_what_the_room_adds_to_each_registry():
    registries = [COSINES, LAST_BATCHES, AUGMENTATIONS, DRAWS, CORNERS]
    registries += [BOX_RULES, MASK_RULES, RESIZES, INPUT_RULES]
    added = {
        name
        for registry in registries
        for name in registry
        if registry[name].__module__.startswith("samtune.published.")
    }
    assert added == {
        "kyyle", "published", "class_0", "box_scale", "inclusive_boxes", "binary_masks", "spline",
        "antialias", "round_prompts", "direct_masks", "first_size", "native_raw",
    }  # fmt: skip
    files = {path.stem for path in Path(published.__file__).parent.glob("*.py")} - {"__init__"}
    homes = {registry[name].__module__ for registry in (*registries, PRESETS) for name in registry}
    assert files == {home.split(".")[-1] for home in homes if home.startswith("samtune.published.")}


def test_a_registry_without_further_members_has_its_own(refused):
    plain: Registry = Registry("sort")
    plain.register("a")(type("A", (), {}))
    assert list(plain) == ["a"] and len(plain) == 1
    refused("sort.name=b: must be one of a", plain.check, "b")
    with pytest.raises(ValueError, match="registered already"):
        plain.register("a")(type("B", (), {}))
