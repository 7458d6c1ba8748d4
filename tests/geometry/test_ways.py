"""Ways of resizing: what a traced program does is what is done without one."""

import pytest
import torch

from samtune.geometry import Geometry, InputPolicy

SIZES = [(1, 1), (300, 100), (64, 64), (120, 481), (777, 1001), (64, 33)]
POLICIES = [
    InputPolicy((64, 64), "longest"),
    InputPolicy((64, 96), "stretch"),
    InputPolicy((64, 64), "stretch", antialias=False, round_prompts=True, direct_masks=True),
    InputPolicy((64, 64), "longest", direct_masks=True),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: f"{p.resize}{p.direct_masks:d}")
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_traced_program_brings_masks_and_points_back_alike(policy, size):
    way, frame = policy.way(), policy.size
    geometry = way.place(size, frame)
    assert tuple(way.traced_content(torch.tensor(size).float(), frame)) == geometry.resized
    logits = torch.randn(2, 3, frame[0] // 4, frame[1] // 4)
    traced = way.traced_logits(logits, torch.tensor(size).float(), frame)
    torch.testing.assert_close(traced, geometry.masks_to_original(logits), atol=2e-5, rtol=0)
    xy = torch.rand(5, 2) * torch.tensor(size[::-1])
    plain = Geometry(*[getattr(geometry, n) for n in ("original", "resized", "model")])
    traced_points = way.traced_points(plain.to_model(xy))
    torch.testing.assert_close(traced_points, geometry.to_model(xy), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "policy",
    [
        InputPolicy((64, 64), "spline"),
        InputPolicy((64, 64), "stretch", first_size=(32, 32)),
        InputPolicy((64, 64), native_raw=True, mean=(0.0,) * 3, std=(1.0,) * 3),
    ],
    ids=["spline", "first_size", "native_raw"],
)
def test_what_no_traced_program_does_says_so(policy):
    with pytest.raises(NotImplementedError, match="no traced program"):
        policy.way().traced_content(torch.ones(2), policy.size)
