import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from predicting import one_mask
from pycocotools import mask as coco

from samtune.data import read_image
from samtune.errors import InputError
from samtune.folder_lock import LOCK
from samtune.inference.folder import check_prompts, predict_folder
from samtune.inference.predictor import PromptMismatch
from samtune.model.checkpoint import load, save
from samtune.model.finetuned import FineTuned

# pycocotools 2.0 decodes through an old way into NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BOXES = ["10,6,50,40", "0,0,20,20"]


@pytest.fixture(scope="module")
def checkpoint(sam, tmp_path_factory):
    """A model that finds something: four steps of training on noise find nothing."""
    model = FineTuned(sam, "lora", "tuned")
    return save(model, tmp_path_factory.mktemp("prediction") / "model.safetensors")


@pytest.fixture
def predictor(checkpoint, sam):
    return load(checkpoint, sam).predictor()


@pytest.fixture
def ask(samtune, trained, checkpoint, tmp_path):
    """``ask(*options)``: predicts on the training run's images; answer and output folder."""

    def run(*options, source=trained.root / "images"):
        out = tmp_path / "out"
        weights = f"base.weights={trained.base}"
        words = ["predict", checkpoint, source, weights, "--out", out, "--json", *options]
        return samtune(*words), out

    return run


def entries_of(out):
    return json.loads((out / "predictions.json").read_text())


def decoded(entry):
    return coco.decode(entry["segmentation"]).astype(bool)


def test_a_folder_with_several_boxes(ask, trained, predictor):
    answer, out = ask(*(f"--box={box}" for box in BOXES))
    assert answer.code == 0
    assert answer.json == {
        "images": 8,
        "failed": [],
        "out": str(out),
        "left_out": [],
        "remarks": [],
    }
    entries = entries_of(out)
    assert len(entries) == 16
    assert sorted(p.name for p in out.glob("*.png")) == [f"{i:02}.png" for i in range(8)]
    assert sorted(p.name for p in (out / "overlays").iterdir()) == [f"{i:02}.png" for i in range(8)]
    predictor.set_image(read_image(trained.root / "images" / "03.png"))
    mine = [entry for entry in entries if entry["image"] == "03.png"]
    for entry, box in zip(mine, BOXES, strict=True):
        masks, scores, _ = one_mask(predictor, box=[float(v) for v in box.split(",")])
        mask = decoded(entry)
        assert mask.shape == (48, 64)
        assert (mask != masks[0]).mean() < 0.01  # two prompts at once: other rounding
        assert entry["score"] == pytest.approx(scores[0], abs=1e-3)
        assert entry["area"] == mask.sum()
        ys, xs = np.nonzero(mask)
        if len(xs):
            wanted = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert entry["bbox"] == wanted
    picture = np.asarray(Image.open(out / "03.png"))
    assert picture.dtype == np.uint8 and set(np.unique(picture)) <= {0, 255}
    assert 0 < (picture > 0).mean() < 1
    assert np.array_equal(picture > 0, decoded(mine[0]) | decoded(mine[1]))


def test_a_threshold_moves_the_outline(ask):
    areas = []
    for threshold in ("-1.0", "0.0", "1.0"):
        answer, out = ask(f"--box={BOXES[0]}", f"--threshold={threshold}", "--no-overlays")
        assert answer.code == 0
        areas.append([entry["area"] for entry in entries_of(out)])
        shutil.rmtree(out)
    low, middle, high = np.array(areas)
    assert (low >= middle).all() and (middle >= high).all()
    assert low.sum() > middle.sum() > high.sum()


def test_masks_are_in_the_frame_of_each_image(ask, tmp_path):
    sizes = {"wide.png": (20, 90), "tall.jpg": (120, 33), "small.bmp": (5, 4)}
    (tmp_path / "in").mkdir()
    for name, (h, w) in sizes.items():
        Image.fromarray(np.full((h, w, 3), 90, np.uint8)).save(tmp_path / "in" / name)
    answer, out = ask(source=tmp_path / "in")
    assert answer.code == 0, answer.err
    for entry in entries_of(out):
        h, w = sizes[entry["image"]]
        assert entry["segmentation"]["size"] == [h, w] and decoded(entry).shape == (h, w)
        stem = entry["image"].split(".")[0]
        with Image.open(out / f"{stem}.png") as picture:
            assert picture.size == (w, h)


