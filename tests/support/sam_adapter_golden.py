"""What the golden tests of both SAM-Adapters share: the small base, the fill, the comparison."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import deterministic
import pytest
import torch
from torch import Tensor

from samtune.model.finetuned import FineTuned
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, SamSpec
from samtune.sam.weights import from_state

SMALL = SamSpec("small", embed_dim=128, depth=3, heads=4, global_blocks=(1,))


class Golden(NamedTuple):
    """Statistics of a measured tensor; ``middle`` starts at half its numbers."""

    mean: float
    std: float
    greatest: float
    first: tuple[float, float, float]
    middle: tuple[float, float, float] | None = None


def check(found: Tensor, golden: Golden, elements: float = 1e-4) -> None:
    """Statistics to 1e-5, elements to 1e-4 where nothing else is said."""
    flat = found.detach().flatten()
    half = flat.numel() // 2
    assert float(flat.double().mean()) == pytest.approx(golden.mean, abs=1e-5)
    assert float(flat.double().std(correction=0)) == pytest.approx(golden.std, abs=1e-5)
    assert float(flat.abs().max()) == pytest.approx(golden.greatest, abs=1e-4)
    assert flat[:3].tolist() == pytest.approx(golden.first, abs=elements)
    if golden.middle is not None:
        assert flat[half : half + 3].tolist() == pytest.approx(golden.middle, abs=elements)


@cache
def _base(spec: SamSpec) -> Sam:
    with shapes_alone():
        names = Sam(spec).state_dict()
    return from_state(spec, deterministic.fill(names))


def filled(
    spec: SamSpec, adapter: str, decoder: str, published: Callable[[str], str], **options
) -> FineTuned:
    """A model filled by the names that its tensors have in the published code."""
    model = FineTuned(_base(spec), adapter, decoder, **options)
    state = model.state_dict()
    by_name = {published(name): name for name in state}
    assert len(by_name) == len(state)
    filled = deterministic.fill({theirs: state[ours] for theirs, ours in by_name.items()})
    model.load_state_dict({by_name[theirs]: tensor for theirs, tensor in filled.items()})
    return model.eval()


def counted(spec: str, adapter: str, decoder: str) -> tuple[FineTuned, int]:
    """A model without storage, and the parameters of its base without the prompt encoder's."""
    with shapes_alone():
        sam = Sam(SPECS[spec]).freeze()
        model = FineTuned(sam, adapter, decoder)
    parts = sam.image_encoder, sam.mask_decoder
    return model, sum(p.numel() for part in parts for p in part.parameters())


def norms(model: FineTuned) -> dict[str, float]:
    """The 2-norm of each gradient, and that of the whole mask decoder."""
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    found = {name: float(g.norm()) for name, g in gradients.items()}
    inner = [v for n, v in found.items() if n.startswith("decoder.mask_decoder.")]
    return {**found, "decoder.mask_decoder": float(torch.tensor(inner).norm())}


def descend(model: FineTuned, loss_of: Callable[[], Tensor]) -> list[float]:
    """The losses after one and two steps of the published AdamW; the first gradients are there."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    optimizer.step()
    optimizer.zero_grad()
    first = loss_of()
    first.backward()
    optimizer.step()
    with torch.no_grad():
        return [float(first.detach()), float(loss_of())]
