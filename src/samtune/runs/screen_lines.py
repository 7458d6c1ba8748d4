"""Lines of first screens: a matter, and what there is to say of it."""

from __future__ import annotations

from samtune.model.finetuned import FineTuned
from samtune.precision import Precision, arithmetic
from samtune.report.quantities import counted, quantity

COLUMN = 10
"""Column at which the text begins, after the name of the matter."""


def line(name: str, text: str) -> str:
    """A matter and what there is to say of it."""
    return f"{name:<{COLUMN}}{text}"


def of_answers(model: FineTuned, precision: Precision, images: int, at_once: int) -> str:
    """The first line of a verb that answers images: where, how, and what lies in memory.

    Args:
        model: The model that answers.
        precision: The value of the setting.
        images: How many there are.
        at_once: How many are encoded together.
    """
    height, width = model.input.size
    weights = sum(p.nbytes for p in (*model.sam.parameters(), *model.parameters()))
    return line(
        "device",
        f"{model.device}, {arithmetic(precision, model.device)}; {counted(images, 'image')}, "
        f"{at_once} at once, frame {height} x {width}; weights {quantity(weights, 'B')}",
    )
