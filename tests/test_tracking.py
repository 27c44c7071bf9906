"""The tracker of real clips: known motions, hidden pixels, cuts, and pictures of changing size."""

import numpy as np
import pytest
import torch

from mi2v_lite.data.samples import heldout_world
from mi2v_lite.flow.metrics import endpoint_error
from mi2v_lite.flow.tracking import DIS, ChainTracker, better, check_one_take, find_cuts, odd_frames, returns


@pytest.fixture(scope="module")
def world():
    return heldout_world()


def textured(height, width, seed=0):
    """A picture that has something to hold on to at every scale."""
    rng = np.random.default_rng(seed)
    sizes = [(height // k + 1, width // k + 1) for k in (2, 4, 8, 16)]
    layers = [
        np.kron(rng.random(size), np.ones((k, k)))[:height, :width]
        for size, k in zip(sizes, (2, 4, 8, 16), strict=True)
    ]
    return np.repeat((sum(layers) / 4 * 255).astype(np.uint8)[..., None], 3, axis=2)


def sliding(height, width, count=5, step=3):
    """A clip whose content goes `step` pixels to the left from frame to frame."""
    wide = textured(height, width + count * step)
    return np.stack([wide[:, i * step : i * step + width] for i in range(count)])


def test_a_slide_is_found():
    flow, seen = ChainTracker()(sliding(64, 96))
    inner = flow[..., 16:-16, 24:-24].flatten(2).median(-1).values  # (N, 2)
    torch.testing.assert_close(inner, torch.tensor([[-3.0 * i, 0.0] for i in range(1, 5)]), atol=0.3, rtol=0)
    assert seen[:, 16:-16, 24:-24].float().mean() > 0.9
    assert not seen[-1, :, :8].any(), "what left the picture on the left is not seen"


def test_the_chain_beats_the_direct_estimate_where_motion_is_large(world):
    direct, chained, counted = [], [], 0
    dis = DIS()
    for seed in range(20, 26):
        clip = world.clip(seed)
        true = torch.from_numpy(clip.flow[-1:])
        far = (true.norm(dim=1) > 12) & torch.from_numpy(clip.visibility[-1:])
        if far.float().mean() < 0.02:
            continue
        counted += 1
        found = ChainTracker()(clip.frames).flow[-1:]
        chained.append(float((found - true).norm(dim=1)[far].mean()))
        direct.append(float((dis(clip.frames[0], clip.frames[-1])[None] - true).norm(dim=1)[far].mean()))
    assert counted >= 2
    assert np.mean(chained) < np.mean(direct)


def test_refining_helps_on_the_whole(world):
    plain, refined = [], []
    for seed in (31, 32, 33):
        clip = world.clip(seed)
        true, seen = torch.from_numpy(clip.flow[-1:]), torch.from_numpy(clip.visibility[-1:])[:, None]
        for errors, refine in ((plain, False), (refined, True)):
            found = ChainTracker(refine=refine)(clip.frames).flow[-1:]
            errors.append(float(endpoint_error(found, true, seen)))
    assert np.mean(refined) < np.mean(plain)


def test_one_tracker_takes_clips_of_several_sizes():
    tracker = ChainTracker()
    for size in ((64, 64), (96, 160), (64, 64)):
        assert tracker(sliding(*size, count=3)).flow.shape == (2, 2, *size)


def test_a_pair_flow_of_ones_own():
    shift = torch.tensor([1.0, 0.0]).view(2, 1, 1).expand(2, 32, 32)
    flow, _ = ChainTracker(lambda a, b: shift, refine=False)(np.zeros((4, 32, 32, 3), np.uint8))
    torch.testing.assert_close(flow[:, 0, 16, 8], torch.tensor([1.0, 2.0, 3.0]))


def test_better_takes_what_explains_the_picture():
    clip = sliding(48, 64, count=2)
    right, wrong = torch.zeros(2, 48, 64), torch.zeros(2, 48, 64)
    right[0], wrong[0] = -3, 5
    for pair in ((right, wrong), (wrong, right)):
        chosen = better(clip[0], clip[1], *pair)
        assert (chosen[:, 8:-8, 12:-12] == right[:, 8:-8, 12:-12]).float().mean() > 0.95


def test_returns_sees_what_does_not_come_home():
    forward = torch.zeros(2, 16, 16)
    forward[0] = 3
    backward = -forward
    assert returns(forward, backward)[:, :12].all() and not returns(forward, backward)[:, 13:].any()
    backward[0, :, 8:] = 4
    assert not returns(forward, backward)[:, 5:].any()


def test_cuts_are_found_and_refused(world):
    a, b = world.clip(1).frames[:6], world.clip(2).frames[:6]
    assert find_cuts(a) == find_cuts(b) == []
    check_one_take(a)
    assert find_cuts(np.concatenate([a, b])) == [6]
    with pytest.raises(ValueError, match="at frame 6.*Take frames 0 to 5"):
        check_one_take(np.concatenate([a, b]))


CHANGES = {
    "flash": lambda i, picture: picture if i != 3 else picture * 0 + 255,
    "lost signal": lambda i, picture: picture * (i not in (3, 4)),
    "lamp on": lambda i, picture: picture if i < 3 else np.clip(picture * 1.35, 0, 255),
    "lamp off": lambda i, picture: picture if i < 3 else picture * 0.3,
    "sunset": lambda i, picture: picture if i < 3 else np.clip(picture * [1.3, 1.0, 0.6], 0, 255),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_light_that_changes_is_no_cut_and_costs_no_motion(change):
    clip = sliding(64, 96, count=8, step=2)
    clip = np.stack([change(i, picture.astype(float)).astype(np.uint8) for i, picture in enumerate(clip)])
    assert find_cuts(clip) == []
    assert odd_frames(clip) == {"flash": [3], "lost signal": [3, 4]}.get(
        next(n for n in CHANGES if CHANGES[n] is change), []
    )
    flow, seen = ChainTracker()(clip)
    middle = flow[..., 16:-16, 24:-24].flatten(2).median(-1).values
    torch.testing.assert_close(middle, torch.tensor([[-2.0 * i, 0.0] for i in range(1, 8)]), atol=0.4, rtol=0)
    assert seen[:, 16:-16, 24:-24].float().mean() > 0.9


def test_advice_about_cuts_can_be_followed(world):
    a, b = world.clip(1).frames[:6], world.clip(2).frames[:6]
    with pytest.raises(ValueError, match="at frame 1 .* Take the part after the cut"):
        check_one_take(np.concatenate([a[:1], b]))
    with pytest.raises(ValueError, match="first 2 frame.* one colour.* from 2 on"):
        check_one_take(np.concatenate([a[:2] * 0, a]))


@pytest.mark.parametrize(
    "frames, said",
    [
        (np.zeros((3, 32, 32, 3)), "uint8 array"),
        (np.zeros((3, 32, 32), np.uint8), "uint8 array"),
        (np.zeros((1, 32, 32, 3), np.uint8), "at least two"),
        (np.zeros((3, 8, 32, 3), np.uint8), "32x8"),
        ([1, 2], "uint8 array"),
    ],
)
def test_what_cannot_be_tracked_is_refused(frames, said):
    with pytest.raises(ValueError, match=said):
        ChainTracker()(frames)
