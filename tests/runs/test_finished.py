"""The results of a run that has ended are whole, or the file that is not is named."""

import json
import shutil

import pytest

from samtune.runs.finished import finished_summary, read_summary
from samtune.runs.per_image import read_items
from samtune.runs.words import from_words


def flipped(data):
    at = len(data) * 2 // 3
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


DAMAGES = {
    "emptied": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "flipped": flipped,
    "other encoding": lambda data: b"\xff\xfe" + data,
    "other form": lambda data: b"[" * 5000,
}


@pytest.fixture
def folder(trained, tmp_path):
    for name in ("summary.json", "images.csv", "best.safetensors"):
        shutil.copy(trained.folder / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["summary.json", "best.safetensors"])
def test_damage_is_told_with_the_file(folder, refused, name, damage):
    assert read_summary(folder)["steps"]
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    refused([name, "damaged", f"resume={folder}"], read_summary, folder)


def test_rows_of_images_that_are_none_are_told(folder, refused):
    for content in (b"", b"\xff\xfe\x00", b"a,b\n1,2\n", b"prompt,image,tuned_objects\nbox,a,x\n"):
        (folder / "images.csv").write_bytes(content)
        refused(["images.csv", "damaged", f"resume={folder}"], read_summary, folder)
        refused(["images.csv", "damaged", f"resume={folder}"], read_items, folder)  # as of 0.1.0


def test_data_at_another_place_are_looked_at_before_all_is_called_done(
    trained, tiny_registered, tmp_path
):
    words = [f"resume={trained.folder}"]
    assert finished_summary(from_words(words)) == read_summary(trained.folder)
    link = tmp_path / "link"
    link.symlink_to(trained.root)
    assert finished_summary(from_words([*words, f"data.root={link}"])) is not None
    assert finished_summary(from_words([*words, f"data.root={tmp_path}"])) is None


def test_a_changed_number_and_missing_rows_are_noticed(folder, refused):
    rows = (folder / "images.csv").read_bytes()
    (folder / "images.csv").write_bytes(rows.replace(b"\n", b"\r\n"))  # as git may write it
    assert read_summary(folder)["steps"]
    (folder / "images.csv").write_bytes(rows[:-3] + bytes([rows[-3] ^ 1]) + rows[-2:])
    refused(["images.csv", "checksum does not match"], read_summary, folder)
    (folder / "images.csv").unlink()
    refused(["images.csv", "is missing"], read_summary, folder)


def test_entries_of_other_kinds_are_told_and_an_earlier_version_had_no_checksum(folder, refused):
    tree = json.loads((folder / "summary.json").read_text("utf-8"))
    del tree["checksum"], tree["images_checksum"]
    for key, value in (("steps", "12"), ("zero_shot", None), ("prompt", [])):
        (folder / "summary.json").write_text(json.dumps({**tree, key: value}), "utf-8")
        refused(["summary.json", "damaged", key], read_summary, folder)
    (folder / "summary.json").write_text(json.dumps(tree), "utf-8")
    assert read_summary(folder) == tree
