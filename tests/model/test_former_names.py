"""Files of earlier versions, in which some tensors had other names, load and answer as they did."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from steps import IMAGE

import samtune
from samtune.model.checkpoint import under_current_names
from samtune.model.finetuned import FineTuned
from samtune.training.optimiser import Optimisation
from samtune.training.state import read_state

SAMPLES = Path(__file__).parents[1] / "samples" / "names"
ANSWERS = json.loads((SAMPLES / "answers.json").read_text())


@pytest.mark.parametrize("name", ANSWERS)
@torch.no_grad()
def test_a_file_with_former_names_answers_as_it_did(sam, name):
    model = samtune.load(SAMPLES / f"{name}.safetensors", sam)
    masks = model(tiny.pixels(), tiny.boxes(IMAGE))
    logits = masks.logits.flatten()[:: masks.logits.numel() // 24][:24]
    torch.testing.assert_close(logits, torch.tensor(ANSWERS[name]["logits"]), rtol=0, atol=2e-4)
    iou = torch.tensor(ANSWERS[name]["iou"])
    torch.testing.assert_close(masks.iou.flatten(), iou, rtol=0, atol=2e-5)


def test_the_samples_have_former_names_and_files_of_today_have_none(sam, tmp_path):
    from safetensors.torch import load_file

    for name in ANSWERS:
        model = samtune.load(SAMPLES / f"{name}.safetensors", sam)
        today = load_file(samtune.save(model, tmp_path / "today.safetensors"))
        assert under_current_names(model, today).keys() == today.keys()
        former = load_file(SAMPLES / f"{name}.safetensors").keys()
        assert name == "fact" or former - today.keys(), name  # a tensor train's names are the same


def test_a_training_goes_on_from_a_state_with_former_names(sam):
    model = FineTuned(sam, "lora", "frozen", adapter_options={"rank": 1, "blocks": [1]})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    assert read_state(SAMPLES / "last", model, Optimisation(optimizer)).step == 2
    assert all(p.any() and optimizer.state[p]["exp_avg"].any() for p in model.parameters())
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes["adapter.updates.1.a.0"] == (1, 32) and shapes["adapter.updates.1.b.1"] == (32, 1)


def test_a_former_name_is_a_whole_name(sam):
    model = FineTuned(sam, "lora+fact", "frozen", adapter_options={"fact": {"form": "tk"}})
    names = under_current_names(
        model,
        dict.fromkeys(
            ["adapter.adapters.1.core", "adapter.adapters.1.cores", "adapter.core", "core"],
            torch.zeros(1),
        ),
    )
    assert list(names) == [
        "adapter.adapters.1.c", "adapter.adapters.1.cores", "adapter.core", "core"
    ]  # fmt: skip
