"""Tiny models whose trained weights have moved, and a picture to ask them about."""

import tiny
import torch
from PIL import Image

from samtune.model.finetuned import FineTuned


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
