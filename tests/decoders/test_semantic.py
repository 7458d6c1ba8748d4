"""The semantic decoder: goldens over five classes, counts, and training on a map of classes."""

import json

import gsam_reference as reference
import numpy as np
import pytest
import torch
from PIL import Image

import samtune
from samtune.batch import Masks, inside
from samtune.data import DataConfig, PromptConfig, SegmentationDataset, find_records
from samtune.decoders import DECODERS
from samtune.evaluation.streaming import by_class, evaluate
from samtune.losses import Loss
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

CASES = {
    "SAM": ("none", reference.PLAIN, "256x256", "fourier"),
    "SMAdaptFormer": ("sm_adaptformer", reference.PLAIN, "256x256", "fourier"),
    "SAMUS": ("samus", reference.TINY, "256x256", "fourier"),
    "GSAM": ("gsam", reference.TINY, "64x64", "conv"),
    "GSAM oblong": ("gsam", reference.TINY, "40x72", "conv"),
}
COLOURS = np.array([[40, 40, 40], [200, 60, 60], [60, 200, 60]])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
@pytest.mark.golden("semantic")
def test_golden_forward_over_five_classes(case):
    name, spec, size, positions = CASES[case]
    golden = reference.GOLDEN[f"tiny/{case.split()[0]}/C5/{size}"]
    model = reference.model(spec, name, classes=5, positions=positions)
    h, w = map(int, size.split("x"))
    embedding, masks, full = reference.run(model, reference.image((h, w)))
    assert masks.exclusive
    reference.assert_summary(embedding, golden["E"])
    reference.assert_summary(masks.logits, golden["L"])
    reference.assert_summary(full, golden["M"])


def test_golden_two_classes_are_the_decoder_of_sam():
    golden = reference.GOLDEN["tiny/SAM/C2/256x256"]
    model = reference.model(reference.PLAIN, "none", classes=2)
    with torch.no_grad():
        embedding, masks, full = reference.run(model, reference.image((256, 256)))
        plain = model.sam.decode(embedding, Prompts.of(image=torch.arange(2)), (256, 256))
    assert not masks.exclusive
    assert torch.equal(masks.logits, plain.logits) and torch.equal(masks.iou, plain.iou)
    reference.assert_summary(embedding, golden["E"])
    reference.assert_summary(masks.logits, golden["L"])
    reference.assert_summary(full, golden["M"])
    reference.assert_gradients(model, (256, 256), golden)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 5])
def test_golden_training_steps(classes):
    golden = reference.GOLDEN[f"train3/SAM/C{classes}"]
    model = reference.model(reference.PLAIN3, "none", classes=classes)
    assert model.trainable() == golden["trainable"]
    total = sum(p.numel() for p in model.sam.parameters()) + model.trainable()
    assert total - reference.count(model.sam.mask_decoder) == golden["total"]
    reference.assert_steps(model, (256, 256), classes, golden["losses"])


@pytest.mark.slow
@torch.no_grad()
def test_golden_vit_b():
    model = reference.model(SPECS["vit_b"], "none", classes=2)
    golden = reference.GOLDEN["vit_b/SAM/C2/1024x1024"]
    reference.assert_vit_b(model, (1024, 1024), golden)


@pytest.mark.parametrize(
    ("classes", "wanted"),
    [
        (2, 4_058_340),
        (3, 3_921_348),
        (9, 4_767_876),
        (11, 5_050_052),
        (12, 5_191_140),
        (19, 6_178_756),
    ],
)
def test_trained_parameters_are_those_of_the_table(classes, wanted):
    with shapes_alone():
        model = FineTuned(
            Sam(SPECS["vit_b"]).freeze(), "none", "semantic", decoder_options={"classes": classes}
        )
    assert model.trainable() == wanted
    assert classes == 2 or wanted == 3_498_084 + 141_088 * classes


