import gc
import math
import tracemalloc
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tiny
import torch
from predicting import one_mask

from samtune.batch import Masks
from samtune.data import DataConfig, SegmentationDataset, collate, find_records, splits
from samtune.errors import InputError
from samtune.evaluation.beside import Beside
from samtune.evaluation.streaming import evaluate, predict
from samtune.geometry import InputPolicy
from samtune.inference.clicks import central_clicks
from samtune.inference.prompted import bytes_of_answer
from samtune.metrics import GROUPS, MEASURES, Suite, iou_dice
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned


@pytest.fixture
def dataset(pairs):
    config = DataConfig(root=str(pairs))
    return SegmentationDataset(splits(config)["train"], config, (64, 64), mask_size=(32, 32))


@pytest.fixture(scope="module")
def model(sam):
    return FineTuned(sam, "none", "frozen")


def test_it_is_the_mean_over_the_images(model, dataset):
    found = evaluate(model, dataset, batch_size=4)
    scores = []
    for index in range(len(dataset)):
        batch = collate([dataset[index]])
        [masks] = predict(model, batch)
        assert masks.dtype == torch.bool and masks.shape == (1, 48, 64)
        scores.append(float(iou_dice(masks, batch.originals[0])[0]))
    assert found.metrics["iou"] == pytest.approx(sum(scores) / 6, abs=1e-3)
    assert found.images == 6 and found.metrics["objects"] == 6
    assert [item["index"] for item in found.items] == list(range(6))
    assert [item["iou"] for item in found.items] == pytest.approx(scores, abs=2e-3)
    assert 0 < found.metrics["iou"] < 1


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 4, "workers": 1}])
def test_batches_and_workers_change_nothing(model, dataset, settings):
    one, other = evaluate(model, dataset, batch_size=6), evaluate(model, dataset, **settings)
    assert other.metrics["iou"] == pytest.approx(one.metrics["iou"], abs=2e-3)
    assert [item["name"] for item in other.items] == [item["name"] for item in one.items]


def test_metrics_beside_the_model_are_those_without_a_thread(model, pairs, monkeypatch):
    asked, found = of_mode(pairs, "2_clicks"), []
    for way in (Beside, partial(Beside, at_once=True)):
        monkeypatch.setattr("samtune.evaluation.streaming.Beside", way)
        measuring = EvalConfig(tuple(GROUPS), memory=1)  # each prompt on its own
        one = evaluate(model, asked, batch_size=4, guesses=True, measuring=measuring)
        found.append((one.metrics, one.items, one.by_click, one.guesses))
    assert repr(found[0]) == repr(found[1])  # NaN is itself


def test_an_error_of_a_metric_ends_the_evaluation(model, dataset, monkeypatch):
    def fails(*image):
        raise InputError("metric: one line")

    monkeypatch.setattr(Suite, "update", fails)
    with pytest.raises(InputError, match="metric: one line"):
        evaluate(model, dataset, batch_size=1, measuring=EvalConfig(("mae",)))


def test_progress_counts_images(model, dataset):
    seen = []
    evaluate(model, dataset, batch_size=4, progress=lambda *at: seen.append(at))
    assert seen == [(4, 6), (6, 6)]


def test_lower_precision_is_close(model, dataset):
    full = evaluate(model, dataset).metrics["iou"]
    half = evaluate(model, dataset, precision="bf16").metrics["iou"]
    assert half == pytest.approx(full, abs=0.05)
    with pytest.raises(InputError, match="precision=fp16: needs a GPU"):
        evaluate(model, dataset, precision="fp16")


def test_an_image_without_objects_counts_nothing(model, dataset, monkeypatch):
    sample = dataset.sample(2)
    sample.labels.map[:] = 0
    empty = type(sample.labels)(sample.labels.map, np.zeros(0, np.int64))
    dataset.samples._whole[2] = type(sample)(sample.image, empty, sample.name)
    found = evaluate(model, dataset, batch_size=1)
    assert found.metrics["objects"] == 5 and found.items[2]["objects"] == 0
    assert math.isnan(found.items[2]["iou"]) and 0 < found.metrics["iou"] < 1


def test_of_several_masks_the_best_by_the_models_own_estimate():
    logits = torch.arange(2 * 3.0).reshape(2, 3, 1, 1).expand(2, 3, 4, 4)
    masks = Masks(logits, torch.tensor([[0.1, 0.9, 0.3], [0.8, 0.2, 0.1]]))
    best = masks.best()
    assert best.logits.shape == (2, 1, 4, 4) and best.logits[:, 0, 0, 0].tolist() == [1.0, 3.0]
    assert best.iou.tolist() == masks.iou.amax(1, keepdim=True).tolist()
    classes = replace(masks, exclusive=True)
    assert classes.best() is classes


