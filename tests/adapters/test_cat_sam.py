"""CAT-SAM against numbers measured on the published code."""

import json
import math
import zlib
from functools import cache
from pathlib import Path

import normals
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor

import samtune
from samtune.adapters.cat_sam import CatSamT
from samtune.foreign import DIALECTS, import_checkpoint
from samtune.geometry import Geometry, InputPolicy
from samtune.losses import Loss, dice
from samtune.model.finetuned import FineTuned
from samtune.ops.frequency import high_pass
from samtune.prompts import Prompts
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, SamSpec

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "cat_sam.json").read_text())
SMALL = SamSpec("small", 768, 4, 12, (1, 3), image_size=256)
FULL_SIZE = SamSpec("full size", 768, 3, 12, (1,))
LETTERS = "ta"
HQ_MODULES = ("hf_mlp", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature")


def value(key: str, shape: torch.Size) -> Tensor:
    """Values of one tensor, from the published name of it alone."""
    seed, count = zlib.crc32(key.encode()), math.prod(shape)
    if count >= normals.MANY and len(shape) > 1 and not key.endswith("pos_embed"):
        return normals.standard_normal(seed, shape, lambda z: z / np.sqrt(count / shape[0]))
    z = np.random.RandomState(seed).standard_normal(tuple(shape))
    embeddings = (
        "point_embeddings", "not_a_point_embed", "no_mask_embed", "iou_token", "mask_tokens",
        "hf_token",
    )  # fmt: skip
    if not key.endswith("positional_encoding_gaussian_matrix"):
        if key.endswith(("rel_pos_h", "rel_pos_w", "pos_embed")):
            z *= 0.1
        elif any(word in key for word in embeddings):
            z *= 0.5
        elif z.ndim == 1:
            z = 1 + 0.1 * z if key.endswith(".weight") else 0.05 * z
        else:
            z /= np.sqrt(z.size / shape[0])
    return torch.from_numpy(z.astype(np.float32))


@cache
def filled_base(spec: SamSpec) -> Sam:
    sam = Sam(spec).freeze()
    state = sam.state_dict()
    sam.load_state_dict({key: value(key, t.shape) for key, t in state.items()})
    return sam


def filled(spec: SamSpec, letter: str) -> FineTuned:
    model = FineTuned(filled_base(spec), f"cat_sam_{letter}", "hq")
    name = DIALECTS[f"cat_sam_{letter}"].theirs
    state = model.state_dict()
    model.load_state_dict({key: value(name(key), t.shape) for key, t in state.items()})
    return model.eval()


def photo(seed: int, height: int, width: int) -> Tensor:
    values = np.random.RandomState(seed).randint(0, 256, (height, width, 3))
    return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)


IMAGES = (photo(7, 200, 300), photo(8, 120, 90))


def stretched(images, side: int) -> Tensor:
    """The published resize: to the square, bilinear, without antialiasing."""
    size = (side, side)
    return torch.cat([F.interpolate(i[None], size, mode="bilinear") for i in images])


def scaled(xy: list, image: Tensor, side: int) -> Tensor:
    """Coordinates in the model's frame, rounded as published."""
    h, w = image.shape[1:]
    return (torch.tensor(xy) * torch.tensor([side / w, side / h])).round()


def small_prompts() -> Prompts:
    """Two boxes in the first image, a point in the second."""
    corners = scaled([[[60.0, 40], [200, 150]], [[10, 5], [120, 90]]], IMAGES[0], 256)
    point = scaled([[[30.0, 40]]], IMAGES[1], 256)
    return Prompts.cat(
        [
            Prompts.of(boxes=corners.reshape(2, 4)),
            Prompts.of(points=point, labels=torch.ones(1, 1), image=torch.ones(1)),
        ]
    )


