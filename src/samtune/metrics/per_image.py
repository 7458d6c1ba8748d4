"""Each image's additions to a metric, from which the metric of other image samples is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.metrics.intervals import RESAMPLES, Floats, draws
from samtune.metrics.streamed import RowMetric, Rows, Streamed

LEAST_DRAWS, ROWS_IN_ALL = 200, 4_000_000
"""The least number of draws of metrics that keep rows, and the number of rows that all draws
together may have, above which fewer draws are taken."""
CELLS = 1_000_000
"""Numbers in the sums of draws that are held in memory at once."""


class Addition(NamedTuple):
    """The additions of one image to a metric."""

    place: int
    """The image's index in the data set."""
    sums: dict[str, tuple[NDArray[np.int64], Floats]]
    """The flattened indices that changed in each state, and by how much."""
    rows: Floats
    """``(k, fields)``: the rows that it added."""


class PerImage:
    """Updates a metric image by image, and keeps each image's additions.

    Args:
        metric: A metric over images; its states are sums, and rows if it keeps some.
    """

    def __init__(self, metric: Streamed) -> None:
        self.metric = metric
        self.additions: list[Addition] = []

    def update(self, place: int, *image: Any) -> None:
        """Adds one image.

        Args:
            place: Its index in the data set.
            *image: The arguments of the metric's own ``update``.
        """
        self.note(place, lambda: self.metric.update(*image))

    def note(self, place: int, add: Callable[[], None]) -> None:
        """Calls a function that adds an image, and keeps the resulting changes."""
        before = {name: state.clone() for name, state in self._sums().items()}
        rows = self.metric.rows if isinstance(self.metric, RowMetric) else []
        start = len(rows)
        add()
        sums = {}
        for name, state in self._sums().items():
            change = (state - before[name]).flatten().cpu()
            at = change.nonzero()[:, 0]
            if len(at):
                sums[name] = (at.numpy(), change[at].double().numpy())
        new = [row.cpu().double().numpy() for row in rows[start:]]
        self.additions.append(Addition(place, sums, np.stack(new) if new else np.zeros((0, 1))))

    def _sums(self) -> dict[str, Tensor]:
        states = self.metric.metric_state.items()
        return {name: state for name, state in states if isinstance(state, Tensor)}


@dataclass(frozen=True)
class Resampling:
    """A metric's values for draws of the images, over all processes.

    For the same number of images the draws are the same for every model, so values can be
    subtracted.
    """

    metric: Streamed
    """The metric that interprets the sums; its own state is not used."""
    additions: Sequence[Addition]
    """The additions of each image, in the order of the data set."""

    @cached_property
    def units(self) -> int:
        """Number of images that are drawn, or of groups of images that belong together."""
        return int(self._unit.max()) + 1 if len(self._unit) else 0

    @cached_property
    def _unit(self) -> NDArray[np.int64]:
        """The unit with which each image is drawn."""
        places = np.array([each.place for each in self.additions], np.int64)
        return np.unique(places // self.metric.drawn_together, return_inverse=True)[1]

    @cached_property
    def values(self) -> dict[str, Floats]:
        """Values by name, ``(draws,)``, or by class ``(draws, classes)``, see :attr:`classes`."""
        if not self.additions:
            return {}
        tables = {name: torch.from_numpy(table) for name, table in self._tables().items()}
        table, owner = self._rows()
        count = RESAMPLES
        if len(table):
            count = min(count, max(LEAST_DRAWS, ROWS_IN_ALL // len(table)))
        width = len(table) + sum(each[0].numel() for each in tables.values())
        parts: dict[str, list[Tensor]] = {}
        for block in draws(self.units, count):
            for times in np.array_split(block, -(-len(block) * width // CELLS)):
                weights = torch.from_numpy(times).double()
                sums = {
                    name: torch.einsum("rn,n...->r...", weights, each)
                    for name, each in tables.items()
                }
                rows = Rows(table, weights[:, owner]) if len(table) else None
                for name, value in self.metric.values(sums, rows).items():
                    parts.setdefault(name, []).append(value)
        return {name: torch.cat(each).numpy() for name, each in parts.items()}

    @cached_property
    def classes(self) -> list[int]:
        """The classes that occur in any image, in the order of the values by class."""
        return [int(row) for row in self._class_rows[:-1]]

    def _tables(self) -> dict[str, Floats]:
        """Additions of each image by state, ``(images, ...)``, without classes that never occur."""
        tables = {}
        for name, state in self.metric.metric_state.items():
            if not isinstance(state, Tensor):
                continue
            rows = np.arange(state.shape[0])
            if name in self.metric.class_states:
                rows = np.concatenate([self._class_rows, rows[self._common :]])
            shape = (len(rows), *state.shape[1:])
            inner = state[0].numel()
            table = np.zeros((self.units, len(rows) * inner))
            for i, addition in zip(self._unit, self.additions, strict=True):
                if name in addition.sums:
                    at, values = addition.sums[name]
                    table[i, np.searchsorted(rows, at // inner) * inner + at % inner] += values
            tables[name] = table.reshape(self.units, *shape)
        return tables

    def _rows(self) -> tuple[Tensor, Tensor]:
        """All rows ``(n, fields)``, and for each row the unit with which it is drawn."""
        parts = [addition.rows for addition in self.additions if len(addition.rows)]
        owner = np.repeat(self._unit, [len(each.rows) for each in self.additions])
        table = np.concatenate(parts) if parts else np.zeros((0, 1))
        return torch.from_numpy(table), torch.from_numpy(owner)

    @cached_property
    def _common(self) -> int:
        """Number of rows that all states by class have."""
        states = self.metric.metric_state
        return min((len(states[name]) for name in self.metric.class_states), default=0)

    @cached_property
    def _class_rows(self) -> NDArray[np.int64]:
        """The rows that any image changed, and the last one."""
        states = self.metric.metric_state
        present = {self._common - 1}
        for name in self.metric.class_states:
            inner = states[name][0].numel()
            for addition in self.additions:
                if name in addition.sums:
                    present.update((addition.sums[name][0] // inner).tolist())
        return np.array(sorted(row for row in present if row < self._common), np.int64)
