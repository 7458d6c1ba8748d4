"""Adaptation adapts: every method, on the real base and real images, soon beats zero-shot.

What the invariants of the matrix cannot see: that the gradient leads somewhere, with the
decoder and by the adapter alone.
"""

import pytest
import tiny
import torch

import samtune
from samtune.adapters import ADAPTERS
from samtune.adapters.base import lacking
from samtune.assets import demo_data
from samtune.data import DataConfig, SegmentationDataset, collate, splits
from samtune.decoders import DECODERS
from samtune.evaluation.streaming import evaluate
from samtune.geometry import InputPolicy
from samtune.losses import Loss
from samtune.sam.spec import SPECS
from samtune.training.objective import Objective

SIZE = (128, 128)
DATA = DataConfig(root=str(demo_data()), masks="instance", augment="flips")
STEPS, RATES = {"fusion": 24}, {"fusion": 3e-3}
"""Of decoders that start at random, and so have farther to go."""
MARGIN = 0.1
"""Of mean IoU on the test images, without prompts."""
DROP = 5e-4
"""Of the loss, with the decoder held still; slow starters as ``cat_sam_a`` lose a thousandth."""
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def base():
    return samtune.load_sam("nano")


@pytest.fixture(scope="module")
def nuclei():
    parts = splits(DATA)
    return {
        part: SegmentationDataset(
            parts[part], DATA, SIZE, train=part == "train", mode="none", mask_size=(64, 64)
        )
        for part in ("train", "test")
    }


def iou(model, dataset) -> float:
    return evaluate(model, dataset).metrics["iou"]


@pytest.fixture(scope="module")
def zero_shot(base, nuclei):
    return iou(samtune.FineTuned(base, input=InputPolicy(SIZE)), nuclei["test"])


@pytest.fixture(scope="module")
def everything(nuclei):
    """The IoU of an answer that calls every pixel foreground."""
    targets = [nuclei["test"][i].original.float() for i in range(len(nuclei["test"]))]
    return float(torch.tensor([target.mean() for target in targets]).mean())


FITTING = [name for name in ADAPTERS if not lacking(ADAPTERS[name], SPECS["nano"])]
# Each decoder alone, or with an adapter that it needs, and one whose adapter reads its tokens.
# That each adapter learns is told without a decoder, below.
PAIRS = [("none", decoder) for decoder in ("tuned", "hq", "prompt_free")]
PAIRS += [("lora", "tuned"), ("cat_sam_t", "hq"), ("ts_sam_detached", "fusion")]
OTHERS = {"semantic", "instances"}
"""Decoders with tests of their own: of maps of several classes, and of distances."""


@pytest.mark.parametrize(("adapter", "decoder"), PAIRS, ids=str)
def test_a_short_budget_beats_zero_shot(base, nuclei, zero_shot, everything, adapter, decoder):
    torch.manual_seed(0)
    model = samtune.FineTuned(
        base,
        adapter,
        decoder,
        adapter_options=tiny.options(adapter),
        input=InputPolicy(SIZE),
        prompts="none",
    )
    rate, steps = RATES.get(decoder, 2e-3), STEPS.get(decoder, 16)
    config = samtune.FitConfig(max_steps=steps, batch_size=2, lr=rate, warmup=0.1)
    samtune.fit(model, nuclei["train"], None, config, device="cpu")
    tuned = iou(model, nuclei["test"])
    print(f"{adapter} {decoder} {zero_shot:.3f} {everything:.3f} {tuned:.3f}")
    assert tuned > max(zero_shot, everything) + MARGIN


def losses(base, nuclei, adapter: str, dead: bool = False) -> list[float]:
    """Of one image along a few steps in which the adapter alone is trained."""
    torch.manual_seed(0)
    declared = ADAPTERS[adapter].decoders
    model = samtune.FineTuned(
        base,
        adapter,
        "frozen" if not declared or "frozen" in declared else declared[0],
        adapter_options=tiny.options(adapter),
        input=InputPolicy(SIZE),
        prompts="none",
    ).train()
    model.decoder.requires_grad_(False)
    objective = Objective(model, Loss.parse("bce + dice"), multimask=False)
    optimizer = torch.optim.Adam(model.adapter.parameters(), lr=0 if dead else 2e-3)
    batch, found = collate([nuclei["train"][0]]), []
    for _ in range(5):
        loss = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    with torch.no_grad():
        return [*found, objective(batch).item()]


@pytest.mark.parametrize("adapter", [name for name in FITTING if name != "none"])
def test_an_adapter_alone_lowers_the_loss(base, nuclei, adapter):
    first, *later = losses(base, nuclei, adapter)
    assert later[-1] < (1 - DROP) * first


def test_an_adapter_that_does_not_learn_would_be_noticed(base, nuclei):
    first, *later = losses(base, nuclei, "lora", dead=True)
    assert not later[-1] < (1 - DROP) * first


def test_no_read_out_is_left_out():
    assert {decoder for _, decoder in PAIRS} == set(DECODERS) - OTHERS - {"frozen"}
