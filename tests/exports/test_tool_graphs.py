"""What tools do to an image and to prompts is undone in the graphs that are exported for them."""

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from samtune.exports.graphs import DecoderGraph, EncoderGraph
from samtune.exports.tool_graphs import SquareDecoder, StretchedDecoder, ToolDecoder, ToolEncoder
from samtune.geometry import InputPolicy
from samtune.model.finetuned import FineTuned
from samtune.ops.resize import shrinkage

NO_MASK = (torch.zeros(1, 1, 256, 256), torch.tensor([-1.0]))


@pytest.fixture(scope="module")
def model():
    return FineTuned(tiny.base(), "lora", "hq", prompts="box").eval()


@pytest.fixture(scope="module")
def image():
    """``(40, 64, 3)``, which fits the frame of 64 and is nowhere black."""
    return tiny.pixels(1, (40, 64))[0].permute(1, 2, 0).round().clamp(min=1)


@torch.no_grad()
def test_an_image_on_a_black_canvas_is_found_and_encoded_alone(model, image):
    encoder = ToolEncoder(model, "image", has_margins=True)
    canvas = torch.zeros(57, 64, 3)
    canvas[:40] = image
    alone = EncoderGraph(model)(image)
    packed = encoder(canvas)
    torch.testing.assert_close(packed[:, :-2], alone, atol=1e-5, rtol=1e-5)
    assert packed[0, -2:, 0, 0].tolist() == [40, 64]
    canvas[:, 50:] = 0  # black parts of the image itself, on the side that fills the canvas
    assert encoder(canvas)[0, -2:, 0, 0].tolist() == [40, 64]
    assert encoder(torch.zeros(57, 64, 3))[0, -2:, 0, 0].tolist() == [57, 64]


@torch.no_grad()
def test_zeros_after_normalisation_are_margins_with_every_mean_and_order(image):
    policy = InputPolicy((64, 64), channels="bgr", mean=(90.0, 80.0, 70.0))
    model = FineTuned(tiny.base(), "lora", input=policy).eval()
    spec = model.sam.spec
    as_sam = (image - torch.tensor(spec.pixel_mean)) / torch.tensor(spec.pixel_std)
    square = torch.zeros(1, 3, 64, 64)
    square[0, :, :40] = as_sam.permute(2, 0, 1)
    expected = EncoderGraph(model)(image)
    for graph in (ToolEncoder(model, "normalised", True), EncoderGraph(model, "normalised")):
        found = graph(square)[:, : expected.shape[1]]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_larger_image_is_resized_as_pillow_does_it(model, image):
    large = np.asarray(Image.fromarray(image.byte().numpy()).resize((256, 160), Image.BICUBIC))
    for size in ((40, 64), (57, 91)):
        expected = np.asarray(Image.fromarray(large).resize(size[::-1], Image.BILINEAR), float)
        rows, columns = (
            shrinkage(large.shape[i], *map(torch.tensor, (large.shape[i], size[i])), 100, True)
            for i in (0, 1)
        )
        found = torch.einsum("ij,jkc,lk->ilc", rows, torch.tensor(large).float(), columns)
        assert np.abs(found[: size[0], : size[1]].numpy() - expected).max() <= 1.01  # bytes
        assert not found[size[0] :].any() and not found[:, size[1] :].any()
    shown = ToolEncoder(model, "planes")(torch.tensor(large).permute(2, 0, 1)[None])
    assert shown[0, -2:, 0, 0].tolist() == [160, 256]
    small = np.array(Image.fromarray(large).resize((64, 40), Image.BILINEAR), np.float32)
    expected = EncoderGraph(model)(torch.tensor(small))  # the same bytes, not only similar ones
    torch.testing.assert_close(shown[:, :-2], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_box_needs_no_padding_point_and_a_click_always_has_one(model, image):
    packed = ToolEncoder(model, "image")(image)
    official, tool = DecoderGraph(model), ToolDecoder(model, 0.0, knows_image=True)
    size = torch.tensor([80.0, 128.0])
    box, corners = torch.tensor([[[9.0, 7.0], [40.0, 30.0]]]), torch.tensor([[2.0, 3.0]])
    click, inside = torch.tensor([[[20.0, 15.0]]]), torch.tensor([[1.0]])
    padding = torch.zeros(1, 1, 2), -torch.ones(1, 1)
    no_mask = (torch.zeros(1, 1, *model.mask_size), torch.zeros(1))
    asked = {"box": (box, corners, False), "click": (click, inside, True)}
    for xy, labels, is_padded in asked.values():
        padded = [torch.cat(pair, 1) for pair in zip((xy, labels), padding, strict=True)]
        prompt = padded if is_padded else (xy, labels)
        expected = official(packed[:, :-2], *prompt, *no_mask, size)
        for way in ((xy, labels), padded):
            found = tool(packed, *way, *NO_MASK, size)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_masks_come_where_the_tool_expects_them(model, image):
    """In the image's size, in the corner of a canvas, and in that of a square."""
    packed = ToolEncoder(model, "image")(image)
    points = torch.tensor([[[20.0, 15.0]]]), torch.tensor([[1.0]])
    size = torch.tensor([40.0, 64.0])
    masks, scores, low = ToolDecoder(model, 0.5, True)(packed, *points, *NO_MASK, size)
    canvas = torch.tensor([50.0, 70.0])
    on_canvas = ToolDecoder(model, 0.5, False)(packed, *points, *NO_MASK, canvas)[0]
    assert on_canvas.shape[2:] == (50, 70)
    torch.testing.assert_close(on_canvas[..., :40, :64], masks)
    assert torch.equal(on_canvas[..., 40:, :64], masks[..., -1:, :].expand(-1, -1, 10, -1))
    of_square, square = SquareDecoder(model, 0.5, 64)(packed, *points)
    torch.testing.assert_close(square[..., :40, :], masks)
    assert torch.equal(of_square, scores)
    decoder = StretchedDecoder(model, 0.5)
    stretched, iou = decoder(packed[:, :-2], packed, packed, *points, *NO_MASK)
    assert stretched.shape == (1, 1, 64, 64)
    torch.testing.assert_close(iou, scores)
    torch.testing.assert_close(stretched[..., :40, :], masks)
    assert low.shape[2:] == model.mask_size