def test_points_with_labels(ask, trained, predictor):
    answer, out = ask(
        "--point=30,20", "--point=5,5,0", "--no-overlays", source=trained.root / "images" / "00.png"
    )
    assert answer.json["images"] == 1
    [entry] = entries_of(out)
    predictor.set_image(read_image(trained.root / "images" / "00.png"))
    with pytest.warns(PromptMismatch, match="trained with prompt box, but used with point"):
        masks, scores, _ = one_mask(predictor, [[30, 20], [5, 5]], [1, 0])
    one_mask(predictor, [[30, 20], [5, 5]], [1, 0])  # said once
    assert np.array_equal(decoded(entry), masks[0]) and masks.any()
    assert entry["score"] == pytest.approx(scores[0], abs=1e-5)
    assert not (out / "overlays").exists()


def test_a_file_of_prompts(ask, tmp_path):
    file = tmp_path / "prompts.json"
    prompts = {
        "00.png": {"boxes": [[1, 2, 30, 40], [5, 5, 20, 20]], "points": [[9, 9]]},
        "01": {"points": [[20, 20], [3, 3]], "labels": [1, 0]},
    }
    file.write_text(json.dumps(prompts))
    answer, out = ask("--prompts", file, "--box=0,0,9,9")
    assert answer.code == 0
    counts = {}
    for entry in entries_of(out):
        counts[entry["image"]] = counts.get(entry["image"], 0) + 1
    assert counts == {"00.png": 3} | {f"{i:02}.png": 1 for i in range(1, 8)}


def test_images_that_fail_are_listed_and_the_others_done(ask, trained, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"nothing")
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(tmp_path / "in" / "c.png")
    np.save(tmp_path / "in" / "d.npy", np.zeros((2, 30, 30, 6), np.uint8))
    answer, out = ask("--box=10,10,20,20", source=tmp_path / "in")
    assert answer.code == 1  # 2 if nothing could be done
    assert answer.json["images"] == 1
    assert [f["file"].rsplit("/", 1)[1] for f in answer.json["failed"]] == [
        *("b.png", "c.png"),
        *("d.npy", "d.npy"),
    ]
    lines = [line for line in answer.err.splitlines() if line.startswith("samtune: ")]
    assert "b.png: cannot be read" in lines[0] and "c.png: box=" in lines[1]
    assert "d.npy: the image has 6 channels" in lines[2] and lines[2].endswith("(2 of 5 images)")
    assert [entry["image"] for entry in entries_of(out)] == ["a.png"]


def test_a_box_outside_every_image_is_said_once(ask):
    answer, out = ask("--box=900,10,950,20")
    assert answer.code == 2 and not out.exists()
    assert len(answer.json["failed"]) == 8
    assert "outside the image of 64x48 pixels" in answer.json["failed"][7]["reason"]
    (line,) = (line for line in answer.err.splitlines() if line.startswith("samtune: "))
    assert "box=[900.0, 10.0, 950.0, 20.0]: lies outside 8 of 8 images" in line and "00.png" in line


@pytest.mark.parametrize(("box", "said"), [("50,30,90,40", True), ("0,0,64,48", False)])
def test_a_box_beyond_the_edge_is_pointed_out_once(ask, box, said):
    answer, out = ask(f"--box={box}")
    assert answer.code == 0 and len(entries_of(out)) == 8
    line = "boxes reach beyond the edge of 8 of 8 images"
    assert answer.err.count(line) == len(answer.json["remarks"]) == said


