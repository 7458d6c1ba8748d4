"""Words are words: names and paths are literal on the shell, in YAML and in Python."""

from pathlib import Path

import pytest

from samtune.runs.config import resolve
from samtune.runs.words import from_words, layers, parse_override, read_tree
from samtune.training.schedule import FitConfig

LITERAL = [
    "2024", "007", "no", "true", "set #3", "a: b", "~name", "it's", "[x", "{a", "-", "1e3", "%x",
    "2024-01-01", "a,b", "Größe ü", "&a", "*a", "!x", "@x", "a=b", "1:30",
]  # fmt: skip


@pytest.mark.parametrize("text", LITERAL)
def test_names_are_literal(text, tmp_path):
    for key in ("data.root", "data.name", "output", "base.weights"):
        tree = parse_override(f"{key}={text}")
        part, _, name = key.partition(".")
        assert (tree[part][name] if name else tree[part]) == text
    assert resolve([{"data": {"name": text}}]).data.name == text
    file = tmp_path / "a.yaml"
    file.write_text(f"data: {{name: '{text.replace(chr(39), chr(39) * 2)}'}}", "utf-8")
    assert read_tree(file)["data"]["name"] == text


@pytest.mark.parametrize("text", ["2024", "007", "no", "true", "1e3", "2024-01-01", "1:30", "0x1F"])
def test_a_name_in_yaml_needs_no_quotes(text, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(f"data:\n  root: {text}\n  class_names: [{text}, b]\noutput: {text}\n")
    tree = read_tree(file)
    assert tree["data"] == {"root": text, "class_names": [text, "b"]} and tree["output"] == text


def test_a_key_that_is_there_twice_is_refused(tmp_path, refused):
    file = tmp_path / "a.yaml"
    file.write_text("data:\n  root: x\ntrain: {lr: 1}\ndata:\n  root: y\n")
    refused(["a.yaml", "line 4: the key data appears twice"], read_tree, file)


def test_former_names_of_settings_are_read(tmp_path, refused):
    (tmp_path / "old.yaml").write_text("data: {min_share: 0.1}\ntrain: {epoch_share: 0.5}\n")
    config = from_words([str(tmp_path / "old.yaml"), "train.epoch_share=0.25"])
    assert (config.data.min_area_fraction, config.train.epoch_fraction) == (0.1, 0.25)
    assert config.train == FitConfig(epoch_share=0.25, lr=config.train.lr)
    both = ["train.epoch_share=0.5", "train.epoch_fraction=0.5"]
    refused(["epoch_share=0.5", "set epoch_fraction alone"], from_words, both)


def test_what_is_no_name_is_read_as_yaml():
    def value(word):
        part, _, name = word.partition("=")[0].partition(".")
        tree = parse_override(word)
        return tree[part][name] if name else tree[part]

    assert value("data.root='set #3'") == value('data.root="set #3"') == "set #3"
    assert value("data.name=null") is value("data.name=") is None
    assert value("data.class_names=yes,no") == value("data.class_names=[yes, no]") == ["yes", "no"]
    assert value("prompts.eval=box,none") == ["box", "none"] and value("prompts.eval=box") == "box"
    assert value("data.crop=0.1,1") == [0.1, 1] and value("data.window=[-160,240]") == [-160, 240]
    assert value("seed=010") == 10 and value("data.invert=yes") is True


def test_a_folder_stands_alone(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    for name in ("set #3", "a=b", "data.v2.yaml", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "pairs.csv").write_text("")
    for word in ("set #3", "set #3/", "a=b", "data.v2.yaml/", "pairs.csv", str(tmp_path)):
        assert layers([word])[-1]["data"] == {"root": word}
    assert layers(["other", "data.root=other"])[-1]["data"] == {"root": "other"}
    refused(["other", "second folder", "set #3"], layers, ["set #3", "other"])
    refused(["other", "second folder", "a=b"], layers, ["other", "data.root=a=b"])
    refused(["gone", "folder", "key=value"], layers, ["gone"])
    refused("did you mean 'other'", layers, ["othre"])
    refused("did you mean data.root=set?", from_words, ["other", "data=set"])
    recipe = "gsam-vit_b-camvid"
    assert layers([recipe])[0]
    (tmp_path / recipe).mkdir()
    refused([recipe, f"./{recipe}"], layers, [recipe])
    assert layers([f"./{recipe}"])[-1]["data"] == {"root": f"./{recipe}"}
    with monkeypatch.context() as home:
        home.setenv("HOME", str(tmp_path))
        assert layers(["~/other"])[-1]["data"] == {"root": "~/other"}


def test_patterns_and_paths_in_python():
    config = from_words(["data.masks=**/*_gt.png", "data.images=*.jpg"])
    assert (config.data.masks, config.data.mask_files) == ("auto", "**/*_gt.png")
    assert resolve([{"data": {"root": Path("x")}, "output": Path("y")}]).data.root == "x"
