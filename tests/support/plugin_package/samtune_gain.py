"""One part of each kind that samtune takes from other packages."""

from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import nn

from samtune.adapters import Adapter
from samtune.data.layouts import Layout
from samtune.data.sources import Record
from samtune.decoders import Decoder
from samtune.metrics import ImageMetric
from samtune.options import Count
from samtune.sam.edits import BlockEdits


class Gain(Adapter):
    """A gain for each group of channels beside every MLP; exact identity at the start."""

    paper = "Nobody 2026"
    sits = "beside every MLP"
    uses = ("mlp",)
    forms = MappingProxyType({"whole": {"groups": 1}})

    @dataclass(frozen=True)
    class Config:
        """What can be chosen."""

        groups: Count = 4
        """Groups of channels that have one gain."""

    def __init__(self, sam, config):
        super().__init__()
        blocks = sam.image_encoder.blocks
        shape = (len(blocks), config.groups)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.repeats = [block.dim // config.groups for block in blocks]

    def edits(self, i, state):
        """The gain of block ``i``, beside its MLP."""
        return BlockEdits(mlp=lambda x: x * self.weight[i].repeat_interleave(self.repeats[i]))


class Shifted(Decoder):
    """SAM's own decoder, whose logits are shifted by a trained number."""

    sits = "SAM's decoder and a shift"

    def __init__(self, sam, config):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, sam, features, prompts, multimask=False):
        """The masks of the base, shifted."""
        masks = sam.decode(features.embedding, prompts, features.frame, multimask)
        return replace(masks, logits=masks.logits + self.shift)


def squared(logits, targets, valid):
    """The squared error of the probability: the mean over the valid pixels of each mask."""
    error = (logits.sigmoid() - targets) ** 2 * valid
    return error.sum((-2, -1)) / valid.sum((-2, -1)).clamp(min=1)


class Missed(ImageMetric):
    """The fraction of the foreground that no mask covers."""

    empty = "images without foreground are left out"
    higher = False

    def of_image(self, image):
        """The missed fraction of one image."""
        predicted, target = image.union()
        return float((target & ~predicted).sum() / target.sum())


def _fits(root):
    return (root / "pairs").is_dir()


def _find(root, config):
    images = sorted((root / "pairs").glob("*_image.png"))
    masks = [path.with_name(path.name.replace("_image", "_mask")) for path in images]
    return {None: [Record(i, m, i.stem) for i, m in zip(images, masks, strict=True)]}


SIDE_BY_SIDE = Layout("side_by_side", "pairs/A_image.png beside pairs/A_mask.png", _fits, _find)
