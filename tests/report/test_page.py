"""The report page: well-formed, self-contained, with parts missing, written whole or not at all."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image

from samtune.errors import InputError
from samtune.report.charts import CURVE_POINTS, FRAME, charts, ticks
from samtune.report.overlays import AFTER, BEFORE, TRUTH, Overlay
from samtune.report.page import Report, render, write_report
from samtune.report.quantities import count, duration, metric, quantity, rate_of

VOID = {"meta", "img", "br", "hr", "input", "link"}
SUMMARY = {
    "zero_shot": {"iou": 0.6123, "dice": 0.7},
    "tuned": {"iou": 0.8614, "dice": 0.65},
    "prompt": "box",
    "images": 100,
    "trainable_parameters": 1_213_000,
    "total_parameters": 93_700_000,
    "seconds": 200.4,
    "peak_memory_bytes": 1_432_000_000,
}


class Page(HTMLParser):
    """Checks that tags nest and collects what they say."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += " " + data

    def all(self, tag, **attributes):
        found = [a for t, a in self.tags if t == tag]
        return [a for a in found if all(a.get(k) == v for k, v in attributes.items())]


def squares(name="a.png", size=(40, 60), **changes):
    image = np.full((*size, 3), 120, np.uint8)
    truth, before = np.zeros(size, bool), np.zeros(size, bool)
    truth[10:30, 10:40], before[10:30, 20:50] = True, True
    values = {"truth": truth, "before": before, "after": truth, "boxes": [(10, 10, 39, 29)]}
    values |= {"points": [(25, 20, 1), (2, 2, 0)], "iou_before": 0.5, "iou_after": 1.0} | changes
    return Overlay(name, image, **values)


def history(steps=50, every=10):
    rows = [{"event": "train", "step": i, "loss": 1 / (i + 1), "lr": 1e-3} for i in range(steps)]
    vals = range(0, steps, every)
    return rows + [{"event": "val", "step": i, "iou": 0.8, "dice": 0.9, "loss": 0.3} for i in vals]


def polylines(html):
    drawn = [a for a in Page(html).all("polyline") if a["points"] != "1,4 21,4"]
    return {(a["class"], i): a["points"].split(" ") for i, a in enumerate(drawn)}


def test_full_page_is_well_formed_and_self_contained():
    summary = SUMMARY | {
        "guesses": {"Filled box": {"iou": 0.6712, "dice": 0.79}},
        "by_prompt": {"box": {"zero_shot": {"iou": 0.61}, "tuned": {"iou": 0.36}}},
        "by_class": {"polyp": {"iou": np.float32(0.1234), "dice": None}},
    }
    config = {"adapter": {"name": "lora", "targets": ("q", "v")}}
    html = render(
        Report(
            title="Polyps",
            summary=summary,
            command="samtune train lora",
            contract="mean over objects",
            history=history(),
            overlays=[squares(), squares("big.png", (300, 700))],
            config=config,
            remarks=["3 images have empty masks"],
            versions={"samtune": "9.9"},
        )
    )
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for key in ("src", "href", "srcset", "poster", "data"):
            assert attributes.get(key, "#").startswith(("data:", "#"))
    assert not re.search(r"https?://|url\(|@import", html)
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy[0]["content"].startswith("default-src 'none'")
    for said in ("0.612", "0.861", "+0.249", "\u22120.050", "0.671", "\u22120.250", "0.123"):
        assert said in page.text
    for said in ("1.21 M", "1.3 % of 93.7 M", "3 min 20 s", "1.43 GB", "samtune train lora"):
        assert said in page.text
    for said in ("mean over objects", "3 images have empty masks", "samtune 9.9", "q\n"):
        assert said in page.text
    pictures = page.all("img")
    assert len(pictures) == 8
    assert all(p["alt"] for p in pictures)
    assert [p["src"][:15] for p in pictures[::4]] == ["data:image/png;", "data:image/jpeg"]
    shown = page.text[page.text.index("adapter:") :].split("samtune 9.9")[0]
    assert yaml.safe_load(shown) == {"adapter": {"name": "lora", "targets": ["q", "v"]}}


