"""Drags, anchors and brush: validation, JSON, the field they make, and the release's assembly."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden_io import Golden, has, read_info
from hypothesis import given, settings
from hypothesis import strategies as st

from mi2v_lite import control as c
from mi2v_lite.control import Anchor, Drag, MotionControl
from mi2v_lite.flow.fields import to_unit

GOLDEN = Path(os.environ.get("MI2V_GOLDEN") or Path(__file__).parent / "golden")


def example(**changes):
    brush = np.zeros((48, 80), bool)
    brush[5:40, 10:70] = True
    parts = {
        "size": (80, 48),
        "drags": [Drag([(20, 30), (36.5, 16), (50, 34)], radius=5), Drag([(60, 10), (70, 10)])],
        "anchors": [Anchor((30, 20), radius=4), Anchor((70, 40))],
        "brush": brush,
    }
    return MotionControl(**{**parts, **changes})


# The field


def test_drag_field_by_hand():
    flow, mask = MotionControl((40, 30), [Drag([(10, 12), (25, 6)], radius=4)]).field(num_frames=5)
    assert flow.shape == (5, 2, 30, 40) and mask.shape == (5, 1, 30, 40)
    assert flow.dtype == mask.dtype == torch.float32
    expected_mask = torch.zeros(30, 40)
    expected_mask[8:16, 6:14] = 1
    for i in range(5):
        torch.testing.assert_close(mask[i, 0], expected_mask, atol=0, rtol=0)
        torch.testing.assert_close(flow[i, 0], 15 * (i + 1) / 5 * expected_mask)
        torch.testing.assert_close(flow[i, 1], -6 * (i + 1) / 5 * expected_mask)


def test_block_is_cut_at_the_image():
    _, mask = MotionControl((40, 30), [Drag([(0, 29), (5, 29)], radius=8)]).field(1)
    assert mask[0, 0].nonzero().min(0).values.tolist() == [21, 0]
    assert mask[0, 0].nonzero().max(0).values.tolist() == [29, 7]


def test_later_drag_overwrites_earlier():
    drags = [Drag([(10, 10), (20, 10)], radius=4), Drag([(12, 10), (12, 20)], radius=4)]
    flow, _ = MotionControl((40, 30), drags).field(1)
    assert flow[0, :, 10, 7].tolist() == [10, 0]
    assert flow[0, :, 10, 10].tolist() == [0, 10]


def test_anchor_is_a_true_zero():
    flow, mask = MotionControl((40, 30), anchors=[Anchor((20, 15), radius=3)]).field(4)
    assert flow.abs().max() == 0
    assert mask.sum() == 4 * 6 * 6


def test_anchor_and_drag_do_not_erase_each_other():
    flow, mask = MotionControl((60, 40), [Drag([(20, 20), (40, 20)], radius=10)], [Anchor((26, 20), radius=10)]).field(
        1
    )
    assert flow[0, 0, 20, 20] == 20 and flow[0, 0, 20, 22] == 20
    assert flow[0, 0, 20, 24] == 0 and flow[0, 0, 20, 26] == 0
    assert mask[0, 0, 20, 10:36].min() == 1


def test_brush_holds_everything_outside():
    control = example()
    flow, mask = control.field()
    outside = ~torch.from_numpy(control.brush)
    assert mask[..., outside].min() == 1 and flow[..., outside].abs().max() == 0
    free_flow, free_mask = example(brush=None).field()
    assert torch.equal(flow[..., ~outside], free_flow[..., ~outside])
    assert torch.equal(mask[..., ~outside], free_mask[..., ~outside])


def test_background_anchors_leave_the_drags_and_the_brush_alone():
    drawn = MotionControl((100, 60), [Drag([(20, 30), (80, 30)])], [Anchor((90, 30))])
    held = drawn.anchor_background()  # spacing 12, free 15
    assert held.drags == drawn.drags and held.anchors[0] == drawn.anchors[0] and held.brush is None
    new = [anchor.point for anchor in held.anchors[1:]]
    assert len(new) == 8 * 5 - 3 * 3 - 1, "a grid of 8 x 5; 3 x 3 about the start, and one where an anchor was"
    assert min(max(abs(x - 20), abs(y - 30)) for x, y in new) > 15
    assert held.field(1)[0][0, 0, 30, 20] == 60 and held.anchor_background() == held, "twice adds nothing"
    assert len(drawn.anchor_background(free=0).anchors) > len(held.anchors)
    brush = np.zeros((60, 100), bool)
    brush[:, :50] = True
    painted = MotionControl((100, 60), drawn.drags, brush=brush).anchor_background()
    assert painted.anchors and all(anchor.point[0] < 50 for anchor in painted.anchors)


def test_background_anchors_need_a_drag():
    with pytest.raises(ValueError, match="there is no drag"):
        MotionControl((100, 60), anchors=[Anchor((5, 5))]).anchor_background()
    with pytest.raises(ValueError, match="free is -1"):
        example().anchor_background(free=-1)


def test_no_control_says_nothing():
    flow, mask = MotionControl((16, 16)).field(3)
    assert flow.abs().sum() == 0 and mask.sum() == 0


def test_default_radius():
    control = MotionControl((128, 128), [Drag([(64, 64), (80, 64)]), Drag([(20, 20), (30, 20)], radius=3)])
    assert control.field(1)[1].sum() == 20 * 20 + 6 * 6
    assert control.field(1, default_radius=5)[1].sum() == 10 * 10 + 6 * 6
    assert c.default_radius_of((512, 320)) == pytest.approx(25.6)
    assert c.default_radius_of((32, 32)) == 8


@given(st.integers(0, 127), st.integers(0, 95))
@settings(deadline=None, max_examples=50)
def test_smallest_default_block_reaches_the_latent_mask(x, y):
    _, mask = MotionControl((128, 96), anchors=[Anchor((x, y), radius=c.SMALLEST_DEFAULT_RADIUS)]).field(1)
    assert mask[..., ::8, ::8].any()


points = st.tuples(st.floats(0, 79), st.floats(0, 47))


@given(st.lists(points, min_size=2, max_size=6), st.integers(2, 20))
@settings(deadline=None, max_examples=50)
def test_path_keeps_its_ends_and_never_leaves_its_points(path, count):
    found = c.resample(path, count)
    given_points = np.array(path)
    assert found.shape == (count, 2)
    np.testing.assert_allclose(found[[0, -1]], given_points[[0, -1]], atol=1e-9)
    assert (found >= given_points.min(0) - 1e-9).all() and (found <= given_points.max(0) + 1e-9).all()


# Equation: drag-path
def test_path_passes_through_every_point():
    path = [(0, 0), (9, 3), (2, 8), (5, 5)]
    np.testing.assert_allclose(c.resample(path, 16)[::5], path, atol=1e-12)


# Resizing


def test_resized_field_is_the_rescaled_field():
    control = MotionControl((80, 48), [Drag([(20, 30), (36, 16), (50, 34)], radius=5)], [Anchor((60, 20), radius=5)])
    flow, _ = control.field()
    large, _ = control.resized(240, 96).field()
    scale = torch.tensor([3.0, 2.0])
    torch.testing.assert_close(large[:, :, 61, 61], flow[:, :, 30, 20] * scale)


def test_resizing_up_and_down_returns():
    control = example()
    again = control.resized(160, 144).resized(80, 48)
    assert np.array_equal(again.brush, control.brush)
    for one, two in zip(again.drags, control.drags, strict=True):
        np.testing.assert_allclose(one.points, two.points, atol=1e-9)
        assert one.radius == (pytest.approx(two.radius) if two.radius else None)
    np.testing.assert_allclose([a.point for a in again.anchors], [a.point for a in control.anchors], atol=1e-9)


def test_resizing_keeps_corners_inside():
    corners = [(0, 0), (79, 47), (79.9, 0)]
    for size in [(7, 5), (81, 49), (1000, 20)]:
        small = MotionControl((80, 48), [Drag(corners)]).resized(*size)
        assert small.size == size


def test_thin_brush_lost_in_resizing_is_an_error():
    brush = np.zeros((48, 80), bool)
    brush[0, 0] = True
    with pytest.raises(ValueError, match="too thin"):
        MotionControl((80, 48), brush=brush).resized(8, 8)


# JSON


def test_json_round_trip(tmp_path):
    control = example()
    assert MotionControl.from_json(control.to_json()) == control
    control.save(tmp_path / "control.json")
    assert MotionControl.load(tmp_path / "control.json") == control
    assert [file.name for file in tmp_path.iterdir()] == ["control.json"]


@given(st.lists(st.lists(points, min_size=2, max_size=4), max_size=3), st.integers(0, 2**20))
@settings(deadline=None, max_examples=30)
def test_any_control_survives_json(paths, seed):
    brush = np.random.default_rng(seed).random((48, 80)) > 0.5
    control = MotionControl((80, 48), [Drag(path) for path in paths], brush=brush)
    assert MotionControl.from_json(control.to_json()) == control


def test_unequal_controls_are_unequal():
    control = example()
    changed = control.brush.copy()
    changed[0, 0] = True
    assert control != example(brush=changed)
    assert control != example(brush=None)
    assert control != example(anchors=[])


def edit(**changes):
    return json.dumps({**json.loads(example().to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("[1, 2]", "not a motion control"),
        ("{}", "format"),
        (edit(version=7), "version 7"),
        (edit(size=None), "size None"),
        (edit(drags=[{"radius": 3}]), "points"),
        (edit(drags=7), "wrong type"),
        (edit(drags=[{"points": [[1, 2], ["a", 3]]}]), "pair of numbers"),
        (edit(drags=[{"points": [[1, 2], [float("nan"), 3]]}]), "not finite"),
        (edit(brush={"encoding": "png-base64", "data": "AAAA"}), "not a readable PNG"),
        (edit(brush={"encoding": "rle"}), "rle"),
        (edit(brush="x"), "wrong type"),
        (edit(size=[40, 24]), "outside the 40x24"),
    ],
)
def test_bad_json_says_what_is_wrong(text, says):
    with pytest.raises(ValueError, match=says):
        MotionControl.from_json(text)


# Validation


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Drag([]), "no points"),
        (lambda: Drag([(1, 2)]), "anchor"),
        (lambda: Drag([(1, 2), (float("nan"), 2)]), "not finite"),
        (lambda: Drag([(1, 2), (float("inf"), 2)]), "not finite"),
        (lambda: Drag([(1, 2), (1, 2, 3)]), "pair of numbers"),
        (lambda: Drag([(1, 2), (3, 2)], radius=0), "above 0"),
        (lambda: Drag([(1, 2), (3, 2)], radius=float("nan")), "above 0"),
        (lambda: Anchor((float("nan"), 0)), "not finite"),
        (lambda: Anchor((0, 0), radius=-1), "above 0"),
        (lambda: Anchor(3), "pair of numbers"),
        (lambda: MotionControl((80, 48), [Drag([(1, 2), (80, 2)])]), r"drag 1 .*\(80, 2\) outside the 80x48"),
        (lambda: MotionControl((80, 48), anchors=[Anchor((1, -0.1))]), "anchor 1 .*outside"),
        (lambda: MotionControl((80, 0)), "above 0"),
        (lambda: MotionControl((80.5, 48)), "whole numbers"),
        (lambda: MotionControl(80), "not \\(width, height\\)"),
        (lambda: MotionControl((80, 48), brush=np.ones((80, 48), bool)), r"\(80, 48\), expected .*\(48, 80\)"),
        (lambda: MotionControl((80, 48), brush=np.ones((48, 80), np.uint8)), "mask > 127"),
        (lambda: MotionControl((80, 48), brush=np.zeros((48, 80), bool)), "None for no brush"),
        (lambda: MotionControl((80, 48)).field(0), "at least 1"),
        (lambda: MotionControl((80, 48)).field(1, default_radius=-3), "above 0"),
        (lambda: MotionControl((80, 48)).resized(0, 5), "above 0"),
        (lambda: c.official_field([[]], None, 80, 48, 8), "no points"),
        (lambda: c.official_field([], np.zeros((80, 48)), 80, 48, 8), "expected"),
    ],
)
def test_errors_say_what_to_do(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_edges_of_the_image_are_inside():
    MotionControl((80, 48), [Drag([(0, 0), (79, 47), (79.5, 47.5)])])


def test_brush_is_copied():
    brush = np.ones((48, 80), bool)
    control = MotionControl((80, 48), brush=brush)
    brush[:] = False
    assert control.brush.all()


# The release's assembly


def golden(name):
    case = Golden(GOLDEN, "drag_control")
    return case, case.info["examples"][name]


def names():
    return list(read_info(GOLDEN, "drag_control")["examples"]) if has(GOLDEN, "drag_control") else ["none"]


@pytest.mark.parametrize("name", names())
def test_official_assembly(name):
    case, info = golden(name)
    tensors = case.tensors
    frames, width, height = info["model_length"] - 1, info["width"], info["height"]
    if f"{name}.painted" in tensors:
        painted = tensors[f"{name}.painted"].numpy()
    elif "painted" in info:
        painted = paint(info["painted"], width, height)
    else:
        painted = None
    flow, mask, brush = c.official_field(info["tracks"], painted, width, height, info["flow_unit_id"], frames)
    drag, mask = to_unit(flow).movedim(1, -1), mask.movedim(1, -1)
    ((key, every),) = case.stored(f"{name}.drag")
    torch.testing.assert_close(drag[:, ::every, ::every], tensors[key], atol=1e-6, rtol=0)
    ((key, every),) = case.stored(f"{name}.mask")
    assert torch.equal(mask[:, ::every, ::every], tensors[key].float())
    if f"{name}.brush_mask" in tensors:
        assert torch.equal(~brush[None, :, :, None], tensors[f"{name}.brush_mask"].bool())
    if f"{name}.drag_sum" in tensors:
        # The stored sum is of float32 values; 160 thousand of them, rounded to 6e-8 each.
        torch.testing.assert_close(drag.double().sum((1, 2)), tensors[f"{name}.drag_sum"], atol=0.02, rtol=0)
        torch.testing.assert_close(mask.double().sum((1, 2, 3)), tensors[f"{name}.mask_sum"])


def paint(words, width, height):
    """'rows 60..299, columns 40..479 painted (255), rest 0', ends included."""
    rows, columns = (part.split()[1].split("..") for part in words.split(",")[:2])
    layer = np.zeros((height, width), np.uint8)
    layer[int(rows[0]) : int(rows[1]) + 1, int(columns[0]) : int(columns[1]) + 1] = 255
    return layer


@pytest.mark.parametrize("name", names())
def test_tracks_are_resampled_as_in_the_release(name):
    case, info = golden(name)
    stored = case[f"{name}.tracks_interpolated"].numpy()
    for track, expected in zip(info["tracks"], stored, strict=True):
        track = [track[0], [value + 1 for value in track[0]]] if len(track) == 1 else track
        np.testing.assert_allclose(c.resample(track, info["model_length"]), expected, atol=1e-9)


@given(st.lists(points, min_size=2, max_size=5), st.integers(1, 30))
@settings(deadline=None, max_examples=30)
def test_own_field_is_the_official_one_where_both_apply(path, unit):
    path = [(int(x), int(y)) for x, y in path]
    ours = MotionControl((80, 48), [Drag(path, radius=unit)], brush=example().brush).field()
    theirs = c.official_field([path], example().brush, 80, 48, unit)[:2]
    assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))


# The condition


class PoolingVAE:
    """Stands in for the flow VAE: 3 latent channels that are the top-left pixels (x, y, x + y)."""

    def encode(self, unit):
        assert unit.ndim == 4 and unit.shape[1] == 2
        corner = unit[..., ::8, ::8]
        latent = torch.cat([corner, corner.sum(1, keepdim=True)], 1)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latent))


# Equation: condition
def test_condition_by_hand():
    flow, mask = MotionControl((80, 48), [Drag([(20, 20), (60, 44)], radius=8)]).field(num_frames=4)
    # Flow outside the mask must not get through.
    noisy = torch.where(mask.bool(), flow, torch.tensor(7.0))
    batch = torch.stack([noisy, 0.5 * noisy])
    found = c.condition(batch, torch.stack([mask, mask]), PoolingVAE(), (6, 10))
    assert found.shape == (2, 4, 4, 6, 10)
    torch.testing.assert_close(found[:, 3], mask[None, :, 0, ::8, ::8].expand(2, -1, -1, -1))
    inside = mask[3, 0, ::8, ::8].bool()
    # Half of the drag's share of the picture, from 0.5: (40 / 80) / 2, (24 / 48) / 2.
    torch.testing.assert_close(found[0, :3, 3][:, inside][:, 0], torch.tensor([0.75, 0.75, 1.5]))
    torch.testing.assert_close(found[1, :3, 3][:, inside][:, 0], torch.tensor([0.625, 0.625, 1.25]))
    assert (found[:, :2, :, ~inside] == 0.5).all()
    torch.testing.assert_close(c.condition(noisy, mask, PoolingVAE(), (6, 10)), found[:1])


def test_condition_follows_the_dtype_of_the_vae():
    vae = PoolingVAE()
    vae.dtype = torch.float16
    flow, mask = MotionControl((80, 48), [Drag([(20, 20), (60, 44)])]).field(2)
    assert c.condition(flow, mask, vae, (6, 10)).dtype == torch.float16


def test_condition_warns_when_the_control_is_lost():
    flow, mask = MotionControl((80, 48), [Drag([(20, 20), (60, 44)], radius=1)]).field(2)
    with pytest.warns(UserWarning, match="radius of 8"):
        c.condition(flow, mask, PoolingVAE(), (6, 10))


def test_condition_checks_shapes():
    flow, mask = MotionControl((80, 48), [Drag([(20, 20), (60, 44)])]).field(2)
    with pytest.raises(ValueError, match="latents of"):
        c.condition(flow, mask, PoolingVAE(), (5, 10))
    with pytest.raises(ValueError, match="do not fit"):
        c.condition(flow, mask[:1], PoolingVAE(), (6, 10))
