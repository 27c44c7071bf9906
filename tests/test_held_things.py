"""Things are moved exactly as they were drawn, on the grid of the networks and on that of the photo."""

import cv2
import numpy as np
import pytest
import torch

from mi2v_lite.control import Anchor, Drag, MotionControl, Thing
from mi2v_lite.flow.continued import continued
from mi2v_lite.pipelines import detail
from mi2v_lite.pipelines.detail import carry
from mi2v_lite.pipelines.things import HeldThings, hold_things

H, W, FACTOR, N = 96, 128, 4, 5


def disc(x, y, radius):
    rows, columns = np.mgrid[:H, :W]
    return np.hypot(columns - x, rows - y) <= radius


def noisy_flow() -> torch.Tensor:
    return torch.randn(N, 2, H // FACTOR, W // FACTOR, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    random = np.random.default_rng(0)
    return random.integers(40, 216, (12, 16, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)


TURNING = Thing(disc(40, 50, 17), [Drag([(30, 50), (50, 40)]), Drag([(50, 50), (60, 60)])])
SHIFTED = Thing(disc(55, 50, 10), [Drag([(55, 50), (85, 20)])])


def test_the_continuation_is_smooth_and_keeps_what_is_known():
    y, x = np.mgrid[:20, :30].astype(np.float32)
    affine = np.stack([0.5 * x - y, 2 + 0.1 * y])[None].repeat(2, 0)
    hole = np.zeros((20, 30), bool)
    hole[5:12, 8:20] = True
    torn = np.where(hole, 99, affine)
    for layout in (torn, torn.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)):
        np.testing.assert_allclose(continued(layout, hole), affine, atol=1e-4)
    at_border = np.zeros((20, 30), bool)
    at_border[:4] = True
    filled = continued(affine, at_border)
    assert np.array_equal(filled[:, :, 4:], affine[:, :, 4:])
    assert filled.min() >= affine[:, :, 4:].min() - 1e-4 and filled.max() <= affine[:, :, 4:].max() + 1e-4
    assert not continued(affine, np.ones((20, 30), bool)).any()


def test_a_predicted_flow_obeys_the_things_and_not_their_blurred_border():
    control = MotionControl((W, H), anchors=[Anchor((100, 20), 10)], things=[TURNING, SHIFTED])
    flow = torch.zeros(N, 2, H, W)
    flow[:, 0] = 3
    blurred = torch.from_numpy(cv2.dilate(TURNING.mask.astype(np.uint8), np.ones((13, 13))) > 0)
    flow[..., blurred] = 50
    flow[..., 10:30, 90:110] = -1  # what the network makes of the anchor is its own affair
    held = hold_things(flow, control, reach=8)
    asked, _ = control.field(N)
    is_thing = torch.from_numpy(control.thing_map() > 0)
    assert torch.equal(held[..., is_thing], asked[..., is_thing])
    rest = held[:, 0, ~is_thing]
    assert rest.max() <= 3.001 and (rest == -1).sum() == N * 400
    assert hold_things(flow, MotionControl((W, H), [Drag([(1, 1), (9, 9)])]), 8) is flow


@pytest.mark.parametrize("anchored", [False, True])
def test_the_field_in_a_thing_is_what_was_asked_at_the_photos_resolution(photo, monkeypatch, anchored):
    """Reads the fields that `carry` draws the photo with."""
    control = MotionControl((W, H), things=[TURNING, SHIFTED])
    control = control.anchor_background() if anchored else control
    drawn = []
    kept = detail.preimage
    monkeypatch.setattr(detail, "preimage", lambda flow, order: drawn.append((flow, order)) or kept(flow, order))
    painted = np.zeros((N + 1, H // FACTOR, W // FACTOR, 3), np.uint8)
    list(carry(photo, noisy_flow(), painted, control=control))
    fields = [flow for flow, _ in drawn if flow.shape == (2, H, W)]
    asked, mask = control.field(N)
    inside = mask[0, 0].numpy() > 0
    assert len(fields) == N and inside.all() == anchored
    for found, wanted in zip(fields, asked.numpy(), strict=True):
        np.testing.assert_allclose(found[:, inside], wanted[:, inside], atol=1e-4)
    order = drawn[-1][1]
    assert order[50, 60] > order[50, 30] > order[5, 5], "the later thing is in front"


def test_a_thing_moves_whole_over_a_still_background(photo):
    """An ideal picture: the thing's pixels 20 further right and 12 up, all others as they were or uncovered."""
    thing = Thing(disc(40, 60, 15), [Drag([(40, 60), (60, 48)])])
    control = MotionControl((W, H), things=[thing]).anchor_background()
    painted = cv2.resize(photo, (W // FACTOR, H // FACTOR), interpolation=cv2.INTER_AREA)[None].repeat(N + 1, 0)
    first, *_, last = carry(photo, noisy_flow(), painted, control=control)
    assert np.array_equal(first, photo)
    inner = cv2.erode(thing.mask.astype(np.uint8), np.ones((7, 7))) > 0
    there = np.roll(inner, (-12, 20), (0, 1))
    moved = np.abs(last[there].astype(int) - photo[inner].astype(int))
    around = ~(cv2.dilate((thing.mask | np.roll(thing.mask, (-12, 20), (0, 1))).astype(np.uint8), np.ones((9, 9))) > 0)
    still = np.abs(last[around].astype(int) - photo[around].astype(int))
    assert moved.mean() < 2 and still.max() <= 2


def test_a_still_thing_in_front_hides_what_passes_behind(photo):
    pillar, mover = np.zeros((H, W), bool), Thing(disc(30, 50, 12), [Drag([(30, 50), (60, 50)])])
    pillar[:, 55:65] = True
    for things, expected in (([mover, Thing(pillar)], photo[50, 60]), ([Thing(pillar), mover], photo[50, 30])):
        control = MotionControl((W, H), things=things).anchor_background()
        painted = cv2.resize(photo, (W // FACTOR, H // FACTOR), interpolation=cv2.INTER_AREA)[None].repeat(N + 1, 0)
        *_, last = carry(photo, noisy_flow() * 0, painted, control=control)
        assert np.abs(last[50, 60].astype(int) - expected).max() <= 2


def test_a_control_of_another_size_is_an_error(photo):
    with pytest.raises(ValueError, match=r"control has the size \(64, 48\)"):
        carry(photo, noisy_flow(), np.zeros((N + 1, 8, 8, 3), np.uint8), control=MotionControl((64, 48)))


def test_things_on_another_grid_keep_their_motion():
    small = HeldThings(MotionControl((W, H), things=[TURNING]), N).on_grid(H // FACTOR, W // FACTOR)
    field = small.write(np.zeros((2, H // FACTOR, W // FACTOR)), N - 1)
    large = HeldThings(MotionControl((W, H), things=[TURNING]), N).write(np.zeros((2, H, W)), N - 1)
    centre = large[:, 48:52, 40:44].mean((1, 2))
    np.testing.assert_allclose(field[:, 12, 10] * FACTOR, centre, atol=1e-6)
