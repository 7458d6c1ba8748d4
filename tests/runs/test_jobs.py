import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import settings
from PIL import Image

from samtune.data import DataConfig, read_split, splits
from samtune.evaluation.streaming import evaluate
from samtune.files import free_path
from samtune.interrupts.signals import Stopped
from samtune.model.checkpoint import load, read_header, save
from samtune.model.finetuned import FineTuned
from samtune.report.terminal import Display
from samtune.runs.assembly import evaluation_modes
from samtune.runs.folder import Log, finite, run_folder
from samtune.runs.jobs import evaluate_run, train
from samtune.runs.source import Source
from samtune.runs.words import from_words


def test_a_run_folder_is_complete(trained):
    names = {p.name for p in trained.folder.iterdir()}
    assert names == {
        "config.yaml", "split.json", "files.json", "metrics.jsonl", "best.safetensors", "last",
        "samples", "report.html", "summary.json", "images.csv",
    }  # fmt: skip
    assert {p.name.split("-")[0] for p in (trained.folder / "last").iterdir()} == {
        "state.json", "previous.json", "trained", "optimizer", "top", "mean",
    }  # fmt: skip
    assert [p.name for p in (trained.folder / "samples").iterdir()]
    written = json.loads((trained.folder / "summary.json").read_text())
    assert written.pop("checksum") and written.pop("images_checksum") and written == trained.summary
    config = yaml.safe_load((trained.folder / "config.yaml").read_text())
    assert config["train"]["max_steps"] == 4 and config["adapter"]["rank"] == 4


def test_the_split_is_the_one_that_was_used(trained):
    written = read_split(trained.folder / "split.json")
    parts = splits(DataConfig(root=str(trained.root)))
    assert written == {name: [r.name for r in records] for name, records in parts.items()}
    assert sorted(name for names in written.values() for name in names) == [
        f"{i:02}" for i in range(8)
    ]


