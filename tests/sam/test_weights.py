"""Reading bases: every layout, strictly, and never running what a file says."""

import os
import pickle
import sys
from pathlib import Path

import deterministic
import pytest
import tiny
import torch
from safetensors.torch import save_file

from samtune.errors import InputError
from samtune.sam import locating, weights
from samtune.sam.image_encoder import ImageEncoder
from samtune.sam.layers import shapes_alone
from samtune.sam.spec import SPECS

KEY = "mask_decoder.iou_token.weight"


@pytest.fixture
def state(sam, tiny_registered):
    return {key: t.clone() for key, t in sam.state_dict().items()}


def saved(path, content):
    torch.save(content, path)
    return path


def same(a, b):
    other = b.state_dict()
    return all(torch.equal(t, other[key]) for key, t in a.state_dict().items())


def prefixed(state, prefix):
    return {prefix + key: t for key, t in state.items()}


PIXELS = {
    key: torch.tensor(getattr(tiny.TINY, key))[:, None, None] for key in weights.PIXEL_BUFFERS
}
WRAPPINGS = {
    "official": lambda s: s,
    "model": lambda s: {"model": s, "epoch": 3, "optimizer": {"state": {}}},
    "state_dict": lambda s: {"state_dict": s},
    "module.": lambda s: prefixed(s, "module."),
    "sam.": lambda s: prefixed(s, "sam."),
    "nested": lambda s: {"model": {"state_dict": prefixed(s, "module.sam.")}, "lr": 0.1},
    "pixel buffers": lambda s: s | PIXELS,
    "prefixed pixel buffers": lambda s: prefixed(s | PIXELS, "module."),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappings_of_an_official_file(sam, state, tmp_path, wrapping):
    path = saved(tmp_path / "sam.pth", WRAPPINGS[wrapping](state))
    assert same(weights.load_sam("tiny", path), sam)


@pytest.mark.filterwarnings("default")  # torch warns when it writes the old format
def test_old_pickle_format(sam, state, tmp_path):
    torch.save(state, tmp_path / "sam.pth", _use_new_zipfile_serialization=False)
    assert same(weights.load_sam("tiny", tmp_path / "sam.pth"), sam)


def test_safetensors(sam, state, tmp_path):
    save_file(prefixed(state, "sam."), tmp_path / "sam.safetensors")
    assert same(weights.load_sam("tiny", str(tmp_path / "sam.safetensors")), sam)


def test_home_directory(sam, state, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(tmp_path / "sam.pth", state)
    assert same(weights.load_sam("tiny", "~/sam.pth"), sam)


def test_loaded_base_is_frozen_float32_and_in_evaluation_mode(state, tmp_path):
    path = saved(tmp_path / "sam.pth", {key: t.half() for key, t in state.items()})
    sam = weights.load_sam("tiny", path)
    assert not any(p.requires_grad for p in sam.parameters())
    assert not any(m.training for m in sam.modules())
    assert {t.dtype for t in sam.state_dict().values()} == {torch.float32}
    assert {t.device.type for t in sam.state_dict().values()} == {"cpu"}


class Bomb:
    """Unpickling this runs code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("form", ["zip", "zip among tensors", "old", "bare pickle"])
@pytest.mark.filterwarnings("default")
def test_pickles_with_code_are_refused_and_do_not_run(state, tmp_path, refused, form):
    path, mark = tmp_path / "sam.pth", tmp_path / "ran"
    bomb = Bomb(mark)
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(state | {"x": bomb}))
    else:
        content = state | {"x": bomb} if "among" in form else bomb
        torch.save(content, path, _use_new_zipfile_serialization=form != "old")
    refused([path, "refused", "could run code", "safetensors"], weights.load_sam, "tiny", path)
    assert not mark.exists()
    with pytest.raises(Exception, match=r".*"):  # the bomb is live
        pickle.loads(pickle.dumps(bomb))
        pickle.loads(pickle.dumps(bomb))
    assert mark.exists()


def test_whole_modules_are_refused(sam, tiny_registered, tmp_path, refused):
    path = saved(tmp_path / "sam.pth", sam)
    refused("could run code", weights.load_sam, "tiny", path)


@pytest.mark.parametrize("keep", [0, 1, 2, 100, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files(state, tmp_path, refused, keep, suffix):
    path = tmp_path / f"sam{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    refused([path, "not a readable", "fetch it again"], weights.load_sam, "tiny", path)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html>\n<html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\x89PNG\r\n\x1a\n",
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_of_another_kind(tiny_registered, tmp_path, refused, content, suffix):
    path = tmp_path / f"sam{suffix}"
    path.write_bytes(content * 50)
    message = refused([path, "not a readable"], weights.load_sam, "tiny", path)
    assert "refused" not in message


@pytest.mark.parametrize(
    "content",
    [{"layer1.weight": torch.ones(2)}, {}, [1, 2], torch.ones(3), {"model": {"epoch": 3}}],
    ids=["another network", "empty", "list", "tensor", "no tensors"],
)
def test_not_a_sam(tiny_registered, tmp_path, refused, content):
    path = saved(tmp_path / "resnet.pth", content)
    refused([path, "not a SAM", "sam_vit_"], weights.load_sam, "tiny", path)


def test_missing_unexpected_and_wrong_shapes_are_listed(state, tmp_path, refused):
    del state[KEY]
    state["extra.weight"] = torch.ones(1)
    state["mask_decoder.mask_tokens.weight"] = torch.ones(3, 32)
    path = saved(tmp_path / "sam.pth", state)
    words = [f"missing {KEY}", "unexpected extra.weight", "does not fit tiny"]
    words.append("mask_decoder.mask_tokens.weight is (3, 32), must be (4, 32)")
    refused([path, *words], weights.load_sam, "tiny", path)


def test_tensors_beside_a_wrapped_sam_are_unexpected(state, tmp_path, refused):
    path = saved(tmp_path / "sam.pth", prefixed(state, "net.") | {"head.bias": torch.ones(1)})
    refused("unexpected head.bias", weights.load_sam, "tiny", path)


def test_another_normalisation_is_refused(state, tmp_path, refused):
    other = {**state, **PIXELS, "pixel_std": PIXELS["pixel_std"] / 255}
    path = saved(tmp_path / "other.pth", other)
    refused([path, "pixel_std=[0.2", "normalises with [58."], weights.load_sam, "tiny", path)


def test_long_lists_are_counted(state, tmp_path, refused):
    state = {key: t for key, t in state.items() if not key.startswith("mask_decoder")}
    path = saved(tmp_path / "sam.pth", state)
    message = refused("and 112 more", weights.load_sam, "tiny", path)
    assert message.count("missing") == 8


def test_wrong_base_name_names_the_right_one(state, tmp_path, refused):
    state[ImageEncoder.anchor] = torch.empty(1024, 3, 16, 16)
    path = saved(tmp_path / "sam.pth", state)
    words = ["does not fit vit_b", "looks like vit_l", "name=vit_l"]
    message = refused(words, weights.load_sam, "vit_b", path)
    assert message.count("image_encoder") == 0  # the hint says it all


def test_unknown_base_name(refused):
    refused(["name=vit_x", "vit_b, vit_l, vit_h"], weights.load_sam, "vit_x", "sam.pth")
    refused("did you mean 'vit_b'", weights.load_sam, "vitb")


def test_no_such_file(tmp_path, refused):
    for path in (tmp_path / "sam.pth", "sam.pth", "weights/sam.pth", "~/no such/sam.pth"):
        refused([os.path.expanduser(path), "no such file"], weights.load_sam, "vit_b", path)


def test_folder_without_weights(tmp_path, refused):
    refused([tmp_path, "model.safetensors"], weights.load_sam, "vit_b", tmp_path)


def test_bases_that_do_not_ship_need_a_file(refused):
    refused(["vit_b", "source="], weights.load_sam, "vit_b")


class TestHub:
    """A hub id is looked up offline unless the caller allows the download."""

    @pytest.fixture
    def asked(self, monkeypatch):
        hub = pytest.importorskip("huggingface_hub")
        calls = []

        def answer(repo, **options):
            calls.append((repo, options["local_files_only"]))
            raise OSError("not here")

        monkeypatch.setattr(hub, "snapshot_download", answer)
        return calls

    def test_offline_by_default(self, asked, refused):
        words = ["facebook/sam-vit-base", "not in the local cache", "download=True"]
        refused(words, weights.load_sam, "vit_b", "facebook/sam-vit-base")
        assert asked == [("facebook/sam-vit-base", True)]

    def test_download_only_when_asked(self, asked, refused):
        source = "facebook/sam-vit-base"
        refused("network", weights.load_sam, "vit_b", source, download=True)
        assert asked == [(source, False)]

    def test_the_real_client_stays_offline(self, tmp_path, monkeypatch, refused):
        import socket

        hub = pytest.importorskip("huggingface_hub")
        monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))

        def dial(*args, **kwargs):
            raise AssertionError("went online")

        monkeypatch.setattr(socket, "create_connection", dial)
        monkeypatch.setattr(socket, "getaddrinfo", dial)
        refused("local cache", weights.load_sam, "vit_b", "nobody/no-such-sam")

    def test_a_cached_id_is_read(self, sam, state, tmp_path, monkeypatch):
        hub = pytest.importorskip("huggingface_hub")
        save_file(state, tmp_path / "model.safetensors")
        monkeypatch.setattr(hub, "snapshot_download", lambda *a, **k: str(tmp_path))
        assert same(weights.load_sam("tiny", "owner/name"), sam)

    @pytest.fixture
    def repository(self, tmp_path, monkeypatch):
        """``repository(files)``: what a repository holds; fetches the files that are asked for."""
        hub = pytest.importorskip("huggingface_hub")

        def make(files):
            cache, asked = tmp_path / "cache", []
            cache.mkdir()

            def fetch(repo, allow_patterns, local_files_only):
                asked.append(repo)
                for name, write in files.items():
                    if any(Path(name).match(pattern) for pattern in allow_patterns):
                        write(cache / name)
                return str(cache)

            monkeypatch.setattr(hub, "snapshot_download", fetch)
            return asked

        return make

    @pytest.mark.parametrize(
        "names",
        [["sam.pth"], ["mobile.pt"], ["pytorch_model.bin"], ["sam_tiny.pth", "sam_other.pth"]],
    )
    def test_pickles_where_there_is_no_safetensors(self, sam, state, repository, names):
        asked = repository(
            {
                name: lambda path: saved(path, state if "other" not in path.name else {})
                for name in names
            }
        )
        found = weights.load_sam("tiny", "owner/name-v1.0", download=True)
        assert same(found, sam) and set(asked) == {"owner/name-v1.0"}

    def test_safetensors_go_first(self, sam, state, repository):
        asked = repository({
            "model.safetensors": lambda path: save_file(state, path),
            "sam.pth": lambda path: pytest.fail("was fetched"),
        })  # fmt: skip
        assert same(weights.load_sam("tiny", "owner/name", download=True), sam)
        assert asked == ["owner/name"]

    def test_a_pickle_with_code_is_refused(self, repository, tiny_registered, refused):
        repository({"sam.pth": lambda path: saved(path, {"model": os.system})})
        refused("could run code", weights.load_sam, "tiny", "owner/name", download=True)

    @pytest.mark.parametrize("names", [[], ["a.pth", "b.pth"]])
    def test_what_to_take_must_be_clear(self, state, repository, refused, names):
        repository({name: lambda path: saved(path, state) for name in names})
        words = ["owner/name", "file of tiny", *names]
        refused(words, weights.load_sam, "tiny", "owner/name", download=True)

    def test_a_file_that_is_not_there_is_no_hub_id(self, asked, tiny_registered, refused):
        for name in ("models/sam_vit_b.pth", "models/sam.safetensors", "./sam_vit_b", "../sam"):
            refused("no such file", weights.load_sam, "tiny", name)
        assert asked == []

    def test_without_the_client(self, monkeypatch, refused):
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        refused("samtune[hf]", weights.load_sam, "vit_b", "facebook/sam-vit-base")


class TestFingerprint:
    """The same tensors have the same fingerprint, whatever file they came from."""

    def test_equal_over_formats(self, sam, state, tmp_path):
        save_file(state, tmp_path / "a.safetensors")
        saved(tmp_path / "b.pth", {"model": prefixed(state, "module.")})
        saved(tmp_path / "c.pth", {key: t.double() for key, t in reversed(state.items())})
        found = {
            weights.fingerprint(weights.load_sam("tiny", tmp_path / name))
            for name in ("a.safetensors", "b.pth", "c.pth")
        }
        assert found == {weights.fingerprint(sam)}
        assert len(found.pop()) == 64

    def test_any_changed_value_changes_it(self, sam, state):
        state[KEY][0, 0] += 1e-6
        other = weights.from_state(tiny.TINY, state)
        assert weights.fingerprint(other) != weights.fingerprint(sam)

    def test_half_precision_files_are_another_base(self, sam, state):
        """Rounding changes the values; the rounded values have one fingerprint."""
        half = {key: t.half() for key, t in state.items()}
        rounded = weights.from_state(tiny.TINY, half)
        widened = weights.from_state(tiny.TINY, {key: t.float() for key, t in half.items()})
        assert weights.fingerprint(rounded) == weights.fingerprint(widened)
        assert weights.fingerprint(rounded) != weights.fingerprint(sam)


def test_official_file_of_a_real_base(tmp_path):
    """``vit_b`` in full size: the names and shapes that the official file has."""
    with shapes_alone():
        names = weights.Sam(SPECS["vit_b"]).state_dict()
    state = {key: torch.zeros(1).expand(t.shape) for key, t in names.items()}
    assert "image_encoder.blocks.11.mlp.lin2.bias" in state
    sam = weights.from_state(SPECS["vit_b"], state)
    assert len(sam.state_dict()) == 314


def test_reading_does_not_change_the_callers_tensors(state):
    before = {key: t.clone() for key, t in state.items()}
    sam = weights.from_state(tiny.TINY, state)
    sam(tiny.pixels(1), tiny.boxes([0]))
    assert all(torch.equal(t, before[key]) for key, t in state.items())
    assert deterministic.value(KEY, (1, 32)).equal(sam.state_dict()[KEY])


def test_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)


def test_shipped_base_is_loaded_only_as_it_was_released(tmp_path, monkeypatch, refused):
    shipped = locating.locate(SPECS["nano"], None, False)
    assets = tmp_path / "assets"
    assets.mkdir()
    damaged = bytearray(shipped.read_bytes())
    damaged[-1] ^= 1
    (assets / "nano.safetensors").write_bytes(damaged)
    monkeypatch.setattr(locating, "files", lambda package: tmp_path)
    refused(["nano.safetensors", "sha256", "install samtune again"], weights.load_sam, "nano")
    (assets / "nano.safetensors").unlink()
    refused(["nano.safetensors", "no file"], weights.load_sam, "nano")


def test_weights_that_are_no_numbers_are_refused(state, tmp_path, refused):
    """The tensor is named, whether one value is NaN or one of half precision is infinite."""
    key = "image_encoder.neck.0.weight"
    for value, half in ((float("nan"), False), (float("inf"), True)):
        spoiled = {name: t.clone() for name, t in state.items()}
        spoiled[key] = spoiled[key].half() if half else spoiled[key]
        spoiled[key].view(-1)[3] = value
        path = tmp_path / f"{value}.pth"
        torch.save(spoiled, path)
        refused([path, key, "NaN or infinity"], weights.load_sam, "tiny", path)
