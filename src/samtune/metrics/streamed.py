"""The common part of metrics over images: sums, and the metric's value from any such sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Rows(NamedTuple):
    """Rows that a metric keeps besides its sums, and how often each counts."""

    table: Tensor
    """``(n, fields)`` float64."""
    times: Tensor
    """``(R, n)`` float64: for each of R draws of the images, how often a row is in it."""


class Streamed(Metric):
    """A metric over images; a process may have no images at all."""

    full_state_update: bool = False
    is_differentiable: bool = False
    class_states: tuple[str, ...] = ()
    """States with one row per class, in which rows of zeros do not change the value."""
    drawn_together: int = 1
    """Consecutive images that belong together and are drawn as one unit for an interval."""

    @property
    def update_called(self) -> bool:
        """Always true, so that a process without data does not cause a warning."""
        return True

    def add_sums(self, **shapes: tuple[int, ...]) -> None:
        """Adds float64 states that are summed over processes."""
        for name, shape in shapes.items():
            zeros = torch.zeros(shape, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The metrics from R sums at once, ``(R,)`` float64 each; NaN for an empty average.

        Args:
            sums: By state ``(R, ...)`` on the CPU, over any images.
            rows: The rows, for a metric that keeps them.
        """
        raise NotImplementedError

    def so_far(self) -> dict[str, Tensor]:
        """The sums so far, by state ``(1, ...)`` on the CPU."""
        states = self.metric_state.items()
        return {name: state.cpu()[None] for name, state in states if isinstance(state, Tensor)}

    def compute(self) -> dict[str, Any]:
        """The metrics so far, over all processes; NaN if there is nothing to average."""
        return {name: float(value) for name, value in self.values(self.so_far()).items()}


class RowMetric(Streamed):
    """A metric that keeps rows of a few numbers instead of sums.

    Args:
        **kwargs: torchmetrics' own options.
    """

    fields: int
    """Number of columns of a row."""
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
        """The metrics so far, over all processes; NaN if there is nothing to average."""
        table = self.table()
        rows = Rows(table, torch.ones(1, len(table), dtype=torch.float64))
        sums = {name: state for name, state in self.so_far().items() if name != "rows"}
        return {name: float(value) for name, value in self.values(sums, rows).items()}

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any = None
    ) -> None:
        # Gathering needs one dtype in all processes, and an empty list would become float32.
        if not self.rows:
            self.rows = [torch.zeros(0, dtype=torch.float64, device=self.device)]
        given = {} if dist_sync_fn is None else {"dist_sync_fn": dist_sync_fn}
        super()._sync_dist(process_group=process_group, **given)
