"""The measures of things, for a pipeline that does what it is asked and for one that does nothing."""

from types import SimpleNamespace

import numpy as np
import pytest

from mi2v_lite.data.clips import Clip
from mi2v_lite.evaluation.things import click_and_box, find_thing, things, true_drags_of

SIZE, FACTOR, N = 128, 2, 4


def clip(pan: float = 0.0) -> Clip:
    """An orange disc that turns by 40 degrees and goes 20 px to the right, before a grey ground that may pan."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    mask = np.hypot(x - 50, y - 60) < 20
    photo = np.random.default_rng(0).normal(110, 5, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
    photo[mask] = np.random.default_rng(1).normal((220, 120, 30), 5, (mask.sum(), 3)).clip(0, 255)
    flow = np.zeros((N, 2, SIZE, SIZE), np.float32)
    for i in range(1, N + 1):
        turn = np.exp(1j * np.radians(40) * i / N)
        arm = (x - 50) + 1j * (y - 60)
        way = (turn - 1) * arm + 20 * i / N
        flow[i - 1] = np.where(mask, np.stack([way.real, way.imag]), np.array([pan * i / N, 0])[:, None, None])
    return Clip(np.stack([photo] * (N + 1)), flow, np.ones((N, SIZE, SIZE), bool), "", 8)


class Pipe:
    """Does exactly what a control asks, or nothing."""

    config = SimpleNamespace(working_size=SIZE // FACTOR)

    def __init__(self, obeys: bool = True) -> None:
        self.obeys, self.asked = obeys, []

    def predict_motion(self, image, prompt, control, **options):
        self.asked.append(control)
        flow, _ = control.resized(SIZE // FACTOR, SIZE // FACTOR).field(N)
        return SimpleNamespace(flow=flow[None] * self.obeys)


def test_the_thing_of_a_clip_is_found_whether_the_camera_moves_or_not():
    for pan in (0.0, 30.0):
        true = find_thing(clip(pan))
        wanted = clip().flow[-1, 0] != 0
        assert (true.mask ^ wanted).sum() < 12 and true.background_rests == (pan == 0)
    still = clip()
    still.flow[:] = 0
    assert find_thing(still) is None


def test_the_marks_lie_where_a_person_would_set_them():
    mask = find_thing(clip()).mask
    first, second = true_drags_of(clip(), mask)
    assert np.hypot(*np.subtract(first.points[0], second.points[0])) > 10
    for seed in range(5):
        (x, y), (left, top, right, bottom) = click_and_box(mask, seed)
        rows, columns = np.nonzero(mask)
        assert mask[y, x]
        assert left <= columns.min() and right >= columns.max() and top <= rows.min() and bottom >= rows.max()
        assert right - left < 1.2 * np.ptp(columns)


def test_an_obedient_pipeline_has_small_errors():
    pipe = Pipe()
    numbers = things(pipe, clip(), 0)
    assert numbers["things.iou_click"] > 0.95 and numbers["things.iou_click_box"] > 0.95
    assert numbers["things.epe_px"] < 0.5 and numbers["things.epe_px_click"] < 1
    assert numbers["things.turn_degrees"] < 2 and numbers["things.slip_px"] < 0.2
    assert numbers["things.epe_px_click_one_drag"] > 2, "one drag cannot turn"
    anchored = [len(control.things) - 1 for control in pipe.asked]
    assert anchored == [1, 1, 1, 0], "the background is a still thing, but for the last"


def test_a_pipeline_that_does_nothing_has_the_motion_as_error():
    numbers = things(Pipe(obeys=False), clip(), 0)
    assert numbers["things.epe_px"] == pytest.approx(10, abs=1.5) and numbers["things.slip_px"] == 0
    assert numbers["things.turn_degrees"] == pytest.approx(25, abs=1)
    moving = things(Pipe(), clip(pan=30), 0)
    assert "things.slip_px" not in moving and moving["things.epe_px"] < 0.5
