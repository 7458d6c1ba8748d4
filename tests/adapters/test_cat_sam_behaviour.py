"""CAT-SAM: published counts, initialisation and settings, and its bridge."""

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from PIL import Image

from samtune import InputError
from samtune.adapters import ADAPTERS
from samtune.adapters.cat_sam import CatSamA, CatSamT
from samtune.data import DataConfig, PromptConfig, SegmentationDataset
from samtune.data.labels import Labels, areas, label_objects
from samtune.data.prompters import Objects, Sampling, assign, sample_box, sample_mask, sample_point
from samtune.data.sources import Record
from samtune.data.transforms import cropped_rotated, fit
from samtune.decoders.hq import HqDecoder
from samtune.geometry import InputPolicy
from samtune.model.finetuned import FineTuned
from samtune.prompts import BOX_TOP_LEFT, POSITIVE
from samtune.published.seeded_workers import SEED, SeededWorkers
from samtune.runs.words import from_words, recipes
from samtune.sam.layers import shapes_alone
from samtune.sam.mask_decoder import MaskDecoder
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS
from samtune.training.schedule import learning_rate

LETTERS = "ta"
COUNTS = {
    ("t", "vit_b"): 1_867_520,
    ("t", "vit_l"): 3_325_440,
    ("t", "vit_h"): 4_784_128,
    ("a", "vit_b"): 1_466_960,
    ("a", "vit_l"): 1_848_128,
    ("a", "vit_h"): 2_246_480,
}
TENSORS = {"t": (73, 121, 153), "a": (105, 145, 177)}
FROZEN = (93_735_472, 312_342_832, 641_090_608)
BASES = ("vit_b", "vit_l", "vit_h")
PARTS = {
    "decoder.compress_vit_feat": (820_000, 1_082_144, 1_344_288),
    "decoder.hf_token": (256,) * 3,
    "decoder.hf_mlp": (139_808,) * 3,
    "decoder.embedding_encoder": (73_952,) * 3,
    "decoder.embedding_maskfeature": (37_088,) * 3,
    "adapter.bridges": (796_416, 1_992_192, 3_188_736),
    "adapter.up": (19_200, 33_792, 52_480),
    "adapter.embedding": (18_456, 32_800, 51_240),
    "adapter.tune": (7_200, 25_344, 52_480),
    "adapter.high_pass": (18_456, 24_608, 30_760),
    "adapter.bridge_down": (197_376, 263_168, 328_960),
    "adapter.bridge_up": (135_168,) * 3,
}


@pytest.mark.parametrize(("letter", "base"), COUNTS, ids=str)
def test_published_counts(letter, base):
    column = BASES.index(base)
    with shapes_alone():
        sam = Sam(SPECS[base]).freeze()
        model = FineTuned(sam, f"cat_sam_{letter}", "hq")
    assert model.trainable() == COUNTS[letter, base]
    assert len(list(model.parameters())) == TENSORS[letter][column]
    assert sum(p.numel() for p in sam.parameters()) == FROZEN[column]
    found: dict[str, int] = {}
    for name, p in model.named_parameters():
        part = ".".join(name.split(".")[:2])
        found[part] = found.get(part, 0) + p.numel()
    assert found == {part: PARTS[part][column] for part in found}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "token", "first"),
    [
        ("vit_b", [-0.592909, -1.014894, -2.136426, -0.053067], [-0.045757, 0.052999, -0.050171]),
        ("vit_l", [-0.358468, 0.803276, 0.842160, -1.911142], [-0.058383, 0.008217, -0.049086]),
    ],
)
def test_published_initialisation(base, token, first):
    torch.manual_seed(3407)
    sam = Sam(SPECS[base])
    MaskDecoder()  # the published model builds a second one before the new modules
    decoder = HqDecoder(sam, HqDecoder.Config())
    adapter = CatSamT(sam, CatSamT.Config())
    assert decoder.hf_token.weight[0, :4].tolist() == pytest.approx(token, abs=1e-6)
    assert adapter.bridges[0][0].weight[0, :3].tolist() == pytest.approx(first, abs=1e-6)


