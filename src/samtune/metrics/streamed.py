"""What all metrics over images have in common: sums, and the numbers of any such sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Rows(NamedTuple):
    """Rows that a metric keeps beside its sums, and how often each counts."""

    table: Tensor
    """``(n, fields)`` float64."""
    times: Tensor
    """``(R, n)`` float64: for each of R draws of the images how often a row is in it."""


class Streamed(Metric):
    """A metric over images, of which any process may see none."""

    full_state_update: bool = False
    is_differentiable: bool = False
    class_states: tuple[str, ...] = ()
    """States with a row for each class, of which rows of zeros change no number."""
    drawn_together: int = 1
    """Images in a row that belong together, and are drawn as one for an interval."""

    @property
    def update_called(self) -> bool:
        """Always true: a process whose share of the data is empty is no reason to warn."""
        return True

    def add_sums(self, **shapes: tuple[int, ...]) -> None:
        """Adds float64 states that are summed over processes."""
        for name, shape in shapes.items():
            zeros = torch.zeros(shape, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The numbers of R sums at once, each ``(R,)`` float64, NaN if there is nothing to average.

        Args:
            sums: By state ``(R, ...)`` on the CPU, of whatever images.
            rows: For a metric that keeps rows.
        """
        raise NotImplementedError

    def so_far(self) -> dict[str, Tensor]:
        """The sums so far, by state ``(1, ...)`` on the CPU."""
        states = self.metric_state.items()
        return {name: state.cpu()[None] for name, state in states if isinstance(state, Tensor)}

    def compute(self) -> dict[str, Any]:
        """The numbers so far, over all processes; NaN where there was nothing to average."""
        return {name: float(value) for name, value in self.values(self.so_far()).items()}


class RowMetric(Streamed):
    """A metric that keeps rows of a few numbers instead of sums.

    Args:
        **kwargs: torchmetrics' own options.
    """

    fields: int
    """Numbers of a row."""
    rows: Any
    """List of flattened rows, float64."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("rows", [], dist_reduce_fx="cat")

    def keep(self, row: Tensor) -> None:
        """Adds a row ``(fields,)``."""
        self.rows.append(row.to(self.device, torch.float64))

    def table(self) -> Tensor:
        """All rows so far, ``(n, fields)`` float64 on the CPU."""
        rows = dim_zero_cat(self.rows) if len(self.rows) else torch.zeros(0)
        return rows.cpu().double().reshape(-1, self.fields)

    def compute(self) -> dict[str, Any]:
        """The numbers so far, over all processes; NaN where there was nothing to average."""
        table = self.table()
        rows = Rows(table, torch.ones(1, len(table), dtype=torch.float64))
        sums = {name: state for name, state in self.so_far().items() if name != "rows"}
        return {name: float(value) for name, value in self.values(sums, rows).items()}

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any = None
    ) -> None:
        # Gathering needs one dtype of all, and what is empty would come as float32.
        if not self.rows:
            self.rows = [torch.zeros(0, dtype=torch.float64, device=self.device)]
        given = {} if dist_sync_fn is None else {"dist_sync_fn": dist_sync_fn}
        super()._sync_dist(process_group=process_group, **given)
