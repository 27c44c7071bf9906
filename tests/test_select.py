"""The mask of a thing from clicks, boxes and scribbles."""

import cv2
import numpy as np
import pytest
from PIL import Image

from mi2v_lite.control import select_thing


def scene(size=(200, 150)):
    """A picture with two discs on a textured ground: an orange one with a green spot, and a blue one."""
    width, height = size
    picture = np.random.default_rng(0).normal(120, 8, (height, width, 3)).clip(0, 255).astype(np.uint8)
    orange, blue = (np.zeros((height, width), np.uint8) for _ in range(2))
    cv2.circle(orange, (70, 70), 30, 1, -1)
    cv2.circle(blue, (150, 100), 20, 1, -1)
    picture[orange > 0] = np.random.default_rng(1).normal((220, 120, 30), 6, (orange.sum(), 3)).clip(0, 255)
    picture[blue > 0] = np.random.default_rng(2).normal((30, 60, 200), 6, (blue.sum(), 3)).clip(0, 255)
    cv2.circle(picture, (80, 70), 5, (40, 200, 60), -1)
    return picture, orange > 0, blue > 0


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize(
    "marks",
    [
        {"points": [(65, 75)]},
        {"box": (36, 36, 105, 104)},
        {"points": [(65, 75)], "box": (36, 36, 105, 104)},
        {"scribbles": [[(50, 70), (70, 60), (90, 75)]]},
    ],
)
def test_a_plain_thing_is_found_whole_by_any_mark(marks):
    picture, orange, _ = scene()
    for photo in (picture, Image.fromarray(picture)):
        found = select_thing(photo, **marks)
        assert found.dtype == bool and found.shape == orange.shape
        assert iou(found, orange) > 0.95, "the green spot is a part of it"


def test_the_other_thing_is_another_click():
    picture, _, blue = scene()
    assert iou(select_thing(picture, [(150, 100)]), blue) > 0.95


def test_more_clicks_mend_the_mask():
    picture, orange, blue = scene()
    both = select_thing(picture, points=[(65, 75), (150, 100)])
    assert iou(both, orange | blue) > 0.95
    without = select_thing(picture, points=[(65, 75)], not_points=[(80, 70)])
    assert not without[70, 80] and without[75, 65], "a mark beside the thing keeps its hole open"
    boxed = select_thing(picture, [(150, 100)], box=(36, 36, 105, 104))
    assert iou(boxed, blue) > 0.9, "a click beside the box; the part in the box has no mark"
    boxed = select_thing(picture, [(65, 75), (150, 100)], box=(36, 36, 105, 104))
    assert iou(boxed, orange | blue) > 0.95
    line = select_thing(picture, points=[(65, 75)], not_scribbles=[[(150, 100), (155, 100)]])
    assert not line[100, 150]


def test_the_outline_has_the_resolution_of_the_photo():
    picture, orange, _ = scene()
    large = cv2.resize(picture, None, fx=6, fy=6, interpolation=cv2.INTER_LINEAR)
    found = select_thing(large, [(400, 440)])
    wanted = cv2.resize(orange.astype(np.float32), None, fx=6, fy=6, interpolation=cv2.INTER_LINEAR) > 0.5
    assert found.shape == wanted.shape and iou(found, wanted) > 0.95


def test_the_same_marks_give_the_same_mask_and_the_photo_is_left_alone():
    picture, *_ = scene()
    kept = picture.copy()
    assert np.array_equal(select_thing(picture, [(65, 75)]), select_thing(picture, [(65, 75)]))
    assert np.array_equal(picture, kept)


def test_a_photo_of_one_colour_gives_something_at_the_click():
    found = select_thing(np.full((60, 80, 3), 128, np.uint8), [(40, 30)])
    assert found[30, 40]


@pytest.mark.parametrize(
    ("marks", "says"),
    [
        ({}, "nothing says where"),
        ({"not_points": [(5, 5)]}, "nothing says where"),
        ({"points": [(200, 5)]}, r"\(200, 5\) lies outside the 200x150"),
        ({"points": [(5, 5)], "not_scribbles": [[(5, 5), (5, -1)]]}, r"\(5, -1\) lies outside"),
        ({"box": (50, 50, 50, 90)}, "give left, top, right and bottom"),
        ({"box": (300, 50, 350, 90)}, "holds nothing"),
    ],
)
def test_errors_say_what_is_wrong(marks, says):
    with pytest.raises(ValueError, match=says):
        select_thing(scene()[0], **marks)


def test_a_picture_of_another_type_is_an_error():
    with pytest.raises(ValueError, match="uint8"):
        select_thing(np.zeros((40, 40), np.uint8), [(5, 5)])
