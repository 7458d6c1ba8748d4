import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import settings

from samtune.compare.jobs import _finished_summary, compare, show
from samtune.compare.page import Entry, Picture, render, scatter
from samtune.compare.plan import Run, plan_runs
from samtune.compare.rows import aggregate, grids, zero_shot
from samtune.compare.sureness import ALIKE, BEST, HIGHEST, WORSE, add_sureness
from samtune.report.overlays import Overlay
from samtune.report.terminal import Display


@pytest.fixture
def words(pairs, tiny_weights, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return [*settings(pairs, tiny_weights, 1), "data.augment=none", "output=cmp"]


@pytest.mark.slow
def test_every_method_on_every_draw_and_again(samtune, words, monkeypatch):
    asked = ["methods=decoder,lora", "shots=2", "seeds=2", "prompts.eval=box,none"]
    asked += ["train.feature_cache=disk=1GB"]  # for the decoder, which alone can use it
    answer = samtune("compare", *words, *asked, "--json")
    assert answer.code == 0, answer.err
    result = answer.json
    assert [(r["method"], r["decoder"], r["seeds"]) for r in result["rows"]] == [
        ("decoder", "tuned", [0, 1]), ("lora", "tuned", [0, 1]),
    ]  # fmt: skip
    for row in result["rows"]:
        runs = [json.loads(Path(f, "summary.json").read_text()) for f in row["runs"]]
        ious = [run["tuned"]["iou"] for run in runs]
        assert row["iou"]["values"] == ious
        assert row["iou"]["mean"] == pytest.approx(np.mean(ious))
        assert row["iou"]["std"] == pytest.approx(np.std(ious, ddof=1))
        ious = [run["by_prompt"]["none"]["tuned"]["iou"] for run in runs]
        assert row["by_prompt"]["none"]["tuned"]["iou"]["values"] == ious
        assert row["trainable_parameters"] == runs[0]["trainable_parameters"]
        drawn = [json.loads(Path(f, "split.json").read_text()) for f in row["runs"]]
        assert all(len(parts["train"]) == 2 for parts in drawn)
        assert drawn[0]["test"] == drawn[1]["test"]
        row["drawn"] = [parts["train"] for parts in drawn]
    assert result["rows"][0]["drawn"] == result["rows"][1]["drawn"]  # the same shots for each
    # one test image cannot say which is better
    assert {row["standing"] for row in result["rows"]} == {ALIKE, HIGHEST}
    assert all(row["images_per_second"] > 0 for row in result["rows"])
    assert {Path(result[kind]).name for kind in ("markdown", "csv", "latex")} == {
        path.name for path in Path("cmp").glob("comparison.*") if path.suffix != ".json"
    }
    assert json.loads(Path("cmp/comparison.json").read_text())["zero_shot"] == result["zero_shot"]
    page = Path("cmp/report.html").read_text("utf-8")
    assert result["by_prompt"]["box"]["guesses"] == result["guesses"]
    assert "IoU by prompt (all but none" in page and "\niou: " in result["contract"]
    assert page.count("<img ") == 5 and "<svg" in page and "<script" not in page
    assert len(list(Path("cmp/features").iterdir())) == 1
    assert not list(Path("cmp").glob("*/features"))
    # what is complete is read, what is missing is trained
    trained = []
    monkeypatch.setattr(
        "samtune.compare.launchers.sequential._train", lambda run, display: trained.append(run)
    )
    again = samtune("compare", *words, *asked, "--json").json
    assert trained == [] and again["rows"][0]["iou"] == result["rows"][0]["iou"]
    line = samtune("compare", *words, *asked, "train.lr=0.5").line
    assert "has train.lr=0.0003 from an earlier run, not 0.5" in line and "another output=" in line


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on(samtune, words, monkeypatch):
    def pressed(self, event):
        if event["event"] == "val":
            raise KeyboardInterrupt

    asked = [*words[:-1], "output=cmp", "methods=decoder", "seeds=1"]
    with monkeypatch.context() as patch:
        patch.setattr(Display, "event", pressed)
        answer = samtune("compare", *asked)
    assert answer.code == 130
    assert answer.err.splitlines()[-1].endswith("0 of 1 runs are done; go on with the same command")
    assert Path("cmp/decoder-allshot-seed0/last/state.json").is_file()
    assert samtune("compare", *asked, "--json").json["runs"] == 1


class TestPlan:
    def test_runs(self, words):
        runs = plan_runs([*words, "methods=decoder,vpt", "shots=1,all", "seeds=4,9"])
        assert [(r.shots, r.method, r.seed) for r in runs] == [
            (k, m, s) for k in (1, None) for m in ("decoder", "vpt") for s in (4, 9)
        ]
        for run in runs:
            assert (run.config.data.shots, run.config.data.shot_seed) == (run.shots, run.seed)
            assert run.config.seed == run.seed and run.folder.parent == Path("cmp")
            assert run.config.train == runs[0].config.train
        assert len({run.folder for run in runs}) == 8

    def test_one_folder_of_features_serves_the_methods_that_can_use_it(self, words, refused):
        sized = [*words, "methods=decoder,vpt", "seeds=1", "train.feature_cache=disk=1GB,half"]
        sized += ["data.disk_cache=1GB"]
        for run in plan_runs(sized):
            assert run.config.train.feature_cache == "auto,disk=1GB,half"
            assert run.config.train.feature_folder == str(Path("cmp", "features"))
            assert run.config.data.cache_folder == str(Path("cmp", "decoded"))
        (run, _) = plan_runs([*sized, "train.feature_folder=elsewhere"])
        assert run.config.train.feature_folder == "elsewhere"
        refused(["disk=1GB", "data.views=4"], plan_runs, [*sized, "data.augment=flips"])

    def test_a_method_takes_the_decoder_that_it_declares(self, words):
        (run,) = plan_runs([*words, "methods=cat_sam_a", "seeds=1"])
        assert run.config.decoder["name"] == "hq"

    def test_all_are_asked_in_what_is_trained(self, words):
        asked = ["prompts.train=none,point", "prompts.eval=auto"]
        (run,) = plan_runs([*words, *asked, "methods=lora", "seeds=1"])
        assert run.config.prompts.eval == run.config.prompts.train == ["none", "point"]

    def test_a_read_out_alone_is_a_method(self, words):
        (run,) = plan_runs([*words, "methods=hq", "seeds=1"])
        assert (run.config.adapter["name"], run.config.decoder["name"]) == ("none", "hq")

    def test_a_recipe_is_its_method_and_not_its_data_or_budget(self, words):
        name = "adaptformer-vit_l-kvasir-1shot"
        (run,) = plan_runs([*words, f"methods={name}", "seeds=1"])
        assert run.config.adapter["name"] == "adaptformer"
        assert run.config.base.name == "tiny" and run.config.train.max_steps == 1

    def test_forms_are_methods_of_their_own(self, words):
        names = ["vpt", "vpt:shallow", "hq:sum", "cat_sam_a"]
        runs = plan_runs([*words, f"methods={','.join(names)}", "seeds=1"])
        assert [run.method for run in runs] == names
        assert [run.config.adapter.get("depth") for run in runs] == ["deep", "shallow", None, None]
        read = [run.config.decoder.get("combine") for run in runs]
        assert read[2] == "sum" and read[3] not in (None, "sum")
        assert runs[1].folder.name == "vpt.shallow-allshot-seed0"
        # what the command itself says holds for all, above what a form sets
        (run,) = plan_runs([*words, "methods=vpt:shallow", "decoder.name=hq", "seeds=1"])
        assert (run.config.decoder["name"], run.config.adapter["depth"]) == ("hq", "shallow")
        maps = ["data.masks=classes", "data.classes=3", "prompts.train=none", "prompts.eval=none"]
        (run,) = plan_runs([*words, *maps, "methods=semantic:samed", "seeds=1"])
        assert (run.config.decoder["classes"], run.config.decoder["tokens"]) == (3, "per_class")
        assert run.config.train.loss == "ce + multi_dice"

    @pytest.mark.parametrize(
        ("extra", "said"),
        [
            (["methods=vpt:shalow"], ["methods=vpt:shalow: its forms are shallow", "did you mean"]),
            (["methods=samus:x"], ["methods=samus:x: it has only one form"]),
            (["methods=hq", "decoder.name=tuned"], ["methods=hq: conflicts with"]),
            (["methods=hq:sum", "decoder.name=tuned"], ["methods=hq:sum: conflicts with"]),
            (["methods=lora+vpt:shallow"], ["methods=lora+vpt:shallow", "have no forms"]),
            (["methods=decoder:x"], ["methods=decoder:x: no such method"]),
            (["methods=lroa"], ["methods=lroa", "did you mean 'lora'"]),
            (["methods=lora,lora"], ["give each once"]),
            (["shots=0"], ["shots=0", "all"]),
            (["shots=some"], ["shots=some"]),
            (["seeds=0"], ["seeds=0", "seeds=3"]),
            (["seeds=many"], ["seeds=many"]),
            (["adapter.name=lora"], ["adapter", "methods="]),
            (["seed=3"], ["seed=3", "seeds="]),
            (["methods=cat_sam_a", "decoder.name=tuned"], ["decoder.name=tuned", "hq"]),
        ],
    )
    def test_wrong_words(self, words, refused, extra, said):
        refused(said, plan_runs, [*words, *extra])

    def test_a_folder_of_others_stays_and_ones_own_goes_on_without_its_table(self, words, refused):
        asked = [*words, "methods=lora", "seeds=1"]
        Path("cmp").mkdir()
        Path("cmp/report.html").write_text("mine")
        refused(["output=cmp: holds a report.html", "output=cmp-2"], plan_runs, asked)
        run = Path("cmp/lora-allshot-seed0/config.yaml")
        run.parent.mkdir()
        run.write_text("seed: 0")
        Path("cmp/comparison.json").write_text("[1")
        assert [each.folder for each in plan_runs(asked)] == [run.parent]

    @pytest.mark.parametrize(
        ("extra", "said"),
        [
            (["shots=1,99"], "data.shots=99"),
            (["methods=lora", "input.size=60"], "input.size=60"),
            (["methods=none", "decoder.name=frozen"], "nothing to train"),
        ],
    )
    def test_nothing_runs_when_one_cannot(self, samtune, words, extra, said):
        assert said in samtune("compare", *words, *extra).line
        assert not Path("cmp").exists()

    def test_one_process(self, words, monkeypatch, refused):
        monkeypatch.setenv("WORLD_SIZE", "2")
        refused("torchrun", compare, words, Display(json=True))


def summary(iou, zero_shot=0.5):
    return {
        "tuned": {"iou": iou, "dice": iou}, "zero_shot": {"iou": zero_shot, "dice": zero_shot},
        "trainable_parameters": 1000, "seconds": 2.0, "peak_memory_bytes": int(1e6),
    }  # fmt: skip


def test_a_run_from_before_a_setting_has_its_default(words, refused):
    (run,) = plan_runs([*words, "methods=lora", "seeds=1"])
    tree, file = run.config.tree(), run.folder / "config.yaml"
    del tree["data"]["invert"], tree["train"]["last_batch"]
    run.folder.mkdir(parents=True)
    file.write_text(yaml.safe_dump(tree), "utf-8")
    assert _finished_summary(run) == (None, None)
    (other,) = plan_runs([*words, "methods=lora", "seeds=1", "train.last_batch=drop"])
    refused("has train.last_batch=fill from an earlier run, not drop", _finished_summary, other)
    (run.folder / "images.csv").mkdir()
    refused(["images.csv: is a folder"], _finished_summary, run)
    file.rename(run.folder / "summary.json")
    refused([str(run.folder), "config.yaml is missing"], _finished_summary, run)


def test_rows_over_seeds(words):
    runs = plan_runs([*words, "methods=decoder,lora", "shots=1", "seeds=3"])
    values = [0.5, 0.6, 0.7, 0.8, None, 0.8]
    rows = aggregate(runs, [summary(v) for v in values])
    first, second = rows
    assert add_sureness(runs, rows) == []  # nothing was kept of the images
    assert first["iou"]["mean"] == pytest.approx(0.6) and first["iou"]["std"] == pytest.approx(0.1)
    # nothing was measured for one seed: it does not count
    assert second["iou"]["mean"] == pytest.approx(0.8) and second["iou"]["std"] == 0
    assert (first["best"], second["best"]) == (False, True)
    assert (first["standing"], second["standing"]) == (WORSE, BEST)
    rows = aggregate(runs, [summary(v) for v in (0.5, 0.6, 0.7, 0.6, 0.7, 0.8)])
    add_sureness(runs, rows)
    assert [row["standing"] for row in rows] == [ALIKE, HIGHEST]  # within the deviations
    assert not any(row["best"] for row in rows)
    (alone,) = aggregate(runs[:1], [summary(0.5)])
    assert alone["iou"]["std"] is None and not alone["best"]


def several(iou, mae):
    """A summary of two prompts and three metrics."""

    def side(value):
        return {"iou": value, "dice": value}

    measured = {
        name: {"zero_shot": before, "tuned": after}
        for name, before, after in (("iou", 0.5, iou), ("mae", 0.4, mae))
    }
    boxes = {"filled box": {**side(0.6), "mae": 0.2}}
    return {
        **summary(iou),
        "metrics": measured,
        "guesses": boxes,
        "by_prompt": {
            "box": {
                "zero_shot": side(0.5), "tuned": side(iou), "ground_truth": True, "trained": True,
                "guesses": boxes, "metrics": measured,
            },
            "none": {
                "zero_shot": side(0.1), "tuned": side(iou / 2), "ground_truth": False,
                "trained": False, "metrics": measured,
            },
        },
    }  # fmt: skip


def test_prompts_and_metrics_over_seeds(words):
    runs = plan_runs([*words, "methods=lora", "shots=1", "seeds=2"])
    summaries = [several(0.6, 0.1), several(0.8, 0.3)]
    (row,) = aggregate(runs, summaries)
    assert row["metrics"]["mae"]["tuned"]["mean"] == pytest.approx(0.2)
    assert row["metrics"]["mae"]["zero_shot"]["std"] == 0
    alone = row["by_prompt"]["none"]
    assert alone["tuned"]["iou"]["mean"] == pytest.approx(0.35)
    assert alone["tuned"]["dice"]["values"] == [0.3, 0.4]
    assert alone["metrics"]["mae"]["tuned"]["values"] == [0.1, 0.3]
    before = zero_shot(summaries)
    assert before["zero_shot"] == {"iou": 0.5, "dice": 0.5} and before["metrics"]["mae"] == 0.4
    assert before["by_prompt"]["none"]["zero_shot"]["iou"] == pytest.approx(0.1)
    prompts, metrics = grids({**before, "rows": [row], "prompt": "box"})
    assert prompts.columns == ("method", "shots", "box (trained)", "none")
    assert prompts.rows == [
        ("filled box, no model", "", "0.600", ""),
        ("zero-shot", "", "0.500", "0.100"),
        ("lora", "1", "0.700 ±0.141", "0.350 ±0.071"),
    ]
    assert metrics.columns == ("method", "shots", "mae")
    assert metrics.rows[0][2] == "0.200" and metrics.rows[2][2] == "0.200 ±0.141"
    # many metrics of few methods: each has a row
    names = {f"m{i}": {"zero_shot": i, "tuned": i} for i in range(4)}
    many = [{**each, "metrics": names} for each in summaries]
    _, turned = grids({**zero_shot(many), "rows": aggregate(runs, many), "prompt": "none"})
    assert turned.columns == ("metric", "zero-shot", "lora, 1 shot")
    assert turned.rows[3][0] == "m3" and turned.title == "By metric, prompt none"


def test_one_prompt_and_no_other_metric_need_no_further_table(words):
    runs = plan_runs([*words, "methods=lora", "seeds=1"])
    assert grids({**zero_shot([summary(0.5)]), "rows": aggregate(runs, [summary(0.5)])}) == []


def test_the_chart_places_what_is_larger_to_the_right_and_better_higher():
    rows = [
        {"method": m, "iou": {"mean": iou, "std": 0.02}, "trainable_parameters": n, "best": False}
        for m, iou, n in (("small", 0.6, 2_000), ("large", 0.7, 3_000_000))
    ]
    chart = scatter(4, rows, 0.5)
    small, large = (point["at"] for point in chart["points"])
    assert small[0] < large[0] and small[1] > large[1]
    assert chart["zero_shot"] > small[1]
    assert [label for _, label in chart["x"]] == ["1 k", "10 k", "100 k", "1 M", "10 M"]
    assert scatter("all", [], None)["points"] == []


def test_labels_of_a_chart_never_lie_on_each_other_or_on_points():
    def row(name, iou, size):
        spread = {"mean": iou, "std": None}
        return {"method": name, "iou": spread, "trainable_parameters": size, "best": False}

    rows = [row(f"method_{k}", 0.8 + 0.001 * k, 900_000 + 1000 * k) for k in range(20)]
    rows += [row("small", 0.85, 2_000), row("large", 0.7, 50_000_000)]
    sides = {p["method"]: p["side"] for p in scatter("all", rows, None)["points"]}
    assert (sides["small"], sides["large"]) == ("right", "left")
    assert sides["method_19"] and None in sides.values()  # the best of a crowd is named
    labels = [name for name, side in sides.items() if side]
    assert 3 < len(labels) < len(rows)
    apart = [row(f"m{k}", 0.5 + 0.05 * k, 1000) for k in range(5)]
    assert all(p["side"] for p in scatter("all", apart, 0.4)["points"])


def test_a_base_far_below_does_not_press_the_methods_together():
    rows = [
        {"method": m, "iou": {"mean": iou, "std": None}, "trainable_parameters": n, "best": False}
        for m, iou, n in (("a", 0.70, 1_000), ("b", 0.71, 10_000), ("c", 0.73, 100_000))
    ]
    near, far = scatter(4, rows, 0.62), scatter(4, rows, 0.05)
    assert near["below"] is None and near["zero_shot"] is not None
    assert far["below"] == 0.05 and far["zero_shot"] is None
    heights = [[at[1] for at in (p["at"] for p in chart["points"])] for chart in (near, far)]
    assert max(heights[1]) - min(heights[1]) > 2 * (max(heights[0]) - min(heights[0]))
    alone = scatter(4, rows[:1], 0.05)
    assert alone["below"] is None and alone["zero_shot"] is not None


def test_the_page_shows_each_method_on_the_same_images():
    image, mask = np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), bool)
    mask[5:10, 5:15] = True
    entries = [Entry("zero-shot", ~mask, 0.1), Entry("<lora>", mask, 1.0), Entry("x", None, None)]
    pictures = [Picture(Overlay(name, image, mask), entries) for name in ("one", "two")]
    spread = {"mean": 0.8, "std": None}
    row = {
        "method": "<lora>", "decoder": "hq", "shots": 1, "seeds": [0], "iou": spread,
        "dice": spread, "zero_shot": {"iou": 0.5, "dice": None}, "trainable_parameters": 10,
        "seconds": 1.0, "peak_memory_bytes": 1000, "best": True,
    }  # fmt: skip
    result = {
        "title": "a & b", "rows": [row], "zero_shot": {"iou": 0.5, "dice": None}, "guesses": {},
        "prompt": "box", "contract": "Fractions.\niou: of <masks>",
        "images": 2, "runs": 1, "seconds": 1.0,
    }  # fmt: skip
    page = render(result, pictures, {"seed": 0})
    assert page.count("<img ") == 10 and "&lt;lora&gt;" in page and "<lora>" not in page
    assert "a &amp; b" in page and "1 training image<" in page
    assert "box (from the ground truth)" in page and "<dt>iou</dt><dd>of &lt;masks&gt;" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


