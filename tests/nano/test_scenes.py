"""The scenes nano is trained on, the prompts drawn from them, and the trainer itself."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))

import camera
import canvas
import initial
import objective
import plain_scenes
import prompts
import scenes
import scope
import train_nano
from safetensors.torch import save_file
from torch.optim import _muon

from samtune.ops import resize
from samtune.prompts import ABSENT, NEGATIVE, POSITIVE
from samtune.sam.mask_decoder import DecoderAttention
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

FAMILIES = range(len(scenes.FAMILIES))
RICH, PLAIN = prompts.Mixture(0, 1, 0), prompts.Mixture(0, 0, 1)


@pytest.fixture(autouse=True)
def own_tables(monkeypatch):
    """The trainer replaces these functions; no other test may see that."""
    monkeypatch.setattr(resize, "relative", resize.relative)
    name = "_zeropower_via_newtonschulz"
    monkeypatch.setattr(_muon, name, getattr(_muon, name))


@pytest.fixture(scope="module")
def batch():
    return prompts.batch(3, 0, 64, RICH, None, (4, 6))


@pytest.mark.parametrize("family", FAMILIES)
def test_scene_depends_on_seed_and_index_alone(family):
    first, again = scenes.scene(5, 9, family=family), scenes.scene(5, 9, family=family)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    other = scenes.scene(5, 10, family=family)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_are_maps_of_objects_of_some_size(family):
    found = 0
    for index in range(4):
        image, labels = scenes.scene(1, index, family=family)
        assert image.shape == (256, 256, 3) and image.dtype == np.uint8
        assert labels.shape == (3, 256, 256) and labels.dtype == np.int16 and labels.min() >= 0
        wholes, areas = np.unique(labels[scenes.WHOLE], return_counts=True)
        found += (wholes > 0).sum()
        names, total = np.unique(labels, return_counts=True)
        assert (total[names > 0] >= scenes.SMALLEST).all()
        assert areas.sum() == 256 * 256
    assert found >= 4


def test_families_differ_in_what_they_hold():
    def objects(family):
        return np.mean(
            [len(np.unique(scenes.scene(2, i, family=family).labels[0])) for i in range(6)]
        )

    assert objects(2) > 3 * objects(4)  # fields of bodies, single protrusions


def test_later_paint_hides_earlier_labels():
    picture = canvas.Canvas(np.zeros((256, 256, 3), np.uint8))
    cover = np.full((20, 20), 255, np.uint8)
    red, blue = np.full((20, 20, 3), (200, 0, 0)), np.full((20, 20, 3), (0, 0, 200))
    picture.paint((10, 10, 20, 20), cover, red, (1, 0, 0))
    picture.paint((20, 10, 20, 20), cover, blue, (2, 3, 0))
    assert (picture.labels[scenes.WHOLE] == 1).sum() == 200
    assert (picture.labels[scenes.WHOLE] == 2).sum() == 400
    assert (picture.labels[scenes.PART] == 3).sum() == 400
    assert picture.image[15, 15].tolist() == [200, 0, 0]
    assert picture.image[15, 25].tolist() == [0, 0, 200]


def test_half_covered_edge_is_where_the_label_ends():
    picture = canvas.Canvas(np.zeros((256, 256, 3), np.uint8))
    cover = np.tile(np.linspace(0, 255, 20).astype(np.uint8), (4, 1))
    picture.paint((0, 0, 4, 20), cover, np.full((4, 20, 3), 200), (1, 0, 0))
    labelled = picture.labels[scenes.WHOLE, 0, :20] == 1
    assert np.array_equal(labelled, picture.image[0, :20, 0] >= 100)


def test_clicks_lie_on_the_side_their_label_says(batch):
    rows = torch.arange(len(batch.labels))
    checked = 0
    for slot in range(prompts.SLOTS):
        x, y = batch.coords[:, slot].long().unbind(1)
        inside = batch.targets[rows, y.clamp(0, 63), x.clamp(0, 63)]
        label = batch.labels[:, slot]
        assert inside[label == POSITIVE].all()
        assert not inside[label == NEGATIVE].any()
        checked += int(((label == POSITIVE) | (label == NEGATIVE)).sum())
    assert checked > len(rows) // 3


def test_tight_box_holds_the_mask_and_jitter_stays_near():
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), bool)
    mask[10:31, 20:41] = True
    box = prompts.tight_box(mask)
    assert box.tolist() == [20, 10, 40, 30]
    noisy = np.stack([prompts.jittered(rng, box, 64) for _ in range(200)])
    assert np.abs(noisy - box).max() <= 20
    assert not (noisy == box).all(1).any()
    asked = [prompts.prompt(rng, mask, prompts.BOX, 0.5)[0][:2].ravel() for _ in range(200)]
    assert 0.35 < (np.stack(asked) == box).all(1).mean() < 0.65


@pytest.mark.parametrize("mixture", [RICH, PLAIN])
@pytest.mark.parametrize("size", prompts.SHAPES)
def test_batch_has_the_shapes_it_says(size, mixture):
    made = prompts.batch(1, 2, size, mixture, None, (2, 3))
    assert made.pixels.shape == (2, 3, size, size) and made.pixels.dtype == torch.uint8
    assert made.targets.shape == (6, size, size) and made.targets.flatten(1).any(1).all()
    assert made.coords.shape == (6, prompts.SLOTS, 2) and made.kinds.shape == (6,)
    assert made.edges.shape == (2, size, size)
    assert (made.labels[made.kinds == prompts.BOX][:, 2:] == ABSENT).all()


def test_plain_pictures_are_asked_once_for_all_of_their_objects():
    made = prompts.batch(1, 2, 64, PLAIN, None, (3, 4))
    asked = made.kinds.unflatten(0, (3, 4)) == prompts.WHOLE_PICTURE
    assert asked[:, 0].all() and not asked[:, 1:].any()
    targets, labels = made.targets.unflatten(0, (3, 4)), made.labels.unflatten(0, (3, 4))
    assert (labels[:, 0] == ABSENT).all()
    assert (targets[:, 1:] <= targets[:, :1]).all()
    assert not (prompts.batch(1, 2, 64, RICH, None, (3, 4)).kinds == prompts.WHOLE_PICTURE).any()


def test_without_a_prompt_the_largest_object_is_meant():
    labels = np.zeros((8, 8), int)
    labels[:2, :2], labels[4:, 4:] = 3, 7
    assert np.array_equal(prompts.largest(labels), labels == 7)
    assert not prompts.largest(np.zeros((8, 8), int)).any()
    made = prompts.batch(1, 2, 64, prompts.Mixture(0, 1, 0, 0, 1), None, (3, 4))
    assert (made.kinds.unflatten(0, (3, 4))[:, 0] == prompts.WHOLE_PICTURE).all()


def test_curriculum_goes_from_plain_to_rich_and_drops_the_question_without_a_prompt():
    settings = train_nano.Settings(exact=0.9, loose=0.1, dark=0.2, scopes=0.3, faint=0.4)
    shares = [train_nano.curriculum(p, settings) for p in (0, 0.2, 0.5, 0.65, 1)]
    assert [m.rich for m in shares] == pytest.approx([0, 0, 0.5, 0.5, 0.5])
    assert shares[0].whole == 1 and shares[3].whole == shares[4].whole == 0
    assert shares[0].full < shares[4].full
    assert [m.exact for m in shares] == pytest.approx([1 / 3, 1 / 3, 0.9, 0.9, 0.9])
    assert all((m.loose, m.dark, m.scopes, m.faint) == (0.1, 0.2, 0.3, 0.4) for m in shares)


def test_views_of_a_scope_depend_on_seed_and_index_alone():
    objects = 0
    for index in range(6):
        first, again = (scenes.scene(6, index, scopes=1.0) for _ in range(2))
        assert np.array_equal(first.image, again.image)
        assert np.array_equal(first.labels, again.labels)
        objects += first.labels[0].any()
    assert objects >= 3


def test_a_scopes_frame_hides_labels_where_it_hides_the_picture(monkeypatch):
    monkeypatch.setattr(scope, "_writing", lambda canvas, rng: None)
    shares = []
    for seed in range(20):
        white = canvas.Canvas(np.full((256, 256, 3), 255, np.uint8))
        white.labels[:] = 1
        scope._frame(white, np.random.default_rng(seed))
        hidden = (white.image != 255).any(-1)
        assert (white.labels == ~hidden).all()
        shares.append(hidden.mean())
    assert max(shares) > 0.25 and min(shares) < 0.15


def test_a_careless_box_holds_the_tight_one():
    rng, box = np.random.default_rng(0), np.array([20, 30, 50, 45], np.float32)
    drawn = np.array([prompts.loosened(rng, box, 64) for _ in range(200)])
    assert (drawn[:, :2] <= box[:2]).all() and (drawn[:, :2] >= 0).all()
    assert (drawn[:, 2:] >= box[2:]).all() and (drawn[:, 2:] <= 63).all()
    assert 0.35 < (drawn != box).mean() < 0.65
    large, small = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    large[10:40, 10:40], small[10:14, 10:14] = True, True
    boxes = [
        {tuple(prompts.prompt(rng, m, prompts.BOX, 1.0, 0.5)[0][:2].ravel()) for _ in range(30)}
        for m in (large, small)
    ]
    assert len(boxes[0]) > 5 and boxes[1] == {(10, 10, 13, 13)}


def test_underexposed_pictures_are_dim_copies():
    made = prompts.batch(1, 2, 64, PLAIN, None, (3, 4))
    dim = prompts.batch(1, 2, 64, PLAIN._replace(dark=1.0), None, (3, 4))
    assert dim.pixels.float().mean() < 0.7 * made.pixels.float().mean()
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    for seed in range(20):
        dimmed = camera.underexposed(np.random.default_rng(seed), picture)
        assert dimmed.dtype == np.uint8 and 10 < dimmed.max() < 0.61 * 255
        assert (np.diff(dimmed[..., 0].ravel().astype(int)) >= 0).all()


def test_padding_holds_neither_pixels_nor_labels():
    rng = np.random.default_rng(1)
    sizes = set()
    for _ in range(20):
        image, labels = np.full((32, 32, 3), 9, np.uint8), np.ones((3, 32, 32), np.int16)
        h, w = prompts.padded(rng, image, labels)
        sizes.add((h == 32, w == 32))
        assert image.sum() == 27 * h * w and labels.sum() == 3 * h * w
    assert len(sizes) == 3


@pytest.fixture
def sam():
    torch.manual_seed(0)
    sam = Sam(SPECS["nano"])
    for name, parameter in sam.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return sam


def test_plain_attention_agrees_with_the_decoder_s():
    torch.manual_seed(0)
    attention = DecoderAttention(32, 4, 2)
    q, k = torch.randn(3, 5, 32), torch.randn(3, 9, 32)
    present = torch.rand(3, 9) > 0.3
    for mask in (None, present):
        plain = objective._plain_attention(attention, q, k, k, mask)
        torch.testing.assert_close(plain, attention(q, k, k, mask))


@torch.no_grad()
def test_full_frame_is_encoded_as_the_base_does(sam):
    pixels, sizes = torch.randint(0, 256, (1, 3, 256, 256)), torch.tensor([[256, 200]])
    expected = sam.image_encoder(sam.preprocess(pixels, sizes))
    objective.prepare(sam, cpu=True)
    found = objective.encode(sam, pixels, sizes, objective.Frame(0, 0, 32))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_middle_of_a_table_keeps_the_meaning_of_offsets():
    table = torch.arange(63.0)[:, None]
    offsets = objective._middle(table, 16, 16)[..., 0] - 31
    at = torch.arange(16.0)
    assert torch.equal(offsets, at[:, None] - at)
    assert torch.equal(objective._middle(table, 32, 32), resize.relative(table, 32, 32))


def test_losses_reward_the_right_mask():
    target = torch.zeros(1, 16, 16)
    target[:, 4:12, 4:12] = 1
    right, wrong = 20 * (target - 0.5), -20 * (target - 0.5)
    loss, iou = objective.mask_losses(torch.stack([right, wrong], 1), target)
    assert loss[0, 0] < 0.05 < 0.9 < loss[0, 1]
    assert iou.tolist() == [[1.0, 0.0]]


def test_correction_clicks_where_the_mask_is_wrong(batch):
    frame = objective.Frame(4, 8, 8)
    rows = objective.first_rows(batch, frame)
    truth = rows.targets > 0.5
    predicted = torch.where(truth, 5.0, -5.0)
    predicted[0, truth[0]] = -5.0  # all of the first object is missed
    result = objective.Round(torch.zeros(()), predicted, torch.zeros(len(truth)))
    fixed = objective.corrected(rows, result, torch.arange(len(truth)), frame)
    x, y = ((fixed.coords[0, -1] - torch.tensor([64.0, 32.0])) // 2).long()
    assert fixed.labels[0, -1] == POSITIVE and truth[0, y, x]
    assert (fixed.labels[1:, -1] == ABSENT).all()
    assert torch.equal(fixed.masks[:, 0], predicted)


def test_patch_filters_are_unit_and_distinct():
    filters = initial.cosine_patches(128, 8).flatten(1)
    gram = filters @ filters.T
    torch.testing.assert_close(gram, torch.eye(128), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("shape", [(24, 60), (60, 24)])
def test_orthogonal_in_full_precision_agrees_with_torch_s_in_bfloat16(shape):
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    how = ((3.4445, -4.775, 2.0315), 5, 1e-7)
    torchs = _muon._zeropower_via_newtonschulz(grad, *how).float()
    ours = train_nano.orthogonal(grad, *how)
    assert ours.shape == grad.shape and ours.dtype == torch.float32
    assert (ours - torchs).norm() < 0.03 * torchs.norm()


def test_a_run_can_start_from_weights_at_a_part_of_its_schedule(tmp_path):
    settings = train_nano.Settings(minutes=10, begin=0.65, precision="fp32")
    trainer = train_nano.Trainer(settings, tmp_path, torch.device("cpu"))
    assert trainer.progress == pytest.approx(0.65)
    other = {key: torch.rand_like(t) for key, t in trainer.sam.state_dict().items()}
    save_file(other, tmp_path / "base.safetensors")
    trainer.start_from(tmp_path / "base.safetensors")
    for module in (trainer.sam, trainer.average):
        assert all(torch.equal(t, other[key]) for key, t in module.state_dict().items())


def test_faint_objects_differ_less_from_their_background():
    def contrast(share):
        found = []
        for seed in range(12):
            picture, labels = plain_scenes.plain_scene(np.random.default_rng(seed), 64, share)
            edge = np.diff(labels, axis=1) != 0
            found.append(np.abs(np.diff(picture.astype(float), axis=1)).mean(2)[edge].mean())
        return np.mean(found)

    assert contrast(1.0) < 0.6 * contrast(0.0)


@pytest.mark.slow
def test_a_step_learns_and_a_resumed_run_is_the_saved_one(tmp_path, batch):
    settings = train_nano.Settings(minutes=1, corrections_from=0, warmup=1, seed=7, faint=0.25)
    trainer = train_nano.Trainer(settings, tmp_path, torch.device("cpu"))
    before = {k: v.clone() for k, v in trainer.sam.state_dict().items()}
    trainer.schedule()
    log = [trainer.update(batch) for _ in range(3)]
    assert log[-1]["loss1"] < log[0]["loss1"]
    moved = {k for k, v in trainer.sam.state_dict().items() if not torch.equal(v, before[k])}
    still = {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"}
    assert set(before) - moved == still
    trainer.step, trainer.seconds = 3, 20.0
    trainer.save("last")
    trainer.save("last")
    assert json.loads((tmp_path / "last" / "state.json").read_text())["step"] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last"]
    assert train_nano.saved_settings(tmp_path) == settings
    again = train_nano.Trainer(settings, tmp_path, torch.device("cpu"))
    again.resume()
    assert (again.step, again.seconds) == (3, 20.0)
    for ours, theirs in ((trainer.sam, again.sam), (trainer.average, again.average)):
        for key, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[key]), key
    state = trainer.optimizers["muon"].state_dict()["state"]
    for index, entry in again.optimizers["muon"].state_dict()["state"].items():
        assert torch.equal(entry["momentum_buffer"], state[index]["momentum_buffer"])
