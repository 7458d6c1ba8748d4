"""Wrong input on the command line: one line, exit code 2, no traceback, no folder left."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from commands import settings
from PIL import Image

from samtune.losses import LOSSES

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


@pytest.fixture
def words(pairs, tiny_weights, tmp_path, monkeypatch):
    """A training that would go well, in an empty folder of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return settings(pairs, tiny_weights)


def mask_of(root: Path, name: str = "03") -> Path:
    return root / "masks" / f"{name}.png"


def paint(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint8)).save(path)


def unpaired(root):
    mask_of(root).unlink()
    return ["03.png", "without a mask", "add the mask"]


def other_size(root):
    paint(mask_of(root), np.zeros((20, 30)))
    return ["03.png", "30x20", "64x48"]


def broken_image(root):
    (root / "images" / "03.png").write_bytes(b"\x89PNG nothing more")
    return ["images/03.png", "cannot be read"]


def cut_image(root):
    path = root / "images" / "03.png"
    path.write_bytes(path.read_bytes()[:-200])
    return ["images/03.png", "cannot be read"]


def odd_values(root):
    paint(mask_of(root), np.arange(48 * 64).reshape(48, 64) % 7)
    return ["masks/03.png", "0, 1, 2", "data.masks=instance"]


def no_files(root):
    for path in [*root.glob("*/*.png")]:
        path.unlink()
    return ["no image and mask pairs"]


def all_empty(root):
    for path in root.glob("masks/*.png"):
        paint(path, np.zeros((48, 64)))
    return [root, "none of the", "data.masks"]


@pytest.mark.parametrize(
    "spoil", [unpaired, other_size, broken_image, cut_image, odd_values, no_files, all_empty]
)
def test_a_bad_data_set(samtune, words, pairs, spoil):
    said = spoil(pairs)
    line = samtune("train", *words).line
    assert all(str(part) in line for part in said), line
    assert os.listdir() == []


def no_sam(path):
    torch.save({"layer.weight": torch.zeros(2)}, path)
    return ["not a SAM", "layer.weight"]


def no_checkpoint(path):
    path.write_bytes(b"not a checkpoint")
    return []


def another_sam(path):
    state = tiny.base().state_dict()
    state.pop("image_encoder.pos_embed")
    torch.save(state, path)
    return ["does not fit tiny", "missing image_encoder.pos_embed"]


def no_file(path):
    return ["no such file"]


@pytest.mark.parametrize("write", [no_sam, no_checkpoint, another_sam, no_file])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_bad_base(samtune, words, tmp_path, write):
    path = tmp_path / "base.pth"
    said = write(path)
    line = samtune("train", *words, f"base.weights={path}").line
    assert str(path) in line and all(part in line for part in said), line
    assert os.listdir() == []


