"""Parts of other packages are found by name, loaded when asked for, and never by a file alone."""

import json
import sys
from unittest import mock

import pytest
import tiny
import torch
from plugins import declare, fresh_process, install

import samtune
from samtune.adapters import ADAPTERS, Adapter
from samtune.cli.catalogue import describe_method, facts, list_plugins, plugin_rows
from samtune.compare.plan import _method
from samtune.data.config import DataConfig
from samtune.data.layouts import find
from samtune.decoders import DECODERS
from samtune.errors import InputError
from samtune.losses import Loss
from samtune.metrics import MEASURES, ImageResult, Suite
from samtune.metrics.config import EvalConfig
from samtune.model.checkpoint import read_header
from samtune.runs.config import resolve
from samtune.runs.source import Source
from samtune.runs.words import layers
from samtune.sam.spec import SPECS
from samtune.training.schedule import FitConfig

MARKED = "raise SystemExit('imported')\n"
"""A module that nobody may import."""
PLACED = """
from dataclasses import replace
import samtune_gain
class Own(samtune_gain.Gain):
    '''A gain.'''
class OwnMetric(samtune_gain.Missed):
    '''The fraction that is missed.'''
def own_loss(logits, targets, valid):
    return (logits.sigmoid() - targets).square().mean((1, 2))
OWN_LAYOUT = replace(samtune_gain.SIDE_BY_SIDE, name="own_layout")
"""


@pytest.fixture
def site(tmp_path):
    """A folder of installed packages with the plug-in, in a process that knows it."""
    site = install(tmp_path / "site")
    (site / "placed.py").write_text(PLACED)
    with mock.patch.dict(SPECS, {"tiny": tiny.TINY}), fresh_process(site):
        yield site


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tuned(**parts):
    """A model off its start, so that its tensors say something."""
    model = samtune.FineTuned(tiny.base(), **parts)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.copy_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
            )
    return model.eval()


def answers(model):
    with torch.no_grad():
        return model(tiny.pixels(), tiny.boxes([0, 1])).logits


def test_what_packages_bring_is_listed_from_their_metadata_alone(site):
    rows = {(row["kind"], row["name"]): row for row in list_plugins()}
    kinds = {"adapter": "gain", "decoder": "shifted", "loss": "squared", "metric": "missed"}
    for kind, name in {**kinds, "layout": "side_by_side"}.items():
        row = rows[kind, name]
        assert (row["package"], row["version"], row["remark"]) == ("samtune-gain", "0.3", "")
    assert ("gain", "adapter", "samtune-gain 0.3", "samtune_gain:Gain") in plugin_rows(
        [*rows.values()]
    )
    assert "gain" in ADAPTERS and "gain" not in list(ADAPTERS)
    assert "missed" in MEASURES and "missed" not in list(MEASURES)
    assert "gains" not in ADAPTERS
    assert "samtune_gain" not in sys.modules
    assert "did you mean 'gain'" in refusal(lambda: ADAPTERS["gains"])
    row = describe_method("gain")
    assert row["options"][0]["range"] == "at least 1" and row["forms"] == {"whole": {"groups": 1}}
    assert "of another package: samtune-gain 0.3, samtune_gain:Gain" in facts(row)
    assert describe_method("shifted")["kind"] == "decoder"
    assert describe_method("placed:Own")["name"] == "placed:Own"
    assert "adapter.groups=0: must be at least 1" in refusal(ADAPTERS.config, "gain", {"groups": 0})
    assert "its options are groups" in refusal(ADAPTERS.config, "gain", {"group": 2})


