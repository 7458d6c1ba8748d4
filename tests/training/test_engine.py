import json
import math
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from samtune.data import DataConfig, PromptConfig, SegmentationDataset, splits
from samtune.data.late_images import LateImage
from samtune.evaluation.streaming import evaluate
from samtune.interrupts.signals import Stopped, words_of
from samtune.losses import LOSSES, bce
from samtune.model.checkpoint import load
from samtune.model.finetuned import FineTuned
from samtune.training.engine import FitConfig, fit
from samtune.training.schedule import UNSAFE
from samtune.training.stepping import Stepper
from samtune.training.validation import Measurement

OPTIONS = {"rank": 2, "dropout": 0.3}


@pytest.fixture
def data(pairs):
    """``data(train, **settings)``: training or validation images of eight pairs."""

    def make(train, augment="flips", mode=None, **settings):
        config = DataConfig(root=str(pairs), augment=augment, **settings)
        records = splits(config)["train" if train else "val"]
        prompts = PromptConfig(train="box", eval="box")
        return SegmentationDataset(
            records, config, (64, 64), prompts=prompts, mask_size=(32, 32), train=train, mode=mode
        )

    return make


def model_of(sam, decoder="tuned", options=OPTIONS):
    torch.manual_seed(3)
    return FineTuned(sam, "lora", decoder, adapter_options=options)


def config(**values):
    return FitConfig(**{"max_steps": 6, "batch_size": 2, "eval_every": 2, "log_every": 2, **values})


def same(one, other):
    assert one.keys() == other.keys()
    for key, tensor in one.items():
        assert torch.equal(tensor, other[key]), key


def differ(one, other):
    return any(not torch.equal(t, other[key]) for key, t in one.items())


class Interrupt:
    """Collects rows; interrupts once at a row of some kind and step."""

    def __init__(self, event, step):
        self.rows, self.at = [], (event, step)

    def __call__(self, row):
        self.rows.append(row)
        if (row["event"], row["step"]) == self.at:
            self.at = None
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "settings", "at"),
    [
        ({}, {}, ("train", 4)),
        ({}, {}, ("val", 4)),
        ({"accumulate": 2}, {}, ("train", 2)),
        ({"log_every": 3}, {"workers": 2}, ("val", 4)),
        ({"epoch_fraction": 0.5, "loss_at": "image", "cosine": "epoch"}, {}, ("train", 4)),
        ({"keep": ["point"], "average": 0.9, "metric": "iou+iou@none"}, {}, ("train", 4)),
    ],
    ids=["before validation", "after validation", "accumulating", "workers", "part", "kept"],
)
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    sam, data, tmp_path, values, settings, at
):
    c = config(**values)
    train, val = data(True, **settings), data(False)
    whole, rows = model_of(sam), []
    result = fit(whole, train, val, c, output=tmp_path / "whole", on_event=rows.append)

    first, seen = model_of(sam), Interrupt(*at)
    with pytest.raises(KeyboardInterrupt):
        fit(first, train, val, c, output=tmp_path / "halves", on_event=seen)
    second = model_of(sam)
    torch.manual_seed(99)  # nothing may hang on what was drawn before
    resumed = fit(second, train, val, c, output=tmp_path / "halves", resume=True, on_event=seen)
    same(second.state_dict(), whole.state_dict())
    assert seen.rows == rows
    assert (resumed.steps, resumed.best) == (result.steps, result.best)
    assert (resumed.curve, resumed.kept_modes) == (result.curve, result.kept_modes)
    assert second.strength == whole.strength
    for name in ("last/trained-00000006.safetensors", "best.safetensors"):
        same(load_file(tmp_path / "halves" / name), load_file(tmp_path / "whole" / name))


def test_an_epoch_goes_on_where_it_was_interrupted(sam, data, tmp_path, monkeypatch):
    train = data(True)  # six images, three batches
    asked = []
    monkeypatch.setattr(
        SegmentationDataset,
        "set_epoch",
        lambda self, epoch, was=SegmentationDataset.set_epoch: (
            asked.append(epoch),
            was(self, epoch),
        ),
    )
    fit(model_of(sam), train, None, config(max_steps=5, accumulate=2))
    assert asked == [0, 1, 2, 3]  # ten batches of two


