"""An option's kind, choices and range stand in its type, and are checked alike at both doors."""

import inspect
import math
import pickle
import re
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal, get_type_hints

import numpy
import pytest

from samtune.adapters import ADAPTERS
from samtune.cli.catalogue import option_rows, options
from samtune.data.config import DataConfig
from samtune.decoders import DECODERS
from samtune.errors import InputError
from samtune.geometry import InputPolicy
from samtune.metrics.config import EvalConfig
from samtune.options import Count, Fraction, Range, Rate, check_values, ranges, validated
from samtune.runs.config import RunConfig, resolve
from samtune.runs.words import from_words
from samtune.training.schedule import FitConfig


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, Range(at_least=8, note=" pixels")] = 8


@dataclass(frozen=True)
class Settings:
    count: Count | None = None
    top: Annotated[int, Range(at_least=1, at_most="count")] = 1
    rate: Rate = 0.0
    part: Fraction = 0.5
    weight: Annotated[float, Range(above=0, at_most=1)] = 1.0
    mode: Literal["fast", "slow"] = "fast"
    blocks: tuple[int, ...] | str = "all"
    inner: Inner = field(default_factory=Inner)
    pair: (
        tuple[Count, Annotated[float, Range(at_least=0, below=1, remedy="choose such as [8,0.5]")]]
        | None
    ) = None
    sizes: int | tuple[int, int] | None = None
    limit: Count | Literal["auto"] = "auto"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"count": 0}, "a.count=0: must be at least 1"),
        ({"count": "many"}, "a.count=many: must be a whole number"),
        ({"count": 2, "top": 3}, "a.top=3: must be 1 to count (2)"),
        ({"rate": 1}, "a.rate=1.0: must be 0 to below 1"),
        ({"rate": math.nan}, "a.rate=nan: must be 0 to below 1"),
        ({"part": -0.1}, "a.part=-0.1: must be 0 to 1"),
        ({"weight": 0}, "a.weight=0.0: must be above 0, up to 1"),
        ({"mode": "last"}, "a.mode=last: must be one of fast, slow"),
        ({"mode": "slwo"}, "a.mode=slwo: must be one of fast, slow; did you mean 'slow'?"),
        ({"inner": {"size": 4}}, "a.inner.size=4: must be at least 8 pixels"),
        ({"inner": 4}, "a.inner=4: must be a mapping of settings"),
        ({"count": True}, "a.count=true: must be a whole number"),
        ({"inner": {"size": True}}, "a.inner.size=true: must be a whole number"),
        ({"blocks": [0, True]}, "a.blocks=[0, True]: must be a list of whole numbers or a word"),
        ({"pair": [2, 1]}, "a.pair=[2, 1.0]: 1.0 must be 0 to below 1; choose such as [8,0.5]"),
        ({"pair": [0, 0.5]}, "a.pair=[0, 0.5]: 0 must be at least 1"),
        ({"pair": 1}, "a.pair=1: must be a list of a whole number and a number"),
        ({"limit": "aut"}, "a.limit=aut: must be a whole number or auto; did you mean 'auto'?"),
        ({"limit": 0}, "a.limit=0: must be at least 1"),
        ({"sizes": "x"}, "a.sizes=x: must be a whole number or a list of 2 whole numbers"),
    ],
)
def test_a_value_that_its_type_does_not_allow_is_refused_with_the_rule(refused, values, line):
    assert refused("", validated, Settings, "a", values).startswith(line)


def test_values_get_the_kinds_of_their_fields():
    values = {"count": "3", "top": 3, "rate": 0, "blocks": [0, -1], "inner": {"size": 9}}
    assert validated(Settings, "a", values) == Settings(3, 3, 0.0, blocks=(0, -1), inner=Inner(9))
    assert resolve([{"strength": "box:0.5"}]).strength == "box:0.5"  # a range, or words


def test_no_bound_is_asked_of_what_is_not_set(refused):
    check_values(Settings(count=None, top=99), "")
    refused("top=99: must be 1 to count (98)", check_values, Settings(count=98, top=99), "")