def test_initial_distributions_of_cat_sam_a():
    with shapes_alone():
        sam = Sam(SPECS["vit_b"])
    adapter = CatSamA(sam, CatSamA.Config())
    linears = [adapter.embedding, adapter.up, *adapter.tune]
    weights = torch.cat([linear.weight.flatten() for linear in linears])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)
    assert not torch.cat([linear.bias for linear in linears]).any()
    conv = adapter.high_pass.embed.proj
    assert conv.weight.std().item() == pytest.approx((2 / (256 * 24)) ** 0.5, rel=0.02)
    assert not conv.bias.any()
    for linear in (adapter.bridge_up, *adapter.bridge_down):
        bound = linear.in_features**-0.5
        assert 0.95 * bound < linear.weight.abs().max() <= bound
        assert linear.bias.any()


@pytest.mark.parametrize("letter", LETTERS)
def test_the_token_acts_on_the_encoder_and_is_stored_once(sam, letter):
    model = FineTuned(sam, f"cat_sam_{letter}", "hq").eval()
    x = sam.preprocess(tiny.pixels())
    before = model.encode(x).embedding
    with torch.no_grad():
        model.decoder.hf_token.weight.add_(1)
    assert not torch.equal(model.encode(x).embedding, before)
    assert [n for n in model.state_dict() if "token" in n] == ["decoder.hf_token.weight"]


@pytest.mark.parametrize("letter", LETTERS)
def test_only_a_decoder_with_a_token_fits(sam, refused, letter):
    name = f"cat_sam_{letter}"
    refused([name, "decoder=hq"], FineTuned, sam, name, "tuned")
    adapter = ADAPTERS[name](sam, ADAPTERS[name].Config())
    adapter.name = "own"  # a module of one's own is not checked by name
    x = sam.image_encoder.embed(tiny.pixels())
    refused("no token", adapter.begin, sam.image_encoder, tiny.pixels(), x, None)


@pytest.mark.parametrize("letter", LETTERS)
def test_options_out_of_range(sam, refused, letter):
    options = {"hidden": 0}
    refused("{'hidden': 0}", FineTuned, sam, f"cat_sam_{letter}", "hq", adapter_options=options)


def test_the_bridge_of_another_grid_is_the_resampled_one(sam):
    adapter = CatSamA(sam, CatSamA.Config())
    token = torch.randn(1, sam.spec.prompt_dim)

    def joint(size):
        pixels = torch.zeros(1, 3, *size)
        x = sam.image_encoder.embed(pixels)
        return adapter.begin(sam.image_encoder, pixels, x, token).tokens

    with torch.no_grad():
        for p in (*adapter.embedding.parameters(), *adapter.high_pass.parameters()):
            p.zero_()
    native = adapter.bridge(token)
    assert torch.equal(joint((64, 64)), native)
    wide = F.interpolate(native.permute(0, 3, 1, 2), (6, 11), mode="bilinear")
    torch.testing.assert_close(joint((48, 88)), wide.permute(0, 2, 3, 1))


SCORES = {  # one shot on ViT-L, foreground IoU: WHU, Kvasir, SBU
    "vpt_shallow": (60.8, 79.8, 68.7),
    "vpt_deep": (57.8, 80.4, 76.0),
    "adaptformer": (83.2, 76.8, 77.2),
    "lora": (86.1, 77.5, 74.4),
    "cat_sam_t": (86.8, 83.4, 78.0),
    "cat_sam_a": (88.2, 85.4, 81.9),
}


