"""FineTuned itself: what it accepts, where it lies, in what order it calls its parts."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import samtune
from samtune.adapters import Adapter
from samtune.adapters.lora import LoRA
from samtune.decoders import Decoder
from samtune.geometry import InputPolicy
from samtune.model.finetuned import FineTuned
from samtune.model.parts import check_pair
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam


class Watcher(Adapter):
    """Changes nothing and notes each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def embed(self, encoder, pixels):
        self.calls.append("embed")
        return super().embed(encoder, pixels)

    def begin(self, encoder, pixels, x, tokens):
        self.calls.append("begin")
        self.tokens = tokens
        return "state"

    def enter(self, i, x, state):
        self.calls.append(f"enter {i} {state}")
        return x

    def edits(self, i, state):
        self.calls.append(f"edits {i} {state}")
        return super().edits(i, state)

    def leave(self, i, x, state):
        self.calls.append(f"leave {i} {state}")
        return x

    def before_neck(self, x, state):
        self.calls.append(f"before_neck {state}")
        return x

    def after_neck(self, embedding, state):
        self.calls.append(f"after_neck {state}")
        return embedding


class Tapping(Decoder):
    """Asks for two blocks and shows a token."""

    taps = (0, 2)
    tokens = torch.ones(1, 32)

    def forward(self, sam, features, prompts, multimask=False):
        self.features = features
        return sam.decode(features.embedding, prompts, features.frame, multimask)


def test_the_loop_calls_each_part_once_in_order(sam):
    model = FineTuned(sam, Watcher(), Tapping())
    for checkpointing in (False, True):
        model.adapter.calls.clear()
        model.checkpointing = checkpointing
        model.train().encode(
            sam.preprocess(tiny.pixels()).requires_grad_()
        ).embedding.sum().backward()
        blocks = [f"{step} {i} state" for i in range(4) for step in ("enter", "edits", "leave")]
        expected = ["embed", "begin", *blocks, "before_neck state", "after_neck state"]
        assert model.adapter.calls == expected
    assert model.adapter.tokens is Tapping.tokens


def test_features_hold_what_the_decoder_asked_for(sam):
    model = FineTuned(sam, Watcher(), Tapping()).eval()
    size = (48, 88)
    pixels = tiny.pixels(2, size)
    out = model(pixels, tiny.boxes([0, 1], size))
    features = model.decoder.features
    assert features.frame == size
    assert features.state == "state"
    encoder = sam.image_encoder
    x = encoder.embed(sam.preprocess(pixels))
    streams = []
    for block in encoder.blocks:
        x = block(x)
        streams.append(x)
    assert features.taps.keys() == {0, 2}
    assert all(torch.equal(features.taps[i], streams[i]) for i in (0, 2))
    assert torch.equal(features.embedding, encoder.apply_neck(x))
    assert torch.equal(out.logits, sam(pixels, tiny.boxes([0, 1], size)).logits)


def test_checkpointing_recomputes_blocks_in_training_alone(sam):
    model = FineTuned(sam, "lora")
    model.checkpointing = True
    runs = []
    pixels = sam.preprocess(tiny.pixels())

    class Counting(torch.nn.Module):
        def forward(self, x, edits):
            runs.append(1)
            return x * edits.qkv(x).mean()

    def count(call) -> int:
        runs.clear()
        call()
        return len(runs)

    block, x = Counting(), torch.randn(1, 2, 2, 32)
    edits = model.adapter.edits(0, None)
    assert count(lambda: model.train()._run(block, x, edits).sum().backward()) == 2
    assert count(lambda: model.eval()._run(block, x, edits).sum().backward()) == 1
    with torch.no_grad():
        assert count(lambda: model.train()._run(block, x, edits)) == 1
    assert model.encode(pixels).embedding.requires_grad


def test_the_hidden_layer_of_mlps_is_made_again_with_the_same_gradient(sam):
    model, pixels, kept = FineTuned(sam, "lora"), sam.preprocess(tiny.pixels()), []

    def note(tensor):
        kept.append(tensor)
        return tensor

    def step(checkpointing):
        model.checkpointing = checkpointing
        model.train().zero_grad()
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            embedding = model.encode(pixels).embedding
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
        embedding.square().mean().backward()
        return sum(storages.values()), [p.grad.clone() for p in model.parameters()]

    (most, expected), (less, gradients) = step(False), step("gelu")
    hidden = 4 * 2 * 8 * 8 * 4 * 32  # bytes of two images' grids, four times as wide as 32
    inputs = hidden // 4
    assert most - less == 4 * hidden - 4 * inputs
    assert all(torch.equal(one, other) for one, other in zip(expected, gradients, strict=True))


def test_detached_adapters_keep_the_base_out_of_the_graph(sam):
    class Reader(Watcher):
        detached = True

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def after_neck(self, embedding, state):
            assert not embedding.requires_grad
            return embedding * self.weight

    model = FineTuned(sam, Reader())
    model.encode(sam.preprocess(tiny.pixels())).embedding.sum().backward()
    assert model.adapter.weight.grad is not None


