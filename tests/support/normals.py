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
PAIRS = 2**13
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
    numbers = np.empty(((count + 1) // 2, 2), np.float32)
    while at < len(numbers):
        # A pair as one complex number: to take and to scale it is one operation instead of two.
        pairs = random.random_sample(2 * PAIRS).view(np.complex128)
        pairs *= 2
        pairs -= 1 + 1j
        square = pairs.real**2
        square += pairs.imag**2
        inside = np.flatnonzero((square < 1) & (square != 0))[: len(numbers) - at]
        square = square.take(inside)
        factor = np.log(square)
        factor *= -2
        factor /= square
        np.sqrt(factor, out=factor)
        pairs = pairs.take(inside)
        pairs *= factor
        normal = rule(pairs.view(np.float64)).reshape(-1, 2)
        numbers[at : at + len(normal), 0] = normal[:, 1]
        numbers[at : at + len(normal), 1] = normal[:, 0]
        at += len(normal)
    return torch.from_numpy(numbers.reshape(-1)[:count].reshape(tuple(shape)))