@pytest.mark.parametrize("tokens", ["gsam", "per_class"])
def test_tokens_and_heads_start_as_sam_has_them(sam, tokens):
    options = {"classes": 6, "tokens": tokens}
    own = FineTuned(sam, "none", "semantic", decoder_options=options).decoder.mask_decoder
    heads, given = own.output_hypernetworks_mlps, sam.mask_decoder.output_hypernetworks_mlps
    assert len(heads) == 6
    for mine, theirs in zip(heads[:4], given, strict=True):
        assert torch.equal(mine.layers[0].weight, theirs.layers[0].weight)
    assert own.mask_tokens.weight.shape[0] == {"gsam": 25, "per_class": 6}[tokens]
    assert own.iou_token.weight.shape[0] == {"gsam": 6, "per_class": 1}[tokens]
    if tokens == "per_class":
        assert torch.equal(own.mask_tokens.weight[:4], sam.mask_decoder.mask_tokens.weight)


def test_prompts_change_nothing_and_images_are_answered_each(sam):
    model = FineTuned(sam, "none", "semantic", decoder_options={"classes": 3}).eval()
    pixels = torch.rand(2, 3, 64, 64) * 255
    box = torch.tensor([[5.0, 5, 30, 30]] * 3)
    with torch.no_grad():
        prompted = model(pixels, Prompts.of(boxes=box, image=torch.tensor([1, 0, 1])))
        alone = model(pixels, Prompts.of(image=torch.arange(2)))
    assert prompted.logits.shape == (3, 3, 32, 32) and prompted.iou.shape == (3, 3)
    assert torch.equal(prompted.logits, alone.logits[[1, 0, 1]])
    assert bool(((alone.iou >= 0) & (alone.iou <= 1)).all())


def test_options_out_of_range(sam, refused):
    refused("at least 2", FineTuned, sam, "none", "semantic", decoder_options={"classes": 1})


def test_the_likeliest_class_is_inside():
    logits = torch.tensor([[-3.0, 2.0], [-1.0, 1.0], [-2.0, 5.0]])[None, :, None]
    assert inside(logits, True)[0, :, 0].tolist() == [
        [False, False],
        [True, False],
        [False, True],
    ]
    assert torch.equal(inside(logits, False, 1.5), logits > 1.5)


def test_classes_neither_there_nor_predicted_are_left_out(refused):
    target = torch.tensor([[[0, 0, 1, -1]]])
    valid = torch.tensor([[True, True, True, False]])
    masks = inside(torch.eye(4)[None, :, None][..., [0, 1, 1, 3]], True)[0]
    found, wanted, classes = by_class(masks, target, valid, 4)
    assert classes.tolist() == [0, 1]  # 3 is predicted on the pixel that does not count alone
    assert torch.equal(wanted, (target == torch.arange(2)[:, None, None]))
    assert torch.equal(found, masks[:2])
    refused("decoder.classes=4", by_class, masks, target, valid, 3)
    one, _, classes = by_class(masks[:1], target, valid, 4)
    assert len(one) == 4 and classes.tolist() == [0, 1, 2, 3]  # plain SAM's mask, for every class


def test_masks_targets_and_loss_must_fit(refused):
    logits, batch = torch.randn(2, 3, 8, 8), reference.batch(torch.zeros(2, 3, 8, 8), 3)
    classes, single = Masks(logits, logits[..., 0, 0], True), Masks(logits, logits[..., 0, 0])
    assert Loss.parse("0.2*ce + 0.8*multi_dice")(classes, batch) > 0
    refused("single masks", Loss.parse("ce"), single, batch)
    refused(["bce", "ce, ce_pooled, multi_dice"], Loss.parse("bce"), classes, batch)
    plain = reference.batch(torch.zeros(2, 3, 8, 8))
    refused("semantic", Loss.parse("ce"), classes, plain)
    refused("'ce'", Loss.parse("ce"), single, plain)
    refused("sums", Loss.parse, "bce + ce")


