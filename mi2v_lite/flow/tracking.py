"""Tracking every pixel of a real clip: f_{0->i}, and which pixels of frame 0 are still seen in frame i (notebook 05).

This file says what a tracker is, and has the default one; `trackers.py` has others behind the same interface.

A motion of many pixels cannot be estimated directly, because a search for the most similar patch ends at the first one
that is somewhat similar. The small motions d from frame to frame are therefore estimated and chained,

    f_{0->i}(p) = f_{0->i-1}(p) + d_{i-1->i}(p + f_{0->i-1}(p)).

Every link of the chain adds its error. So frame i is pulled back along the chain, after which hardly any motion is left
between it and frame 0; that rest is estimated as well, and used where it explains the picture better. The chain itself
is not corrected, since a mistake would spread to all later frames. A pixel that does not return to its place when it is
followed forward and back again is hidden by something else.

Sources: Kroeger et al., "Fast Optical Flow using Dense Inverse Search" (DIS), ECCV 2016. The forward-backward check:
Sundaram et al., "Dense Point Trajectories by GPU-accelerated Large Displacement Optical Flow", ECCV 2010.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LARGEST_REFINEMENT = 4.0  # pixels: the chain is not as wrong as that, so a larger correction is a false match
REFINE_WINDOW = 7  # pixels, odd: differences of pictures are compared as means over squares of this size
CUT_COLOURS, CUT_THUMBNAIL = 0.45, 22.0  # see `find_cuts`
# The correlation of edges above which two pictures show one scene: in pictures of one scene, darker, lighter or moved,
# it was 0.67 or more, in 870 pairs of different photos 0.37 or less.
SAME_EDGES = 0.5
ODD_FRAMES = 4  # the longest flash


class Tracks(NamedTuple):
    """The result of a tracker for a clip of F = N + 1 frames.

    Attributes:
        flow: f_{0->i}, `(N, 2, H, W)` float32, pixels, (x right, y down), finite everywhere.
        visibility: `(N, H, W)` bool on the grid of frame 0: whether the point at a pixel is still seen in that frame.
    """

    flow: Tensor
    visibility: Tensor


class Tracker(Protocol):
    """Anything that turns a clip into `Tracks`; a function is enough."""

    def __call__(self, frames: np.ndarray) -> Tracks:
        """Track every pixel of frame 0.

        Args:
            frames: uint8 `(F, H, W, 3)`, RGB, where F is at least 2.

        Returns:
            The tracks.
        """
        ...


class PairFlow(Protocol):
    """Anything that estimates the flow between two pictures; a `ChainTracker` makes a tracker of it."""

    def __call__(self, a: np.ndarray, b: np.ndarray) -> Tensor:
        """Estimate the flow from one picture to another.

        Args:
            a: uint8 `(H, W, 3)`, RGB.
            b: of the same shape.

        Returns:
            f_{a->b}, `(2, H, W)` float32, pixels.
        """
        ...


class DIS:
    """OpenCV's dense inverse search, with finer settings than any of its presets (a `PairFlow`).

    Patches are 3 pixels apart, with 25 iterations of gradient descent and 5 of the variational refinement. This is as
    accurate as 2 pixels, 50 and 10 iterations, and takes half of the time. To stop at half of the resolution, or with
    fewer variational iterations, would be less accurate.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._dis.setFinestScale(0)
        self._dis.setPatchStride(3)
        self._dis.setGradientDescentIterations(25)
        self._dis.setVariationalRefinementIterations(5)

    def __call__(self, a: np.ndarray, b: np.ndarray) -> Tensor:
        """As `PairFlow` says. OpenCV gets no initial flow: with one, it crashes when the size changes between calls."""
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (a, b)]
        return torch.from_numpy(self._dis.calc(*grey, None)).permute(2, 0, 1)