def at_image_size(logits: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(logits, tuple(image.shape[1:]), mode="bilinear")


def check(found: Tensor, golden: dict, tolerance: float) -> None:
    """Compares a tensor with its row of the golden table."""
    assert list(found.shape) == golden["shape"]
    flat = found.detach().double().flatten()
    at = flat[[j * (flat.numel() - 1) // 4 for j in range(5)]]
    seen = [flat.mean(), flat.std(correction=0), flat.abs().max(), *at]
    wanted = [golden["mean"], golden["std"], golden["max"], *golden["at"]]
    assert [float(v) for v in seen] == pytest.approx(wanted, abs=tolerance)


def own_stages(model: FineTuned, x: Tensor) -> dict[str, Tensor]:
    """What the adapter makes of the pixels, by the names in the golden file."""
    encoder, adapter = model.sam.image_encoder, model.adapter
    state = adapter.begin(encoder, x, encoder.embed(x), model.decoder.tokens)
    last = len(encoder.blocks) - 1
    if isinstance(adapter, CatSamT):
        return {f"t_{i}": adapter.edits(i, state).tokens for i in (0, last)}
    return {
        "high_pass": high_pass(x),
        "e": adapter.embedding(encoder.patch_embed(x)).flatten(1, 2),
        "c": adapter.high_pass(x).permute(0, 3, 1, 2),
        "b": adapter.bridge(model.decoder.tokens).flatten(1, 2),
        **{f"p_{i}": adapter.prompt(i, state).flatten(1, 2) for i in (0, last)},
    }


@torch.no_grad()
def stages(model: FineTuned, pixels: Tensor, prompts: Prompts) -> dict[str, Tensor]:
    """All that the golden tables hold of a forward pass."""
    x, hq = model.sam.preprocess(pixels), model.decoder
    first: list[Tensor] = []
    hook = model.sam.image_encoder.blocks[0].register_forward_hook(
        lambda module, inputs, output: first.append(output)
    )
    features = model.encode(x)
    hook.remove()
    early = features.taps[hq.taps[0]]
    out = {
        "input": x,
        **own_stages(model, x),
        "block_0": first[0],
        "early": early,
        "embedding": features.embedding,
        "compress": hq.compress_vit_feat(early.permute(0, 3, 1, 2)),
        "embedding_encoder": hq.embedding_encoder(features.embedding),
    }
    fine = hq(model.sam, features, prompts).logits
    hq.combine = "sum"
    plain = hq(model.sam, features, prompts).logits - fine
    hq.combine = "hq"
    for i in prompts.image.unique().tolist():
        mine = prompts.image == i
        out |= {
            f"masks_sam_{i}": plain[mine],
            f"masks_hq_{i}": fine[mine],
            f"pred_{i}": at_image_size(fine[mine], IMAGES[i]),
        }
    return out


def check_all(found: dict[str, Tensor], golden: dict) -> None:
    for name in golden.keys() - {"grad_h", "training"}:
        check(found[name], golden[name], 1e-3 if name.startswith(("masks", "pred")) else 1e-4)


def test_the_fill_gives_the_published_numbers():
    wanted = {
        "mask_decoder.hf_token.weight": ((1, 256), [-0.473074, -0.428530, -1.090246]),
        "image_encoder.blocks.0.attn.rel_pos_h": ((27, 64), [0.032198, -0.094847, 0.168998]),
        "image_encoder.blocks.0.norm1.weight": ((768,), [0.965861, 0.984923, 1.003145]),
        "image_encoder.neck.0.weight": ((256, 768, 1, 1), [-0.025315, 0.015045, 0.022537]),
        "mask_decoder.compress_vit_feat.0.weight": (
            (768, 256, 2, 2),
            [-0.036111, -0.001887, 0.005069],
        ),
    }
    for key, (shape, start) in wanted.items():
        assert value(key, shape).flatten()[:3].tolist() == pytest.approx(start, abs=1e-6)
    assert IMAGES[0][:, 0, 0].tolist() == [175, 196, 25]
    assert IMAGES[0][:, -1, -1].tolist() == [67, 121, 221]
    assert IMAGES[1][:, 0, 0].tolist() == [195, 84, 241]
    assert IMAGES[1][:, -1, -1].tolist() == [201, 163, 8]


@pytest.mark.slow
@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.golden("cat_sam_a", "cat_sam_t")
def test_forward(letter):
    model = filled(SMALL, letter)
    found = stages(model, stretched(IMAGES, 256), small_prompts())
    golden = GOLDEN[f"S.{letter}"]
    check_all(found, golden)
    shares = [(found[f"pred_{i}"] > 0).float().mean().item() for i in (0, 1)]
    # One pixel of the smaller image is 9e-5.
    assert shares == pytest.approx(golden["training"]["positive"], abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("letter", LETTERS)
def test_forward_at_full_size_with_mask_prompts(letter):
    noise = np.random.RandomState(9).standard_normal((2, 1, 256, 256))
    masks = torch.from_numpy((noise > 0.3).astype(np.float32))
    model = filled(FULL_SIZE, letter)
    found = stages(model, stretched(IMAGES[:1], 1024), Prompts.of(masks=masks))
    check_all(found, GOLDEN[f"R.{letter}"])


def losses(model: FineTuned, pixels: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """BCE and Dice at image size."""
    masks, geometries, targets, valid = model(pixels, prompts), [], [], []
    frame = (pixels.shape[-2], pixels.shape[-1])
    way = InputPolicy(frame, "stretch", round_prompts=True, direct_masks=True).way()
    for i, image in enumerate(IMAGES):
        h, w = image.shape[1:]
        geometries.append(Geometry((h, w), frame, frame, way))
        n = int((prompts.image == i).sum())
        k, y, x = torch.meshgrid(*(torch.arange(s) for s in (n, h, w)), indexing="ij")
        targets.append((x + 2 * y + 37 * k) % (90 + 10 * i) < 40)
        valid.append(torch.ones(h, w, dtype=torch.bool))
    batch = tiny.own_size(prompts, geometries, targets, valid)
    first, second = (Loss.parse(name, "image")(masks, batch) for name in ("bce", "dice"))
    return first, second


def norm(parameters) -> float:
    return torch.cat([p.grad.flatten() for p in parameters]).norm().item()


def gradient_norms(model: FineTuned) -> dict[str, float]:
    adapter, hq = model.adapter, model.decoder
    found = {"h": norm([hq.hf_token.weight])}
    found |= {name: norm(getattr(hq, name).parameters()) for name in HQ_MODULES}
    if isinstance(adapter, CatSamT):
        return found | {"bridges": norm(adapter.parameters())}
    bridge = {n: norm(getattr(adapter, n).parameters()) for n in ("bridge_down", "bridge_up")}
    generator = [p for n, p in adapter.named_parameters() if not n.startswith("bridge")]
    return found | bridge | {"prompt_generator": norm(generator)}


@pytest.mark.slow
@pytest.mark.parametrize("letter", LETTERS)
def test_a_training_step(letter, monkeypatch):
    golden = GOLDEN[f"S.{letter}"]
    wanted, model = golden["training"], filled(SMALL, letter).train()
    assert model.trainable() == wanted["trainable"]
    pixels, prompts = stretched(IMAGES, 256), small_prompts()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)

    before = losses(model, pixels, prompts)
    sum(before).backward()
    whole = model.decoder.hf_token.weight.grad.clone()
    check(whole, golden["grad_h"], 1e-4)
    found = gradient_norms(model)

    begin = type(model.adapter).begin
    with monkeypatch.context() as patch:  # the bridge cut off from the decoder's token
        patch.setattr(
            type(model.adapter), "begin", lambda self, e, p, x, t: begin(self, e, p, x, t.detach())
        )
        decoder_side, *_ = torch.autograd.grad(
            sum(losses(model, pixels, prompts)), [model.decoder.hf_token.weight]
        )
    found |= {"h_detached": decoder_side.norm().item(), "h_bridge": (whole - decoder_side).norm()}
    assert [t.item() for t in before] == pytest.approx(wanted["loss"], abs=1e-5)
    assert found.keys() == wanted["gradient_norms"].keys()
    for name, expected in wanted["gradient_norms"].items():
        assert float(found[name]) == pytest.approx(expected, rel=1e-4), name

    optimizer.step()
    with torch.no_grad():
        after = losses(model, pixels, prompts)
    assert [t.item() for t in after] == pytest.approx(wanted["after_a_step"], abs=1e-3)


def test_dice_of_an_empty_target():
    empty = torch.zeros(1, 4, 4, dtype=torch.bool)
    found = dice(torch.full((1, 4, 4), -10.0), empty, ~empty).item()
    assert found == pytest.approx(7.2581e-4, abs=5e-9)


@pytest.mark.slow
@pytest.mark.parametrize("letter", LETTERS)
def test_an_imported_file_predicts_the_published_masks(letter, tmp_path, monkeypatch):
    monkeypatch.setitem(SPECS, SMALL.name, SMALL)
    model, dialect = filled(SMALL, letter), DIALECTS[f"cat_sam_{letter}"]
    state = {dialect.theirs(key): t for key, t in model.state_dict().items()}
    for key, tensor in model.sam.state_dict().items():
        state["ori_sam." + key if not key.startswith("mask_decoder.") else key] = tensor
    torch.save({"model": state}, tmp_path / "x.pth")
    out, base = tmp_path / "x.safetensors", tmp_path / "base.safetensors"
    import_checkpoint(tmp_path / "x.pth", dialect.name, out, model="small", save_base=base)
    predictor = samtune.load(out, base=base).predictor()
    boxes = torch.tensor([[60.0, 40, 200, 150], [10, 5, 120, 90]])
    point = {"points": torch.tensor([[[30.0, 40]]]), "labels": torch.ones(1, 1)}
    for i, asked in enumerate([{"boxes": boxes}, point]):
        predictor.set_image(IMAGES[i].permute(1, 2, 0).byte().numpy())
        logits = predictor.answer(Prompts.of(**asked), return_logits=True)[0]
        check(logits, GOLDEN[f"S.{letter}"][f"pred_{i}"], 1e-4)
