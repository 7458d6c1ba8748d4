"""What the frozen encoder gives lies on disk: for other trainings too, whole, checked, bounded."""

import pytest
import tiny
import torch

from samtune.model.feature_cache import FeatureCache
from samtune.model.feature_store import FILE_BYTES, FeatureStore, digest_of_base
from samtune.model.finetuned import FineTuned

PLENTY = 10**9


def cached(sam, folder, adapter="none", budget=PLENTY, half=False, **options):
    """A model with a cache on disk alone."""
    decoder = "fusion" if "ts_sam" in adapter else "tuned"
    torch.manual_seed(3)
    model = FineTuned(sam, adapter, decoder, adapter_options=options or None).eval()
    store = FeatureStore(folder, budget, digest_of_base(sam), model.streams_read, half)
    model.cache = FeatureCache(0, half, store)
    return model


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


def close(model):
    model.cache.flush()
    return model.cache.store


@pytest.mark.parametrize(
    ("adapter", "options"), [("none", {}), ("ts_sam_detached", {}), ("lora", {"blocks": (-1,)})]
)
def test_another_training_reads_what_one_has_written_bit_for_bit(sam, tmp_path, adapter, options):
    pixels = sam.preprocess(tiny.pixels(3))
    one = cached(sam, tmp_path, adapter, **options)
    one.cache.store, direct = None, one.encode(pixels)
    one = cached(sam, tmp_path, adapter, **options)
    one.encode(pixels)
    assert close(one).failure == ""
    assert len(files(tmp_path)) == 1  # of all three images
    other = cached(sam, tmp_path, adapter, **options)
    for _ in range(2):
        again = other.encode(pixels)
        assert torch.equal(again.embedding, direct.embedding)
        assert again.embedding.stride() == direct.embedding.stride()
        for i, tap in direct.taps.items():
            assert torch.equal(again.taps[i], tap)
    assert other.encodings == 0
    assert other.cache.left_out == 0


def test_nothing_is_mixed_up(sam, own_sam, tmp_path):
    """Other pixels, another base, other streams, other arithmetic, rounded values."""
    pixels = sam.preprocess(tiny.pixels(1))
    first = cached(sam, tmp_path)
    first.encode(pixels)
    close(first)
    own_sam.image_encoder.blocks[0].mlp.lin1.bias.data[0] += 1e-3
    others = [
        (cached(own_sam, tmp_path), pixels),
        (cached(sam, tmp_path), pixels + 1e-6),
        (cached(sam, tmp_path, "lora", blocks=(-1,)), pixels),
        (cached(sam, tmp_path, half=True), pixels),
    ]
    for model, image in others:
        model.encode(image)
        assert model.encodings == 1
        assert close(model).failure == ""
    half = cached(sam, tmp_path)
    with torch.autocast("cpu", torch.bfloat16):
        half.encode(pixels)
    assert half.encodings == 1
    again = cached(sam, tmp_path)
    again.encode(pixels)
    assert again.encodings == 0


def one_by_one(model, pixels):
    """Embeddings ``(B, C, H, W)``, whose rounding does not depend on the batch."""
    return torch.cat([model.encode(row).embedding for row in pixels.split(1)])


def test_what_is_damaged_is_computed_and_written_anew(sam, tmp_path):
    pixels = sam.preprocess(tiny.pixels(2))
    model = cached(sam, tmp_path)
    expected = one_by_one(model, pixels)
    close(model)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])  # of one image
    model = cached(sam, tmp_path)
    assert torch.equal(one_by_one(model, pixels), expected)
    assert (model.encodings, close(model).damaged) == (1, 1)
    assert len(files(tmp_path)) == 2
    for content in (whole[: len(whole) // 2], b"", b"no header at all"):  # of none
        file.write_bytes(content)
        model = cached(sam, tmp_path)
        assert torch.equal(one_by_one(model, pixels), expected)
        assert model.encodings <= 1
        close(model)
    model = cached(sam, tmp_path)
    one_by_one(model, pixels)
    assert model.encodings == 0


def test_the_budget_holds_for_all_that_lies_in_the_folder(sam, tmp_path):
    pixels, image = sam.preprocess(tiny.pixels(5)), 4 * 8 * 8 * 32
    model = cached(sam, tmp_path, budget=3 * image + 2**10)
    model.encode(pixels)
    close(model)
    assert model.cache.left_out == 2
    assert sum(file.stat().st_size for file in files(tmp_path)) < 4 * image
    other = cached(sam, tmp_path, "lora", budget=3 * image, blocks=(-1,))
    other.encode(pixels)
    assert (other.cache.left_out, close(other).failure) == (5, "")


def test_a_disk_that_is_full_or_gone_costs_the_cache_alone(sam, tmp_path):
    pixels = sam.preprocess(tiny.pixels(2))
    place = tmp_path / "file"
    place.write_text("where a folder should be")
    model = cached(sam, place)
    expected = model.encode(pixels).embedding
    assert "could not be written" in close(model).failure
    assert torch.equal(model.encode(pixels).embedding, expected)
    assert model.cache.left_out == 2


@pytest.mark.slow
def test_several_processes_fill_one_folder(sam, tmp_path, forks):
    """Each ends with all images, whoever wrote them; nothing is left half written."""
    program = """
import os
import sys
import tiny
from samtune.model.feature_cache import FeatureCache
from samtune.model.feature_store import FeatureStore, digest_of_base
from samtune.model.finetuned import FineTuned
import samtune.model.feature_store as store
from pathlib import Path
store.FILE_BYTES = 1  # each image in a file of its own
sam = tiny.base()
child = os.fork()  # what was imported, both have
model = FineTuned(sam, "none", "tuned").eval()
place = FeatureStore(Path(sys.argv[1]), 10**9, digest_of_base(sam), model.streams_read, False)
model.cache = FeatureCache(0, False, place)
pixels = sam.preprocess(tiny.pixels(6))
for i in range(6):
    model.encode(pixels[i : i + 1])
model.cache.flush()
assert not place.failure and not model.cache.left_out
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    process = forks.start(program, tmp_path)
    assert process.wait() == 0, process.stderr
    assert not list(tmp_path.rglob("*.partial"))
    model = cached(sam, tmp_path)
    for row in sam.preprocess(tiny.pixels(6)).split(1):
        model.encode(row)
    assert model.encodings == 0
    assert FILE_BYTES > 2**20
