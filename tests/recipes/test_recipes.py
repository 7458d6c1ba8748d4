"""Every shipped recipe resolves and builds; a cover of them trains two steps and is tested.

What trains runs on a miniature of its data set, as on the command line.
"""

from dataclasses import replace
from functools import cache
from math import isfinite

import pytest
import tiny
import tiny_vit_golden
from named_miniatures import MINIATURES
from safetensors.torch import save_file

from samtune.adapters import ADAPTERS
from samtune.cli.recipe_list import list_recipes, recipe_page, recipe_rows, recipes_table
from samtune.data.named import DATASETS
from samtune.errors import InputError
from samtune.geometry import InputPolicy
from samtune.metrics.contract import MEASURES
from samtune.model.checkpoint import read_header
from samtune.model.finetuned import FineTuned
from samtune.report.terminal import Display
from samtune.runs.assembly import models
from samtune.runs.jobs import evaluate_run, train
from samtune.runs.words import from_words, recipes
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS
from samtune.training.order import batches_per_epoch
from samtune.training.schedule import UNSAFE

BASES = {
    "vit": (tiny.SHALLOW, lambda: tiny.base(tiny.SHALLOW)),
    "tiny_vit": (tiny_vit_golden.TINY, tiny_vit_golden.base),
}
"""One block of each kind is enough: all recipes are built with all of theirs."""
SIDE = 64
"""Pixels of the longer side of the model's frame."""
PACKED = {"kvasir": "kvasir-pranet", "isbi2012": "isbi2012-slices", "synapse": "synapse-npy"}
"""Where a data set's miniature is not the one of its name."""
REPORTED = {"iou", "dice"}
"""Always measured, and not among a summary's metrics."""
OF_FOUR = "miou_gsam_dropped"
"""Has no number for less than four images."""
RECIPES = recipes()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of the tiny bases by kind of encoder."""
    folder, found = tmp_path_factory.mktemp("bases"), {}
    for kind, (_, base) in BASES.items():
        found[kind] = folder / f"{kind}.safetensors"
        save_file({key: t.clone() for key, t in base().state_dict().items()}, found[kind])
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The root of a recipe's data set, written once."""
    roots = {}

    def root(name):
        if name not in roots:
            folder = tmp_path_factory.mktemp(name or "own")
            packing = PACKED.get(name, name)
            roots[name] = (
                MINIATURES[packing].write(folder) if name else tiny.write_pairs(folder, 4, (12, 16))
            )
        return roots[name]

    return root


@pytest.fixture
def small(weights, data, tmp_path, monkeypatch):
    """Gives the configuration of a recipe on a tiny base of the same kind, and tiny data."""

    def config(name, **changes):
        tree = {**RECIPES[name], **changes}
        tree.pop("recipe")
        official = SPECS[tree["base"]["name"]]
        spec = BASES[official.encoder][0]
        monkeypatch.setitem(SPECS, official.name, replace(spec, name=official.name))
        shots = tree.get("data", {}).get("shots")
        size = tree.get("input", {}).get("size", official.image_size)
        longest = size if isinstance(size, int) else max(size)
        crop = tree.get("data", {}).get("crop")
        words = {
            "base.weights": weights[official.encoder],
            "data.root": data(tree["data"].get("name")),
            # miniatures have the one published shot
            "data.shots": None if shots is None else 1,
            "input.size": fitted(size, spec, longest),
            "train.max_steps": 2,
            "train.eval_every": 2,
            "output": tmp_path / "run",
            "device": "cpu",
        }
        if crop and min(crop) > 1:
            words["data.crop"] = fitted(crop, spec, longest)
        options = tiny.options(tree["adapter"]["name"])
        words |= {f"adapter.{key}": value for key, value in options.items()}
        given = [f"{key}={'null' if value is None else value}" for key, value in words.items()]
        return from_words(given, tree)

    return config


def fitted(size, spec, longest):
    """A size of about the same aspect where ``longest`` pixels become ``SIDE``."""
    sides = [size, size] if isinstance(size, int) else size
    step = spec.patch_size
    return [round(side * SIDE / longest / step) * step for side in sides]


