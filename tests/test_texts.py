"""Text that others wrote is read within bounds, and fails with the errors that readers expect."""

import os

import pytest
import yaml

from samtune.texts import parse_csv, parse_json, parse_yaml, read_bytes, read_json, read_text


def test_a_text_is_read_with_any_mark_and_ends_of_lines(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfa\r\nb\rc")
    assert read_text(file) == "a\nb\nc"
    file.write_bytes(b"\xff{}")
    with pytest.raises(UnicodeDecodeError):
        read_text(file)
    assert read_text(file, "replace").endswith("{}")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs devices")
def test_only_files_are_read(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in ("/dev/zero", tmp_path, pipe, tmp_path / "none"):
        with pytest.raises(OSError):
            read_bytes(place)


def test_a_file_that_is_larger_than_any_list_is_refused_unread(tmp_path):
    file = tmp_path / "sparse.json"
    with file.open("wb") as opened:
        opened.truncate(2**33)
    with pytest.raises(OSError, match="too large for a list"):
        read_json(file)


@pytest.mark.parametrize("text", ["[" * 9_000, '{"a":' * 9_000, "[", "nul", ""])
def test_json_that_is_none_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_json(text)


def laughs(levels):
    rows = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(["l0: &l0 [x]", *rows])


@pytest.mark.parametrize(
    "text",
    ["[" * 9_000, "{a: " * 9_000, "- " * 9_000, "!!int x", "!!float x", "!!bool x",
     "!!timestamp x", "!!python/name:os.system", "&a [*a]", "? [a]\n: 1", "\x00", laughs(9)],
)  # fmt: skip
def test_yaml_that_is_none_is_an_error_of_yaml(text):
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)


def test_yaml_within_the_bounds_is_what_it_was():
    assert parse_yaml("a: &x [1, 2]\nb: *x\nc: yes") == {"a": [1, 2], "b": [1, 2], "c": True}
    assert parse_yaml("") is None and parse_yaml("c: yes", yaml.BaseLoader) == {"c": "yes"}
    assert len(parse_yaml(laughs(4))) == 4


def test_a_table_with_a_cell_without_an_end_is_malformed():
    assert list(parse_csv(['a; "b"'], ";", skip_spaces=True)) == [["a", "b"]]
    with pytest.raises(ValueError, match="limit"):
        list(parse_csv(["[" * 200_000]))
