"""Tiny models whose trained weights have moved, and a picture to ask them about."""

from dataclasses import replace

import tiny
import torch
from PIL import Image

from samtune.model.finetuned import FineTuned
from samtune.sam.model import Sam


def quickly_traced() -> Sam:
    """A base with one block and one layer of the decoder, for what is traced or compiled.

    Time to trace goes with their numbers; two kinds of blocks are traced in ``test_onnx.py``.
    """
    sam = tiny.base(replace(tiny.TINY, depth=1, global_blocks=(0,)))
    del sam.mask_decoder.transformer.layers[1:]
    return sam


def moved(model: FineTuned, by: float = 0.05) -> FineTuned:
    """The model with every trained weight changed, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(by * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def save_picture(folder):
    """Writes one small picture to a folder, which it gives back."""
    pixels = tiny.pixels(1, (50, 90))[0].permute(1, 2, 0).byte().numpy()
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / "a.png")
    return folder
