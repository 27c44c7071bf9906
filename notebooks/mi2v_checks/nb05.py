"""Checks of notebook 05, video-to-video."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mi2v_checks.base import hide_answers, passed, require, same, tensor
from mi2v_lite.flow.fields import compose
from mi2v_lite.flow.tracking import ChainTracker
from mi2v_lite.flow.warp import backward_warp


def _smooth(seed: int, count: int, height: int = 12, width: int = 16, length: float = 3.0) -> Tensor:
    """Smooth random fields `(count, 2, H, W)`, pixels."""
    coarse = torch.randn(count, 2, 3, 3, generator=torch.Generator().manual_seed(seed)) * length
    return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)


def chain(answer: Callable[[Tensor], Tensor]) -> None:
    """Checks how the flows between neighbours become flows from frame 0.

    Args:
        answer: `answer(steps)` gives f_{0->1}, f_{0->2} and so on; both are `(N, 2, H, W)` in pixels.

    Raises:
        CheckFailed: if the steps are only added, chained in the wrong order, or the first one is missing.
    """
    steps = _smooth(0, 3)
    wanted = [steps[0]]
    for step in steps[1:]:
        wanted.append(compose(wanted[-1], step))
    got = tensor(answer(steps.clone()))
    require(got.shape == steps.shape, f"One field for each step is asked for, {tuple(steps.shape)}; got {got.shape}.")
    require(
        not same(got, steps.cumsum(0)),
        "The steps are added pixel by pixel. The second step starts where the first one ended: read it there.",
    )
    turned = [steps[0]]
    for step in steps[1:]:
        turned.append(compose(step, turned[-1]))
    require(not same(got, torch.stack(turned)), "The order is wrong: first f_{0->i-1}, then the step from i-1 to i.")
    require(same(got, torch.stack(wanted)), "Not yet: f_{0->i} = compose(f_{0->i-1}, step i), and f_{0->1} is step 1.")
    passed("Each step is read where the track has arrived. Errors of the steps add up on the way.")


def comes_home(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks which pixels come home within one pixel, there and back.

    Args:
        answer: `answer(forward, backward)` gives bool `(H, W)`, for two flows `(2, H, W)`.

    Raises:
        CheckFailed: if the way back is read at the start, or the two ways are subtracted.
    """
    forward, backward = _smooth(1, 2)
    backward = -forward + 0.4 * backward
    round_trip = compose(forward, backward)
    wanted = round_trip.norm(dim=0) < 1
    got = tensor(answer(forward.clone(), backward.clone()))
    require(got.shape == wanted.shape, f"One answer for each pixel, {tuple(wanted.shape)}; got {tuple(got.shape)}.")
    require(got.dtype == torch.bool, f"Yes or no is asked for (bool), got {got.dtype}.")
    require(
        not torch.equal(got, (forward + backward).norm(dim=0) < 1),
        "The way back is read at the pixel's start. It starts where the pixel has gone: p + forward(p).",
    )
    back = round_trip - forward
    require(
        not torch.equal(got, (forward - back).norm(dim=0) < 1),
        "There and back should cancel: their SUM is short, not their difference.",
    )
    require(torch.equal(got, wanted), "Not yet: the length of compose(forward, backward), below 1 px, is asked for.")
    passed("A point that is covered lands on something else, and that something else leads elsewhere.")


def camera_motion(answer: Callable[[Tensor], Tensor]) -> None:
    """Checks the shift of most pixels in every frame.

    Args:
        answer: `answer(flow)` gives it as `(N, 2)`, for a flow `(N, 2, H, W)`.

    Raises:
        CheckFailed: if an object in front moves the answer, or frames are mixed.
    """
    flow = torch.zeros(2, 2, 10, 10)
    flow[0, 0], flow[1, 0], flow[1, 1] = 3, 6, -2
    flow[:, :, :4, :5] = 20.0  # an object in front, a fifth of the picture
    wanted = torch.tensor([[3.0, 0.0], [6.0, -2.0]])
    got = tensor(answer(flow.clone()))
    require(got.shape == (2, 2), f"One (x, y) for each frame, (N, 2); got {tuple(got.shape)}.")
    require(
        not same(got, flow.mean((2, 3))), "The mean is pulled by the object in front; most pixels know nothing of it."
    )
    both = flow.transpose(0, 1).flatten(1).median(1).values.expand(2, 2)
    require(not same(got, both), "One shift for all frames: keep the frames apart.")
    require(
        same(got, wanted), f"Expected {wanted.tolist()}, got {got.tolist()}: the median over pixels, x and y alone."
    )
    passed("The median asks the majority. A camera that zooms needs more than a shift.")


