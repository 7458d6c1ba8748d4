"""Several methods on the same data with the same budget, each for every draw of the shots."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from samtune.compare.exports import NAMES, write_exports
from samtune.compare.launchers.config import LaunchConfig
from samtune.compare.launchers.outcome import Failure
from samtune.compare.launchers.rounds import train_all
from samtune.compare.notes import notes
from samtune.compare.page import Entry, Picture, write_page
from samtune.compare.plan import ALL, COMPARISON, REPORT, Run, launch_config, plan_runs
from samtune.compare.rows import aggregate, grids, main_grids, zero_shot
from samtune.compare.sureness import add_sureness
from samtune.data import splits
from samtune.data.shapes import measure
from samtune.errors import InputError
from samtune.files import check_room, write_whole
from samtune.folder_lock import locked
from samtune.model.checkpoint import load
from samtune.model.header import BEST
from samtune.report.terminal import Display, numbers_link
from samtune.runs.assembly import check_trainable, dataset_of, models, tuned
from samtune.runs.automatic import check_modes, with_able_modes
from samtune.runs.baseline import answers_to_image, spread
from samtune.runs.data_of_run import check_splits, data_name
from samtune.runs.finished import read_summary
from samtune.runs.folder import SUMMARY, finite, refuse_folders
from samtune.runs.framing import choose_framing
from samtune.runs.trees import leaves
from samtune.runs.values import Tree
from samtune.runs.words import begun_or_new, config_of_run
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.weights import spec_of
from samtune.training.trackers import check_trackers

if TYPE_CHECKING:
    from samtune.data import Record

MAY_DIFFER = (
    "output", "resume", "device", "data.outside", "data.workers", "data.cache",
    "data.disk_cache", "data.cache_folder", "train.feature_folder",
)  # fmt: skip
"""Settings in which a finished run may differ from the requested one."""
GALLERY = 4
"""Number of images in the gallery."""


def compare(words: Sequence[str], display: Display) -> Tree:
    """Trains every method for every number of shots and seed, and writes one table of them.

    Seed ``s`` draws the shots (``data.shot_seed``) and seeds everything else (``seed``). Finished
    runs in the comparison's folder are read and interrupted ones are resumed, so the same command
    can be repeated, also with more methods, shots or seeds.

    Args:
        words: ``methods=``, ``shots=`` and ``seeds=``, how they are run (see
            :class:`samtune.compare.launchers.config.LaunchConfig`), and settings as for training.
        display: The output for the user.

    Returns:
        ``rows`` (one per method and shots, see :func:`samtune.compare.rows.aggregate`),
        ``zero_shot``, ``metrics``, ``guesses`` and ``by_prompt`` (see
        :func:`samtune.compare.rows.zero_shot`), ``tests`` (see
        :func:`samtune.compare.sureness.add_sureness`), ``notes``, ``prompt``, ``contract``,
        ``images``, ``runs``, ``failed`` (those without a result, which the table leaves out with
        the other draws of their method), ``seconds``, and the paths ``output``, ``comparison``,
        ``markdown``, ``csv``, ``latex`` and ``report``.

    Raises:
        InputError: A setting, method or number of shots is wrong; all are checked before anything
            runs. Or the folder holds runs with other settings, or no method could be trained.
        KeyboardInterrupt: The user stopped it; the message says how to continue.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "samtune compare: runs in one process, not under torchrun or accelerate launch; start "
            "it alone, or train each method with samtune train"
        )
    launching = launch_config(words)
    runs = plan_runs(words)
    check_room(runs[0].folder.parent)
    folder = runs[0].folder.parent
    with locked(folder, f"output={folder}", "a comparison"):
        return _compare(runs, launching, display)


def _compare(runs: list[Run], launching: LaunchConfig, display: Display) -> Tree:
    """Trains what is not done of the runs, and writes the table of all."""
    runs, left_out = _runs_that_can_be_done(runs)
    for sentence in left_out:
        display.say(f"note: {sentence}")
    records = []
    for config in {run.config.data: run.config for run in runs}.values():
        parts = splits(config.data)
        check_splits(parts, config)
        records += parts["train"]
    runs = _with_one_framing(runs, list(dict.fromkeys(records)), display)
    finished = [_finished_summary(run) for run in runs]
    for _, damage in finished:
        if damage is not None:
            display.warn(f"note: {damage}; the run is measured again")
    left = [run for run, (summary, _) in zip(runs, finished, strict=True) if summary is None]
    failed = train_all(left, len(runs) - len(left), launching, display)
    whole = _with_all_draws(runs, failed)
    return _report(whole, [read_summary(run.folder) for run in whole], failed, display)


def _with_all_draws(runs: Sequence[Run], failed: Sequence[tuple[Run, Failure]]) -> list[Run]:
    """The runs of methods of which every draw has a result, so that all rows are of equal draws.

    Raises:
        InputError: There is no such method.
    """
    lacking = {(run.method, run.shots) for run, _ in failed}
    whole = [run for run in runs if (run.method, run.shots) not in lacking]
    if not whole:
        run, failure = failed[0]
        count = len(failed)
        others = f"; {count - 1} other {'runs' if count > 2 else 'run'} failed too" * (count > 1)
        raise InputError(f"{run.title}: {failure.message}{others}")
    return whole


