"""GSAM: its golden numbers, counts, sizes, and each choice about its quirks."""

import gsam_reference as reference
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import samtune
from samtune.adapters import ADAPTERS
from samtune.adapters.gsam import pool_keys
from samtune.adapters.resnet import ResNet
from samtune.adapters.strided import RelativeTables
from samtune.model.finetuned import FineTuned
from samtune.ops import resize
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

SIZES = {"64x64": (64, 64), "40x72": (40, 72)}
LAYER4, CLASSIFIER = reference.LAYER4, reference.CLASSIFIER
FAMILY = {  # by the reference's name: adapter, base of the training goldens, the decoder's options
    "SAM": ("none", reference.PLAIN3, {}),
    "SAM_LoRA": ("head_lora", reference.PLAIN3, {}),
    "SAM_ConvLoRA": ("head_conv_lora", reference.PLAIN3, {}),
    "SAM_AdaptFormer": ("adaptformer", reference.PLAIN3, {}),
    "SMAdaptFormer": ("sm_adaptformer", reference.PLAIN3, {}),
    "SAMUS": ("samus", reference.TINY3, {"frozen": True}),
    "GSAM": ("gsam", reference.TINY3, {"positions": "conv"}),
}


@pytest.fixture(scope="module")
def tiny():
    return reference.model(reference.TINY, "gsam", classes=2, positions="conv")


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
@torch.no_grad()
@pytest.mark.golden("gsam")
def test_golden_forward(tiny, name):
    golden = reference.GOLDEN[f"tiny/GSAM/C2/{name}"]
    embedding, masks, full = reference.run(tiny, reference.image(SIZES[name]))
    reference.assert_summary(embedding, golden["E"])
    reference.assert_summary(masks.logits, golden["L"])
    reference.assert_summary(full, golden["M"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_golden_loss_and_gradients(name):
    model = reference.model(
        reference.TINY, "gsam", adapter={"train_peg": True}, classes=2, positions="conv"
    )
    reference.assert_gradients(model, SIZES[name], reference.GOLDEN[f"tiny/GSAM/C2/{name}"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
@torch.no_grad()
def test_golden_loss_with_the_statistics_of_the_batch(name):
    model = reference.model(reference.TINY, "gsam", classes=2, positions="conv").train()
    golden = reference.GOLDEN[f"tiny/GSAM/C2/{name}"]["loss_train_mode"]
    assert float(reference.loss(model, reference.image(SIZES[name]))) == pytest.approx(
        golden, abs=5e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 5])
def test_golden_training_steps(classes):
    golden = reference.GOLDEN[f"train3/GSAM/C{classes}"]
    model = reference.model(reference.TINY3, "gsam", classes=classes, positions="conv")
    assert model.trainable() + LAYER4 + CLASSIFIER == golden["trainable"]
    reference.assert_steps(model, (64, 64), classes, golden["losses"], later=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 96), (128, 128)])
@torch.no_grad()
def test_golden_vit_b(size):
    model = reference.model(SPECS["vit_b"], "gsam", classes=2, positions="conv")
    golden = reference.GOLDEN[f"vit_b/GSAM/C2/{size[0]}x{size[1]}"]
    # The reference's block 0 ends before the convolution for positions.
    reference.assert_vit_b(model, size, golden, before_leave={0})


def test_trained_parameters_are_those_of_the_table():
    with shapes_alone():
        model = FineTuned(
            Sam(SPECS["vit_b"]).freeze(), "gsam", "semantic", decoder_options={"positions": "conv"}
        )
    adapter, count = model.adapter, reference.count
    assert count(adapter.resnet) + LAYER4 + CLASSIFIER == 44_549_160
    assert count(adapter.project) == 786_432
    assert count(adapter.input) == 295_872
    assert count(adapter.bottlenecks) == 19_918_080
    assert count(adapter.refine) == 1_784_448
    assert count(adapter.tables) == 32_256
    assert sum(b.numel() for b in adapter.peg.buffers()) == 7_680
    assert count(model.decoder) == 4_058_340 + 2_560
    assert count(adapter) + LAYER4 + CLASSIFIER == 67_366_248
    assert model.trainable() == 54_413_412
    assert model.trainable() + LAYER4 + CLASSIFIER == 71_427_148
    idle = count(model.decoder.mask_decoder.iou_prediction_head)
    assert model.trainable() - idle == 54_280_800
    assert {count(refine) for refine in adapter.refine.values()} == {446_112}
    sam, peg = model.sam, sum(b.numel() for b in adapter.peg.buffers())
    replaced = sam.image_encoder.pos_embed.numel() + sum(
        p.numel()
        for i in adapter.tables
        for n, p in sam.image_encoder.blocks[int(i)].named_parameters()
        if "rel_pos" in n
    )
    rest = count(sam.image_encoder) - replaced
    assert rest == 86_460_160
    whole = 71_427_148 + peg + rest + count(sam.prompt_encoder)
    assert whole == 157_901_208


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("title", FAMILY)
def test_all_parameters_are_as_many_as_in_the_published_models(title, classes):
    name, spec, options = FAMILY[title]
    with shapes_alone():
        model = FineTuned(
            Sam(spec).freeze(),
            name,
            "semantic",
            adapter_options={"hidden": 12} if name == "adaptformer" else {},
            decoder_options={"classes": classes, **options},
        )
    golden = reference.GOLDEN[f"train3/{title}/C{classes}"]
    unused = LAYER4 + CLASSIFIER if name == "gsam" else 0
    assert model.trainable() + unused == golden["trainable"]
    assert reference.total(model) == golden["total"]


@pytest.mark.parametrize(("size", "grid"), [((30, 30), (3, 3)), ((33, 47), (4, 5))])
@torch.no_grad()
def test_sizes_that_no_stride_divides(tiny, size, grid):
    embedding, masks, full = reference.run(tiny, reference.image(size))
    assert embedding.shape[-2:] == grid
    assert masks.logits.shape[-2:] == (4 * grid[0], 4 * grid[1])
    assert full.shape[-2:] == size


def test_keys_and_values_are_averaged_over_overlapping_bins():
    k = torch.arange(14 * 14.0).reshape(1, 1, 196, 1)
    q, few, values, grid = pool_keys(k, k, 2 * k, (14, 14))
    assert grid == (3, 3) and q is k
    image = k.reshape(14, 14)
    bins = [slice(0, 5), slice(4, 10), slice(9, 14)]
    wanted = torch.stack([image[rows, columns].mean() for rows in bins for columns in bins])
    assert torch.allclose(few.flatten(), wanted)
    assert torch.allclose(values, 2 * few)


def test_relative_positions_of_three_keys():
    table = torch.arange(27.0)[:, None]
    index = resize.relative(table, 14, 3)[..., 0].long()
    wanted = torch.tensor([9, 4, 0]) + torch.arange(14)[:, None]
    assert torch.equal(index, wanted)


def test_tables_are_resampled_as_the_published_code_does():
    """There in two dimensions, of which the second keeps its length."""
    base = reference.base(reference.TINY)
    for block in (1, 3):
        attention = base.image_encoder.blocks[block].attn
        assert attention.rel_pos_h.shape == (127, 16)
        tables = RelativeTables(base.image_encoder.blocks[block], 32)
        for found, table in ((tables.h, attention.rel_pos_h), (tables.w, attention.rel_pos_w)):
            wanted = F.interpolate(table[None, None], (63, 16), mode="bilinear")[0, 0]
            torch.testing.assert_close(found.detach(), wanted, rtol=0, atol=3e-7)


def test_the_convolution_for_positions_is_frozen_unless_asked():
    with shapes_alone():
        sam = Sam(reference.TINY)
        frozen, trained = (
            ADAPTERS["gsam"](sam, ADAPTERS.config("gsam", {"train_peg": flag}))
            for flag in (False, True)
        )
    assert frozen.state_dict().keys() == trained.state_dict().keys()
    assert reference.count(trained) - reference.count(frozen) == 48 * 9 + 48


def test_starts_from_torchvision_weights_and_says_nothing_of_the_file(sam, tmp_path, refused):
    torch.manual_seed(5)
    names = {k: v for k, v in ResNet(1).state_dict().items()}
    state = {k: v for k, v in names.items() if not k.endswith("num_batches_tracked")}
    extra = {"fc.weight": torch.zeros(10, 20), "layer4.0.conv1.weight": torch.zeros(2)}
    path = tmp_path / "resnet.safetensors"
    save_file({**state, **extra}, path)
    options = {"depth": 1, "resnet": str(path)}
    model = FineTuned(sam, "gsam", adapter_options=options)
    for name, value in state.items():
        assert torch.equal(model.adapter.resnet.state_dict()[name], value)
    assert model.adapter_options.keys() == {"depth", "ratio", "scale", "train_peg", "table_size"}
    saved = samtune.save(model, tmp_path / "model.safetensors")
    path.unlink()
    loaded = samtune.load(saved, base=sam)
    assert torch.equal(loaded.adapter.resnet.conv1.weight, state["conv1.weight"])
    save_file({"conv1.weight": torch.zeros(64, 3, 3, 3)}, path)
    refused("ResNet", FineTuned, sam, "gsam", adapter_options=options)


def test_bases_with_finer_patches_are_refused_before_their_weights_are_read(refused):
    from dataclasses import replace

    fine = replace(reference.TINY, patch_size=4, image_size=64)
    refused("stride of 8", ADAPTERS["gsam"].check, fine)
    ADAPTERS["gsam"].check(SPECS["nano"])


@pytest.mark.parametrize(
    "options", [{"depth": 0}, {"ratio": 0.0}, {"table_size": 7}], ids=lambda o: next(iter(o))
)
def test_options_out_of_range(sam, refused, options):
    refused(next(iter(options)), FineTuned, sam, "gsam", adapter_options={"depth": 1, **options})
