"""Asks label-studio-ml's own server, over HTTP, for what an exported backend answers.

    python benchmarks/exports/label_studio.py FOLDER

FOLDER is of ``samtune export --format label-studio``. The server runs in this interpreter's
environment, which needs label-studio-ml (of PyPI or of its repository) and label-studio-converter
or label-studio-sdk, whose decoder reads the strokes. The image comes from a server, too.
"""

import json
import subprocess
import sys
import time
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np

import samtune
from samtune.assets import demo_data

PORT, PATIENCE = 9191, 120
BACKEND = f"http://127.0.0.1:{PORT}"


def call(route, body=None):
    """The JSON of a route of the backend."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BACKEND + route, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def wait(server):
    """Returns once the backend says that it is up."""
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            return call("/health")
        except OSError:
            time.sleep(0.5)
    sys.exit("the backend did not start")


def decode(value, shape):
    """A stroke's mask by Label Studio's own decoder."""
    try:
        from label_studio_sdk.converter.brush import decode_rle
    except ImportError:
        from label_studio_converter.brush import decode_rle
    return decode_rle(value["rle"]).reshape(*shape, 4)[..., 3] > 0


def regions(shape, point=None, box=None, label="object"):
    """What the browser sends after a click or a rectangle."""
    h, w = shape
    of_image = {"original_width": w, "original_height": h, "image_rotation": 0}
    out = []
    for x, y in point or []:
        value = {"x": 100 * x / w, "y": 100 * y / h, "width": 0.4, "keypointlabels": [label]}
        out.append({**of_image, "type": "keypointlabels", "is_positive": 1, "value": value})
    if box is not None:
        value = {"x": 100 * box[0] / w, "y": 100 * box[1] / h, "rotation": 0}
        value |= {"width": 100 * (box[2] - box[0]) / w, "height": 100 * (box[3] - box[1]) / h}
        value["rectanglelabels"] = [label]
        out.append({**of_image, "type": "rectanglelabels", "value": value})
    return out


def main(folder):
    """Starts the backend, asks it, and prints how its masks agree with the checkpoint's."""
    (checkpoint,) = folder.glob("*.safetensors")
    interface = (folder / "labelling.xml").read_text("utf-8")
    image = sorted((demo_data() / "images" / "test").iterdir())[0]
    handler = partial(SimpleHTTPRequestHandler, directory=str(image.parent))
    images = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=images.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{images.server_port}/{image.name}"

    predictor = samtune.load(checkpoint).predictor()
    predictor.set_image(image)
    shape = h, w = predictor.original_size
    label = json.loads((folder / "export.json").read_text("utf-8"))["labels"][0]
    box, point = [0.2 * w, 0.25 * h, 0.75 * w, 0.8 * h], [[0.5 * w, 0.45 * h]]
    questions = {
        "rectangle": ({"box": box}, {"box": box}),
        "keypoint": ({"point": point}, {"point_coords": point, "point_labels": [1]}),
        "nothing": ({}, {}),
    }
    command = [sys.executable, folder / "_wsgi.py", "--port", str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        print(wait(server))
        setup = {"project": "1.0", "schema": interface, "hostname": "", "access_token": ""}
        print("setup:", call("/setup", setup))
        tasks = [{"id": 1, "data": {"image": address}}]
        for name, (drawn, asked) in questions.items():
            context = {"result": regions(shape, label=label, **drawn)}
            body = {"tasks": tasks, "project": "1.0", "label_config": interface}
            start = time.perf_counter()
            answer = call("/predict", {**body, "params": {"context": context}})
            seconds = time.perf_counter() - start
            strokes = [s for result in answer["results"] for s in result["result"]]
            if not asked and not strokes:
                print(f"{name}: no strokes, {seconds:.2f} s")
                continue
            mask = predictor.predict(**asked, multimask_output=False)[0][0]
            drawn_mask = decode(strokes[0]["value"], shape)
            iou = (mask & drawn_mask).sum() / max(1, (mask | drawn_mask).sum())
            version = answer["results"][0]["model_version"]
            print(f"{name}: IoU {iou:.4f}, {int(np.sum(mask))} pixels, {seconds:.2f} s, {version}")
    finally:
        server.terminate()
        images.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