def choices(tree, path=""):
    """What a recipe chooses: names and switches by value, numbers by the setting alone."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from choices(value, f"{path}{key}.")
        elif isinstance(value, list) and all(isinstance(one, str) for one in value):
            yield from ((path + key, one) for one in value)
        elif value is None or isinstance(value, str | bool):
            yield path + key, value
        else:
            yield path + key, "a number"


def cover():
    """Recipes that together make every choice of all recipes; the next adds most."""
    choose = {
        name: set(choices({key: part for key, part in tree.items() if key != "recipe"}))
        for name, tree in RECIPES.items()
        if name != "demo"
    }
    names, missing = [], set().union(*choose.values())
    while missing:
        names.append(max(choose, key=lambda name: len(choose[name] & missing)))
        missing -= choose[names[-1]]
    return names


@cache
def shapes(base):
    """A base without values, so that even ViT-H takes no time."""
    with shapes_alone():
        return Sam(SPECS[base]).freeze()


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_it_resolves_and_its_model_is_built_at_full_size(name):
    config = from_words([name, "base.weights=none.pth"])
    options = [dict(part) for part in (config.adapter, config.decoder)]
    adapter, decoder = (part.pop("name") for part in options)
    base = shapes(config.base.name)
    with shapes_alone():
        model = FineTuned(
            base, adapter, decoder, adapter_options=options[0], decoder_options=options[1]
        )
    assert model.trainable() > 0
    assert "data" not in RECIPES[name] or config.data.name == RECIPES[name]["data"].get("name")


@pytest.mark.slow
@pytest.mark.parametrize("name", cover())
def test_two_steps_and_the_test(small, name):
    config = small(name)
    summary = train(config, Display(json=True))
    assert summary["steps"] == 2
    assert summary["trainable_parameters"] > 0
    assert summary["images"] > 0
    for when in ("zero_shot", "tuned"):
        assert 0 <= summary[when]["iou"] <= 1
    asked = set(config.eval.names) - REPORTED
    assert asked <= set(summary["metrics"])
    for metric in asked:
        number = summary["metrics"][metric]["tuned"]
        if metric != OF_FOUR or summary["images"] >= 4:
            assert isfinite(number), metric


@pytest.mark.slow
def test_a_frame_that_the_method_divides_and_the_base_does_not(
    small, refused, tmp_path, monkeypatch
):
    """As CamVid's 360x480: the base beside it has a frame of its own, in training and after."""
    spec = replace(tiny.TINY, name="coarse", patch_size=16)
    monkeypatch.setitem(SPECS, "coarse", spec)
    save_file(
        {key: t.clone() for key, t in tiny.base(spec).state_dict().items()},
        tmp_path / "coarse.safetensors",
    )
    tree = small("gsam-vit_b-camvid").tree()
    own = {"size": [24, 40], "resize": "stretch", "mean": [110.0, 115.0, 90.0]}
    base = {"name": "coarse", "weights": str(tmp_path / "coarse.safetensors")}
    tree |= {"base": base, "input": own, "data": {**tree["data"], "crop": [16, 24]}}
    made = from_words([], tree)
    said = "zero-shot sees images in a frame of 32x48: coarse's patch does not divide 24x40"
    summary = train(made, Display(json=True))
    assert said in summary["remarks"]
    assert read_header(summary["checkpoint"])["input"]["mean"] == [110.0, 115.0, 90.0]
    words = [f"data.root={made.data.root}", f"base.weights={base['weights']}", "device=cpu"]
    again = evaluate_run(summary["checkpoint"], [*words, f"output={tmp_path / 'e'}"], Display())
    assert said in again["remarks"]
    for when in ("zero_shot", "tuned"):
        assert again[when]["iou"] == pytest.approx(summary[when]["iou"], abs=1e-5)
    refused(
        "input.mean",
        lambda: evaluate_run(summary["checkpoint"], [*words, "input.mean=null"], Display()),
    )
    for wrong, said in (
        ({"input": {"size": [20, 40]}}, "multiples of 8, the stride of gsam; try [24, 40]"),
        ({"data": {"crop": [20, 24]}}, "data.crop=[20, 24]"),
        ({"data": {"crop": [32, 32]}}, "larger than the model's frame of [24, 40]"),
    ):
        parts = {k: {**made.tree()[k], **v} for k, v in wrong.items()}
        changed = from_words([], {**made.tree(), "output": str(tmp_path / "no"), **parts})
        refused(said, lambda changed=changed: train(changed, Display()))


def test_the_published_input_reaches_the_model_and_the_base_beside_it(small):
    model, baseline = models(small("cat_sam_t-vit_l-whu-1shot"))
    wanted = {"antialias": False, "round_prompts": True, "direct_masks": True}
    assert model.input == InputPolicy((SIDE, SIDE), "stretch", **wanted) == baseline.input
    at_own_size = {n for n, t in RECIPES.items() if t["train"].get("loss_at") == "image"}
    assert {n for n in RECIPES if "cat_sam" in n or n == "hq-vit_l-sbu-1shot"} < at_own_size
    assert {"decoder-vit_t", "sam_adapter_kyyle-vit_b"} < at_own_size
    model, baseline = models(small("decoder-vit_b-isbi2012"))
    assert (model.input.mean, model.input.std) == ((118.83, 120.105, 96.9), (49.725, 49.47, 48.96))
    assert baseline.input == replace(model.input, mean=None, std=None)


