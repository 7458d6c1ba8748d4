"""transformers' ``SamModel`` with the sizes and tensors of a base, and how it is asked."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from samtune.data.transforms import fit
from samtune.errors import InputError
from samtune.exports.base import Ask, Job, LastImage
from samtune.exports.checks import prompts_of
from samtune.model.finetuned import FineTuned
from samtune.ops import resize
from samtune.prompts import BOX_TOP_LEFT
from samtune.sam.weights import transformers_names

OFFICIAL_EPS = 1e-5
"""SAM's own epsilon in the decoder's norms; transformers' default is 1e-6."""


@contextmanager
def quietly() -> Iterator[None]:
    """Context without transformers' bars, and without what packages warn each other of."""
    from transformers.utils import logging

    has_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if has_bars:
            logging.enable_progress_bar()


def check_expressible(model: FineTuned, format: str, needs: Sequence[str]) -> None:
    """Refuses what ``SamModel`` has no sizes for, and packages that do not load.

    Args:
        model: The model whose base and frame count.
        format: Its name.
        needs: Packages that the format imports.

    Raises:
        InputError: A base without the official ViT, a frame that is no square, or such a package.
    """
    for package in needs:
        try:
            import_module(package)
            if package == "transformers":
                import_module("transformers.models.sam.modeling_sam")
        except (
            ImportError,
            RuntimeError,
            OSError,
        ) as error:  # as by a torchvision of another torch
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise InputError(
                f"--format={format}: {package} is installed but does not load ({reason}); install "
                f"it anew, and what it imports in the version for torch {torch.__version__}"
            ) from error
    spec, (h, w) = model.sam.spec, model.input.size
    if spec.encoder != "vit":
        raise InputError(
            f"--format={format}: transformers has SAM with a plain ViT, and {spec.name} has "
            "another encoder; export to pth or onnx"
        )
    if h != w:
        raise InputError(
            f"--format={format}: transformers takes square frames, and the model was tuned at "
            f"input.size=[{h},{w}]; export to onnx"
        )