def test_a_checkpoint_comes_back_and_says_which_package_it_needs(site, tmp_path):
    model = tuned(adapter="lora+gain", decoder="shifted", adapter_options={"gain": {"groups": 2}})
    path = samtune.save(model, tmp_path / "a.safetensors")
    assert read_header(path)["packages"] == [
        {"part": part, "name": name, "class": place, "package": "samtune-gain", "version": "0.3"}
        for part, name, place in [
            ("adapter", "gain", "samtune_gain:Gain"),
            ("decoder", "shifted", "samtune_gain:Shifted"),
        ]
    ]
    assert "packages" not in read_header(samtune.save(tuned(), tmp_path / "b.safetensors"))
    with fresh_process(site):
        again = samtune.load(path, tiny.base())
        assert torch.equal(answers(again), answers(model))
        assert again.adapter_options["gain"] == {"groups": 2}
        samtune.load(path, tiny.base(), strength=0.5)
    (site / "samtune_gain-0.3.dist-info" / "entry_points.txt").unlink()
    with fresh_process(site / "gone"):
        line = refusal(samtune.load, path, tiny.base())
        assert "needs the package samtune-gain 0.3 for its adapter gain" in line
        assert "pip install samtune-gain" in line
    declare(site / "other", "other-gain", "1", **{"samtune.adapters": {"gain": "m:G"}})
    with fresh_process(site / "other"):
        line = refusal(samtune.load, path, tiny.base())
        assert "of the package samtune-gain 0.3, but other-gain 1 is installed" in line


def test_a_class_is_taken_and_given_back(site, tmp_path):
    with fresh_process(site):
        from placed import Own

        model = tuned(adapter=Own, adapter_options=Own.Config(groups=2))
        path = samtune.save(model, tmp_path / "a.safetensors")
        header = read_header(path)
        assert header["adapter"] == {"name": "placed:Own", "groups": 2}
        assert header["packages"] == [
            {"part": "adapter", "name": "placed:Own", "class": "placed:Own"}
        ]
        assert torch.equal(answers(samtune.load(path, tiny.base())), answers(model))
    with fresh_process(site):
        line = refusal(samtune.load, path, tiny.base())
        assert "needs the adapter placed:Own, which is code outside samtune" in line
        assert "trust=placed" in line and "placed" not in sys.modules
        again = samtune.load(path, tiny.base(), trust="placed")
        assert torch.equal(answers(again), answers(model))

    class Local(Adapter):
        """Nothing."""

        def __init__(self, sam, config):
            super().__init__()

    path = samtune.save(samtune.FineTuned(tiny.base(), Local, "tuned"), tmp_path / "b.safetensors")
    with fresh_process(site):
        assert "samtune.load(..., adapter=MyClass)" in refusal(samtune.load, path, tiny.base())
        assert isinstance(samtune.load(path, tiny.base(), adapter=Local).adapter, Local)
    wrong = refusal(samtune.FineTuned, tiny.base(), torch.nn.Linear)
    assert "is no subclass of samtune.adapters.Adapter" in wrong


def test_a_file_alone_imports_nothing(site, tmp_path):
    (site / "marked.py").write_text(MARKED)
    path = samtune.save(tuned(), tmp_path / "a.safetensors")
    for name in ("marked:Adapter", "os:system", "lora+marked:Adapter", "a+b:c", "marked:f:g"):
        header = {**read_header(path), "adapter": {"name": name}}
        with mock.patch("samtune.model.checkpoint.read_header", lambda path, h=header: h):
            refusal(samtune.load, path, tiny.base())
    for tree in (
        {"adapter": {"name": "marked:A"}},
        {"decoder": {"name": "marked:A"}},
        {"train": {"loss": "bce + marked:a"}},
        {"train": {"metric": "marked:a"}},
        {"eval": {"metrics": ["marked:a"]}},
        {"data": {"root": str(tmp_path), "layout": "marked:a"}},
    ):
        # what a file says of trust counts for nothing
        assert "a file names marked:" in refusal(
            lambda tree=tree: find(resolve([{**tree, "trust": ["marked"]}]).data)
        )
    samtune.trust("os", "marked")
    for name in ("os:system", "os:PathLike"):
        assert "is no subclass of" in refusal(lambda name=name: ADAPTERS[name])
    assert "cannot be imported (SystemExit: imported)" in refusal(lambda: ADAPTERS["marked:A"])
    assert "did you mean 'lora'" in refusal(lambda: [samtune.trust("lorra:x"), ADAPTERS["lorra:x"]])
    assert "trust=my_pkg" in refusal(samtune.trust, "my-pkg")


