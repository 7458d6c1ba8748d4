"""Results of images, as metrics get them."""

import torch

from samtune.metrics import Seen


def images(count=6):
    """Images of several sizes, with overlapping targets, empty ones and ignored pixels."""
    random = torch.Generator().manual_seed(3)
    made = []
    for index in range(count):
        n, h, w = index % 4, 30 + 7 * index, 41
        grid = torch.rand(n, 5, 6, generator=random).repeat_interleave(8, 1)
        target = (grid.repeat_interleave(8, 2)[:, :h, :w] > 0.6)[:, :30]
        predicted = target ^ (torch.rand(target.shape, generator=random) > 0.93)
        probability = 0.7 * predicted.any(0) + 0.3 * torch.rand(target.shape[1:], generator=random)
        valid = torch.rand(target.shape[1:], generator=random) > 0.05
        view = Seen(predicted, target, valid, probability=probability)
        scores, classes = torch.rand(n, generator=random), torch.arange(n) % 2
        made.append(
            Seen(
                predicted,
                target,
                valid,
                classes,
                scores=scores,
                probability=probability,
                frame=view,
                index=index,
                total=count,
            )
        )
    return made
