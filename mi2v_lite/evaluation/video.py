"""Video-to-video measured: the tracker against the true motion, and how steady a restyled clip is (notebook 05).

Steadiness is a warp error: follow the tracks of the *source*, and see how much the colour of the output changes on the
way. Blur or standing still would win it cheaply, so it is taken over points that move as they do in the source.

Warp error: Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mi2v_lite.data.clips import Clip
from mi2v_lite.evaluation.stages import LARGE_MOTION_PX, Numbers, noise
from mi2v_lite.flow.tracking import ChainTracker, Tracker, Tracks
from mi2v_lite.flow.warp import backward_warp
from mi2v_lite.io.pixels import frames_tensor, to_uint8
from mi2v_lite.io.videos import resize_frames
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.pipelines.restyle import restyle

SAME_MOTION, SAME_MOTION_PX = 0.1, 0.5  # what counts as the same motion: a share of the way, or this many pixels
STYLE = "strokes"  # every frame gets strokes of its own, so a clip that is painted frame by frame flickers


def tracked(frames: Tensor, tracker: Tracker | None = None) -> Tensor:
    """Tracks the motion of a clip from its frame 0.

    Args:
        frames: `(F, 3, H, W)` in [-1, 1].
        tracker: by default the chained tracker without its refinement.

    Returns:
        `(F - 1, 2, H, W)` in pixels.
    """
    tracker = ChainTracker(refine=False) if tracker is None else tracker
    return tracker(to_uint8(frames)).flow


def displacement(frames: Tensor) -> float:
    """Returns the mean length in pixels of the `tracked` motion of a clip, `(F, 3, H, W)` in [-1, 1] (paper, table 1).

    It belongs beside every measure of steadiness, since a clip that stands still is perfectly steady.
    """
    return tracked(frames).norm(dim=1).mean().item()


def warp_error(frames: Tensor, tracks: Tracks) -> tuple[float, float]:
    """Returns how much the colours of a clip change along tracks.

    Args:
        frames: the clip to judge, `(F, 3, H, W)` in [-1, 1].
        tracks: those of its source, N = F - 1 fields of the same size.

    Returns:
        two mean absolute changes in levels of 255, over points that are seen in both frames: between neighbouring
        frames (flicker), and between frame 0 and each later frame (drift).
    """
    on_track, _ = backward_warp(frames[1:], tracks.flow)  # (N, 3, H, W), on frame 0's grid
    on_track = torch.cat([frames[:1], on_track])
    seen = torch.cat([torch.ones_like(tracks.visibility[:1]), tracks.visibility])  # (F, H, W)

    def change(a: Tensor, b: Tensor, counted: Tensor) -> float:
        return (127.5 * (a - b).abs().mean(dim=1)[counted]).mean().item()

    flicker = change(on_track[1:], on_track[:-1], seen[1:] & seen[:-1])
    return flicker, change(on_track[1:], on_track[:1].expand_as(on_track[1:]), seen[1:])


def same_motion(flow: Tensor, tracks: Tracks) -> Tensor:
    """Finds the visible points that an output moves as its source does, to a tenth of their way or half a pixel.

    Args:
        flow: the motion of the output, `(N, 2, H, W)` in pixels.
        tracks: those of the source, of the same size.

    Returns:
        bool `(N, H, W)`.
    """
    allowed = (SAME_MOTION * tracks.flow.norm(dim=1)).clamp(min=SAME_MOTION_PX)
    return tracks.visibility & ((flow - tracks.flow).norm(dim=1) <= allowed)


def per_frame(frames: np.ndarray, style: str = STYLE) -> Tensor:
    """Restyles each frame on its own, with a seed of its own.

    Args:
        frames: uint8 `(F, H, W, 3)`.
        style: one of `restyle`'s.

    Returns:
        `(F, 3, H, W)` in [-1, 1].
    """
    styled = np.stack([np.asarray(restyle(Image.fromarray(f), style, seed=i)) for i, f in enumerate(frames)])
    return frames_tensor(styled)


def square(frames: np.ndarray, size: int) -> np.ndarray:
    """Cuts the middle square out of a clip, uint8 `(F, H, W, 3)`, and resizes it to `size` pixels a side."""
    side = min(frames.shape[1:3])
    top, left = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
    return resize_frames(frames[:, top : top + side, left : left + side], (size, size))


def tracking(pipe: MotionI2VPipeline | None, clip: Clip, seed: int, tracker: Tracker | None = None) -> Numbers:
    """Compares a tracker, by default the package's own, with the true motion of the pixels that stay visible."""
    tracks = (ChainTracker() if tracker is None else tracker)(clip.frames)
    true = torch.from_numpy(clip.flow)
    counted = (true.norm(dim=1) > LARGE_MOTION_PX) & torch.from_numpy(clip.visibility)
    if counted.float().mean() < 0.002:
        return {}
    return {"tracking.epe_large_px": (tracks.flow - true).norm(dim=1)[counted].mean().item()}


def video(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """Paints frame 0 and drives it with the true motion, and compares with every frame painted on its own."""
    tracks = Tracks(torch.from_numpy(clip.flow), torch.from_numpy(clip.visibility))
    painted = per_frame(clip.frames)
    options = {"detail": "none", "generator": noise(seed), "output_type": "pt"}
    driven = pipe.render(painted[:1], tracks.flow[None], **options).frames[0].cpu()
    same = same_motion(tracked(driven, ChainTracker()), tracks)
    # Where nothing that moves the same moves at all, standing still would be measured.
    if same.sum() < 0.002 * tracks.visibility.sum() or not tracks.flow.norm(dim=1)[same].any():
        return {}
    there = Tracks(tracks.flow, same)
    return {"video.same_motion_warp_error_ratio": warp_error(painted, there)[0] / warp_error(driven, there)[0]}
