import dataclasses

import cv2
import numpy as np
import pytest
import yaml
from commands import settings
from PIL import Image

from samtune.compare.jobs import _with_one_framing
from samtune.compare.plan import plan_runs
from samtune.data import splits
from samtune.data.shapes import measure
from samtune.model.checkpoint import load
from samtune.published.inputs import PRESETS
from samtune.report.terminal import Display
from samtune.runs.framing import ENOUGH, choose_framing
from samtune.runs.source import Source
from samtune.runs.words import from_words, recipes

SIDE = 224
"""Of the drawings, in pixels: three and a half frames of the tiny base."""


@pytest.fixture
def thin(tmp_path):
    """A data set of curves two pixels wide, which a frame of 64 shrinks to half a pixel."""
    root = tmp_path / "thin"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i in range(4):
        rng = np.random.default_rng(i)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        for _ in range(6):
            cv2.polylines(mask, [rng.integers(0, SIDE, (4, 2)).astype(np.int32)], False, 255, 2)
        image = rng.integers(60, 90, (SIDE, SIDE, 3)) + (mask > 0)[..., None] * 120
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    return root


def choice(words):
    config = from_words(words)
    return choose_framing([config], measure(splits(config.data)["train"], config.data))


FREE = ("prompts.train=none", "prompts.eval=none")


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        (FREE, {"tiles": "tiled", "scale": 1.0}, "tokens wide, and in whole images 0.12"),
        (
            ("prompts.train=box", "prompts.eval=point"), {"tiles": "tiled", "scale": 1.0},
            "input.tiles=whole undoes it",
        ),
        # a point says nothing of a curve beyond its tile
        (("prompts.train=point",), {"tiles": "whole", "size": 128}, "input.size=128"),
        ((*FREE, "data.crop=[0.5,1]"), {"tiles": "whole", "size": 128}, "input.size=128"),
        ((*FREE, "eval.metrics=ber_ts_sam"), {"tiles": "whole", "size": 128}, "input.size=128"),
        (("prompts.train=point", "input.size=64"), {"tiles": "whole"}, "wide only"),
        ((*FREE, "input.size=192"), {"tiles": "tiled", "scale": 2.0}, "tiles, scale 2, where"),
    ],
    ids=["free", "box", "point", "crops", "metric", "frame", "large frame"],
)  # fmt: skip
def test_narrow_objects_are_shown_larger_by_what_fits(thin, tiny_registered, words, settings, said):
    framing = choice([f"data.root={thin}", "base.name=tiny", *words])
    assert framing.settings == settings
    assert framing.whole < ENOUGH and said in str(framing) and "\n" not in str(framing)
    assert str(framing).startswith("input.tiles=auto: ") and "in 2 masks" in str(framing)
    assert (framing.width > 1.2 * framing.whole) == (settings != {"tiles": "whole"})


def test_wide_objects_stay_in_whole_images(pairs, tiny_registered):
    framing = choice([f"data.root={pairs}", "base.name=tiny"])
    assert framing.settings == {"tiles": "whole"} and framing.whole > ENOUGH
    assert f"{ENOUGH} are enough" in str(framing)
    below = {"settings": {"tiles": "tiled", "scale": 1.0}, "width": 0.3}
    assert "are enough" not in str(dataclasses.replace(framing, **below)), "not reached"


def test_masks_without_objects_say_nothing(thin, tiny_registered):
    for path in (thin / "masks").iterdir():
        Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(path)
    framing = choice([f"data.root={thin}", "base.name=tiny"])
    assert framing.settings == {"tiles": "whole"} and "no mask shows" in str(framing)


def test_recipes_and_presets_have_whole_images_and_own_folders_a_choice(tmp_path):
    assert from_words([]).input.tiles == "auto"
    for name in recipes():
        assert from_words([name]).input.tiles == "whole", name
    for name in PRESETS:
        assert from_words([f"input.preset={name}"]).input.tiles == "whole"
    assert from_words(["demo", "input.tiles=auto"]).input.tiles == "auto"
    (tmp_path / "mine.yaml").write_text("train: {lr: 0.01}\n")
    assert from_words([str(tmp_path / "mine.yaml")]).input.tiles == "auto"


@pytest.mark.slow
def test_what_was_chosen_is_kept_and_used_from_then_on(
    samtune, thin, tiny_weights, sam, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = [*settings(thin, tiny_weights, 1), *FREE, "output=run"]
    answer = samtune("train", *words, "--json")
    assert answer.code == 0, answer.err
    assert answer.err.count("input.tiles=auto: tiles, where objects are") == 1
    alone = ["tiny", f"data.root={thin}", f"base.weights={tiny_weights}", FREE[1]]
    whole = samtune("eval", *alone, "--json").json["zero_shot"]
    entry = answer.json["by_prompt"]["none"]
    assert entry["zero_shot_whole_images"] == {key: whole[key] for key in ("iou", "dice")}
    assert "zero-shot on whole images" in answer.err, "beside the base in the tiles of the model"
    assert "Zero-shot on whole images" in (tmp_path / "run/report.html").read_text("utf-8")
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (config["input"]["tiles"], config["input"]["scale"]) == ("tiled", 1.0)
    checkpoint = "run/best.safetensors"
    assert load(checkpoint, sam).input.tiles == "tiled"
    for also in ([], ["input.tiles=auto"]):
        again = samtune("eval", checkpoint, *also, "output=e" + str(len(also)), "--json").json
        assert again["tuned"] == answer.json["tuned"]
        assert from_words(["resume=run", *also, "train.max_steps=2"]).input.tiles == "tiled"
    source = Source(checkpoint)
    assert source.configure(["input.tiles=whole"]).input.tiles == "whole"
    # a run from before there was a choice has whole images
    del config["input"]["tiles"]
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "run/files.json").unlink()  # nor had it a digest of its settings
    assert from_words(["resume=run"]).input.tiles == "whole"
    assert Source("tiny").configure([]).input.tiles == "whole"


def test_a_comparison_chooses_once_for_all_of_its_runs(thin, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*settings(thin, tiny_weights, 1), *FREE, "methods=decoder,lora", "seeds=2", "shots=1"]
    runs = plan_runs(words)
    records = splits(runs[0].config.data)["train"]
    framed = _with_one_framing(runs, records, Display(json=True))
    assert {run.config.input.tiles for run in framed} == {"tiled"}
    earlier = dataclasses.replace(
        framed[1].config, input=dataclasses.replace(framed[1].config.input, tiles="crop")
    )
    framed[1].folder.mkdir(parents=True)
    (framed[1].folder / "config.yaml").write_text(yaml.safe_dump(earlier.tree()))
    again = _with_one_framing(runs, records, Display(json=True))
    assert {run.config.input.tiles for run in again} == {"crop"}
