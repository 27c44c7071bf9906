"""Detail carried from the photo: what must hold for any photo, field and painting."""

import numpy as np
import pytest
import torch

from mi2v_lite.data.samples import heldout_world
from mi2v_lite.evaluation.detail import reduced, splat_with_telea
from mi2v_lite.flow.between import FieldsInTime
from mi2v_lite.pipelines import detail
from mi2v_lite.pipelines.detail import carry, frame_times

H, W, FACTOR, N = 96, 128, 4, 5


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (12, 16, 3)).repeat(8, 0).repeat(8, 1)
    return (coarse * 0.7 + random.integers(0, 76, (H, W, 3))).astype(np.uint8)


def field(x: float = 0.0, y: float = 0.0) -> torch.Tensor:
    """An even motion that ends at (x, y) cells."""
    steps = torch.arange(1, N + 1).view(N, 1, 1, 1) / N
    return (steps * torch.tensor([x, y]).view(1, 2, 1, 1)).expand(N, 2, H // FACTOR, W // FACTOR).contiguous()


def moving(photo: np.ndarray, flow: torch.Tensor) -> np.ndarray:
    """What a perfect Stage 2 paints: the truth, small. For fields that are the same everywhere."""
    small = photo.reshape(H // FACTOR, FACTOR, W // FACTOR, FACTOR, 3).mean((1, 3))
    shifts = [(0, 0), *(tuple(round(v) for v in f[:, 0, 0].tolist()) for f in flow)]
    return np.stack([np.roll(small, (y, x), (0, 1)) for x, y in shifts]).round().astype(np.uint8)


def differ(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def test_a_clip_begins_with_the_photo_itself_and_a_still_one_stays_it(photo):
    frames = list(carry(photo, field(), moving(photo, field())))
    assert len(frames) == N + 1
    assert all(np.array_equal(frame, photo) for frame in frames)


def test_what_moves_is_the_photo_to_the_pixel(photo):
    flow = field(5, 0)  # cells: 20 pixels
    last = list(carry(photo, flow, moving(photo, flow)))[-1]
    assert last.shape == photo.shape and last.dtype == np.uint8
    assert differ(last[:, 24:], photo[:, 4:-20]) < 0.6  # the first columns fade into what is uncovered


def test_times_lie_on_the_tracks(photo):
    flow = field(5, 0)
    painted = moving(photo, flow)
    whole = list(carry(photo, flow, painted))
    fine = list(carry(photo, flow, painted, frame_times(N, 8, 2)))
    assert len(fine) == 16 and np.array_equal(fine[0], whole[0]) and np.array_equal(fine[-1], whole[-1])
    assert np.array_equal(fine[3], whole[1]), "3 of 15 is 1 of 5"
    between = list(carry(photo, flow, painted, [1.25]))[0]  # 5 pixels: a whole number
    assert differ(between[:, 12:], photo[:, 7:-5]) < 0.6


def test_tracks_pass_through_their_points_without_overshooting():
    path = np.array([3.0, 4.0, 4.0, 1.0, 0.0, 6.0])
    track = FieldsInTime(lambda i: np.full((2, 1, 1), path[i], np.float32), len(path))
    times = np.linspace(0, 6, 241)
    read = np.array([track(t)[0, 0, 0] for t in times])
    np.testing.assert_allclose(read[::40], [0, *path], atol=1e-6)
    knots = np.array([0, *path])
    for number in range(6):
        part, ends = read[40 * number : 40 * number + 41], sorted(knots[number : number + 2])
        assert ends[0] - 1e-6 <= part.min() and part.max() <= ends[1] + 1e-6
    from scipy.interpolate import PchipInterpolator

    np.testing.assert_allclose(read, PchipInterpolator(np.arange(7), knots)(times), atol=1e-4)


def test_each_field_is_asked_for_once_as_the_times_rise():
    asked = []
    track = FieldsInTime(lambda i: asked.append(i) or np.full((2, 1, 1), i + 1.0, np.float32), 6)
    for t in np.linspace(0.1, 6, 40):
        assert track(t)[0, 0, 0] == pytest.approx(t, abs=1e-5)
    assert asked == [0, 1, 2, 3, 4, 5]


def test_light_that_stage_2_changes_comes_through(photo):
    painted = np.repeat(moving(photo, field())[:1], N + 1, 0).astype(float)
    painted -= 12 * np.arange(N + 1)[:, None, None, None]  # it gets dark: 60 levels in the end
    last = list(carry(photo, field(), painted.clip(0, 255).astype(np.uint8)))[-1]
    bright = photo.astype(float).min(-1) > 70
    change = (photo.astype(float) - last)[bright].mean()
    assert 60 - detail.LIGHT_LEAST - 6 < change < 60
    # And what an autoencoder does to every frame alike is no light.
    dull = (moving(photo, field()) * 0.8).astype(np.uint8)
    assert all(differ(frame, photo) < 0.5 for frame in carry(photo, field(), dull))


def test_where_stage_2_paints_something_else_it_wins_without_a_seam(photo):
    grey = (photo * 0.2 + 40).astype(np.uint8)
    painted = np.repeat(moving(grey, field())[:1], N + 1, 0)
    painted[1:, 8:16, 12:22] = (255, 0, 0)
    last = list(carry(grey, field(), painted))[-1].astype(float)
    assert np.abs(last[44:52, 60:76] - (255, 0, 0)).max() < 40
    assert differ(last[:, 112:], grey[:, 112:]) < 1
    red = last[48, :, 0]
    assert np.abs(np.diff(red)).max() < 90, "from one picture to the other within pixels, not at one"


def test_a_thing_uncovers_a_backdrop_that_does_not_show_it():
    backdrop = np.tile(np.linspace(60, 120, W)[None, :, None], (H, 1, 3))
    photo = (backdrop + np.random.default_rng(0).normal(0, 2, backdrop.shape)).astype(np.uint8)
    thing = np.zeros((H, W), bool)
    thing[32:64, 24:56] = True
    photo[thing] = (240, 30, 30)
    flow = torch.zeros(N, 2, H // FACTOR, W // FACTOR)
    flow[:, 0, 8:16, 6:14] = 10 * (torch.arange(1, N + 1) / N).view(N, 1, 1)  # 40 pixels to the right
    small = photo[::FACTOR, ::FACTOR]
    foggy = np.repeat(small[None], N + 1, 0)
    for i in range(1, N + 1):  # a Stage 2 that leaves a fog of the thing where it was
        foggy[i, 8:16, 6:14] = foggy[i, 8:16, 6:14] // 3 + 60
        foggy[i, 8:16, 6 + 2 * i : 14 + 2 * i] = (240, 30, 30)
    last = list(carry(photo, flow, foggy))[-1].astype(float)
    assert np.abs(last[36:60, 68:92] - (240, 30, 30)).max() < 12, "the thing has arrived"
    assert np.abs(last[34:62, 28:52] - backdrop[34:62, 28:52]).mean() < 14, "and is gone from where it was"


@pytest.mark.parametrize("noise, least, most", [(0, 0, 0.5), (12, 5, 14)])
def test_what_comes_into_view_has_the_grain_of_the_photo(noise, least, most):
    photo = (110 + np.random.default_rng(0).normal(0, noise, (H, W, 3))).clip(0, 255).astype(np.uint8)
    flow = field(6, 0)
    last = list(carry(photo, flow, moving(photo, flow)))[-1].astype(float)
    new = last[:, 2:18]
    assert least <= new.std() <= most and abs(new.mean() - photo.mean()) < 4


def test_of_two_things_that_cross_the_one_that_stage_2_shows_is_in_front():
    photo = np.full((H, W, 3), 128, np.uint8)
    photo[36:60, 16:40], photo[36:60, 88:112] = (230, 40, 40), (40, 40, 230)
    flow = torch.zeros(N, 2, H // FACTOR, W // FACTOR)
    share = (torch.arange(1, N + 1) / N).view(N, 1, 1)
    flow[:, 0, 9:15, 4:10], flow[:, 0, 9:15, 22:28] = 10 * share, -8 * share  # red to 56, blue to 56
    for front in ((230, 40, 40), (40, 40, 230)):
        painted = np.repeat(photo[::FACTOR, ::FACTOR][None], N + 1, 0)
        painted[3:, 9:15, 12:22] = front
        last = list(carry(photo, flow, painted))[-1].astype(float)
        assert np.abs(last[42:54, 60:76].mean((0, 1)) - front).max() < 30, front


def test_outside_a_brush_every_frame_is_the_photo(photo):
    brush = np.zeros((H, W), bool)
    brush[20:70, 30:90] = True
    flow = field(4, 2)
    frames = list(carry(photo, flow, moving(photo, flow), brush=brush))
    assert all(np.array_equal(frame[~brush], photo[~brush]) for frame in frames)
    assert differ(frames[-1][brush], photo[brush]) > 5


def test_frames_repeat_exactly(photo):
    flow = field(3, 1)
    for once, again in zip(*(carry(photo, flow, moving(photo, flow)) for _ in range(2)), strict=True):
        assert np.array_equal(once, again)


def test_what_does_not_fit_is_refused_at_the_call(photo):
    painted = moving(photo, field())
    with pytest.raises(ValueError, match="5 fields go with 6 painted frames, got 5"):
        carry(photo, field(), painted[1:])
    for times in ([0, 2, 1], [0, 6], [-1, 2], [float("nan")]):
        with pytest.raises(ValueError, match="times must rise within 0 and 5"):
            carry(photo, field(), painted, times)
    with pytest.raises(ValueError, match="the brush is"):
        carry(photo, field(), painted, brush=np.ones((3, 3), bool))
    for wrong in ((0, 2), (24, float("nan")), (float("inf"), 1)):
        with pytest.raises(ValueError, match="must be a positive number"):
            frame_times(15, *wrong)


@pytest.fixture(scope="module")
def large_clip():
    return heldout_world(size=256).clip(2)


def test_on_a_drawn_world_carried_detail_is_far_nearer_to_the_truth(large_clip):
    frames, flow = reduced(large_clip, 64)
    carried = list(carry(large_clip.frames[0], flow, frames))
    plain = np.stack([np.kron(frame, np.ones((4, 4, 1), np.uint8)) for frame in frames])
    last, soft, true = carried[-1], plain[-1], large_clip.frames[-1]
    assert differ(last, true) < 0.6 * differ(soft, true)
    telea = splat_with_telea(large_clip)
    assert telea.shape == large_clip.frames.shape and differ(telea[-1], true) < differ(soft, true)


def test_a_reduced_field_never_lies_between_two_motions(large_clip):
    _, flow = reduced(large_clip, 64)
    last = torch.from_numpy(large_clip.flow[-1]) / 4
    blocks = last.view(2, 64, 4, 64, 4)
    nearest = (blocks - flow[-1][:, :, None, :, None]).norm(dim=0).amin((1, 3))
    assert nearest.max() < 0.3
    with pytest.raises(ValueError, match="cannot be reduced to cells of 100"):
        reduced(large_clip, 100)
