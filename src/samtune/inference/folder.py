"""Masks for a folder of images: PNG files, overlays, COCO run lengths, and other formats."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samtune.data import Record
from samtune.data.pictures import Paths, pictures_in
from samtune.data.reading import image_size
from samtune.data.stored import Stored
from samtune.data.volumes import partly_read
from samtune.errors import InputError, OutputError
from samtune.files import write_whole
from samtune.folder_lock import locked
from samtune.geometry import InputPolicy
from samtune.inference.allocator import return_freed_memory, returning_large_arrays
from samtune.inference.answering import Answering, ByPrompts
from samtune.inference.answers import Answer
from samtune.inference.format_folders import signed_folder
from samtune.inference.formats import PNG, WRITERS, Predicted, Task, Writer, chosen_formats
from samtune.inference.naming import checked_names, label_of, requests_by_name
from samtune.inference.outlines import TOLERANCE, check_tolerance
from samtune.inference.places import REMEDY, Places, paths_of, signed_png
from samtune.inference.predictor import Predictor
from samtune.inference.progress import Journal, key_of
from samtune.inference.prompt_checks import Outside, check_places
from samtune.inference.remarks import Counts, Failure, reason_of, remarks_of
from samtune.inference.requests import check_prompts, prompts_of
from samtune.interrupts.boundaries import end_if_stopped
from samtune.interrupts.signals import with_hint
from samtune.report.classes import Classes
from samtune.report.quantities import counted


@dataclass(frozen=True)
class _Prediction:
    """The work of one prediction, and the places of its results."""

    answering: Answering
    records: Sequence[Record]
    places: Places
    journal: Journal
    writers: Sequence[Writer]
    counts: Counts
    keys: Mapping[str, str]
    """The key of each image in the journal, by its name."""
    rasters: frozenset[str]
    """The names of the images that are answered tile by tile."""
    tiles: Callable[[int, int], None]
    failed: list[Failure] = field(default_factory=list)

    def run(self, batch_size: int, progress: Callable[[int, int], None]) -> None:
        """Answers all images and writes the results.

        Raises:
            KeyboardInterrupt: The user stopped it; the message says how to go on.
        """
        try:
            with returning_large_arrays():
                self.answer(batch_size, progress)
            self.finish()
        except KeyboardInterrupt as error:
            done = sum(key in self.journal for key in self.keys.values())
            images = f"{counted(len(self.records), 'image')} {'is' if done == 1 else 'are'}"
            hint = f"{done} of {images} done; go on with the same command"
            raise with_hint(error, hint) from None

    def answer(self, batch_size: int, progress: Callable[[int, int], None]) -> None:
        """Answers all images that are not done, so many at once."""
        for start in range(0, len(self.records), batch_size):
            end_if_stopped()
            group = self.records[start : start + batch_size]
            rest = [each for each in group if not self._is_done(each)]
            at_once = [each for each in rest if each.name not in self.rasters]
            answer = self.answering.together(at_once)
            for record in group:
                if record in rest:
                    self._answer_one(record, answer)
                else:
                    self.counts.earlier += 1
            return_freed_memory()
            progress(start + len(group), len(self.records))

    def _is_done(self, record: Record) -> bool:
        if record.name in self.rasters:
            is_written = self.places.raster(record.name).is_file()
        else:
            is_written = self.places.are_written(record.name)
        return self.keys[record.name] in self.journal and is_written

    def _answer_one(self, record: Record, answer_of: Callable[[Record], Answer]) -> None:
        try:
            if record.name in self.rasters:
                self._answer_raster(record)
                return
            answer = answer_of(record)
        except OutputError:  # the disk is full for the other images too
            raise
        except InputError as error:
            if record.name in self.rasters and self.places.strips(record.name).is_file():
                error = InputError(f"{error}; the same command goes on after the tiles so far")
            self.failed.append(Failure(record.name, str(record.file), error))
            return
        self.answering.note(answer, self.counts)
        self._write_pictures(record.name, answer)
        self.journal.add(self.keys[record.name], answer.entries, answer.size)

    def _answer_raster(self, record: Record) -> None:
        key, target = self.keys[record.name], self.places.raster(record.name)
        identity = f"{self.journal.identity} {key}"
        written = self.answering.write_raster(record.file, target, self.tiles, identity)
        if written.tiles_before:
            self.counts.continued = (str(record.file), written.tiles_before, written.tiles)
        self.journal.add(key, [], written.size)

    def _write_pictures(self, name: str, answer: Answer) -> None:
        places = self.places
        if places.masks:
            write_whole(places.mask(name), signed_png(answer.values), REMEDY, lasting=False)
        if places.overlays:
            picture = self.answering.draw(answer)
            write_whole(places.overlay(name), signed_png(picture), REMEDY, lasting=False)

    def finish(self) -> None:
        """Writes what is written when all is answered, from the journal; then that goes.

        It stays if an image failed, so that the same command does only what is missing.
        """
        for writer in self.writers if len(self.journal) else ():
            with signed_folder(self.places.folder / writer.name, REMEDY) as folder:
                for result, error in writer.write(self._results(), folder):
                    file = str(result.record.file)
                    self.failed.append(Failure(result.record.name, file, error))
        for name, text in self.answering.tables(self._results).items() if len(self.journal) else ():
            write_whole(self.places.folder / name, text, REMEDY)
        self.answering.masks = self.journal.masks(self.keys.values())
        if len(self.journal):
            self.places.remove_former(
                [name for name, key in self.keys.items() if key in self.journal]
            )
        # with its rasters, for the same command once the failed images are mended
        stays = bool(self.failed)
        self.journal.finish(self.places.entries, list(self.keys.values()), stays)
        if not stays:
            shutil.rmtree(self.places.rasters, ignore_errors=True)

    def _results(self) -> Iterator[Predicted]:
        by_key = {self.keys[record.name]: record for record in self.records}
        for key, entries, size in self.journal.rows(by_key):
            record = by_key[key]
            by_object = self.answering.is_by_object(record)
            raster = self.places.raster(record.name) if record.name in self.rasters else None
            numbered = self.answering.numbers_objects
            yield Predicted(record, label_of(record), size, entries, by_object, raster, numbered)


def predict_folder(
    predictor: Predictor,
    source: Paths,
    out: str | Path,
    *,
    prompts: Mapping[str, Any] | None = None,
    overlays: bool = True,
    classes: Classes | None = None,
    progress: Callable[[int, int], None] | None = None,
    sources: Sequence[str | Path | None] = (),
    formats: Sequence[str] = (PNG,),
    tolerance: float = TOLERANCE,
    batch_size: int = 1,
    tiles: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Predicts masks for one image, or for all images of a folder and its subfolders.

    Writes ``NAME.png`` (0 and 255: the union over the prompts; for a model of several classes the
    class of each pixel), ``overlays/NAME.png``, and ``predictions.json``: an entry for each prompt
    with COCO's ``segmentation`` (run lengths), ``bbox``, ``area``, and ``score``. Results are
    written image by image; after an interruption the same call continues with the missing images.
    Other formats follow when all images are answered, each in a folder of its name.

    Args:
        predictor: From ``samtune.load(...).predictor()``.
        source: An image or a folder of images, or several of them; what are plainly masks of the
            images in a folder is left out.
        out: The output folder; it is created if missing.
        prompts: By image name, ``{"boxes": [[x0, y0, x1, y1], ...]}`` or ``{"points": [[x, y],
            ...], "labels": [1, ...]}`` in pixels, see docs/prompts.md; the key ``*`` holds for all
            other images. An image without an entry is asked without a prompt.
        overlays: Whether to write overlays too.
        classes: Names for the pictures of a model that answers with classes.
        progress: Called with the number of images done and in all.
        sources: Other input files, which must not be overwritten.
        formats: The files to write besides ``predictions.json``, see docs/predict.md.
        tolerance: How far a polygon may be from the edges of the pixels, in pixels.
        batch_size: How many images are encoded together.
        tiles: Called with the number of tiles done and in all of a raster that is answered tile by
            tile, see docs/predict.md.

    Returns:
        ``images``, ``failed`` (``file`` and ``reason``), ``out``, ``left_out`` (masks among the
        images), and ``remarks``, one per kind for several images.

    Raises:
        InputError: No images, malformed prompts, an unknown format or one that cannot hold the
            images, or an output that cannot be written or holds what no prediction wrote. Single
            images that cannot be read are listed instead.
    """
    return answer_folder(
        lambda records: ByPrompts(predictor, records, prompts or {}, classes),
        predictor.model.input,
        source,
        out,
        overlays=overlays,
        progress=progress,
        sources=sources,
        formats=formats,
        tolerance=tolerance,
        batch_size=batch_size,
        tiles=tiles,
    )


