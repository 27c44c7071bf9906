"""The motion field of a real clip: f_{0->i} and what of frame 0 is still seen in frame i (notebook 05).

A motion of many pixels cannot be estimated directly: a window that looks for its like falls into the first valley. So
the small motions from frame to frame are estimated and chained,

    f_{0->i}(p) = f_{0->i-1}(p) + d_{i-1->i}(p + f_{0->i-1}(p)),

and because every link adds its error, one more estimate is made from frame 0 to frame i pulled back by the chain,
where hardly any motion is left, and is taken where it explains the picture better. The chain itself stays unrefined: a
mistake would spread to all later frames. What is hidden follows from walking back: a pixel that does not return to
where it came from is covered by something else.

DIS: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016. The check: Sundaram et al., "Dense Point
Trajectories by GPU-accelerated Large Displacement Optical Flow", ECCV 2010.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LARGEST_REFINEMENT = 4.0  # pixels: the chain is not that wrong, so a larger correction is a false match
REFINE_WINDOW = 7  # pixels, odd: the photometric error is compared as a mean over such a square
CUT_COLOURS, CUT_THUMBNAIL = 0.45, 22.0  # see `find_cuts`


class Tracks(NamedTuple):
    """What a tracker gives, N = F - 1.

    flow: f_{0->i}, `(N, 2, H, W)` float32, pixels, (x right, y down), finite everywhere. visibility: `(N, H, W)` bool
    on frame 0's grid: is the pixel's point still seen in frame i + 1?
    """

    flow: Tensor
    visibility: Tensor


class Tracker(Protocol):
    """Anything that turns a clip into `Tracks`."""

    def __call__(self, frames: np.ndarray) -> Tracks:
        """frames: uint8 `(F, H, W, 3)`, RGB, F of at least 2."""
        ...


class PairFlow(Protocol):
    """Anything that estimates the flow between two pictures; what `ChainTracker` is made of."""

    def __call__(self, a: np.ndarray, b: np.ndarray) -> Tensor:
        """f_{a->b}: `(2, H, W)` pixels, of uint8 `(H, W, 3)`."""
        ...


class DIS:
    """OpenCV's dense inverse search, set finer than any of its presets (a `PairFlow`).

    Patches 3 pixels apart, 25 and 5 iterations: as near to the truth as 2, 50 and 10 in half of the time. What does
    cost accuracy is to stop at half the resolution, or fewer variational iterations.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._dis.setFinestScale(0)
        self._dis.setPatchStride(3)
        self._dis.setGradientDescentIterations(25)
        self._dis.setVariationalRefinementIterations(5)

    def __call__(self, a: np.ndarray, b: np.ndarray) -> Tensor:
        """See `PairFlow`. No start flow for OpenCV: it crashes when the size changes between calls."""
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (a, b)]
        return torch.from_numpy(self._dis.calc(*grey, None)).permute(2, 0, 1)


class ChainTracker:
    """Chains a `PairFlow` through the clip and refines the chain (a `Tracker`).

    pairs: between two frames, `DIS` by default. refine: whether to correct each chain by one more estimate.
    """

    def __init__(self, pairs: PairFlow | None = None, refine: bool = True) -> None:
        self.pairs = DIS() if pairs is None else pairs
        self.refine = refine

    def __call__(self, frames: np.ndarray) -> Tracks:
        """Track every pixel of frame 0.

        Args:
            frames: uint8 `(F, H, W, 3)`, RGB.

        Returns:
            `Tracks`. The flow of a hidden pixel is a guess: that of what hides it, or of its neighbours.

        Raises:
            ValueError: no such clip, fewer than 2 frames, or a side below 16 pixels.
        """
        check_clip(frames)
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

    def _refined(self, first: np.ndarray, frame: np.ndarray, chain: Tensor) -> Tensor:
        picture = torch.from_numpy(frame).permute(2, 0, 1).float()
        pulled = _read(picture, chain)  # (3, H, W): like `first`, where the chain is right
        pulled = pulled.permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
        correction = self.pairs(first, np.ascontiguousarray(pulled))
        new = correction + _read(chain, correction)
        near = (new - chain).norm(dim=0) < LARGEST_REFINEMENT
        return better(first, frame, chain, torch.where(near, new, chain))


