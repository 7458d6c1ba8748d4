"""Numbers from names: the fill that the golden values are measured with.

No random generator and no framework is involved, so that any implementation can reproduce it: a
tensor's values depend on its name (the reference's full ``Sam`` state-dict name) and shape alone.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

EMBEDDINGS = (
    "point_embeddings",
    "not_a_point_embed",
    "no_mask_embed",
    "iou_token",
    "mask_tokens",
)


CHUNK = 2**15
"""Numbers at a time: their intermediate results stay in the processor's cache."""


def u01(name: str, n: int) -> np.ndarray:
    """``n`` float64 numbers in [0, 1): SplitMix64 seeded with the CRC-32 of ``name``."""
    return _made(name, n, lambda u: u, np.float64)


def _made(
    name: str, n: int, rule: Callable[[np.ndarray], np.ndarray], kind: type[np.floating]
) -> np.ndarray:
    """``n`` numbers of ``kind`` that a rule makes of those of :func:`u01`, one of each."""
    seed = np.uint64((zlib.crc32(name.encode()) * 1000003) % 2**64)
    made = np.empty(n, kind)
    for start in range(0, n, CHUNK):
        stop = min(start + CHUNK, n)
        with np.errstate(over="ignore"):
            z = np.arange(start + 1, stop + 1, dtype=np.uint64) + seed
            z *= np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
        made[start:stop] = rule((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)
    return made


def tensor(name: str, shape: Sequence[int], lo: float = 0.0, hi: float = 1.0) -> Tensor:
    """A float32 tensor of ``shape``, row-major, uniform in [lo, hi)."""
    values = _made(name, int(np.prod(shape)), lambda u: lo + (hi - lo) * u, np.float32)
    return torch.from_numpy(values).reshape(tuple(shape))


def value(name: str, shape: Sequence[int]) -> Tensor:
    """The float32 fill of one state-dict entry (computed in float64)."""
    n = int(np.prod(shape))

    def rule(u: np.ndarray) -> np.ndarray:
        s = 2 * u - 1
        if name.endswith("running_var"):
            return 1 + 0.3 * u
        if name.endswith("running_mean"):
            return 0.1 * s
        if name.endswith(".weight") and len(shape) == 1:
            return 1 + 0.1 * s
        if name.endswith(".weight") and not any(word in name for word in EMBEDDINGS):
            return np.sqrt(3 * shape[0] / n) * s
        return 0.3 * s

    return torch.from_numpy(_made(name, n, rule, np.float32)).reshape(tuple(shape))


def fill(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """New values for every floating-point entry of ``state``; counters stay as they are.

    Names must be the reference's full names. Nothing is written in place::

        sam.load_state_dict(fill(sam.state_dict()))
    """
    return {
        name: value(name, tuple(old.shape)).to(old.dtype) if old.is_floating_point() else old
        for name, old in state.items()
    }
