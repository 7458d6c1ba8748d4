"""Normal numbers as NumPy's ``RandomState`` draws them, many at a time.

Golden values of several systems are measured with weights that are defined by that generator, which
draws one number after the other; the weights of ViT-H are 600 million.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

MANY = 2**16
"""From so many numbers on, this is faster."""
PAIRS = 2**15
"""Tried at a time: what is made of them stays in the processor's cache."""


def standard_normal(
    seed: int, shape: Sequence[int], rule: Callable[[np.ndarray], np.ndarray]
) -> Tensor:
    """Float32 numbers that a rule makes of those of ``RandomState(seed).standard_normal(shape)``.

    Marsaglia's polar method, as NumPy has it: of each pair of uniform numbers that lies in the unit
    circle come two normal ones, the second coordinate's first. In double precision a number may
    differ in its last bit, as the vectorised logarithm does.

    Args:
        seed: Of the generator, from which nothing else is drawn.
        shape: Of the numbers.
        rule: Makes an array of another one, element by element, in float64.
    """
    random, count, at = np.random.RandomState(seed), math.prod(shape), 0
    numbers = np.empty(count + count % 2, np.float32)
    while at < len(numbers):
        pairs = random.random_sample((PAIRS, 2))
        pairs *= 2
        pairs -= 1
        square = pairs[:, 0] ** 2 + pairs[:, 1] ** 2
        inside = np.flatnonzero((square < 1) & (square != 0))[: (len(numbers) - at) // 2]
        square = square.take(inside)
        factor = np.log(square)
        factor *= -2
        factor /= square
        np.sqrt(factor, out=factor)
        normal = rule(pairs.take(inside, axis=0)[:, ::-1] * factor[:, None])
        numbers[at : at + normal.size] = normal.ravel()
        at += normal.size
    return torch.from_numpy(numbers[:count].reshape(tuple(shape)))
