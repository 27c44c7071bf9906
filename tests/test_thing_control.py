"""Things in a control: the motion of drags, who counts where parts overlap, JSON, resizing."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mi2v_lite.control import Anchor, Drag, MotionControl, Thing, displacements, saved
from mi2v_lite.control.things import resized_mask

SIZE = (80, 48)


def region(left, top, right, bottom):
    mask = np.zeros(SIZE[::-1], bool)
    mask[top:bottom, left:right] = True
    return mask


def example(**changes):
    parts = {
        "size": SIZE,
        "drags": [Drag([(4, 4), (9, 4)], radius=3)],
        "things": [
            Thing(region(10, 10, 40, 40), [Drag([(20, 20), (30, 20)])]),
            Thing(region(30, 5, 60, 30), [Drag([(35, 10), (35, 20)]), Drag([(50, 10), (40, 25)])]),
            Thing(region(62, 30, 75, 45)),
        ],
    }
    return MotionControl(**{**parts, **changes})


# The motion of a thing


def test_a_thing_without_drags_stays_put():
    flow, mask = MotionControl(SIZE, things=[Thing(region(10, 10, 30, 30))]).field(3)
    assert flow.abs().max() == 0
    assert torch.equal(mask[2, 0].bool(), torch.from_numpy(region(10, 10, 30, 30)))


def test_one_drag_shifts_the_whole_thing_and_nothing_else():
    thing = Thing(region(10, 10, 30, 30), [Drag([(12, 12), (22, 2)])])
    flow, mask = MotionControl(SIZE, things=[thing]).field(5)
    inside = torch.from_numpy(thing.mask)
    for i in range(5):
        expected = torch.tensor([2.0 * (i + 1), -2.0 * (i + 1)])[:, None].expand(2, 400)
        torch.testing.assert_close(flow[i][:, inside], expected, atol=1e-5, rtol=0)
    assert flow[..., ~inside].abs().max() == 0 and mask.sum() == 5 * 400


coordinate = st.tuples(st.floats(0, 79), st.floats(0, 47))


@given(st.lists(coordinate, min_size=2, max_size=2), st.lists(coordinate, min_size=4, max_size=4))
@settings(deadline=None, max_examples=50)
def test_two_drags_are_met_exactly_in_every_frame(starts, ways):
    if np.linalg.norm(np.subtract(*starts)) < 1:
        return
    drags = [Drag([start, *ways[2 * i : 2 * i + 2]]) for i, start in enumerate(starts)]
    motion = Thing(region(10, 10, 30, 30), drags).motion(4)
    for drag in drags:
        reached = motion @ (*drag.points[0], 1) + drag.points[0]
        np.testing.assert_allclose(reached[[1, 3]], drag.points[1:], atol=1e-6)


# Equation: thing
def test_more_drags_are_met_by_least_squares():
    starts = np.array([[10.0, 10], [30, 12], [20, 30], [14, 25]])
    turn, shift = 1.3 * np.exp(0.4j), 3 - 2j
    there = turn * (starts @ (1, 1j)) + shift
    ends = np.stack([there.real, there.imag], 1)
    exact = Thing(region(0, 0, 40, 40), [Drag([a, b]) for a, b in zip(starts, ends, strict=True)]).motion(1)[0]
    np.testing.assert_allclose(exact, [[turn.real - 1, -turn.imag, 3], [turn.imag, turn.real - 1, -2]], atol=1e-9)
    moved = ends + np.random.default_rng(0).normal(0, 2, ends.shape)
    drags = [Drag([a, b]) for a, b in zip(starts, moved.clip(0, 79), strict=True)]
    found = Thing(region(0, 0, 40, 40), drags).motion(1)[0]

    def error(a, b, c, d):
        motion = np.array([[a - 1, -b, c], [b, a - 1, d]])
        return sum(np.sum((motion @ (*g.points[0], 1) + g.points[0] - g.points[1]) ** 2) for g in drags)

    best = found[0, 0] + 1, found[1, 0], found[0, 2], found[1, 2]
    for number in range(4):
        for step in (-1e-3, 1e-3):
            assert error(*best) < error(*(value + step * (i == number) for i, value in enumerate(best)))


def test_drags_from_one_point_only_shift():
    motion = Thing(region(0, 0, 9, 9), [Drag([(4, 4), (8, 4)]), Drag([(4, 4), (4, 8)])]).motion(1)[0]
    np.testing.assert_allclose(motion, [[0, 0, 2], [0, 0, 2]], atol=1e-12)


def test_displacements_are_in_the_order_of_the_pixels():
    thing = Thing(region(10, 10, 12, 12), [Drag([(10, 10), (11, 10)]), Drag([(12, 10), (15, 10)])])
    field = np.zeros((1, 2, 48, 80))
    field[..., thing.mask] = displacements(thing.motion(1), thing.mask)
    np.testing.assert_allclose(field[0, 0, 10, 10:12], [1, 2], atol=1e-9)
    np.testing.assert_allclose(field[0, 1, 11, 10:12], [1, 1], atol=1e-9)


# Who counts where parts overlap


def test_a_nearer_thing_covers_a_farther_one():
    far = Thing(region(10, 10, 40, 40), [Drag([(20, 20), (30, 20)])])
    near = Thing(region(30, 10, 60, 40), [Drag([(20, 20), (20, 30)])])
    flow, _ = MotionControl(SIZE, things=[far, near]).field(1)
    assert flow[0, :, 20, 35].tolist() == [0, 10] and flow[0, :, 20, 25].tolist() == [10, 0]
    flow, _ = MotionControl(SIZE, things=[near, far]).field(1)
    assert flow[0, :, 20, 35].tolist() == [10, 0] and flow[0, :, 20, 45].tolist() == [0, 10]


def test_drags_and_anchors_count_more_than_things_and_the_brush_more_than_all():
    thing = Thing(region(10, 10, 60, 40), [Drag([(20, 20), (30, 20)])])
    drag, anchor = Drag([(20, 20), (20, 30)], radius=4), Anchor((50, 20), radius=4)
    brush = region(0, 0, 80, 30)
    control = MotionControl(SIZE, [drag], [anchor], brush, [thing])
    flow, mask = control.field(1)
    assert flow[0, :, 20, 20].tolist() == [0, 10] and flow[0, :, 20, 50].tolist() == [0, 0]
    assert flow[0, :, 20, 35].tolist() == [10, 0] and flow[0, :, 35, 35].tolist() == [0, 0]
    expected = thing.mask & brush
    expected[16:24, 16:24] = expected[16:24, 46:54] = False
    assert np.array_equal(control.thing_map() == 1, expected)


def test_the_map_names_the_thing_of_each_pixel():
    thing_map = example().thing_map()
    assert [thing_map[y, x] for x, y in [(15, 15), (35, 20), (55, 10), (70, 40), (5, 5)]] == [1, 2, 2, 3, 0]
    flow, mask = example().field(2)
    assert torch.equal(mask[0, 0] > 0, torch.from_numpy((thing_map > 0) | region(1, 1, 7, 7)))


def test_with_things_hands_each_drag_to_the_nearest_thing_below_it():
    drags = [Drag([(15, 15), (20, 20)]), Drag([(35, 20), (40, 20)]), Drag([(70, 5), (70, 9)])]
    far, near = region(10, 10, 40, 40), region(30, 10, 60, 40)
    control = MotionControl(SIZE, drags, [Anchor((1, 1))], things=[Thing(region(0, 0, 5, 5))]).with_things(far, near)
    assert control.drags == (drags[2],) and control.anchors == (Anchor((1, 1)),)
    assert control.things == (Thing(region(0, 0, 5, 5)), Thing(far, [drags[0]]), Thing(near, [drags[1]]))


def test_with_things_the_background_is_a_still_thing_behind_them():
    thing = Thing(region(20, 15, 50, 35), [Drag([(30, 20), (40, 20)])])
    held = MotionControl(SIZE, [Drag([(70, 40), (75, 40)])], things=[thing]).anchor_background(free=5)
    expected = ~thing.mask
    expected[35:46, 65:76] = False
    assert held.things[1:] == (thing,) and held.things[0] == Thing(expected) and not held.anchors
    flow, mask = held.field(1)
    assert flow[0, 0].sum() == 600 * 10 + 16 * 16 * 5 and mask.sum() > 48 * 80 - 30
    assert MotionControl(SIZE, things=[thing]).anchor_background().anchor_background().things[0] == Thing(~thing.mask)
    with pytest.raises(ValueError, match="hold everything still"):
        MotionControl(SIZE, things=[Thing(thing.mask)]).anchor_background()


# JSON, equality, resizing


def test_things_survive_json(tmp_path):
    control = example()
    data = json.loads(control.to_json())
    assert data["version"] == 2 and len(data["things"]) == 3
    assert MotionControl.from_json(control.to_json()) == control
    control.save(tmp_path / "control.json")
    assert MotionControl.load(tmp_path / "control.json") == control


def test_a_file_as_long_as_noisy_masks_make_it_is_read(tmp_path):
    example().save(tmp_path / "control.json")
    with (tmp_path / "control.json").open("a") as file:
        file.write(" " * 18_000_000)  # as nine of 4000x3000 pixels take
    assert MotionControl.load(tmp_path / "control.json") == example()


@pytest.mark.parametrize(
    ("name", "limit", "says"),
    [
        ("LARGEST_MASKS", 3 * 80 * 48 - 1, "3 masks of 80x48 pixels, and at most 11,519"),
        ("LARGEST_CONTROL", 99, "at most 99"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, monkeypatch, name, limit, says):
    example().save(tmp_path / "control.json")
    monkeypatch.setattr(saved, name, limit)
    for call in (MotionControl.load, example().save):
        with pytest.raises(ValueError, match=f"{says}.* are read"):
            call(tmp_path / "control.json")
    assert [file.name for file in tmp_path.iterdir()] == ["control.json"]


def test_version_1_is_read():
    data = json.loads(example(things=()).to_json())
    del data["things"]
    assert MotionControl.from_json(json.dumps({**data, "version": 1})) == example(things=())


def test_unequal_things_make_unequal_controls():
    control = example()
    assert control != example(things=control.things[::-1]), "their order is their depth"
    assert control != example(things=control.things[:2])
    changed = control.things[2].mask.copy()
    changed[0, 0] = True
    assert control != example(things=[*control.things[:2], Thing(changed)])
    assert control != example(things=[*control.things[:2], Thing(control.things[2].mask, [Drag([(1, 1), (2, 2)])])])


def test_masks_are_copied():
    mask = region(1, 1, 9, 9)
    thing = Thing(mask)
    mask[:] = True
    assert thing.mask.sum() == 64


def test_resized_things_move_as_the_picture_does():
    control = example()
    flow, _ = control.field(3)
    large, _ = control.resized(240, 144).field(3)
    for x, y in [(15, 15), (35, 20), (55, 10), (70, 40)]:
        torch.testing.assert_close(large[:, :, 3 * y + 1, 3 * x + 1], 3 * flow[:, :, y, x], atol=1e-4, rtol=1e-4)
    again = control.resized(240, 144).resized(80, 48)
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(again.things, control.things, strict=True))


def test_a_thing_never_vanishes():
    mask = np.zeros((48, 80), bool)
    mask[13, 21] = True
    assert np.argwhere(resized_mask(mask, 10, 6)).tolist() == [[1, 2]]
    assert resized_mask(np.ones((48, 80), bool), 10, 6).all()


def edit(**changes):
    return json.dumps({**json.loads(example().to_json()), **changes})


MASK = json.loads(example().to_json())["things"][0]["mask"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (edit(version=3), "version 3.* reads 1 to 2; use a newer package"),
        (edit(version="2"), "version '2'"),
        (edit(things=7), "wrong type"),
        (edit(things=[{}]), "'mask'"),
        (edit(things=[{"mask": {"encoding": "png-base64", "data": "AAAA"}}]), "mask of a thing .*not a readable PNG"),
        (edit(things=[{"mask": {"encoding": "rle"}}]), "rle"),
        (edit(things=[{"mask": MASK, "drags": [{"points": [[1, 2]]}]}]), "only one point"),
        (edit(size=[70, 48]), r"mask of thing 1 has shape \(48, 80\), expected .*\(48, 70\)"),
    ],
)
def test_bad_json_says_what_is_wrong(text, says):
    with pytest.raises(ValueError, match=says):
        MotionControl.from_json(text)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Thing(np.ones((48, 80), np.uint8)), "mask > 127"),
        (lambda: Thing(np.ones((48, 80, 1), bool)), r"\(48, 80, 1\)"),
        (lambda: Thing(np.zeros((48, 80), bool)), "empty"),
        (lambda: MotionControl(SIZE, things=[Thing(np.ones((80, 48), bool))]), r"thing 1 .*\(80, 48\).*\(48, 80\)"),
        (
            lambda: example(things=[Thing(region(0, 0, 9, 9), [Drag([(1, 2), (80, 2)])])]),
            r"a drag of thing 1 .*outside the 80x48",
        ),
        (lambda: example().with_things(np.zeros((48, 80), bool)), "empty"),
        (lambda: example().with_things(np.ones((4, 8), bool)), "resize it to the image"),
    ],
)
def test_errors_say_what_to_do(make, says):
    with pytest.raises(ValueError, match=says):
        make()