def test_intervals_stand_below_their_numbers():
    ends = {
        "tuned": {"iou": [0.811, 0.899]}, "difference": {"iou": [0.211, 0.299]},
        "guesses": {"Filled box": {"iou": [0.611, 0.699], "dice_pooled": [0.5, 0.6]}},
    }  # fmt: skip
    summary = SUMMARY | {
        "guesses": {"Filled box": {"iou": 0.65}}, "intervals": ends, "interval": {"level": 0.95},
        "by_prompt": {"box": {**SUMMARY, "intervals": {"tuned": {"iou": [0.8, 0.9]}}}},
        "images_per_second": 12.34,
    }  # fmt: skip
    text = Page(render(Report(title="t", summary=summary))).text
    for said in (
        "0.811\N{EN DASH}0.899",
        "+0.211 to +0.299",
        "0.611\N{EN DASH}0.699",
        "0.800\N{EN DASH}0.900",
        "12.3",
    ):
        assert said in text
    assert "Intervals cover 95 %" in text and "0.500\N{EN DASH}0.600" not in text  # of no number
    assert "Intervals" not in Page(render(Report(title="t", summary=SUMMARY))).text


def test_steps_of_a_chart_are_whole_numbers():
    rows = [{"event": "val", "step": i, "iou": 0.5 + i / 10} for i in range(3)]
    [chart] = charts(rows, {})
    assert [label for _, label in chart["x"]] == ["0", "1", "2"]
    [chart] = charts([{**row, "step": 1250 * row["step"]} for row in rows], {})
    assert [label for _, label in chart["x"]] == ["0", "500", "1000", "1500", "2000", "2500"]
    assert [count(n) for n in (999, 9000, 20_000, 12_500, 3_000_000)] == [
        "999", "9000", "20 k", "12500", "3 M",
    ]  # fmt: skip
    assert [rate_of(n) for n in (None, 0.4123, 12.34, 840.2)] == [
        "\N{EN DASH}",
        "0.412",
        "12.3",
        "840",
    ]


def test_hostile_text_is_escaped_everywhere():
    evil = "<script>alert('x')</script>\"&.png"
    html = render(
        Report(
            title=evil,
            summary={"zero_shot": {"iou": 0.5}, "by_class": {evil: {"iou": 0.5}}, "prompt": evil},
            command=evil,
            overlays=[squares(evil)],
            config={evil: evil},
            remarks=[evil],
        )
    )
    page = Page(html)
    assert not page.all("script")
    assert page.text.count(evil) >= 6
    assert page.all("img")[0]["alt"] == f"{evil}: image"


@pytest.mark.parametrize(
    "report",
    [
        Report(title="nothing", summary={}),
        Report(title="base only", summary={"zero_shot": {"iou": 0.5, "dice": 0.6}}),
        Report(title="odd numbers", summary={"tuned": {"iou": float("nan"), "dice": None}}),
        Report(title="prediction", summary={}, overlays=[squares(truth=None, before=None)]),
        Report(title="one step", summary=SUMMARY, history=history(1)),
        Report(title="no loss", summary={}, history=[{"event": "val", "step": 5, "iou": 0.5}]),
        Report(title="nan", summary={}, history=[{"event": "train", "step": 1, "loss": np.nan}]),
    ],
    ids=lambda report: report.title,
)
def test_missing_parts_leave_a_whole_page(report):
    page = Page(render(report))
    assert report.title in page.text
    assert "nan " not in page.text.replace(report.title, "")
    assert ("Difference" in page.text) == (
        "zero_shot" in report.summary and "tuned" in report.summary
    )
    measured = any(np.isfinite(row.get("loss", row.get("iou"))) for row in report.history)
    assert ("Training" in page.text) == bool(page.all("polyline")) == measured


def test_curves_hold_every_row_and_the_baseline():
    html = render(Report(title="t", summary=SUMMARY, history=history(50)))
    counts = {style: len(points) for (style, _), points in polylines(html).items()}
    assert counts == {"faint": 50, "loss": 50, "truth": 5, "after": 5, "before": 2}
    lines = {style: points for (style, _), points in polylines(html).items()}
    heights = {point.split(",")[1] for point in lines["before"]}
    assert len(heights) == 1
    assert float(heights.pop()) > float(lines["after"][0].split(",")[1])  # SVG's y points down
    for points in lines.values():
        for x, y in (map(float, p.split(",")) for p in points):
            assert FRAME[0] <= x <= FRAME[2]
            assert FRAME[1] <= y <= FRAME[3]


def test_the_strength_of_each_prompt_stands_on_its_curve():
    rows = [
        {"event": "strength", "step": 9, "strength": at, "iou@box": 0.8, "iou@none": at / 2}
        for at in (0, 0.5, 1)
    ]
    summary = {"strength": 0.5, "selection": {"strengths": {"box": 0.0, "none": 1.0}}}
    [chart] = charts(rows, summary)
    names = [curve.label for curve, _ in chart["curves"]]
    assert names == ["box", "none", "chosen for box: 0", "chosen for none: 1"]
    [chart] = charts(rows, {"strength": 0.5})
    assert [curve.label for curve, _ in chart["curves"]][2:] == ["chosen"]