def _runs_that_can_be_done(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Refuses a run that would fail later, without its weights: options, data, nothing to train.

    Returns:
        The runs, each without the automatic modes that its method cannot do, and what was left out.
    """
    possible, left_out = [], []
    for run in runs:
        check_trackers(run.config.train.trackers)
        with shapes_alone():
            try:
                model = tuned(run.config, Sam(spec_of(run.config.base.name)).freeze())
                check_trainable(run.config, model)
                config, sentences = with_able_modes(model, run.config)
                check_modes(model, config.prompts.evaluated_modes[:1])
            except InputError as error:
                raise InputError(f"methods={run.method}: {error}") from error
        first = run.config.prompts.evaluated_modes[0]
        if config.prompts.evaluated_modes[0] != first:
            raise InputError(
                f"prompts.eval={first}: methods={run.method} cannot do it, and the first mode is "
                "what methods are compared by; name one first that all of them can do, as box"
            )
        possible.append(replace(run, config=config))
        left_out += [f"{run.method}: {sentence}" for sentence in sentences]
    return possible, list(dict.fromkeys(left_out))


def _with_one_framing(
    runs: Sequence[Run], records: Sequence[Record], display: Display
) -> list[Run]:
    """Gives all runs the same frame, chosen from the training images of all of them.

    A run that already exists in the comparison's folder has the frame that was chosen for it.
    """
    if runs[0].config.input.tiles != "auto":
        return list(runs)
    earlier = next((run for run in runs if (run.folder / "config.yaml").is_file()), None)
    if earlier is not None:
        before = config_of_run(earlier.folder).input
        settings = {name: getattr(before, name) for name in ("tiles", "size", "scale")}
    else:
        shapes = measure(records, runs[0].config.data)
        framing = choose_framing([run.config for run in runs], shapes)
        display.say(str(framing))
        settings = framing.settings
    return [
        replace(run, config=replace(run.config, input=replace(run.config.input, **settings)))
        for run in runs
    ]


def _finished_summary(run: Run) -> tuple[Tree | None, str | None]:
    """Gives the summary of a run that is complete in its folder, and what is wrong with it.

    Raises:
        InputError: The folder holds a run with other settings, or without its settings.
    """
    if begun_or_new(run.config).resume is None:
        return None, None
    refuse_folders(run.folder)
    earlier = leaves(config_of_run(run.folder).tree())
    wanted = leaves(run.config.tree())
    for key in sorted(earlier.keys() | wanted.keys()):
        if key not in MAY_DIFFER and earlier.get(key) != wanted.get(key):
            raise InputError(
                f"{run.folder}: has {key}={earlier.get(key)} from an earlier run, not "
                f"{wanted.get(key)}; "
                "choose another output=, or remove the folder"
            )
    if not (run.folder / SUMMARY).is_file():
        return None, None
    try:
        return read_summary(run.folder), None
    except InputError as error:
        return None, str(error).rpartition("; ")[0]


def _report(
    runs: Sequence[Run],
    summaries: Sequence[Tree],
    failed: Sequence[tuple[Run, Failure]],
    display: Display,
) -> Tree:
    rows, folder, config = aggregate(runs, summaries), runs[0].folder.parent, runs[0].config
    tests = add_sureness(runs, rows)
    result = finite({
        "title": f"{config.base.name} on {data_name(config)}",
        "rows": rows,
        **zero_shot(summaries),
        "tests": tests,
        "prompt": summaries[0]["prompt"],
        "contract": summaries[0]["contract"],
        "images": summaries[0]["images"],
        "runs": len(runs),
        "failed": [
            {"method": run.method, "shots": run.shots or ALL, "seed": run.seed, "why": why.message}
            for run, why in failed
        ],
        "seconds": round(sum(s["seconds"] for s in summaries), 3),
        "output": str(folder),
        "comparison": str(folder / COMPARISON),
        "report": str(folder / REPORT),
        **{kind: str(folder / name) for kind, name in NAMES.items()},
    })  # fmt: skip
    write_whole(folder / COMPARISON, json.dumps(result, indent=1) + "\n")
    write_exports(folder, result)
    command = " ".join(["samtune", *sys.argv[1:]])
    write_page(folder, result, _gallery(runs), config.tree(), command)
    show(display, result)
    return result


def show(display: Display, result: Mapping[str, Any]) -> None:
    """The tables of a comparison; a star marks the best for each number of shots."""
    for grid in (*main_grids(result), *grids(result)):
        display.table(grid.columns, grid.rows, whole=True, title=grid.title, numbers=True)
    for note in notes(result):
        display.say(note)
    for kind in ("comparison", *NAMES, "report"):
        if kind in result:
            display.result(f"{kind}: {result[kind]}")
    if "report" in result:
        display.say(numbers_link(result))


def _gallery(runs: Sequence[Run]) -> list[Picture]:
    """Each method's answers, with the most shots and the first seed, to the same test images."""
    most = runs[-1].shots
    most_shots = [run for run in runs if run.shots == most and run.seed == runs[0].seed]
    config = most_shots[0].config
    plain = models(config)[1]
    records = spread(splits(config.data)["test"], GALLERY)
    dataset = dataset_of(config, plain, records, False)
    tuned_models = [
        load(run.folder / BEST, plain.sam, device=str(plain.device)) for run in most_shots
    ]
    pictures = []
    for index in range(len(dataset)):
        overlay, masks = answers_to_image([plain, *tuned_models], dataset, index, config)
        names = ["zero-shot", *(run.method for run in most_shots)]
        entries = [
            Entry(name, mask, None if mask is None else _iou(mask, overlay.truth))
            for name, mask in zip(names, masks, strict=True)
        ]
        pictures.append(Picture(overlay, entries))
    return pictures


def _iou(mask: np.ndarray, truth: np.ndarray | None) -> float | None:
    if truth is None or not (union := np.count_nonzero((mask > 0) | (truth > 0))):
        return None
    return float(np.count_nonzero((mask > 0) & (truth > 0)) / union)