@pytest.mark.parametrize("name", RECIPES)
def test_notes(name):
    notes = RECIPES[name]["recipe"]
    assert notes["about"] and notes["published"] and notes["data"]
    assert not {"name", "settings"} & set(notes)  # the listing has them beside the notes
    if name != "demo":
        assert notes["paper"] and notes["differs"]
        assert notes["status"].startswith(("not reproduced", "reproduced"))
        assert name.partition("-")[2].startswith(RECIPES[name]["base"]["name"])


def test_what_a_recipe_does_not_repeat():
    for name, tree in RECIPES.items():
        data = tree["data"]
        if "name" in data:
            assert data["name"] in DATASETS, name
            defaults = DATASETS[data["name"]].defaults
            assert not [k for k, v in data.items() if k in defaults and v == defaults[k]], name
        assert set(tree.get("eval", {}).get("metrics", ())) <= set(MEASURES), name


FIVE = {
    "data": {"name": "synapse", "classes": 5, "class_names": []},
    "decoder": {"name": "semantic", "classes": 5},
}
"""Of nine classes: the settings agree with each other, but not with the labels."""


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("ts_sam-vit_b-cod", {"train": {"los": "bce"}}, "train.los: no such setting"),
        ("gsam-vit_b-camvid", {"decoder": {"name": "semantic", "classes": 12}}, "classes"),
        ("gsam-vit_b-camvid", {"train": {"loss": "bce"}}, "train.loss=bce"),
        ("lora-vit_l-whu-1shot", {"train": {"loss": "ce"}}, "train.loss=ce"),
        ("gsam-vit_b-synapse", FIVE, "synapse"),
        ("sam_adapter-vit_h-cod", {"data": {"name": "chameleon"}}, "train"),
        ("decoder-vit_b", {"eval": {"metrics": ["miou_gsm"]}}, "miou_gsm"),
    ],
)
def test_a_wrong_recipe_fails(small, refused, name, change, said):
    refused(said, lambda: train(small(name, **change), Display(json=True)))


def test_the_published_rows_are_there():
    """One recipe for each experiment: CAT-SAM's, TS-SAM's, SAM-Adapter's and Generalized SAM's."""
    wanted = {
        f"ts_sam-{base}-{task}" for base in ("vit_b", "vit_h") for task in ("cod", "sd", "sod")
    }
    wanted |= {f"sam_adapter-vit_{base}-cod" for base in "blh"}
    wanted |= {f"{name}-reference" for name in OF_FOUR_PROCESSES}
    wanted |= {"sam_adapter-vit_h-istd", "sam_adapter-vit_h-kvasir", "sam_adapter_kyyle-vit_b"}
    wanted |= {f"decoder-vit_{base}" for base in "blht"}
    rows = ("vpt_shallow", "vpt_deep", "adaptformer", "lora", "hq", "med_sa", "cat_sam_t")
    rows += ("cat_sam_a",)
    for data in ("whu", "kvasir", "sbu"):
        wanted |= {f"{row}-vit_l-{data}-1shot" for row in rows}
        wanted |= {f"cat_sam_{v}-vit_l-{data}-{n}" for v in "ta" for n in ("16shot", "full")}
    rows = (
        "decoder",
        "head_lora",
        "head_conv_lora",
        "adaptformer",
        "sm_adaptformer",
        "samus",
        "gsam",
    )
    sets = ("camvid", "m_building", "isbi2012", "kvasir", "synapse", "cityscapes", "trans10k")
    wanted |= {f"{row}-vit_b-{data}" for row in rows for data in sets}
    wanted |= {f"gsam-vit_b-isbi2012-crop{side}" for side in (32, 64, 256)}
    assert wanted | {"demo"} <= set(RECIPES)


OF_FOUR_PROCESSES = {
    "ts_sam-vit_b-cod": (3636, 455), "ts_sam-vit_h-cod": (3636, 455),
    "ts_sam-vit_b-sd": (1197, 150), "ts_sam-vit_h-sd": (1197, 150),
    "ts_sam-vit_b-sod": (9498, 1188), "ts_sam-vit_h-sod": (9498, 1188),
    "sam_adapter-vit_b-cod": (3636, 455), "sam_adapter-vit_l-cod": (3636, 455),
    "sam_adapter-vit_h-cod": (3636, 455), "sam_adapter-vit_h-istd": (1197, 150),
}  # fmt: skip
"""The training images that their notes state, and the steps of a quarter of them."""


