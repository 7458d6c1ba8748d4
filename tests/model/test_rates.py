"""The learning rate that a training has if nobody sets one."""

import pytest
from commands import settings

from samtune.adapters import ADAPTERS, Adapter
from samtune.decoders import DECODERS, Decoder
from samtune.model.finetuned import FineTuned
from samtune.model.rates import USUAL, rate_of
from samtune.prompts import PromptModes
from samtune.runs.plan import plan_training
from samtune.runs.words import from_words
from samtune.training.schedule import FitConfig, learning_rate


def declaring(kind, rate):
    return type("Declaring", (kind,), {"learning_rate": rate, "name": f"at {rate}"})


def test_the_smallest_rate_that_a_part_declares_holds():
    careful, bold, silent = (declaring(Adapter, rate) for rate in (1e-5, 1e-2, None))
    frozen, own = DECODERS["frozen"], declaring(Decoder, 1e-3)
    assert rate_of(silent, frozen) == USUAL and USUAL.value == 3e-4
    assert rate_of(silent, own) == (1e-3, "at 0.001")
    assert rate_of(careful, own) == (1e-5, "at 1e-05")
    assert rate_of(bold, own).value == 1e-3
    assert rate_of(bold, frozen).value == 1e-2, "nothing but the adapter is trained"
    assert rate_of(bold, DECODERS["tuned"]).value == 3e-4, "a copy of SAM's would suffer"


def test_without_prompts_a_decoder_may_declare_another_rate():
    silent, careful, tuned = ADAPTERS["lora"], declaring(Adapter, 1e-5), DECODERS["tuned"]
    for modes, rate in (("none", 1e-3), ("box", 3e-4), ("none,box", 3e-4)):
        assert rate_of(silent, tuned, PromptModes.of(modes)).value == rate
        assert from_words([f"prompts.train={modes}"]).train.lr == rate
    assert rate_of(careful, tuned, PromptModes.of("none")).value == 1e-5
    assert rate_of(silent, DECODERS["frozen"], PromptModes.of("none")) == USUAL


def test_a_stack_bears_what_each_of_its_adapters_bears(sam, monkeypatch):
    monkeypatch.setattr(ADAPTERS, "_joint", {})  # what other tests have joined is kept there
    monkeypatch.setattr(ADAPTERS["lora"], "learning_rate", 5e-4)
    monkeypatch.setattr(ADAPTERS["bitfit"], "learning_rate", 2e-4)
    for decoder, rate in (("frozen", 2e-4), ("hq", 2e-4), ("tuned", 2e-4)):
        assert rate_of(ADAPTERS["lora+bitfit"], DECODERS[decoder]).value == rate
        assert FineTuned(sam, "bitfit+lora", decoder).learning_rate == rate
    assert FineTuned(sam, "lora+vpt", "hq").learning_rate == 5e-4


def test_a_set_rate_wins_and_auto_is_the_methods():
    words = ["adapter.name=none", "decoder.name=hq"]
    own = DECODERS["hq"].learning_rate
    assert own != 3e-4
    for more, rate in ([], own), (["train.lr=auto"], own), (["train.lr=2e-4"], 2e-4):
        config = from_words([*words, *more])
        assert config.train.lr == rate
        assert ("lr" in config.differing().get("train", {})) is (rate != own)
    assert from_words([]).train.lr == 3e-4
    assert FitConfig().with_rate(own).peak_lr == own and FitConfig().peak_lr == 3e-4
    assert FitConfig(lr=2e-4).with_rate(own).lr == 2e-4
    assert learning_rate(FitConfig(warmup=0).with_rate(own), 1, 10) == pytest.approx(own)


def test_a_training_says_which_rate_it_has_if_that_is_its_methods_own(pairs, tiny_weights):
    words = [*settings(pairs, tiny_weights), "adapter.name=none"]
    line = "train.lr=0.001: the default with hq"
    assert line in plan_training(from_words([*words, "decoder.name=hq"])).lines
    others = (["decoder.name=hq", "train.lr=2e-4"], ["decoder.name=tuned"])
    for more in others:
        lines = plan_training(from_words([*words, *more])).lines
        assert not any("train.lr" in one for one in lines)
