"""A file as each system writes it, imported and asked about a picture: the system's own answer.

Names and shapes come from ``published_files``, values from the names; so a file owes nothing to the
dialect that reads it. The network is then held to the published numbers, and what a predictor
answers to that network with the picture brought in and out as the system does it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import deterministic
import gsam_reference
import numpy as np
import published_files as files
import pytest
import sam_adapter_kyyle_numbers
import sam_adapter_numbers
import tiny
import tiny_vit_golden
import torch
import torch.nn.functional as F
import ts_sam_reference
from PIL import Image
from safetensors.torch import save_file
from sam_adapter_golden import SMALL, check
from scipy.ndimage import zoom
from torch import Tensor

import samtune
from samtune.foreign import import_checkpoint
from samtune.losses import bce
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts
from samtune.sam.spec import SPECS, SamSpec
from samtune.sam.weights import from_state

PICTURE = np.random.RandomState(11).randint(0, 256, (90, 130, 3)).astype(np.uint8)
BOX = (20.0, 10.0, 100.0, 70.0)
OFFICIAL = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
GSAM = tuple([255 * v for v in part] for part in ((0.466, 0.471, 0.38), (0.195, 0.194, 0.192)))
Fill = Callable[[str, tuple[int, ...]], Tensor]


def resized(*sizes: tuple[int, int]) -> Tensor:
    """The picture as Pillow resizes it, which smooths what it makes smaller; ``(1, 3, h, w)``."""
    picture = Image.fromarray(PICTURE)
    for size in sizes:
        picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None].float()


def normalised(x: Tensor, constants) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in constants)
    return (x - mean) / std


def enlarged(logits: Tensor, *sizes: tuple[int, int]) -> Tensor:
    for size in sizes:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits


def network(model: FineTuned, x: Tensor, prompts: Prompts) -> Tensor:
    return model.decoder(model.sam, model.encode(x), prompts).logits


def stretched(model: FineTuned, side: tuple[int, int], constants=OFFICIAL) -> Tensor:
    x = normalised(resized(side), constants)
    return enlarged(network(model, x, Prompts.of(count=1)), side, PICTURE.shape[:2])


def padded(model: FineTuned, side: int) -> Tensor:
    """The longest side to ``side`` pixels, the box with it, zeros right and below."""
    scale = side / max(PICTURE.shape)
    h, w = (int(n * scale + 0.5) for n in PICTURE.shape[:2])
    x = F.pad(normalised(resized((h, w)), OFFICIAL), (0, side - w, 0, side - h))
    along = torch.tensor([w / PICTURE.shape[1], h / PICTURE.shape[0]] * 2)
    low = network(model, x, Prompts.of(boxes=torch.tensor([BOX]) * along))
    return enlarged(enlarged(low, (side, side))[..., :h, :w], PICTURE.shape[:2])


def imported(
    folder: Path, name: str, spec: SamSpec, fill: Fill, shapes: files.Shapes, second=None, **words
) -> FineTuned:
    """What a file of these tensors becomes, with a base of the same fill beside it."""
    state = {key: fill(key, shape) for key, shape in shapes.items()}
    state |= {key: state[first] for key, first in (second or {}).items()}
    torch.save(state, folder / "theirs.pth")
    base = {key: fill(key, shape) for key, shape in files.official(spec).items()}
    save_file(base, folder / "base.safetensors")
    out, base = folder / "x.safetensors", folder / "base.safetensors"
    import_checkpoint(folder / "theirs.pth", name, out, base=base, model=spec.name, **words)
    return samtune.load(out, base=base)


def predicted(model: FineTuned, **prompt) -> Tensor:
    predictor = model.predictor()
    predictor.set_image(PICTURE)
    prompts = Prompts.of(**prompt) if prompt else Prompts.of(count=1)
    return predictor.answer(prompts, return_logits=True)[0]


@dataclass
class System:
    """How to make a file, and what is known of the network in it."""

    spec: SamSpec
    fill: Fill
    shapes: Callable[[SamSpec], files.Shapes]
    golden: Callable[[FineTuned], None]
    answer: Callable[[FineTuned], Tensor]
    prompt: dict[str, Tensor]


def golden_ts_sam(model: FineTuned) -> None:
    seen = ts_sam_reference.tapped(model, ts_sam_reference.noise(0, 2, 3, 128, 128))
    ts_sam_reference.check(seen, ts_sam_reference.GOLDEN["eval"]["tiny"])


def golden_sam_adapter(model: FineTuned) -> None:
    pixels = deterministic.tensor("input", (2, 3, 1024, 1024), -2, 2)
    features = model.encode(pixels)
    check(features.embedding, sam_adapter_numbers.ENCODED)
    check(sam_adapter_numbers.decoded(model, features, 2), sam_adapter_numbers.LOGITS)


def golden_kyyle(model: FineTuned) -> None:
    pixels = deterministic.tensor("input", (2, 3, 1024, 1024), -2, 2)
    pixels[:, :, 768:] = 0
    check(model.encode(pixels).embedding, sam_adapter_kyyle_numbers.ENCODED)


def golden_gsam(model: FineTuned, case: str, size: tuple[int, int]) -> None:
    golden = gsam_reference.GOLDEN[f"tiny/{case}/{size[0]}x{size[1]}"]
    embedding, masks, full = gsam_reference.run(model, gsam_reference.image(size))
    for found, part in ((embedding, "E"), (masks.logits, "L"), (full, "M")):
        gsam_reference.assert_summary(found, golden[part])


SYSTEMS = {
    "ts_sam": System(
        ts_sam_reference.SMALL,
        ts_sam_reference.fill,
        lambda spec: files.ts_sam(spec, side=32, refined=2),
        golden_ts_sam,
        lambda model: stretched(model, (128, 128)),
        {},
    ),
    "sam_adapter": System(
        SMALL,
        deterministic.value,
        files.sam_adapter,
        golden_sam_adapter,
        lambda model: stretched(model, (1024, 1024)),
        {},
    ),
    "sam_adapter_kyyle": System(
        SMALL,
        deterministic.value,
        files.sam_adapter_kyyle,
        golden_kyyle,
        lambda model: padded(model, 1024),
        {"boxes": torch.tensor([BOX])},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
@torch.no_grad()
def test_a_file_answers_as_its_system(name, tmp_path, monkeypatch):
    system = SYSTEMS[name]
    monkeypatch.setitem(SPECS, system.spec.name, system.spec)
    shapes = system.shapes(system.spec)
    model = imported(tmp_path, name, system.spec, system.fill, shapes)
    system.golden(model)
    found = predicted(model, **system.prompt)
    torch.testing.assert_close(found, system.answer(model), rtol=0, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_a_file_of_generalized_sam_answers_as_its_system(tmp_path, monkeypatch):
    spec = gsam_reference.TINY
    monkeypatch.setitem(SPECS, spec.name, spec)
    shapes, second = files.gsam(spec)
    unused = ("image_encoder.cnn_embed.backbone.layer4.", "image_encoder.cnn_embed.backbone.fc.")
    short = {key: (1,) if key.startswith(unused) else shape for key, shape in shapes.items()}

    def fill(key, shape):
        counter = key.endswith("num_batches_tracked")
        return torch.tensor(0) if counter else gsam_reference.value(key, shape)

    model = imported(tmp_path, "gsam:gsam", spec, fill, short, second, size=(40, 72))
    golden_gsam(model, "GSAM/C2", (40, 72))
    answer = stretched(model, (40, 72), GSAM)
    torch.testing.assert_close(predicted(model), answer, rtol=0, atol=1e-4)


ROWS = {
    "gsam:sam": ("SAM", gsam_reference.PLAIN, 2),
    "gsam:lora": ("SAM_LoRA", gsam_reference.PLAIN, 5),
    "gsam:convlora": ("SAM_ConvLoRA", gsam_reference.PLAIN, 2),
    "gsam:adaptformer": ("SAM_AdaptFormer", gsam_reference.PLAIN, 5),
    "gsam:smadaptformer": ("SMAdaptFormer", gsam_reference.PLAIN, 2),
    # Its frame has 256 pixels whatever its base has.
    "gsam:samus": ("SAMUS", gsam_reference.TINY, 5),
}
SLOW = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=SLOW) if n == "gsam:samus" else n for n in ROWS]
)
@torch.no_grad()
def test_a_file_of_the_models_beside_generalized_sam(name, tmp_path, monkeypatch):
    (title, spec, classes), size = ROWS[name], (256, 256)
    monkeypatch.setitem(SPECS, spec.name, spec)
    shapes = files.gsam_row(spec, name.removeprefix("gsam:"), classes)
    model = imported(tmp_path, name, spec, gsam_reference.value, shapes)
    golden_gsam(model, f"{title}/C{classes}", size)
    answer = stretched(model, size, GSAM)
    assert answer.shape[1] == (1 if classes == 2 else classes)
    torch.testing.assert_close(predicted(model), answer, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_file_of_trans10k_sees_images_by_way_of_another_size(tmp_path, monkeypatch):
    spec, first, size = gsam_reference.PLAIN, (52, 76), (256, 256)
    monkeypatch.setitem(SPECS, spec.name, spec)
    shapes = files.gsam_row(spec, "lora", 3)
    model = imported(tmp_path, "gsam:lora", spec, gsam_reference.value, shapes, first_size=first)
    low = network(model, normalised(resized(first, size), GSAM), Prompts.of(count=1))
    answer = enlarged(low, size, PICTURE.shape[:2])
    found = predicted(model)
    torch.testing.assert_close(found, answer, rtol=0, atol=1e-4)
    assert (found - stretched(model, size, GSAM)).abs().max() > 1e-2


@pytest.mark.slow
@torch.no_grad()
def test_generalized_sams_code_stretches_to_the_native_size(tmp_path, monkeypatch):
    spec = replace(gsam_reference.TINY, depth=1, global_blocks=())
    monkeypatch.setitem(SPECS, spec.name, spec)
    shapes = files.gsam_row(spec, "adaptformer")
    model = imported(tmp_path, "gsam:adaptformer", spec, gsam_reference.value, shapes)
    answer = stretched(model, (1024, 1024), GSAM)
    torch.testing.assert_close(predicted(model), answer, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["mobile_sam", "micro_sam"])
@torch.no_grad()
def test_a_file_that_is_a_base_answers_as_sam(name, tmp_path, monkeypatch):
    spec = tiny_vit_golden.TINY if name == "mobile_sam" else tiny.TINY
    monkeypatch.setitem(SPECS, spec.name, spec)
    state = {k: deterministic.value(k, shape) for k, shape in files.official(spec).items()}
    if name == "mobile_sam":
        file = state | tiny_vit_golden.classifier(spec.embed_dim)
    else:
        file = {"model_state": {f"sam.{key}": t for key, t in state.items()}, "epoch": 3}
    torch.save(file, tmp_path / "theirs.pth")
    out, base = tmp_path / "x.safetensors", tmp_path / "base.safetensors"
    import_checkpoint(tmp_path / "theirs.pth", name, out, save_base=base, model=spec.name)
    model = samtune.load(out, base=base)
    held = model.sam.state_dict()
    assert all(torch.equal(held[key], t) for key, t in state.items())
    found = predicted(model, boxes=torch.tensor([BOX]))
    torch.testing.assert_close(found, padded(model, 64), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "totals"), [("t", (582, 966, 1222)), ("a", (614, 990, 1246))])
def test_a_file_of_cat_sam_is_read_whole(variant, totals, tmp_path, monkeypatch):
    """Every tensor under its own name; its answers are those of ``test_cat_sam.py``."""
    for name, total in zip(("vit_b", "vit_l", "vit_h"), totals, strict=True):
        first, second = files.cat_sam(SPECS[name], variant)
        assert len(first.keys() | second.keys()) == len(first) + len(second) == total
    spec = SMALL
    monkeypatch.setitem(SPECS, spec.name, spec)
    shapes, second = files.cat_sam(spec, variant)

    def fill(key: str, shape: tuple[int, ...]) -> Tensor:
        return deterministic.value(key.removeprefix("ori_sam."), shape)

    model = imported(tmp_path, f"cat_sam_{variant}", spec, fill, shapes, second)
    ours = {name: parameter.detach() for name, parameter in model.named_parameters()}
    frozen = files.official(spec)
    theirs = {k: fill(k, s) for k, s in shapes.items() if k.removeprefix("ori_sam.") not in frozen}
    missing = [
        key
        for key, value in theirs.items()
        if not any(o.numel() == value.numel() and torch.equal(o.flatten(), value.flatten())
                   for o in ours.values())
    ]  # fmt: skip
    assert not missing and len(theirs) == sum(p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_a_file_of_samed_answers_as_its_network(tmp_path, monkeypatch):
    spec, size, rank = SMALL, (128, 192), 4
    monkeypatch.setitem(SPECS, spec.name, spec)
    shapes = files.samed(spec, rank, classes=5)
    model = imported(tmp_path, "samed", spec, deterministic.value, shapes, size=size)
    (h, w), there = size, PICTURE.shape[:2]
    channels = PICTURE.transpose(2, 0, 1) / 255
    zoomed = [zoom(channel, (h / there[0], w / there[1]), order=3) for channel in channels]
    x = torch.tensor(np.stack(zoomed))[None].float()
    # Queries' and values' rows of each frozen projection with the product of their pair added.
    base = {k: deterministic.value(k, shape) for k, shape in files.official(spec).items()}
    for number in range(2 * spec.depth):
        down, up = (
            deterministic.value(key, shapes[key])
            for key in (f"w_a_{number:03d}", f"w_b_{number:03d}")
        )
        weight = base[f"image_encoder.blocks.{number // 2}.attn.qkv.weight"]
        rows = slice(0, spec.embed_dim) if number % 2 == 0 else slice(2 * spec.embed_dim, None)
        weight[rows] += up @ down
    merged = from_state(spec, base).image_encoder(x)
    features = model.encode(x)
    torch.testing.assert_close(features.embedding, merged, rtol=0, atol=1e-4)
    low = model.decoder(model.sam, replace(features, embedding=merged), Prompts.of(count=1)).logits
    framed = enlarged(low, size)[0].numpy()
    answer = np.stack([zoom(of, (there[0] / h, there[1] / w), order=0) for of in framed])
    torch.testing.assert_close(predicted(model)[0], torch.tensor(answer), rtol=0, atol=1e-4)
    assert len(answer) == 5


@pytest.mark.slow
@torch.no_grad()
def test_a_file_of_decoder_tuning_gives_the_published_losses(tmp_path):
    """The published evaluation, from two pictures and their boxes to BCE and Dice."""
    base, spec = tiny_vit_golden.mobile_sam(), SPECS["vit_t"]
    state = {
        key: deterministic.value(key, shape)
        for key, shape in files.official(spec, "mask_decoder.").items()
    }
    torch.save(state, tmp_path / "theirs.pth")
    # The base's own decoder holds other numbers, which the file's must take the place of.
    other = {k: t * 0.5 if k.startswith("mask_d") else t for k, t in base.state_dict().items()}
    save_file({key: t.clone() for key, t in other.items()}, tmp_path / "base.safetensors")
    out, weights = tmp_path / "x.safetensors", tmp_path / "base.safetensors"
    import_checkpoint(tmp_path / "theirs.pth", "sam_finetune_kyyle", out, base=weights)
    predictor, losses, dice = samtune.load(out, base=weights).predictor(), [], []
    parts = ((20, 50, 30, 80), [30.0, 20, 80, 50]), ((60, 96, 100, 120), [100.0, 60, 119, 95])
    for i, ((top, below, left, right), box) in enumerate(parts):
        raw = np.floor(deterministic.u01(f"raw{i}", 96 * 120 * 3) * 256)
        predictor.set_image(raw.astype(np.uint8).reshape(96, 120, 3))
        prompts = Prompts.of(boxes=torch.tensor([box]))
        logits = predictor.answer(prompts, return_logits=True)[0][0]
        target = torch.zeros(1, 96, 120)
        target[:, top:below, left:right] = 1
        losses.append(float(bce(logits, target, torch.ones_like(target, dtype=torch.bool))))
        inside = logits > 0
        both = inside.sum() + target.sum()
        dice.append(float((2 * (inside * target).sum() + 1e-3) / (both + 1e-3)))
    assert np.mean(losses) == pytest.approx(0.8331147, abs=1e-5)
    assert np.mean(dice) == pytest.approx(0.1667265, abs=1e-5)


@pytest.mark.parametrize(
    ("shapes", "count"),
    [
        (files.sam_adapter(SPECS["vit_b"]), 329),
        (files.sam_adapter(SPECS["vit_h"]), 649),
        # The layer that all prompts share stands there once more for each; and the frozen base.
        (files.sam_adapter_kyyle(SPECS["vit_b"]), 372 - 2 * 13 - (314 - 120)),
        (files.ts_sam(SPECS["vit_b"], 256, 12), 835),
        (files.ts_sam(SPECS["vit_b"], 256, 12, fft=True), 837),
        (files.ts_sam(SPECS["vit_h"], 256, 12), 1395),
        (files.gsam(SPECS["vit_b"])[0] | files.gsam(SPECS["vit_b"])[1], 1672),
    ],
)
def test_as_many_tensors_as_in_the_published_files(shapes, count):
    assert len(shapes) == count
