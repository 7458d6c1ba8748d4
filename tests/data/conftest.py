import pytest
from pictures import blob, picture, save


@pytest.fixture
def make_pairs(tmp_path):
    """Writes image and mask pairs and gives the root: make_pairs(stems, images=, masks=, mask=)."""

    def make(stems, images="images", masks="masks", mask=None, size=(12, 16), root=tmp_path):
        for i, stem in enumerate(stems):
            save(root / images / f"{stem}.png", picture(*size, seed=i))
            save(root / masks / f"{stem}.png", blob(*size) if mask is None else mask)
        return root

    return make


@pytest.fixture
def save_image():
    return save


@pytest.fixture
def make_picture():
    return picture


@pytest.fixture
def make_blob():
    return blob