def test_an_epoch_may_show_a_part_of_the_images(sam, data, monkeypatch):
    train, shown, one = data(True), [], SegmentationDataset.__getitem__
    assert len(train) == 6
    monkeypatch.setattr(
        SegmentationDataset,
        "__getitem__",
        lambda self, i: (shown.append((int(self._epoch[0]), i)), one(self, i))[1],
    )
    rows = []
    c = config(
        max_steps=None, epochs=4, epoch_fraction=0.5, batch_size=2, log_every=1, cosine="epoch",
        warmup=0,
    )  # fmt: skip
    result = fit(model_of(sam), train, None, c, on_event=rows.append)
    assert result.steps == 8  # three of six images in batches of two
    for epoch in range(4):
        assert len({i for when, i in shown if when == epoch}) == 3
    assert len(set(shown)) == 12
    assert len({tuple(sorted({i for when, i in shown if when == e})) for e in range(4)}) > 1
    rates = [row["lr"] for row in rows]
    assert rates[::2] == rates[1::2] and len(set(rates)) == 4


def test_a_second_ctrl_c_handler_waits_for_the_step(sam, data, tmp_path):
    """A real signal in the middle of an update leaves weights and counters that agree."""
    step = torch.optim.AdamW.step

    def interrupted(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args, **kwargs)

    # a shell has its background jobs ignore this signal, and so would the training
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    model, before = model_of(sam), signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(model, data(True), None, config(), output=tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, inherited)
    state = json.loads((tmp_path / "last" / "state.json").read_text())
    assert state["step"] == 1
    same(load_file(tmp_path / "last" / "trained-00000001.safetensors"), model.state_dict())
    once = model_of(sam)
    with pytest.raises(KeyboardInterrupt):
        fit(once, data(True), None, config(log_every=1), on_event=Interrupt("train", 1))
    same(once.state_dict(), model.state_dict())


class SignalsLate:
    """Sends a signal when it is dropped, where Python swallows what the signal raises."""

    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("validates", [True, False])
def test_a_signal_that_python_swallows_ends_the_training_soon(sam, data, tmp_path, validates):
    """At the next step, or at a batch of a validation; and a training in Python saves too."""

    def send(state):
        if state.step == 1:
            SignalsLate()

    val, inherited = (
        data(False) if validates else None,
        signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )
    with pytest.raises(Stopped) as stop:
        c = config(eval_every=1)
        fit(model_of(sam), data(True), val, c, output=tmp_path, on_step=send)
    assert words_of(stop.value) == "stopped by SIGTERM"
    state = json.loads((tmp_path / "last" / "state.json").read_text())
    assert (state["step"], state["validated"]) == ((1, 0) if validates else (2, 0))
    assert signal.signal(signal.SIGTERM, inherited) is signal.SIG_DFL


def test_an_exchange_that_fails_before_a_step_is_taken_loses_nothing(
    sam, data, tmp_path, monkeypatch
):
    """As if another process had been killed meanwhile."""
    measure, calls = Stepper.measure, iter("ab")

    def failing(self, losses):
        if next(calls, None) is None:
            raise RuntimeError("Connection closed by peer")
        measure(self, losses)

    monkeypatch.setattr(Stepper, "measure", failing)
    model = model_of(sam)
    with pytest.raises(RuntimeError, match="peer"):
        fit(model, data(True), None, config(), output=tmp_path)
    assert json.loads((tmp_path / "last" / "state.json").read_text())["step"] == 2
    same(load_file(tmp_path / "last" / "trained-00000002.safetensors"), model.state_dict())


def test_a_finished_training_resumes_to_itself(sam, data, tmp_path):
    model = model_of(sam)
    fit(model, data(True), data(False), config(), output=tmp_path)
    again, rows = model_of(sam), []
    result = fit(
        again, data(True), data(False), config(), output=tmp_path, resume=True, on_event=rows.append
    )
    assert {row["event"] for row in rows} == {"strength"} and result.steps == 6
    same(again.state_dict(), model.state_dict())


