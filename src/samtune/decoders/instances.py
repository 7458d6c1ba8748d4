r"""Automatic instances: foreground and distances from the image embedding.

Archit et al. 2025 (Segment Anything for Microscopy, Nature Methods 22) add a decoder to SAM that
predicts three maps of an image without any prompt: the probability of foreground, the distance to
the centre of the pixel's object, and the distance to its boundary, from which a seeded watershed
makes instances. It has the upsampling path of UNETR (Hatamizadeh et al. 2022, arXiv:2103.10504):
transposed convolutions that double the grid, each followed by two convolutions. Archit and Pape
2026 (arXiv:2603.17845) prompt SAM with one point for each seed instead.

It differs from the paper in four ways: the maps are four or eight times as fine as the embedding
and not as fine as the image, because the finest layers cost more than all the rest on a CPU; the
channels are halved at each step from those of the embedding; normalisation is over groups of
channels, which does not depend on the batch; and unless ``image`` is off the finest maps see the
image, as in UNETR and not in the paper, whose embedding is finer than that of a small base.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.batch import Candidates, Masks
from samtune.decoders.base import DECODERS, Decoder, Features
from samtune.decoders.fusion import expected_iou
from samtune.options import CountOrZero
from samtune.prompts import INSTANCES, NONE, Prompts, mask_size_over
from samtune.sam.mask_decoder import MaskDecoder
from samtune.sam.model import Sam

DISTANCES, OBJECT_CLASSES = "distances", "object_classes"
LEAST_WIDTH = 16
"""Channels of the finest maps, at least."""
CHANNELS = 3
"""Channels of the image, as the encoder takes it."""
GROUPS = 8
"""Groups of channels that are normalised together."""


@DECODERS.register("instances")
class InstanceDecoder(Decoder):
    """Predicts foreground, and the distances of each pixel to its object's centre and boundary.

    Alone it answers every prompt with the foreground; ``samtune everything`` makes instances of the
    three maps. With ``prompts`` it stands beside SAM's own decoder, which answers prompts.
    """

    paper = (
        "Archit et al. 2025, Nature Methods 22; UNETR: arXiv:2103.10504; "
        "automatic prompt generation: arXiv:2603.17845"
    )
    sits = "convolutions that enlarge the embedding to foreground and distances, for a watershed"
    forms: ClassVar = {
        "classes": {"object_classes": 3},
        "coarse": {"scale": 4, "image": False},
        "frozen": {"prompts": "frozen"},
        "tuned": {"prompts": "tuned"},
    }
    learning_rate = 1e-3
    changes_at_start = "its convolutions start at random"
    prompted = False

    @dataclass(frozen=True)
    class Config(Decoder.Config):
        """Options of :class:`InstanceDecoder`."""

        prompts: Literal["none", "frozen", "tuned"] = "none"
        """SAM's mask decoder beside it, which answers prompts: ``none``, without one; ``frozen``,
        the base's; ``tuned``, a copy that is trained together with it."""
        scale: Literal[4, 8] = 8
        """Cells of its maps along each side of a cell of the embedding; ``8`` tells smaller objects
        apart, ``4`` costs less."""
        image: bool = True
        """Its finest convolutions see the image too, as in UNETR: outlines follow pixels instead of
        cells of the embedding, for little more work."""
        object_classes: CountOrZero = 0
        """Number of classes of objects, which it then predicts too; an instance has the one that
        most of its pixels have. ``0``: none."""

    @classmethod
    def dense_targets_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The distances, and the classes of objects if there are any."""
        of_classes = options.get("object_classes", cls.Config.object_classes)
        return (DISTANCES, OBJECT_CLASSES) if of_classes else (DISTANCES,)

    @classmethod
    def takes_prompts(cls, options: Mapping[str, Any]) -> bool:
        """Whether it has a decoder for them."""
        return options.get("prompts", cls.Config.prompts) != NONE

    @classmethod
    def implied(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Its losses and prompts: none, or boxes and points; an evaluation finds instances too.

        The encoder stays as it is, since that was measured to be better for it than LoRA.
        """
        terms = [
            "distances",
            "foreground",
            *(["object_ce"] if options.get("object_classes") else []),
        ]
        modes = ["box", "point"] if cls.takes_prompts(options) else [NONE]
        of_prompts = ["bce", "dice", "iou_head"] if cls.takes_prompts(options) else []
        train = modes if len(modes) > 1 else NONE
        return {
            "adapter": {"name": "none"},
            "prompts": {"train": train, "eval": [*modes, INSTANCES]},
            "train": {"loss": " + ".join([*of_prompts, *terms])},
        }

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        dim = sam.spec.prompt_dim
        self.prompts = config.prompts
        self.prompted = self.takes_prompts(asdict(config))  # type: ignore[misc]
        self.dense_targets = self.dense_targets_of(asdict(config))
        widths = [max(LEAST_WIDTH, dim >> step) for step in range(1, config.scale.bit_length())]
        self.first = _convolutions(dim, widths[0])
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(a, b, 2, stride=2), _convolutions(b, b))
            for a, b in zip(widths, [*widths[1:], widths[-1]], strict=True)
        )
        self.reads_pixels = config.image
        if config.image:
            self.of_image = _convolutions(CHANNELS, widths[-1])
            self.beside_image = _convolutions(2 * widths[-1], widths[-1])
        self.heads = nn.ModuleDict({DISTANCES: nn.Conv2d(widths[-1], 3, 1)})
        self.object_classes = config.object_classes
        if config.object_classes:
            self.heads[OBJECT_CLASSES] = nn.Conv2d(widths[-1], config.object_classes, 1)
        if self.prompted:
            self.changes_at_start = ""  # type: ignore[misc]
        self.mask_decoder: MaskDecoder | None = None
        if config.prompts == "tuned":
            self.mask_decoder = copy.deepcopy(sam.mask_decoder).requires_grad_(True)
            self.untrained = ("mask_decoder.output_hypernetworks_mlps",)  # type: ignore[misc]

    def dense(self, features: Features) -> dict[str, Tensor]:
        """Logits ``(B, 3, scale H, scale W)`` of foreground and distances, and those of classes."""
        x = self.first(features.embedding)
        for step in self.up:
            x = step(x)
        if self.reads_pixels:
            assert features.pixels is not None
            image = F.interpolate(features.pixels, x.shape[-2:], mode="area")
            x = self.beside_image(torch.cat([x, self.of_image(image.to(x.dtype))], 1))
        return {name: head(x) for name, head in self.heads.items()}

    def forward(
        self, sam: Sam, features: Features, prompts: Prompts, multimask: bool = False
    ) -> Masks:
        """Masks of ``N`` prompts, or for each the foreground of its image, ``(N, 1, 4H, 4W)``.

        The maps come along; beside a decoder for prompts only in training, because they take time.
        """
        if self.prompts != NONE:
            dense = self.dense(features) if self.training else {}
            masks = sam.decode(
                features.embedding, prompts, features.frame, multimask, self.mask_decoder
            )
            return Masks(masks.logits, masks.iou, dense=dense)
        dense, (h, w) = self.dense(features), features.embedding.shape[-2:]
        logits, size = dense[DISTANCES][:, :1], mask_size_over((h, w))
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size, mode="area")
        iou = expected_iou(logits)
        return Masks(logits[prompts.image], iou[prompts.image], dense=dense)

    def candidates(
        self,
        sam: Sam,
        features: Features,
        prompts: Prompts,
        least: float,
        multimask: bool = False,
    ) -> Candidates:
        """The best of the same masks, with less work."""
        if self.prompts == NONE:
            return super().candidates(sam, features, prompts, least, multimask)
        how = (features.embedding, prompts, features.frame, least, multimask)
        return sam.candidates(*how, self.mask_decoder)


def _convolutions(dim: int, out: int) -> nn.Sequential:
    """``(B, dim, H, W)`` to ``(B, out, H, W)`` by two convolutions."""
    parts = [(dim, out), (out, out)]
    return nn.Sequential(
        *(
            layer
            for a, b in parts
            for layer in (
                nn.Conv2d(a, b, 3, padding=1, bias=False),
                nn.GroupNorm(GROUPS, b),
                nn.ReLU(),
            )
        )
    )
