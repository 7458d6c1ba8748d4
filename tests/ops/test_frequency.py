"""High-pass images: what is cut, what stays, and the published form with shifted spectra."""

import math

import pytest
import torch

from samtune.ops.frequency import high_pass


def by_shifting(x, rate=0.25):
    """The published steps: centre the spectrum, zero a square, go back, absolute real part."""
    h, w = x.shape[-2:]
    half = int(math.sqrt(h * w * rate) // 2)
    spectrum = torch.fft.fftshift(torch.fft.fft2(x, norm="forward"))
    rows = slice(max(h // 2 - half, 0), h // 2 + half)
    columns = slice(max(w // 2 - half, 0), w // 2 + half)
    spectrum[..., rows, columns] = 0
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum), norm="forward").real.abs()


def wave(size, across, down=0):
    """A cosine of so many periods over a square image."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.cos(2 * math.pi * (across * x + down * y) / size)[None, None]


@pytest.mark.parametrize("size", [(32, 32), (24, 44), (33, 17), (16, 128)])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 1.0])
def test_it_is_the_published_form(size, rate):
    x = torch.randn(2, 3, *size)
    expected = by_shifting(x, rate)
    torch.testing.assert_close(high_pass(x, rate), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("across", "down", "share"), [
    (0, 0, 0), (3, 0, 0), (7, 7, 0), (9, 0, 1), (0, 12, 1), (3, 15, 1), (8, 0, 0.5), (0, 8, 0.5),
])  # fmt: skip
def test_of_a_wave_stays_what_lies_outside_the_square(across, down, share):
    # A quarter of 32 x 32 is the square from -8 to 7: of frequency 8 one of two halves is cut.
    x = wave(32, across, down)
    torch.testing.assert_close(high_pass(x), share * x.abs(), rtol=0, atol=1e-5)


def test_a_rate_of_zero_keeps_everything_and_one_keeps_nothing():
    x = torch.randn(1, 2, 16, 16)
    torch.testing.assert_close(high_pass(x, 0.0), x.abs(), rtol=0, atol=1e-5)
    assert float(high_pass(x, 1.0).abs().max()) < 1e-5


def test_images_do_not_meet_and_channels_neither():
    x = torch.randn(2, 3, 32, 48)
    together = high_pass(x)
    for b in range(2):
        for c in range(3):
            alone = high_pass(x[b : b + 1, c : c + 1])
            torch.testing.assert_close(together[b, c], alone[0, 0], rtol=0, atol=1e-6)


def test_a_shift_in_value_changes_nothing():
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(high_pass(x + 5), high_pass(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_fp32(dtype):
    x = torch.randn(1, 3, 32, 32).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = high_pass(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, high_pass(x.float()))


def test_double_precision_stays_and_no_gradient_flows():
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    found = high_pass(x)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    torch.testing.assert_close(found.float(), high_pass(x.float()), rtol=1e-4, atol=1e-5)
