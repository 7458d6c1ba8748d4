"""The uncertainty of a comparison: intervals over test images and draws, and paired tests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from samtune.compare.plan import ALL, Run
from samtune.metrics.intervals import LEVEL, Floats, draws, interval, outside
from samtune.metrics.measures import HEADLINE
from samtune.metrics.paired import holm, least_p, sign_flip
from samtune.runs.per_image import read_items
from samtune.runs.values import Tree

SIDES = ("zero_shot", "tuned")
NEEDED = {f"{side}_{key}" for side in SIDES for key in ("objects", *HEADLINE)}
"""The columns of a run's rows of images that are compared."""
BEST, ALIKE, WORSE = "best", "not distinguishable from the best", "worse than the best"
"""The standing of a method among those with the same shots; it is the best if all others are worse.
"""
HIGHEST = "highest, not distinguishable from others"
CHANCE = 1 - LEVEL
"""Differences with a corrected p value below this count as more than chance."""


@dataclass(frozen=True)
class Scores:
    """A method's scores with one prompt on each test image, for each draw of the shots."""

    images: tuple[str, ...]
    masks: Mapping[str, Floats]
    """Number of masks per image, by side ``(draws, images)``."""
    sums: Mapping[str, Mapping[str, Floats]]
    """Summed values of the masks, by side and metric ``(draws, images)``."""

    def of_draws(self, side: str, key: str) -> Floats:
        """The metric, mean over masks and then over draws, for each draw of images and draws."""
        images, seeds = _weights(len(self.images), len(self.masks[side]))
        with np.errstate(invalid="ignore"):
            by_seed = (images @ self.sums[side][key].T) / (images @ self.masks[side].T)
        return np.asarray((seeds * by_seed).sum(1))

    def by_image(self, side: str, key: str) -> Floats:
        """The contribution of each image to the metric, ``(images,)``: they sum to it."""
        totals = self.masks[side].sum(1, keepdims=True)
        return np.asarray((self.sums[side][key] / totals).mean(0))

    def by_draw(self, side: str, key: str) -> Floats:
        """The metric for each draw of the shots, ``(draws,)``."""
        return np.asarray(self.sums[side][key].sum(1) / self.masks[side].sum(1))

    @cached_property
    def intervals(self) -> Tree:
        """The interval of each metric, by side and for their ``difference``."""
        count = len(self.images)
        ends: Tree = {
            # weights of draws may be negative, a fraction may not
            side: {key: interval(self.of_draws(side, key).clip(0, 1), count) for key in HEADLINE}
            for side in SIDES
        }
        ends["difference"] = {
            key: interval(self.of_draws("tuned", key) - self.of_draws("zero_shot", key), count)
            for key in HEADLINE
        }
        return ends


def _weights(images: int, seeds: int) -> tuple[Floats, Floats]:
    """How often each draw has each image and each seed; the weights of seeds sum to 1.

    A sample of few seeds underestimates the variance by ``(n - 1) / n``; their weights are spread
    to correct that.
    """
    of_images = np.concatenate(list(draws(images))).astype(np.float64)
    if seeds == 1:
        return of_images, np.ones((len(of_images), 1))
    of_seeds = np.concatenate(list(draws(seeds, len(of_images), stream=1))).astype(np.float64)
    return of_images, (1 + (of_seeds - 1) * math.sqrt(seeds / (seeds - 1))) / seeds


def read_scores(runs: Sequence[Run]) -> dict[str, Scores]:
    """A method's scores in each of its runs, by prompt mode.

    Returns:
        The result is empty if a run kept no rows, as in earlier versions, or if the runs differ in
        images.
    """
    tables = [_by_mode(read_items(run.folder)) for run in runs]
    scores: dict[str, Scores] = {}
    for mode in tables[0]:
        rows = [table.get(mode, []) for table in tables]
        names = {tuple(row["image"] for row in each) for each in rows}
        if len(names) != 1 or not all(NEEDED <= row.keys() for each in rows for row in each):
            return {}
        masks = {side: _array(rows, f"{side}_objects") for side in SIDES}
        sums = {
            side: {
                key: np.nan_to_num(_array(rows, f"{side}_{key}")) * masks[side] for key in HEADLINE
            }
            for side in SIDES
        }
        scores[mode] = Scores(names.pop(), masks, sums)
    return scores


def _by_mode(items: Sequence[Tree]) -> dict[str, list[Tree]]:
    tables: dict[str, list[Tree]] = {}
    for row in items:
        tables.setdefault(row["prompt"], []).append(row)
    return tables


def _array(rows: Sequence[Sequence[Tree]], key: str) -> Floats:
    return np.array([[float(row[key]) for row in each] for each in rows])