def test_padding_is_not_seen(sam):
    model = FineTuned(sam, "none")
    pixels = tiny.pixels()
    sizes = torch.tensor([[64, 40], [32, 64]])
    noisy = pixels.clone()
    noisy[0, :, :, 40:], noisy[1, :, 32:] = 255, 7
    prompts = tiny.boxes([0, 1])
    one, two = (model(p, prompts, sizes).logits for p in (pixels, noisy))
    assert torch.equal(one, two)
    assert not torch.equal(one, model(pixels, prompts).logits)


@pytest.mark.parametrize("to", [torch.float16, torch.bfloat16, torch.float64])
def test_another_dtype_is_refused_and_changes_nothing(sam, refused, to):
    model = FineTuned(sam, "lora", "tuned")
    before = {name: t.clone() for name, t in model.state_dict().items()}
    refused(["fp32", "precision='bf16'"], model.to, to)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    refused("fp32", model.double)
    assert all(p.dtype == torch.float32 for p in (*model.parameters(), *sam.parameters()))
    assert model.float() is model


def test_moving_the_model_moves_its_base(own_sam):
    model = FineTuned(own_sam, "lora", "tuned")
    assert model.device == torch.device("cpu")
    assert model.to("meta") is model
    assert model.device.type == "meta"
    assert all(t.device.type == "meta" for t in own_sam.state_dict().values())
    assert not any(p.requires_grad for p in own_sam.parameters())


def test_a_base_that_is_not_frozen_is_refused(own_sam, refused):
    own_sam.mask_decoder.requires_grad_(True)
    refused("not frozen", FineTuned, own_sam)
    own_sam.freeze()
    assert FineTuned(own_sam).sam is own_sam


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"adapter": "lorra"}, ["adapter=lorra", "did you mean 'lora'"]),
        ({"decoder": "tune"}, ["decoder=tune", "did you mean 'tuned'"]),
        ({"adapter": "lora", "adapter_options": {"rnk": 1}}, "did you mean 'rank'"),
        ({"adapter": "none", "adapter_options": {"rank": 1}}, "it has no options"),
        ({"decoder_options": {"prompt_encoder": True}}, "decoder_options['prompt_encoder']"),
        ({"adapter": None}, ["adapter=None", "'none'"]),
        ({"adapter": "lora", "adapter_options": "rank=2"}, "must be options by name"),
        ({"input": {"size": 60}}, ["input={'size': [60, 60]}", "multiples of 8", "[64, 64]"]),
        ({"input": 64}, ["input=64", '{"size": 512}']),
        ({"prompts": ["box", "pont"]}, ["prompts=pont", "did you mean 'point'"]),
    ],
)
def test_unknown_names_and_options_are_refused(sam, refused, arguments, words):
    refused(words, FineTuned, sam, **arguments)


def test_prompts_are_a_list_or_names_with_commas(sam):
    for prompts in (["none", "point"], "none, point", "none+point"):
        assert FineTuned(sam, prompts=prompts).prompts == "none+point"


def test_what_is_no_base_or_no_model_is_refused(sam, refused):
    refused(["sam='nano'", "samtune.load_sam"], FineTuned, "nano")
    model = FineTuned(sam, "lora")
    for call in (samtune.prepare, lambda data, it: samtune.fit(it, data),
                 lambda data, it: samtune.evaluate(it, data)):  # fmt: skip
        refused(["model=Sam", "samtune.FineTuned(sam)"], call, [], sam)
    refused("samtune.FitConfig(epochs=20)", samtune.fit, model, [], None, {"epochs": 20})
    refused("strength=half", setattr, model, "strength", "half")


def test_a_model_is_shown_by_what_it_is_made_of(sam):
    shown = str(FineTuned(sam, "lora", prompts="box,point"))
    assert shown.splitlines()[1:4] == [
        "  base: tiny, frame 64 x 64 pixels", "  adapter: lora", "  decoder: frozen",
    ]  # fmt: skip
    assert "for prompts box+point" in shown and "Linear" not in shown


