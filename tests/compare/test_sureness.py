"""Who is the best, and how sure that is: over test images and draws of the shots."""

import csv
import io
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from samtune.compare.exports import COLUMNS, as_csv, latex, markdown, write_exports
from samtune.compare.notes import notes
from samtune.compare.page import render
from samtune.compare.plan import Run
from samtune.compare.rows import aggregate, main_grids, paired_grid, zero_shot
from samtune.compare.sureness import ALIKE, BEST, HIGHEST, WORSE, add_sureness, read_scores
from samtune.runs.per_image import write_items

IMAGES, SEEDS = 30, 3


def comparison(tmp_path, offsets, images=IMAGES, seeds=SEEDS, keep=True):
    """Runs of methods that score so much above zero-shot; rows, tests and the whole result."""
    random = np.random.default_rng(5)
    hard, objects = random.normal(0.6, 0.15, images), random.integers(1, 5, images)
    runs, summaries = [], []
    for method, offset in offsets.items():
        for seed in range(seeds):
            folder = tmp_path / f"{method}-{seed}"
            folder.mkdir(parents=True)
            config = SimpleNamespace(
                output=folder, adapter={"name": method}, decoder={"name": "tuned"}
            )
            draw = random.normal(0, 0.005)
            tuned = hard + offset + draw + random.normal(0, 0.03, images)
            items = [
                {
                    "prompt": "box", "image": f"{i}.png",
                    "zero_shot_objects": int(objects[i]), "zero_shot_iou": float(hard[i]),
                    "zero_shot_dice": float(hard[i]), "tuned_objects": int(objects[i]),
                    "tuned_iou": float(tuned[i]), "tuned_dice": float(tuned[i]),
                }
                for i in range(images)
            ]  # fmt: skip
            if keep:
                write_items(folder, items)
            side = {
                name: dict.fromkeys(("iou", "dice"), float(np.average(values, weights=objects)))
                for name, values in (("zero_shot", hard), ("tuned", tuned))
            }
            runs.append(Run(method, 4, seed, config))
            summaries.append({
                **side, "by_prompt": {"box": {**side, "trained": True}}, "prompt": "box",
                "trainable_parameters": 1000, "seconds": 2.0, "peak_memory_bytes": int(1e6),
                "images_per_second": 12.5, "images": images,
            })  # fmt: skip
    rows = aggregate(runs, summaries)
    tests = add_sureness(runs, rows)
    result = {
        "title": "nano on cells & co", "rows": rows, **zero_shot(summaries), "tests": tests,
        "prompt": "box", "images": images, "contract": "Fractions.\niou: of masks", "runs": 6,
        "seconds": 3.0,
    }  # fmt: skip
    return runs, rows, tests, result


def test_the_best_is_named_only_if_all_others_are_worse(tmp_path):
    _, rows, tests, _ = comparison(tmp_path / "a", {"lora": 0.1, "worse": 0.0})
    assert [row["standing"] for row in rows] == [BEST, WORSE] and rows[0]["best"]
    _, rows, tests, result = comparison(
        tmp_path / "b", {"one": 0.100, "other": 0.102, "worse": 0.0}
    )
    assert sorted(row["standing"] for row in rows) == sorted([HIGHEST, ALIKE, WORSE])
    assert rows[2]["standing"] == WORSE and not any(row["best"] for row in rows)
    names = [row[0] for row in main_grids(result)[0].rows]
    assert names == ["zero-shot", "one =", "other =", "worse"]
    assert any("= is not distinguishable from the one" in note for note in notes(result))
    against = rows[2]["against_best"]
    assert against["difference"] < -0.08 and against["interval"][1] < 0
    assert "Not distinguishable from zero-shot: worse, 4 shots." in notes(result)
    assert len(tests) == 6  # three against zero-shot, three of two methods


def test_intervals_and_tests_are_of_the_means_that_are_shown(tmp_path):
    runs, rows, tests, _ = comparison(tmp_path, {"lora": 0.1, "decoder": 0.05})
    for row in rows:
        ends, gain = row["intervals"], row["iou"]["mean"] - row["zero_shot"]["iou"]
        assert ends["tuned"]["iou"][0] < row["iou"]["mean"] < ends["tuned"]["iou"][1]
        low, high = ends["difference"]["iou"]
        assert low < gain < high
        # paired: how hard an image is has gone from the difference
        assert high - low < 0.5 * (ends["tuned"]["iou"][1] - ends["tuned"]["iou"][0])
    [pair] = [test for test in tests if "zero-shot" not in test["methods"]]
    expected = rows[0]["iou"]["mean"] - rows[1]["iou"]["mean"]
    assert pair["difference"] == pytest.approx(expected, abs=1e-6)
    assert pair["draws"]["p"] == pair["draws"]["least"] == 0.25  # three draws can give no less
    assert pair["images"]["p"] < 0.001
    of_zero = [test for test in tests if "zero-shot" in test["methods"]]
    for test in of_zero:
        assert test["images"]["corrected"] == pytest.approx(2 * test["images"]["p"])
    # draws differ, and make the interval of a method wider than images alone
    alone = read_scores(runs[:1])["box"].intervals["difference"]["iou"]
    both = read_scores(runs[:3])["box"].intervals["difference"]["iou"]
    assert both != alone