def test_long_histories_are_averaged_down():
    rows = [{"event": "train", "step": i, "loss": float(i % 2)} for i in range(6000)]
    drawn = polylines(render(Report(title="t", summary={}, history=rows)))
    assert [len(points) for points in drawn.values()] == [CURVE_POINTS] * 2


def test_measured_validation_baseline_goes_before_the_test_set_s():
    rows = [*history(), {"event": "zero_shot", "iou": 0.8}]
    lines = {s: p for (s, _), p in polylines(render(Report("t", SUMMARY, history=rows))).items()}
    assert lines["before"][0].split(",")[1] == lines["after"][0].split(",")[1]


def test_gallery_runs_from_worst_to_best_and_unknown_last():
    scores = {"good": 0.9, "bad": 0.1, "unknown": None, "middling": 0.5}
    bare = {"truth": None, "before": None, "after": None, "iou_before": None}
    overlays = [squares(n, iou_after=v, **bare) for n, v in scores.items()]
    page = Page(render(Report("t", {}, overlays=overlays)))
    order = [a["alt"].split(":")[0] for a in page.all("img")]
    assert order == ["bad", "middling", "good", "unknown"]


def test_files_have_distinct_plain_names(tmp_path):
    bare = {"truth": None, "before": None, "after": None}
    overlays = [
        squares(n, **bare) for n in ("../../up.png", "b/x.png", "b_x.PNG", "B_X.jpg", "???")
    ]
    path = write_report(tmp_path / "run", Report("t", SUMMARY, overlays=overlays))
    assert path == tmp_path / "run" / "report.html"
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*"))
    stems = ["b_x-2", "b_x-3", "b_x", "image", "up"]
    assert names == ["run/report.html", *(f"run/samples/{s}.png" for s in stems)]


def test_strip_holds_captioned_panels_of_the_enlarged_image(tmp_path):
    write_report(tmp_path, Report("t", SUMMARY, overlays=[squares("tiny.png", (40, 60))]))
    with Image.open(tmp_path / "samples" / "tiny.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (28 + 24 + 320 + 8, 4 * (480 + 8) + 8, 3)  # 60 px enlarged eightfold
    panels = [pixels[52:372, 8 + 488 * i : 488 * (i + 1)].astype(int) for i in range(4)]
    edge = [p[20 * 8, 15 * 8] for p in panels]
    assert np.all(edge[0] == 120)
    for i, colour in ((1, TRUTH), (3, AFTER)):
        assert np.abs(edge[i] - (0.62 * 120 + 0.38 * np.array(colour))).max() <= 1
    assert np.all(edge[2] == 120)
    inside = panels[2][20 * 8, 45 * 8]
    assert np.abs(inside - (0.62 * 120 + 0.38 * np.array(BEFORE))).max() <= 1


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    path = write_report(tmp_path, Report("first", SUMMARY))
    old = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("samtune.files.os.replace", fail)
    with pytest.raises(InputError, match="disk full"):
        write_report(tmp_path, Report("second", SUMMARY))
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_nothing_is_written_when_a_picture_cannot_be_drawn(tmp_path):
    wrong = squares("wrong.png", truth=np.ones((3, 3), bool))
    with pytest.raises(ValueError, match=r"\(3, 3\) does not fit an image of \(40, 60\)"):
        write_report(tmp_path / "run", Report("t", SUMMARY, overlays=[squares(), wrong]))
    assert not (tmp_path / "run").exists()


def test_numbers_read_well():
    assert [metric(v) for v in (0.8124, 12, None, np.nan)] == ["0.812", "12", "\u2013", "\u2013"]
    assert [metric(v, sign=True) for v in (0.1, -0.1, -1e-9)] == ["+0.100", "\u22120.100", "0.000"]
    values = {0: "0", 950: "950", 1500: "1.5 k", 999_900: "1 M", 1_234_567: "1.23 M"}
    assert {v: quantity(v) for v in values} == values
    assert quantity(1.4e9, "B") == "1.4 GB"
    times = {
        0.04: "0.0 s",
        59.97: "1 min 0 s",
        200: "3 min 20 s",
        3599.9: "1 h 0 min",
        7500: "2 h 5 min",
    }
    assert {v: duration(v) for v in times} == times


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.61, 0.87), (3, 3), (0, 0), (-2, 1e6), (0, 1e-9)]
)
def test_ticks_enclose_the_data_in_round_steps(low, high):
    marks = ticks(low, high)
    assert marks[0] <= low + 1e-12
    assert marks[-1] >= high * (1 - 1e-9)
    assert 2 <= len(marks) <= 8
    steps = np.diff(marks)
    assert np.allclose(steps, steps[0])
    assert f"{steps[0]:.0e}"[0] in "125"
