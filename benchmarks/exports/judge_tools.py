"""The same image clicked in labelling tools' own code, beside samtune's mask.

    python benchmarks/exports/judge_tools.py write CHECKPOINT FOLDER [CASE ...]  # with samtune
    python benchmarks/exports/judge_tools.py judge FOLDER [CASE ...]             # with the tools
    python benchmarks/exports/judge_tools.py page FOLDER                         # the results page

``write`` exports the checkpoint for each tool and keeps samtune's masks as the truth; ``judge``
runs the tool's model class on the folder in a process of its own, without a window. AnyLabeling and
X-AnyLabeling are one package name, so that each lies in a folder:

    pip install samexporter==0.5.0 osam==0.8.1 pyqt6
    pip install --no-deps --target TOOLS/anylabeling anylabeling==0.4.43
    pip install --no-deps --target TOOLS/x-anylabeling x-anylabeling-cvhub==4.2.1
    PYTHONPATH=TOOLS/anylabeling QT_QPA_PLATFORM=offscreen python ... judge FOLDER anylabeling-256

besides what these want at import. CHECKPOINT is the one that ``samtune demo`` leaves.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHAPES = {"as it is": (1.0, 1.0), "portrait": (1.0, 0.4), "panorama": (0.3, 1.0)}


@dataclass(frozen=True)
class Case:
    """A tool and the model that it runs."""

    tool: str
    format: str
    frame: int = 256
    resize: str = "longest"
    options: tuple[tuple[str, object], ...] = ()
    base: str = "nano"
    """Tuned nano, or another base with random weights, whose masks mean nothing but must agree."""


CASES = {
    "labelme-256": Case("labelme (osam)", "labelme"),
    "labelme-stretch": Case("labelme (osam)", "labelme", 256, "stretch"),
    "edge_sam-256": Case("X-AnyLabeling, edge_sam", "x-anylabeling"),
    "edge_sam-256-1024": Case(
        "X-AnyLabeling, edge_sam, target_length=1024",
        "x-anylabeling",
        options=(("target_length", 1024),),
    ),
    "sam2-256": Case("X-AnyLabeling, segment_anything_2", "x-anylabeling", 256, "stretch"),
    "canvas-256": Case(
        "X-AnyLabeling, segment_anything", "x-anylabeling", options=(("type", "segment_anything"),)
    ),
    "anylabeling-256": Case("AnyLabeling", "anylabeling"),
    "samexporter-256": Case("samexporter", "samexporter"),
    "samexporter-1024": Case("samexporter", "samexporter", 1024, base="vit_t"),
    "anylabeling-1024": Case("AnyLabeling", "anylabeling", 1024, base="vit_t"),
}


def pictures() -> list[tuple[str, str, np.ndarray, np.ndarray]]:
    """Two demo images, a large picture of many, and its part as large as AnyLabeling's canvas.

    Each comes in three shapes.

    Returns:
        Name, shape, RGB, and a map of the objects.
    """
    from samtune.assets import demo_data

    folder = demo_data()
    files = sorted((folder / "images").rglob("*.png"))
    pairs = [(_read(f), _read(folder / "masks" / f.relative_to(folder / "images"))) for f in files]
    squares = [p for p in pairs if p[0].shape[:2] == (256, 256)][:15]
    wide = next(p for p in pairs if p[0].shape[:2] == (256, 320))
    large = tuple(
        np.concatenate([np.concatenate([p[k] for p in squares[i : i + 5]], 1) for i in (0, 5, 10)])
        for k in (0, 1)
    )
    found = []
    for name, (image, labels) in {
        "256 x 256": squares[4],
        "320 x 256": wide,
        "1280 x 768": large,
        "1024 x 684": tuple(each[:684, :1024] for each in large),
    }.items():
        for shape, (down, right) in SHAPES.items():
            h, w = (round(n * f) for n, f in zip(image.shape[:2], (down, right), strict=True))
            found.append((name, shape, np.ascontiguousarray(image[:h, :w]), labels[:h, :w]))
    return found


def questions(labels: np.ndarray) -> dict[str, list[dict]]:
    """A box around the largest object, and a click in it, as the tools' marks."""
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    ys, xs = np.nonzero(labels == ids[areas.argmax()])
    box = [float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)]
    at = np.abs(ys - ys.mean()) + np.abs(xs - xs.mean())
    click = [float(xs[at.argmin()]), float(ys[at.argmin()])]
    return {
        "box": [{"type": "rectangle", "data": box, "label": 1}],
        "point": [{"type": "point", "data": click, "label": 1}],
    }