WRONG_SETTINGS = [
    ("train.lr=abc", "train.lr=abc", "number"),
    ("train.lr=-1", "train.lr=-1", "above 0"),
    ("train.lr=nan", "train.lr=nan", "above 0; choose one such as 1e-4"),
    ("train.lrr=1e-3", "train.lrr", "did you mean train.lr=1e-3?"),
    ("trian.lr=1", "trian", "did you mean 'train'"),
    ("train.precision=fp8", "train.precision=fp8", "one of auto, fp32, bf16, fp16"),
    ("train.precision=fp16", "train.precision=fp16", "choose bf16"),
    ("train.max_steps=0", "train.max_steps=0", "at least 1"),
    ("train.batch_size=0", "train.batch_size=0", "at least 1"),
    ("train.log_every=0", "train.log_every=0", "at least 1"),
    ("train.batch_size=2.5", "train.batch_size=2.5", "whole number"),
    ("train.warmup=3", "train.warmup=3", "0 to 1"),
    ("train.clip=-1", "train.clip=-1", "0 is no limit"),
    ("train.loss=bce+dise", "dise", "did you mean 'dice'"),
    ("train.trackers=nothing", "train.trackers", "nothing"),
    ("train=5", "train=5: train is a group", "did you mean train.max_steps=5?"),
    ("data=isbi", "data=isbi: data is a group", "did you mean data.root=isbi?"),
    ("adapter.rank=0", "adapter.rank=0", "at least 1"),
    ("adapter.rank=many", "adapter.rank=many", "whole number"),
    ("adapter.name=lroa", "adapter.name=lroa", "did you mean 'lora'"),
    ("adapter.ranks=2", "adapter.ranks", "did you mean 'rank'"),
    ("adapter.dropout=2", "adapter", "0 to below 1"),
    ("adapter=5", "adapter=5", "give a name"),
    ("decoder.name=tunde", "decoder.name=tunde", "did you mean 'tuned'"),
    ("prompts.train=bx", "prompts.train=bx", "did you mean 'box'"),
    ("prompts.eval=box,bx", "prompts.eval=bx", "did you mean 'box'"),
    ("prompts.box_jitter=2", "prompts.box_jitter=2", "below 1"),
    ("data.shots=0", "data.shots=0", "must be at least 1"),
    ("data.shots=99", "data.shots=99", "choose 1 to"),
    ("data.root=nowhere", "nowhere", "does not exist"),
    ("data.masks=blobs", "data.masks=blobs", "one of auto, binary, instance, classes"),
    ("data.workers=-1", "data.workers=-1", "0"),
    ("input.size=100", "input.size=100", "104"),
    ("input.size=0", "input.size=0", "positive"),
    ("input.size=big", "input.size=big", "whole number"),
    ("seed=-1", "seed=-1", "0 to below"),
    ("device=abacus", "device=abacus", "cpu, cuda"),
    ("base.name=vit_x", "base.name=vit_x", "did you mean"),
    ("nonsense", "nonsense", "key=value"),
    ("gone.yaml", "gone.yaml", "no such file"),
    ("seed=[1", "seed=[1", "not valid YAML"),
    ("resume=nowhere", "resume=nowhere", "no run here"),
]


@pytest.mark.parametrize(("word", "value", "rule"), WRONG_SETTINGS)
def test_a_wrong_setting(samtune, words, word, value, rule):
    line = samtune("train", *words, word).line
    assert value in line and rule in line, line
    assert os.listdir() == []


def test_a_run_within_its_data(samtune, words, pairs, monkeypatch):
    before = sorted(pairs.rglob("*"))
    for verb, output in (("train", pairs / "run"), ("train", pairs), ("eval", pairs / "images")):
        line = samtune(verb, *(["tiny"] if verb == "eval" else []), *words, f"output={output}").line
        assert f"output={output}" in line and f"output={pairs}-run" in line, line
    monkeypatch.chdir(pairs)
    assert "output=runs/...: lies in data.root" in samtune("train", *words).line
    said = samtune("compare", *words, "methods=lora").line
    assert "output=runs/...: lies in data.root" in said
    assert sorted(pairs.rglob("*")) == before