class ChainTracker:
    """Chains the flows between neighbouring frames through a clip, and corrects the result (a `Tracker`).

    Args:
        pairs: estimates the flow between two frames; `DIS` by default.
        refine: whether each chained flow is corrected by one more estimate, see the head of this file.
    """

    def __init__(self, pairs: PairFlow | None = None, refine: bool = True) -> None:
        self.pairs = DIS() if pairs is None else pairs
        self.refine = refine

    def __call__(self, frames: np.ndarray) -> Tracks:
        """Track every pixel of frame 0.

        Args:
            frames: uint8 `(F, H, W, 3)`, RGB.

        Returns:
            The tracks. The flow of a hidden pixel is a guess, either that of what hides it or that of its neighbours.
            So is the flow to an odd frame, as in a flash: it lies between those before and after.

        Raises:
            ValueError: if this is not a clip, has fewer than 2 frames, or a side of less than 16 pixels.
        """
        check_clip(frames)
        odd = odd_frames(frames)
        if odd:
            return self._around(frames, odd)
        flows, seen = [], []
        forward = backward = torch.zeros(2, *frames.shape[1:3])
        for before, after in zip(frames[:-1], frames[1:], strict=True):
            forward = forward + _read(self.pairs(before, after), forward)
            to_before = self.pairs(after, before)
            backward = to_before + _read(backward, to_before)
            flow = self._refined(frames[0], after, forward) if self.refine else forward
            flows.append(flow)
            seen.append(returns(flow, backward))
        return Tracks(torch.stack(flows), torch.stack(seen))

    def _around(self, frames: np.ndarray, odd: list[int]) -> Tracks:
        """The tracks of a clip with odd frames: they are left out of the chain, and get the motion between others."""
        kept = [index for index in range(len(frames)) if index not in odd]
        flow, seen = self(frames[kept])
        flow = torch.cat([torch.zeros_like(flow[:1]), flow])  # from frame 0 to itself as well
        seen = torch.cat([torch.ones_like(seen[:1]), seen])
        flows, visible = [], []
        for index in range(1, len(frames)):
            after = bisect_left(kept, index)
            share = (index - kept[after - 1]) / (kept[after] - kept[after - 1])
            flows.append(torch.lerp(flow[after - 1], flow[after], share))
            visible.append(seen[after] if index == kept[after] else seen[after - 1] & seen[after])
        return Tracks(torch.stack(flows), torch.stack(visible))

    def _refined(self, first: np.ndarray, frame: np.ndarray, chain: Tensor) -> Tensor:
        """The chained flow from the first frame to another, corrected where that explains the picture better."""
        picture = torch.from_numpy(frame).permute(2, 0, 1).float()
        pulled = _read(picture, chain)  # (3, H, W); where the chain is right, it looks like `first`
        pulled = pulled.permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
        correction = self.pairs(first, np.ascontiguousarray(pulled))
        new = correction + _read(chain, correction)
        near = (new - chain).norm(dim=0) < LARGEST_REFINEMENT
        return better(first, frame, chain, torch.where(near, new, chain))


def _read(field: Tensor, flow: Tensor) -> Tensor:
    """`field(p + flow(p))`, `(C, H, W)`, as in `fields.compose`, but without gradients and ten times as fast."""
    height, width = flow.shape[1:]
    x = (torch.arange(width) + flow[0]) * (2 / (width - 1)) - 1
    y = (torch.arange(height)[:, None] + flow[1]) * (2 / (height - 1)) - 1
    points = torch.stack([x, y], dim=-1)[None].to(field.dtype)
    return F.grid_sample(field[None], points, mode="bilinear", padding_mode="border", align_corners=True)[0]


def check_clip(frames: np.ndarray) -> None:
    """Check that a clip can be tracked.

    Args:
        frames: should be uint8 `(F, H, W, 3)`.

    Raises:
        ValueError: if it is not, if F is less than 2, or if a side is shorter than 16 pixels.
    """
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        got = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames)
        raise ValueError(f"A clip to track must be a uint8 array (F, H, W, 3), got {got}.")
    if len(frames) < 2:
        raise ValueError(f"The clip has {len(frames)} frame(s); motion needs at least two.")
    if min(frames.shape[1:3]) < 16:
        raise ValueError(f"The clip is {frames.shape[2]}x{frames.shape[1]}; sides below 16 pixels cannot be tracked.")


def better(a: np.ndarray, b: np.ndarray, flow: Tensor, other: Tensor) -> Tensor:
    """Choose between two estimates of f_{a->b}: at each pixel, the one along which b looks more like a.

    Args:
        a: uint8 `(H, W, 3)`.
        b: of the same shape.
        flow: the first estimate, `(2, H, W)` pixels, which is kept if both are equally good.
        other: the second estimate.

    Returns:
        `(2, H, W)` pixels.
    """
    here, there = (torch.from_numpy(picture).permute(2, 0, 1).float() for picture in (a, b))
    errors = []
    for candidate in (flow, other):
        error = (_read(there, candidate) - here).abs().mean(dim=0)
        error = torch.where(_inside(candidate), error, 255.0).numpy()
        errors.append(cv2.blur(error, (REFINE_WINDOW, REFINE_WINDOW), borderType=cv2.BORDER_REFLECT))
    return torch.where(torch.from_numpy(errors[1] < errors[0]), other, flow)


def _inside(flow: Tensor) -> Tensor:
    """Whether each pixel, carried along the flow, is still inside the picture: bool `(H, W)`."""
    height, width = flow.shape[-2:]
    x, y = torch.arange(width) + flow[0], torch.arange(height)[:, None] + flow[1]
    return (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)


