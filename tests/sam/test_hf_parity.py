"""Parity with transformers' ``SamModel`` on tiny filled configurations, within 1e-5.

Its decoder's eight LayerNorms get the official eps first: 1e-5, where transformers has 1e-6.
"""

import deterministic
import pytest
import torch
from oracle import configuration, oracle
from tiny import TINY

from samtune.errors import InputError
from samtune.prompts import Prompts
from samtune.sam import weights
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

TOLERANCE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def hf():
    return oracle("Sam", TINY)


@pytest.fixture(scope="module")
def ours(hf):
    return weights.from_state(TINY, weights.official_names(hf.state_dict()))


@pytest.fixture(scope="module")
def pixels():
    return deterministic.tensor("input", (2, 3, 64, 64), -2, 2)


BOXES = torch.tensor([[[3.0, 5, 40, 52], [10, 11, 30, 31]], [[0, 0, 63, 63], [20, 8, 61, 17]]])
POINTS = torch.tensor([[[[12.0, 30], [50, 7]], [[1, 2], [33, 44]]]] * 2) + torch.arange(2.0).view(
    2, 1, 1, 1
)
LABELS = torch.tensor([[[1, 0], [0, 1]], [[1, 1], [0, 0]]])
IMAGE = torch.tensor([0, 0, 1, 1])


def test_image_encoder(hf, ours, pixels):
    assert all(b.attn.rel_pos_h.std() > 0.1 for b in ours.image_encoder.blocks)
    assert ours.image_encoder.pos_embed.std() > 0.1
    expected = hf.get_image_embeddings(pixels)
    torch.testing.assert_close(ours.image_encoder(pixels), expected, **TOLERANCE)


@pytest.mark.parametrize("form", ["textbook", "folded", "striped"])
def test_image_encoder_in_both_attention_forms(hf, pixels, form):
    ours = weights.from_state(TINY, weights.official_names(hf.state_dict()))
    for block in ours.image_encoder.blocks:
        block.attn.form = form
    expected = hf.get_image_embeddings(pixels)
    torch.testing.assert_close(ours.image_encoder(pixels), expected, **TOLERANCE)


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("kind", ["points", "boxes", "boxes+points"])
def test_sparse_prompts_over_a_batch_of_images(hf, ours, pixels, kind, multimask):
    theirs, mine = {}, {"image": IMAGE}
    if "boxes" in kind:
        theirs["input_boxes"], mine["boxes"] = BOXES, BOXES.flatten(0, 1)
    if "points" in kind:
        theirs |= {"input_points": POINTS, "input_labels": LABELS}
        mine |= {"points": POINTS.flatten(0, 1), "labels": LABELS.flatten(0, 1)}
    embedding = hf.get_image_embeddings(pixels)
    expected = hf(image_embeddings=embedding, multimask_output=multimask, **theirs)
    masks = ours.decode(embedding, Prompts.of(**mine), (64, 64), multimask)
    assert masks.logits.shape == (4, 3 if multimask else 1, 32, 32)
    torch.testing.assert_close(masks.logits, expected.pred_masks.flatten(0, 1), **TOLERANCE)
    torch.testing.assert_close(masks.iou, expected.iou_scores.flatten(0, 1), **TOLERANCE)
    assert masks.logits.std() > 0.01


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("kind", ["none", "masks", "masks+boxes", "masks+points"])
def test_mask_prompts_and_no_prompt(hf, ours, pixels, kind, multimask):
    theirs, mine = {}, {"image": torch.arange(2)}
    if "masks" in kind:
        given = deterministic.tensor("mask", (2, 1, 32, 32), -8, 8)
        theirs["input_masks"], mine["masks"] = given, given
    if "boxes" in kind:
        theirs["input_boxes"], mine["boxes"] = BOXES[:, :1], BOXES[:, 0]
    if "points" in kind:
        theirs |= {"input_points": POINTS[:, :1], "input_labels": LABELS[:, :1]}
        mine |= {"points": POINTS[:, 0], "labels": LABELS[:, 0]}
    embedding = hf.get_image_embeddings(pixels)
    expected = hf(image_embeddings=embedding, multimask_output=multimask, **theirs)
    masks = ours.decode(embedding, Prompts.of(**mine), (64, 64), multimask)
    torch.testing.assert_close(masks.logits, expected.pred_masks.flatten(0, 1), **TOLERANCE)
    torch.testing.assert_close(masks.iou, expected.iou_scores.flatten(0, 1), **TOLERANCE)


@pytest.mark.golden("none", "frozen")
def test_pixels_to_masks(hf, ours, pixels):
    """The whole way, normalisation included."""
    raw = deterministic.tensor("raw", (2, 3, 64, 64), 0, 255)
    mean, std = (torch.tensor(v)[:, None, None] for v in (TINY.pixel_mean, TINY.pixel_std))
    expected = hf((raw - mean) / std, input_boxes=BOXES, multimask_output=False)
    prompts = Prompts.of(boxes=BOXES.flatten(0, 1), image=IMAGE)
    masks = ours(raw, prompts)
    torch.testing.assert_close(masks.logits, expected.pred_masks.flatten(0, 1), **TOLERANCE)


def test_dense_positions(hf, ours):
    expected = hf.get_image_wide_positional_embeddings()
    torch.testing.assert_close(
        ours.prompt_encoder.dense_positions((8, 8)), expected, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", ["vit_b", "vit_l"])
def test_names_of_the_real_configuration(name):
    transformers = pytest.importorskip("transformers")
    spec = SPECS[name]
    with shapes_alone():
        theirs = transformers.SamModel(configuration("Sam", spec)).state_dict()
        mine = Sam(spec).state_dict()
    if name == "vit_b":
        assert len(theirs) == 315
    renamed = weights.official_names(theirs)
    assert set(renamed) == set(mine)
    assert {k: tuple(t.shape) for k, t in renamed.items()} == {
        k: tuple(t.shape) for k, t in mine.items()
    }


def same(a, b):
    state = b.state_dict()
    return all(torch.equal(t, state[key]) for key, t in a.state_dict().items())


@pytest.mark.usefixtures("tiny_registered")
def test_folder_of_save_pretrained(hf, ours, tmp_path):
    hf.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    names = weights.read_state(file)
    assert "prompt_encoder.shared_embedding.positional_embedding" not in names  # tied, left out
    loaded = weights.load_sam("tiny", tmp_path)
    assert same(loaded, ours)
    assert weights.fingerprint(loaded) == weights.fingerprint(ours)
    assert same(weights.load_sam("tiny", file), ours)


@pytest.mark.usefixtures("tiny_registered")
def test_sharded_folder(hf, ours, tmp_path):
    hf.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert same(weights.load_sam("tiny", tmp_path), ours)


@pytest.mark.usefixtures("tiny_registered")
def test_folder_with_pytorch_model_bin(hf, ours, tmp_path):
    torch.save(hf.state_dict(), tmp_path / "pytorch_model.bin")
    assert same(weights.load_sam("tiny", tmp_path), ours)


@pytest.mark.usefixtures("tiny_registered")
def test_missing_tensor_of_a_hf_folder_has_its_official_name(hf, tmp_path):
    state = hf.state_dict()
    del state["mask_decoder.upscale_layer_norm.bias"]
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"missing mask_decoder\.output_upscaling\.1\.bias"):
        weights.load_sam("tiny", tmp_path)
