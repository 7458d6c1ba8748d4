"""A run's folder: it is made, filled with the log, and removed if the run comes to nothing."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samtune.distributed import from_main, is_main
from samtune.errors import InputError
from samtune.files import as_path, free_path, lies_in, write_whole
from samtune.report.terminal import Display
from samtune.runs.data_of_run import DIGESTS, SPLIT
from samtune.training.state import COUNTERS, read_counters

DEFAULT = Path("runs")
"""The folder of runs that name none."""
RUN_FILES = (
    "config.yaml", SPLIT, DIGESTS, "metrics.jsonl", "best.safetensors", "last", "samples",
    "report.html", "summary.json", "images.csv", "trackers",
)  # fmt: skip
"""The files and folders that a run writes."""


@contextmanager
def run_folder(output: str | None, name: str, resume: str | None = None) -> Iterator[Path]:
    """The run's folder, made now; removed again when the run ends before it can be resumed.

    Of several processes the main one makes and removes it, and all get its path.

    Args:
        output: The folder of the setting ``output``; it must not hold a run.
        name: Without that, ``runs/NAME`` or the next free one.
        resume: The folder of the run to go on with, instead of both.

    Raises:
        InputError: The folder holds a run or cannot be made.
        KeyboardInterrupt: With how to go on as its message.
    """
    if resume is None:
        folder = from_main(lambda: _fresh(output, name))
    else:
        folder = as_path(resume)
    try:
        yield folder
    except (InputError, OSError, KeyboardInterrupt) as error:
        resumable = (folder / "last" / COUNTERS).is_file()
        if resume is None and not resumable and is_main():
            clear(folder)
        if resumable and isinstance(error, KeyboardInterrupt):
            hint = f"go on with: samtune train resume={folder}"
            raise KeyboardInterrupt(hint) from None
        raise


def check_output(output: str | None, root: str | None) -> None:
    """Refuses a run folder that would lie within the data that the run reads.

    Args:
        output: The setting ``output``; without it the run lies below :data:`DEFAULT`.
        root: The setting ``data.root``.

    Raises:
        InputError: It names a folder beside the data.
    """
    if root is None or not (data := as_path(root)).is_dir():
        return
    folder = DEFAULT if output is None else as_path(output)
    if lies_in(folder, data):
        place = data.resolve()
        beside = free_path(place.with_name(f"{place.name}-run"))
        raise InputError(
            f"output={output or f'{DEFAULT}/...'}: lies in data.root={root}, where the run's "
            f"pictures would be among the data; choose a folder outside, as in output={beside}"
        )


class Log:
    """Appends events to ``metrics.jsonl`` and shows them; of several processes the main one."""

    def __init__(self, folder: Path, display: Display, resume: bool) -> None:
        self.path, self.display = folder / "metrics.jsonl", display
        self.rows: list[dict[str, Any]] = []
        if resume and is_main() and self.path.is_file():
            # What was logged after the state was last saved comes once more, and so does the curve
            # of strengths, which is another one if the training goes on.
            state = read_counters(folder / "last")
            ends = {"train": state["step"], "val": state["validated"], "strength": -1}
            rows = _rows(self.path.read_text("utf-8"))
            self.rows = [row for row in rows if row["step"] <= ends.get(row["event"], math.inf)]
            write_whole(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def __call__(self, event: dict[str, Any]) -> None:
        """Logs one row."""
        if not is_main():
            return
        self.rows.append(event)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(event)) + "\n")
        self.display.event(event)


def _rows(text: str) -> list[dict[str, Any]]:
    rows = []
    for line in text.splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # cut off when the process was killed
            break
    return rows


def clear(folder: Path) -> None:
    """Removes what a run wrote, and the folder if nothing else is in it."""
    for name in RUN_FILES:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    for path in (folder, *([DEFAULT] if folder.parent == DEFAULT else [])):
        if not any(path.iterdir()):
            path.rmdir()


def _fresh(output: str | None, name: str) -> Path:
    if output is not None:
        folder = as_path(output)
        if any((folder / name_of_file).exists() for name_of_file in RUN_FILES):
            raise InputError(
                f"output={output}: holds a run already; choose another folder, or go on with "
                f"resume={output}"
            )
    else:
        folder = free_path(DEFAULT / name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output={folder}: cannot be made ({error}); choose another") from error
    return folder


def finite(value: Any) -> Any:
    """Replaces NaN and infinity by ``None``: JSON has no NaN, so what was not measured is null."""
    if isinstance(value, Mapping):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
