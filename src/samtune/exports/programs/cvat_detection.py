"""A function for CVAT: an image goes in, the masks that a tuned SAM sees in it come out.

It needs samtune and cvat-sdk; the checkpoint lies beside it. cvat-cli runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk.masks import encode_mask

if TYPE_CHECKING:
    from cvat_sdk.models import LabeledShapeRequest
    from numpy.typing import NDArray
    from PIL import Image

    from samtune import FineTuned

CHECKPOINT = "model.safetensors"
"""The file beside this one."""
BASE = ""
"""The weights of its base, if they lie beside this file too."""
THRESHOLD = 0.0
"""Logits above it are inside, if the model does not tell classes apart."""
LABELS: dict[int, str] = {0: "object"}
"""Names of the masks by their number; they are the labels of the CVAT task. A class without one,
as the background, is left out."""


class Function:
    """The function that CVAT calls.

    Args:
        model: Loaded, in evaluation mode.
    """

    def __init__(self, model: FineTuned) -> None:
        self.predictor = model.predictor(THRESHOLD)
        self.spec = cvataa.DetectionFunctionSpec(
            labels=[cvataa.label_spec(name, i, type="mask") for i, name in LABELS.items()]
        )

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: Image.Image
    ) -> list[LabeledShapeRequest]:
        """One mask for each label that the image shows, or polygons if CVAT asks for them.

        The model does not say how sure it is, so that CVAT's confidence threshold has no effect.

        Args:
            context: Says whether polygons are wanted.
            image: The image as CVAT reads it.
        """
        self.predictor.set_image(image)
        masks, _, _ = self.predictor.predict(multimask_output=False)
        shapes = []
        for i in LABELS:
            if context.conv_mask_to_poly:
                shapes += [cvataa.polygon(i, points) for points in outlines(masks[i])]
            elif masks[i].any():
                shapes.append(cvataa.mask(i, encode_mask(masks[i])))
        return shapes


def outlines(mask: NDArray[np.bool_]) -> Iterator[list[float]]:
    """The outer borders of a mask's parts as x0, y0, x1, y1, ...; their holes are filled.

    Args:
        mask: ``(h, w)``.
    """
    borders, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    yield from (border.ravel().astype(float).tolist() for border in borders if len(border) > 2)


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