def test_multimask_reads_the_three(model, dataset):
    one = evaluate(model, dataset).metrics["iou"]
    assert evaluate(model, dataset, multimask=True).metrics["iou"] != pytest.approx(one, abs=1e-6)


def test_the_model_is_left_in_evaluation_mode(sam, dataset):
    model = FineTuned(sam, "lora", "tuned").train()
    evaluate(model, dataset)
    assert not model.training and all(p.grad is None for p in model.parameters())


def of_mode(pairs, mode, **options):
    config = DataConfig(root=str(pairs))
    made = {"mask_size": (32, 32), "mode": mode, **options}
    return SegmentationDataset(splits(config)["train"], config, (64, 64), **made)


def test_clicks_ask_again_with_the_last_answer(model, pairs):
    asked = of_mode(pairs, "3_clicks")
    found = evaluate(model, asked, batch_size=4)
    assert len(found.by_click) == 3 and found.by_click[-1] == found.metrics
    once = evaluate(model, of_mode(pairs, "point"))
    assert found.by_click[0]["iou"] == pytest.approx(once.metrics["iou"], abs=2e-3)
    assert once.by_click == [] and found.by_click[1]["iou"] != found.by_click[0]["iou"]
    # by hand, as a person with a predictor would click
    batch = collate([asked[1]])
    predictor, geometry = model.predictor(), batch.geometries[0]
    predictor.set_image(asked.sample(1).image)
    xy, labels, low = geometry.to_original(batch.prompts.coords)[0, :1], torch.ones(1), None
    for _ in range(3):
        masks, _, low = one_mask(predictor, xy.numpy(), labels.numpy(), mask_input=low)
        at, label = central_clicks(
            torch.from_numpy(masks), batch.originals[0], batch.original_valid[0]
        )
        xy, labels = torch.cat([at, xy]), torch.cat([label, labels])
    assert (torch.from_numpy(masks) == predict(model, batch, rounds=3)[0]).float().mean() > 0.99


def test_guesses_are_of_the_boxes(model, pairs):
    found = evaluate(model, of_mode(pairs, "box"), guesses=True, batch_size=4)
    assert list(found.guesses) == ["filled box", "inscribed ellipse"]
    # the objects are ellipses
    assert found.guesses["filled box"]["iou"] == pytest.approx(math.pi / 4, abs=0.03)
    assert found.guesses["inscribed ellipse"]["iou"] > 0.9
    jittered = evaluate(model, of_mode(pairs, "jittered_box"), guesses=True)
    assert jittered.guesses["inscribed ellipse"]["iou"] < found.guesses["inscribed ellipse"]["iou"]
    assert evaluate(model, of_mode(pairs, "box")).guesses == {}


@pytest.mark.parametrize("mode", ["box", "noisy_mask", "2_clicks", "none"])
@pytest.mark.parametrize("multimask", [False, True])
def test_an_image_of_one_tile_is_measured_as_a_whole(sam, pairs, mode, multimask):
    found = []
    for tiles in ("whole", "tiled"):
        policy = InputPolicy((64, 64), tiles=tiles)
        model = FineTuned(sam, input=policy)
        data = of_mode(pairs, mode, input=policy)
        found.append(evaluate(model, data, batch_size=1, multimask=multimask))
    whole, tiled = found
    assert tiled.metrics["iou"] == pytest.approx(whole.metrics["iou"], abs=1e-3)
    assert tiled.images == 6


def test_classes_on_tiles_are_never_chosen_among(sam, pairs):
    policy = InputPolicy((64, 64), tiles="tiled", scale=2.0)
    options = {"classes": 3}
    model = FineTuned(sam, "none", "semantic", decoder_options=options, input=policy).eval()
    batch = collate([of_mode(pairs, "none", input=policy)[0]])
    one, other = (predict(model, batch, multimask=multimask)[0] for multimask in (False, True))
    assert len(one) == 3 and torch.equal(one, other)


@pytest.mark.parametrize("tiles", ["tiled", "crop"])
def test_tiles_and_crops_equal_the_predictor(sam, pairs, tiles):
    policy = InputPolicy((64, 64), tiles=tiles, scale=2.0)
    model, data = FineTuned(sam, input=policy), of_mode(pairs, "box", input=policy)
    batch = collate([data[0], data[1]])
    assert [image.shape for image in batch.images] == [(48, 64, 3)] * 2
    predictor = model.predictor()
    for i, found in enumerate(predict(model, batch)):
        predictor.set_image(batch.images[i].numpy())
        boxes = batch.geometries[i].to_original(batch.prompts.coords[batch.prompts.image == i])
        masks, _, _ = one_mask(predictor, box=boxes.flatten())
        assert (torch.from_numpy(masks) == found).all() and masks.any()


