import numpy as np
from changes import labelled
from pictures import picture

from samtune.data import augment


def test_kyyle_leaves_half_of_the_images():
    image = picture(40, 40)
    mask = np.zeros((40, 40), np.uint8)
    mask[5:25, 10:20] = 1
    image[mask == 1] = 255
    image[mask == 0] //= 4
    same = moved = 0
    for seed in range(200):
        new, maps = augment(image, labelled(mask), seed, "kyyle")
        same += np.array_equal(new, image)
        turned = any(
            np.array_equal(maps.map, np.rot90(m, k)) for m in (mask, mask.T) for k in range(4)
        )
        if not turned:  # shifted, scaled and rotated: an eighth of all
            moved += 1
            assert maps.valid is None  # the image goes on, mirrored, beyond its edge
            assert new.shape == image.shape and maps.map.max() <= 1
            inside = new[..., 0] > 160
            assert (inside != (maps.map == 1)).mean() < 0.06
    assert 85 < same < 140  # half, and of the quarter turns each fourth
    assert 12 < moved < 42
