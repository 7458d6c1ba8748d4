"""Decoder tuning against numbers measured on Kyyle2114's code with MobileSAM filled by rule."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import deterministic
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from tiny_vit_golden import TINY, base, check, classifier, mobile_sam

from samtune.data import DataConfig, PromptConfig, SegmentationDataset, fit_geometry, fit_image
from samtune.data.draws import Draws
from samtune.data.labels import extents
from samtune.data.prompters import Objects, Sampling, sample_box
from samtune.data.sources import Record
from samtune.decoders.base import Features
from samtune.evaluation.streaming import evaluate
from samtune.geometry import Geometry
from samtune.losses import Loss
from samtune.metrics.config import EvalConfig
from samtune.model.feature_cache import FeatureCache
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts
from samtune.published.scaled_boxes import scaled_boxes
from samtune.runs.words import from_words
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS
from samtune.training import engine
from samtune.training.engine import fit
from samtune.training.schedule import FitConfig

SIZE = (96, 120)
LARGE = torch.tensor([[100.0, 60, 119, 95]])
IDLE = ("iou_prediction_head", *(f"output_hypernetworks_mlps.{i}" for i in (1, 2, 3)))


def images() -> list[np.ndarray]:
    """The two pictures, uint8 RGB."""
    raw = [deterministic.u01(f"raw{i}", SIZE[0] * SIZE[1] * 3) for i in (0, 1)]
    return [np.floor(u * 256).astype(np.uint8).reshape(*SIZE, 3) for u in raw]


def masks() -> np.ndarray:
    """Their 0/1 masks."""
    both = np.zeros((2, *SIZE), np.uint8)
    both[0, 20:50, 30:80] = 1
    both[1, 60:96, 100:120] = 1
    return both


def drawn(mask: np.ndarray, train: bool = False, **config) -> list[float]:
    objects = Objects(mask, mask, 1)
    settings = PromptConfig(box_scale=1.0, **config)
    draw = Sampling(settings, train, Draws(np.random.default_rng(0)), (256, 256))
    return sample_box(objects, np.array([0]), draw).boxes()[0].tolist()


@pytest.mark.parametrize(
    ("rows", "columns", "scale", "box"),
    [
        ((2, 4), (3, 8), 1, [3, 2, 9, 5]),
        ((2, 4), (3, 8), 2, [0, 1, 12, 7]),
        ((2, 4), (3, 8), 1.5, [2, 2, 11, 6]),
        ((0, 2), (0, 3), 2, [0, 0, 8, 6]),
        ((5, 9), (15, 19), 1, [15, 5, 19, 9]),
        ((0, 9), (0, 19), 1, [0, 0, 19, 9]),
        ((9, 9), (19, 19), 1, [19, 9, 19, 9]),
        (None, None, 1, [0, 0, 0, 0]),
    ],
)
def test_boxes_as_published(rows, columns, scale, box):
    mask = np.zeros((10, 20), np.uint8)
    if rows is not None:
        mask[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = 1
    assert scaled_boxes(extents(mask, 1), mask.shape, scale).tolist() == [box]


def test_the_setting_for_boxes_reaches_training_and_evaluation():
    small, large = masks()
    assert drawn(small) == drawn(small, True, box_jitter=0) == [30, 20, 80, 50]
    assert drawn(large) == drawn(large, True, box_jitter=0) == LARGE[0].tolist()
    assert drawn(large, True, box_jitter=0.1) != LARGE[0].tolist()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_scales_that_make_no_box_are_refused(refused, scale):
    refused("box_scale", PromptConfig, box_scale=scale)


def test_images_enter_as_published():
    pixels, geometry = fit_image(images()[0], (1024, 1024))
    assert geometry.resized == (819, 1024)
    content = pixels[:, :819].int()
    for place, wanted in (((0, 0), (249, 171, 37)), ((500, 500), (103, 214, 109))):
        # Another line of Pillow may round otherwise.
        assert content[:, *place].tolist() == pytest.approx(wanted, abs=1)
    assert float(content.double().mean()) == pytest.approx(127.7735, abs=1e-3)
    with shapes_alone():
        sam = Sam(SPECS["vit_t"])
    normed = sam.preprocess(pixels[None], torch.tensor([geometry.resized]))
    check(normed, 0.1849996, 0.7834835, 2.64, (2.14616,))
    assert not normed[..., 819:, :].any()


def test_prompts_enter_as_published():
    sam = mobile_sam()
    prompts = Prompts.of(boxes=LARGE).to_model(fit_geometry(SIZE, (1024, 1024)))
    wanted = [853.33333333, 511.875, 1015.46666667, 810.46875]
    assert prompts.boxes()[0].tolist() == pytest.approx(wanted, rel=1e-7)
    embedded = sam.prompt_encoder(prompts, (1024, 1024), (64, 64))
    assert embedded.sparse.shape == (1, 2, 256)
    first = (0.343295, -0.531299, -0.578452)
    check(embedded.sparse, 0.3116989, 0.6559391, None, first)
    positions = sam.prompt_encoder.dense_positions((64, 64))
    check(positions, 0.3404175, 0.6197709, None, (-0.987111, -0.981878, -0.975766))


class Run(NamedTuple):
    """What was measured of two steps on the two pictures."""

    first: tuple[float, float]
    """BCE and IoU loss."""
    overlap: tuple[float, float]
    """Dice and IoU of the masks."""
    second: tuple[float, float]
    """BCE and IoU loss after a step."""
    gradients: dict[str, float]
    """2-norms by name, and of the whole decoder."""


RUNS = {
    "stored": Run(
        (0.8331147, 0.9107008), (0.1667265, 0.0919124), (0.3856762, 0.9307997), gradients={}
    ),
    # As published: the frozen encoder normalises by the batch.
    "batch": Run(
        (0.7036468, 0.9121020),
        (0.1592163, 0.0875422),
        (0.3622931, 0.9356524),
        {"": 7.868961, "mask_tokens.weight": 0.1106948, "output_upscaling.3.weight": 1.003528},
    ),
}


def written(folder: Path) -> list[Record]:
    """The pictures and their masks as files."""
    records = []
    for i, (image, mask) in enumerate(zip(images(), masks(), strict=True)):
        files = [folder / f"{part}{i}.png" for part in ("image", "mask")]
        for file, array in zip(files, (image, mask), strict=True):
            Image.fromarray(array).save(file)
        records.append(Record(*files, str(i)))
    return records


def pictures(records: list[Record], train: bool) -> SegmentationDataset:
    prompts = PromptConfig(train="box", eval="box", box_jitter=0, box_scale=1)
    config = DataConfig(masks="binary", augment="none")
    return SegmentationDataset(records, config, (1024, 1024), prompts=prompts, train=train)


def check_fit(model: FineTuned, records: list[Record], golden: Run, **more) -> None:
    """Two steps of ``samtune.fit`` on the pictures as files."""
    rows = []
    config = FitConfig(
        max_steps=2,
        batch_size=2,
        lr=2e-4,
        warmup=0,
        weight_decay=0.01,
        decay_vectors=True,
        loss="bce + iou",
        loss_at="image",
        clip=0,
        log_every=1,
        **more,
    )
    fit(model, pictures(records, True), None, config, on_event=rows.append, device="cpu")
    assert rows[0]["loss"] == pytest.approx(sum(golden.first), abs=1e-5)
    assert rows[1]["loss"] == pytest.approx(sum(golden.second), abs=1e-3)


@pytest.mark.slow
@pytest.mark.golden("tuned")
def test_training_as_published(tmp_path, monkeypatch):
    """With statistics of the batch, from files; then by hand on what the first step encoded."""
    golden, model = RUNS["batch"], FineTuned(mobile_sam(), "batch_norm", "tuned")
    encode, seen = model.encode, []

    def watched(pixels):
        features = encode(pixels)
        seen.append((pixels, features, means().clone()))
        return features

    def means():
        return model.adapter.statistics["patch_embed-seq-0"].running_mean[:3]

    monkeypatch.setattr(model, "encode", watched)
    check_fit(model, written(tmp_path), golden)
    assert len(seen) == 2

    fitted = [fit_image(image, (1024, 1024)) for image in images()]
    geometry, sizes = fitted[0][1], torch.tensor([fitted[0][1].resized] * 2)
    mine = model.sam.preprocess(torch.stack([p for p, _ in fitted]), sizes)
    pixels, features, after_one = seen[0]
    order = [0, 1] if torch.equal(pixels[0], mine[0]) else [1, 0]
    assert torch.equal(pixels[order], mine)
    assert after_one.tolist() == pytest.approx([0.00984562, 0.0347126, -0.0396975], abs=1e-5)
    check_by_hand(replace(features, embedding=features.embedding[order]), geometry, golden)


def check_by_hand(features: Features, geometry: Geometry, golden: Run) -> None:
    """Two steps of a decoder on the features of both pictures, term by term."""
    model = FineTuned(mobile_sam(), "batch_norm", "tuned").train()
    target = torch.from_numpy(masks()).float()
    boxes = torch.tensor([drawn(mask) for mask in masks()])
    prompts = Prompts.of(boxes=boxes, image=torch.arange(2)).to_model(geometry)
    everywhere = [torch.ones(mask.shape, dtype=torch.bool) for mask in masks()]
    batch = tiny.own_size(prompts, [geometry] * 2, list(target[:, None].bool()), everywhere)

    def losses():
        found = model.decoder(model.sam, features, prompts)
        terms = [Loss.parse(term, "image")(found, batch) for term in ("bce", "iou")]
        return geometry.masks_to_original(found.logits)[:, 0], torch.stack(terms)

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    z, terms = losses()
    assert overlap(z > 0, target) == pytest.approx(golden.overlap, abs=2e-5)
    assert terms.tolist() == pytest.approx(golden.first, abs=1e-5)
    terms.sum().backward()
    check_gradients(model, golden.gradients)
    optimizer.step()
    with torch.no_grad():
        assert losses()[1].tolist() == pytest.approx(golden.second, abs=1e-3)


@pytest.mark.slow
def test_training_as_published_with_the_stored_statistics(tmp_path, monkeypatch):
    """Plain SAM before, and two steps; one cache, so that each picture is encoded once."""
    golden, records = RUNS["stored"], written(tmp_path)
    model, cache = FineTuned(base(SPECS["vit_t"]), "none", "tuned"), FeatureCache(2**28)
    monkeypatch.setattr(engine, "feature_cache", lambda *how: cache)
    model.cache = cache
    metrics = ("dice_kyyle", "iou_kyyle")
    measuring = EvalConfig(metrics=metrics)
    found = evaluate(model, pictures(records, False), measuring=measuring).metrics
    assert [found[name] for name in metrics] == pytest.approx(golden.overlap, abs=2e-5)
    check_fit(model, records, golden, feature_cache=2**28)
    assert len(cache) == 2


def overlap(found: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
    """Dice and IoU, smoothed as published; a pixel at the threshold may fall either way."""
    both, sums = (found * target).sum((1, 2)), found.sum((1, 2)) + target.sum((1, 2))
    dice, jaccard = (2 * both + 1e-3) / (sums + 1e-3), (both + 1e-3) / (sums - both + 1e-3)
    return float(dice.mean()), float(jaccard.mean())


def check_gradients(model: FineTuned, golden: dict[str, float]) -> None:
    parameters = model.decoder.mask_decoder.named_parameters()
    norms = {name: p.grad.norm() for name, p in parameters if p.grad is not None}
    norms[""] = torch.stack(list(norms.values())).norm()
    assert {name: float(norms[name]) for name in golden} == pytest.approx(golden, rel=1e-4)


def test_half_of_the_heads_learn_nothing():
    model = FineTuned(base(), "none", "tuned")
    pixels = deterministic.tensor("pixels", (1, 3, 64, 64), 0, 255)
    box = Prompts.of(boxes=torch.tensor([[10.0, 12, 40, 50]]))
    model(pixels, box).logits.square().mean().backward()
    idle = {n for n, p in model.decoder.mask_decoder.named_parameters() if p.grad is None}
    assert idle
    assert all(name.startswith(IDLE) for name in idle)
    tokens = model.decoder.mask_decoder.mask_tokens.weight.grad
    assert (tokens.norm(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("name", "total", "encoder", "keys", "tensors"),
    [
        ("vit_b", 93_735_472, 89_670_912, 314, 313),
        ("vit_l", 312_342_832, 308_278_272, 482, 481),
        ("vit_h", 641_090_608, 637_026_048, 594, 593),
        ("vit_t", 10_130_092, 6_065_532, 439, 357),
    ],
)
def test_sizes(name, total, encoder, keys, tensors):
    with shapes_alone():
        sam = Sam(SPECS[name]).freeze()
        model = FineTuned(sam, "none", "tuned")

    def count(module):
        return sum(p.numel() for p in module.parameters())

    dead = classifier() if name == "vit_t" else {}
    extra = sum(t.numel() for t in dead.values())
    assert count(sam) + extra == total
    assert count(sam.image_encoder) + extra == encoder
    assert count(sam.prompt_encoder) == 6_220
    assert model.trainable() == 4_058_340
    assert len(list(model.parameters())) == 120
    assert len(sam.state_dict()) + len(dead) == keys
    assert len(list(sam.parameters())) + len(dead) == tensors
    idle = [p for n, p in model.decoder.mask_decoder.named_parameters() if n.startswith(IDLE)]
    assert (len(idle), sum(p.numel() for p in idle)) == (24, 132_612 + 419_424)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["none", "batch_norm"])
def test_the_recipe_trains_and_predicts(samtune, pairs, tmp_path, monkeypatch, adapter):
    monkeypatch.setitem(SPECS, TINY.name, TINY)
    state = {name: tensor.clone() for name, tensor in base().state_dict().items()}
    torch.save(state | classifier(32), tmp_path / "mobile_sam.pt")
    words = [f"base.name={TINY.name}", f"base.weights={tmp_path / 'mobile_sam.pt'}", "--json"]
    data = [f"data.root={pairs}", "data.split=all"]
    run = ["decoder-vit_t", "input.size=64", "train.epochs=1", f"adapter.name={adapter}"]
    answer = samtune("train", *run, *data, f"output={tmp_path / 'run'}", *words)
    assert answer.code == 0, answer.err
    assert answer.json["trainable_parameters"] > 0
    checkpoint = answer.json["checkpoint"]
    answer = samtune("eval", checkpoint, *data, *words)
    assert answer.code == 0, answer.err
    assert 0 <= answer.json["tuned"]["iou"] <= 1
    wrong = samtune("train", *run, *data, *words, "adapter.name=vpt")
    assert "base.name=tiny_t: vpt needs blocks that attend to extra tokens" in wrong.line


@pytest.mark.parametrize(
    ("name", "epochs", "batch"),
    [("vit_b", 10, 1), ("vit_l", 10, 1), ("vit_h", 5, 4), ("vit_t", 10, 1)],
)
def test_the_recipes_are_the_published_form(name, epochs, batch):
    config = from_words([f"decoder-{name}", "base.weights=none.pth"])
    assert (config.base.name, config.adapter, config.decoder["name"]) == (
        name,
        {"name": "none"},
        "tuned",
    )
    prompts, train = config.prompts, config.train
    assert (prompts.train, prompts.eval, prompts.box_jitter, prompts.box_scale) == (
        "box",
        "box",
        0,
        1,
    )
    assert (train.epochs, train.batch_size, train.patience) == (epochs, batch, epochs // 2)
    assert (train.lr, train.weight_decay, train.loss) == (2e-4, 0.01, "bce + iou")
    assert (config.input.size, config.input.resize, config.seed) == (1024, "longest", 21)