def test_a_keyword_that_there_is_not_is_told_with_the_one_that_is_meant(sam, refused):
    refused(["adaptr", "did you mean 'adapter'"], FineTuned, sam, adaptr="lora")
    refused(
        ["size: is a setting of InputPolicy", "input=InputPolicy(size=...)"],
        FineTuned,
        sam,
        size=64,
    )
    options = "give adapter_options={'lora': {'rank': ...}}"
    refused(["rank: is an option of the adapter lora", options], FineTuned, sam, "lora+vpt", rank=4)
    refused("decoder_options={'classes': ...}", FineTuned, sam, decoder="semantic", classes=3)
    refused("name one, as in adapter=", FineTuned, sam, rank=4)
    refused(["gpu: ", "load_sam(..., device='cuda')"], FineTuned, sam, "lora", gpu=0)
    model = FineTuned(sam)
    settings, stack = samtune.FitConfig(epochs=1), np.zeros((4, 8, 8, 3), np.uint8)
    refused("FitConfig: stands in the place of the images", samtune.fit, model, settings)
    refused("is a path; open a folder", samtune.fit, model, Path("folder"))
    refused("seed='a': must be a whole number", samtune.fit, model, [], seed="a")
    refused("the base's name comes first", samtune.load_sam, "sam_vit_b_01ec64.pth")
    refused("FineTuned: is no path", samtune.load, model)
    refused("data_from((images, masks))", samtune.data_from, stack, stack[..., 0])
    refused("give device='cpu'", samtune.fit, model, [], cpu=True)
    refused("device=tpu9: ", samtune.fit, model, [], device="tpu9")
    refused("config=FitConfig(epochs=...)", samtune.fit, model, [], epochs=3)
    refused("config=FitConfig", samtune.fit, model, [], settings={})
    refused("model.to('cuda')", samtune.evaluate, model, [], device="cuda")
    refused("fit(model, data, optimizer=...)", samtune.FitConfig, optimizer="sgd")
    refused("fit(model, data, schedule=...)", samtune.FitConfig, lr_scheduler="step")
    refused("FineTuned(sam, ..., input={'size': 512})", samtune.open_data, "x", size=512)


def test_pairs_that_do_not_fit_are_refused(sam, refused):
    class OnlyTuned(Watcher):
        name = "only_tuned"
        decoders = ("tuned",)

    class NeedsOnlyTuned(Tapping):
        name = "needs"
        adapters = ("only_tuned",)

    words = ["decoder=frozen", "only_tuned only works with tuned", "decoder=tuned"]
    refused(words, FineTuned, sam, OnlyTuned(), "frozen")
    assert FineTuned(sam, OnlyTuned(), "tuned")
    refused(["decoder=needs", "lora", "adapter=only_tuned"], FineTuned, sam, "lora",
            NeedsOnlyTuned())  # fmt: skip
    check_pair("lora+adaptformer", "tuned")


def test_modules_may_be_given_in_place_of_names(sam):
    config = LoRA.Config(rank=2)
    torch.manual_seed(1)
    by_module = FineTuned(sam, LoRA(sam, config))
    torch.manual_seed(1)
    by_name = FineTuned(sam, "lora", adapter_options={"rank": 2})
    assert by_module.state_dict().keys() == by_name.state_dict().keys()
    assert all(
        torch.equal(a, b) for a, b in zip(by_module.parameters(), by_name.parameters(), strict=True)
    )


def test_the_frame_is_the_native_square_unless_told(sam):
    assert FineTuned(sam).input == InputPolicy((64, 64), "longest")
    policy = InputPolicy((48, 88), "stretch")
    assert FineTuned(sam, input=policy).input is policy


def test_inputs_that_the_patch_does_not_divide_are_refused(sam, refused):
    pixels = tiny.pixels(1, (64, 60))
    refused(["64x60", "64x64"], FineTuned(sam), pixels, tiny.boxes([0]))


def test_the_tuned_decoder_trains_a_copy(sam):
    model = FineTuned(sam, "none", "tuned")
    own = dict(model.decoder.mask_decoder.named_parameters())
    for name, theirs in sam.mask_decoder.named_parameters():
        assert torch.equal(own[name], theirs)
        assert own[name].requires_grad
        assert own[name].data_ptr() != theirs.data_ptr()
    assert model.decoder.prompt_encoder is None
    both = FineTuned(sam, "none", "tuned", decoder_options={"prompt_encoder": True})
    prompted = sum(p.numel() for p in sam.prompt_encoder.parameters())
    assert both.trainable() == model.trainable() + prompted


def test_nothing_in_the_tuned_decoder_is_dead(sam):
    """With all prompts, all masks and the IoU loss, every tensor of it learns."""
    model = FineTuned(sam, "none", "tuned", decoder_options={"prompt_encoder": True}).train()
    xy = torch.tensor([[[20.0, 30.0], [40.0, 12.0]]])
    prompts = samtune.Prompts.cat(
        [
            tiny.boxes([0]),
            samtune.Prompts.of(points=xy, labels=torch.tensor([[1, 0]])),
            samtune.Prompts.of(masks=torch.randn(1, 1, 32, 32)),
        ]
    )
    total = 0
    for multimask in (False, True):
        masks = model(tiny.pixels(1), prompts, None, multimask)
        total = total + masks.logits.square().mean() + masks.iou.square().mean()
    total.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_predictor_is_over_the_model(sam):
    model = FineTuned(sam).train()
    predictor = model.predictor(threshold=0.5)
    assert predictor.model is model
    assert predictor.threshold == 0.5
    assert not model.training


def test_vit_b_and_its_methods_have_the_known_sizes():
    """Kirillov et al. 2023: 93.7 M parameters in ViT-B, 4.06 M of them in the mask decoder."""
    from samtune.sam.spec import SPECS

    with shapes_alone():
        base = Sam(SPECS["vit_b"]).freeze()
        model = FineTuned(base, "lora", "tuned")
    assert sum(p.numel() for p in base.parameters()) == 93_735_472
    assert model.trainable() == 147_456 + 4_058_340
