"""What follows from frozen weights is computed once, and changes no number."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from samtune.ops import frozen

LAYERS = {
    "linear": (frozen.Linear(6, 5), nn.Linear(6, 5), (2, 3, 6)),
    "conv": (frozen.Conv2d(6, 5, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1), (2, 6, 4, 4)),
    "up": (
        frozen.ConvTranspose2d(6, 5, 2, stride=2),
        nn.ConvTranspose2d(6, 5, 2, stride=2),
        (2, 6, 4, 4),
    ),
}


class Casts(TorchDispatchMode):
    """Counts the tensors of a number of elements that are cast."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func == torch.ops.aten._to_copy.default and out.numel() == self.size:
            self.count += 1
        return out


def layers(name: str) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    own, plain, shape = copy.deepcopy(LAYERS[name])
    plain.load_state_dict(own.state_dict())
    return own.requires_grad_(False), plain.requires_grad_(False), torch.randn(shape)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", LAYERS)
def test_frozen_layers_give_the_numbers_of_autocast_bit_for_bit(name, half):
    own, plain, x = layers(name)
    results = []
    for layer in (own, plain):
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = layer(given)
        (out.float() * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        results.append((out, given.grad))
    assert results[0][0].dtype == (torch.bfloat16 if half else torch.float32)
    for seen, wanted in zip(*results, strict=True):
        assert torch.equal(seen, wanted)


@pytest.mark.parametrize("name", LAYERS)
def test_a_frozen_weight_is_cast_once_and_a_trained_one_by_autocast(name):
    own, plain, x = layers(name)
    counts = []
    for layer in (own, plain):
        with Casts(own.weight.numel()) as casts:
            for _ in range(3):
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                    layer(x)
        counts.append(casts.count)
    assert counts == [1, 3]
    own.requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        own(x).float().sum().backward()
    assert own.weight.grad.abs().sum() > 0


def test_a_weight_that_changes_is_cast_anew():
    own, _, x = layers("linear")
    with torch.autocast("cpu", torch.bfloat16):
        before = own(x)
        own.load_state_dict({key: 2 * value for key, value in own.state_dict().items()})
        torch.testing.assert_close(own(x), 2 * before)
        own.weight.data = torch.zeros(5, 6)
        assert torch.equal(own(x), own.bias.bfloat16().expand(2, 3, 5))


def test_a_frozen_weight_is_not_kept_for_the_gradient_as_an_activation():
    own, plain, x = layers("linear")
    sizes = []
    for layer in (own, plain):
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel()) or t, lambda t: t
        ):
            layer(x.clone().requires_grad_())
    assert sizes == [30]


def test_values_made_in_inference_mode_serve_a_training_and_only_frozen_ones_are_stored():
    own, _, x = layers("linear")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        own(x)
    with torch.autocast("cpu", torch.bfloat16):
        own(x.requires_grad_()).float().sum().backward()
    table, calls = nn.Parameter(torch.ones(3)), []
    for _ in range(2):
        value = frozen.once(table, "double", lambda t: calls.append(t) or 2 * t)
    assert len(calls) == 2 and value.requires_grad
    table.requires_grad_(False)
    for key in range(3 * frozen.SIZES):
        assert frozen.once(table, key % (frozen.SIZES + 1), lambda t: 2 * t).sum() == 6
    assert len(frozen._stored[table][1]) == frozen.SIZES
