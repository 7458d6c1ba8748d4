"""No input ends in a traceback: seeded mutations of all that people and tools write.

Each is one line on stderr and exit code 2, or it is understood.
"""

import io
import json
import os
import random
import struct
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import yaml
from pictures import picture, save
from safetensors.torch import save_file

from samtune.cli.main import main

VALUES = (
    None, True, 0, -1, 10**30, 1e308, float("nan"), float("inf"), "", "a", "\x00", "\ud800", [],
    [1], [[]], {}, {"a": 1}, [None], "x" * 300,
)  # fmt: skip
"""What stands in for a value of any kind."""
DEEP = 2_000


def run(*words):
    """The exit code of a command line and its lines on stderr; any other end is an error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            return end.code, [line for line in err.getvalue().splitlines() if line.strip()]
    raise AssertionError("main always ends with a code")


def refused(*words):
    """Checks that a command line is refused in one line, and gives it."""
    code, lines = run(*words)
    assert code == 2 and len(lines) == 1, (words, code, lines)
    return lines[0]


def places(tree, path=()):
    """The paths of all values in a tree."""
    yield path
    inner = (
        tree if isinstance(tree, dict) else dict(enumerate(tree if isinstance(tree, list) else ()))
    )
    for key, value in inner.items():
        yield from places(value, (*path, key))


def changed(tree, path, value):
    """A copy of a tree with another value at a place."""
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = changed(tree[path[0]], path[1:], value)
    return copy


def mutations(tree, count, seed=0):
    """A tree with other values at random places."""
    lots, all_places = random.Random(seed), [*places(tree)]
    for _ in range(count):
        yield changed(tree, lots.choice(all_places), lots.choice(VALUES))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("random") / "set"
    for i in range(3):
        save(folder / "images" / f"{i}.png", picture(24, 32, seed=i))
        mask = np.zeros((24, 32), np.uint8)
        mask[4:12, 5:20] = 255
        save(folder / "masks" / f"{i}.png", mask)
    return folder


KEYS = (
    "adapter.name", "adapter", "adapter.rank", "decoder", "decoder.name", "base.name", "base",
    "base.weights", "data.layout", "data.masks", "data.classes", "data.colors", "data.window",
    "data.class_names", "data.bands", "prompts.train", "prompts.eval", "train.lr", "train.loss",
    "train.metric", "train.keep", "train.trackers", "eval.metrics", "eval.memory", "input.size",
    "input.preset", "strength", "device", "seed", "data.root.x", "", ".", "a..b", "resume",
)  # fmt: skip
TEXTS = (
    "[1,2]", "{a: 1}", "null", "[[a]]", "!!set {a}", "!!int x", "!!timestamp x", "!!binary =",
    "!!python/object:os.system x", "&a [*a]", "[", "1e400", "9" * 40, "?", "- a", "\t", "%", "@",
)  # fmt: skip


def test_command_lines(root):
    lots = random.Random(1)
    for _ in range(60):
        word = f"{lots.choice(KEYS)}={lots.choice(TEXTS)}"
        code, lines = run("data", "check", root, word)
        assert code in (0, 2) and len(lines) <= 1, (word, code, lines)
    for bomb in ("[" * DEEP, "{a: " * DEEP, "- " * DEEP):
        assert "not valid YAML" in refused("data", "check", root, f"data.classes={bomb}")


def test_yaml_files(root, tmp_path):
    tree = {
        "data": {"root": str(root), "classes": 2, "class_names": ["a", "b"],
                 "colors": {"a": [1, 2, 3]}},
        "adapter": {"name": "lora", "rank": 4},
        "prompts": {"train": ["box", "point"]},
        "train": {"lr": 1e-4, "loss": "dice"},
    }  # fmt: skip
    file = tmp_path / "a.yaml"
    for other in mutations(tree, 50):
        file.write_text(yaml.safe_dump(other), "utf-8")
        code, lines = run("data", "check", file)
        assert code in (0, 2) and len(lines) <= 1, (other, code, lines)
    pairs = zip("abcdefgh", "bcdefghi", strict=True)
    rows = "\n".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairs)
    for text in (
        f"a: &a [x]\n{rows}\n",
        "a: " + "[" * DEEP,
        "? " * DEEP,
        "a: !!int b",
        "a: &a {b: *a}",
    ):
        file.write_text(text)
        assert "not readable as YAML" in refused("data", "check", file)
    file.write_bytes(b"\xff\xfe\x00a")
    refused("data", "check", file)


def coco():
    polygon = [[4.0, 4.0, 20.0, 4.0, 20.0, 16.0]]
    lengths = {"size": [24, 32], "counts": [100, 20, 648]}
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 24, "width": 32} for i in range(3)],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "segmentation": outline, "iscrowd": i % 2,
             "bbox": [4, 4, 16, 12], "area": 96}
            for i, outline in enumerate((polygon, lengths, polygon))
        ],
    }  # fmt: skip


def test_coco_files(root, tmp_path):
    for i in range(3):
        save(tmp_path / "images" / f"{i}.png", picture(24, 32, seed=i))
    file = tmp_path / "annotations.json"
    for other in mutations(coco(), 80):
        file.write_text(json.dumps(other), "utf-8")
        code, lines = run("data", "check", tmp_path, "data.layout=coco")
        assert code in (0, 2) and len(lines) <= 1, (other, code, lines)
    file.write_text('{"images": ' + "[" * DEEP)
    run("data", "check", tmp_path, "data.layout=coco")


def test_headers_of_checkpoints(root, tmp_path):
    header = {
        "format": 1, "base": {"name": "nano", "sha256": "0"},
        "adapter": {"name": "lora", "rank": 2}, "decoder": {"name": "tuned"},
        "input": {"size": [64, 64], "resize": "longest"},
        "prompts": "box", "strength": 1.0, "config": {"data": {"root": "x"}, "seed": 0},
    }  # fmt: skip
    file = tmp_path / "a.safetensors"
    for other in mutations(header, 50):
        save_file({}, file, metadata={"samtune": json.dumps(other)})
        refused("predict", file, root / "images", "--out", tmp_path / "out")
        refused("eval", file, root)
    save_file({}, file, metadata={"samtune": "[" * DEEP})
    refused("eval", file, root)
    for raw in (b"", b"\x00" * 8, struct.pack("<Q", 2**60) + b"{}", b"\xff" * 64):
        file.write_bytes(raw)
        refused("merge", file, "--out", tmp_path / "m.pth")


def test_files_of_prompts(root, tmp_path):
    from samtune.errors import InputError
    from samtune.inference.prompt_files import read_prompts

    file = tmp_path / "p.json"
    own = {"0.png": {"boxes": [[1, 2, 9, 9]], "points": [[[1, 2]]], "labels": [[1]]}}
    for other in (
        *mutations(own, 60),
        *mutations(coco(), 60),
        *mutations([{"image": "0", "bbox": [1, 1, 2, 2]}], 40),
    ):
        file.write_text(json.dumps(other), "utf-8")
        try:
            read_prompts(file)
        except InputError as error:
            assert "\n" not in str(error)
    file.write_text("[" * DEEP)
    with pytest.raises(InputError, match="not a readable JSON"):
        read_prompts(file)
    lots, text = random.Random(2), tmp_path / "a.txt"
    for _ in range(60):
        text.write_text(
            " ".join(
                lots.choice(("0", "0.5", "nan", "inf", "-1", "a", "1e400"))
                for _ in range(lots.randrange(9))
            )
        )
        try:
            read_prompts(text)
        except InputError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "npy", "bmp"])
def test_damaged_images(root, tmp_path, ending):
    folder = tmp_path / "set"
    image, mask = picture(24, 32, seed=1), np.zeros((24, 32), np.uint8)
    mask[3:9, 3:9] = 255
    (folder / "images").mkdir(parents=True)
    file = folder / "images" / f"a.{ending}"
    np.save(file, image) if ending == "npy" else save(file, image)
    save(folder / "masks" / "a.png", mask)
    whole, lots = file.read_bytes(), random.Random(3)
    for _ in range(12):
        raw = bytearray(whole)
        for _ in range(lots.randrange(1, 6)):
            raw[lots.randrange(min(len(raw), 400))] = lots.randrange(256)
        file.write_bytes(
            bytes(raw[: lots.randrange(len(raw))]) if lots.random() < 0.3 else bytes(raw)
        )
        code, lines = run("data", "check", folder)
        assert code in (0, 2) and not lines, (code, lines)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs devices")
def test_devices_are_no_files(root, tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.json", "a.yaml", "images/a.png", "a.safetensors"):
        (tmp_path / name).symlink_to("/dev/zero")
    for words in (
        ("data", "check", "/dev/zero"),
        ("data", "check", tmp_path / "a.yaml"),
        ("data", "check", tmp_path, "data.layout=coco"),
        ("predict", "nano", "/dev/zero", "--out", tmp_path / "o"),
        ("predict", "nano", root / "images", "--prompts", "/dev/zero", "--out", tmp_path / "o"),
        ("predict", "/dev/zero", root / "images", "--out", tmp_path / "o"),
        ("eval", tmp_path / "a.safetensors", root),
        ("eval", "nano", root, "base.weights=/dev/zero"),
        ("import", "/dev/zero", "--from", "samed", "--out", tmp_path / "x.safetensors"),
    ):
        code, lines = run(*words)
        assert code == 2 and len(lines) <= 1, (words, code, lines)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_of_files_that_are_no_text(root, tmp_path):
    name = os.fsdecode(b"im\xff")
    for i in range(3):
        save(tmp_path / "images" / f"{name}{i}.png", picture(24, 32, seed=i))
        save(tmp_path / "masks" / f"{name}{i}.png", np.full((24, 32), 255, np.uint8))
    code, lines = run("data", "check", tmp_path)
    assert (code, lines) == (0, [])
    assert name in refused("data", "check", tmp_path / name)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a shell of POSIX")
def test_output_that_nobody_reads():
    start = f"{sys.executable} -m samtune"
    for line in (f"{start} methods lora | true", f"{start} >&-", f"{start} >&- 2>&-"):
        done = subprocess.run(["bash", "-c", line], check=False, capture_output=True, timeout=120)
        assert done.stderr == b"" and done.returncode in (0, 1), (line, done.stderr)