def test_a_longer_training_goes_on(sam, data, tmp_path):
    fit(model_of(sam), data(True), data(False), config(), output=tmp_path)
    rows = []
    result = fit(
        model_of(sam), data(True), data(False), config(max_steps=8), output=tmp_path,
        resume=True, on_event=rows.append,
    )  # fmt: skip
    assert result.steps == 8
    assert [(row["event"], row["step"]) for row in rows[:2]] == [("train", 8), ("val", 8)]
    assert {row["event"] for row in rows[2:]} == {"strength"}


def test_a_training_depends_on_its_seed_alone(sam, data):
    runs = []
    for seed, draw in ((1, 1), (1, 2), (2, 1)):
        model = model_of(sam)
        torch.manual_seed(draw)
        fit(model, data(True), None, config(max_steps=2), seed=seed)
        runs.append(model.state_dict())
    same(runs[0], runs[1])
    assert differ(runs[0], runs[2])


def test_images_that_the_device_changes_train_the_same(sam, data, monkeypatch):
    fitted, there = LateImage.fitted, []
    monkeypatch.setattr(LateImage, "fitted", lambda *at: (there.append(1), fitted(*at))[1])
    losses, how = [], {"max_steps": 2, "batch_size": 3, "micro_batch": 2, "log_every": 1}
    for place, workers in (("loader", 0), ("device", 0), ("device", 1)):
        rows = []
        train = data(True, "standard", augment_on=place, workers=workers)
        fit(model_of(sam), train, None, config(**how), on_event=rows.append, device="cpu")
        losses.append([row["loss"] for row in rows if row["event"] == "train"])
    assert losses[0] == losses[1] == losses[2] and len(losses[0]) == 2
    assert len(there) == 2 * 2 * 3  # in the two trainings on the device, in batches of three


def gradients(model, data, patch, **values):
    """What the optimiser is given in the first step."""
    found = {}

    def keep(self, *args, **kwargs):
        found.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    patch.setattr(torch.optim.AdamW, "step", keep)
    fit(model, data(True), None, config(max_steps=1, clip=0.0, **values))
    return found


def test_accumulation_equals_the_larger_batch(sam, data, monkeypatch):
    whole, *parts = (
        gradients(model_of(sam, options={"rank": 2}), data, monkeypatch, **values)
        for values in (
            {"batch_size": 4},
            {"batch_size": 2, "accumulate": 2},
            {"batch_size": 1, "accumulate": 4},
        )
    )
    assert sum(float(g.norm()) for g in whole.values()) > 0.1
    for part in parts:
        for key, gradient in whole.items():
            torch.testing.assert_close(part[key], gradient, rtol=1e-4, atol=1e-6)


def test_the_base_stays_as_it_is(own_sam, data):
    before = {key: t.clone() for key, t in own_sam.state_dict().items()}
    names = dict(own_sam.named_modules())
    model = FineTuned(own_sam, "lora", "tuned")
    fit(model, data(True), data(False), config())
    same(own_sam.state_dict(), before)
    assert dict(own_sam.named_modules()) == names
    assert "forward" not in vars(model) and not any(p.requires_grad for p in own_sam.parameters())


@pytest.mark.slow
def test_training_learns(sam, data):
    model = FineTuned(sam, "lora", "tuned", adapter_options={"rank": 8})
    before = evaluate(model, data(False)).metrics["iou"]
    rows = []
    result = fit(
        model, data(True), data(False),
        FitConfig(max_steps=60, batch_size=6, lr=3e-3, eval_every=20, log_every=20),
        on_event=rows.append,
    )  # fmt: skip
    losses = [row["loss"] for row in rows if row["event"] == "train"]
    assert losses[-1] < 0.8 * losses[0]
    after = evaluate(model, data(False)).metrics["iou"]
    assert after > max(before + 0.1, 0.3)
    assert after == pytest.approx(result.best["iou"])


