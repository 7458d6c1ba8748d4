"""What comes into the frame: whole images, a larger frame or tiles, on objects of all sizes.

    python benchmarks/frames.py run SET PROMPT FOLDER OUT [FRAME ...]   # what is finished is kept
    python benchmarks/frames.py results OUT                      # what the runs came to
    python benchmarks/frames.py choices SET=FOLDER ...           # what auto chooses; trains nothing

FOLDER is the set's: of kvasir, dsb2018 and isbi2012 ``images`` and ``masks``, of which a few are
taken; of coco and camvid the folder as distributed; of vessels what ``vessels.py`` drew.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from samtune.data import splits
from samtune.data.shapes import measure
from samtune.runs.framing import choose_framing
from samtune.runs.words import from_words

STEPS = {"vessels": 80}
"""Steps of a set's trainings; others have 60. 80 are what 16 images get by default."""
FRAMES = {
    "auto": (),
    "whole": ("input.tiles=whole",),
    "frame 384": ("input.tiles=whole", "input.size=384"),
    "frame 512": ("input.tiles=whole", "input.size=512"),
    "tiles": ("input.tiles=tiled",),
    "tiles, scale 2": ("input.tiles=tiled", "input.scale=2"),
    "crop": ("input.tiles=crop",),
}
"""Settings by the name that a table has for them; the base's frame is 256."""
SETS = {
    "vessels": ("drawn vessels, 584 x 565", ()),
    "kvasir": ("Kvasir-SEG, polyps", ()),
    "dsb2018": ("DSB 2018, nuclei", ("data.masks=instance",)),
    "isbi2012": ("ISBI 2012, cell interiors, 512 x 512", ()),
    "coco": ("COCO objects, images of 640", ()),
    "camvid": (
        "CamVid, eleven classes, 480 x 360",
        ("data.name=camvid", "decoder.name=semantic", "decoder.classes=11",
         "train.loss=ce + multi_dice"),
    ),
}  # fmt: skip
"""By name: what it is, and further settings."""
SPLITS = {"kvasir": (16, 8, 24), "dsb2018": (24, 8, 16), "isbi2012": (16, 4, 8)}
"""Images for training, validation and test of the sets that lie in one folder."""


def sample(name: str, root: Path, out: Path) -> Path:
    """A folder of links to a few images of a set, the same at each call."""
    if name not in SPLITS:
        return root
    folder = out / "data" / name
    masks = {path.stem: path for path in (root / "masks").iterdir()}
    images = sorted(path for path in (root / "images").iterdir() if path.stem in masks)
    order = iter(np.random.default_rng(0).permutation(len(images)))
    for split, count in zip(("train", "val", "test"), SPLITS[name], strict=True):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            image = images[next(order)]
            for kind, path in (("images", image), ("masks", masks[image.stem])):
                link = folder / split / kind / path.name
                if not link.is_symlink():
                    link.symlink_to(path.resolve())
    return folder


def run(name: str, prompt: str, root: Path, out: Path, frames: Sequence[str]) -> None:
    """Trains a set with a prompt and each frame, and leaves the run folders."""
    settings, data = SETS[name][1], sample(name, root, out)
    for frame in frames or FRAMES:
        folder = out / f"{name}-{prompt}-{frame.replace(', ', '-').replace(' ', '')}"
        if (folder / "summary.json").is_file():
            continue
        words = [f"data.root={data}", f"prompts.train={prompt}", f"prompts.eval={prompt}"]
        steps = STEPS.get(name, 60)  # validated twice
        words += [f"train.max_steps={steps}", f"train.eval_every={steps // 2}"]
        words += [f"output={folder}", *settings, *FRAMES[frame]]
        command = [sys.executable, "-m", "samtune", "train", *words]
        subprocess.run(command, check=False)


def choices(sets: Sequence[tuple[str, Path]]) -> str:
    """What ``input.tiles=auto`` chooses for each set by its masks, in Markdown."""
    rows = []
    for name, root in sets:
        title, settings = SETS[name]
        words = [f"data.root={root}", *settings, "prompts.train=none", "prompts.eval=none"]
        config = from_words(words)
        shapes = measure(splits(config.data)["train"], config.data)
        framing = choose_framing([config], shapes)
        chosen = " ".join(f"`input.{key}={value}`" for key, value in framing.settings.items())
        widths = f"{framing.pixels:.1f} | {framing.whole:.2f} | {framing.width:.2f}"
        rows.append(f"| {title} | {len(shapes)} in {shapes.images} | {widths} | {chosen} |")
    head = "| set | objects in masks | pixels wide | tokens, whole | tokens, chosen | chosen |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])


def results(out: Path) -> str:
    """IoU on the test split by what comes into the frame, in Markdown."""
    head = "| set, prompt | in the frame | zero-shot IoU | tuned IoU | s |"
    rows = [head, "|---|---|---|---|---|"]
    for name, (title, _) in SETS.items():
        for path in sorted(out.glob(f"{name}-*/summary.json")):
            summary = json.loads(path.read_text("utf-8"))
            _, prompt, frame = path.parent.name.split("-", 2)
            ious = (f"{summary[side]['iou']:.3f}" for side in ("zero_shot", "tuned"))
            cells = (f"{title}, {prompt}", frame, *ious, f"{summary['seconds']:.0f}")
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    part, *rest = sys.argv[1:]
    if part == "run":
        run(rest[0], rest[1], Path(rest[2]), Path(rest[3]), rest[4:])
    elif part == "results":
        print(results(Path(rest[0])))
    else:
        print(choices([(name, Path(root)) for name, root in (word.split("=") for word in rest)]))