def write(checkpoint: str, folder: Path, names: list[str]) -> None:
    """Exports for each case, and keeps samtune's masks of all questions."""
    import torch

    import samtune
    from samtune.geometry import InputPolicy
    from samtune.inference.prompted import PromptedImage
    from samtune.prompts import Prompts

    folder.mkdir(parents=True, exist_ok=True)
    asked = pictures()
    for name in names:
        case = CASES[name]
        model = samtune.load(checkpoint) if case.base == "nano" else _random(case.base)
        model.eval().input = InputPolicy((case.frame, case.frame), case.resize)
        if not (folder / name).exists():
            samtune.export(
                model, folder / name, format=case.format, name="nuclei", **dict(case.options)
            )
        truth = {}
        for i, (_, _, image, labels) in enumerate(asked):
            prompted = PromptedImage(model, image)
            for kind, marks in questions(labels).items():
                data = torch.tensor([marks[0]["data"]])
                prompt = (
                    Prompts.of(boxes=data)
                    if kind == "box"
                    else Prompts.of(points=data[:, None], labels=torch.ones(1, 1))
                )
                truth[f"{i}/{kind}"] = (prompted.answer(prompt)[0].logits[0, 0] > 0).numpy()
        np.savez_compressed(folder / f"{name}.npz", **truth)
        print(name, "written", flush=True)


def judge(folder: Path, names: list[str]) -> None:
    """Asks the tools' own code."""
    for name in names:
        masks = TOOLS[CASES[name].format](folder / name)
        truth, rows = np.load(folder / f"{name}.npz"), []
        for i, (picture, shape, image, labels) in enumerate(pictures()):
            for kind, marks in questions(labels).items():
                mask, expected = masks(image, marks, i), truth[f"{i}/{kind}"]
                union = (mask | expected).sum()
                iou = float((mask & expected).sum() / union) if union else 1.0
                rows.append({"picture": picture, "shape": shape, "kind": kind, "iou": iou})
                if i == 3 and kind == "point":
                    _draw(folder / f"{name}.png", image, mask, marks[0]["data"])
        about = {"rows": rows, "everything": getattr(masks, "everything", None)}
        (folder / f"{name}.json").write_text(json.dumps(about))
        print(name, " ".join(f"{row['iou']:.3f}" for row in rows), flush=True)


def samexporter(folder: Path):
    """The runner of samexporter."""
    from samexporter.sam_onnx import SegmentAnythingONNX

    model = SegmentAnythingONNX(*(str(folder / f"nuclei.{p}.onnx") for p in ("encoder", "decoder")))
    embeddings: dict[int, dict] = {}

    def masks(image, marks, i):
        if i not in embeddings:
            embeddings[i] = model.encode(np.ascontiguousarray(image[..., ::-1]))
        return model.predict_masks(embeddings[i], marks)[0][0] > 0

    return masks


def anylabeling(folder: Path):
    """The model classes of AnyLabeling and X-AnyLabeling, made from the yaml as they load it."""
    import importlib

    import yaml

    path = folder / "nuclei.yaml"
    config = {**yaml.safe_load(path.read_text("utf-8")), "config_file": str(path)}
    settings = importlib.import_module("anylabeling.config")
    settings.current_config_file = "{}"  # nothing that a user changed
    home = importlib.import_module(f"anylabeling.services.auto_labeling.{config['type']}")
    classes = {
        "segment_anything": "SegmentAnything",
        "segment_anything_2": "SegmentAnything2",
        "edge_sam": "EdgeSAM",
    }
    tool = getattr(home, classes[config["type"]])(config, print)
    embeddings: dict[int, dict] = {}

    def masks(image, marks, i):
        if i not in embeddings:
            embeddings[i] = tool.model.encode(image)
        return np.asarray(tool.model.predict_masks(embeddings[i], marks)).squeeze() > 0

    if config["type"] == "segment_anything_2":
        image = pictures()[0][2]
        embedding = tool.model.encode(image)
        tool.amg.pred_iou_thresh, tool.amg.stability_score_thresh = 0.5, 0.8
        grid = tool.amg.generate(
            lambda points: tool.model.predict_masks_batch(embedding, points), image.shape[:2]
        )
        masks.everything = len(grid)  # type: ignore[attr-defined]
    return masks


