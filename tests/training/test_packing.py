import json
import math
from collections import Counter, defaultdict, deque

import numpy as np
import pytest
import torch

from samtune.training.packing import packed, unpacked


def test_a_state_comes_back_from_json_and_tensors():
    state = {
        "milestones": Counter({30: 1, 60: 2}), "best": -math.inf, "base_lrs": [0.1, 1e-3],
        "betas": (0.9, 0.999), "step": np.float64(3.5), "names": {"a", "b"}, "on": True,
        "state": {0: {"exp_avg": torch.ones(2, 3), "none": None}}, "last": deque([1, 2]),
        "by": defaultdict(list, {"x": [1]}), "__kind__": "no kind",
    }  # fmt: skip
    tensors = {}
    text = json.dumps(packed(state, tensors, "optimizer"), allow_nan=False)
    again = unpacked(json.loads(text), tensors)
    before, after = state.pop("state"), again.pop("state")
    assert again == state
    assert torch.equal(after[0]["exp_avg"], before[0]["exp_avg"]) and after[0]["none"] is None


def test_what_only_a_pickle_could_keep_is_refused(refused):
    refused(["schedule.anneal", "a function"], packed, {"anneal": test_loss}, {}, "schedule")


def test_loss():
    assert unpacked(packed(math.nan, {}, "x"), {}) != pytest.approx(0)