def measured(model, dataset, *names, **kwargs):
    return evaluate(model, dataset, measuring=EvalConfig(names), **kwargs).metrics


def test_every_metric_is_measured_whatever_the_batches(model, dataset):
    one = measured(model, dataset, *GROUPS, batch_size=6)
    other = measured(model, dataset, *GROUPS, batch_size=1)
    for name in MEASURES:
        loose = 0.7 if name == "hd95" else 5e-3
        assert one[name] == pytest.approx(other[name], abs=loose, nan_ok=True), name
    assert one["miou_gsam"] > 0 and 0 < one["mae"] < 1 and one["msa"] >= 0


def test_probabilities_are_the_models_at_the_original_resolution(model, dataset):
    found = measured(model, dataset, "mae", "ber")
    errors, wrong = [], []
    for index in range(len(dataset)):
        batch = collate([dataset[index]])
        logits = model(batch.pixels, batch.prompts, batch.sizes).best().logits
        p = batch.geometries[0].masks_to_original(logits)[0, 0].detach().double().sigmoid()
        target = batch.originals[0][0]
        errors.append(((p - p.min()) / (p.max() - p.min()) - target.double()).abs().mean())
        wrong.append([(target & (p <= 0.5)).sum(), target.sum()])
        wrong[-1] += [(~target & (p > 0.5)).sum(), (~target).sum()]
    missed, inside, taken, outside = torch.tensor(wrong).double().sum(0)
    assert found["mae"] == pytest.approx(float(torch.stack(errors).mean()), abs=1e-3)
    assert found["ber"] == pytest.approx(float(missed / inside + taken / outside) / 2, abs=1e-3)


def test_the_models_frame_is_its_content_only(model, dataset):
    """48 x 64 images fill three quarters of the 64 x 64 frame."""
    sizes = []

    class Spy(Suite):
        def update(self, seen):
            sizes.append((seen.size, seen.frame.size, seen.frame.probability.shape))
            super().update(seen)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("samtune.metrics.Suite", Spy, raising=False)
        measured(model, dataset, "mae_ts_sam")
    assert set(sizes) == {((48, 64), (48, 64), (48, 64))}


def test_plain_metrics_ask_for_no_probabilities(model, dataset, monkeypatch):
    monkeypatch.setattr(
        "samtune.evaluation.image_results._probability", lambda logits: pytest.fail("was computed")
    )
    assert measured(model, dataset, "regions", "boundary_iou", "msa", "ap")["miou"] > 0
    with pytest.raises(pytest.fail.Exception):
        measured(model, dataset, "mae")


def test_cat_sam_counts_small_objects_and_asks_empty_images_without_a_prompt(model, tmp_path):
    """Against its rule by hand: the union of the prompts' masks, all of the foreground."""
    from pictures import picture, save

    speck, both, none = (np.zeros((48, 64), np.uint8) for _ in range(3))
    both[10:30, 10:40] = 255
    both[40:43, 50:53] = speck[2:5, 2:5] = 255
    root = tmp_path / "set"
    for name, mask in {"a": both, "b": speck, "c": none}.items():
        save(root / "images" / f"{name}.png", picture(48, 64, seed=ord(name)))
        save(root / "masks" / f"{name}.png", mask)
    config = DataConfig(root=str(root), objects="component", min_area=20)
    asked = SegmentationDataset(
        find_records(root), config, (64, 64), mask_size=(32, 32), mode="box"
    )
    assert [len(asked[i].prompts) for i in range(3)] == [1, 0, 0]
    found = evaluate(model, asked, batch_size=2, measuring=EvalConfig(("iou_cat_sam",)))
    assert found.metrics["objects"] == 1
    overlap = total = 0
    predictor = model.predictor()
    for i, mask in enumerate((both, speck, none)):
        predictor.set_image(asked.sample(i).image)
        box = np.array([10, 10, 40, 30]) if i == 0 else None
        said, truth = predictor.predict(box=box, multimask_output=False)[0][0], mask > 0
        overlap, total = overlap + (said & truth).sum(), total + (said | truth).sum()
    assert found.metrics["iou_cat_sam"] == pytest.approx(overlap / total, abs=5e-3)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """Three images of 7, 0 and 2 objects of two kinds, some with ignored pixels."""
    from pictures import picture, save

    root = tmp_path_factory.mktemp("crowded")
    for name, boxes in {"a": range(7), "b": (), "c": (1, 5)}.items():
        map_ = np.zeros((48, 64), np.uint8)
        for k in boxes:
            map_[4 + 5 * k : 8 + 5 * k, 3 + 8 * k : 10 + 8 * k] = k + 1
        map_[:3] = 255
        save(root / "images" / f"{name}.png", picture(48, 64, seed=ord(name)))
        save(root / "masks" / f"{name}.png", map_)
    return root