def test_the_words_of_a_command_are_trusted(site, tmp_path):
    (tmp_path / "own.yaml").write_text("adapter: {name: 'lora+placed:Own', Own: {groups: 2}}\n")
    for words in (
        ["adapter.name=placed:Own", "adapter.groups=2"],
        ["adapter.name=lora+placed:Own", "adapter.Own.groups=2"],
        [str(tmp_path / "own.yaml")],
    ):
        with fresh_process(site):
            tree = resolve(layers(words)).adapter
            assert tree.get("Own", tree)["groups"] == 2
    with fresh_process(site):
        path = samtune.save(tuned(adapter="placed:Own"), tmp_path / "a.safetensors")
    for words in ([], ["trust=placed"], ["adapter.name=placed:Own"]):
        with fresh_process(site):
            if words:
                assert Source(str(path)).configure(words).adapter["name"] == "placed:Own"
            else:
                assert "add trust=placed" in refusal(Source(str(path)).configure, words)


def test_what_a_training_alone_needed_is_not_needed_afterwards(site, tmp_path):
    settings = {
        "train": {"loss": "squared", "metric": "missed"},
        "eval": {"metrics": ["iou", "missed"]},
        "data": {"layout": "side_by_side"},
    }
    Loss.parse("squared"), MEASURES["missed"], find
    path = samtune.save(tuned(), tmp_path / "a.safetensors", config=settings)
    named = [(row["part"], row["name"]) for row in read_header(path)["packages"]]
    assert named == [("loss", "squared"), ("metric", "missed")]
    (site / "samtune_gain-0.3.dist-info" / "entry_points.txt").unlink()
    (site / "samtune_gain-0.3.dist-info" / "METADATA").unlink()
    with fresh_process(site / "gone"):
        config = Source(str(path)).configure([], measures=False)
        assert config.train.loss == "bce + dice" and config.train.metric == "iou"
        line = refusal(Source(str(path)).configure, [])
        assert "needs the package samtune-gain 0.3" in line and "pip install samtune-gain" in line


def test_losses_metrics_and_layouts_do_their_work(site, tmp_path):
    loss = Loss.parse("0.5*squared + samtune_gain:squared + dice")
    assert str(loss) == "0.5*squared + samtune_gain:squared + dice" and not loss.of_classes
    model = samtune.FineTuned(tiny.base())
    batch = tiny.batch([0, 1])
    values = {
        name: float(Loss.parse(name)(model(batch.pixels, batch.prompts), batch))
        for name in ("squared", "dice")
    }
    whole = float(loss(model(batch.pixels, batch.prompts), batch))
    assert whole == pytest.approx(1.5 * values["squared"] + values["dice"])
    suite = Suite(EvalConfig(("missed",)))
    target = torch.zeros(1, 4, 4, dtype=torch.bool)
    target[:, :2] = True
    for index, predicted in enumerate((target, target & False)):
        suite.update(ImageResult(predicted, target, index=index))
    suite.update(ImageResult(target, target & False, index=2))  # left out
    assert suite.compute() == {"missed": 0.5}
    assert "is undefined for maps of classes" in refusal(Suite, EvalConfig(("missed",)), maps=True)
    pairs = tmp_path / "data" / "pairs"
    pairs.mkdir(parents=True)
    for name in ("a_image.png", "a_mask.png"):
        (pairs / name).touch()
    (record,) = find(DataConfig(root=str(tmp_path / "data"), layout="side_by_side"))[None]
    assert record.mask == pairs / "a_mask.png"


def test_in_python_places_and_classes_are_taken(site, tmp_path):
    for metrics in ("iou,placed:OwnMetric", ["iou", "placed:OwnMetric"]):
        with fresh_process(site):
            assert EvalConfig(metrics).metrics == ("iou", "placed:OwnMetric")
    with fresh_process(site):
        config = FitConfig(loss="dice + placed:own_loss", metric="placed:OwnMetric")
        assert str(Loss.parse(config.loss)) == "dice + placed:own_loss"
    with fresh_process(site):
        path = samtune.save(tuned(adapter="placed:Own"), tmp_path / "a.safetensors")
    with fresh_process(site):
        loaded = samtune.load(path, tiny.base(), adapter="placed:Own")
        assert loaded.names["adapter"] == "placed:Own"
        line = refusal(samtune.load, path, tiny.base(), adapter="lora")
        assert "the file has the adapter placed:Own" in line

    from placed import OWN_LAYOUT, OwnMetric, own_loss

    assert EvalConfig(("iou", OwnMetric)).metrics == ("iou", "placed:OwnMetric")
    assert EvalConfig(OwnMetric).metrics == ("placed:OwnMetric",)
    assert FitConfig(metric=OwnMetric).metric == "placed:OwnMetric"
    assert "samtune.fit(model, data, loss=FUNCTION)" in refusal(FitConfig, loss=own_loss)
    assert "is no subclass of samtune.metrics.ImageMetric" in refusal(EvalConfig, (str,))
    assert refusal(FitConfig, metric="placed:Nothing").startswith("metric=placed:Nothing: ")
    pairs = tmp_path / "data" / "pairs"
    pairs.mkdir(parents=True)
    for name in "abcd":
        for end in ("image", "mask"):
            (pairs / f"{name}_{end}.png").touch()
    for layout, name in ((OWN_LAYOUT, "own_layout"), ("placed:OWN_LAYOUT", "placed:OWN_LAYOUT")):
        with fresh_process(site):
            data = samtune.open_data(tmp_path / "data", layout=layout, masks="binary")
            assert sum(data.counts.values()) == 4 and data.config.layout == name