def test_one_image_that_does_not_hold_the_prompt_is_refused_before_weights_are_read(
    samtune, trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    image = trained.root / "images" / "00.png"
    said = samtune("predict", "vit_h", image, "--point=500,9").line  # whose weights are not there
    assert "point=[500.0, 9.0]: lies outside the image of 64x48 pixels" in said
    assert (
        "fractions times the image's width"
        in samtune("predict", "vit_h", image, "--point=0.5,0.5").line
    )


def test_several_files_lists_and_standard_input_are_sources(
    samtune, trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    base = f"base.weights={trained.base}"
    names = [str(trained.root / "images" / f"0{i}.png") for i in range(3)]
    words = ["predict", "tiny", base, "--box=5,5,30,30", "--json"]
    answer = samtune(*words[:2], *names, *words[2:])
    assert answer.code == 0, answer.err
    assert answer.json["images"] == 3 and answer.json["out"] == "masks"
    whole = entries_of(tmp_path / "masks")
    (trained.root / "some.txt").write_text("images/00.png\nimages/02.png\n")
    answer = samtune(*words[:2], trained.root / "some.txt", *words[2:], "--out", "listed")
    assert [row["image"] for row in entries_of(tmp_path / "listed")] == ["00.png", "02.png"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(names)))
    answer = samtune(*words[:2], "-", *words[2:], "--out", "piped", "train.precision=bf16")
    assert answer.code == 0, answer.err
    piped = entries_of(tmp_path / "piped")
    assert [row["image"] for row in piped] == [row["image"] for row in whole]
    assert [row["score"] for row in piped] != [row["score"] for row in whole]  # of bf16
    answer = samtune(*words[:2], names[0], *words[2:])
    assert answer.json["out"] == "00-masks" and (tmp_path / "00-masks" / "00.png").is_file()


def test_a_base_by_its_name(samtune, trained, tmp_path):
    answer = samtune(
        "predict", "tiny", trained.root / "images", f"base.weights={trained.base}",
        "--out", tmp_path / "out", "--box=5,5,30,30", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.json["images"] == 8


def test_a_missing_prompt_is_pointed_out(ask):
    answer, _ = ask()
    assert "trained with prompt box, but none was given" in answer.err
    answer, _ = ask("--box=1,1,9,9")
    assert "trained with" not in answer.err


def test_as_a_function(trained, tmp_path, predictor, refused):
    seen, words = [], (predictor, str(trained.root / "images"), tmp_path)
    asked = {"*": {"boxes": [[1, 1, 9, 9]]}}

    def note(*at):
        seen.append(at)
        if at[0] == 1:  # the same call again while this one is at work
            refused([f"--out={tmp_path}", "a prediction"], predict_folder, *words, prompts=asked)

    found = predict_folder(*words, overlays=False, prompts=asked, progress=note)
    assert found["images"] == 8 and seen == [(k, 8) for k in range(1, 9)]
    assert not list(tmp_path.glob("*.partial")) and not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("prompts", [[], {"a": []}, {"a": {}}, {"a": {"points": [["x", 1]]}}])
def test_malformed_prompts(refused, prompts):
    refused("prompts.json", check_prompts, prompts, "prompts.json")


def test_a_volume_is_predicted_slice_by_slice(ask, tmp_path):
    values = np.random.default_rng(0).integers(0, 4000, (3, 48, 64)).astype(np.uint16)
    np.save(tmp_path / "scan.npy", values)
    answer, out = ask("--box=10,10,30,30", source=tmp_path / "scan.npy")
    assert answer.code == 0
    assert answer.json["images"] == 3
    names = [f"scan_{i:04}" for i in range(3)]
    assert [entry["image"] for entry in entries_of(out)] == names
    assert sorted(p.stem for p in out.glob("*.png")) == names


def test_maps_of_more_classes_than_a_byte_holds(sam, tmp_path):
    model = FineTuned(sam, "none", "semantic", decoder_options={"classes": 300}, prompts="none")
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    predictor = model.predictor()
    predictor.set_image(image)
    scores = one_mask(predictor, return_logits=True)[0]
    predict_folder(predictor, str(tmp_path / "a.png"), tmp_path / "out", overlays=False)
    written = Image.open(tmp_path / "out/a.png")
    assert written.mode == "I;16"
    classes = np.asarray(written)
    assert classes.max() < 300
    np.testing.assert_array_equal(classes, scores.argmax(0))


class Killed(BaseException):
    """What no handler expects."""


def whole_lines(journal):
    return journal


def cut_off(journal):
    return journal[:-7]


def changed(journal):
    """Another digit of the last image's last score."""
    at = journal.rindex(b'"score": ') + len(b'"score": ')
    return journal[:at] + b"7" + journal[at + 1 :]


def of_former_form(journal):
    first, *rows = journal.splitlines(keepends=True)
    return b"".join([first, *(row[row.index(b"{") :] for row in rows)])


@pytest.mark.parametrize(
    ("damaged", "rest"), [(whole_lines, 5), (cut_off, 6), (changed, 6), (of_former_form, 8)]
)
def test_what_was_stopped_goes_on_where_it_was(
    predictor, trained, tmp_path, monkeypatch, damaged, rest
):
    """The result is that of one call; a line that is damaged costs that image alone."""
    source, asked = (
        str(trained.root / "images"),
        {"*": {"boxes": [[10, 6, 50, 40], [0, 0, 20, 20]]}},
    )
    whole, out = tmp_path / "whole", tmp_path / "out"
    predict_folder(predictor, source, whole, prompts=asked)

    def killed(done, total):
        if done == 3:
            raise KeyboardInterrupt

    said = "^3 of 8 images are done; go on with the same command$"
    with pytest.raises(KeyboardInterrupt, match=said):
        predict_folder(predictor, source, out, prompts=asked, progress=killed)
    journal = out / "predictions.partial.jsonl"
    assert len(journal.read_text().splitlines()) == 4 and (out / "02.png").is_file()
    journal.write_bytes(damaged(journal.read_bytes()))
    encoded = []
    take = predictor.take
    monkeypatch.setattr(predictor, "take", lambda image: encoded.append(take(image)))
    answer = predict_folder(predictor, source, out, prompts=asked)
    assert len(encoded) == rest and answer["images"] == 8
    if rest < 8:
        assert answer["remarks"][0].startswith(f"note: {8 - rest} of 8 images were done by")
    assert entries_of(out) == entries_of(whole) and not journal.exists()
    assert (out / "predictions.json").read_bytes() == (whole / "predictions.json").read_bytes()
    for file in whole.rglob("*.png"):
        assert (out / file.relative_to(whole)).read_bytes() == file.read_bytes()


def test_other_prompts_or_another_threshold_take_nothing_over(predictor, trained, tmp_path):
    source, out = str(trained.root / "images"), tmp_path / "out"

    def killed(done, total):
        raise Killed

    for again in ({"boxes": [[0, 0, 20, 20]]}, {"boxes": [[10, 6, 50, 40]]}):
        with pytest.raises(Killed):
            first = {"*": {"boxes": [[10, 6, 50, 40]]}}
            predict_folder(predictor, source, out, prompts=first, progress=killed)
        predictor.threshold = 0.5 if again == first["*"] else 0.0
        assert predict_folder(predictor, source, out, prompts={"*": again})["remarks"] == []
        predictor.threshold = 0.0


def test_an_earlier_prediction_is_replaced_also_of_images_that_are_gone(
    predictor, trained, tmp_path
):
    source, out = tmp_path / "in", tmp_path / "out"
    first, *rest = sorted((trained.root / "images").iterdir())[:3]
    for name, picture in zip(["a.png", "b.1.png", "sub/c.png"], [first, *rest], strict=True):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, source / name)
    predict_folder(predictor, source, out, prompts={"*": {"boxes": [[10, 6, 50, 40]]}})
    assert {row["image"] for row in entries_of(out)} == {"a.png", "b.1.png", "sub/c.png"}
    (source / "b.1.png").unlink()
    (source / "sub" / "c.png").unlink()
    (out / "notes.txt").write_text("mine")
    Image.new("L", (4, 4)).save(out / "overlays" / "b.1.png")  # somebody's own by now
    predict_folder(predictor, source, out, prompts={"*": {"boxes": [[0, 0, 20, 20]]}})
    files = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
    assert files - {LOCK} == {
        *("a.png", "overlays/a.png", "overlays/b.1.png", "predictions.json", "notes.txt")
    }


def test_many_prompts_are_answered_some_at_a_time(predictor, trained, tmp_path, monkeypatch):
    source = str(trained.root / "images" / "03.png")
    asked = {"03": {"boxes": [[k, k, k + 20, k + 20] for k in range(7)]}}
    predict_folder(predictor, source, tmp_path / "a", prompts=asked)
    for place in ("answers", "prompted"):
        monkeypatch.setattr(f"samtune.inference.{place}.LOGIT_BYTES", 1)
    predict_folder(predictor, source, tmp_path / "b", prompts=asked)
    pairs = zip(entries_of(tmp_path / "a"), entries_of(tmp_path / "b"), strict=True)
    assert all(np.mean(decoded(a) != decoded(b)) < 0.01 for a, b in pairs)


def test_images_that_are_encoded_together_answer_as_one_by_one(predictor, tmp_path):
    for i, size in enumerate([(48, 64), (20, 90), (33, 12), (48, 64), (5, 4)]):
        noise = np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(noise).save(tmp_path / "in" / f"{i}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")
    asked = {"*": {"boxes": [[1, 1, 9, 9], [0, 0, 3, 3]]}, "1": {"boxes": []}}
    alone, together = (
        predict_folder(predictor, tmp_path / "in", tmp_path / str(n), prompts=asked, batch_size=n)
        for n in (1, 3)
    )
    assert alone["images"] == together["images"] == 5
    assert alone["failed"] == together["failed"] and len(alone["failed"]) == 1
    one, other = entries_of(tmp_path / "1"), entries_of(tmp_path / "3")
    assert [row["image"] for row in one] == [row["image"] for row in other] and len(one) == 8
    for a, b in zip(one, other, strict=True):  # other rounding, as of several prompts at once
        assert np.mean(decoded(a) != decoded(b)) < 0.01
        assert a["score"] == pytest.approx(b["score"], abs=1e-3)


def test_further_formats_follow_also_of_a_call_that_was_stopped(predictor, trained, tmp_path):
    source, out = str(trained.root / "images"), tmp_path / "out"
    how = {
        "prompts": {"*": {"boxes": [[10, 6, 50, 40]]}}, "overlays": False,
        "formats": ["coco", "yolo", "labelme", "geojson"],
    }  # fmt: skip
    predict_folder(predictor, source, tmp_path / "whole", **how)

    def killed(done, total):
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        predict_folder(predictor, source, out, progress=killed, **how)
    assert [each.name for each in out.iterdir()] == ["predictions.partial.jsonl"]
    for _ in range(2):  # the second call replaces what the first one wrote
        predict_folder(predictor, source, out, **how)
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    wanted = {p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*")}
    assert names == {p.as_posix() for p in wanted if (tmp_path / "whole" / p).is_file()}
    assert {"coco/annotations.json", "yolo/labels/03.txt", "labelme/03.json"} < names
    assert not list(out.glob("*.png"))
    for name in ("coco/annotations.json", "yolo/labels/03.txt", "geojson/03.geojson"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    (out / "coco" / "annotations.json").write_text("{}")
    with pytest.raises(InputError, match="holds coco, which no samtune predict wrote"):
        predict_folder(predictor, source, out, **how)


def test_a_pattern_is_a_source_and_a_wrong_format_is_refused_first(ask, trained, tmp_path):
    answer, out = ask("--box=1,1,9,9", "--as=coco", source=f"{trained.root}/images/0[12].*")
    assert answer.code == 0, answer.err
    tree = json.loads((out / "coco" / "annotations.json").read_text())
    assert [each["file_name"] for each in tree["images"]] == ["01.png", "02.png"]
    for words, said in (
        (["--as=coko"], "did you mean 'coco'"),
        (["--tolerance=-1"], "must be 0 or more pixels"),
        (["--batch-size=0"], "must be 1 or more images"),
    ):
        assert said in ask(*words)[0].line
    assert "fits no file" in ask(source=f"{trained.root}/images/*.gif")[0].line


def test_a_disk_without_room_is_told_before_the_work(ask, tmp_path, monkeypatch):
    from pathlib import Path

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr("samtune.inference.answers.read_image", lambda *_: pytest.fail("was read"))
    answer, out = ask("--box=1,1,9,9")
    assert answer.code == 2 and "could not be written (No space left" in answer.err
    assert not out.exists()
