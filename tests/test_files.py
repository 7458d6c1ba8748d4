"""Files are written whole or not at all."""

import os
import stat

import pytest
import torch

from samtune.errors import InputError
from samtune.files import replacing, write_tensors, write_whole

TORCH = "[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/0"


@pytest.fixture(params=[0o022, 0o077])
def mode(request):
    """The permissions of a new file under an umask."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def test_every_writer_gives_the_permissions_of_a_new_file(mode, tmp_path):
    text = write_whole(tmp_path / "new" / "a.txt", "abc")
    tensors = write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(2)})
    assert text.read_text() == "abc"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (text, tensors)] == [mode, mode]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left"),
        RuntimeError(TORCH),
    ],
)
def test_a_failed_write_is_told_in_one_line_and_leaves_the_earlier_file(tmp_path, error):
    path = write_whole(tmp_path / "a.txt", b"first")
    with pytest.raises(InputError, match=r"could not be written .*; empty the bin$") as refused:
        with replacing(path, "empty the bin") as partial:
            partial.write_text("sec")
            raise error
    assert str(path) in str(refused.value)
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError(), InputError("no")])
def test_other_errors_pass_and_leave_no_partial_file(tmp_path, error):
    with pytest.raises(type(error)) as passed, replacing(tmp_path / "a.txt"):
        raise error
    assert passed.value is error and os.listdir(tmp_path) == []


def test_an_error_of_the_model_is_not_told_as_one_of_the_disk(tmp_path):
    with pytest.raises(RuntimeError, match="size mismatch"), replacing(tmp_path / "a.txt"):
        raise RuntimeError("size mismatch")


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_folder_is_no_file(name):
    with pytest.raises(InputError, match="is no name of a file"):
        write_whole(name, "")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"could not be written"):
        write_whole(tmp_path / "file" / "a.txt", "")
