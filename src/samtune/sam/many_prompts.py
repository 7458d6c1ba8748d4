r"""SAM's mask decoder for many prompts on one image, with the same answers and less work.

A prompt without a mask leaves the image as it is, so that the image's keys, values and queries in
the first round are those of every prompt. In later rounds each prompt has an image of its own, of
:math:`P` places, but few tokens (:math:`T`, of :math:`h` heads). A projection of the image is then
exchanged for one of the tokens: with the query :math:`q_t` of a head and its rows :math:`W_k` of
the projection,

.. math:: q_t \cdot (W_k x_p + b_k) = (W_k^\top q_t) \cdot x_p + q_t \cdot b_k,

and likewise for values and outputs, since weights of attention sum to 1. Instead of projections of
:math:`P \times C` to :math:`C / 2` there are products of :math:`h T \times C` with :math:`C \times
P`. The image is enlarged only for prompts of which a mask is wanted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.batch import Candidates, Masks
from samtune.sam.layers import LayerNorm2d
from samtune.sam.mask_decoder import MASKS, DecoderAttention, MaskDecoder, TwoWayBlock
from samtune.sam.prompt_encoder import PromptEmbedding

PLACES = 4096
"""Places of an image from which on a training on the CPU decodes image by image: the work that is
saved there outweighs more and smaller operations, which is measured for frames of 1024 pixels."""

CACHE_BYTES = 2**23
"""Bytes of the enlarged images of the prompts that a CPU decodes together: its cache holds them."""


def pays_off(decoder: MaskDecoder, embedding: Tensor, prompts: PromptEmbedding) -> bool:
    """Whether the gradient of some prompts takes less work image by image.

    Args:
        decoder: The decoder.
        embedding: ``(B, C, H, W)`` of the images.
        prompts: The prompts of all images.
    """
    if not torch.is_grad_enabled() or torch.is_autocast_enabled(embedding.device.type):
        return False
    alike = prompts.present is None and prompts.dense.shape[-1] == 1  # without masks
    large = embedding.shape[-2] * embedding.shape[-1] >= PLACES
    if not (alike and large and len(prompts.sparse) and embedding.device.type == "cpu"):
        return False
    return embedding.requires_grad or any(p.requires_grad for p in decoder.parameters())


def decode_by_image(
    decoder: MaskDecoder,
    embedding: Tensor,
    positions: Tensor,
    prompts: PromptEmbedding,
    image: Tensor,
    multimask: bool = False,
) -> Masks:
    """The decoder's answers to ``N`` prompts, with the image's half done once for each image.

    Args:
        decoder: The decoder.
        embedding: ``(B, C, H, W)`` of the images.
        positions: ``(1, C, H, W)`` dense position code.
        prompts: All of them present, and without masks.
        image: ``(N,)`` the image of each prompt.
        multimask: Three masks instead of one.
    """
    which = range(1, MASKS) if multimask else range(1)
    order = image.argsort(stable=True)
    counts = image.bincount(minlength=len(embedding)).tolist()
    logits, iou = [], []
    for i, rows in enumerate(order.split(counts)):
        if len(rows):
            side = ImageSide(decoder, embedding[i : i + 1], prompts.dense, positions)
            tokens, images = side.transform(prompts.sparse[rows])
            logits.append(side.read(tokens, images, which))
            iou.append(decoder.iou_prediction_head(tokens[:, 0])[:, which.start : which.stop])
    back = order.argsort()
    return Masks(torch.cat(logits)[back], torch.cat(iou)[back])


class ImageSide:
    """The image's half of a mask decoder's work, done once.

    Args:
        decoder: The decoder.
        embedding: ``(1, C, H, W)``.
        dense: ``(1, C, 1, 1)``, the dense embedding of all prompts.
        positions: ``(1, C, H, W)`` dense position code.
    """

    def __init__(
        self, decoder: MaskDecoder, embedding: Tensor, dense: Tensor, positions: Tensor
    ) -> None:
        self.decoder = decoder
        self.grid = (embedding.shape[-2], embedding.shape[-1])
        self.image = (embedding + dense).flatten(2).transpose(1, 2).contiguous()  # 1 P C
        self.positions = positions.flatten(2).transpose(1, 2).contiguous()
        first = decoder.transformer.layers[0]
        assert isinstance(first, TwoWayBlock)
        image_there = self.image + self.positions
        to_image, to_tokens = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        self.keys = _in_heads(to_image.k_proj(image_there), to_image.heads)
        self.values = _in_heads(to_image.v_proj(self.image), to_image.heads)
        self.queries = _in_heads(to_tokens.q_proj(image_there), to_tokens.heads)

    def _first_look(self, attention: DecoderAttention, tokens: Tensor) -> Tensor:
        """Attends from tokens ``(N, T, C)`` to the image that all of them share."""
        queries = _in_heads(attention.q_proj(tokens).flatten(0, 1)[None], attention.heads)
        seen = F.scaled_dot_product_attention(queries, self.keys, self.values)  # 1 heads N*T c
        joined = seen.transpose(1, 2).flatten(2)[0].unflatten(0, tokens.shape[:2])
        return attention.out_proj(joined)

    def transform(self, sparse: Tensor, extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs the two-way transformer.

        Args:
            sparse: ``(N, n, C)`` embeddings of the prompts, all of them present.
            extra: ``(t, C)`` further output tokens, image_there after SAM's own five.

        Returns:
            Output tokens ``(N, 5 + t, C)`` and the image ``(N, P, C)``.
        """
        decoder, transformer = self.decoder, self.decoder.transformer
        output = torch.cat([
            decoder.iou_token.weight,
            decoder.mask_tokens.weight,
            *([] if extra is None else [extra]),
        ])  # fmt: skip
        code = tokens = torch.cat([output.expand(len(sparse), -1, -1), sparse], 1)
        image, image_there = self.image, self.image + self.positions
        for i, layer in enumerate(transformer.layers):
            assert isinstance(layer, TwoWayBlock)
            tokens = layer.norm1(_among_themselves(layer, tokens, code))
            to_image, to_tokens = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
            if i:
                attended = _look(to_image, tokens + code, image_there, image)
            else:
                attended = self._first_look(to_image, tokens + code)
            tokens = layer.norm2(tokens + attended)
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            queries = None if i else self.queries
            image = _spread(to_tokens, tokens + code, tokens, image_there, image, queries)
            image = layer.norm4(image)
            image_there = image + self.positions
        last = _look(transformer.final_attn_token_to_image, tokens + code, image_there, image)
        tokens = transformer.norm_final_attn(tokens + last)
        return tokens[:, : len(output)], image

    def candidates(self, sparse: Tensor, multimask: bool, least: float) -> Candidates:
        """The masks of ``N`` prompts whose estimated IoU is above ``least``.

        Args:
            sparse: ``(N, n, C)`` embeddings of the prompts, all of them present.
            multimask: Three masks per prompt instead of one.
            least: Minus infinity for all masks.
        """
        parts = [self._some(part, multimask, least) for part in sparse.split(self._at_once())]
        begin = torch.arange(len(parts), device=sparse.device) * self._at_once()
        return Candidates(
            torch.cat([part.logits for part in parts]),
            torch.cat([part.iou for part in parts]),
            torch.cat([part.prompt + first for part, first in zip(parts, begin, strict=True)]),
        )

    def _at_once(self) -> int:
        """The number of prompts that are decoded together."""
        _, places, width = self.image.shape
        bytes_of_one = 2 * places * width * self.image.element_size()
        on_cpu = self.image.device.type == "cpu"
        return max(1, CACHE_BYTES // bytes_of_one) if on_cpu else 2**20

    def _some(self, sparse: Tensor, multimask: bool, least: float) -> Candidates:
        tokens, image = self.transform(sparse)
        which = range(1, MASKS) if multimask else range(1)
        iou = self.decoder.iou_prediction_head(tokens[:, 0])[:, which.start : which.stop]
        prompt, column = (iou > least).nonzero(as_tuple=True)
        rows = prompt.unique()
        if len(rows) < len(tokens):
            tokens, image = tokens[rows], image[rows]
        place = torch.searchsorted(rows, prompt)
        logits = self.read(tokens, image, which)[place, column]
        return Candidates(logits, iou[prompt, column], prompt)

    def read(self, tokens: Tensor, image: Tensor, which: range) -> Tensor:
        """Reads masks ``(N, K, 4H, 4W)`` from the results of :meth:`transform`.

        Args:
            tokens: ``(N, 5, C)``.
            image: ``(N, P, C)``.
            which: The numbers of the ``K`` mask tokens.
        """
        heads = self.decoder.output_hypernetworks_mlps
        weights = torch.stack([heads[i](tokens[:, 1 + i]) for i in which], 1)  # N K C/8
        fine = enlarged(self.decoder.output_upscaling, image)  # N P 2*2 2*2 C/8
        n, k, (h, w) = len(image), len(which), self.grid
        logits = weights @ fine.flatten(1, 3).transpose(1, 2)
        # N K H W 2 2 2 2 to N K 4H 4W: both enlargements have rows before columns
        logits = logits.view(n, k, h, w, 2, 2, 2, 2).permute(0, 1, 2, 4, 6, 3, 5, 7)
        return logits.reshape(n, k, 4 * h, 4 * w)


def enlarged(layers: nn.Sequential, image: Tensor) -> Tensor:
    """The decoder's enlargement of an image ``(N, P, C)``, without moving its places.

    Returns:
        ``(N, P, 4, 4, C / 8)``: of each place the four parts of the first transposed convolution,
        and the four of the second.
    """
    first, norm, act, second, last = layers
    assert isinstance(norm, LayerNorm2d)
    x = _parts(first, image)
    x = F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)  # of each place
    return last(_parts(second, act(x)))