def labelme(folder: Path):
    """osam, told of the model by the script that starts labelme."""
    import osam

    spec = importlib.util.spec_from_file_location(f"of_{folder.name}", folder / "start_labelme.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    osam.apis.registered_model_types[:] = []
    osam.apis.running_model = None
    script.register()

    def masks(image, marks, i):
        data = np.array(marks[0]["data"]).reshape(-1, 2)
        labels = np.array([1] if len(data) == 1 else [2, 3])
        answer = osam.apis.generate(
            osam.types.GenerateRequest(
                model="nuclei",
                image=image,
                prompt=osam.types.Prompt(points=data, point_labels=labels),
            )
        ).annotations[0]
        mask, box = np.zeros(image.shape[:2], bool), answer.bounding_box
        mask[box.ymin : box.ymax + 1, box.xmin : box.xmax + 1] = answer.mask
        return mask

    return masks


TOOLS = {
    "samexporter": samexporter,
    "anylabeling": anylabeling,
    "x-anylabeling": anylabeling,
    "labelme": labelme,
}


def page(folder: Path) -> None:
    """Prints the results as a page."""
    print(INTRODUCTION)
    heads = " | ".join(f"{shape}, {kind}" for shape in SHAPES for kind in ("box", "point"))
    grids = [json.loads(f.read_text("utf-8"))["everything"] for f in folder.glob("*.json")]
    if count := sum(filter(None, grids)):
        print(
            f"\nThe button segment everything finds {count} objects in the image of 256 x 256, at"
        )
        print("`amg_pred_iou_thresh: 0.5` and `amg_stability_score_thresh: 0.8`.")
    for picture in ("256 x 256", "320 x 256", "1280 x 768", "1024 x 684"):
        print(f"\n## An image of {picture} pixels\n\n| tool | model and frame | {heads} |")
        print("|---" * 8 + "|")
        for name, case in CASES.items():
            if not (folder / f"{name}.json").exists():
                continue
            rows = json.loads((folder / f"{name}.json").read_text("utf-8"))["rows"]
            cells = " | ".join(f"{r['iou']:.4f}" for r in rows if r["picture"] == picture)
            frame = f"{case.base} {case.frame}, {case.resize}"
            if cells:
                print(f"| {case.tool} | {frame} | {cells} |")


def _random(base: str):
    import torch

    from samtune.model.finetuned import FineTuned
    from samtune.sam.model import SPECS, Sam

    torch.manual_seed(0)
    return FineTuned(Sam(SPECS[base]).freeze(), "lora", "frozen", prompts="box+point")


def _read(path: Path) -> np.ndarray:
    from PIL import Image

    image = Image.open(path)
    return np.array(image.convert("RGB") if path.parts[-3] == "images" else image)


def _draw(path: Path, image: np.ndarray, mask: np.ndarray, click: list[float]) -> None:
    from PIL import Image

    tinted = np.where(mask[..., None], 0.5 * image + np.array([0, 60, 127.0]), image)
    x, y = (round(each) for each in click)
    tinted[max(0, y - 3) : y + 4, x] = tinted[y, max(0, x - 3) : x + 4] = (255, 0, 0)
    Image.fromarray(tinted.astype(np.uint8)).save(path)


INTRODUCTION = """# Exported models in labelling tools' own code

    python benchmarks/exports/judge_tools.py write CHECKPOINT FOLDER
    PYTHONPATH=... python benchmarks/exports/judge_tools.py judge FOLDER CASE ...
    python benchmarks/exports/judge_tools.py page FOLDER

Each number is the IoU of the mask that the tool's own code gives with samtune's, for the same box
or the same click on the largest object. The model is nano, tuned for 40 steps on the demo's
nuclei with boxes and points (LoRA, tuned decoder), or a vit_t of random weights, whose masks mean
nothing but must agree. Versions: labelme's engine osam 0.8.1, X-AnyLabeling 4.2.1, AnyLabeling
0.4.43, samexporter 0.5.0.

With the pixels that samtune prepares, every one of these exports answers with logits that differ
by less than 0.001, or `samtune export` would have refused it. What is missing to 1 below comes
from how the tool brings an image into its frame:

- labelme resizes as samtune does. `segment_anything_2` rounds pixels once, Pillow's resize of bytes
  after each axis.
- `edge_sam` leaves pixels out when it shrinks an image. Images that fit the frame (256 x 256
  here) come through as they are, those that must shrink by a fifth nearly so; a picture five
  times larger than the frame does not, and `target_length=1024` helps there.
- samexporter always resizes to 1024. A frame of 1024 gets the same pixels as in samtune; for
  nano's 256 an image of 256 pixels is enlarged four times and comes back blurred.
- AnyLabeling's canvas of 1024 x 684 enlarges small images in the same way, shifts them by a part
  of a pixel and fades them out at the edge; of larger ones it leaves pixels out. An image of its
  own size comes through as it is.

The model sees the same pixels, with an IoU of at least 0.999 in every row below, as follows:

| tool | frame and images |
|---|---|
| labelme | every frame, `input.resize=longest` or `stretch`, images of any size |
| samexporter | a frame of 1024, or images whose longer side is 1024 |
| X-AnyLabeling, `edge_sam` | images within the frame, or with a longer side of `target_length` |
| X-AnyLabeling, `segment_anything_2` | `input.resize=stretch`, images no larger than the frame |
| AnyLabeling | images that just fill the canvas of 1024 x 684 (0.998 for one of six questions) |

`samtune export` says so where its own check finds less, and names what helps.

The large pictures are 15 images put together, so that its nuclei are 5 to 10 pixels wide in nano's
frame: one pixel of an outline costs some hundredths of IoU there."""


def main() -> None:
    """Does what the words say."""
    verb, *rest = sys.argv[1:]
    if verb == "write":
        write(rest[0], Path(rest[1]), rest[2:] or list(CASES))
    elif verb == "judge":
        judge(Path(rest[0]), rest[1:] or list(CASES))
    else:
        page(Path(rest[0]))


if __name__ == "__main__":
    main()
