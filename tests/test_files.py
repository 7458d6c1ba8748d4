"""Files are written whole or not at all."""

import os
import stat
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from samtune.errors import InputError
from samtune.files import (
    WRITTEN_BY,
    as_path,
    refuse_onto,
    refuse_to_replace,
    replacing,
    replacing_folder,
    write_tensors,
    write_whole,
)
from samtune.model.merging import sign_archive

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


def test_a_file_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    events, replace = [], os.replace
    kinds = {True: "folder", False: "file"}
    monkeypatch.setattr(
        os, "fsync", lambda number: events.append(kinds[stat.S_ISDIR(os.fstat(number).st_mode)])
    )
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("name"), replace(*paths)))
    write_whole(tmp_path / "a.txt", "abc")
    write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(2)})
    write_whole(tmp_path / "mask.png", "abc", lasting=False)  # one of many, made anew if it is lost
    folder = [] if sys.platform == "win32" else ["folder"]
    assert events == [*(2 * ["file", "name", *folder]), "name"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are of POSIX")
def test_devices_and_pipes_are_never_replaced(tmp_path, refused):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (replacing, replacing_folder):
        refused([pipe, "is a device or pipe", "choose another"], write(pipe).__enter__)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and [pipe] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left"),
        RuntimeError(TORCH),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 4224 vs 4112"),
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
    for of_a_file in (False, True):  # the folder that is named is the one that was asked for
        with pytest.raises(InputError, match=r"could not be written .*; empty the bin$") as refused:
            with replacing_folder(tmp_path / "out", "empty the bin") as partial:
                with replacing(partial / "b.txt", "empty the bin") if of_a_file else nullcontext():
                    raise error
        assert str(refused.value).startswith(str(tmp_path / "out" / ("b.txt" * of_a_file)))
        assert "partial" not in str(refused.value) and os.listdir(tmp_path) == ["a.txt"]


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
    with pytest.raises(InputError, match="is not a file name"):
        write_whole(name, "")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"could not be written"):
        write_whole(tmp_path / "file" / "a.txt", "")


class TestPlaces:
    """What is read is not written onto, and what another verb wrote is kept."""

    def test_onto_what_is_read(self, tmp_path, refused):
        source = tmp_path / "model.pth"
        source.write_bytes(b"precious")
        (tmp_path / "link.pth").symlink_to(source)
        (tmp_path / "hub").mkdir()
        for target in (source, tmp_path / "hub/../model.pth", tmp_path / "link.pth"):
            said = [f"--out={target}", "never overwritten", "-new.pth"]
            refused(said, refuse_onto, f"--out={target}", target, [None, source])
        inside = tmp_path / "hub" / "x.pth"
        refused(["--out", "x-new.pth"], refuse_onto, "--out", inside, [tmp_path / "hub"])
        refuse_onto("--out", tmp_path / "other.pth", [source, tmp_path / "gone", "a/hub-id"])

    def test_onto_what_another_verb_wrote(self, tmp_path, refused):
        state = {"a": torch.ones(3)}
        torch.save(state, tmp_path / "m.pth")
        write_tensors(tmp_path / "m.safetensors", state)
        (tmp_path / "broken.pth").write_bytes(b"")
        for name in ("m.pth", "m.safetensors", "broken.pth"):
            said = [name, "samtune merge", name.replace(".", "-2.")]
            refused(said, refuse_to_replace, f"--out={name}", tmp_path / name, "merge")
        sign_archive(tmp_path / "m.pth", "merge")
        write_tensors(tmp_path / "m.safetensors", state, metadata={WRITTEN_BY: "merge"})
        for name in ("m.pth", "m.safetensors", "none.pth"):
            refuse_to_replace("--out", tmp_path / name, "merge")
        assert torch.equal(torch.load(tmp_path / "m.pth", weights_only=True)["a"], state["a"])

    def test_a_tilde_is_a_home_or_itself(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path)
        assert as_path("~/x") == tmp_path / "home" / "x" and as_path("~") == tmp_path / "home"
        assert as_path("~nobody1/x") == Path("~nobody1/x") and as_path("a~b") == Path("a~b")
        (tmp_path / "~root").mkdir()
        assert as_path("~root/x") == Path("~root/x")