def _parts(layer: nn.Module, x: Tensor) -> Tensor:
    """A transposed convolution of 2 x 2 whose stride is 2: ``(..., C)`` to ``(..., 4, out)``."""
    assert isinstance(layer, nn.ConvTranspose2d)
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # 2*2*out C
    assert layer.bias is not None
    return F.linear(x, weight, layer.bias.repeat(4)).unflatten(-1, (4, -1))


def _in_heads(x: Tensor, heads: int) -> Tensor:
    """``(1, n, heads * c)`` to ``(1, heads, n, c)``."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()


def _among_themselves(layer: TwoWayBlock, tokens: Tensor, code: Tensor) -> Tensor:
    if layer.first:
        return layer.self_attn(tokens, tokens, tokens)
    image_there = tokens + code
    return tokens + layer.self_attn(image_there, image_there, tokens)


def _through(tokens: Tensor, projection: nn.Linear, heads: int) -> Tensor:
    """Tokens ``(N, T, heads * c)`` of a head, brought back through the rows of a projection.

    Returns:
        ``(N, T, heads, C)``.
    """
    weight = projection.weight.unflatten(0, (heads, -1))  # heads c C
    return torch.einsum("nthc,hcd->nthd", tokens.unflatten(-1, (heads, -1)), weight)


def _look(
    attention: DecoderAttention, tokens: Tensor, image_there: Tensor, image: Tensor
) -> Tensor:
    """Attends from tokens ``(N, T, C)`` to images ``(N, P, C)``, with and without positions."""
    heads = attention.heads
    queries = attention.q_proj(tokens)
    scale = (queries.shape[-1] // heads) ** -0.5
    probes = _through(queries * scale, attention.k_proj, heads).flatten(1, 2)  # N T*heads C
    scores = torch.bmm(probes, image_there.transpose(1, 2))
    # The bias of keys adds the same to all places, which a softmax over them does not see. It has a
    # gradient all the same, if only of rounding, because processes wait for that of all parameters.
    if attention.k_proj.bias.requires_grad and torch.is_grad_enabled():
        shift = queries.unflatten(-1, (heads, -1)) * attention.k_proj.bias.view(heads, -1)
        scores = scores + (scale * shift.sum(-1)).flatten(1)[..., None]
    weights = scores.softmax(-1)
    seen = torch.bmm(weights, image).unflatten(1, (-1, heads))  # N T heads C
    rows = attention.v_proj.weight.unflatten(0, (heads, -1))
    values = torch.einsum("nthd,hcd->nthc", seen, rows).flatten(2) + attention.v_proj.bias
    return attention.out_proj(values)


def _spread(
    attention: DecoderAttention,
    tokens_there: Tensor,
    tokens: Tensor,
    image_there: Tensor,
    image: Tensor,
    queries: Tensor | None,
) -> Tensor:
    """The images ``(N, P, C)`` with what they attend to among tokens ``(N, T, C)``.

    Args:
        attention: From image to tokens.
        tokens_there: With their positions.
        tokens: Without.
        image_there: The images with positions.
        image: Without; ``(1, P, C)`` if all are the same.
        queries: ``(1, heads, P, c)``, if all images are the same.
    """
    heads, (n, t) = attention.heads, tokens.shape[:2]
    keys = attention.k_proj(tokens_there)
    keys = keys * (keys.shape[-1] // heads) ** -0.5
    if queries is not None:
        folded = keys.view(n * t, heads, -1).permute(1, 0, 2)  # heads N*T c
        scores = torch.bmm(folded, queries[0].transpose(1, 2))  # heads N*T P
        scores = scores.view(heads, n, t, -1).transpose(0, 1)  # N heads T P
    else:
        probes = _through(keys, attention.q_proj, heads).transpose(1, 2).flatten(1, 2)
        bias = keys.unflatten(-1, (heads, -1)) * attention.q_proj.bias.view(heads, -1)
        shift = bias.sum(-1).transpose(1, 2).flatten(1)[..., None]  # N heads*T 1
        scores = torch.baddbmm(shift, probes, image_there.transpose(1, 2)).unflatten(1, (heads, t))
    weights = scores.softmax(2).flatten(1, 2)  # N heads*T P
    values = attention.v_proj(tokens).unflatten(-1, (heads, -1))
    rows = attention.out_proj.weight.T.unflatten(0, (heads, -1))  # heads c C
    spread = torch.einsum("nthc,hcd->nhtd", values, rows) + attention.out_proj.bias / heads
    # the same as image + weights^T spread
    return torch.baddbmm(image, weights.transpose(1, 2), spread.flatten(1, 2))
