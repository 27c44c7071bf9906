"""How a clip rendered with the true flow looks: by region and by size of motion, over time, and at its first frame.

The regions of a frame: *visible* is where something of frame 0 that is still seen lands along the true flow;
*disoccluded* is the rest, which frame 0 does not show and the model must invent. A visible pixel's motion is the length
of the flow that brought it there; a disoccluded one takes the largest that landed within `REACH` pixels, the motion
that uncovered it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mi2v_lite.data.source import Clip
from mi2v_lite.flow.metrics import psnr
from mi2v_lite.flow.similarity import ssim, ssim_map
from mi2v_lite.flow.tracking import DIS, ChainTracker, Tracker
from mi2v_lite.flow.warp import backward_warp, splat_average

# Pixels of motion: still or slow, medium, large (up to 12 is what the ablation calls no large motion).
BINS = {"small": (0.0, 4.0), "medium": (4.0, 12.0), "large": (12.0, float("inf"))}
REACH = 8
STILL_PX = 0.5
LEAST_SHARE = 0.002  # of the clip's pixels: fewer say nothing


def regions(clip: Clip, rendered: Tensor, frames: Tensor) -> dict[str, float]:
    """Rendered against true frames in each region and bin of motion: `stage2.REGION.BIN.NAME`, NAME being

    - `psnr_db`; `ssim` (Wang et al. 2004), the mean of its map over the region;
    - `warp_error_levels`: how much a pixel changes along the motion from a frame to the next, root mean square in
      levels of 255 (Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018). The motion is that of the
      true frames, by DIS; a pixel counts where the true frames keep their colour along it, to within 8 levels.

    Args:
        clip: the truth. rendered, frames: `(F, 3, H, W)` in [-1, 1], rendered and true.

    Returns:
        numbers; a region with next to no pixels has none.
    """
    flow = torch.from_numpy(clip.flow)
    # What is hidden in a frame does not land there: it is sent far away.
    flow = torch.where(torch.from_numpy(clip.visibility)[:, None], flow, 4.0 * max(flow.shape[-2:]))
    landed, weight = splat_average(flow.norm(dim=1, keepdim=True), flow)  # (N, 1, H, W)
    visible = weight > 0
    around = F.max_pool2d(torch.where(visible, landed, 0), 2 * REACH + 1, 1, REACH)
    similar = ssim_map((rendered[1:] + 1) / 2, (frames[1:] + 1) / 2)
    change, tracked = _changes(clip, rendered)  # (N - 1, 1, H, W), from frame i to i + 1, i of at least 1
    numbers: dict[str, float] = {}
    for region, inside, motion in (("visible", visible, landed), ("disoccluded", ~visible, around)):
        for name, (low, high) in BINS.items():
            mask, key = inside & (motion >= low) & (motion < high), f"stage2.{region}.{name}"
            if mask.float().mean() < LEAST_SHARE:
                continue
            numbers[f"{key}.psnr_db"] = psnr(rendered[1:], frames[1:], mask, 2).item()
            numbers[f"{key}.ssim"] = similar[mask].mean().item()
            kept = mask[:-1] & tracked
            if kept.float().mean() >= LEAST_SHARE:
                numbers[f"{key}.warp_error_levels"] = change[kept].mean().sqrt().item()
    return numbers


def _changes(clip: Clip, rendered: Tensor) -> tuple[Tensor, Tensor]:
    """Squared change along the true motion, levels, and where that motion is known; frames 1 to F - 1."""
    dis = DIS()
    pairs = [dis(a, b) for a, b in zip(clip.frames[1:-1], clip.frames[2:], strict=True)]
    step = torch.stack(pairs)  # (N - 1, 2, H, W)
    true = torch.from_numpy(clip.frames[1:]).permute(0, 3, 1, 2).float()
    ahead, inside = backward_warp(true[1:], step)
    known = inside.bool() & ((ahead - true[:-1]).abs().amax(dim=1, keepdim=True) < 8)
    levels = (rendered[1:] + 1) * 127.5
    next_levels, _ = backward_warp(levels[1:], step)
    return (next_levels - levels[:-1]).square().mean(dim=1, keepdim=True), known


def over_time(clip: Clip, rendered: Tensor, frames: Tensor) -> dict[str, float]:
    """What a clip does from frame to frame, and the motion that belongs beside it: a clip that stands still flickers
    least.

    - `stage2.flicker_levels`: mean change of pixels that stay in the truth, from each frame to the next, in levels
      of 255 (after VBench's temporal flickering, Huang et al., CVPR 2024); `stage2.true_flicker_levels` of the truth.
    - `stage2.average_displacement_px`: mean length of the rendered clip's flow from its first frame, by the chained
      tracker (the paper's "average displacement", Table 1); `stage2.true_average_displacement_px` of the truth.
    - `stage2.first_frame_photo_db`, `stage2.first_frame_ssim`: rendered frame 0 against the photo itself.

    Arguments as in `regions`.
    """
    numbers = {
        "stage2.first_frame_photo_db": min(psnr(rendered[:1], frames[:1], max=2).item(), 99.0),
        "stage2.first_frame_ssim": ssim((rendered[:1] + 1) / 2, (frames[:1] + 1) / 2).item(),
        "stage2.average_displacement_px": displacement(rendered),
        "stage2.true_average_displacement_px": displacement(frames),
    }
    still = torch.from_numpy((np.linalg.norm(clip.flow, axis=1).max(axis=0) < STILL_PX) & clip.visibility.all(axis=0))
    if still.float().mean() >= LEAST_SHARE:
        numbers["stage2.flicker_levels"] = rendered.diff(dim=0).abs()[..., still].mean().item() * 127.5
        numbers["stage2.true_flicker_levels"] = frames.diff(dim=0).abs()[..., still].mean().item() * 127.5
    return numbers


def displacement(frames: Tensor) -> float:
    """Mean length in pixels of the `tracked` flow from frame 0 of `frames`, `(F, 3, H, W)` in [-1, 1]."""
    return tracked(frames).norm(dim=1).mean().item()


def tracked(frames: Tensor, tracker: Tracker | None = None) -> Tensor:
    """The flow from frame 0 of `frames`, `(F, 3, H, W)` in [-1, 1], as tracked: `(F-1, 2, H, W)` pixels.

    tracker: by default the chained one without its refinement.
    """
    levels = ((frames + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    tracker = ChainTracker(refine=False) if tracker is None else tracker
    return tracker(levels).flow
