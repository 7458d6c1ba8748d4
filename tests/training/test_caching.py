"""Sizes of the cache of features: what words mean, what is refused, where it lies and how long."""

from pathlib import Path

import pytest

from samtune.errors import InputError
from samtune.model.finetuned import FineTuned
from samtune.training.caching import Caching, feature_cache
from samtune.training.schedule import FitConfig

GIB = 2**30


@pytest.mark.parametrize(
    ("setting", "meaning"),
    [
        (0, Caching()),
        (False, Caching()),
        ("off", Caching()),
        (8_000_000_000, Caching(ram=8 * 10**9)),
        ("8GB", Caching(ram=8 * 10**9)),
        ("8000000000", Caching(ram=8 * 10**9)),
        ("ram=1.5gib", Caching(ram=3 * GIB // 2)),
        ("ram=4GiB,disk=50GiB,half", Caching(ram=4 * GIB, disk=50 * GIB, half=True)),
        (["disk=500 MB", "half"], Caching(disk=500 * 10**6, half=True)),
        ("auto", Caching(auto=True)),
        ("auto,disk=1TB", Caching(auto=True, disk=10**12)),
    ],
)
def test_words_mean_sizes(setting, meaning):
    assert Caching.read(setting) == meaning
    assert bool(meaning) is (setting not in (0, False, "off"))
    assert meaning.is_demanded is (bool(meaning) and not meaning.auto)
    assert FitConfig(feature_cache=setting).feature_cache == setting


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (-1, "at least 0 bytes"),
        (True, "off, auto, a size"),
        ("4XB", "'4XB' is no size"),
        ("ram=", "'' is no size"),
        ("disk=-4GB", "'-4GB' is no size"),
        ("ssd=4GB", "ram=SIZE, disk=SIZE"),
        ("ram=1GB,2GB", "ram twice"),
        ("half", "off, auto, a size"),
        ("off,ram=1GB", "'off' is no size"),
        ("lots", "'lots' is no size"),
        (4.5, "feature_cache=4.5: must be off, auto, a size"),
    ],
)
def test_other_words_are_refused_in_one_line(setting, words, refused):
    refused(["feature_cache=", words], FitConfig, feature_cache=setting)


def test_auto_takes_a_quarter_of_what_is_free_and_the_disk_if_there_is_a_folder(
    monkeypatch, tmp_path, sam
):
    monkeypatch.setattr("samtune.training.caching.free_memory_of_machine", lambda: 4000)
    assert Caching.read("auto").with_sizes(None) == Caching(auto=True, ram=1000)
    sizes = Caching.read("auto").with_sizes(tmp_path / "not" / "there")
    assert sizes.ram == 1000
    assert 0 < sizes.disk
    model = FineTuned(sam, "none", "tuned")
    cache = feature_cache(model, "auto", False, tmp_path, for_several=False)
    assert (cache.budget, cache.store) == (1000, None)
    assert feature_cache(model, "auto", False, tmp_path / "shared", True).store is not None
    for other, vary in ((model, True), (FineTuned(sam, "vpt"), False)):
        assert feature_cache(other, "auto", vary, tmp_path, False) is None
    with pytest.raises(InputError, match=r"has no folder; give output=, or train.feature_folder"):
        feature_cache(model, "disk=1MB", False, None, False)


WORDS = ("base.name=tiny", "device=cpu", "adapter.name=none", "data.augment=none")


@pytest.fixture
def train(samtune, pairs, tiny_weights, tmp_path):
    def run(*words, folder="run"):
        base = (f"data.root={pairs}", f"base.weights={tiny_weights}", *WORDS)
        more = ("train.max_steps=6", "train.batch_size=2", "train.keep=none", "--json")
        return samtune("train", *base, *more, f"output={tmp_path / folder}", *words)

    return run


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_a_run_removes_its_own_store_and_leaves_that_which_is_shared(train, tmp_path):
    plain = train(folder="plain").json
    alone = train("train.feature_cache=disk=1GB", "data.disk_cache=1MB", folder="alone").json
    assert not files(tmp_path / "alone" / "features")
    assert not (tmp_path / "alone" / "decoded").exists()
    assert not any("data.disk_cache" in remark for remark in alone["remarks"])
    shared, decoded = tmp_path / "shared", tmp_path / "decoded"
    words = ("train.feature_cache=ram=10MB,disk=1GB", f"train.feature_folder={shared}",
             "data.disk_cache=1MB", f"data.cache_folder={decoded}")  # fmt: skip
    first = train(*words, folder="first").json
    written = files(shared)
    assert written and files(decoded)
    second = train(*words, folder="second").json
    assert files(shared) == written
    for run in (alone, first, second):
        assert run["tuned"] == pytest.approx(plain["tuned"], rel=1e-3)
    bad = train("train.feature_cache=disk=lots", folder="bad")
    assert bad.code == 2
    assert "'lots' is no size" in bad.err
    assert not (tmp_path / "bad").exists()
    (tmp_path / "taken").write_text("a file")
    folder = f"train.feature_folder={tmp_path / 'taken'}"
    refused = train("train.feature_cache=disk=1GB", folder, folder="other")
    assert refused.code == 2
    assert "could not be written" in refused.err
