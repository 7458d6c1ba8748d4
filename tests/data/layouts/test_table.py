import pytest

from samtune.data import DataConfig, splits
from samtune.data.layouts.base import layout_of


@pytest.fixture
def write(make_pairs):
    """Writes eight pairs in odd folders and a CSV of the given lines; gives the file."""

    def make(lines, name="pairs.csv", encoding="utf-8"):
        root = make_pairs([f"p{i}" for i in range(8)], "pictures", "truth")
        (root / name).write_text("\n".join(lines) + "\n", encoding)
        return root / name

    return make


def row(i, *more):
    return ",".join([f"pictures/p{i}.png", f"truth/p{i}.png", *more])


def test_pairs_with_splits(write):
    lines = [row(i, "train") for i in (3, 1)] + [row(4, "Validation"), "", row(5, "test")]
    file = write(["image,mask,split", *lines])
    for root in (file, file.parent):
        assert layout_of(root).name == "csv"
        parts = splits(DataConfig(root=str(root)))
        names = {split: [r.name for r in records] for split, records in parts.items()}
        assert names == {"train": ["p1", "p3"], "val": ["p4"], "test": ["p5"]}
    assert parts["train"][0].mask == file.parent / "truth/p1.png"


@pytest.mark.parametrize(("mark", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-8")])
def test_other_delimiters_and_columns(write, mark, encoding):
    lines = [mark.join(["x", *row(i).split(",")]) for i in range(8)]
    file = write([mark.join(["id", "Image", "MASK"]), *lines], encoding=encoding)
    parts = splits(DataConfig(root=str(file)))
    assert {k: len(v) for k, v in parts.items()} == {"train": 6, "val": 1, "test": 1}


def test_a_table_beside_plain_folders_is_asked_for(make_pairs):
    root = make_pairs([f"p{i}" for i in range(8)])
    (root / "pairs.csv").write_text("image,mask\nimages/p1.png,masks/p1.png\n")
    assert layout_of(root).name == "folders"
    assert layout_of(root, "csv").name == "csv"
    (root / "notes.csv").write_text("name,quality\np1,good\n")
    parts = layout_of(root, "csv").find(root, DataConfig(root=str(root)))
    assert [r.name for r in parts[None]] == ["p1"]


def test_the_same_stem_in_two_folders(make_pairs):
    root = make_pairs(["p0"], "a/pictures", "a/truth")
    make_pairs(["p0"], "b/pictures", "b/truth")
    lines = [f"{f}/pictures/p0.png,{f}/truth/p0.png" for f in "ab"]
    (root / "pairs.csv").write_text("\n".join(["image,mask", *lines]))
    found = layout_of(root).find(root, DataConfig(root=str(root)))
    assert [r.name for r in found[None]] == ["a_pictures_p0", "b_pictures_p0"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["image,masks", row(0)], ["no column mask", "image, masks"]),
        (["image,mask"], ["lists no pair"]),
        (["image,mask", "pictures/p0.png,"], ["line 2", "no mask", "fill it"]),
        (["image,mask", row(0), "pictures/x.png,truth/p0.png"], ["line 3", "x.png", "relative"]),
        (["image,mask", row(0), row(0)], ["line 3", "again", "line 2"]),
        (["image,mask,split", row(0, "dev")], ["line 2", "'dev'", "train, val or test"]),
        (["image,mask,split", row(0, "train"), row(1, "")], ["split is empty in some"]),
    ],
)
def test_wrong_tables(write, refused, lines, words):
    file = write(lines)
    refused([file, *words], splits, DataConfig(root=str(file)))


def test_no_table_several_and_another_encoding(write, tmp_path, refused):
    config = DataConfig(root=str(tmp_path), layout="csv")
    refused([tmp_path, "no CSV file"], splits, config)
    write(["image,mask", row(0)])
    write(["image,mask", row(1)], "more.csv")
    refused([tmp_path, "several CSV files (more.csv, pairs.csv)"], splits, config)
    file = write(["image,mask", "ä.png,ö.png"], encoding="latin-1")
    refused([file, "UTF-8"], splits, DataConfig(root=str(file)))


def test_a_cell_without_an_end_is_refused(write, refused):
    file = write(["[" * 200_000])
    refused([file.name, "no column image"], splits, DataConfig(root=str(file)))
    assert layout_of(file.parent).name != "csv"
    file = write(["image,mask", "[" * 200_000], name="other.csv")
    refused(["other.csv", "not readable as CSV"], splits, DataConfig(root=str(file)))
