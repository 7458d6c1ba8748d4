import dataclasses
from dataclasses import replace

import hierarchical
import pytest
import yaml

from samtune.files import sealed_json
from samtune.geometry import PRESETS
from samtune.runs.assembly import tuned
from samtune.runs.config import InputSettings, resolve
from samtune.runs.words import (
    from_words,
    layers,
    parse_override,
    read_tree,
    recipes,
    settings_digest,
)
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

TODAYS = list(SPECS)


@pytest.mark.parametrize(
    ("word", "tree"),
    [
        ("train.lr=1e-4", {"train": {"lr": "1e-4"}}),  # YAML 1.1 reads this as text
        ("train.lr=0.1", {"train": {"lr": 0.1}}),
        ("seed=3", {"seed": 3}),
        ("prompts.eval=box,point", {"prompts": {"eval": ["box", "point"]}}),
        ("prompts.eval=[box, point]", {"prompts": {"eval": ["box", "point"]}}),
        ("input.size=64,128", {"input": {"size": [64, 128]}}),
        ("data.root=/a/b,c", {"data": {"root": "/a/b,c"}}),
        ("data.root=a=b", {"data": {"root": "a=b"}}),
        ("train.loss=20*focal + dice", {"train": {"loss": "20*focal + dice"}}),
        ("data.shots=null", {"data": {"shots": None}}),
        ("adapter.target=q+v", {"adapter": {"target": "q+v"}}),
    ],
)
def test_overrides(word, tree):
    assert parse_override(word) == tree


@pytest.mark.parametrize("word", ["=1", "train.lr", "seed=[1", "a={b"])
def test_malformed_overrides(refused, word):
    refused(word, parse_override, word)


def test_values_get_their_types():
    config = from_words(
        ["train.lr=1e-4", "input.size=64,128", "adapter.blocks=0,-1", "data.shots=4",
         "train.trackers=tensorboard,wandb", "data.class_names=cat,dog", "adapter.alpha=8"]
    )  # fmt: skip
    assert config.train.lr == 1e-4 and config.input.size == (64, 128) and config.data.shots == 4
    assert config.adapter["blocks"] == [0, -1] and config.adapter["alpha"] == 8.0
    assert config.train.trackers == ("tensorboard", "wandb")
    assert config.data.class_names == ("cat", "dog")


def test_a_single_size_is_a_square():
    assert from_words(["input.size=64"]).input.size == 64


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_precedence_is_recipe_file_override_in_any_order(tmp_path, monkeypatch, order):
    recipe = {
        "recipe": {"about": "x"},
        "seed": 1,
        "train": {"lr": 1.0, "clip": 1.5, "batch_size": 7},
    }
    monkeypatch.setattr("samtune.runs.words.recipes", lambda: {"mine": recipe})
    (tmp_path / "file.yaml").write_text("train: {lr: 2.0, clip: 2.5}\n")
    words = ["mine", str(tmp_path / "file.yaml"), "train.lr=3"]
    config = from_words([words[i] for i in order], {"seed": 5, "train": {"accumulate": 2}})
    train = config.train
    assert (train.lr, train.clip, train.batch_size, train.accumulate) == (3.0, 2.5, 7, 2)
    assert config.seed == 1


@pytest.mark.parametrize(
    "words",
    [
        ["adapter.name=adaptformer", "adapter.hidden=8"],
        ["adapter.hidden=8", "adapter.name=adaptformer"],
        ["adapter=adaptformer", "adapter.hidden=8"],
        ["adapter.hidden=8", "adapter=adaptformer"],
    ],
)
def test_a_method_and_its_options_in_any_order(words):
    adapter = from_words(words).adapter
    assert adapter["name"] == "adaptformer" and adapter["hidden"] == 8


def test_another_method_leaves_the_options_of_the_first(tmp_path):
    (tmp_path / "file.yaml").write_text("adapter: {name: lora, rank: 16}\ndecoder: tuned\n")
    file = str(tmp_path / "file.yaml")
    assert from_words([file, "adapter.alpha=2"]).adapter["rank"] == 16
    assert "rank" not in from_words([file, "adapter=adaptformer"]).adapter
    (tmp_path / "file.yaml").write_text("adapter: {rank: 16}\n")  # of the default, lora
    assert from_words([file, "adapter.name=lora"]).adapter["rank"] == 16
    assert "rank" not in from_words([file, "adapter=adaptformer"]).adapter


def test_the_tree_resolves_to_itself():
    config = from_words(["train.trackers=wandb", "prompts.eval=box,point", "input.size=64,32"])
    text = yaml.safe_dump(config.tree())
    assert resolve([yaml.safe_load(text)]) == config


def test_options_are_filled_in():
    adapter = from_words(["adapter.rank=2"]).adapter
    assert adapter == {
        "name": "lora", "target": "q+v", "rank": 2, "alpha": None, "dropout": 0.0, "blocks": "all"
    }  # fmt: skip


def test_what_differs_from_the_defaults():
    tree = from_words(["adapter=adaptformer", "adapter.hidden=8", "train.lr=0.002"]).differing()
    assert tree == {
        "base": {"name": "nano"},
        "adapter": {"name": "adaptformer", "hidden": 8},
        "decoder": {"name": "tuned"},
        "train": {"lr": 0.002},
    }