def write_classes(root, count=6, size=(48, 64)):
    """Images of two coloured shapes on grey, each a class, with a strip that is not labelled."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        rng = np.random.default_rng(i)
        y, x = rng.uniform(12, 34), rng.uniform(14, 30)
        classes = np.where((rows - y) ** 2 + (columns - x) ** 2 < 110, 1, 0)
        classes[(abs(rows - y) < 9) & (columns > 42) & (columns < 60)] = 2
        image = COLOURS[classes] + rng.integers(-20, 20, (*size, 3))
        classes[:2] = 255
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(classes.astype(np.uint8)).save(root / "masks" / f"{i}.png")
    return root


@pytest.mark.slow
def test_fit_learns_three_classes_that_predict_and_load_give_back(sam, tmp_path):
    root = write_classes(tmp_path / "data")
    config = DataConfig(str(root), masks="classes", classes=3, ignore=255, augment="none")
    ask = PromptConfig(train="none", eval="none")
    parts = {
        train: SegmentationDataset(
            find_records(root), config, (64, 64), prompts=ask, mask_size=(32, 32), train=train
        )
        for train in (True, False)
    }
    model = FineTuned(
        sam,
        "none",
        "semantic",
        decoder_options={"classes": 3},
        prompts="none",
    )
    fit = samtune.FitConfig(
        max_steps=60, batch_size=6, lr=1e-2, eval_every=60, loss="ce + multi_dice"
    )
    before = evaluate(model, parts[False]).metrics
    samtune.fit(model, parts[True], parts[False], fit, output=tmp_path / "run", device="cpu")
    after = evaluate(model, parts[False]).metrics
    assert set(after["by_class"]) == {0, 1, 2}
    # The first class everywhere would score 0.57, and 0 on the others.
    assert after["iou_pooled"] > 0.7 > before["iou_pooled"]
    assert min(after["by_class"][k]["iou_pooled"] for k in range(3)) > 0.15

    predictor = samtune.load(tmp_path / "run" / "best.safetensors", base=sam).predictor()
    predictor.set_image(np.asarray(Image.open(root / "images" / "0.png")))
    masks, scores, low = predictor.predict()
    assert masks.shape == (3, 48, 64) and scores.shape == (3,) and low.shape == (3, 32, 32)
    assert (masks.sum(0) == 1).all()
    truth = np.asarray(Image.open(root / "masks" / "0.png"))
    assert (masks.argmax(0) == truth)[truth != 255].mean() > 0.75


def test_a_base_without_classes_answers_each_with_its_one_mask(sam, tmp_path):
    root = write_classes(tmp_path / "data", count=2)
    config = DataConfig(str(root), masks="classes", classes=3, ignore=255)
    data = SegmentationDataset(
        find_records(root), config, (64, 64), mask_size=(32, 32), mode="none"
    )
    found = evaluate(FineTuned(sam), data).metrics
    assert found["objects"] == 6 and 0 <= found["iou"] < 1


MAPPED = ("data.masks=classes", "data.classes=3", "prompts.train=none", "prompts.eval=none")


@pytest.mark.slow
def test_the_command_line_trains_evaluates_and_predicts_classes(samtune, tiny_weights, tmp_path):
    root, out = write_classes(tmp_path / "data", 5), tmp_path / "run"
    words = [f"data.root={root}", "data.ignore=255", *MAPPED, f"base.weights={tiny_weights}"]
    words += ["base.name=tiny", "adapter=none", "decoder.name=semantic", "decoder.classes=3"]
    words += ["train.loss=ce", "train.max_steps=2", "train.batch_size=2", "device=cpu"]
    answer = samtune("train", *words, f"output={out}", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["prompt"] == "none"
    assert answer.json["strength"] == 1, "there is no base that could answer with classes instead"
    assert answer.json["selection"]["curve"] == []
    assert set(answer.json["by_class"]) == {"class 0", "class 1", "class 2"}
    checkpoint = out / "best.safetensors"
    again = samtune(
        "eval", checkpoint, f"base.weights={tiny_weights}", f"output={tmp_path / 'eval'}", "--json"
    )
    assert again.code == 0, again.err
    assert again.json["tuned"] == answer.json["tuned"]
    masks = tmp_path / "masks"
    weights = f"base.weights={tiny_weights}"
    predicted = samtune("predict", checkpoint, root / "images", "--out", masks, weights, "--json")
    assert predicted.code == 0, predicted.err
    values = np.asarray(Image.open(masks / "0.png"))
    assert values.shape == (48, 64) and set(np.unique(values)) <= {0, 1, 2}
    entries = json.loads((masks / "predictions.json").read_text())
    assert [e["category_id"] for e in entries] == [0, 1, 2] * 5
    off = samtune("predict", checkpoint, root / "images", "--out", masks, weights, "strength=0")
    assert off.code == 2 and "the base knows no classes" in off.line
    none = samtune("train", *words, f"output={tmp_path / 'none'}", "train.strength=0")
    assert none.code == 2 and "the base knows no classes" in none.line
    areas = [int((values == k).sum()) for k in range(3)]
    assert [e["area"] for e in entries if e["image"] == "0.png"] == areas


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([*MAPPED], "decoder.name=semantic decoder.classes=3"),
        ([*MAPPED[2:], "data.masks=classes", "data.classes=2"], "decoder.tokens=per_class"),
        ([*MAPPED, "decoder.name=semantic", "decoder.classes=4"], "decoder.classes=4"),
        (["decoder.name=semantic", "decoder.classes=3"], "data.masks=classes data.classes=3"),
        ([*MAPPED, "decoder.name=semantic", "train.loss=bce"], "train.loss='ce + multi_dice'"),
        (["data.masks=classes", "decoder.name=semantic", "train.loss=ce"], "set data.classes=K"),
        (["data.masks=classes", "train.loss=ce", *MAPPED[2:]], "set data.classes=K"),
        (["train.loss=ce"], "train.loss='bce + dice'"),
    ],
)
def test_settings_that_do_not_stand_for_the_same_are_refused(refused, words, named):
    from samtune.runs.words import from_words

    refused(named, from_words, ["adapter=none", *words])


def test_classes_and_loss_come_from_the_data_set_where_they_are_not_set():
    from samtune.runs.words import from_words

    words = ["adapter=none", *MAPPED, "decoder.name=semantic"]
    config = from_words(words)
    assert config.decoder["classes"] == 3 and config.train.loss == "ce + multi_dice"
    assert from_words([*words, "train.loss=ce"]).train.loss == "ce"
    pairs = [*words, "data.classes=2", "decoder.tokens=per_class"]
    assert from_words(pairs).train.loss == "ce + multi_dice"
    # Generalized SAM's layout of two classes is a single mask
    config = from_words(["adapter=none", "decoder.name=semantic"])
    assert config.decoder["classes"] == 2 and config.train.loss == "bce + dice"
    named = ["adapter=none", "data.root=x", "data.name=camvid", "decoder.name=semantic"]
    config = from_words([*named, *MAPPED[2:]])
    assert config.decoder["classes"] == config.data.classes > 2


def test_published_recipes_resolve_and_fit_their_decoder():
    from samtune.runs.words import from_words, recipes

    found = {name: recipe for name, recipe in recipes().items() if name.startswith("gsam-")}
    assert len(found) == 10  # seven data sets, and three more crops of one
    for name, recipe in found.items():
        config = from_words([name])
        assert config.adapter["name"] == "gsam"
        assert config.decoder["positions"] == "conv"
        assert recipe["recipe"]["status"].startswith("not reproduced")


@pytest.mark.parametrize("name", list(DECODERS))
@pytest.mark.parametrize("count", [2, 3])
def test_a_decoder_says_with_which_options_it_answers_for_classes(sam, name, count):
    decoder = DECODERS[name]
    options = decoder.for_classes(count)
    assert (options is None) == (name != "semantic")
    assert decoder.class_count(options or {}) == (None if options is None else count)
    if options is not None:
        built = FineTuned(sam, "none", name, decoder_options=dict(options)).decoder
        assert built.classes == count
