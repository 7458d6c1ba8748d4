r"""Tuning of the layer norms (Qi et al. 2022, arXiv:2211.08682): their gain and bias are trained.

.. math:: \mathrm{LN}(x) = g \odot \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + b

with :math:`g` and :math:`b` of both norms of every block trained, starting from the base's values.
For vision transformers the method is called LN-Tune (Basu et al. 2023, arXiv:2304.01917).
"""

from __future__ import annotations

from dataclasses import dataclass

from samtune.adapters.base import ADAPTERS
from samtune.adapters.block_tensors import TunedTensors, chosen_parts
from samtune.sam.model import Sam


@ADAPTERS.register("norm_tuning")
class NormTuning(TunedTensors):
    """Trains the blocks' layer norms; exact identity at the start, mergeable."""

    paper = "Qi et al. 2022, arXiv:2211.08682; Basu et al. 2023, arXiv:2304.01917"
    sits = "both norms of every block"
    uses = ("params",)

    @dataclass(frozen=True)
    class Config(TunedTensors.Config):
        """Options of :class:`NormTuning`."""

        norms: str = "all"
        """``all``, ``norm1`` (before attention) or ``norm2`` (before the MLP)."""
        terms: str = "all"
        """``all``, ``weight`` (the gain) or ``bias``."""
        blocks: tuple[int, ...] | str = "all"
        """``all``, ``global``, ``windowed``, or block indices (negative ones count from the
        end)."""

    def __init__(self, sam: Sam, config: Config) -> None:
        norms = chosen_parts("norms", config.norms, ("norm1", "norm2"))
        terms = chosen_parts("terms", config.terms, ("weight", "bias"))
        places = sam.image_encoder.blocks[0].places
        names = [f"{places[norm]}.{term}" for norm in norms for term in terms]
        super().__init__(sam, config.blocks, names)