@pytest.mark.parametrize("method", SCORES)
def test_recipes(method):
    shipped = recipes()
    shots = (1, 16, None) if method.startswith("cat_sam") else (1,)
    for data, score in zip(("whu", "kvasir", "sbu"), SCORES[method], strict=True):
        for count in shots:
            name = f"{method}-vit_l-{data}-{f'{count}shot' if count else 'full'}"
            notes, config = shipped[name]["recipe"], from_words([name])
            assert notes["published"].startswith(f"{score} %" if count == 1 else "none")
            assert notes["status"] == "not reproduced"
            if count:
                assert config.data.shot_seed == "published"
            assert (config.data.name, config.data.shots) == (data, count)
            assert config.adapter["name"] == method.split("_shallow")[0].split("_deep")[0]
            assert config.adapter.get("depth", "") in method
            assert config.decoder == {"name": "hq", "combine": "hq"}
            train = config.train
            steps = {1: (2000, 1), 16: (200, 4), None: (30, 4)}[count]
            assert (train.epochs, train.batch_size, train.lr, train.loss) == (
                *steps, 1e-3, "bce + dice"
            )  # fmt: skip
            assert learning_rate(train, 1, 2000) == pytest.approx(1e-3)
            last = 1e-5 + 0.99e-3 * (1 + math.cos(math.pi * (steps[0] - 1) / steps[0])) / 2
            assert learning_rate(train, 7 * steps[0], 7 * steps[0], 7) == pytest.approx(last)


@pytest.mark.parametrize("method", ["cat_sam_t", "cat_sam_a"])
@pytest.mark.parametrize(
    ("data", "noise"), [("whu", (2, 0.0)), ("kvasir", (8, 0.5)), ("sbu", (8, 0.5))]
)
def test_prompts_of_the_recipes(method, data, noise):
    prompts = from_words([f"{method}-vit_l-{data}-1shot"]).prompts
    assert prompts.train == ["point", "box", "mask"] and prompts.eval == "box"
    assert prompts.one_kind and prompts.inclusive_boxes and prompts.binary_masks == noise
    assert prompts.box_jitter == 0
    assert prompts.points == 1


@pytest.fixture(scope="module")
def example():
    """The published example: two discs, and the object map of the one that is large enough."""
    rows, columns = np.mgrid[:529, :622]
    discs = (rows - 260) ** 2 + (columns - 300) ** 2 < 150**2
    discs |= (rows - 60) ** 2 + (columns - 560) ** 2 < 5**2
    config = DataConfig(masks="binary", threshold=254, objects="component")
    values = discs.astype(np.uint8) * 255
    both = label_objects(values, config, Path("discs.png"))
    assert sorted(areas(both.map, len(both)).tolist()) == [69, 70661]
    # published: more than a thousandth of the largest, 70.661 pixels
    large = label_objects(values, replace(config, min_area=71), Path("discs.png"))
    assert areas(large.map, len(large)).tolist() == [70661]
    return Objects(large.map, large.map, 1)


def drawn(train=True, **config):
    return Sampling(PromptConfig(box_jitter=0, **config), train, SeededWorkers(), (256, 256))


ONE = np.array([0])


@pytest.mark.parametrize("train", [True, False])
def test_boxes_of_the_published_example(example, train):
    tight = sample_box(example, ONE, drawn(train=train)).boxes()
    assert tight.tolist() == [[151, 111, 450, 410]]
    boxes = sample_box(example, ONE, drawn(train=train, inclusive_boxes=True)).boxes()
    assert boxes.tolist() == [[151, 111, 449, 409]]


def test_point_of_the_published_example(example):
    found = sample_point(example, ONE, drawn())
    assert found.coords[0, 0].tolist() == [239, 223]


@pytest.mark.parametrize(("noise", "area"), [((8, 0.5), 14072), ((2, 0.0), 14358)])
def test_masks_of_the_published_example(example, noise, area):
    noisy = sample_mask(example, ONE, drawn(binary_masks=noise)).masks
    assert noisy.shape == (1, 1, 256, 256)
    assert set(noisy.unique().tolist()) == {0, 1}
    assert noisy.sum() == area
    assert sample_mask(example, ONE, drawn(train=False, binary_masks=noise)).masks.sum() == 14062