class TestChoice:
    """Best by metric, and early stop, with the validation's numbers put in."""

    @pytest.fixture
    def measured(self, monkeypatch):
        def put(*values, key="iou"):
            values = iter(values)

            def measure(self, model, modes):
                row = dict.fromkeys(("iou", "dice", "iou_pooled", "dice_pooled"), 0.5)
                row[key] = next(values)
                return Measurement(row, 100, lambda: np.array([row[key]]))

            monkeypatch.setattr("samtune.training.validation.Validation.measure", measure)

        return put

    @pytest.mark.parametrize(
        ("values", "best"),
        [
            ((0.05, 0.1, 0.3, 0.2), 4),
            ((0.2, 0.3, 0.3, 0.2), 2),
            ((0.1, math.nan, 0.2, math.nan), 4),
            ((math.nan, 0.2, 0.1, 0.3), 6),
        ],
    )
    def test_best_weights_are_kept(self, sam, data, tmp_path, measured, values, best):
        measured(*values)
        model, kept = model_of(sam), {}

        def keep(row):
            if row["event"] == "val":
                kept[row["step"]] = {key: t.clone() for key, t in model.state_dict().items()}

        c = config(**UNSAFE)
        result = fit(model, data(True), data(False), c, output=tmp_path, on_event=keep)
        assert result.best["step"] == best and result.steps == 6
        same(model.state_dict(), kept[best])
        same(load_file(tmp_path / "best.safetensors"), kept[best])
        assert not model.training and model.strength == 1

    @pytest.mark.parametrize("values", [(0.4, 0.1, 0.3, 0.2), (0.3, 0.3, 0.3, math.nan)])
    def test_the_base_is_a_candidate_too(self, sam, data, tmp_path, measured, values):
        measured(*values)
        model, c = model_of(sam), config(**UNSAFE)
        result = fit(model, data(True), data(False), c, output=tmp_path)
        assert (result.best["step"], result.best["strength"]) == (0, 0)
        assert result.zero_shot["iou"] == values[0] and result.top["iou"] == 0.3
        loaded = load(tmp_path / "best.safetensors", sam)
        assert loaded.strength == model.strength == 0
        base = FineTuned(sam).eval()
        for tuned in (model, loaded):
            assert evaluate(tuned, data(False)).items == evaluate(base, data(False)).items
        assert differ(model.state_dict(), model_of(sam).state_dict()), "it can be turned up"

    def test_where_nothing_is_measured_the_last_weights_are_kept(
        self, sam, data, tmp_path, measured
    ):
        measured(*[math.nan] * 4)
        model, rows = model_of(sam), []
        c = config(patience=1, keep="none")  # what measures nothing is no reason to stop
        result = fit(model, data(True), data(False), c, output=tmp_path, on_event=rows.append)
        assert result.best is None and result.steps == 6 and model.strength == 1
        assert "nothing to measure; the last weights will be kept" in rows[0]["warning"]
        last = load_file(tmp_path / "last" / "trained-00000006.safetensors")
        same(model.state_dict(), last)
        same(load_file(tmp_path / "best.safetensors"), last)

    def test_by_another_metric(self, sam, data, measured):
        measured(0.0, 0.1, 0.2, 0.1, key="dice_pooled")
        c = config(metric="dice_pooled", **UNSAFE)
        result = fit(model_of(sam), data(True), data(False), c)
        assert result.best["step"] == 4

    @pytest.mark.parametrize("metric", ["ber", "hd95", "mae"])
    def test_of_an_error_the_lowest_is_the_best(self, sam, data, measured, metric):
        measured(0.4, 0.3, 0.1, 0.2, key=metric)
        result = fit(model_of(sam), data(True), data(False), config(metric=metric, **UNSAFE))
        assert result.best["step"] == 4 and result.best[metric] == 0.1

    @pytest.mark.parametrize(
        ("values", "settings"),
        [
            ((0.5, 0.3, 0.2, 0.1, 0.2, 0.6, 0.5, 0.7), {}),
            ((0.1, 0.3, 0.2, 0.25, 0.2, 0.26, 0.2, 0.4), {"warmup": 0.9}),
        ],
        ids=["until weights beat the base", "in the warm-up"],
    )
    def test_patience_does_not_count(self, sam, data, measured, values, settings):
        measured(*values)
        c = config(max_steps=14, patience=2, **UNSAFE, **settings)
        result = fit(model_of(sam), data(True), data(False), c)
        assert (result.steps, result.end) == (14, "steps")

    def test_early_stop(self, sam, data, measured, tmp_path):
        measured(0.3, 0.5, 0.4, 0.4, 0.9)
        c = config(max_steps=20, patience=2, **UNSAFE)
        result = fit(model_of(sam), data(True), data(False), c, output=tmp_path)
        assert (result.steps, result.best["step"], result.end) == (6, 2, "patience")
        again = fit(model_of(sam), data(True), data(False), c, output=tmp_path, resume=True)
        assert again.steps == 6


