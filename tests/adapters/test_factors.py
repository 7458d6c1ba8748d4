"""An adapter that is a low-rank update says so in factors, which are all that it does."""

import pytest
import tiny
import tiny_vit_golden
import torch
from tuned_models import moved

from samtune.model.finetuned import FineTuned

FORMS = [
    ("lora", {}),
    ("lora", {"target": "qkv", "alpha": 3.0}),
    ("lora", {"target": "q+k+v", "rank": 8, "blocks": (1, 3)}),
    ("dora", {}),
    ("fact", {"rank": 3}),
    ("fact", {"form": "tk", "target": "k", "rank": 3, "scale": 0.5}),
    ("head_lora", {"ratio": 0.5}),
]


PAIRS = [(tiny.base, *form) for form in FORMS]
PAIRS += [(tiny_vit_golden.base, *form) for form in FORMS if form[0] not in ("fact", "head_lora")]


@pytest.mark.parametrize("base, name, options", PAIRS)
@torch.no_grad()
def test_factors_are_the_difference_that_merging_makes(base, name, options):
    sam = base()
    adapter = moved(FineTuned(sam, name, adapter_options=options)).adapter
    factors, deltas, state = adapter.factors(sam), adapter.deltas(sam), sam.state_dict()
    biases = {key.replace("weight", "bias"): f.bias for key, f in factors.items()}
    biases = {key: bias for key, bias in biases.items() if bias is not None}
    assert factors.keys() | biases.keys() == {key for key, d in deltas.items() if d.any()}
    assert all(torch.allclose(bias, deltas[key], atol=1e-6) for key, bias in biases.items())
    for key, factor in factors.items():
        rows = state[key] + factor.scale * factor.b @ factor.a
        if factor.magnitudes is not None:
            rows = rows * (factor.magnitudes / rows.norm(dim=1))[:, None]
        assert torch.allclose(rows, state[key] + deltas[key], atol=1e-6)


def test_others_say_that_they_are_none():
    adapter = FineTuned(tiny.base(), "bitfit").adapter
    with pytest.raises(NotImplementedError, match="bitfit is no low-rank update"):
        adapter.factors(tiny.base())
