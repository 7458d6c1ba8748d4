"""``samtune settings`` and ``samtune metrics``: what the help of the other verbs points to."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from samtune.cli.console import Json, answer, speaking


def list_settings(
    name: Annotated[
        str | None, typer.Argument(help="A setting, a group such as train, or a part of a name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List all settings with their defaults, also those for experts."""
    with speaking(as_json) as display:
        rows = settings_named(name)
        cells = [(row["name"], _default(row), _meaning(row)) for row in rows]
        display.table(("setting", "default", "meaning"), cells)
        display.say("options of methods: samtune methods NAME")
    answer(rows, as_json)


def list_metrics(
    name: Annotated[
        str | None, typer.Argument(help="A metric or a group of metrics, to explain in full.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the metrics, or explain one of them in full."""
    from samtune.metrics.contract import MEASURES, contract, expand

    with speaking(as_json) as display:
        names = [*MEASURES] if name is None else [*expand(_trusted(name), "samtune metrics")]
        rows = [_metric_row(each) for each in names]
        if name is None:
            columns = ("metric", "group", "better", "meaning")
            display.table(columns, [tuple(row[key] for key in columns) for row in rows])
            display.say("samtune metrics NAME explains a metric in full")
        else:
            display.say(contract(names).rstrip())
    answer(rows, as_json)


def settings_named(name: str | None) -> list[dict[str, Any]]:
    """The settings of that name, group or part of a name; all if there is none.

    Raises:
        InputError: There is no such setting; the nearest is suggested.
    """
    from samtune.cli.setting_list import setting_rows
    from samtune.errors import InputError, nearest

    rows = setting_rows()
    if name is None:
        return rows
    exact = [row for row in rows if row["name"] == name]
    group = [row for row in rows if row["name"].startswith(f"{name}.")]
    alike = [row for row in rows if name in row["name"]]
    if not (matching := exact or group or alike):
        known = [row["name"].rpartition(".")[2] for row in rows]
        raise InputError(
            f"{name}: no such setting{nearest(name, known)}; samtune settings lists all"
        )
    return matching


def _trusted(name: str) -> list[str]:
    from samtune.registry import trust
    from samtune.registry.places import PLACE

    trust(*PLACE.findall(name))
    return [name]


def _metric_row(name: str) -> dict[str, str]:
    from samtune.metrics.contract import MEASURES

    measure = MEASURES[name]
    return {
        "metric": name,
        "group": measure.group,
        "better": measure.better,
        "meaning": measure.meaning,
    }


def _default(row: dict[str, Any]) -> str:
    from samtune.options import as_yaml

    value = row["default"]
    if value in (None, ()):
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else as_yaml(value)


def _meaning(row: dict[str, Any]) -> str:
    text = " ".join(row["help"].replace("``", "").split())
    level = "" if row["level"] == "everyday" else f" - {row['level']}"
    bounds = f" ({row['range']})" if row["range"] else ""
    return f"{text}{bounds}{level}"