def add_sureness(runs: Sequence[Run], rows: Sequence[Tree]) -> list[Tree]:
    """Adds intervals and standing to each row, and tests all pairs of methods with equal shots.

    Each row gets, in itself and for each mode of its ``by_prompt``, ``intervals`` (``zero_shot``,
    ``tuned``, ``difference``), ``standing`` among those with its shots and ``against_best`` (the
    test against the highest); ``best`` says whether all others are worse.

    Args:
        runs: The runs, in the order of the rows.
        rows: See :func:`samtune.compare.rows.aggregate`.

    Returns:
        For each test: ``prompt``, ``shots``, ``methods`` (two, or one and ``zero-shot``),
        ``difference`` in IoU (first minus second), its ``interval`` over images and draws, and
        ``images`` and ``draws``: each ``p`` and, after Holm, ``corrected``.
    """
    groups: dict[tuple[Any, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((ALL if run.shots is None else run.shots, run.method), []).append(run)
    scores = {key: read_scores(of_row) for key, of_row in groups.items()}
    tests: list[Tree] = []
    for mode in dict.fromkeys(mode for each in scores.values() for mode in each):
        tests += _tests(mode, {key: of.get(mode) for key, of in scores.items()})
    _correct(tests)
    for row in rows:
        key = (row["shots"], row["method"])
        for mode, entry in row.get("by_prompt", {}).items():
            if mode in scores.get(key, {}):
                entry["intervals"] = scores[key][mode].intervals
    for shots in dict.fromkeys(row["shots"] for row in rows):
        _stand([row for row in rows if row["shots"] == shots], tests)
    return tests


def _tests(mode: str, scores: Mapping[tuple[Any, str], Scores | None]) -> list[Tree]:
    """Tests of every method against zero-shot, and of every two methods with the same shots."""
    tests = []
    for (shots, method), each in scores.items():
        if each is not None:
            tests.append(
                _test(mode, shots, (method, ZERO_SHOT), (each, "tuned"), (each, "zero_shot"))
            )
    for (one, first), (other, second) in itertools.combinations(scores.items(), 2):
        if one[0] == other[0] and first is not None and second is not None:
            if (
                first.images == second.images
                and first.masks["tuned"].shape == second.masks["tuned"].shape
            ):
                names = (one[1], other[1])
                tests.append(_test(mode, one[0], names, (first, "tuned"), (second, "tuned")))
    return tests


ZERO_SHOT = "zero-shot"


def _test(
    mode: str,
    shots: Any,
    methods: tuple[str, str],
    first: tuple[Scores, str],
    second: tuple[Scores, str],
) -> Tree:
    (a, side), (b, other) = first, second
    by_image = a.by_image(side, "iou") - b.by_image(other, "iou")
    by_draw = a.by_draw(side, "iou") - b.by_draw(other, "iou")
    over_draws = a.of_draws(side, "iou") - b.of_draws(other, "iou")
    return {
        "prompt": mode,
        "shots": shots,
        "methods": list(methods),
        "difference": float(by_image.sum()),
        "interval": interval(over_draws, len(a.images)),
        "images": {"p": sign_flip(by_image), "n": len(a.images)},
        "draws": {"p": sign_flip(by_draw), "n": len(by_draw), "least": least_p(len(by_draw))},
    }


def _correct(tests: Sequence[Tree]) -> None:
    """Corrects the p values: those against zero-shot together, those of two methods together."""
    for of_zero in (True, False):
        family = [test for test in tests if (test["methods"][1] == ZERO_SHOT) == of_zero]
        for over in ("images", "draws"):
            corrected = holm({k: test[over]["p"] for k, test in enumerate(family)})
            for k, test in enumerate(family):
                test[over]["corrected"] = corrected[k]


def differs(test: Mapping[str, Any]) -> bool:
    """Whether a test finds more than chance: over images after correction, and by its interval."""
    p = test["images"]["corrected"]
    return p is not None and p < CHANCE and outside(test["interval"])


def _stand(rows: Sequence[Tree], tests: Sequence[Tree]) -> None:
    """Sets the standing of rows with the same shots, for their own IoU and for each prompt mode."""
    modes = list(dict.fromkeys(mode for row in rows for mode in row.get("by_prompt") or {}))
    for mode in modes:
        able = [row for row in rows if mode in row["by_prompt"]]
        of_mode = [(row["method"], row["by_prompt"][mode]) for row in able]
        _rank({method: entry for method, entry in of_mode}, mode, rows[0]["shots"], tests)
    for row in rows:
        first = row["by_prompt"][modes[0]] if modes else {}
        row |= {key: first.get(key) for key in ("intervals", "standing", "against_best")}
        row["best"] = row["standing"] == BEST
    if not modes or all(row["standing"] is None for row in rows):
        _by_spread(rows)


def _rank(entries: Mapping[str, Tree], mode: str, shots: Any, tests: Sequence[Tree]) -> None:
    means = {method: entry["tuned"]["iou"]["mean"] for method, entry in entries.items()}
    known = {method: mean for method, mean in means.items() if mean is not None}
    here = [test for test in tests if test["prompt"] == mode and test["shots"] == shots]
    for entry in entries.values():
        entry |= {"standing": None, "against_best": None}
    if len(known) < 2:
        return
    top = max(known, key=lambda method: known[method])
    others = []
    for method in known:
        test = next((t for t in here if set(t["methods"]) == {method, top} != {top}), None)
        if test is not None:
            entries[method]["against_best"] = _from_best(test, top)
            others.append(differs(test))
            entries[method]["standing"] = WORSE if others[-1] else ALIKE
    if len(others) == len(known) - 1:
        entries[top]["standing"] = BEST if all(others) else HIGHEST


def _from_best(test: Tree, top: str) -> Tree:
    """A test seen from a method against the best: negative if the method is worse."""
    sign = 1 if test["methods"][1] == top else -1
    ends = test["interval"] and sorted(sign * end for end in test["interval"])
    return {**test, "difference": sign * test["difference"], "interval": ends, "best": top}


def _by_spread(rows: Sequence[Tree]) -> None:
    """Standing without rows of images: the best is marked if it leads by more than deviations."""
    alike = [row for row in rows if row["iou"]["mean"] is not None]
    if len(alike) < 2:
        return
    top = max(alike, key=lambda row: row["iou"]["mean"])

    def apart(row: Tree) -> bool:
        deviations = [each["iou"]["std"] for each in (row, top)]
        gap = top["iou"]["mean"] - row["iou"]["mean"]
        return None not in deviations and gap > math.hypot(*deviations)

    others = [row for row in alike if row is not top]
    for row in others:
        row["standing"] = WORSE if apart(row) else ALIKE
    top["best"] = all(apart(row) for row in others)
    top["standing"] = BEST if top["best"] else HIGHEST
