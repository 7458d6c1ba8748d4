"""NumPy files are read by many threads at once, on every Python."""

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from samtune.data.arrays import Archive, mapped


@pytest.fixture
def busy_collector():
    """Lets threads change within the parsing of headers, where old Pythons mix them up."""

    def pause(*_: object) -> None:
        time.sleep(1e-5)

    before = gc.get_threshold()
    gc.callbacks.append(pause)
    gc.set_threshold(20)
    yield
    gc.set_threshold(*before)
    gc.callbacks.remove(pause)


def test_threads_read_arrays_at_the_same_time(tmp_path, busy_collector):
    single, archive = tmp_path / "a.npy", tmp_path / "b.npz"
    values = np.arange(12).reshape(3, 4)
    np.save(single, values)
    np.savez_compressed(archive, image=values, mask=values + 1)

    def read(_: int) -> bool:
        with Archive(archive) as arrays:
            return bool((mapped(single) + 1 == arrays["mask"]).all()) and arrays.names[0] == "image"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(400)))


def test_objects_and_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    with (
        Archive(tmp_path / "objects.npz") as arrays,
        pytest.raises(ValueError, match="allow_pickle"),
    ):
        arrays["a"]
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(ValueError, match=r"not an \.npz"):
        Archive(tmp_path / "array.npz")
    with Archive(tmp_path / "objects.npz") as arrays, pytest.raises(KeyError):
        arrays["b"]
