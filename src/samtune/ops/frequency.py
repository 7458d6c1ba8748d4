"""The high spatial frequencies of an image."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def high_pass(images: Tensor, rate: float = 0.25) -> Tensor:
    """Returns the absolute value of images without their low frequencies, in at least float32.

    In the centred spectrum, a square of ``rate * h * w`` frequencies around zero is removed (Liu et
    al. 2023, Explicit Visual Prompting, arXiv:2303.10883), the mean included. The square is that of
    the published code: for an even side ``2 l`` it takes the frequencies from ``-l`` to ``l - 1``,
    and at most all of them if one side is over ``1 / rate`` times the other.

    Args:
        images: ``(B, c, h, w)``; no gradient flows to them.
        rate: Fraction of the spectrum to remove, 0 to 1.

    Returns:
        ``(B, c, h, w)``.
    """
    h, w = images.shape[-2:]
    half = int((h * w * rate) ** 0.5 // 2)
    keep = torch.ones(h, w, device=images.device)
    keep[max(h // 2 - half, 0) : h // 2 + half, max(w // 2 - half, 0) : w // 2 + half] = 0
    # Few devices have half-precision transforms, and autocast does not handle the operation.
    images = images if images.dtype == torch.float64 else images.float()
    spectrum = torch.fft.fft2(images) * torch.fft.ifftshift(keep)
    return torch.fft.ifft2(spectrum).real.abs()
