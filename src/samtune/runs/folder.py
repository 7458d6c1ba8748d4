"""A run's folder: created, filled with the log, and removed if the run produces nothing."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from samtune.distributed import from_main, is_main
from samtune.errors import InputError
from samtune.files import as_path, check_room, free_path, lies_in, write_whole
from samtune.folder_lock import LOCK, FolderLock, refuse_running
from samtune.interrupts.signals import stop_behind, with_hint, without_interrupts
from samtune.leftovers import remove_leftovers, sync
from samtune.model.header import BEST
from samtune.registry.places import key_of
from samtune.report.terminal import Display
from samtune.runs.data_of_run import DIGESTS, SPLIT
from samtune.texts import read_text
from samtune.training.caching import FOLDER as FEATURES
from samtune.training.faults import Diverged
from samtune.training.saves import LAST, holds_run
from samtune.training.state import has_state, read_counters

DEFAULT = Path("runs")
"""The folder of runs without a set output folder."""
METRICS = "metrics.jsonl"
DAMAGED = "metrics-damaged.jsonl"
"""The new name of a log with lines that cannot be read."""
CONFIG = "config.yaml"
SUMMARY = "summary.json"
PLAIN_FILES = (CONFIG, SPLIT, DIGESTS, METRICS, BEST, "report.html", SUMMARY, "images.csv")
"""The files that a run writes."""
RUN_FILES = (*PLAIN_FILES, LAST, "samples", "trackers", FEATURES)
"""The files and folders that a run writes."""


def default_name(adapter: str, decoder: str, *others: str) -> str:
    """The name of a run's folder, if none is set.

    Args:
        adapter: Its name; of a place outside samtune the last word is taken.
        decoder: See ``adapter``.
        *others: The names of base and data.
    """
    names = ("+".join(map(key_of, each.split("+"))) for each in (adapter, decoder))
    return "-".join([*names, *others])


@contextmanager
def run_folder(output: str | None, name: str, resume: str | None = None) -> Iterator[Path]:
    """The run's folder, created now; removed again if the run ends before it can be resumed.

    With several processes, the main one creates and removes it, and all get its path.

    Meanwhile the folder is locked: no other run can use it.

    Args:
        output: The folder of the setting ``output``; it must not hold a run.
        name: If ``output`` is not set, ``runs/NAME`` or the next free name.
        resume: The folder of the run to continue, instead of both.

    Raises:
        InputError: The folder contains a run, a run is active in it, or it cannot be created.
        KeyboardInterrupt: The user stopped it; the message says how to continue.
    """
    locks: list[FolderLock] = []
    places: list[Path] = []

    def enter() -> Path:
        with without_interrupts():  # a folder that nobody knows of would stay behind
            folder = _fresh(output, name) if resume is None else as_path(resume)
            places.append(folder)
            option = f"resume={folder}" if resume is not None else f"output={folder}"
            try:
                locks.append(FolderLock(folder, option))
            except OSError as error:
                raise InputError(f"{option}: cannot be locked ({error}); choose another") from error
        for each in (folder, folder / LAST, folder / "samples"):
            remove_leftovers(each, ended=locks[0].before)
        if output is not None and resume is None:
            _refuse_begun(folder)
        return folder

    try:
        folder = from_main(enter)
    except BaseException:
        for lock in locks:
            lock.release()
        for place in places:  # unless something else is in it
            with suppress(OSError):
                place.rmdir()
        raise
    try:
        with _told_how_to_go_on(folder, new=resume is None):
            yield folder
    finally:
        for lock in locks:
            lock.release()


@contextmanager
def _told_how_to_go_on(folder: Path, new: bool) -> Iterator[None]:
    """Adds to an error how to continue, or removes the folder if there is nothing to continue."""
    try:
        yield
    except Exception as error:
        if (stop := stop_behind(error)) is not None and has_state(folder / LAST):
            raise with_hint(stop, _how_to_go_on(folder)) from None
        of_user = isinstance(error, InputError | OSError)
        if has_state(folder / LAST) and not isinstance(error, Diverged):
            error.add_note(_how_to_go_on(folder))
        elif of_user and new and not has_state(folder / LAST) and is_main():
            clear(folder)
        raise
    except KeyboardInterrupt as error:
        if has_state(folder / LAST):
            raise with_hint(error, _how_to_go_on(folder)) from None
        if new and is_main():
            clear(folder)
        raise


def _how_to_go_on(folder: Path) -> str:
    return f"go on with: samtune train resume={shlex.quote(str(folder))}"


def check_output(output: str | None, root: str | None) -> None:
    """Refuses a run folder inside the data that the run reads.

    Args:
        output: The setting ``output``; without it the run lies below :data:`DEFAULT`.
        root: The setting ``data.root``.

    Raises:
        InputError: The message suggests a folder beside the data.
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
    """Appends events to ``metrics.jsonl`` and shows them; with several processes, in the main one.

    Args:
        folder: The run's.
        display: The output.
        resume: Whether the run continues from its state, so earlier rows stay.
    """

    def __init__(self, folder: Path, display: Display, resume: bool) -> None:
        self.path, self.display = folder / METRICS, display
        self.rows: list[dict[str, Any]] = []
        if not is_main():
            return
        if resume:
            state = read_counters(folder / LAST)
            self.rows = [row for row in self._earlier() if not _comes_again(row, state)]
        write_whole(self.path, "".join(json.dumps(finite(row)) + "\n" for row in self.rows))

    def _earlier(self) -> list[dict[str, Any]]:
        """The rows that can be read; a file with others stays under another name."""
        try:
            rows, unreadable = _rows(read_text(self.path, "replace"))
            first = min(unreadable, default=0)
            remark = f"{len(unreadable)} lines cannot be read (from line {first} on)"
        except FileNotFoundError:
            self.display.warn(f"note: {self.path}: is missing, so that the log begins anew")
            return []
        except PermissionError:
            raise
        except OSError as error:
            rows, unreadable, remark = [], [1], f"cannot be read ({error.strerror})"
        if unreadable:
            aside = free_path(self.path.with_name(DAMAGED))
            self.path.replace(aside)
            self.display.warn(f"note: {self.path}: {remark}; the file as it was is now {aside}")
        return rows

    def __call__(self, event: dict[str, Any]) -> None:
        """Logs one row."""
        if not is_main():
            return
        self.rows.append(event)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(finite(event)) + "\n")
            sync(self.path)  # before a state says that this step is done
        except OSError as error:
            remedy = "free some space and resume"
            raise InputError(
                f"{self.path}: could not be written ({error.strerror}); {remedy}"
            ) from error
        self.display.event(event)