def test_a_folder_that_holds_a_training_is_not_overwritten(sam, data, tmp_path, refused):
    run, c = tmp_path / "run", config(max_steps=1)

    def train(**resume):
        return fit(model_of(sam), data(True), None, c, output=run, **resume)

    train(resume=True)  # begins, for there is nothing to go on from
    refused([f"output={run}", "holds a run already", "resume=True"], train)
    assert train(resume=True).steps == 1  # all is done
    best = (run / "best.safetensors").read_bytes()
    shutil.rmtree(run / "last")
    refused("holds a run already", train)
    refused(["no state to go on from", "best.safetensors is there"], train, resume=True)
    assert (run / "best.safetensors").read_bytes() == best


def test_the_best_may_be_chosen_by_any_metric(sam, data):
    rows = []
    fit(model_of(sam), data(True), data(False), config(metric="ber"), on_event=rows.append)
    assert all(0 < row["ber"] < 1 for row in rows if row["event"] == "val")


def test_without_validation_the_last_weights_are_kept(sam, data, tmp_path):
    model = model_of(sam)
    result = fit(model, data(True), None, config(), output=tmp_path)
    assert result.best is None
    same(load_file(tmp_path / "best.safetensors"), model.state_dict())


class TestNotFinite:
    @pytest.fixture
    def loss_of(self, monkeypatch):
        """Puts factors on the loss, one a batch, then 1."""

        def put(*factors):
            rest = iter(factors)
            monkeypatch.setitem(LOSSES, "bce", lambda z, g, v: bce(z, g, v) * next(rest, 1.0))

        return put

    @pytest.mark.parametrize("accumulate", [1, 2])
    def test_such_a_step_is_left_out(self, sam, data, loss_of, accumulate):
        loss_of(math.nan)
        c = config(max_steps=1, loss="bce", accumulate=accumulate, clip=0.0)
        model, rows = model_of(sam), []
        fit(model, data(True), None, c, on_event=rows.append)
        same(model.state_dict(), model_of(sam).state_dict())

    def test_training_goes_on_after_it(self, sam, data, loss_of):
        loss_of(1.0, math.inf, 1.0)
        model, rows = model_of(sam), []
        fit(
            model,
            data(True),
            None,
            config(max_steps=3, loss="bce", log_every=1),
            on_event=rows.append,
        )
        assert [math.isfinite(row["loss"]) for row in rows] == [True, False, True]
        assert all(bool(t.isfinite().all()) for t in model.state_dict().values())
        assert differ(model.state_dict(), model_of(sam).state_dict())

    def test_many_in_a_row_end_it(self, sam, data, loss_of, refused):
        loss_of(*[math.nan] * 9, 1.0, *[math.nan] * 10)
        said = ["lr=0.0003", "10 times"]
        c = config(max_steps=30, loss="bce", log_every=1)
        rows = []
        refused(said, fit, model_of(sam), data(True), None, c, on_event=rows.append)
        assert len(rows) == 19


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_precisions(sam, data, precision):
    model = model_of(sam)
    fit(model, data(True), data(False), config(precision=precision, max_steps=2))
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32}
    assert differ(model.state_dict(), model_of(sam).state_dict())
    evaluate(model, data(False))