def answer_folder(
    answering_of: Callable[[Sequence[Record]], Answering],
    policy: InputPolicy,
    source: Paths,
    out: str | Path,
    *,
    overlays: bool = True,
    progress: Callable[[int, int], None] | None = None,
    sources: Sequence[str | Path | None] = (),
    formats: Sequence[str] = (PNG,),
    tolerance: float = TOLERANCE,
    batch_size: int = 1,
    tiles: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Answers one image, or all images of a folder, in any way, and writes files of the answers.

    Args:
        answering_of: The way, for the images that there are.
        policy: How images are read.
        source: The images; see :func:`predict_folder`, also for the other arguments, for what it
            returns, and for what it raises.
        out: The output folder.
        overlays: Whether to write overlays too.
        progress: Called with the number of images done and in all.
        sources: Other input files.
        formats: The files to write besides ``predictions.json``.
        tolerance: The tolerance of polygons, in pixels.
        batch_size: How many images are encoded together.
        tiles: Called with the number of tiles done and in all.
    """
    names = chosen_formats(formats)
    check_tolerance(tolerance)
    check_batch_size(batch_size)
    pictures = pictures_in(source, policy)
    records = checked_names(pictures.records)
    answering = answering_of(records)
    about = ", ".join(str(each) for each in paths_of(source)[:3])
    task = Task(about, policy, answering.classes, answering.count, tolerance)
    writers = [WRITERS[name](task) for name in names if name != PNG]
    for writer in writers:
        writer.check(records)
    folders = [writer.name for writer in writers]
    of_images = [each.name for each in records]
    places = Places.of(out, source, of_images, sources, overlays, PNG in names, folders)
    rasters = answering.rasters(records, writers if PNG not in names else [])
    how = answering.identity(overlays=overlays, rasters=sorted(rasters))
    keys = {each.name: key_of(each, answering.request(each)) for each in records}
    counts = Counts(rasters=len(rasters), not_in_prompts=answering.left_without(records))
    if policy.bands is None:
        counts.partly_read = partly_read(each.image for each in records)
    within = places.subfolders(of_images)
    with locked(places.folder, f"--out={out}", "a prediction", within=within):
        checked_names(records, places.ignores_case())
        journal = Journal(places.journal, how, REMEDY)
        work = _Prediction(
            answering, records, places, journal, writers, counts, keys, rasters, tiles or _silent
        )
        work.run(batch_size, progress or _silent)
    return _summary(work, pictures.masks)


def check_batch_size(batch_size: int) -> None:
    """Refuses what is no number of images.

    Raises:
        InputError: It is less than one.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size={batch_size}: must be 1 or more images")


def refuse_outside(source: Paths, prompts: Mapping[str, Any]) -> None:
    """Refuses prompts that lie outside the one image that they are for, by its header.

    It needs no model, so that somebody who mistook the size hears of it at once.

    Args:
        source: See :func:`predict_folder`; of several images the prediction tells which failed.
        prompts: See :func:`predict_folder`.

    Raises:
        InputError: There is no image, the prompts are malformed, or the image does not hold them.
    """
    records = pictures_in(source).records
    requests = requests_by_name(check_prompts(prompts, "prompts"), records)
    if len(records) != 1 or isinstance(records[0].image, Stored):
        return
    try:
        size = image_size(records[0].image)
        check_places(prompts_of(requests.get(records[0].name), size), size)
    except Outside as error:
        raise InputError(reason_of(str(records[0].file), error)) from error


def _summary(work: _Prediction, masks: Sequence[Path]) -> dict[str, Any]:
    """The result of :func:`predict_folder`."""
    failed, images = work.failed, len(work.records)
    return {
        "images": images - len({each.name for each in failed}),
        "failed": [{"file": f.file, "reason": reason_of(f.file, f.error)} for f in failed],
        "out": str(work.places.folder),
        "left_out": [str(mask) for mask in masks],
        "remarks": remarks_of(failed, images, work.counts, masks),
    }


def _silent(done: int, total: int) -> None:
    """Shows no progress."""
