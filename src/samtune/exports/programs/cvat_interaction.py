"""A function for CVAT: clicks and a box go in, the mask of a tuned SAM comes out.

It needs samtune and cvat-sdk; the checkpoint lies beside it. cvat-cli runs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cvat_sdk.auto_annotation as cvataa
from cvat_sdk.masks import encode_mask
from cvat_sdk.models import AttributeValRequest

if TYPE_CHECKING:
    from PIL import Image

    from samtune import FineTuned, Predictor

CHECKPOINT = "model.safetensors"
"""The file beside this one."""
BASE = ""
"""The weights of its base, if they lie beside this file too."""
THRESHOLD = 0.0
"""Logits above it are inside."""
MIN_POINTS = 0
"""Clicks inside the object that are needed before the model is asked."""
MIN_BOXES: int | None = 0
"""1 if a box is needed, 0 if one can be given, ``None`` if none is taken."""


class Function:
    """The function that CVAT calls.

    Args:
        model: Loaded, in evaluation mode.
    """

    def __init__(self, model: FineTuned) -> None:
        self.model = model
        self.spec = cvataa.InteractionFunctionSpec(
            min_pos_points=MIN_POINTS, min_neg_points=0, min_bounding_boxes=MIN_BOXES
        )

    def preprocess_image(
        self, context: cvataa.InteractionFunctionContext, image: Image.Image
    ) -> Predictor:
        """The image's embedding, which an agent keeps for the next click.

        Args:
            context: Nothing so far.
            image: The image as CVAT reads it.
        """
        predictor = self.model.predictor(THRESHOLD)
        predictor.set_image(image)
        return predictor

    def detect(
        self,
        context: cvataa.InteractionFunctionContext,
        pp_image: Predictor,
        prompts: cvataa.InteractionPrompts,
    ) -> list[cvataa.InteractionResultShape]:
        """One mask with its estimated IoU, or nothing if the mask is empty.

        Args:
            context: Nothing so far.
            pp_image: The result of :meth:`preprocess_image`.
            prompts: Points and a box in the image's pixels.
        """
        points = [*prompts.pos_points, *prompts.neg_points]
        labels = [1] * len(prompts.pos_points) + [0] * len(prompts.neg_points)
        box = [x for corner in prompts.bounding_box or () for x in corner]
        if not points and not box:
            return []
        masks, scores, _ = pp_image.predict(
            points or None, labels or None, box or None, multimask_output=False
        )
        if not masks[0].any():
            return []
        confidence = AttributeValRequest(
            spec_id=int(cvataa.InteractionResultAttributes.CONFIDENCE),
            value=f"{min(max(float(scores[0]), 0.0), 1.0):.4f}",
        )
        points_of_mask = encode_mask(masks[0])
        return [
            cvataa.InteractionResultShape(
                type="mask", points=points_of_mask, attributes=[confidence]
            )
        ]


def create(
    checkpoint: str = "", base: str = "", device: str = "cpu", strength: float | str | None = None
) -> Function:
    """Loads the model; ``-p NAME=TYPE:VALUE`` of cvat-cli gives these arguments.

    Args:
        checkpoint: Another checkpoint than the one beside this file.
        base: The weights of its base; ``nano`` needs none.
        device: ``cpu``, ``cuda`` or ``mps``.
        strength: How much of the training acts, for all prompts or by kind, as in
            ``none:1,box:0``; by default as the checkpoint says.
    """
    import samtune

    here = Path(__file__).parent
    weights = base or (here / BASE if BASE and (here / BASE).is_file() else None)
    path = checkpoint or here / CHECKPOINT
    return Function(samtune.load(path, weights, device=device, strength=strength))