def test_comparisons_take_names_places_and_forms(site):
    samtune.trust("placed", "samtune_gain")
    assert _method("gain:whole")["adapter"] == {"name": "gain", "groups": 1}
    assert _method("placed:Own")["adapter"] == {"name": "placed:Own"}
    place = _method("samtune_gain:Gain:whole")
    assert place["adapter"] == {"name": "samtune_gain:Gain", "groups": 1}
    assert _method("samtune_gain:Shifted")["decoder"] == {"name": "samtune_gain:Shifted"}
    assert "is neither decoder nor adapter" in refusal(_method, "samtune_gain:squared")
    assert "did you mean 'vpt'" in refusal(lambda: [samtune.trust("vptt"), _method("vptt:shallow")])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nowhere", "plug-in of bad 1 cannot be imported (ModuleNotFoundError: No module"),
        ("1 / 0", "plug-in of bad 1 cannot be imported (ZeroDivisionError"),
        ("raise SystemExit(3)", "plug-in of bad 1 cannot be imported (SystemExit: 3)"),
        ("Other = 1", "bad_plugin of bad 1 has no A"),
        ("class A: pass", "bad_plugin:A of bad 1 is no subclass of samtune.adapters.Adapter"),
        ("A = 3", "bad_plugin:A of bad 1 is no subclass of samtune.adapters.Adapter"),
        (
            "from samtune.adapters import Adapter\nclass A(Adapter):\n    uses = ('mpl',)",
            "bad_plugin:A of bad 1 uses 'mpl'; the words are",
        ),
        (
            "from samtune.adapters import Adapter\nclass A(Adapter):\n    class Config: pass\n"
            "    Config.__dataclass_fields__ = None\n    del Config.__dataclass_fields__",
            "bad_plugin:A of bad 1 has a Config that is no dataclass",
        ),
    ],
)
def test_a_broken_package_is_named_in_one_line(tmp_path, code, words):
    declare(tmp_path, "bad", "1", **{"samtune.adapters": {"bad": "bad_plugin:A"}})
    (tmp_path / "bad_plugin.py").write_text(code + "\n")
    with fresh_process(tmp_path):
        line = refusal(lambda: ADAPTERS["bad"])
        assert line.startswith("adapter.name=bad: ") and words in line
        assert ADAPTERS["lora"]


def test_names_that_are_taken(site, tmp_path):
    declare(
        tmp_path, "twin", "2",
        **{"samtune.adapters": {"lora": "t:A", "gain": "t:G", "odd": "nonsense"},
           "samtune.decoders": {"tuned": "t:D"}},
    )  # fmt: skip
    with fresh_process(site, tmp_path):
        assert ADAPTERS["lora"].__module__ == "samtune.adapters.lora"
        assert DECODERS["tuned"].__module__ == "samtune.decoders.tuned"
        line = refusal(lambda: ADAPTERS["gain"])
        assert "samtune-gain 0.3 and twin 2 both bring this name" in line
        assert ADAPTERS["samtune_gain:Gain"].__name__ == "Gain"  # its place tells them apart
        assert "twin 2 declares it as 'nonsense'" in refusal(lambda: ADAPTERS["odd"])
        remarks = {(row["package"], row["name"]): row["remark"] for row in list_plugins()}
        assert "lora is samtune's own adapter" in remarks["twin", "lora"]
        assert "several packages" in remarks["samtune-gain", "gain"]
        assert json.dumps(list_plugins())
