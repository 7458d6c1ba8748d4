"""What a training takes: counted beside what the same step does, and the settings that fit."""

import gc
import json
from dataclasses import replace
from unittest import mock

import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode

from samtune.planning import forecast as of_forecast
from samtune.planning.counting import count_step
from samtune.planning.forecast import Forecast, way_to_fit
from samtune.planning.load import Load
from samtune.planning.presets import configuration
from samtune.planning.trial import Trial
from samtune.runs.words import from_words
from samtune.sam.spec import SPECS

ONE_BLOCK = replace(tiny.TINY, depth=1, global_blocks=(0,))
"""Whose steps are counted: that takes the longer the more blocks there are."""
WORDS = ["base.name=tiny", "adapter.rank=2", "train.precision=fp32", "device=cpu"]


@pytest.fixture(scope="module")
def load():
    """Its counts are made once."""
    with mock.patch.dict(SPECS, {"tiny": ONE_BLOCK}):
        yield Load(from_words(WORDS), objects=2)


@pytest.mark.slow
def test_methods_whose_weights_are_drawn_within_bounds_are_counted(load):
    drawn = Load(from_words(["base.name=tiny", "adapter.name=sam_adapter", *WORDS[2:]]), objects=1)
    collects = []

    def objective():
        collects.append(gc.isenabled())
        return drawn.objective()

    before, batch = gc.isenabled(), drawn.batch(1)
    assert count_step(objective, batch, "fp32").flops > 0
    assert collects == [False] and gc.isenabled() == before, "torch crashes if it collects there"


def test_what_is_rehearsed_is_known_without_values(load, monkeypatch):
    made = []
    monkeypatch.setattr(
        Load, "model", lambda self, make=Load.model: made.append(make(self)) or made[0]
    )
    for strength, prompts in (("auto", 0), ("none", 2)):
        words = [*WORDS, "prompts.train=none", f"train.strength={strength}"]
        made.clear()
        assert Load(from_words(words), objects=2).prompts_to_keep == prompts
        assert all(tensor.is_meta for tensor in made[0].state_dict().values())


@pytest.mark.slow
def test_a_counted_step_is_the_step(load, monkeypatch):
    one, two = load.counts
    objective = load.objective().train()
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    model = objective.model
    parameters = [*model.sam.parameters(), *model.parameters()]
    weights = {p.untyped_storage().data_ptr() for p in parameters}
    with FlopCounterMode(display=False) as operations:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = objective(load.batch(1))
        loss.backward()
    assert one.flops == operations.get_total_flops() and two.flops == pytest.approx(2 * one.flops)
    assert sum(saved.values()) <= 1.02 * one.for_backward <= 1.3 * sum(saved.values())
    assert (
        one.peak > one.for_backward
        and two.for_images(one, 3).for_backward == 2 * two.for_backward - one.for_backward
    )
    assert one.weights == sum(
        t.untyped_storage().nbytes()
        for module in (model.sam, model)
        for t in (*module.parameters(), *module.buffers())
    )


@pytest.mark.slow
def test_a_forecast_is_calibrated_by_steps_and_says_what_fits(load, monkeypatch):
    counts = load.counts
    fixed = of_forecast.PROGRAM + counts[0].weights + 12 * load.model().trainable()
    peaks = {n: fixed + 2 * load.count(n).peak for n in (1, 4)}
    trials = [Trial(n, 1.0 * n, 0.5 * n, peaks[n]) for n in (1, 4)]
    monkeypatch.setattr(of_forecast, "run_trials", lambda load, images: trials)
    forecast = Forecast.of(load, timed=True)
    assert forecast.peak(4) == peaks[4] and forecast.seconds() == 4.0
    assert forecast.peak(8) == pytest.approx(fixed + 2 * load.count(8).peak)
    trained, whole = forecast.parameters
    model = load.model()
    assert trained == model.trainable()
    assert whole == trained + sum(p.numel() for p in model.sam.parameters())
    assert forecast.flops() == 4 * counts[0].flops

    assert way_to_fit(forecast, peaks[4] + 1).settings == {}
    smaller = way_to_fit(forecast, forecast.peak(2) + 1)
    assert smaller.peak <= forecast.peak(2) + 1
    assert smaller.settings in ({"train.micro_batch": 2}, {"train.precision": "bf16"},
                                {"train.precision": "bf16", "train.micro_batch": 2})  # fmt: skip
    assert way_to_fit(forecast, 1000) is None


def test_a_preset_is_below_all_other_words(tiny_registered, monkeypatch, refused):
    chosen = {"train.precision": "bf16", "train.micro_batch": 2}
    way = of_forecast.Way(chosen, 1000)
    rooms = []
    monkeypatch.setattr(
        "samtune.planning.presets.way_to_fit", lambda forecast, room: rooms.append(room) or way
    )
    config = configuration([*WORDS[:2], "device=cpu", "preset=12gb"])
    assert (config.train.precision, config.train.micro_batch) == ("bf16", 2)
    assert rooms == [pytest.approx(0.9 * 12e9)] and config.preset is None
    config = configuration([*WORDS, "preset=12gb", "train.micro_batch=1"])
    assert (config.train.precision, config.train.micro_batch) == ("fp32", 1)
    assert configuration([*WORDS[:2], "preset=cpu"]).device == "cpu"
    refused("preset=9gb: must be one of 8gb, 12gb", configuration, ["preset=9gb"])
    monkeypatch.setattr("samtune.planning.presets.way_to_fit", lambda forecast, room: None)
    refused("preset=8gb: lora on tiny does not fit", configuration, [*WORDS, "preset=8gb"])


def test_the_verb_answers_in_lines_and_json(samtune, monkeypatch, pairs):
    monkeypatch.setattr(Forecast, "of", staticmethod(lambda load, timed: Forecast(load)))
    monkeypatch.setenv("COLUMNS", "80")
    answer = samtune("plan", *WORDS, f"data.root={pairs}", "train.max_steps=7", "--quick", "--json")
    tree = json.loads(answer.out.splitlines()[-1])
    assert tree["steps"] == 7 and tree["images_per_step"] == 4
    assert tree["fits"]["8gb"]["settings"] == {} and tree["seconds_per_step"] is None
    assert tree["flops_per_step"] > 1e6 and tree["peak_bytes"] > tree["kept_bytes"]
    said = answer.err + answer.out
    assert "8-141 GB" in said and "parameters are trained" in said
    wrong = samtune("train", *WORDS, f"data.root={pairs}", "preset=7gb")
    assert wrong.code == 2 and "preset=7gb: must be one of" in wrong.err


def test_the_memory_of_this_machine_chooses_the_images_at_once(tiny_registered, monkeypatch):
    words = [*WORDS, "train.batch_size=auto"]
    monkeypatch.setattr(Forecast, "peak", lambda self, images: 10**9 * images)
    monkeypatch.setattr("samtune.planning.presets.free_memory", lambda device: 5 * 10**9)
    assert configuration(words).train.at_once == 4
    monkeypatch.setattr("samtune.planning.presets.free_memory", lambda device: 0)
    config = configuration([*words, "train.accumulate=2"])
    assert (config.train.whole_batch, config.train.at_once, config.train.accumulate) == (4, 1, 2)
