"""The meaning of every metric: the registry of names, and the contract printed with results.

Importing this module loads neither torch nor torchmetrics.
"""

from __future__ import annotations

from collections.abc import Iterable

from samtune.errors import InputError, nearest
from samtune.metrics.meaning import Measure
from samtune.metrics.measures import ALWAYS, GROUPS, MEASURES

__all__ = [
    "ALWAYS",
    "GROUPS",
    "MEASURES",
    "METRIC_CONTRACT",
    "Measure",
    "contract",
    "expand",
    "metrics_table",
]


def expand(
    names: Iterable[str], key: str = "eval.metrics", maps: bool = False, views: bool = False
) -> tuple[str, ...]:
    """Resolves names of metrics and groups to names of metrics, each once, in their order.

    Args:
        names: Names of metrics and of groups.
        key: The setting that they come from.
        maps: Whether the data are maps of classes.
        views: Whether images are cut into tiles or crops, which have no frame of the whole image.

    Raises:
        InputError: A name is unknown, or a metric is undefined for the data or for cut images.
    """
    expanded: dict[str, None] = {}
    for name in names:
        if name not in MEASURES and name not in GROUPS:
            known = [*GROUPS, *MEASURES.names()]
            of_plugins = [*MEASURES.outside]
            raise InputError(
                f"{key}={name}: no such metric{nearest(name, known)}; choose from the groups "
                f"{', '.join(GROUPS)} or of the names that samtune metrics lists"
                f"{', or of plug-ins ' if of_plugins else ''}{', '.join(of_plugins)}"
            )
        expanded |= dict.fromkeys(GROUPS.get(name, (name,)))
    for name in expanded:
        measure = MEASURES[name]
        if maps and not measure.maps:
            raise InputError(
                f"{key}={name}: is undefined for maps of classes; choose from regions and "
                "boundaries, or miou_gsam"
            )
        if views and "frame" in measure.needs:
            raise InputError(
                f"{key}={name}: is measured in the model's frame, which an image that is cut has "
                "not; choose another, or set input.tiles=whole"
            )
    return tuple(expanded)


def contract(names: Iterable[str]) -> str:
    """The meaning of the metrics as text: what holds for all, then one line per metric.

    Args:
        names: Metrics, as :func:`expand` gives them.
    """
    terms = {name: _terms(MEASURES[name]) for name in names}
    common = [term for term in next(iter(terms.values()), []) if _in_all(term, terms.values())]
    if len(terms) == 1:
        common = []
    head = [
        "Ignored pixels are left out; values run from 0 to 1 unless a unit is shown",
        *common,
    ]
    lines = ["; ".join(head) + "."]
    for name, each in terms.items():
        source = f" ({MEASURES[name].source})" if MEASURES[name].source else ""
        rest = [term for term in each if term not in common]
        lines.append("; ".join([f"{name}: {MEASURES[name].meaning}{source}", *rest]) + ".")
    return "\n".join(lines) + "\n"


def _in_all(term: str, lists: Iterable[list[str]]) -> bool:
    return all(term in each for each in lists)


def _terms(measure: Measure) -> list[str]:
    return [
        *([measure.masks] if measure.masks else []),
        f"averaged: {measure.averaged}",
        f"empty masks: {measure.empty}",
        f"resolution: {measure.resolution}",
        f"threshold: {measure.threshold}",
        f"{measure.better} is better",
    ]


def metrics_table() -> str:
    """All metrics as a Markdown table, for the documentation.

    Its page says for all of them which masks count.
    """
    columns = ("name", "group", "meaning", "averaged", "empty masks", "resolution", "threshold")
    lines = [f"| {' | '.join((*columns, 'better', 'source'))} |", "|---" * 9 + "|"]
    for name, m in MEASURES.items():
        cells = (f"`{name}`", m.group, m.meaning, m.averaged, m.empty, m.resolution, m.threshold)
        lines.append(f"| {' | '.join((*cells, m.better, m.source))} |")
    return "\n".join(lines) + "\n"


METRIC_CONTRACT = contract(ALWAYS)
"""The meaning of the metrics that every evaluation prints."""
