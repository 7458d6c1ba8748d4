"""One mask per prompt of a predictor, whose default is SAM's three."""

from typing import Any

from samtune.inference.predictor import Predictor


def one_mask(predictor: Predictor, *asked: Any, **more: Any) -> tuple[Any, Any, Any]:
    """What ``predict`` gives without several answers to choose from."""
    return predictor.predict(*asked, multimask_output=False, **more)