@pytest.mark.parametrize(
    ("size", "crop", "rows", "columns", "kind"),
    [
        ((512, 512), (0.1, 1.0), (91, 403), (62, 374), "box"),
        ((529, 622), (0.1, 1.0), None, None, "box"),
        ((529, 622), None, (0, 528), (0, 621), "point"),
    ],
    ids=["WHU", "cropped", "CAT-SAM-T on Kvasir and SBU"],
)
def test_crop_and_kind_of_the_published_stream(size, crop, rows, columns, kind):
    draws = SeededWorkers()
    places = np.arange(size[0] * size[1], dtype=np.int64).reshape(size)
    labels = Labels(places, np.zeros(0, np.int64))
    image = np.zeros((*size, 3), np.uint8)
    image, mirrored = draws.change(image, labels, "mirrors", crops=crop is not None)
    assert (mirrored.map == places[::-1, ::-1]).all()
    config = DataConfig(crop=crop)
    _, cut = cropped_rotated(image, labels, config, InputPolicy((1024, 1024)), draws)
    first, last = (divmod(int(cut.map[i, i]), size[1]) for i in (0, -1))
    if rows is None:
        assert cut.map.shape == (324, 381)
    else:
        assert [first, last] == [(rows[0], columns[0]), (rows[1], columns[1])]
    groups = assign(np.arange(5), ("point", "box", "mask"), draws, one=True)
    assert [name for name, which in groups if len(which)] == [kind]


@pytest.fixture
def view(tmp_path):
    """A function that gives CAT-SAM-T's 1-shot view of a mask, without a crop as on Kvasir."""

    def seen(mask, *words):
        config = from_words(["cat_sam_t-vit_l-kvasir-1shot", *words])
        paths = tmp_path / "image.png", tmp_path / "mask.png"
        Image.fromarray(np.zeros((*mask.shape, 3), np.uint8)).save(paths[0])
        Image.fromarray(mask).save(paths[1])
        return SegmentationDataset(
            [Record(*paths, "image")],
            config.data,
            mask.shape,
            prompts=config.prompts,
            train=True,
        )[0]

    return seen


def several(count):
    """A mask of so many squares, 20 pixels on a side, along the diagonal."""
    mask = np.zeros((400, 400), np.uint8)
    for k in range(count):
        mask[10 + 30 * k : 30 + 30 * k, 10 + 30 * k : 30 + 30 * k] = 255
    return mask


def test_points_of_several_objects_are_drawn_as_published(view):
    mask = several(3)
    mask[320:380, 20:120] = 255
    # as published: mirrored both ways, then parts by OpenCV, for each a permutation of its pixels
    mirrored, numpy_ = np.ascontiguousarray(mask[::-1, ::-1]), np.random.RandomState(SEED)
    count, parts = cv2.connectedComponents(mirrored, connectivity=8)
    expected = []
    for k in range(1, count):
        rows, columns = np.nonzero(parts == k)
        chosen = numpy_.permutation(len(rows))[0]
        expected.append([columns[chosen], rows[chosen]])
    assert count == 5
    assert view(mask).prompts.coords[:, 0].tolist() == expected


def test_of_many_objects_the_first_of_a_permutation_are_asked_for(view):
    found = view(several(12), "prompts.max_objects=5")
    mirrored, numpy_ = several(12)[::-1, ::-1], np.random.RandomState(SEED)
    _, parts = cv2.connectedComponents(np.ascontiguousarray(mirrored), connectivity=8)
    chosen = numpy_.permutation(12)[:5]
    assert sorted(chosen) != list(chosen)
    asked = [int(parts[int(y), int(x)]) - 1 for x, y in found.prompts.coords[:, 0]]
    assert asked == list(chosen)


@pytest.mark.parametrize("one_kind", ["true", "false"])
def test_an_image_without_objects_asks_nothing_of_the_published_stream(view, one_kind):
    words = [f"prompts.one_kind={one_kind}", "prompts.ask_empty=false"]
    assert len(view(np.zeros((40, 60), np.uint8), *words).prompts) == 0