def test_bf16_computes_in_bf16(sam, data, monkeypatch):
    seen = set()
    monkeypatch.setitem(LOSSES, "bce", lambda z, g, v: seen.add(z.dtype) or bce(z, g, v))
    inside = []
    hook = sam.image_encoder.blocks[0].mlp.lin1.register_forward_hook(
        lambda module, args, out: inside.append(out.dtype)
    )
    try:
        fit(model_of(sam), data(True), None, config(precision="bf16", max_steps=1, loss="bce"))
    finally:
        hook.remove()
    assert set(inside) == {torch.bfloat16} and seen == {torch.float32}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_fp16_needs_a_gpu(sam, data, refused):
    refused("precision=fp16", fit, model_of(sam), data(True), None, config(precision="fp16"))
    fit(model_of(sam), data(True), None, config(max_steps=1))  # and leaves nothing behind


def test_checkpointing_changes_nothing(sam, data):
    models = [model_of(sam), model_of(sam)]
    for model, checkpointing in zip(models, (False, True), strict=True):
        fit(model, data(True), None, config(max_steps=2, checkpointing=checkpointing))
    for key, tensor in models[0].state_dict().items():
        torch.testing.assert_close(models[1].state_dict()[key], tensor)


def test_the_gradient_is_clipped(sam, data, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def measured(self, *args, **kwargs):
        grads = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in grads]).norm()))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", measured)
    for clip in (1e-3, 0.0):
        fit(model_of(sam), data(True), None, config(max_steps=1, clip=clip))
    assert norms[0] == pytest.approx(1e-3, rel=1e-3) and norms[1] > 2e-3


@pytest.mark.parametrize("vectors", [False, True])
def test_matrices_decay_and_vectors_where_asked(sam, data, monkeypatch, vectors):
    made = []
    init = torch.optim.AdamW.__init__
    monkeypatch.setattr(
        torch.optim.AdamW,
        "__init__",
        lambda self, groups, **kw: made.append(groups) or init(self, groups, **kw),
    )
    model = model_of(sam)
    fit(model, data(True), None, config(max_steps=1, weight_decay=0.25, decay_vectors=vectors))
    [(wide, flat)] = made
    assert wide["weight_decay"] == 0.25 and flat["weight_decay"] == (0.25 if vectors else 0.0)
    assert {p.dim() for p in flat["params"]} == {1} and min(p.dim() for p in wide["params"]) == 2
    assert len(wide["params"]) + len(flat["params"]) == len(list(model.parameters()))


def test_the_logged_rate_is_the_optimisers(sam, data, monkeypatch):
    used = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self, *a, **k: used.append(self.param_groups[0]["lr"]) or step(self, *a, **k),
    )
    rows = []
    fit(model_of(sam), data(True), None, config(log_every=1, warmup=0.5), on_event=rows.append)
    assert used == [row["lr"] for row in rows]
    assert used[0] == pytest.approx(1e-4) and used[2] == 3e-4 and used[-1] == pytest.approx(3e-6)


def test_images_without_objects_are_legal(sam, data, pairs):
    import numpy as np
    from PIL import Image

    for path in sorted((pairs / "masks").glob("*.png"))[:5]:
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(path)
    model = model_of(sam)
    fit(model, data(True), data(False), config(batch_size=1))
    assert all(bool(t.isfinite().all()) for t in model.state_dict().values())


def test_nothing_to_train(sam, data, refused):
    model = FineTuned(sam, "none", "frozen")
    refused(["nothing to train", "decoder=tuned"], fit, model, data(True), None)


def test_settings_out_of_range(sam, data, refused):
    refused("lr=-1.0", config, lr=-1.0)


def test_resuming_needs_a_folder(sam, data, refused):
    refused("output", fit, model_of(sam), data(True), None, config(), resume=True)


def test_a_state_of_another_model(sam, data, refused, tmp_path):
    fit(model_of(sam), data(True), None, config(max_steps=1), output=tmp_path)
    other = FineTuned(sam, "adaptformer", "frozen")
    words = ["another model", "config.yaml"]
    refused(words, fit, other, data(True), None, config(), output=tmp_path, resume=True)


def test_nothing_is_written_without_a_folder(sam, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    fit(model_of(sam), data(True), data(False), config(max_steps=1))
    assert sorted(tmp_path.rglob("*")) == before
