import pytest

from samtune.training.order import (
    batches_per_epoch,
    epoch_order,
    images_per_epoch,
    stream_seed,
)


@pytest.mark.parametrize("images", [1, 3, 8, 9])
@pytest.mark.parametrize(("size", "world"), [(1, 1), (4, 1), (2, 2), (4, 3)])
def test_an_epoch_shows_every_image(images, size, world):
    parts = [epoch_order(images, size, 0, 1, rank, world) for rank in range(world)]
    assert {len(part) for part in parts} == {batches_per_epoch(images, size, world)}
    shown = [i for part in parts for batch in part for i in batch]
    assert set(shown) == set(range(images))
    counts = [shown.count(i) for i in range(images)]
    assert max(counts) - min(counts) <= 1
    assert all(len(set(batch)) == len(batch) for part in parts for batch in part)


@pytest.mark.parametrize(
    ("images", "size", "last", "sizes"),
    [
        (20, 8, "fill", [8, 8, 8]),
        (20, 8, "drop", [8, 8]),
        (20, 8, "short", [8, 8, 4]),
        (16, 8, "drop", [8, 8]),
        (16, 8, "short", [8, 8]),
        (5, 8, "fill", [5]),
        (5, 8, "drop", [5]),
        (5, 8, "short", [5]),
    ],
)
def test_the_last_batch(images, size, last, sizes):
    order = epoch_order(images, size, 0, 1, last=last)
    assert [len(batch) for batch in order] == sizes
    assert len(order) == batches_per_epoch(images, size, 1, last=last)
    whole = epoch_order(images, size, 0, 1)
    assert all(a == b[: len(a)] for a, b in zip(order, whole, strict=False))
    if last != "fill":
        shown = [i for batch in order for i in batch]
        assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("last", ["drop", "short"])
def test_processes_have_as_many_and_as_large_batches(last):
    """Of 21 images each of two gets 11, one of them twice, as torch's sampler deals them out."""
    parts = [epoch_order(21, 4, 0, 1, rank, 2, last=last) for rank in range(2)]
    sizes = [[len(batch) for batch in part] for part in parts]
    assert sizes == [[4, 4] if last == "drop" else [4, 4, 3]] * 2
    assert batches_per_epoch(21, 4, 2, last=last) == len(sizes[0])
    shown = [i for part in parts for batch in part for i in batch]
    assert len(shown) - len(set(shown)) == (last == "short")


@pytest.mark.parametrize(
    ("images", "taken", "steps"), [(4040, 1010, 505), (1330, 333, 167), (10_553, 2639, 1320)]
)
def test_a_quarter_of_each_epoch_is_what_one_of_four_published_processes_saw(images, taken, steps):
    """TS-SAM's COD, ISTD and DUTS-TR, in batches of two."""
    assert images_per_epoch(images, 0.25) == taken
    assert batches_per_epoch(images, 2, 1, 0.25) == steps
    epochs = [epoch_order(images, 2, 0, epoch, share=0.25) for epoch in (0, 1)]
    shown = [{i for batch in order for i in batch} for order in epochs]
    assert [len(order) for order in epochs] == [steps, steps]
    assert [len(images) for images in shown] == [taken, taken]
    # two quarters drawn anew have a sixteenth of the images in common
    assert 0.5 * images / 16 < len(shown[0] & shown[1]) < 1.5 * images / 16


def test_processes_deal_out_one_part_of_the_images():
    whole = epoch_order(40, 20, 3, 2, share=0.5)
    parts = [epoch_order(40, 10, 3, 2, rank, 2, share=0.5) for rank in (0, 1)]
    assert sorted(parts[0][0] + parts[1][0]) == sorted(whole[0]) and len(set(whole[0])) == 20
    assert epoch_order(40, 10, 3, 2) == epoch_order(40, 10, 3, 2, share=1.0)


@pytest.mark.parametrize(
    ("images", "share", "taken"),
    [(100, 0.07, 7), (3, 1, 3), (3, 0.1, 1), (1, 0.25, 1), (9, 0.5, 5)],
)
def test_images_of_an_epoch(images, share, taken):
    assert images_per_epoch(images, share) == taken
    batches = epoch_order(images, 4, 0, 0, share=share)
    assert len({i for batch in batches for i in batch}) == taken
    assert len(batches) == batches_per_epoch(images, 4, 1, share)


def test_epochs_and_seeds_differ_in_order():
    orders = [epoch_order(32, 4, *key) for key in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] and orders[0] != orders[2]
    assert orders[0] == epoch_order(32, 4, 0, 0)


def test_seeds_are_the_same_everywhere():
    assert stream_seed(0, 0) == 7896617691693857887
    assert len({stream_seed(*key) for key in ((0, 1), (1, 0), (0, 1, 0, 1), (2**62, 1))}) == 4
