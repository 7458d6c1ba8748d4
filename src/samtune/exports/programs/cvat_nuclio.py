"""A nuclio function for CVAT: an image and clicks go in, the mask of a tuned SAM comes out.

It needs samtune; the checkpoint lies beside it, and function.yaml says how nuclio builds it.
"""

from __future__ import annotations

import base64
import json
import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from samtune import FineTuned, Predictor

CHECKPOINT = "model.safetensors"
"""The file beside this one."""
BASE = ""
"""The weights of its base, if they lie beside this file too."""
THRESHOLD = 0.0
"""Logits above it are inside, if the model does not tell classes apart."""
LABELS: dict[int, str] | None = None
"""The names of the masks of a model without prompts, by their number; a class without one, as the
background, is left out."""


class Function:
    """The answers of a model to CVAT's requests; the last image stays encoded.

    Args:
        model: Loaded, in evaluation mode.
    """

    def __init__(self, model: FineTuned) -> None:
        self._predictor, self._image = model.predictor(THRESHOLD), ""

    def answer(self, request: Mapping[str, Any]) -> Any:
        """The mask that clicks or a box ask for, or a mask for each label that the image shows.

        Args:
            request: CVAT's, with ``image`` in base64, and ``pos_points``, ``neg_points`` and
                ``obj_bbox`` in the image's pixels.
        """
        predictor = self._encoded(request["image"])
        if LABELS is None:
            return {"mask": self._mask_of_prompts(predictor, request).astype(int).tolist()}
        masks, scores, _ = predictor.predict(multimask_output=False)
        return [
            {"label": name, "type": "mask", **shape(masks[i], scores[min(i, len(scores) - 1)])}
            for i, name in LABELS.items()
            if masks[i].any()
        ]

    def _mask_of_prompts(
        self, predictor: Predictor, request: Mapping[str, Any]
    ) -> NDArray[np.bool_]:
        """The mask ``(h, w)``; an empty one without any prompt."""
        inside, outside = (request.get(key) or [] for key in ("pos_points", "neg_points"))
        box = np.ravel(request.get("obj_bbox") or []).tolist()
        if not inside and not outside and not box:
            return np.zeros(predictor.original_size, bool)
        labels = [1] * len(inside) + [0] * len(outside)
        points = [*inside, *outside]
        masks, _, _ = predictor.predict(
            points or None, labels or None, box or None, multimask_output=False
        )
        return masks[0]

    def _encoded(self, image: str) -> Predictor:
        if image != self._image:
            content = BytesIO(base64.b64decode(image))
            self._predictor.set_image(Image.open(content).convert("RGB"))
            self._image = image
        return self._predictor


def shape(mask: NDArray[np.bool_], score: float) -> dict[str, Any]:
    """A mask ``(h, w)`` as CVAT takes it from a detector: its box row by row, then the box.

    The corners of the box are inside.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = (int(each) for each in (*rows[[0, -1]], *columns[[0, -1]]))
    cut = mask[top : bottom + 1, left : right + 1].astype(int)
    return {
        "confidence": f"{min(max(float(score), 0.0), 1.0):.4f}",
        "points": [left, top, right, top, right, bottom, left, bottom],
        "mask": [*cut.ravel().tolist(), left, top, right, bottom],
    }


def init_context(context: Any) -> None:
    """Loads the model, once for each worker; the variable ``SAMTUNE_DEVICE`` says where."""
    import samtune

    here = Path(__file__).parent
    weights = here / BASE if BASE and (here / BASE).is_file() else None
    device = os.environ.get("SAMTUNE_DEVICE") or "cpu"
    context.user_data.function = Function(samtune.load(here / CHECKPOINT, weights, device=device))
    context.logger.info(f"{CHECKPOINT} answers")


def handler(context: Any, event: Any) -> Any:
    """Answers one request over HTTP."""
    body = event.body if isinstance(event.body, dict) else json.loads(event.body)
    answer = context.user_data.function.answer(body)
    return context.Response(
        body=json.dumps(answer), headers={}, content_type="application/json", status_code=200
    )