def returns(forward: Tensor, backward: Tensor) -> Tensor:
    """The forward-backward check: which pixels return to their place when they go forward and then back.

    Args:
        forward: f_{a->b}, `(2, H, W)` pixels.
        backward: f_{b->a}, `(2, H, W)` pixels.

    Returns:
        bool `(H, W)`, True where a pixel arrives inside b, and returns to within
        `sqrt(0.01 (|forward|^2 + |backward|^2) + 0.5)` pixels of where it started.
    """
    back = _read(backward, forward)
    allowed = 0.01 * (forward.square().sum(0) + back.square().sum(0)) + 0.5
    return _inside(forward) & ((forward + back).square().sum(0) < allowed)


def find_cuts(frames: np.ndarray) -> list[int]:
    """Find where a clip cuts to another scene.

    A frame is taken as the first of a new scene if its histogram of colours (512 bins) shares less than 45 % with that
    of the previous frame; or if it shares less than 72.5 %, and the thumbnails of 16x16 pixels differ by more than 22
    levels on average. Fast motion does not change the colours and is not taken for a cut. Neither is a lamp that is
    switched on, which changes the colours but not the edges, nor are up to `ODD_FRAMES` frames, as in a flash, if the
    frames before and after them agree. A slow fade is not found.

    Args:
        frames: uint8 `(F, H, W, 3)`.

    Returns:
        The indices of the frames that begin a new scene; an empty list if there is no cut.
    """
    return _scenes(frames)[0]


def odd_frames(frames: np.ndarray) -> list[int]:
    """Find the frames that do not belong to the scene around them, as in a flash or where the signal was lost.

    Args:
        frames: uint8 `(F, H, W, 3)`.

    Returns:
        Their indices; neither the first nor the last frame is among them.
    """
    return _scenes(frames)[1]


def _scenes(frames: np.ndarray) -> tuple[list[int], list[int]]:
    """The frames that begin a new scene, and the odd frames within a scene."""
    looks = [_look(frame) for frame in frames]
    cuts, odd, index, before = [], [], 1, 0
    while index < len(looks):
        later = range(index, min(index + ODD_FRAMES + 1, len(looks)))
        after = next((i for i in later if _same_scene(looks[before], looks[i])), None)
        if after is None:
            cuts.append(index)
            after = index
        odd += range(index, after)
        before, index = after, after + 1
    return cuts, odd


class _Look(NamedTuple):
    """What `find_cuts` compares of a frame: the share of each colour, a thumbnail, and the edges in it."""

    colours: np.ndarray
    thumbnail: np.ndarray
    edges: np.ndarray


def _look(frame: np.ndarray) -> _Look:
    bins = cv2.calcHist([frame], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3)
    colours = cv2.GaussianBlur(bins.reshape(64, 8), (3, 3), 0) / frame[..., 0].size
    thumbnail = cv2.resize(frame, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    grey = grey.astype(np.float32)
    return _Look(colours, thumbnail, grey - cv2.GaussianBlur(grey, (0, 0), 3))


def _same_scene(a: _Look, b: _Look) -> bool:
    shared = float(np.minimum(a.colours, b.colours).sum())
    change = float(np.abs(a.thumbnail - b.thumbnail).mean())
    if shared >= CUT_COLOURS and (shared >= (1 + CUT_COLOURS) / 2 or change <= CUT_THUMBNAIL):
        return True
    if min(a.edges.std(), b.edges.std()) < 1:
        return False  # nothing is to be seen in one of them
    # The edges may have moved by up to 4 of their 32 cells.
    middle = np.ascontiguousarray(a.edges[4:-4, 4:-4])
    return float(cv2.matchTemplate(b.edges, middle, cv2.TM_CCOEFF_NORMED).max()) > SAME_EDGES


def blank_start(frames: np.ndarray) -> int:
    """Counts the frames at the beginning of a clip that show nothing, being of one colour, before others that do."""
    shown = [bool(_look(frame).edges.std() >= 1) for frame in frames]
    return shown.index(True) if any(shown) else 0


def check_one_take(frames: np.ndarray) -> None:
    """Check that a clip does not cut to another scene, since nothing can be tracked across a cut.

    Args:
        frames: uint8 `(F, H, W, 3)`.

    Raises:
        ValueError: which names the frames at which the clip cuts, or those at its beginning that show nothing.
    """
    blank, cuts = blank_start(frames), find_cuts(frames)
    if cuts and cuts[0] == blank:
        raise ValueError(
            f"The first {blank} frame(s) of the clip are of one colour: nothing can be tracked from there. Take the "
            f"frames from {blank} on (counted from 0)."
        )
    if cuts:
        before = f"frames 0 to {cuts[0] - 1}, or " if cuts[0] > 1 else ""
        raise ValueError(
            f"The clip cuts to another scene at frame {', '.join(map(str, cuts))} (counted from 0): nothing can be "
            f"tracked across a cut. Take {before}the part after the cut."
        )
