"""Every adapter with every decoder on every base: it is built, or refused with the reason."""

from functools import cache

import pytest
import tiny
import torch

from samtune.adapters import ADAPTERS
from samtune.adapters.base import lacking
from samtune.cli.catalogue import list_methods
from samtune.decoders import DECODERS
from samtune.errors import InputError
from samtune.model.finetuned import FineTuned
from samtune.options import in_python
from samtune.runs.assembly import models
from samtune.runs.config import resolve
from samtune.runs.words import from_words
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS


@cache
def described() -> dict[str, dict]:
    return {row["name"]: row for row in list_methods()}


@cache
def shapes(base: str) -> Sam:
    """A base without values, so that even ViT-H takes no time."""
    with shapes_alone():
        return Sam(SPECS[base]).freeze()


def reason(adapter: str, decoder: str, base: str) -> str | None:
    """What the configuration has against a pair; no such weights are ever looked for."""
    tree = {"base": {"name": base, "weights": "there is none.pth"}}
    if DECODERS[decoder].dense_targets_of({}):  # they need single objects
        tree["data"] = {"masks": "instance"}
    try:
        resolve([tree | {"adapter": adapter, "decoder": decoder}])
    except InputError as error:
        return str(error)
    return None


def reads(decoder: str, base: str) -> bool:
    """Whether a decoder takes a base, by its own word."""
    try:
        DECODERS[decoder].check(SPECS[base])
    except InputError:
        return False
    return True


LARGER = ("vit_b", "vit_l", "vit_h")
"""They differ from nano in size alone: of what fits there, one pair of each adapter is built."""


@pytest.mark.slow
@pytest.mark.parametrize("base", list(SPECS))
@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_what_the_configuration_takes_is_built_and_all_else_is_refused(adapter, base):
    row, sam, fits = described()[adapter], shapes(base), []
    with shapes_alone():
        for decoder in DECODERS:
            against = reason(adapter, decoder, base)
            if against is None:
                if not fits or base not in LARGER:
                    FineTuned(sam, adapter, decoder)
                fits.append(decoder)
                continue
            assert "\n" not in against
            assert adapter in against or decoder in against
            assert "; " in against, "what to do about it"
            with pytest.raises(InputError) as refused:
                FineTuned(sam, adapter, decoder)
            assert str(refused.value) == in_python(against)
    on_base = [d for d in row["decoders"] if reads(d, base)]
    assert fits == (on_base if base in row["backbones"] else [])


TOGETHER = [name for name in ADAPTERS if name != "none" and not lacking(ADAPTERS[name], tiny.TINY)]


@pytest.mark.slow
@pytest.mark.parametrize("first", TOGETHER)
def test_two_adapters_together_encode_or_are_refused_when_built(sam, first):
    pixels = sam.preprocess(tiny.pixels(1))
    after = TOGETHER[TOGETHER.index(first) + 1 :]
    # gsam's heads change the grid of keys: with it the order may matter.
    for second in TOGETHER if ADAPTERS[first].key_grid else after:
        if second == first:
            continue
        name = f"{first}+{second}"
        options = {part: tiny.options(part) for part in (first, second)}
        decoder = next((d for d in DECODERS if reason(name, d, "nano") is None), None)
        if decoder is None:
            continue  # no decoder goes with both
        try:
            model = FineTuned(sam, name, decoder, adapter_options=options)
        except InputError as refused:
            assert "; " in str(refused) and first in str(refused) and second in str(refused)
            continue
        with torch.no_grad():
            assert model.encode(pixels).embedding.isfinite().all(), name


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("adapter.rank=0", "rank"),
        ("adapter.blocks=[99]", "99"),
        ("input.size=100", "input.size=100"),
    ],
)
def test_an_option_is_refused_before_weights_are_looked_for(setting, said):
    words = ["data.root=x", "adapter=lora", "base.weights=there is none.pth", setting]
    with pytest.raises(InputError) as refused:
        models(from_words(words))
    assert said in str(refused.value) and "there is none" not in str(refused.value)