@pytest.mark.parametrize("name", ["cat_sam_t-vit_l-sbu-full", "cat_sam_a-vit_l-kvasir-full"])
def test_an_image_without_objects_is_asked_without_a_prompt(tmp_path, name):
    config, paths = from_words([name]), (tmp_path / "image.png", tmp_path / "mask.png")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(paths[0])
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(paths[1])
    records = [Record(*paths, "image")]
    found = SegmentationDataset(
        records, config.data, (40, 60), prompts=config.prompts, train=True
    ).with_originals()[0]
    assert len(found.prompts) == 1 and found.prompts.kinds() == {"none"}
    assert not found.targets.any() and not found.original.any()


def test_objects_too_thin_for_the_frame_count_at_their_own_size(tmp_path):
    config, mask = from_words(["cat_sam_a-vit_l-kvasir-full"]), np.zeros((400, 400), np.uint8)
    mask[:, 100:300], mask[:, 1] = 255, 255  # the second lies between the pixels that are taken
    paths = tmp_path / "image.png", tmp_path / "mask.png"
    Image.fromarray(np.zeros((*mask.shape, 3), np.uint8)).save(paths[0])
    Image.fromarray(mask).save(paths[1])
    data = replace(config.data, crop=None, augment="none", redraw=False)
    frame = SegmentationDataset(
        [Record(*paths, "image")], data, (32, 32), prompts=config.prompts, train=True
    )
    assert len(frame[0].prompts) == 1
    assert len(frame.with_originals()[0].prompts) == 2


def test_gates_of_the_published_stream():
    python = SeededWorkers()._python
    gates = [round(python.random(), 4) for _ in range(3)]
    assert gates == [0.0568, 0.1327, 0.2149]
    assert python.uniform(0.1, 1) == pytest.approx(0.37428762, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "size", "part", "kind"),
    [
        ("cat_sam_a-vit_l-whu-1shot", (512, 512), (91, 62, 404, 375), BOX_TOP_LEFT),
        ("cat_sam_t-vit_l-whu-16shot", (512, 512), (91, 62, 404, 375), BOX_TOP_LEFT),
        ("cat_sam_t-vit_l-kvasir-1shot", (529, 622), (0, 0, 529, 622), POSITIVE),
    ],
)
def test_few_shots_see_the_published_view_in_every_epoch(tmp_path, name, size, part, kind):
    config = from_words([name])
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[100:400, 80:300] = 255
    for folder, array in (("images", image), ("masks", mask)):
        (tmp_path / folder).mkdir()
        for stem in "ab":
            Image.fromarray(array).save(tmp_path / folder / f"{stem}.png")
    files = [[tmp_path / folder / f"{stem}.png" for folder in ("images", "masks")] for stem in "ab"]
    policy = InputPolicy((64, 64), "stretch", antialias=False)
    data = SegmentationDataset(
        [Record(*pair, pair[0].stem) for pair in files],
        config.data,
        (64, 64),
        input=policy,
        prompts=config.prompts,
        train=True,
        seed=5,
    )
    y0, x0, y1, x1 = part
    seen = np.ascontiguousarray(image[::-1, ::-1][y0:y1, x0:x1])
    expected, _ = fit(seen, policy)
    for epoch in range(3):
        data.set_epoch(epoch)
        for i in range(2):
            assert torch.equal(data[i].pixels, expected)
            assert data[i].geometry.original == (y1 - y0, x1 - x0)
            assert data[i].prompts.labels[0, 0] == kind
            assert torch.equal(data[i].prompts.coords, data[0].prompts.coords)


def test_published_draws_are_of_the_published_changes():
    with pytest.raises(InputError, match=r"data\.redraw=published: .*data\.augment=mirrors"):
        from_words(["data.redraw=published", "data.augment=flips"])
    with pytest.raises(InputError, match="crop by area"):
        from_words(["data.redraw=published", "data.augment=mirrors", "data.crop=[256,256]"])
    with pytest.raises(InputError, match=r"^redraw=published: .*set augment=mirrors"):
        DataConfig(redraw="published", augment="flips")
