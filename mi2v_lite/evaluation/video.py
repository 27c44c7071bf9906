"""Video-to-video measured: the tracker against the truth, and how steady a restyled clip is (notebook 05).

Steadiness is a warp error: walk along the tracks of the *source* and look how much the colour of the output changes on
the way. It is cheap to win by blur or by standing still, so the average displacement stands beside it.

Warp error: Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mi2v_lite.data.world import Clip
from mi2v_lite.evaluation.appearance import LEAST_SHARE, tracked
from mi2v_lite.evaluation.parts import LARGE_MOTION_PX, Numbers, noise
from mi2v_lite.flow.metrics import psnr
from mi2v_lite.flow.tracking import ChainTracker, Tracker, Tracks
from mi2v_lite.flow.warp import backward_warp
from mi2v_lite.io.videos import read_video, resize_frames
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.pipelines.restyle import restyle

SMALL_MOTION_PX = 4.0
SAME_MOTION = 0.1  # of the displacement, but half a pixel at least: so near it counts as the same
STYLE = "strokes"  # painted frame by frame it flickers of itself: each frame gets strokes of its own


def tracking(pipe: MotionI2VPipeline | None, clip: Clip, seed: int, tracker: Tracker | None = None) -> Numbers:
    """The default tracker against the truth, over pixels that are still seen, by how far they moved.

    `tracking.epe_small_px` (up to 4 px), `_medium_px`, `_large_px` (above 8): end-point error.
    `tracking.zero_large_px`: that of no motion at all on the large ones, their mean length. `tracking.hidden_found`:
    the share of the hidden pixels that are called hidden; `tracking.hidden_right`: the share of those called hidden
    that are.
    """
    found = (ChainTracker() if tracker is None else tracker)(clip.frames)
    true, seen = torch.from_numpy(clip.flow), torch.from_numpy(clip.visibility)
    error, length = (found.flow - true).norm(dim=1), true.norm(dim=1)  # (N, H, W)
    small, large = length <= SMALL_MOTION_PX, length > LARGE_MOTION_PX
    numbers = {}
    for name, part in {"small": small, "medium": ~small & ~large, "large": large}.items():
        if (part & seen).float().mean() >= LEAST_SHARE:
            numbers[f"tracking.epe_{name}_px"] = error[part & seen].mean().item()
            if name == "large":
                numbers["tracking.zero_large_px"] = length[part & seen].mean().item()
    hidden, called = ~seen, ~found.visibility
    if hidden.float().mean() >= LEAST_SHARE:
        numbers["tracking.hidden_found"] = called[hidden].float().mean().item()
        numbers["tracking.hidden_right"] = hidden[called].float().mean().item()
    return numbers


def warp_error(frames: Tensor, tracks: Tracks) -> tuple[float, float]:
    """How much colours change along tracks.

    Args:
        frames: `(F, 3, H, W)` in [-1, 1], the clip to judge. tracks: of the source, N = F - 1, same size.

    Returns:
        mean absolute change in levels of 255, where the point is seen in both frames: between neighbouring frames
        (flicker), and between frame 0 and each later one (drift).
    """
    on_track, _ = backward_warp(frames[1:], tracks.flow)  # (N, 3, H, W), on frame 0's grid
    on_track = torch.cat([frames[:1], on_track])
    seen = torch.cat([torch.ones_like(tracks.visibility[:1]), tracks.visibility])  # (F, H, W)

    def change(a: Tensor, b: Tensor, counted: Tensor) -> float:
        return (127.5 * (a - b).abs().mean(dim=1)[counted]).mean().item()

    flicker = change(on_track[1:], on_track[:-1], seen[1:] & seen[:-1])
    return flicker, change(on_track[1:], on_track[:1].expand_as(on_track[1:]), seen[1:])


def same_motion(flow: Tensor, tracks: Tracks) -> Tensor:
    """Which of the visible points an output moves as its source does: off by a tenth of their way, or half a pixel.

    Args:
        flow: of the output, `(N, 2, H, W)` pixels. tracks: of the source, same size.

    Returns:
        bool `(N, H, W)`.
    """
    allowed = SAME_MOTION * tracks.flow.norm(dim=1).clamp(min=0.5 / SAME_MOTION)
    return tracks.visibility & ((flow - tracks.flow).norm(dim=1) <= allowed)


def per_frame(frames: np.ndarray, style: str = STYLE) -> Tensor:
    """Each frame restyled on its own, by a seed of its own: `(F, 3, H, W)` in [-1, 1] of uint8 `(F, H, W, 3)`."""
    styled = np.stack([np.asarray(restyle(Image.fromarray(f), style, seed=i)) for i, f in enumerate(frames)])
    return torch.from_numpy(styled).permute(0, 3, 1, 2).float() / 127.5 - 1


def consistency(pipe: MotionI2VPipeline, frames: np.ndarray, tracks: Tracks, seed: int, style: str = STYLE) -> Numbers:
    """A source uint8 `(F, H, W, 3)` restyled by driving its first frame, and frame by frame: see `restyled`."""
    each = per_frame(frames, style)
    options = {"detail": "none", "generator": noise(seed), "output_type": "pt"}
    ours = pipe.render(each[:1], tracks.flow[None], **options).frames[0].cpu()
    length = tracks.flow.norm(dim=1)  # (N, H, W)
    flows = {name: tracked(clip, ChainTracker()) for name, clip in {"ours": ours, "per_frame": each}.items()}
    same = same_motion(flows["ours"], tracks)
    numbers = {"displacement_source_px": length.mean().item()}
    for name, clip in {"ours": ours, "per_frame": each}.items():
        numbers[f"warp_error_{name}"], numbers[f"drift_{name}"] = warp_error(clip, tracks)
        numbers[f"displacement_{name}_px"] = flows[name].norm(dim=1).mean().item()
    numbers["same_motion_share"] = (same.sum() / tracks.visibility.sum()).item()
    if numbers["same_motion_share"] >= LEAST_SHARE and length[same].any():
        there = Tracks(tracks.flow, same)
        numbers["same_motion_of_source"] = (flows["ours"].norm(dim=1)[same].sum() / length[same].sum()).item()
        numbers["same_motion_warp_error_ratio"] = warp_error(each, there)[0] / warp_error(ours, there)[0]
    for name in ("warp_error", "drift"):
        numbers[f"{name}_ratio"] = numbers[f"{name}_per_frame"] / numbers[f"{name}_ours"]
    numbers["detail_kept"] = _detail(ours[1:]) / _detail(each[1:])
    return numbers


def _detail(frames: Tensor) -> float:
    """Mean step between neighbouring pixels: a blurred clip has little."""
    return (frames.diff(dim=-1).abs().mean() + frames.diff(dim=-2).abs().mean()).item()


def restyled(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """A clip of the world in strokes: its first frame driven by the true motion, against each frame painted anew.

    `video.warp_error_ours`, `_per_frame`: change between neighbouring frames along the true tracks, in levels;
    `video.warp_error_ratio`: per frame over ours, 2 is half the flicker. `video.drift_*`: the same against frame 0.
    `video.displacement_*_px`: mean motion of the source, and as tracked in both outputs. `video.detail_kept`: mean step
    between neighbouring pixels, ours over per frame: a blurred output is steady, too. `video.same_motion_*` is about
    the visible points that ours moves as the source does, to a tenth or half a pixel: what share they are, how long
    their displacement is over the source's, and the ratio of the warp errors there, so at the same displacement.
    """
    tracks = Tracks(torch.from_numpy(clip.flow), torch.from_numpy(clip.visibility))
    return {f"video.{name}": value for name, value in consistency(pipe, clip.frames, tracks, seed).items()}


def window_cost(pipe: MotionI2VPipeline, frames: np.ndarray, seed: int) -> float:
    """What the second window of a clip loses by starting from a rendered frame: decibels of PSNR.

    Args:
        frames: uint8 `(F, H, W, 3)`, more than one window and at most two. The clip drives its own first frame, so
            that the truth is known; its second window is rendered once more from the true frame.
    """
    options = {"detail": "none", "output_type": "pt"}
    made = pipe.video_to_video(frames, frames[0], generator=noise(seed), **options)
    first = made.starts[1]
    fresh = pipe.render(frames[first], made.tracks[1].flow[None], generator=noise(seed + 1), **options).frames[0].cpu()
    true = torch.from_numpy(frames[first + 1 :]).permute(0, 3, 1, 2).float() / 127.5 - 1
    return (psnr(fresh[1:], true, max=2) - psnr(made.frames[0][first + 1 :], true, max=2)).item()


def real_clips(pipe: MotionI2VPipeline, folder: Path, size: int = 128, num_frames: int = 16) -> list[Numbers]:
    """As `restyled`, on the videos of a folder cut into squares and takes of 16 frames: `video.clip_*`.

    Here the tracks are the tracker's, and what it gets wrong counts against both. `video.clip_window_cost_db`:
    `window_cost`, where a video has two windows.
    """
    found = []
    for path in sorted(folder.glob("*.mp4")):
        frames = square(read_video(path, 1000).frames, size)
        for start in range(0, len(frames) - num_frames + 1, num_frames):
            take = frames[start : start + num_frames]
            numbers = consistency(pipe, take, ChainTracker()(take), start)
            two = frames[start : start + 2 * num_frames - 1]
            if len(two) == 2 * num_frames - 1:
                numbers["window_cost_db"] = window_cost(pipe, two, start)
            found.append({f"video.clip_{name}": value for name, value in numbers.items()})
    return found


def square(frames: np.ndarray, size: int) -> np.ndarray:
    """The middle square of a clip, `size` pixels a side: the lite model saw squares."""
    side = min(frames.shape[1:3])
    top, left = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
    return resize_frames(frames[:, top : top + side, left : left + side], (size, size))