def test_a_preset_stands_for_its_settings_below_those_beside_it(tmp_path, refused):
    config = from_words(["input.size=64", "input.preset=cat_sam"])
    assert (config.input.size, config.input.antialias, config.input.preset) == (64, False, None)
    assert config == from_words(["input.preset=cat_sam", "input.size=64"])
    assert InputSettings(preset="cat_sam", size=64) == config.input, "in Python as in words"
    assert replace(config.input, size=32).antialias is False
    (tmp_path / "a.yaml").write_text("input: {preset: cat_sam, tiles: tiled, std: [1, 2, 3]}\n")
    above = from_words([str(tmp_path / "a.yaml"), "input.preset=gsam", "input.std=[4,5,6]"]).input
    assert (above.mean, above.std, above.tiles) == ((118.83, 120.105, 96.9), (4, 5, 6), "tiled")
    refused(
        ["input.preset=cat_san", "did you mean 'cat_sam'"], from_words, ["input.preset=cat_san"]
    )


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_leaves_nothing_of_another(preset):
    alone = from_words([f"input.preset={preset}"]).input
    for recipe in ("samed-vit_b-synapse", "cat_sam_a-vit_l-kvasir-full"):
        assert from_words([recipe, f"input.preset={preset}"]).input == alone


def test_every_recipe_resolves():
    for name in recipes():
        config = from_words([name])
        assert dataclasses.asdict(config)


def test_layers_keep_recipes_files_and_overrides_apart(tmp_path):
    (tmp_path / "a.yml").write_text("seed: 2")
    assert layers(["seed=3", str(tmp_path / "a.yml"), "train.lr=1"]) == [
        {"seed": 2},
        {"seed": 3, "train": {"lr": 1}},
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "mapping"),
        ("a: [", "not readable"),
        ("", "mapping"),
        ("sed: 1", "did you mean seed=1?"),
    ],
)
def test_bad_files(tmp_path, refused, text, said):
    (tmp_path / "bad.yaml").write_text(text)
    refused(said, from_words, [str(tmp_path / "bad.yaml")])


def test_a_folder_is_no_file(tmp_path, refused):
    (tmp_path / "x.yaml").mkdir()
    refused("x.yaml", from_words, [str(tmp_path / "x.yaml")])


class TestResume:
    @pytest.fixture
    def run(self, tmp_path):
        config = from_words(["train.max_steps=10", "train.lr=0.5", "seed=4", "data.root=there"])
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.tree()))
        return tmp_path

    def test_it_takes_the_earlier_settings(self, run):
        config = from_words([f"resume={run}"])
        assert (config.train.lr, config.train.max_steps, config.seed) == (0.5, 10, 4)
        assert config.resume == str(run)

    def test_a_file_of_settings_that_holds_others_is_told(self, run, refused):
        notes = {
            "digests": {},
            "unused": [],
            "settings": settings_digest(read_tree(run / "config.yaml")),
        }
        (run / "files.json").write_text(sealed_json(notes))
        file, text = run / "config.yaml", (run / "config.yaml").read_text()
        file.write_text(text.replace("max_steps: 10", "max_steps: 12"))
        assert from_words([f"resume={run}"]).train.max_steps == 12
        file.write_text(text.replace("lr: 0.5", "lr: 0.7"))
        refused(["config.yaml", "other settings", "copy it back"], from_words, [f"resume={run}"])

    def test_its_length_and_places_may_differ(self, run):
        config = from_words([f"resume={run}", "train.max_steps=20", "data.root=here", "device=cpu"])
        assert (config.train.max_steps, config.data.root, config.device) == (20, "here", "cpu")
        assert config.train.lr == 0.5

    def test_the_same_settings_may_be_said_again(self, run):
        assert from_words([f"resume={run}", "train.lr=5e-1"]).train.lr == 0.5

    @pytest.mark.parametrize("word", ["train.lr=0.4", "seed=5", "adapter=adaptformer"])
    def test_others_may_not(self, run, refused, word):
        refused([word.split("=")[0], "leave it out"], from_words, [f"resume={run}", word])


def test_metrics_of_the_models_frame_with_cut_images(refused):
    tree = {"input": {"tiles": "tiled"}, "eval": {"metrics": ["s_measure_ts_sam"]}}
    refused(["eval.metrics=s_measure_ts_sam", "input.tiles=whole"], resolve, [tree])
    tree = {"input": {"tiles": "tiled"}, "train": {"metric": "ber_ts_sam"}}
    refused(["train.metric=ber_ts_sam", "input.tiles=whole"], resolve, [tree])
    resolve([{**tree, "input": {}}])


def test_an_image_enters_as_the_encoder_of_the_base_says_below_all_settings(tmp_path, monkeypatch):
    monkeypatch.setitem(SPECS, hierarchical.TINY.name, hierarchical.TINY)
    words = [f"base.name={hierarchical.TINY.name}", "decoder.name=frozen", "device=cpu"]
    config = from_words(words)
    assert config.input.resize == "stretch"
    with shapes_alone():
        sam = Sam(hierarchical.TINY).freeze()
    assert tuned(config, sam).input == sam.input_policy
    file = tmp_path / "a.yaml"
    file.write_text("input: {resize: longest}\n")
    assert from_words([str(file), *words]).input.resize == "longest"
    assert {from_words([f"base.name={name}"]).input.resize for name in TODAYS} == {"longest"}


def test_a_frame_is_divided_by_the_stride_of_the_encoder(refused):
    config = replace(from_words(["adapter=none"]), input=InputSettings(size=40))
    with shapes_alone():
        sam, vit = Sam(hierarchical.TINY).freeze(), Sam(SPECS["nano"]).freeze()
    words = "input.size=40: both sides must be positive multiples of 16, the stride of tiny_h"
    refused(words, tuned, config, sam)
    odd = replace(config, input=InputSettings(size=36))
    refused("multiples of 8, the patch of nano; try [40, 40]", tuned, odd, vit)
    sam.image_encoder.stride = 8  # as one whose specification speaks of another patch
    model = tuned(config, sam)
    assert (model.stride, model.mask_size, model.plain().input.size) == (8, (20, 20), (40, 40))
