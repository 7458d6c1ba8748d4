"""No adapter: the frozen encoder as it is, for decoder-only tuning and the zero-shot baseline."""

from __future__ import annotations

from torch import Tensor

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.sam.model import Sam


@ADAPTERS.register("none")
class NoAdapter(Adapter):
    """Leaves the encoder alone; only the decoder can be trained."""

    paper = "Kirillov et al. 2023, arXiv:2304.02643"
    sits = "nowhere"
    detached = True

    def __init__(self, sam: Sam, config: Adapter.Config) -> None:
        super().__init__()

    def reads(self, depth: int) -> frozenset[int]:
        """No stream."""
        return frozenset()

    def deltas(self, sam: Sam) -> dict[str, Tensor]:
        """No difference."""
        return {}