def test_runs_that_kept_nothing_or_other_images_are_not_tested(tmp_path):
    runs, rows, tests, result = comparison(tmp_path / "a", {"a": 0.1, "b": 0.0}, keep=False)
    assert tests == [] and rows[0]["intervals"] is None and rows[0]["standing"] == BEST
    assert any("images.csv" in note for note in notes(result)) and paired_grid(result) == []
    runs, *_ = comparison(tmp_path / "b", {"a": 0.1}, images=8)
    other, *_ = comparison(tmp_path / "c", {"a": 0.1}, images=9)
    assert read_scores([runs[0], other[0]]) == {}


def test_one_draw_says_nothing_of_others_and_few_images_are_remarked(tmp_path):
    _, rows, tests, result = comparison(tmp_path, {"a": 0.1, "b": 0.0}, images=8, seeds=1)
    said = "\n".join(notes(result))
    assert "only one draw of the shots" in said and "8 test images are few (fewer than 20)" in said
    assert rows[0]["intervals"]["tuned"]["iou"] is not None and tests[0]["draws"]["n"] == 1


def test_files_for_papers_and_spreadsheets(tmp_path):
    _, rows, _, result = comparison(tmp_path, {"cat_sam_a": 0.1, "a|b": 0.099, "low": 0.0})
    result["guesses"] = {"filled box": {"iou": 0.62, "dice": 0.7}}
    ends = {"iou": [0.55, 0.65], "dice": [0.6, 0.7]}
    for of in (result, result["by_prompt"]["box"]):
        of["intervals"] = {"zero_shot": ends, "guesses": {"filled box": ends}}
    write_exports(tmp_path, result)
    table = list(csv.DictReader(io.StringIO((tmp_path / "comparison.csv").read_text("utf-8"))))
    assert tuple(table[0]) == COLUMNS
    assert [row["method"] for row in table] == ["zero-shot", "cat_sam_a", "a|b", "low"]
    assert float(table[1]["iou_mean"]) == rows[0]["iou"]["mean"]
    assert float(table[1]["iou_low"]) < rows[0]["iou"]["mean"] < float(table[1]["iou_high"])
    assert [table[0][f"{key}_{end}"] for key in ends for end in ("low", "high")] == [
        "0.55", "0.65", "0.6", "0.7",
    ]  # fmt: skip
    assert float(table[1]["against_zero_shot_p_images"]) < 0.01 and table[0]["gain_iou"] == ""
    assert float(table[3]["against_zero_shot_p_images"]) > 0.05, "low is zero-shot and noise"
    assert table[1]["draws"] == "3" and table[1]["images_per_second"] == "12.5"
    text = (tmp_path / "comparison.md").read_text("utf-8")
    assert "a\\|b" in text and "filled box" in text and "\n- " in text and "images/s" in text
    lines = text.splitlines()
    for line, below in itertools.pairwise(lines):
        if line.startswith("|") and below.startswith("|"):
            pipes = [each.replace("\\|", "").count("|") for each in (line, below)]
            assert pipes[0] == pipes[1]
    tex = (tmp_path / "comparison.tex").read_text("utf-8")
    assert r"cat\_sam\_a & 4 & " in tex and r"$\pm$" in tex and r"$^\dagger$" in tex
    assert "\n% Bold is the best method with these shots, a dagger is not" in tex
    assert "against zero-shot, after" in tex and "\nfilled box &  & 0.620 & 0.550--0.650 & " in tex
    assert "$<$0.001" in tex and "* is the best" not in tex
    assert tex.count("\\\\\n") == 6 and tex.count("&") == 6 * 7 and "\N{MINUS SIGN}" not in tex
    assert "\\textbf" not in tex
    result["rows"] = [rows[0] | {"standing": BEST}]
    assert "\\textbf{" in latex(result)
    assert as_csv(result).count("\n") == 3 and markdown(result).endswith("\n")


def test_the_page_says_how_sure_it_is(tmp_path):
    *_, result = comparison(tmp_path, {"one": 0.1, "other": 0.101, "low": 0.0})
    page = render(result, [], {"seed": 0})
    for said in (HIGHEST, WORSE, "images<br>per second", "12.5", "Paired tests", "one - other"):
        assert said in page, said
    assert ' class="best"' not in page
