"""Labels of a mask, and training images as crop and rotation change them."""

import numpy as np

from samtune.data import DataConfig, Labels
from samtune.data.draws import Draws
from samtune.data.transforms import cropped_rotated
from samtune.geometry import InputPolicy


def labelled(mask, valid=None):
    return Labels(mask, np.zeros(int(mask.max()), np.int64), valid)


def drawn(image, labels, seed=0, size=(32, 48), resize="stretch", **settings):
    policy = InputPolicy(size, resize)
    return cropped_rotated(
        image, labels, DataConfig(**settings), policy, Draws(np.random.default_rng(seed))
    )
