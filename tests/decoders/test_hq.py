"""The high-quality decoder against transformers' SAM-HQ, and what it leaves alone."""

import re

import pytest
import tiny
import torch
from oracle import oracle

from samtune.decoders.hq import HqDecoder
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts
from samtune.sam import weights
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, SamSpec

NAMES = (
    (r"^hq_token\.", "hf_token."),
    (r"^hq_mask_mlp\.proj_in\.", "hf_mlp.layers.0."),
    (r"^hq_mask_mlp\.layers\.0\.", "hf_mlp.layers.1."),
    (r"^hq_mask_mlp\.proj_out\.", "hf_mlp.layers.2."),
    (r"^compress_vit_", "compress_vit_feat."),
    (r"^encoder_", "embedding_encoder."),
    (r"^mask_(?=conv|norm)", "embedding_maskfeature."),
    (r"\.conv1\.", ".0."),
    (r"\.norm\.", ".1."),
    (r"\.conv2\.", ".3."),
)
"""transformers' names of the new tensors within its decoder, and SAM-HQ's."""


def renamed(key: str) -> str | None:
    """SAM-HQ's name of a tensor in transformers' model; ``None`` for those of the base."""
    name = key.removeprefix("mask_decoder.")
    if name == key or not re.match(NAMES_START, name):
        return None
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


NAMES_START = "|".join(pattern for pattern, _ in NAMES[:7])


class Handed(torch.nn.Module):
    """A transformer that also writes the image it returns into the tensor that it was given.

    transformers 5 gives the second output another name, and then reads masks from the image as it
    was before, rows and columns swapped. Where it reads the output, this changes nothing.
    """

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image_embeddings, **given):
        tokens, image = self.inner(image_embeddings=image_embeddings.clone(), **given)
        grid = image.flatten(0, 1).transpose(1, 2).unflatten(2, image_embeddings.shape[2:])
        image_embeddings.copy_(grid.transpose(2, 3))
        return tokens, image


@pytest.fixture(scope="module")
def theirs():
    return oracle("SamHQ", tiny.TINY, vit_dim=tiny.TINY.embed_dim)


def answer_of(theirs, **given):
    """What transformers' model answers, reading masks from the transformer's output."""
    decoder = theirs.mask_decoder
    inner, decoder.transformer = decoder.transformer, Handed(decoder.transformer)
    answer = theirs(**given)
    decoder.transformer = inner
    return answer


@pytest.fixture(scope="module")
def base(theirs) -> Sam:
    state = {key: t for key, t in theirs.state_dict().items() if renamed(key) is None}
    return weights.from_state(tiny.TINY, weights.official_names(state))


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("combine", ["hq", "sum"])
@pytest.mark.golden("hq")
def test_without_an_adapter_it_is_sam_hq(theirs, base, combine, multimask):
    model = FineTuned(base, "none", "hq", decoder_options={"combine": combine}).eval()
    new = {renamed(key): t for key, t in theirs.state_dict().items() if renamed(key)}
    model.decoder.load_state_dict(new, strict=True)
    pixels, prompts = tiny.pixels(), tiny.boxes([0, 0, 1, 1])
    expected = answer_of(
        theirs,
        pixel_values=base.preprocess(pixels),
        input_boxes=prompts.boxes().unflatten(0, (2, 2)),
        multimask_output=multimask,
        hq_token_only=combine == "hq",
    )
    with torch.no_grad():
        masks = model(pixels, prompts, multimask=multimask)
    # With three masks, transformers adds the new one to each and puts the best first; SAM-HQ's
    # own code gives the best alone.
    logits, iou = expected.pred_masks.flatten(0, 1)[:, :1], expected.iou_scores.flatten(0, 1)
    torch.testing.assert_close(masks.logits, logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(masks.iou, iou[:, :1], rtol=0, atol=1e-5)
    assert masks.logits.std() > 0.1


def test_training_reads_the_new_token_alone(sam):
    models = {}
    for combine in ("hq", "sum"):
        torch.manual_seed(0)
        models[combine] = FineTuned(sam, "none", "hq", decoder_options={"combine": combine})
    pixels, prompts = tiny.pixels(), tiny.boxes([0, 1])
    alone = models["hq"].eval()(pixels, prompts)
    training, both = (models["sum"].train(mode)(pixels, prompts) for mode in (True, False))
    assert torch.equal(training.logits, alone.logits)
    assert not torch.equal(both.logits, alone.logits)
    assert torch.equal(both.iou, alone.iou)


@pytest.mark.parametrize(
    ("name", "expected"), [("vit_b", 1_071_104), ("vit_l", 1_333_248), ("vit_h", 1_595_392)]
)
def test_counts(name, expected):
    with shapes_alone():
        decoder = HqDecoder(Sam(SPECS[name]), HqDecoder.Config())
    assert sum(p.numel() for p in decoder.parameters()) == expected
    assert decoder.taps == SPECS[name].global_blocks[:1]


def test_it_reads_the_first_global_block(sam):
    model = FineTuned(sam, "none", "hq").eval()
    features = model.encode(sam.preprocess(tiny.pixels()))
    x = sam.image_encoder.embed(sam.preprocess(tiny.pixels()))
    for block in sam.image_encoder.blocks[:2]:
        x = block(x)
    assert list(features.taps) == [1]
    torch.testing.assert_close(features.taps[1], x)
    prompts = Prompts.of(image=torch.tensor([0, 1]))
    before = model.decoder(sam, features, prompts).logits
    features.taps[1].zero_()
    assert not torch.equal(model.decoder(sam, features, prompts).logits, before)


def test_bad_options_and_bases_without_a_global_block(sam, refused):
    refused("{'combine': 'all'}", FineTuned, sam, "none", "hq", decoder_options={"combine": "all"})
    windowed = Sam(SamSpec("windowed", 32, 2, 2, (), image_size=64, prompt_dim=32)).freeze()
    refused(["windowed", "global block"], FineTuned, windowed, "none", "hq")
