"""Models and pictures for tests of exports."""

import tiny
import torch
from PIL import Image

from samtune.model.finetuned import FineTuned


def moved(model: FineTuned) -> FineTuned:
    """A model whose trained weights are not those of its start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def save_picture(folder):
    """Writes one picture of 90 x 50 pixels; gives the folder."""
    pixels = tiny.pixels(1, (50, 90))[0].permute(1, 2, 0).byte().numpy()
    Image.fromarray(pixels).save(folder / "a.png")
    return folder
