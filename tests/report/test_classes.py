import numpy as np

from samtune.report.classes import COLOURS, Classes, colour_of, draw_classes


def test_each_class_has_one_colour_and_its_name_in_a_legend():
    image = np.full((40, 300, 3), 100, np.uint8)
    values = np.zeros((40, 300), np.uint8)
    values[:, 100:], values[:, 200:] = 1, 9
    picture = draw_classes(image, values, Classes(("sky", "road"), background=0))
    assert picture.shape[0] > 40 and picture.shape[1] == 300
    assert (picture[:40, :100] == 100).all()  # the background stays as it is
    for left, value in ((100, 1), (200, 9)):
        area = picture[:40, left : left + 100].reshape(-1, 3)
        tint = np.round(50 + 0.5 * np.array(colour_of(value)))
        assert (area == tint).all()
        assert (picture[40:].reshape(-1, 3) == colour_of(value)).all(1).any()
    assert not (picture[40:].reshape(-1, 3) == colour_of(0)).all(1).any()
    assert Classes(("sky", "road")).name(9) == "class 9"


def test_no_two_of_many_classes_are_alike():
    colours = [colour_of(value) for value in range(40)]
    assert len(set(colours)) == 40 and colours[: len(COLOURS)] == list(COLOURS)


def test_a_narrow_image_has_room_for_the_legend():
    picture = draw_classes(np.zeros((20, 16, 3), np.uint8), np.ones((20, 16), int), Classes())
    assert picture.shape[1] >= 160 and (picture[:20, 16:] == 255).all()
