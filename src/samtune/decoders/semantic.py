"""Several classes at once: one output token per class on SAM's mask decoder, without prompts.

Two token layouts exist. Generalized SAM (Kato et al. 2024, arXiv:2408.12406) takes ``C`` IoU tokens
and ``4C + 1`` mask tokens and reads the classes from the outputs 1 to ``C``: the IoU tokens except
the first, and the first mask token. The other tokens only take part in the attention. SAMed (Zhang
and Liu 2023, arXiv:2304.13785) has one mask token per class.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from samtune.batch import Masks
from samtune.decoders.base import DECODERS, Decoder, Features
from samtune.options import Range
from samtune.prompts import Prompts
from samtune.sam.mask_decoder import MASKS, Head, MaskDecoder
from samtune.sam.model import Sam
from samtune.sam.prompt_encoder import PromptEmbedding


@DECODERS.register("semantic")
class SemanticDecoder(Decoder):
    """Predicts a map of classes for each image; prompts do not change it.

    With two classes in Generalized SAM's layout it is SAM's decoder with its single mask, for the
    foreground. Tokens and heads start as SAM's if SAM has them, the others at random.
    """

    paper = "Kato et al. 2024 (Generalized SAM), arXiv:2408.12406; SAMed: arXiv:2304.13785"
    sits = "a trained copy of SAM's mask decoder with tokens and heads for classes"
    forms: ClassVar = {
        "conv": {"positions": "conv"},
        "samed": {"tokens": "per_class", "train_dense": True},
    }
    untrained = ("mask_decoder.iou_prediction_head", "mask_decoder.output_hypernetworks_mlps")
    learning_rate = 1e-3
    changes_at_start = "it answers without prompts, and classes that SAM lacks start at random"
    prompted = False

    @dataclass(frozen=True)
    class Config(Decoder.Config):
        """Options of :class:`SemanticDecoder`."""

        classes: Annotated[int, Range(at_least=2, note=", background included")] = 2
        """Number of classes, including the background if the mask values have one; by default
        ``data.classes``, if known. The loss is then ``ce + multi_dice``, unless another is set."""
        tokens: Literal["gsam", "per_class"] = "gsam"
        """``gsam``: Generalized SAM's layout; ``per_class``: one mask token per class, as SAMed."""
        positions: Literal["fourier", "conv"] = "fourier"
        """Position code of the image: SAM's, or a convolution of the embedding, as in GSAM."""
        train_dense: bool = False
        """Train an embedding for "no mask" that is added to every cell of the image embedding, as
        SAMed does."""
        frozen: bool = False
        """Keep all values as initialised, as published for SAMUS with several classes."""

    @classmethod
    def for_classes(cls, count: int) -> Mapping[str, Any]:
        """Options for ``count`` classes; a map of two classes needs a mask token per class."""
        return {"classes": count, **({"tokens": "per_class"} if count == 2 else {})}

    @classmethod
    def class_count(cls, options: Mapping[str, Any]) -> int | None:
        """The option's value; two classes in Generalized SAM's layout are a single mask."""
        options = {**asdict(cls.Config()), **options}
        single = options["classes"] == 2 and options["tokens"] == "gsam"
        return None if single else options["classes"]

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        count, dim = config.classes, sam.spec.prompt_dim
        self.mask_decoder = copy.deepcopy(sam.mask_decoder).requires_grad_(True)
        self.classes = self.class_count(asdict(config))
        if self.classes is not None:
            _extend(self.mask_decoder, count, dim, config.tokens)
        self.positions = None
        if config.positions == "conv":
            self.positions = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.no_mask_embed = None
        if config.train_dense:
            self.no_mask_embed = copy.deepcopy(sam.prompt_encoder.no_mask_embed)
            self.no_mask_embed.requires_grad_(True)
        if config.frozen:
            for module in self.modules():
                for name, parameter in list(module.named_parameters(recurse=False)):
                    delattr(module, name)
                    module.register_buffer(name, parameter.detach())

    def forward(
        self, sam: Sam, features: Features, prompts: Prompts, multimask: bool = False
    ) -> Masks:
        """Predicts the classes of each prompt's image, ``(N, classes, 4H, 4W)``, or one mask.

        Two classes in Generalized SAM's layout give one mask. ``multimask`` has no effect.
        """
        embedding, decoder = features.embedding, self.mask_decoder
        if self.positions is None:
            grid = (embedding.shape[-2], embedding.shape[-1])
            positions = sam.prompt_encoder.dense_positions(grid)
        else:
            positions = self.positions(embedding)
        dense = (self.no_mask_embed or sam.prompt_encoder.no_mask_embed).weight[:, :, None, None]
        none = dense.new_zeros(len(embedding), 0, dense.shape[1])
        tokens, image = decoder.transform(embedding, positions, PromptEmbedding(none, dense, None))
        heads = decoder.output_hypernetworks_mlps[: self.classes or 1]
        weights = torch.stack([head(tokens[:, 1 + k]) for k, head in enumerate(heads)], 1)
        logits = torch.einsum("bkc,bchw->bkhw", weights, decoder.output_upscaling(image))
        if self.classes is None:
            iou = decoder.iou_prediction_head(tokens[:, 0])[:, :1]
            return Masks(logits[prompts.image], iou[prompts.image])
        iou = expected_iou(logits)
        return Masks(logits[prompts.image], iou[prompts.image], exclusive=True)


def expected_iou(logits: Tensor) -> Tensor:
    """The IoU that each class would have if the probabilities were right: ``(N, K)``, no gradient.

    It is the ratio of the expected overlap and the expected union of the pixels where a class is
    the most likely and the pixels that belong to it.

    Args:
        logits: ``(N, K, h, w)`` over mutually exclusive classes.
    """
    p = logits.detach().float().softmax(1)
    inside = torch.zeros_like(p).scatter_(1, p.argmax(1, keepdim=True), 1.0)
    overlap, union = (p * inside).sum((-2, -1)), (p + inside - p * inside).sum((-2, -1))
    return overlap / union.clamp(min=torch.finfo(p.dtype).tiny)


def _extend(decoder: MaskDecoder, count: int, dim: int, layout: str) -> None:
    """Gives a decoder the tokens and heads for ``count`` classes."""
    if layout == "gsam":
        decoder.iou_token = nn.Embedding(count, dim)
        decoder.mask_tokens = nn.Embedding(4 * count + 1, dim)
    else:
        start = decoder.mask_tokens.weight.detach()[:count]
        decoder.mask_tokens = nn.Embedding(count, dim)
        with torch.no_grad():
            decoder.mask_tokens.weight[: len(start)] = start
        decoder.iou_prediction_head = nn.Identity()  # type: ignore[assignment]
    heads = list(decoder.output_hypernetworks_mlps)[:count]
    heads += [Head(dim, dim, dim // 8) for _ in range(count - MASKS)]
    decoder.output_hypernetworks_mlps = nn.ModuleList(heads)