@pytest.mark.parametrize(
    ("mode", "tiles"), [("box", "whole"), ("2_clicks", "tiled"), ("mask", "whole")]
)
def test_how_many_objects_are_answered_at_once_changes_nothing(sam, crowded, mode, tiles):
    """The slow twin has all masks of an image in memory; here each comes alone."""
    policy = InputPolicy((64, 64), tiles=tiles, scale=2.0 if tiles == "tiled" else 1.0)
    model = FineTuned(sam, input=policy)
    config = DataConfig(root=str(crowded), masks="instance", ignore=255)
    how = {"mask_size": (32, 32), "mode": mode, "input": policy}
    data = SegmentationDataset(find_records(crowded), config, (64, 64), **how)
    names = [name for name in MEASURES if tiles == "whole" or "frame" not in MEASURES[name].needs]
    together, alone, two = (
        evaluate(
            model,
            data,
            batch_size=3,
            guesses=True,
            measuring=EvalConfig(tuple(names), memory=memory),
        )
        for memory in (2**30, 1, 3 * bytes_of_answer(model, (48, 64), tiles == "tiled"))
    )
    assert together.metrics["objects"] == 9
    for parted in (alone, two):
        assert [row["objects"] for row in parted.items] == [
            row["objects"] for row in together.items
        ]
        for name in names:
            assert parted.metrics[name] == pytest.approx(
                together.metrics[name], abs=0.5 if name == "hd95" else 5e-3, nan_ok=True
            ), name
        for guess, numbers in together.guesses.items():
            assert parted.guesses[guess]["iou"] == numbers["iou"]
            assert parted.guesses[guess].get("msa") == numbers.get("msa")
        assert len(parted.by_click) == len(together.by_click)


# --- streaming

SIZE = (320, 480)
MASK = SIZE[0] * SIZE[1]  # bytes of one bool mask


def held():
    """Bytes that living tensors and numpy arrays hold, of views what they keep alive."""
    gc.collect()
    kinds = (torch.Tensor, torch.nn.Parameter)
    tensors = [t for t in gc.get_objects() if type(t) in kinds and t.device.type == "cpu"]
    storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}
    numpys = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
    traces = tracemalloc.take_snapshot().filter_traces([numpys]).traces
    return sum(storages.values()) + sum(trace.size for trace in traces)


def growth(model, root, mode, metrics):
    """By how much more is held after eight images than after two."""
    config, found = DataConfig(root=str(root / "large")), {}
    records = find_records(tiny.write_pairs(root / "large", size=SIZE))
    data = SegmentationDataset(records, config, (64, 64), mask_size=(32, 32), mode=mode)
    for index in range(len(data)):
        data.sample(index)  # the data set may keep what it read: no more is read below

    def measure(done, total):
        if done in (2, 8):
            found[done] = held()

    evaluate(
        model,
        data,
        batch_size=2,
        guesses=mode == "box",
        measuring=EvalConfig(metrics),
        progress=measure,
    )
    return found[8] - found[2]


@pytest.fixture
def traced(monkeypatch):
    """Memory is traced, and looked at when no thread is at work on it."""
    do = Beside.do
    monkeypatch.setattr(Beside, "do", lambda self, work: (do(self, work), self.wait()))
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["box", "2_clicks"])
def test_what_is_held_of_an_image_is_a_few_numbers(model, pairs, traced, mode):
    assert growth(model, pairs, mode, (*GROUPS,)) < MASK  # six images more: not a mask of any


@pytest.mark.slow
@pytest.mark.parametrize(
    "kept",
    [
        lambda seen: seen.predicted,
        lambda seen: seen.predicted[:, :1],
        lambda seen: seen.target.numpy().copy(),
    ],
    ids=["a tensor", "a view", "an array"],
)
def test_what_a_metric_would_keep_is_noticed(model, pairs, traced, monkeypatch, kept):
    class Hoarder(Suite):
        def update(self, seen):
            vars(self).setdefault("kept", []).append(kept(seen))
            super().update(seen)

    monkeypatch.setattr("samtune.metrics.Suite", Hoarder, raising=False)
    assert growth(model, pairs, "box", ("miou",)) > 4 * MASK