@pytest.mark.parametrize("name", OF_FOUR_PROCESSES)
def test_one_of_four_unsynchronised_processes(name):
    """Everything but the part of an epoch is that of the recipe whose training is corrected."""
    (images, steps), corrected = OF_FOUR_PROCESSES[name], RECIPES[name]
    reference = RECIPES[f"{name}-reference"]
    train = dict(reference["train"])
    assert train.pop("epoch_fraction") == 0.25 and "epoch_fraction" not in corrected["train"]
    assert batches_per_epoch(images, train["batch_size"], 1, 0.25) == steps
    assert train["eval_epochs"] == 1
    assert train == corrected["train"]
    for key in corrected.keys() - {"train", "recipe"}:
        assert reference[key] == corrected[key]
    assert str(images) in reference["recipe"]["data"]
    assert f"an epoch has {steps} steps" in reference["recipe"]["differs"]
    assert from_words([f"{name}-reference"]).train.epoch_fraction == 0.25
    assert "fresh quarter" in reference["recipe"]["kept"]
    assert "all processes train one model" in corrected["recipe"]["differs"]


def test_every_method_has_a_recipe():
    used = {tree.get("adapter", {}).get("name", "none") for tree in RECIPES.values()}
    assert used == set(ADAPTERS)


def test_one_may_extend_another():
    above, below = RECIPES["ts_sam-vit_h-cod"], RECIPES["ts_sam-vit_b-cod"]
    assert (above["base"], below["base"]) == ({"name": "vit_h"}, {"name": "vit_b"})
    for key in set(below) - {"base", "recipe"}:
        assert above[key] == below[key]
    # A part of another name starts afresh, one of the same name is completed.
    tree = RECIPES["gsam-vit_b-camvid"]
    assert tree["decoder"] == {"name": "semantic", "classes": 11, "positions": "conv"}
    assert tree["input"] == {**RECIPES["decoder-vit_b-camvid"]["input"], "size": [360, 480]}
    assert RECIPES["samus-vit_b-isbi2012"]["decoder"] == {"name": "frozen"}
    assert not any("extends" in tree for tree in RECIPES.values())


def test_only_one_level(tmp_path, monkeypatch):
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name, below in (("b", "a"), ("c", "b")):
        (folder / f"{name}.yaml").write_text(f"extends: {below}\nseed: 1\n")
    (folder / "a.yaml").write_text("recipe: {about: A}\ntrain: {lr: 1.0}\n")
    monkeypatch.setattr("samtune.runs.words.files", lambda package: tmp_path)
    with pytest.raises(KeyError, match="b"):
        recipes.__wrapped__()
    (folder / "c.yaml").unlink()
    assert recipes.__wrapped__()["b"] == {"recipe": {"about": "A"}, "train": {"lr": 1.0}, "seed": 1}


def test_the_listing():
    rows = {row["name"]: row for row in list_recipes()}
    assert list(rows) == sorted(RECIPES)
    shown = dict(zip(rows, recipe_rows(list(rows.values())), strict=True))
    assert shown["cat_sam_a-vit_l-whu-1shot"][2:] == ("whu", "88.2 % IoU", "no")
    assert shown["decoder-vit_b"][2:] == ("your own", "none", "-")
    assert {row["name"] for row in list_recipes("isbi2012")} == {
        name for name in RECIPES if "isbi2012" in name
    }
    assert [row["name"] for row in list_recipes("decoder-vit_b")] == ["decoder-vit_b"]
    for name in RECIPES:
        assert f"| `{name}` |" in recipes_table()
    with pytest.raises(InputError, match="did you mean 'demo'"):
        list_recipes("dmeo")


def test_one_recipe_in_full():
    page = recipe_page(list_recipes("gsam-vit_b-camvid")[0])
    assert page.endswith("samtune train gsam-vit_b-camvid data.root=FOLDER base.weights=FILE")
    assert "differs: " in page and "size: [360, 480]" in page
    assert max(map(len, page.splitlines())) <= 100
    assert recipe_page(list_recipes("demo")[0]).endswith("samtune demo")


def test_on_the_command_line(samtune):
    rows = samtune("recipes", "kvasir", "--json").json
    assert all("kvasir" in row["name"] for row in rows) and len(rows) > 10
    one = samtune("recipes", "ts_sam-vit_h-sd", "--json").json
    assert one["settings"]["train"]["loss"] == "bbce"
    assert "ts_sam-vit_h-sd" in samtune("recipes", "ts_sam").out
    assert "in no recipe's name" in samtune("recipes", "nothing_like_it").line


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "demo"])
def test_a_published_training_ends_as_published(name):
    """Neither other strengths nor means of weights, and nothing but its own prompts is asked."""
    train = from_words([name]).train
    assert {key: getattr(train, key) for key in UNSAFE} == UNSAFE