def windows(answer: Callable[[int, int], Sequence[tuple[int, int]]]) -> None:
    """Checks how a long clip is cut into windows that share one frame with the next.

    Args:
        answer: `answer(num_frames, window)` lists the first and the last frame of each window.

    Raises:
        CheckFailed: if neighbours share nothing, the last window is too long, or one frame is left over.
    """

    def ask(frames: int, window: int) -> list[tuple[int, int]]:
        return [(int(first), int(last)) for first, last in answer(frames, window)]

    got = ask(10, 4)
    require(
        got != [(0, 3), (4, 7), (8, 9)],
        "Neighbours share no frame: a window must start from the last frame of the one before.",
    )
    require(bool(got) and got[-1][1] != 10, "The last frame of 10 is number 9; counting starts at 0.")
    require(max(last - first for first, last in got) == 3, "A window of 4 frames goes from i to i + 3.")
    require(got == [(0, 3), (3, 6), (6, 9)], f"10 frames in windows of 4 are 0-3, 3-6, 6-9; got {got}.")
    require(ask(16, 16) == [(0, 15)], f"16 frames fit one window; got {ask(16, 16)}: no window of one frame behind it.")
    require(ask(18, 16) == [(0, 15), (15, 17)], f"18 frames are 0-15 and 15-17; got {ask(18, 16)}.")
    passed("Each window after the first is anchored on a rendered frame, and inherits its faults.")


def flicker(answer: Callable[[Tensor, Tensor, Tensor], float]) -> None:
    """Checks the mean change between neighbouring frames along tracks, where both show the point.

    Args:
        answer: `answer(frames, flow, seen)` gives it, for frames `(F, 3, H, W)`, flow `(N, 2, H, W)` and seen, bool
            `(N, H, W)`, all on frame 0's grid.

    Raises:
        CheckFailed: if it compares the same pixel, compares frame 0 with all, or counts hidden pixels.
    """
    frames = torch.rand(4, 3, 12, 16, generator=torch.Generator().manual_seed(2))
    flow = _smooth(3, 3)
    seen = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(4)) > 0.4
    tracked = torch.cat([frames[:1], backward_warp(frames[1:], flow)[0]])
    every = torch.cat([torch.ones_like(seen[:1]), seen])
    both = every[1:] & every[:-1]

    def mean(change: Tensor, mask: Tensor) -> float:
        return float(change.abs().mean(1)[mask].mean())

    got = float(answer(frames.clone(), flow.clone(), seen.clone()))

    def is_it(value: float) -> bool:
        return abs(got - value) < 1e-4

    require(
        not is_it(mean(frames[1:] - frames[:-1], both)), "This compares the same pixel; the point has moved: follow it."
    )
    require(
        not is_it(mean(tracked[1:] - tracked[:1], seen)),
        "This compares with frame 0: that is drift. Flicker is the change from one frame to the next.",
    )
    require(
        not is_it(mean(tracked[1:] - tracked[:-1], torch.ones_like(seen))),
        "Hidden pixels are counted, and there the track shows something else.",
    )
    require(
        is_it(mean(tracked[1:] - tracked[:-1], both)),
        "Not yet: warp each frame back along its flow, compare neighbours, average where both are seen.",
    )
    passed("A point keeps its colour in a steady clip, wherever it goes.")


def hard_clip(answer: Callable[[], tuple[np.ndarray, Tensor]]) -> None:
    """Checks a clip that was made to break the tracker.

    Args:
        answer: `answer()` gives frames, uint8 `(9, 64, 64, 3)`, and their true field `(8, 2, 64, 64)` in pixels.

    Raises:
        CheckFailed: if a step is longer than 3 pixels, nothing moves, the picture is flat, the field is not that of the
            frames, or the tracker is right after all.
    """
    frames, flow = answer()
    frames, flow = np.asarray(frames), tensor(flow).float()
    require(
        frames.shape == (9, 64, 64, 3) and frames.dtype == np.uint8,
        f"Frames are uint8 (9, 64, 64, 3); got {frames.dtype} {frames.shape}.",
    )
    require(flow.shape == (8, 2, 64, 64), f"The field is (8, 2, 64, 64), from frame 0; got {tuple(flow.shape)}.")
    moved = float(flow.norm(dim=1).mean())
    require(moved > 0.5, "Nothing moves, so there is nothing to get wrong.")
    steps = torch.cat([flow[:1], flow.diff(dim=0)]).norm(dim=1).max()
    require(float(steps) <= 3.01, f"A step of {float(steps):.1f} px: at 3 px a frame and less it should fail.")
    contrast = float(frames[0].astype(np.float32).std())
    require(contrast >= 20, f"Frame 0 varies by {contrast:.0f} levels only: in a grey wall nobody sees motion.")
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    back, inside = backward_warp(pictures[1:], flow)
    off = float((back - pictures[:1]).abs().mean(1, keepdim=True)[inside].mean())
    require(
        off <= 12,
        f"Along your field the frames differ from frame 0 by {off:.0f} levels: it is not their motion, so the tracker"
        " cannot be blamed. Noise that is new in every frame has no motion at all.",
    )
    error = float((ChainTracker()(frames).flow - flow).norm(dim=1).mean())
    require(
        error > moved / 2,
        f"The tracker is off by {error:.1f} px of {moved:.1f}: it sees this motion. What would a patch have to look"
        " like, so that another motion explains it as well?",
    )
    passed(f"Off by {error:.1f} px where {moved:.1f} px is the mean motion, though each step is short.")


hide_answers(globals())
