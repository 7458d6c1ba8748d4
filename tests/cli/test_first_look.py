"""The first look at a command line's words, beside the whole reading of a configuration."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from generate import settings_file

from samtune.cli import settings_index
from samtune.cli.completion import OF_A_COMPARISON
from samtune.cli.first_look import look
from samtune.cli.settings_index import setting_names
from samtune.compare.plan import OF_COMPARISON
from samtune.data.layouts.base import find
from samtune.errors import InputError
from samtune.model.packages import REGISTRIES
from samtune.runs.config import RunConfig
from samtune.runs.meanings import kind_of_setting
from samtune.runs.trees import leaves
from samtune.runs.words import from_words, recipes

WRONG = """
nowhere | data.root=nowhere | data.root=/dev/null/x | data.root=~/no/such/folder name=3 | lr=3
x.y=3
train=4 | adapter=none data=3 | train.lrr=1e-4 | train.lr=fast | train.lr=-1 | train.lr=nan
train.lr=true
train.steps=10 | train.batch_size=0 | train.batch_size=2.5 | train.cosine=linear
train.trackers=[1,2,{}] | train.average=2 | train.precision=fp8 | train.accumulate=[1]
data.masks=colour | data.window=3 | data.window=[1,2,3] | data.colors={road:[1,2]}
data.augment=flip
data.split=none | data.shots=0 | data.min_share=2 | data.min_share=1e-3 data.min_area_fraction=0.1
data.corners=black | data.redraw=often | data.rotate=200 | data.bands=[a]
input.size=tall | input.resize=bigger | input.preset=samme | input.tiles=3 | input.mean=[1,2]
eval.metrics=[{}] | eval.boundary_ratio=0 | prompts.points=0 | prompts.max_objects=many
prompts.box_scale=0
everything.fit=best | watershed.foreground=2 | base.any=maybe | base.weight=a.pth | model=lora
method=lora
seed=-1 | seed=abc | strength=2 | preset=9gb | resume_changed=perhaps
adapter.name=lorra | adapter=lorra | adapter.rank=x | adapter.rank=0 | adapter.ranks=3
adapter={rank:3
adapter=conv_lora adapter.experts=2 adapter.top_k=3 | decoder.name=tune
decoder=hq decoder.fuse=no
demo train.lr=fast | resume=true train.lr=fast | seed=1: 2 | data.root=[ | data.intensity=log
"""
RIGHT = """
. | data.root=. adapter=lora adapter.rank=8 | adapter=lora+ssf | adapter=my.module:Method
adapter.rank=0 demo
data.layout=coco data.root=nowhere | data.masks=*_mask.png | resume=nowhere | train.keep=auto
data.name=mine
x=3 shots=all | adapter={} | adapter={?} | adapter.name=[1,2,{}]
data.min_share=0.1 | eval.metrics=iou | train.metric=min(iou@box,iou@point)
trust=a,b
adapter=conv_lora adapter.experts=8 adapter.top_k=5 | input.size=[256,512] | data.redraw=false
data.colors=a.txt
"""


def split(lines: str) -> list[list[str]]:
    cases = [case.strip() for line in lines.strip().splitlines() for case in line.split(" | ")]
    return [case.split(" ") if "=[" not in case else [case] for case in cases]


def whole(words: list[str]) -> None:
    """What a training does with its words until the folder has been looked at."""
    config = from_words(words)
    find(config.data)


def said(function, words: list[str]) -> str:
    with pytest.raises(InputError) as refused:
        function(words)
    return str(refused.value)


def test_what_it_refuses_is_refused_in_the_same_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in split(WRONG):
        assert said(look, words) == said(whole, words)


def test_what_may_be_right_is_left_to_the_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in split(RIGHT):
        look(words, others=["x", "shots"])


def test_it_takes_the_settings_of_every_recipe_and_every_form():
    for tree in recipes().values():
        rows = leaves({key: value for key, value in tree.items() if key != "recipe"})
        look([f"{key}={json.dumps(value)}" for key, value in rows.items() if value is not None])
    for kind, registry in REGISTRIES.items():
        for name in registry:
            for options in ({}, *registry.forms(name).values()):
                words = [f"{kind}.{key}={json.dumps(value)}" for key, value in options.items()]
                look([f"{kind}={name}", *words])


def test_words_are_read_alike():
    for key in [*leaves(RunConfig().tree()), "adapter.rank", "decoder.name", "no.such", "adapter"]:
        assert setting_names().kind(key) == kind_of_setting(key), key


def test_the_settings_that_ship_are_those_of_today():
    shipped = Path(settings_index.__file__).with_name(settings_index.FILE)
    assert shipped.read_text("utf-8") == settings_file(), "run python docs/generate.py"
    assert {word.rstrip("=") for word in OF_A_COMPARISON} == {*OF_COMPARISON}


@pytest.mark.slow
def test_a_wrong_word_is_refused_without_torch(tmp_path):
    code = """
import sys
from samtune.cli.main import main
for words in (["train", "x"], ["train", ".", "train.lr=x"], ["compare", ".", "lr=3"],
              ["eval", "a", "seed=x"], ["plan", "adapter.name=lora", "train.lr=x"],
              ["train", "data.root=y"], ["data", "check", ".", "y=1"], ["train", "--lr", "3"]):
    try:
        main(words)
    except SystemExit as end:
        assert end.code == 2, words
    assert not {"torch", "numpy", "cv2"} & {*sys.modules}, words
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert len(run.stderr.splitlines()) == 8