def test_what_is_made_in_python_is_held_to_the_same_types(refused):
    check_values(Settings(count=numpy.int64(3), sizes=(2, 3)), "a")
    for wrong, line in (
        ({"mode": "last"}, "a.mode=last: must be one of fast, slow"),
        ({"count": True}, "a.count=true: must be a whole number"),
        ({"count": "3"}, "a.count=3: must be a whole number"),
        ({"pair": (1, 2.0)}, "a.pair=[1, 2.0]: 2.0 must be 0 to below 1"),
        ({"weight": math.inf}, "a.weight=inf: must be above 0, up to 1"),
        ({"inner": Inner(4)}, "a.inner.size=4: must be at least 8 pixels"),
    ):
        assert refused("", check_values, Settings(**wrong), "a").startswith(line)
    refused("overlap=5.0: must be 0 to 0.9", InputPolicy, (8, 8), overlap=5)
    refused("tiles=tile: must be one of", InputPolicy, (8, 8), tiles="tile")
    refused("size=[0, 8]: 0 must be at least 1", InputPolicy, (0, 8))


@pytest.mark.parametrize(
    ("group", "values", "line"),
    [
        ("train", {"lr": -1}, "lr=-1.0: must be above 0"),
        ("train", {"batch_size": "many"}, "batch_size=many: must be auto or a whole number"),
        ("train", {"accumulate": True}, "accumulate=True: must be a whole number"),
        (
            "train",
            {"checkpointing": "perhaps"},
            "checkpointing=perhaps: must be gelu or True or False",
        ),
        ("train", {"cosine": "stop"}, "cosine=stop: must be one of"),
        ("train", {"micro_batch": 8}, "micro_batch=8: is more than batch_size=4"),
        ("train", {"loss": "dise"}, "loss 'dise' is unknown; known are"),
        ("train", {"keep": "bix"}, "keep=bix: no such prompt"),
        ("data", {"redraw": "no way"}, "redraw=no way: must be one of False, published, True"),
        ("data", {"corners": "class_0"}, "corners=class_0: corners only become empty with rotate"),
        ("data", {"range": (0, 1)}, "range=[0.0, 1.0]: needs intensity=fixed"),
        ("data", {"class_names": ["a"], "classes": 2}, "class_names: 1 names for 2 classes"),
        ("data", {"invert": True, "masks": "instance"}, "invert=True: masks=instance has no"),
        ("prompts", {"eval": ["box", "bix"]}, "eval=bix: no such prompt"),
        ("eval", {"metrics": ["ious"]}, "metrics=ious: no such metric"),
        ("input", {"first_size": (8, 8), "tiles": "crop"}, "first_size=[8, 8]: tiles=crop cuts"),
        ("base", {"download": 3}, "download=3: must be True or False"),
        ("", {"seed": -1}, "seed=-1: must be 0 to below"),
    ],
)
def test_settings_that_are_wrong_do_not_exist_and_are_named_as_they_were_typed(
    refused, group, values, line
):
    schema = RunConfig if not group else get_type_hints(RunConfig)[group]
    said = refused("", schema, **values)
    assert said.startswith(line)
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
    in_words = refused("", resolve, [{group: plain} if group else plain])
    names = "|".join(row.name for row in fields(schema))
    alike = re.sub(rf"\b{group or 'none'}\.({names})\b", r"\1", in_words)
    assert re.sub(r"\b(true|false)\b", lambda word: word[0].capitalize(), alike) == said
    assert group in in_words.split("=")[0] or "loss" in values


@pytest.mark.parametrize("registry", [ADAPTERS, DECODERS])
def test_options_of_a_method_that_are_wrong_do_not_exist(refused, registry):
    for name in registry:
        config = registry[name].Config
        for option, limits in ranges(config).items():
            wrong = [v for v in (-1.0, 0.0, 1e9) if not limits[0].holds(v, vars(config()))]
            refused(f"{option}=", config, **{option: wrong[0]})