def _read(field: Tensor, flow: Tensor) -> Tensor:
    """`field(p + flow(p))`, `(C, H, W)`, bilinear, the border beyond it: `fields.compose`'s reading, ten times faster
    since nothing here needs its gradient."""
    height, width = flow.shape[1:]
    x = (torch.arange(width) + flow[0]) * (2 / (width - 1)) - 1
    y = (torch.arange(height)[:, None] + flow[1]) * (2 / (height - 1)) - 1
    points = torch.stack([x, y], dim=-1)[None].to(field.dtype)
    return F.grid_sample(field[None], points, mode="bilinear", padding_mode="border", align_corners=True)[0]


def check_clip(frames: np.ndarray) -> None:
    """Raises ValueError for what no tracker can take: see the message."""
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        got = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames)
        raise ValueError(f"A clip to track must be a uint8 array (F, H, W, 3), got {got}.")
    if len(frames) < 2:
        raise ValueError(f"The clip has {len(frames)} frame(s); motion needs two at least.")
    if min(frames.shape[1:3]) < 16:
        raise ValueError(f"The clip is {frames.shape[2]}x{frames.shape[1]}; sides below 16 pixels cannot be tracked.")


def better(a: np.ndarray, b: np.ndarray, flow: Tensor, other: Tensor) -> Tensor:
    """Of two estimates of f_{a->b}, at each pixel the one under which b looks more like a.

    Args:
        a, b: uint8 `(H, W, 3)`. flow, other: `(2, H, W)` pixels; `flow` wins a tie.

    Returns:
        `(2, H, W)`.
    """
    here, there = (torch.from_numpy(picture).permute(2, 0, 1).float() for picture in (a, b))
    errors = []
    for candidate in (flow, other):
        error = (_read(there, candidate) - here).abs().mean(dim=0)
        error = torch.where(_inside(candidate), error, 255.0).numpy()
        errors.append(cv2.blur(error, (REFINE_WINDOW, REFINE_WINDOW), borderType=cv2.BORDER_REFLECT))
    return torch.where(torch.from_numpy(errors[1] < errors[0]), other, flow)


def _inside(flow: Tensor) -> Tensor:
    """bool `(H, W)`: the pixel, taken along the flow, is within the picture's pixel centres, half a pixel spared."""
    height, width = flow.shape[-2:]
    x, y = torch.arange(width) + flow[0], torch.arange(height)[:, None] + flow[1]
    return (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)


def returns(forward: Tensor, backward: Tensor) -> Tensor:
    """The forward-backward check: which pixels, taken along `forward` and back along `backward`, come home.

    Args:
        forward: f_{a->b}, `(2, H, W)` pixels. backward: f_{b->a}, `(2, H, W)`.

    Returns:
        bool `(H, W)`: inside b, and home within `sqrt(0.01 (|f|^2 + |b|^2) + 0.5)` pixels.
    """
    back = _read(backward, forward)
    allowed = 0.01 * (forward.square().sum(0) + back.square().sum(0)) + 0.5
    return _inside(forward) & ((forward + back).square().sum(0) < allowed)


def find_cuts(frames: np.ndarray) -> list[int]:
    """Where a clip cuts to another scene.

    A frame is the first of a scene when its colours (512 bins) overlap those of the frame before by less than 45 %, or
    half that much is new and its thumbnail of 16x16 differs by more than 22 levels on average. Fast motion keeps its
    colours; a slow fade is not found.

    Args:
        frames: uint8 `(F, H, W, 3)`.

    Returns:
        indices of frames, each the first of a new scene; [] for one take.
    """

    def colours(frame: np.ndarray) -> np.ndarray:
        bins = cv2.calcHist([frame], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3)
        return cv2.GaussianBlur(bins.reshape(64, 8), (3, 3), 0) / frame[..., 0].size

    cuts, last = [], None
    for index, frame in enumerate(frames):
        small = cv2.resize(frame, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
        now = (colours(frame), small)
        if last is not None:
            shared = float(np.minimum(now[0], last[0]).sum())
            change = float(np.abs(small - last[1]).mean())
            if shared < CUT_COLOURS or (shared < (1 + CUT_COLOURS) / 2 and change > CUT_THUMBNAIL):
                cuts.append(index)
        last = now
    return cuts


def check_one_take(frames: np.ndarray) -> None:
    """Raises ValueError, with the frame, for a clip that cuts to another scene: nothing can be tracked across."""
    cuts = find_cuts(frames)
    if cuts:
        raise ValueError(
            f"The clip cuts to another scene at frame {', '.join(map(str, cuts))} (counted from 0): nothing can be "
            f"tracked across a cut. Take frames 0 to {cuts[0] - 1}, or the part after the cut."
        )