def _comes_again(row: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Whether a row is later than the state: it was logged after the state was saved.

    The curve of strengths is also dropped, because it changes if the training continues.
    """
    ends = {"train": state["step"], "val": state["validated"], "strength": -1}
    if row["event"] == "zero_shot" and state.get("zero_shot", {}) is None:
        return True
    return row["step"] > ends.get(row["event"], math.inf)


def _rows(text: str) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of a log, and the numbers of unreadable lines, except an incomplete last line."""
    rows, unreadable = [], []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif line.strip() and number < len(lines):
            unreadable.append(number)
    return rows, unreadable


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(row, dict) and isinstance(row.get("event"), str)
    return row if known and type(row.get("step")) is int else None


def clear(folder: Path) -> None:
    """Removes the files that a run wrote, and the folder if nothing else is in it."""
    for name in (*RUN_FILES, LOCK):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    for path in (folder, *([DEFAULT] if folder.parent == DEFAULT else [])):
        if not any(path.iterdir()):
            path.rmdir()


def _fresh(output: str | None, name: str) -> Path:
    folder = DEFAULT / name if output is None else as_path(output)
    while True:
        path = free_path(folder) if output is None else folder
        try:
            path.mkdir(parents=True, exist_ok=output is not None)
        except FileExistsError as error:
            if output is None:  # another run took the name at the same moment
                continue
            raise InputError(f"output={path}: is a file; choose another") from error
        except OSError as error:
            raise InputError(f"output={path}: cannot be made ({error}); choose another") from error
        try:
            check_room(path)
        except InputError:
            with suppress(OSError):  # the user's own files stay
                path.rmdir()
            raise
        return path


def refuse_taken(output: str | None, resume: str | None) -> None:
    """Refuses, before any work, a folder that a new run cannot use or in which a run is active.

    Args:
        output: The setting ``output``.
        resume: The setting ``resume``.

    Raises:
        InputError: With what to do instead.
    """
    if resume is not None:
        refuse_running(as_path(resume), f"resume={resume}")
    elif output is not None:
        refuse_running(as_path(output), f"output={output}")
        _refuse_begun(as_path(output))


def refuse_folders(run: Path) -> None:
    """Refuses, before any work, a run in which a folder, device or pipe has a file's place.

    Args:
        run: The folder of a run that goes on.

    Raises:
        InputError: It names the first of them.
    """
    of_state = sorted((run / LAST).iterdir()) if (run / LAST).is_dir() else []
    for path in (*(run / name for name in PLAIN_FILES), *of_state):
        if path.exists() and not path.is_file() and (path.is_dir() or not path.is_symlink()):
            kind = "folder" if path.is_dir() else "device or pipe"
            raise InputError(f"{path}: is a {kind}, but a run has a file there; move it away")


def has_begun(folder: Path) -> bool:
    """Whether a folder contains files of a run."""
    return any((folder / name).exists() for name in RUN_FILES)


def _refuse_begun(folder: Path) -> None:
    if not has_begun(folder):
        return
    if (folder / CONFIG).is_file():
        remedy = f"resume={folder}, or with resume=true and the same output"
        raise InputError(holds_run(folder, remedy))
    raise InputError(
        f"output={folder}: holds files of a run, but not its {CONFIG}; choose another folder, or "
        f"copy {CONFIG} back and go on with resume={folder}"
    )


def finite(value: Any) -> Any:
    """Replaces NaN and infinity, which JSON lacks, by ``None``; unmeasured values are null."""
    if isinstance(value, Mapping):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