def test_a_comparison_keeps_what_it_did_not_write(samtune, words, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.html").write_text("precious")
    line = samtune("compare", *words, f"output={tmp_path / 'mine'}").line
    assert "holds a report.html" in line and f"output={tmp_path / 'mine-2'}" in line
    assert (tmp_path / "mine" / "report.html").read_text() == "precious"


def test_nothing_to_train(samtune, words):
    for more in ([], ["base.weights=there is none.pth"]):
        line = samtune("train", *words, "adapter.name=none", "decoder.name=frozen", *more).line
        assert "nothing to train" in line and "decoder.name=tuned" in line
    assert os.listdir() == []


def test_an_adapter_and_a_decoder_that_do_not_fit(samtune, words, monkeypatch):
    from samtune.adapters import ADAPTERS

    monkeypatch.setattr(ADAPTERS["lora"], "decoders", ("frozen",))
    line = samtune("train", *words, "decoder.name=tuned", "base.weights=nowhere").line
    assert "decoder.name=tuned" in line and "decoder.name=frozen" in line
    assert os.listdir() == []


def test_an_output_that_holds_a_run(samtune, words, trained):
    before = sorted(p.name for p in trained.folder.rglob("*"))
    line = samtune("train", *words, f"output={trained.folder}").line
    assert "holds a run already" in line
    assert f"resume={trained.folder}, or with resume=true and the same output" in line
    assert sorted(p.name for p in trained.folder.rglob("*")) == before


def test_an_output_that_cannot_be_made(samtune, words, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be made" in samtune("train", *words, f"output={tmp_path}/file/run").line


def fail_to_write(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the file")


FULL = ["samtune.files.os.replace", "samtune.report.page.write_report"]


@pytest.mark.parametrize("place", FULL)
def test_a_full_disk(samtune, words, monkeypatch, place):
    monkeypatch.setattr(place, fail_to_write)
    line = samtune("train", *words, "output=run").last
    assert "No space left" in line and "free some space" in line
    # What can be gone on with stays; anything else goes.
    assert os.listdir() == (["run"] if place.endswith("write_report") else [])


@pytest.mark.parametrize("file", ["best.safetensors", "split.json", "config.yaml", "files.json"])
def test_a_file_that_must_not_be_read_is_not_called_damaged(samtune, trained, monkeypatch, file):
    def may(path, mode, allowed=os.access):
        return Path(path).name != file and allowed(path, mode)

    def read(path, reads=Path.read_bytes):
        if path.name == file:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return reads(path)

    monkeypatch.setattr("os.access", may)  # for root everything can be read
    monkeypatch.setattr("pathlib.Path.read_bytes", read)
    words = [f"data.root={trained.root}", f"base.weights={trained.base}"]
    line = samtune("eval", trained.folder, *words).line
    assert f"/{file}: Permission denied; change its permissions" in line
    assert "damaged" not in line


def test_a_full_disk_keeps_what_was_there_before(samtune, words, monkeypatch):
    Path("run").mkdir()
    Path("run", "notes.txt").write_text("mine")
    monkeypatch.setattr("samtune.files.os.replace", fail_to_write)
    assert "No space left" in samtune("train", *words, "output=run").last
    assert os.listdir("run") == ["notes.txt"]


def test_a_loss_that_stays_not_finite(samtune, words, monkeypatch):
    monkeypatch.setitem(LOSSES, "bce", lambda z, g, v: z.sum((1, 2)) * float("nan"))
    line = samtune("train", *words, "train.loss=bce", "train.max_steps=30").last
    assert "train.lr=0.0003" in line and "not finite 10 times" in line


def test_a_fault_of_the_program_shows_itself(samtune, words, monkeypatch):
    def fault(*args, **kwargs):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("samtune.runs.assembly.load_sam", fault)
    with pytest.raises(ZeroDivisionError):
        samtune("train", *words)


def test_a_very_long_value_is_not_repeated_whole(samtune, pairs):
    for value in ("9" * 100_000, "[" + ", ".join(["[1]"] * 2_000) + "]"):
        line = samtune("train", f"data.root={pairs}", f"train.lr={value}").line
        assert len(line) < 3000 and line.startswith("samtune: train.lr=")
        assert "characters" in line and line.endswith(("must be auto or a number\n", "quote it\n"))


class TestEval:
    def test_another_base(self, samtune, trained, tmp_path):
        other = tmp_path / "other.pth"
        state = {key: t + 0.5 for key, t in tiny.base().state_dict().items()}
        torch.save(state, other)
        line = samtune("eval", trained.checkpoint, f"base.weights={other}").line
        assert "trained on another tiny" in line and "base.weights=" in line

    @pytest.mark.parametrize(
        "word",
        ["base.name=vit_b", "adapter.rank=8", "decoder=frozen", "input.size=96"],
    )
    def test_a_setting_against_the_checkpoint(self, samtune, trained, tmp_path, word):
        line = samtune("eval", trained.checkpoint, word).line
        assert "cannot be changed" in line and str(trained.checkpoint) in line
        out = tmp_path / "out"
        image = trained.root / "images" / "00.png"
        assert "cannot be" in samtune("predict", trained.checkpoint, image, "--out", out, word).line
        assert not out.exists()

    def test_a_file_against_the_checkpoint(self, samtune, trained, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text("adapter: {rank: 8}\n")
        assert "adapter.rank=8" in samtune("eval", trained.checkpoint, file).line

    def test_a_setting_against_the_base(self, samtune, trained):
        root = f"data.root={trained.root}"
        for word in ("base.name=vit_b", "adapter=vpt"):
            assert "nano has" in samtune("eval", "nano", root, word).line

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("gone.safetensors", "no such checkpoint"),
            ("vit_bb", "no such checkpoint"),
            ("BASE", "not a samtune checkpoint"),
        ],
    )
    def test_no_checkpoint(self, samtune, trained, source, said):
        source = trained.base if source == "BASE" else source
        assert said in samtune("eval", source, f"data.root={trained.root}").line

    def test_a_cut_checkpoint(self, samtune, trained, tmp_path):
        cut = tmp_path / "cut.safetensors"
        cut.write_bytes(trained.checkpoint.read_bytes()[:-100])
        assert "copy it again" in samtune("eval", cut).line

    @pytest.mark.parametrize(
        ("word", "said"),
        [("data.split=tset", "'test'"), ("prompts.eval=bx", "'box'"), ("x", "key=value")],
    )
    def test_settings(self, samtune, trained, tmp_path, monkeypatch, word, said):
        monkeypatch.chdir(tmp_path)
        before = os.listdir()
        assert said in samtune("eval", trained.checkpoint, word).line
        assert os.listdir() == before


class TestPredict:
    @pytest.fixture
    def ask(self, samtune, trained, tmp_path):
        """Asks for one image; the line of wrong input, and that nothing was written."""

        def run(*options, source=trained.root / "images" / "00.png"):
            out = tmp_path / "out"
            line = samtune("predict", trained.checkpoint, source, "--out", out, *options).line
            assert not out.exists()
            return line

        return run

    @pytest.mark.parametrize(
        ("box", "said"),
        [
            ("100,100,120,120", "outside the image of 64x48"),
            ("-9,-9,-1,-1", "outside the image"),
            ("20,20,10,30", "x0 < x1"),
            ("1,2,3", "x0,y0,x1,y1"),
            ("a,b,c,d", "x0,y0,x1,y1"),
            ("nan,1,5,5", "finite"),
            ("1,1,inf,5", "finite"),
        ],
    )
    def test_boxes(self, ask, box, said):
        line = ask(f"--box={box}")
        assert said in line, line

    @pytest.mark.parametrize(
        ("point", "said"),
        [("5", "x,y"), ("5,5,7", "0 or 1"), ("99,5", "outside the image"), ("1,2,3,4", "x,y")],
    )
    def test_points(self, ask, point, said):
        line = ask(f"--point={point}")
        assert said in line, line

    @pytest.mark.parametrize("threshold", ["nan", "inf", "-inf"])
    def test_thresholds(self, ask, threshold):
        line = ask("--threshold", threshold)
        assert f"threshold={threshold}" in line and "finite" in line

    def test_a_box_outside_names_the_image(self, ask, trained):
        line = ask("--box=100,100,120,120")
        assert str(trained.root / "images" / "00.png") in line

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("nothing", "not a readable JSON"),
            ("[]", "must map"),
            ('{"00.png": {"boxs": []}}', "must hold boxes"),
            ('{"00.png": {"boxes": [[1, 2]]}}', "[x0, y0, x1, y1]"),
            ('{"00.png": {"points": [[1, 2]], "labels": [1, 0]}}', "as many labels"),
            ('{"xx.png": {"boxes": [[1, 2, 5, 6]]}}', "no such image"),
        ],
    )
    def test_prompt_files(self, ask, tmp_path, content, said):
        file = tmp_path / "prompts.json"
        file.write_text(content)
        line = ask("--prompts", file)
        assert said in line, line

    def test_no_prompt_file(self, ask):
        assert "gone.json" in ask("--prompts", "gone.json")

    def test_sources(self, ask, tmp_path):
        (tmp_path / "empty").mkdir()
        assert "does not exist" in ask(source="nowhere")
        assert "holds no image" in ask(source=tmp_path / "empty")

    def test_two_images_of_one_stem(self, ask, tmp_path):
        (tmp_path / "in").mkdir()
        for name in ("a.png", "a.bmp"):
            paint(tmp_path / "in" / name, np.zeros((8, 8)))
        assert "a.png" in ask(source=tmp_path / "in")

    def test_an_unreadable_image(self, ask, tmp_path):
        (tmp_path / "a.png").write_bytes(b"nothing")
        assert f"{tmp_path}/a.png" in ask(source=tmp_path / "a.png")

    def test_a_full_disk(self, ask, monkeypatch):
        monkeypatch.setattr(Path, "write_bytes", fail_to_write)
        monkeypatch.setattr(Path, "mkdir", lambda *args, **kwargs: None)
        assert "free some space" in ask("--box", "2,2,30,30")

    def test_settings(self, ask):
        assert "did you mean 'base'" in ask("bse.weights=x")
        assert "read the same way" in ask("data.intensity=zscore")

    def test_settings_that_a_prediction_does_not_use(self, ask):
        assert "ask with --box, --point or --prompts" in ask("prompts.eval=box")
        assert "predict does not use train.lr" in ask("train.lr=1")
        assert "give --out elsewhere" in ask("output=elsewhere")
        assert "choose bf16 or fp32" in ask("train.precision=fp16")

    def test_lists(self, ask, tmp_path):
        (tmp_path / "list.txt").write_text("gone.png\n")
        assert "list.txt, line 1: gone.png: no such file" in ask(source=tmp_path / "list.txt")
        (tmp_path / "list.txt").write_text("\n")
        assert "names no image" in ask(source=tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["trian"], "trian"),
        (["train", "--jsn"], "--jsn"),
        (["eval"], "SOURCE"),
        (["methods", "lroa"], "did you mean 'lora'"),
        (["--verbose"], "--verbose"),
    ],
)
def test_usage(samtune, args, said):
    assert said.lower() in samtune(*args).line.lower()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["train", "data.root=nowhere"], "nowhere: the folder does not exist"),
        (["train", "--jsn"], "no such option; did you mean --json?"),
    ],
)
def test_the_real_command_line(tmp_path, args, said):
    run = subprocess.run(
        [sys.executable, "-m", "samtune", *args, *([] if "--jsn" in args else ["--json"])][:6],
        cwd=tmp_path, env=ENV, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert said in run.stderr and run.stderr.count("\n") == 1, run.stderr
    assert run.stdout == "" and os.listdir(tmp_path) == []


def test_empty_masks_are_legal_counted_and_reported(samtune, words, pairs):
    for name in ("00", "01", "04"):
        paint(mask_of(pairs, name), np.zeros((48, 64)))
    answer = samtune("train", *words, "train.batch_size=1", "train.max_steps=8", "--json")
    assert answer.code == 0, answer.err
    remarks = " ".join(answer.json["remarks"])
    assert "have no object" in remarks
    assert all(f"{remark}\n" in answer.err for remark in answer.json["remarks"])
    assert "have no object" in Path(answer.json["report"]).read_text("utf-8")
    counts = [int(r.split(": ")[1].split()[0]) for r in answer.json["remarks"] if "object" in r]
    assert sum(counts) == 3
    json.dumps(answer.json, allow_nan=False)
