"""``auto`` is bf16 where a device has matrix units for it, and fp32 elsewhere."""

import pytest
import torch

from samtune.precision import arithmetic, autocast
from samtune.training.accelerator import make_accelerator
from samtune.training.schedule import FitConfig

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def machine(monkeypatch):
    """Gives this process the units of another machine."""

    def equip(amx: bool = False, cuda: bool = False, ampere: bool = False) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        support = lambda including_emulation=True: ampere or including_emulation  # noqa: E731
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", support)

    return equip


def test_auto_follows_the_units_of_the_device_and_a_demand_does_not(machine):
    machine()
    assert arithmetic("auto", CPU) == arithmetic("auto", torch.device("mps")) == "fp32"
    machine(amx=True)
    assert arithmetic("auto", CPU) == "bf16"
    machine(cuda=True)  # Turing, where torch would emulate bf16
    assert arithmetic("auto", CUDA) == arithmetic("auto", CPU) == "fp32"
    machine(cuda=True, ampere=True)
    assert arithmetic("auto", CUDA) == "bf16"
    assert [arithmetic(p, CUDA) for p in ("fp32", "fp16")] == ["fp32", "fp16"]
    assert arithmetic("bf16", CPU) == "bf16"


@pytest.mark.parametrize("amx", [False, True])
def test_training_and_inference_take_the_same_arithmetic(machine, amx):
    machine(amx=amx)
    accelerator = make_accelerator(FitConfig(), torch.device("cpu"), None)
    x = torch.ones(2, 2)
    with autocast(CPU, "auto"):
        inference = (x @ x).dtype
    with accelerator.autocast():
        training = (x @ x).dtype
    assert inference == training == (torch.bfloat16 if amx else torch.float32)