def sam_model(model: FineTuned, state: Mapping[str, Tensor]) -> nn.Module:
    """A ``SamModel`` in evaluation mode.

    Args:
        model: Its base and its frame give the sizes.
        state: All tensors of a base, under official names.
    """
    from transformers import SamModel

    built = SamModel(_configuration(model)).eval().requires_grad_(False)
    fitted = _at_grid(state, model.input.size[0] // model.sam.spec.patch_size)
    names = transformers_names(built.state_dict())
    built.load_state_dict({name: fitted[official] for name, official in names.items()})
    return built


def _configuration(model: FineTuned) -> Any:
    from transformers import SamConfig

    spec, side = model.sam.spec, model.input.size[0]
    common = {"image_size": side, "patch_size": spec.patch_size}
    return SamConfig(
        architectures=["SamModel"],
        vision_config={
            "hidden_size": spec.embed_dim,
            "output_channels": spec.prompt_dim,
            "num_hidden_layers": spec.depth,
            "num_attention_heads": spec.heads,
            "window_size": spec.window,
            "global_attn_indexes": list(spec.global_blocks),
            "num_pos_feats": spec.prompt_dim // 2,
            "mlp_ratio": spec.mlp_ratio,
            "mlp_dim": int(spec.embed_dim * spec.mlp_ratio),
            **common,
        },
        prompt_encoder_config={"hidden_size": spec.prompt_dim, **common},
        mask_decoder_config={
            "hidden_size": spec.prompt_dim,
            "mlp_dim": spec.decoder_hidden,
            "iou_head_hidden_dim": spec.iou_hidden,
            "layer_norm_eps": OFFICIAL_EPS,
        },
    )


def _at_grid(state: Mapping[str, Tensor], side: int) -> dict[str, Tensor]:
    """Tensors whose absolute positions fit a grid of ``side`` tokens; tables fit every grid."""
    name = "image_encoder.pos_embed"
    fitted = dict(state)
    fitted[name] = resize.positions(fitted[name], (side, side))
    before, length = state[name].shape[1], 2 * side - 1
    for key, table in state.items():
        # tables of windowed blocks have the window's length
        if key.endswith((".rel_pos_h", ".rel_pos_w")) and len(table) == 2 * before - 1 != length:
            fitted[key] = resize.relative_table(table, length)
    return fitted


def write_processor(model: FineTuned, folder: Path) -> None:
    """Writes how images enter: ``preprocessor_config.json``.

    Args:
        model: With the input policy.
        folder: The folder to write to.
    """
    policy, spec, side = model.input, model.sam.spec, model.input.size[0]
    low = model.mask_size[0]
    mean, std = policy.mean or spec.pixel_mean, policy.std or spec.pixel_std
    tree = {
        "image_processor_type": "SamImageProcessor",
        "processor_class": "SamProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"longest_edge": side},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in mean],
        "image_std": [value / 255 for value in std],
        "do_pad": True,
        "pad_size": {"height": side, "width": side},
        "mask_size": {"longest_edge": low},
        "mask_pad_size": {"height": low, "width": low},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(tree, indent=2) + "\n", "utf-8")


class TransformersAnswers:
    """A ``SamModel`` at work.

    Args:
        job: The job of the exported model.
        built: The ``SamModel``, as it was read from the exported files.
        folder: With the processor's file.
    """

    kinds: Sequence[str] = ("box", "point", "mask", "none")

    def __init__(self, job: Job, built: Any, folder: Path) -> None:
        from transformers import SamProcessor

        self._model, self._built = job.model, built
        self._encoded = LastImage[Tensor]()
        self._processor = SamProcessor.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def same_pixels(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """Logits ``(1, h, w)``, see :class:`samtune.exports.base.Answers`."""
        model = self._model
        pixels, geometry = fit(image, model.input)
        x = model.preprocess(pixels[None], torch.tensor([geometry.resized]))
        prompts = prompts_of(ask).to_model(geometry)
        is_corner = prompts.labels[0] >= BOX_TOP_LEFT
        is_point = (prompts.labels[0] >= 0) & ~is_corner
        inputs: dict[str, Any] = {}
        if is_point.any():
            inputs["input_points"] = prompts.coords[0][is_point][None, None]
            inputs["input_labels"] = prompts.labels[0][is_point][None, None]
        if is_corner.any():
            inputs["input_boxes"] = prompts.coords[0][is_corner].reshape(1, 1, 4)
        low = self._ask(ask, self._embedding("same", image, x), inputs)
        return geometry.masks_to_original(low[0])[0].numpy()

    @torch.no_grad()
    def as_consumer(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """The same with transformers' own processor before and after."""
        points = {} if ask.point is None else {"input_points": [[[list(ask.point)]]]}
        boxes = {} if ask.box is None else {"input_boxes": [[list(ask.box)]]}
        inputs = self._processor(image, return_tensors="pt", **points, **boxes)
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        embedding = self._embedding("consumer", image, inputs.pop("pixel_values"))
        low = self._ask(ask, embedding, {key: t.float() for key, t in inputs.items()})
        bring = self._processor.image_processor.post_process_masks
        return np.asarray(bring(low, *sizes, binarize=False)[0][0])

    def _embedding(self, whose: str, image: NDArray[np.uint8], pixels: Tensor) -> Tensor:
        """The embedding of an image, which is encoded once for all that is asked of it."""
        return self._encoded.get(whose, image, lambda: self._built.get_image_embeddings(pixels))

    def _ask(self, ask: Ask, embedding: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Logits ``(1, 1, 1, 4H, 4W)`` of one image, prompt and mask."""
        if ask.mask is not None:
            inputs["input_masks"] = torch.as_tensor(ask.mask)[None]
        answer = self._built(image_embeddings=embedding, **inputs, multimask_output=False)
        return answer.pred_masks