def test_images_that_were_trained_on_are_told(trained, tiny_registered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [f"data.root={trained.root}", f"base.weights={trained.base}"]
    remarks = evaluate_run(str(trained.checkpoint), [*words, "output=clean"], Display())["remarks"]
    assert not any("trained on" in remark for remark in remarks)
    moved = [*words, "data.split_seed=1", "output=moved"]  # as when files are added
    used = read_split(trained.folder / "split.json")["train"]
    now = {r.name for r in splits(DataConfig(root=str(trained.root), split_seed=1))["test"]}
    assert now & set(used)
    remarks = evaluate_run(str(trained.checkpoint), moved, Display())["remarks"]
    assert any(r.startswith(f"{len(now & set(used))} of the {len(now)} images") for r in remarks)


def test_the_log(trained):
    rows = [json.loads(s) for s in (trained.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(r["event"], r["step"]) for r in rows] == [
        ("zero_shot", 0), ("train", 2), ("val", 2), ("train", 4), ("val", 4),
        ("strength", 4), ("strength", 4),
    ]  # fmt: skip
    for row in rows:
        wanted = {"loss", "lr"} if row["event"] == "train" else {"iou", "dice", "iou_pooled"}
        assert wanted <= row.keys()


def test_the_report_shows_the_run(trained):
    page = (trained.folder / "report.html").read_text("utf-8")
    for shown in ("zero-shot", "tuned", "data:image", "<svg", "max_steps"):
        assert shown in page
    assert "<script" not in page


def test_the_checkpoint_tells_how_it_came_about(trained):
    header = read_header(trained.checkpoint)
    assert header["adapter"]["name"] == "lora" and header["prompts"] == "box"
    assert header["config"]["train"]["max_steps"] == 4
    assert header["config"]["output"] is None and header["config"]["resume"] is None


def test_the_baseline_is_the_plain_base_with_the_same_prompts(trained, tiny_registered, sam):
    from samtune.data import SegmentationDataset

    config = DataConfig(root=str(trained.root))
    records = splits(config)["test"]
    plain, tuned = FineTuned(sam, "none", "frozen"), load(trained.checkpoint, sam)
    for mode in ("box", "point"):
        dataset = SegmentationDataset(records, config, (64, 64), mask_size=(32, 32), mode=mode)
        found = trained.summary["by_prompt"][mode]
        for name, model in (("zero_shot", plain), ("tuned", tuned)):
            metrics = evaluate(model, dataset).metrics
            assert found[name]["iou"] == pytest.approx(metrics["iou"], abs=1e-6)
            assert found[name]["dice"] == pytest.approx(metrics["dice"], abs=1e-6)
    assert (
        trained.summary["zero_shot"]["iou"]
        == trained.summary["by_prompt"]["box"]["zero_shot"]["iou"]
    )


def test_parameters_are_counted(trained, sam, tiny_registered):
    model = load(trained.checkpoint, sam)
    base = sum(p.numel() for p in sam.parameters())
    assert trained.summary["trainable_parameters"] == model.trainable()
    assert trained.summary["total_parameters"] == base + model.trainable()


@pytest.fixture
def classes(pairs):
    """The pairs as a map of two classes and an ignored value."""
    for i, path in enumerate(sorted((pairs / "masks").glob("*.png"))):
        with Image.open(path) as opened:
            mask = np.asarray(opened) > 0
        values = np.where(mask, 1, 0).astype(np.uint8)
        values[:2] = 255
        if i % 2:
            values[-3:] = 2
        Image.fromarray(values).save(path)
    return pairs


@pytest.mark.slow
def test_by_class(samtune, classes, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*settings(classes, tiny_weights), "data.masks=classes", "data.classes=3"]
    words += ["data.class_names=ground,body,edge", "data.background=0", "data.ignore=255"]
    summary = samtune("train", *words, "data.test_fraction=0.4", "--json").json
    assert set(summary["by_class"]) == {"body", "edge"}
    for values in summary["by_class"].values():
        assert values["zero_shot"].keys() == values["tuned"].keys() == {"iou", "dice", "iou_pooled"}
        filled, ellipse = (values["guesses"][k] for k in ("filled box", "inscribed ellipse"))
        assert filled.keys() == ellipse.keys() == values["tuned"].keys()
    # Each class's guesses make those of all together, which the summary has too.
    body, edge = (summary["by_class"][name]["guesses"]["filled box"] for name in ("body", "edge"))
    low, high = sorted((body["iou"], edge["iou"]))
    assert low <= summary["guesses"]["filled box"]["iou"] <= high
    again = samtune("eval", summary["checkpoint"], "--json").json
    assert again["by_class"] == summary["by_class"]


def test_a_mixed_evaluation_is_the_three_it_mixes():
    config = from_words(["prompts.eval=mixed,none,box"])
    assert evaluation_modes(config).names == ("box", "point", "mask", "none")


@pytest.mark.slow
def test_the_frame_and_the_prompts_reach_the_checkpoint(
    samtune, pairs, tiny_weights, sam, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = [*settings(pairs, tiny_weights, 1), "input.size=32,48", "input.resize=stretch"]
    summary = samtune("train", *words, "prompts.train=box,none", "prompts.eval=none", "--json").json
    model = load(tmp_path / summary["checkpoint"], sam)
    assert (model.input.size, model.input.resize) == ((32, 48), "stretch")
    assert model.prompts == "box+none"
    measured = samtune("eval", summary["checkpoint"], "--json")
    assert measured.json["tuned"] == summary["tuned"] and measured.json["prompt"] == "none"


def test_an_evaluation_with_other_prompts_is_remarked(samtune, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = samtune("eval", trained.checkpoint, "prompts.eval=none", "--json").json
    assert "trained with prompt box, evaluated with none" in summary["remarks"]


def test_a_part_of_a_published_set_is_remarked(samtune, pairs, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*settings(pairs, tiny_weights), "data.name=kvasir", "--json"]
    for command in (("train", *words), ("eval", "tiny", *words)):
        (line,) = (line for line in samtune(*command).json["remarks"] if "Kvasir-SEG" in line)
        assert line.startswith("kvasir: 8 images in all, where Kvasir-SEG has 1000; ")


@pytest.mark.slow
def test_a_single_image_is_remarked(trained, samtune, tmp_path, monkeypatch):
    line = "test: a single image, so its numbers say little; add some"
    assert line in trained.summary["remarks"]
    assert line.replace("test", "val", 1) in trained.summary["remarks"]
    monkeypatch.chdir(tmp_path)
    whole = samtune("eval", trained.checkpoint, "data.split=all", "--json").json
    assert not any("single image" in remark for remark in whole["remarks"])


def test_a_checkpoint_saved_from_python_says_what_to_measure(
    samtune, pairs, tiny_weights, sam, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    model = FineTuned(sam, "adaptformer", "tuned", prompts="point+box")
    path = save(model, tmp_path / "own.safetensors")
    words = [f"data.root={pairs}", f"base.weights={tiny_weights}", "--json"]
    summary = samtune("eval", path, *words).json
    assert list(summary["by_prompt"]) == ["point", "box"]
    assert summary["trainable_parameters"] == model.trainable()
    options = {"classes": 3}
    of_classes = FineTuned(sam, "none", "semantic", decoder_options=options, prompts="none")
    config = Source.of(str(save(of_classes, tmp_path / "classes.safetensors"))).configure([])
    assert (config.data.masks, config.data.classes, *config.prompts.train) == (
        "classes",
        3,
        "none",
    )


def test_a_training_from_python(pairs, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = from_words([*settings(pairs, tiny_weights, 1), "train.precision=bf16"])
    with Display(json=True) as display:
        first, second = train(config, display), train(config, display)
    assert first["tuned"] == second["tuned"]
    assert second["report"] == "runs/lora-tuned-tiny-pairs-2/report.html"


@pytest.mark.slow
def test_a_run_that_goes_on_knows_its_data(samtune, pairs, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = settings(pairs, tiny_weights, 1)
    assert samtune("train", *words, "output=r").code == 0
    split = read_split(tmp_path / "r/split.json")
    for folder, value in (("images", 9), ("masks", 1)):
        Image.fromarray(np.full((48, 64), value, np.uint8)).save(pairs / folder / "new.png")
    file = pairs / "images" / f"{split['train'][0]}.png"
    pixels = np.asarray(Image.open(file))
    Image.fromarray(255 - pixels).save(file)
    other = pairs / "masks" / f"{split['train'][1]}.png"
    Image.open(other).save(other, compress_level=0)  # other bytes, the same mask
    said = samtune("train", "resume=r", "train.max_steps=2").last
    assert "have changed since the run began" in said and "resume_changed=true" in said
    go_on = ["train", "resume=r", "train.max_steps=2", "resume_changed=true", "--json"]
    answer = samtune(*go_on)
    assert answer.code == 0, answer.err
    tested = pairs / "images" / f"{split['test'][0]}.png"
    assert samtune("eval", "r/best.safetensors").code == 0  # the test images are as they were
    Image.fromarray(255 - np.asarray(Image.open(tested))).save(tested)
    assert split["test"][0] in samtune("eval", "r/best.safetensors").last
    measured = samtune("eval", "r/best.safetensors", "resume_changed=true", "--json")
    assert measured.code == 0 and "measured anew" in measured.err
    assert read_split(tmp_path / "r/split.json") == split
    said = [r for r in answer.json["remarks"] if "since the run began" in r]
    assert [line.split(" ")[:2] for line in said] == [["1", "images"], ["1", "images"]]
    assert "(new)" in said[0] and f"({split['train'][0]})" in said[1]
    assert answer.err.index(said[0]) < answer.err.index("step 2")
    file.unlink()
    line = samtune("train", "resume=r", "train.max_steps=3").line
    assert "1 of the 8 images" in line or "without an image" in line, line


class TestFolder:
    def test_free_names(self, tmp_path):
        assert free_path(tmp_path / "a") == tmp_path / "a"
        for name in ("a", "a-2"):
            (tmp_path / name).mkdir()
        assert free_path(tmp_path / "a") == tmp_path / "a-3"

    def test_a_resumed_folder_is_never_removed(self, tmp_path, refused):
        (tmp_path / "best.safetensors").write_text("precious")

        def broken():
            from samtune.errors import InputError

            with run_folder(None, "x", str(tmp_path)):
                raise InputError("no state")

        refused("no state", broken)
        assert (tmp_path / "best.safetensors").read_text() == "precious"

    @pytest.mark.parametrize("error", [KeyError, ZeroDivisionError])
    def test_a_fault_of_the_program_keeps_the_evidence(self, tmp_path, error):
        with pytest.raises(error), run_folder(str(tmp_path / "run"), "x") as folder:
            (folder / "metrics.jsonl").write_text("")
            raise error
        assert (tmp_path / "run" / "metrics.jsonl").exists()

    def test_an_error_that_comes_up_while_a_run_is_stopped_is_the_stop(self, tmp_path):
        (tmp_path / "last").mkdir()
        (tmp_path / "last" / "state.json").write_text("{}")
        with pytest.raises(Stopped, match="go on with: samtune train resume=") as caught:
            with run_folder(None, "x", str(tmp_path)):
                try:
                    raise Stopped(15)
                finally:  # torch's handler for its processes, which got the signal too
                    raise RuntimeError("DataLoader worker (pid 3) is killed by signal: Terminated")
        assert caught.value.number == 15

    def test_numbers_that_json_has_not(self):
        nan = float("nan")
        assert finite({"a": [nan, 1.0], "b": {"c": -float("inf"), "d": "x"}}) == {
            "a": [None, 1.0], "b": {"c": None, "d": "x"},
        }  # fmt: skip

    def test_rows_after_the_state_come_once_more(self, tmp_path):
        (tmp_path / "last").mkdir()
        (tmp_path / "last" / "state.json").write_text('{"step": 4, "validated": 2}')
        rows = [
            {"event": "zero_shot", "step": 0}, {"event": "val", "step": 2},
            {"event": "train", "step": 4}, {"event": "val", "step": 4},
            {"event": "train", "step": 5},
        ]  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "metrics.jsonl").write_text(text + '{"event": "tr')
        log = Log(tmp_path, Display(json=True), resume=True)
        assert log.rows == rows[:3]
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
        assert not list(tmp_path.glob("metrics-*"))  # a cut end is no damage

    def test_a_damaged_log_costs_the_lines_alone_and_stays_beside(self, tmp_path):
        (tmp_path / "last").mkdir()
        (tmp_path / "last" / "state.json").write_text('{"step": 4, "validated": 2}')
        row = json.dumps({"event": "train", "step": 1}).encode()
        log, read = tmp_path / "metrics.jsonl", []
        for content in (b"%b\n\xff\n%b\n" % (row, row), (row + b"\n").decode().encode("utf-16")):
            log.write_bytes(content)
            said = io.StringIO()
            with contextlib.redirect_stderr(said):
                read.append(len(Log(tmp_path, Display(json=True), resume=True).rows))
            aside = max(tmp_path.glob("metrics-*"), key=lambda file: file.stat().st_mtime_ns)
            assert aside.read_bytes() == content and aside.name in "".join(said.getvalue().split())
        log.unlink()
        log.mkdir()
        assert Log(tmp_path, Display(json=True), resume=True).rows == []
        assert read == [2, 0] and log.read_text() == "" and len([*tmp_path.glob("metrics-*")]) == 3


@pytest.mark.slow
def test_several_checkpoints_by_prompt(samtune, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "other.safetensors"
    copy.write_bytes(trained.checkpoint.read_bytes())
    words = [trained.checkpoint, "tiny", copy, "prompts.eval=box,none", "output=all"]
    answer = samtune("eval", *words, f"base.weights={trained.base}", "--json")
    assert answer.code == 0, answer.err
    rows = answer.json["matrix"]
    assert [row["trained_with"] for row in rows] == [None, "box", "box"]
    assert [row["checkpoint"] for row in rows] == [None, str(trained.checkpoint), str(copy)]
    for row in rows:
        assert list(row["by_prompt"]) == ["box", "none"] and Path(row["report"]).is_file()
    assert rows[1]["by_prompt"] == rows[2]["by_prompt"]
    assert rows[1]["by_prompt"]["box"] == {k: answer.json["tuned"][k] for k in ("iou", "dice")}
    guesses = answer.json["matrix_guesses"]
    by_prompt = answer.json["by_prompt"]
    assert guesses == {mode: by_prompt[mode]["guesses"] for mode in ("box", "none")}
    assert list(guesses["none"]) == ["whole image"]
    said = answer.err[answer.err.index("IoU by prompt of training and evaluation") :]
    for shown in (
        "1: zero-shot",
        "3: box",
        "filled box, no model",
        str(copy),
        "report.html#contract",
    ):
        assert shown in said
    again = samtune("eval", *words[:1], trained.checkpoint, "--json")
    assert "give each once" in again.line


@pytest.mark.slow
def test_tiles_are_a_setting_of_training_and_may_be_changed_after(
    samtune, pairs, tiny_weights, sam, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = [*settings(pairs, tiny_weights, 1), "input.tiles=tiled", "input.scale=2"]
    summary = samtune("train", *words, "prompts.train=clicks", "prompts.clicks=2", "--json").json
    saved = load(tmp_path / summary["checkpoint"], sam).input
    assert (saved.tiles, saved.scale, saved.overlap) == ("tiled", 2.0, 0.25)
    measured = samtune("eval", summary["checkpoint"], "--json").json
    assert measured["tuned"] == summary["tuned"]
    whole = samtune("eval", summary["checkpoint"], "input.tiles=whole", "--json").json
    assert whole["zero_shot"] != summary["zero_shot"]
    out = tmp_path / "out"
    answer = samtune(
        "predict", summary["checkpoint"], pairs / "images", "--out", out, "input.tiles=crop",
        "--box=5,5,30,30", "--json",
    )  # fmt: skip
    assert answer.json["images"] == 8
    assert answer.err.count("trained with prompt clicks, but used with box") == 1
    assert "input.overlap=2" in samtune("train", *words, "input.overlap=2").line


def test_a_checkpoint_is_used_at_any_strength(samtune, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["eval", trained.checkpoint, "--json"]
    summary = samtune(*words, "strength=0").json
    assert summary["tuned"] == summary["zero_shot"]
    assert samtune(*words, "strength=1").json["tuned"] == trained.summary["tuned"]
    by_kind = samtune(*words, "strength=box:0,point:1").json
    for mode, whose in (("box", summary), ("point", trained.summary)):
        assert by_kind["by_prompt"][mode]["tuned"] == whose["by_prompt"][mode]["tuned"], mode
    assert by_kind["strengths"]["box"] == 0
    assert "strength=1.5" in samtune(*words, "strength=1.5").line
    assert "strength=box:2" in samtune(*words, "strength=box:2").line
    base = ["tiny", f"data.root={trained.root}", f"base.weights={trained.base}"]
    assert "is a base without a training" in samtune("eval", *base, "strength=1").last
    train = ("train", f"data.root={trained.root}", "base.name=tiny", "strength=0.5")
    assert "train.strength" in samtune(*train).line


def test_what_is_trained_and_what_is_kept_is_measured_by_default(
    trained, tiny_registered, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = [*settings(trained.root, trained.base, 1), "prompts.train=none", "prompts.eval=auto"]
    summary = train(from_words([*words, "train.keep=point"]), Display())
    assert list(summary["by_prompt"]) == ["none", "point"] and summary["prompt"] == "none"
    assert summary["selection"]["kept"] == ["point"]
    again = evaluate_run(summary["checkpoint"], [], Display())
    assert list(again["by_prompt"]) == ["none"], "a checkpoint by itself as it was trained"
