"""The deterministic fill gives the numbers that its specification prints."""

import zlib

import deterministic
import normals
import numpy as np
import pytest
import torch


def test_u01_gives_the_published_numbers():
    assert zlib.crc32(b"input") == 3626513111
    expected = [0.555186355487, 0.591029162044, 0.009439081340]
    np.testing.assert_allclose(deterministic.u01("input", 3), expected, rtol=0, atol=5e-13)


def test_u01_is_uniform_and_a_prefix_of_itself():
    long = deterministic.u01("x", 100_000)
    assert 0 <= long.min() and long.max() < 1
    assert abs(long.mean() - 0.5) < 5e-3 and abs(long.var() - 1 / 12) < 2e-3
    np.testing.assert_array_equal(deterministic.u01("x", 7), long[:7])


def test_fill_gives_the_published_weights():
    norm, qkv = "image_encoder.blocks.0.norm1.weight", "image_encoder.blocks.0.attn.qkv.weight"
    out = deterministic.fill({norm: torch.empty(128), qkv: torch.empty(384, 128)})
    assert [round(v, 4) for v in out[norm][:2].tolist()] == [0.9706, 1.0960]
    assert [round(v, 4) for v in out[qkv][0, :2].tolist()] == [-0.0925, -0.1495]


@pytest.mark.parametrize(
    ("name", "shape", "lo", "hi"),
    [
        ("mask_decoder.mask_tokens.weight", (4, 256), -0.3, 0.3),
        ("prompt_encoder.point_embeddings.0.weight", (1, 256), -0.3, 0.3),
        ("image_encoder.blocks.0.attn.rel_pos_h", (27, 64), -0.3, 0.3),
        ("image_encoder.neck.0.weight", (8, 4, 3, 3), -((3 / 36) ** 0.5), (3 / 36) ** 0.5),
        ("image_encoder.bn.weight", (500,), 0.9, 1.1),
        ("image_encoder.bn.running_mean", (500,), -0.1, 0.1),
        ("image_encoder.bn.running_var", (500,), 1.0, 1.3),
        ("image_encoder.bn.bias", (500,), -0.3, 0.3),
    ],
)
def test_fill_ranges(name, shape, lo, hi):
    values = deterministic.fill({name: torch.empty(shape)})[name]
    assert values.shape == shape and values.dtype == torch.float32
    assert lo <= values.min() < lo + 0.05 * (hi - lo)
    assert hi - 0.05 * (hi - lo) < values.max() <= hi


def test_tensor_and_counters():
    x = deterministic.tensor("input", (1, 3, 4, 5), -2, 2)
    assert x.shape == (1, 3, 4, 5) and x.dtype == torch.float32
    assert x.flatten()[0].item() == pytest.approx(4 * 0.555186355487 - 2, abs=1e-6)
    counter = torch.tensor(3)
    assert deterministic.fill({"bn.num_batches_tracked": counter})["bn.num_batches_tracked"] == 3


@pytest.mark.parametrize("count", [1, 2, normals.MANY, 3 * normals.MANY + 1])
def test_normal_numbers_are_those_that_numpy_draws_one_by_one(count):
    expected = np.random.RandomState(7).standard_normal((count, 1)) / 3
    found = normals.standard_normal(7, (count, 1), lambda n: n / 3)
    assert found.dtype == torch.float32 and found.shape == (count, 1)
    # The logarithm of many numbers may differ in the last bit of float64.
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-7)