def test_what_is_made_in_python_gets_the_kinds_of_its_fields(tmp_path):
    made = DataConfig(root=tmp_path, class_names=["a", "b"], crop=[0.5, 1], shots=numpy.int64(3))
    assert (made.root, made.class_names, made.crop) == (str(tmp_path), ("a", "b"), (0.5, 1.0))
    assert type(made.shots) is int
    assert replace(made, root="x").root == "x"
    with pytest.raises(InputError, match=r"^shots="):
        replace(made, shots="few")
    assert pickle.loads(pickle.dumps(made)) == made


def test_command_line_and_python_refuse_in_the_same_words(refused):
    line = refused("adapter.rank=0", from_words, ["adapter.rank=0"])
    assert refused(line, ADAPTERS.config, "lora", {"rank": 0}) == line


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("data.augment=false", "must be one of flips, hflip, kyyle, mirrors, none, standard"),
        ("train.last_batch=true", "must be one of drop, fill, short"),
        ("train.cosine=null", "must be one of epoch, kyyle, step"),
        ("data.redraw=2", "must be one of false, published, true"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_the_names_that_there_are(refused, word, rule):
    refused(f"{word}: {rule}", from_words, [word])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, False) for word in ("no", "off", "false", False)),
        *((word, True) for word in ("yes", "on", "true", True)),
        ("published", "published"),
    ],
)
def test_a_switch_that_has_names_is_read_from_quoted_words_too(text, value):
    redraw = resolve([{"data": {"redraw": text, "augment": "mirrors"}}]).data.redraw
    assert redraw == value and type(redraw) is type(value)


def test_options_of_one_in_a_stack_are_named_in_full(refused):
    name = "lora+adaptformer"
    refused("adapter.lora.rank=0: must be", ADAPTERS.config, name, {"lora": {"rank": 0}})
    refused("adapter.lora.ranks: lora does", ADAPTERS.config, name, {"lora": {"ranks": 1}})
    refused("adapter.lora=5: ", ADAPTERS.config, name, {"lora": 5})


def test_what_lists_an_option_tells_its_range():
    assert {name: list(map(str, limits)) for name, limits in ranges(Settings).items()} == {
        "count": ["at least 1"],
        "top": ["1 to count"],
        "rate": ["0 to below 1"],
        "part": ["0 to 1"],
        "weight": ["above 0, up to 1"],
        "pair": ["at least 1", "0 to below 1"],
        "limit": ["at least 1"],
    }
    config = ADAPTERS["conv_lora"].Config
    rows = {name: meaning for name, _, meaning in option_rows(options(config))}
    assert rows["top_k"].endswith("uses. (1 to experts)") and rows["alpha"].endswith("rank.")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_of_methods_are_finite(value):
    with pytest.raises(InputError, match=r"adapter\.alpha=(nan|inf): must be a finite number"):
        ADAPTERS.config("lora", {"alpha": value})


def test_in_python_a_name_that_is_no_setting_is_refused_with_the_one_that_is_meant(refused):
    said = ["learning_rate=0.1", "FitConfig has no such setting", "did you mean 'lr'?"]
    refused(said, FitConfig, learning_rate=0.1)
    refused(["size", "InputPolicy"], InputPolicy, image_size=64)
    assert InputPolicy(64) == InputPolicy((64, 64))


def test_in_python_one_word_stands_for_a_list_of_words(refused):
    assert EvalConfig(metrics="iou, hd95").metrics == ("iou", "hd95")
    assert FitConfig(keep="box,point") is not None
    refused(["trackers=tensorbord", "'tensorboard'"], FitConfig, trackers="tensorbord")


def test_help_shows_each_setting_with_its_meaning():
    text = inspect.getdoc(FitConfig)
    assert text.startswith("The settings of a training.")
    assert all(f"\n    {row.name}: " in text for row in fields(FitConfig))
    assert "Passes over the training images" in text
