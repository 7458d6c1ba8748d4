"""Runs an exported model in a headless browser, by the JavaScript of docs/export/onnx.md.

    npm install onnxruntime-web
    python benchmarks/exports/browser/run.py CHECKPOINT node_modules/onnxruntime-web/dist

CHECKPOINT is of a model without prompts, or of classes. The page takes an image from a server on
this machine, answers it with onnxruntime-web, and posts the logits back, which are compared with
those of PyTorch: once with the pixels as samtune resizes them, once as the canvas does.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import numpy as np
from PIL import Image

import samtune
from samtune.assets import demo_data
from samtune.data import read_image
from samtune.exports.base import Ask, Job
from samtune.exports.checks import Reference, iou
from samtune.exports.formats.onnx import resized

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "export" / "onnx.md"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 180
PAGE = """<!doctype html><meta charset="utf-8">
<script type="importmap">{"imports": {"onnxruntime-web": "/web/ort.wasm.min.mjs"}}</script>
<script type="module">
const post = (place, body) => fetch(place, { method: "POST", body });
try {
  const ort = await import("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/web/";
  const { segment } = await import("/runner.mjs");
  const session = await ort.InferenceSession.create("/model.onnx");
  for (const { name, frame, canvas, content } of await (await fetch("/images.json")).json()) {
    const image = await createImageBitmap(await (await fetch(`/${name}`)).blob());
    let logits, start = performance.now();
    if (canvas) logits = await segment(session, image, frame);
    else {
      const pixels = new Float32Array(await (await fetch(`/${name}.f32`)).arrayBuffer());
      logits = (await session.run({
        input_image: new ort.Tensor("float32", pixels, content),
        orig_im_size: new ort.Tensor("float32", [image.height, image.width], [2]),
      })).logits;
    }
    const milliseconds = performance.now() - start;
    await post(`/answer?${JSON.stringify([logits.dims, milliseconds])}`, logits.data);
  }
} catch (error) { await post("/error", `${error.stack || error}`); }
</script>
"""


def browser():
    """The path of a browser of Chromium's family, or ``None``."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def runner():
    """The JavaScript of the documentation."""
    return DOCUMENTATION.read_text("utf-8").split("```js\n")[1].split("```")[0]


class Site:
    """A server of files in memory and of onnxruntime-web, which collects what a page posts.

    Args:
        files: Contents by name.
        web: The folder ``dist`` of onnxruntime-web.
    """

    def __init__(self, files, web):
        self.answers = Queue()
        site = self
        types = {".mjs": "text/javascript", ".html": "text/html", ".wasm": "application/wasm"}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.partition("?")[0].lstrip("/")
                file = Path(web, name.removeprefix("web/"))
                content = files.get(name)
                if name.startswith("web/") and file.is_file():
                    content = file.read_bytes()
                self.send_response(404 if content is None else 200)
                kind = types.get(Path(name).suffix, "application/octet-stream")
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(content or b"")

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                site.answers.put((self.path, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *words):
                """Keeps the terminal for results."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/index.html"


def answers_of(files, web, count):
    """The logits ``(K, h, w)`` and the milliseconds of each image, as a browser answers them.

    Args:
        files: Contents by name, with ``model.onnx``, ``images.json`` and the images.
        web: The folder ``dist`` of onnxruntime-web.
        count: How many answers the page gives.

    Raises:
        RuntimeError: The page failed, or was not done in time.
    """
    from urllib.parse import unquote

    pages = {"index.html": PAGE.encode(), "runner.mjs": runner().encode()}
    site = Site({**files, **pages}, web)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        command = [browser(), *options, "--no-first-run", "--disable-dev-shm-usage", site.address]
        page = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            out = []
            while len(out) < count:
                place, body = site.answers.get(timeout=PATIENCE)
                if place == "/error":
                    raise RuntimeError(body.decode())
                shape, milliseconds = json.loads(unquote(place.partition("?")[2]))
                logits = np.frombuffer(body, np.float32).reshape([int(n) for n in shape]).copy()
                out.append((logits, milliseconds))
            return out
        except Empty:
            raise RuntimeError(f"the browser gave no answer in {PATIENCE} seconds") from None
        finally:
            page.terminate()
            page.wait(20)
            site.server.shutdown()
            site.server.server_close()


def compare(model, images, onnx, web):
    """Rows of image, shape, way of resizing, difference of logits, IoU of masks, milliseconds.

    Args:
        model: The truth.
        images: By name, ``(h, w, 3)`` RGB.
        onnx: The exported file.
        web: The folder ``dist`` of onnxruntime-web.
    """
    job = Job(model, "model")
    files, listed, truths = {"model.onnx": onnx.read_bytes()}, [], []
    for i, image in enumerate(images):
        with tempfile.TemporaryDirectory() as folder:
            Image.fromarray(image).save(Path(folder) / "a.png")
            files[f"{i}.png"] = (Path(folder) / "a.png").read_bytes()
        pixels, _ = resized(model, image)
        files[f"{i}.png.f32"] = np.ascontiguousarray(pixels, np.float32).tobytes()
        frame = list(model.input.size)
        for canvas in (False, True):
            row = {"name": f"{i}.png", "frame": frame, "canvas": canvas}
            listed.append({**row, "content": list(pixels.shape)})
            truths.append(Reference(job, image).logits(Ask("none")))
    files["images.json"] = json.dumps(listed).encode()
    exclusive = model.acting.decoder.classes is not None
    return [
        {
            "shape": truth.shape[1:],
            "resized by": "canvas" if row["canvas"] else "samtune",
            "difference": float(np.abs(logits - truth).max()),
            "iou": iou(logits, truth, exclusive),
            "milliseconds": milliseconds,
        }
        for row, truth, (logits, milliseconds) in zip(
            listed, truths, answers_of(files, web, len(listed)), strict=True
        )
    ]


def main(checkpoint, web):
    """Exports a checkpoint, runs it in a browser, and prints the table of the results page."""
    model = samtune.load(checkpoint)
    photo = read_image(sorted((demo_data() / "images" / "test").iterdir())[0], model.input)
    large = np.asarray(Image.fromarray(photo).resize((640, 480), Image.Resampling.BICUBIC))
    images = [photo, large, np.ascontiguousarray(large[:, :200])]
    with tempfile.TemporaryDirectory() as folder:
        samtune.export(model, Path(folder) / "out", "onnx", name="model")
        rows = compare(model, images, Path(folder) / "out" / "model.onnx", web)
    print("| image | resized by | largest difference of logits | IoU of masks | milliseconds |")
    print("|---|---|---|---|---|")
    for row in rows:
        h, w = row["shape"]
        numbers = f"{row['difference']:.2g} | {row['iou']:.4f} | {row['milliseconds']:.0f}"
        print(f"| {w} x {h} | {row['resized by']} | {numbers} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
