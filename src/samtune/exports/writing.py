"""Writes a format's files, checks them on real images, and only then keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.assets import demo_data
from samtune.errors import InputError
from samtune.exports.base import FORMATS, Answers, Format, Job
from samtune.exports.checks import (
    ALIKE,
    LEAST_IOU,
    LOGITS,
    Ask,
    Findings,
    Reference,
    asks,
    check_images,
    compare,
)
from samtune.exports.onnx_files import Precision
from samtune.files import (
    as_path,
    check_room,
    free_path,
    lies_in,
    replacing_folder,
    write_whole,
)
from samtune.folder_lock import locked
from samtune.inference.places import REMEDY
from samtune.inference.predictor import check_threshold
from samtune.model.checks import check_model
from samtune.model.finetuned import FineTuned
from samtune.model.strength import IN_FULL, Strength
from samtune.options import speaks_python
from samtune.prompts import NONE
from samtune.report.overlays import draw_overlay
from samtune.report.page import versions
from samtune.sam.weights import fingerprint

PACKAGES = (
    "samtune",
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "transformers",
    "peft",
)
"""The packages whose versions are listed in ``export.json``, if they are installed."""
SUMMARY, PICTURE = "export.json", "check.png"


@dataclass(frozen=True)
class Exported:
    """The results of an export."""

    folder: Path
    files: tuple[str, ...]
    findings: Findings
    advice: str = ""
    """The remedy if the consumer prepares images in its own way, and its masks differ for that."""
    strength: Strength = IN_FULL
    """The strength at which the model was exported."""
    of_model: Strength = IN_FULL
    """The strength that the model has."""

    kinds: tuple[str, ...] = ()
    """The kinds of prompts that the consumer asks with."""

    @property
    def note(self) -> str:
        """A sentence about the strength, if some prompts are answered at another than the model's.

        It names these prompts with the model's strength.
        """
        shared = float(self.strength)
        others = {kind: self.of_model.of(kind) for kind in self.kinds}
        others = {kind: level for kind, level in others.items() if level != shared}
        if self.strength.by_kind or not others:
            return ""
        lost = ", ".join(f"{kind} at {level:g}" for kind, level in others.items())
        whole = ", ".join(name for name in FORMATS if FORMATS[name].keeps_checkpoint)
        return (
            f"strength {shared:g}: these files hold one set of weights for all prompts, and the "
            f"model itself answers {lost}; strength={next(iter(others))} takes that one instead, "
            f"and the formats {whole} keep all"
        )

    def summary(self) -> dict[str, Any]:
        """The results as JSON values."""
        tree = self.findings.tree()
        return {
            "out": str(self.folder),
            "files": list(self.files),
            **({"note": self.note} if self.note else {}),
            **({"advice": self.advice} if self.advice else {}),
            **self.strength.entries,
            **{key: value for key, value in tree.items() if key != "checks"},
        }


@speaks_python()
def export(
    model: FineTuned,
    out: str | Path,
    format: str = "onnx",
    *,
    name: str | None = None,
    precision: Precision = "fp32",
    threshold: float = 0.0,
    classes: Sequence[str] = (),
    check: str | Path | None = None,
    checkpoint: str | Path | None = None,
    base: str | Path | None = None,
    **options: Any,
) -> Exported:
    """Writes a model as the files of another tool.

    The files are run on real images as the tool runs them, beside the model; the folder appears
    only if they agree. ``export.json`` has the differences, versions, the input policy, the prompts
    that the model was trained for and the fingerprint of its base; ``check.png`` shows one mask.

    Args:
        model: The model; it is put into evaluation mode. If its strength differs by kind of prompt,
            files that hold one set of weights take one, see :meth:`Strength.in_one`.
        out: The folder to write, which must not be there yet, or be empty.
        format: One of those that ``samtune export --help`` lists.
        name: The name of the files; by default method and base.
        precision: ``fp32``, ``fp16`` or ``int8``, as far as the format has them.
        threshold: Logits above it are inside.
        classes: Names of the classes, for formats that store them.
        check: A folder of images to check with; by default those of the demo.
        checkpoint: The file that the model was read from, for the formats ``cvat``,
            ``label-studio`` and ``hub``, which contain it.
        base: The file of its base, for the same formats.
        options: Settings of the format.

    Raises:
        InputError: No such format, a model that it cannot express, a package that is missing, a
            folder that is not empty, or files that answer otherwise than the model.
    """
    check_model(model)
    target, strength = FORMATS[format](), model.strength
    job = _job(target, model, name, precision, threshold, classes, (checkpoint, base), options)
    folder = _place(out, (checkpoint, base, check))
    target.check_installed()
    target.check(job)
    images = check_images(check or demo_data() / "images" / "test", model.input)
    with locked(folder, f"--out={out}", "an export", whole=True):
        _place(out, ())  # another export may have ended since
        check_room(folder, REMEDY)
        with replacing_folder(folder, REMEDY) as partial:
            findings = _fill(partial, target, job, images, strength)
            names = sorted(str(f.relative_to(partial)) for f in partial.rglob("*") if f.is_file())
    differs = findings.consumer_iou < min(ALIKE, findings.iou)
    advice = target.advice(job) if differs else ""
    kinds = target.asks if job.is_prompted else (NONE,)
    return Exported(folder, tuple(names), findings, advice, job.model.strength, strength, kinds)


def _fill(
    folder: Path,
    target: Format,
    job: Job,
    images: Sequence[tuple[str, NDArray[np.uint8]]],
    of_model: Strength,
) -> Findings:
    """Writes all files of an export into a new folder, and checks them."""
    notes = target.write(job, folder)
    reference = job if target.cuts else job.taking_images_whole()
    answers = target.answers(reference, folder)
    findings = compare(reference, answers, images)
    findings.refuse_difference(job, f"--format={target.name}")
    _write_picture(reference, answers, images[0][1], folder / PICTURE)
    files = {f.relative_to(folder): f for f in sorted(folder.rglob("*")) if f.is_file()}
    about = _about(job, target, {**notes, **_other(job, of_model)}, findings, files)
    write_whole(folder / SUMMARY, json.dumps(about, indent=1) + "\n", REMEDY)
    mode = (folder / SUMMARY).stat().st_mode
    for path in files.values():  # some packages let nobody else read what they write
        path.chmod(mode)
    return findings


def _job(
    target: Format,
    model: FineTuned,
    name: str | None,
    precision: Precision,
    threshold: float,
    classes: Sequence[str],
    sources: tuple[str | Path | None, str | Path | None],
    options: Mapping[str, Any],
) -> Job:
    check_threshold(threshold, model)
    for option, value in (("name", name), ("threshold", threshold or None)):
        if value is not None and option in target.ignores:
            raise InputError(f"--{option}={value}: {target.ignores[option]}")
    if precision not in target.precisions:
        raise InputError(
            f"--precision={precision}: the format {target.name} has "
            f"{', '.join(target.precisions)}; choose one of them"
        )
    name = name or f"{model.adapter.name}-{model.sam.spec.name}".replace("+", "-")
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name[0] == ".":
        raise InputError(f"--name={name}: must be letters, digits, and - _ . between them")
    settings = FORMATS.config(target.name, options)
    checkpoint, base = (None if each is None else as_path(each) for each in sources)
    job = Job(
        model.eval().to("cpu"),
        name,
        precision,
        threshold,
        tuple(classes),
        checkpoint,
        base,
        vars(settings),
    )
    return job if target.keeps_checkpoint else job.of_one_strength(target.asks)


def _place(out: str | Path, sources: Sequence[str | Path | None]) -> Path:
    folder = as_path(out)
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(
            f"--out={out}: is there already; choose another folder, as in {free_path(folder)}"
        )
    for source in (as_path(each) for each in sources if each is not None):
        if source.is_dir() and lies_in(folder, source):
            raise InputError(f"--out={out}: lies in {source}, which is read; choose another folder")
    return folder


def _write_picture(job: Job, answers: Answers, image: NDArray[np.uint8], path: Path) -> None:
    """An image with the consumer's mask, tinted, and the model's outline."""
    from PIL import Image

    reference = Reference(job, image)
    ask: Ask = next(asks((image.shape[0], image.shape[1]), answers.kinds, reference))
    as_consumer = answers.as_consumer(image, ask)
    logits = answers.same_pixels(image, ask) if as_consumer is None else as_consumer
    boxes = [] if ask.box is None else [ask.box]
    points = [] if ask.point is None else [(*ask.point, 1.0)]
    mask, outline = (each[-1] > 0 for each in (np.asarray(logits), reference.logits(ask)))
    Image.fromarray(draw_overlay(image, mask, boxes, points, outline=outline)).save(path)


def _about(
    job: Job,
    target: Format,
    notes: Mapping[str, Any],
    findings: Findings,
    files: Mapping[Path, Path],
) -> dict[str, Any]:
    model = job.model
    return {
        "format": target.name,
        "precision": job.precision,
        **notes,
        "versions": versions(PACKAGES),
        "base": {"name": model.sam.spec.name, "sha256": fingerprint(model.sam)},
        "adapter": {"name": model.adapter.name, **(model.adapter_options or {})},
        "decoder": {"name": model.decoder.name, **(model.decoder_options or {})},
        **model.strength.entries,
        "prompts": model.prompts,
        "input": model.input.differing(),
        "threshold": job.threshold,
        "classes": list(job.classes),
        "tolerance": {"logits": LOGITS, "iou": LEAST_IOU[job.precision]},
        **findings.tree(),
        "files": {
            str(name): {"bytes": path.stat().st_size, "sha256": _digest(path)}
            for name, path in files.items()
        },
    }


def _other(job: Job, of_model: Strength) -> dict[str, Any]:
    """The model's strengths by kind of prompt, if the files have one in their place."""
    if job.model.strength.by_kind == of_model.by_kind:
        return {}
    return {"strengths_of_model": of_model.by_kind}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