def test_the_table_shows_what_boxes_alone_give(words, capsys):
    runs = plan_runs([*words, "methods=lora", "seeds=1"])
    side = {"iou": 0.5, "dice": 0.6}
    costs = {"trainable_parameters": 10, "seconds": 1.0, "peak_memory_bytes": 100}
    (row,) = aggregate(runs, [{"tuned": side, "zero_shot": side, **costs}])
    deviating = {key: {**row[key], "std": 0.0123} for key in ("iou", "dice")}
    rows = [{**row, **deviating, "method": "a_method_of_a_long_name"}]
    common = {"title": "nano on cells", "prompt": "box", "images": 3, "zero_shot": side}
    paths = {"comparison": "c.json", "report": "r.html"}
    guesses = {"filled box": {"iou": 0.674, "dice": 0.79}}
    show(Display(), {**common, **paths, "rows": rows, "guesses": guesses})
    said = capsys.readouterr().out
    # nothing is cut, however narrow the console
    for shown in ("0.500 ±0.012", "0.600", "±0.012", "a_method_of_a_long_name", " 0.000", "memory"):
        assert shown in said
    assert (
        "prompt box (from the ground truth), 3 test images" in said
        and "what the numbers mean: r.html#contract" in said
    )
    assert said.index("filled box") < said.index("0.674") < said.index("zero-shot")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_earlier_runs_freed_does_not_count(forks):
    script = """
from pathlib import Path
from samtune.training.memory import count_peak_anew

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))

blocks = [bytearray(50_000) for _ in range(8000)]
pins = [bytearray(50_000) for _ in range(8000)][::400]
del blocks
before = status("VmRSS")
count_peak_anew()
print(before, status("VmHWM"))
"""
    done = forks.start(script)
    assert done.wait() == 0, done.stderr
    before, peak = map(int, done.stdout.split())
    assert peak < before - 200_000


def test_titles():
    run = Run("lora", None, 2, None)
    assert run.title == "lora, all images, seed 2"
    assert Run("lora", 1, 2, None).title == "lora, 1 shot, seed 2"
