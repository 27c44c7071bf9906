"""How well the motion obeys drags, anchors and the brush, without a caption, on worlds whose truth is known.

The paper gives no numbers for control. Others measured the trajectory error ObjMC (Wang et al., MotionCtrl, SIGGRAPH
2024) and the error of the dense flow that a few given tracks leave, here "poke" (after Baumann et al., "Flow Poke
Transformer", ICCV 2025).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from mi2v_lite.control import Anchor, Drag, MotionControl
from mi2v_lite.data.source import Clip
from mi2v_lite.evaluation.parts import LARGE_MOTION_PX, Numbers, noise
from mi2v_lite.flow.metrics import endpoint_error, leakage, trajectory_error
from mi2v_lite.pipelines import MotionI2VPipeline

STILL_PX = 0.5
DRAG_COUNTS = (1, 3, 10)


def true_drag(clip: Clip, points: int = 5) -> Drag | None:
    """A drag that the clip's own motion answers: the track of the innermost point among those that move far.

    Returns:
        a drag of at least ``LARGE_MOTION_PX`` that stays inside the picture, or None when nothing moves so far.
    """
    far = np.linalg.norm(clip.flow[-1], axis=0) > LARGE_MOTION_PX
    inner = cv2.distanceTransform(np.pad(far, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(inner.argmax(), inner.shape)
    if inner[y, x] < 4:
        return None
    return track(clip, int(x), int(y), points)


def track(clip: Clip, x: int, y: int, points: int = 5) -> Drag | None:
    """The way of the pixel (x, y) through the clip as a drag; None if it leaves the picture."""
    way = np.concatenate([np.zeros((1, 2)), clip.flow[:, :, y, x]]) + (x, y)  # (F, 2)
    height, width = clip.flow.shape[-2:]
    if (way < 0).any() or (way > (width - 1, height - 1)).any():
        return None
    chosen = way[np.linspace(0, len(way) - 1, points).round().astype(int)]
    return Drag(points=[(float(a), float(b)) for a, b in chosen])


def true_drags(clip: Clip, count: int, seed: int) -> list[Drag]:
    """``true_drag`` and up to ``count - 1`` more tracks of the clip, spread over the picture; [] without the first.

    The others start at random pixels at least a sixteenth of the width apart, moving or not.
    """
    first = true_drag(clip)
    if first is None:
        return []
    height, width = clip.flow.shape[-2:]
    random, drags = np.random.default_rng(seed), [first]
    for _ in range(40 * count):
        x, y = int(random.integers(4, width - 4)), int(random.integers(4, height - 4))
        near = min(np.hypot(x - d.points[0][0], y - d.points[0][1]) for d in drags)
        if len(drags) < count and near > width / 16 and (drag := track(clip, x, y)):
            drags.append(drag)
    return drags


def drags(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """`drags.error_px_1`, `_3`, `_10`: distance between where a drag ends and where the predicted flow takes its start,
    mean over the drags; `drags.objmc_px_1`, ...: the same distance in all frames, between the true track of the start
    and the predicted one (`trajectory_error`). `poke.epe_px_1`, ...: end-point error of the whole field, all pixels and
    frames, when so many tracks are given. `drags.error_relative`: with one drag, its error as a share of its length.
    `drags.epe_moving_px`: with one drag, end-point error in the last frame over all pixels that really move, whether
    drawn on or not. No caption, the clip's stride. With one drag also `..._network`: what the ControlNet reaches
    alone, without `hold_control`.
    """
    numbers: Numbers = {}
    for count in DRAG_COUNTS:
        drawn = true_drags(clip, count, seed)
        if len(drawn) < count:
            continue
        flow = dragged(pipe, clip, drawn, seed)
        numbers |= _obeyed(clip, flow, drawn, "")
        if count == 1:
            numbers |= _one_drag(clip, flow, drawn[0], "")
            flow = dragged(pipe, clip, drawn, seed, hold_control=False)
            numbers |= _obeyed(clip, flow, drawn, "_network") | _one_drag(clip, flow, drawn[0], "_network")
    return numbers


def network_drags(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """`drags.error_px_3_network` and the others of `drags` with `_network`, for 3 and 10 drags."""
    numbers: Numbers = {}
    for count in DRAG_COUNTS[1:]:
        drawn = true_drags(clip, count, seed)
        if len(drawn) == count:
            numbers |= _obeyed(clip, dragged(pipe, clip, drawn, seed, hold_control=False), drawn, "_network")
    return numbers


def _obeyed(clip: Clip, flow: Tensor, drawn: list[Drag], ending: str) -> Numbers:
    count = len(drawn)
    return {
        f"drags.error_px_{count}{ending}": float(np.mean(drag_errors(flow, drawn))),
        f"drags.objmc_px_{count}{ending}": objmc(clip, flow, drawn),
        f"poke.epe_px_{count}{ending}": endpoint_error(flow, torch.from_numpy(clip.flow)).item(),
    }


def objmc(clip: Clip, flow: Tensor, drawn: list[Drag]) -> float:
    """ObjMC in pixels: mean distance, over drags and future frames, of the tracks of their starts under `flow`,
    `(N, 2, H, W)`, from those in the clip.
    """
    starts = np.array([drag.points[0] for drag in drawn]).round().astype(int)  # (P, 2)
    x, y = starts.T
    return trajectory_error(flow[:, :, y, x].mT, torch.from_numpy(clip.flow)[:, :, y, x].mT).item()


def _one_drag(clip: Clip, flow: Tensor, drag: Drag, ending: str) -> Numbers:
    length = float(np.linalg.norm(np.subtract(drag.points[-1], drag.points[0])))
    true = torch.from_numpy(clip.flow[-1])
    error = (flow[-1] - true).norm(dim=0)[true.norm(dim=0) > 1]
    return {
        f"drags.error_relative{ending}": drag_errors(flow, [drag])[0] / length,
        f"drags.epe_moving{ending}_px": error.mean().item(),
    }


def dragged(pipe: MotionI2VPipeline, clip: Clip, drawn: list[Drag], seed: int, **options: object) -> Tensor:
    """The flow `(N, 2, H, W)` from frame 0 and the drags, no caption; `options` are those of `predict_motion`."""
    height, width = clip.frames.shape[1:3]
    control = MotionControl(size=(width, height), drags=drawn)
    output = pipe.predict_motion(clip.frames[0], "", control, stride=clip.stride, generator=noise(seed), **options)
    return output.flow[0].cpu()


def drag_errors(flow: Tensor, drawn: list[Drag]) -> list[float]:
    """For each drag, how many pixels from its end `flow`, `(N, 2, H, W)`, takes its start."""
    errors = []
    for drag in drawn:
        start, end = np.array(drag.points[0]), np.array(drag.points[-1])
        x, y = start.round().astype(int)
        errors.append(float(np.linalg.norm(start + flow[-1, :, y, x].numpy() - end)))
    return errors


def anchors(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """`anchors.drift_px`: one drag and three anchors on points that stay; how far the anchored points move."""
    drag, still = true_drag(clip), np.linalg.norm(clip.flow, axis=1).max(0) < STILL_PX
    inner = cv2.distanceTransform(np.pad(still, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    places = np.argwhere(inner > 6)
    if drag is None or len(places) < 50:
        return {}
    chosen = places[np.random.default_rng(seed).choice(len(places), 3, replace=False)]
    height, width = clip.frames.shape[1:3]
    held = [Anchor((float(x), float(y))) for y, x in chosen]
    control = MotionControl(size=(width, height), drags=[drag], anchors=held)
    output = pipe.predict_motion(clip.frames[0], "", control, stride=clip.stride, generator=noise(seed))
    drift = [output.flow[0, -1, :, y, x].norm().item() for y, x in chosen]
    return {"anchors.drift_px": float(np.mean(drift))}


def brush(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """The caption with a brush over what moves: `brush.leakage_px`, mean length of the flow outside the brush;
    `brush.leakage_levels`, mean change of the pixels outside between frame 0 and the last frame, in levels of 255.
    """
    moving = (np.linalg.norm(clip.flow, axis=1).max(0) >= STILL_PX).astype(np.uint8)
    region = cv2.dilate(moving, np.ones((17, 17), np.uint8)).astype(bool)
    if not 0.02 < region.mean() < 0.9:
        return {}
    height, width = clip.frames.shape[1:3]
    control = MotionControl(size=(width, height), brush=region)
    generator = noise(seed)
    output = pipe.predict_motion(clip.frames[0], clip.caption, control, stride=clip.stride, generator=generator)
    options = {"detail": "none", "generator": generator, "output_type": "pt"}
    frames = pipe.render(clip.frames[0], output, clip.caption, **options).frames[0].cpu()
    outside = torch.from_numpy(~region)
    change = (frames[-1] - frames[0]).abs()[:, outside].mean().item() * 127.5
    flow = output.flow[0].cpu()
    return {"brush.leakage_px": leakage(flow, torch.from_numpy(region)).item(), "brush.leakage_levels": change}
