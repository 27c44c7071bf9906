"""How well the motion obeys drags, anchors and the brush, on clips whose true motion is known.

The drags are true ones: tracks of points of the clip. Stage 1 gets them without a caption, at the clip's stride. The
paper gives no numbers for control.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from mi2v_lite.control import Anchor, Drag, MotionControl
from mi2v_lite.data.clips import Clip
from mi2v_lite.evaluation.stages import LARGE_MOTION_PX, Numbers, noise
from mi2v_lite.flow.metrics import leakage
from mi2v_lite.pipelines import MotionI2VPipeline

STILL_PX = 0.5
DRAG_COUNTS = (1, 3, 10)


def true_drag(clip: Clip, points: int = 5) -> Drag | None:
    """Returns a drag that the clip itself follows: the track of the innermost point among those that move far.

    Args:
        clip: the clip with its true motion.
        points: the number of points along the track.

    Returns:
        a drag of at least `LARGE_MOTION_PX` that stays inside the picture, or None when nothing moves so far.
    """
    far = np.linalg.norm(clip.flow[-1], axis=0) > LARGE_MOTION_PX
    inner = depth(far)
    y, x = np.unravel_index(inner.argmax(), inner.shape)
    if inner[y, x] < 4:
        return None
    return track(clip, int(x), int(y), points)


def depth(region: np.ndarray) -> np.ndarray:
    """Returns how far each pixel of a region, bool `(H, W)`, is from its rim or the picture's, in pixels."""
    return cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]


def track(clip: Clip, x: int, y: int, points: int = 5) -> Drag | None:
    """Returns the track of the pixel (x, y) through the clip as a drag, or None if it leaves the picture."""
    positions = np.concatenate([np.zeros((1, 2)), clip.flow[:, :, y, x]]) + (x, y)  # (F, 2)
    height, width = clip.flow.shape[-2:]
    if (positions < 0).any() or (positions > (width - 1, height - 1)).any():
        return None
    chosen = positions[np.linspace(0, len(positions) - 1, points).round().astype(int)]
    return Drag(points=[(float(a), float(b)) for a, b in chosen])


def true_drags(clip: Clip, count: int, seed: int) -> list[Drag]:
    """Returns `true_drag` and more tracks of the clip, spread over the picture.

    The others start at random pixels, moving or not, at least a sixteenth of the width apart.

    Args:
        clip: the clip with its true motion.
        count: how many drags to return at most.
        seed: of the random places.

    Returns:
        up to `count` drags; none where there is no `true_drag`.
    """
    first = true_drag(clip)
    if first is None:
        return []
    height, width = clip.flow.shape[-2:]
    random, drags = np.random.default_rng(seed), [first]
    for _ in range(40 * count):
        x, y = int(random.integers(4, width - 4)), int(random.integers(4, height - 4))
        nearest = min(np.hypot(x - d.points[0][0], y - d.points[0][1]) for d in drags)
        if len(drags) < count and nearest > width / 16 and (drag := track(clip, x, y)):
            drags.append(drag)
    return drags


def drag_errors(flow: Tensor, drags: list[Drag]) -> list[float]:
    """Returns for each drag how many pixels from its end the motion takes its start.

    Args:
        flow: the motion, `(N, 2, H, W)` in pixels.
        drags: in pixels of the same grid.
    """
    errors = []
    for drag in drags:
        start, end = np.array(drag.points[0]), np.array(drag.points[-1])
        x, y = start.round().astype(int)
        errors.append(float(np.linalg.norm(start + flow[-1, :, y, x].numpy() - end)))
    return errors


def drags(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """Gives 1, 3 and 10 true drags to the pipeline, and a single one to the ControlNet alone."""
    numbers: Numbers = {}
    true = torch.from_numpy(clip.flow[-1])
    for count in DRAG_COUNTS:
        drawn = true_drags(clip, count, seed)
        if len(drawn) < count:
            continue
        flow = _dragged(pipe, clip, drawn, seed)
        numbers[f"drags.error_px_{count}"] = float(np.mean(drag_errors(flow, drawn)))
        if count == 1:
            numbers["drags.epe_moving_px"] = (flow[-1] - true).norm(dim=0)[true.norm(dim=0) > 1].mean().item()
            numbers |= _network_alone(pipe, clip, drawn, seed)
    return numbers


def network_drags(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """Gives 3 and 10 true drags to the ControlNet alone, without `hold_control`."""
    numbers: Numbers = {}
    for count in DRAG_COUNTS[1:]:
        drawn = true_drags(clip, count, seed)
        if len(drawn) == count:
            numbers |= _network_alone(pipe, clip, drawn, seed)
    return numbers


def _network_alone(pipe: MotionI2VPipeline, clip: Clip, drawn: list[Drag], seed: int) -> Numbers:
    errors = drag_errors(_dragged(pipe, clip, drawn, seed, hold_control=False), drawn)
    return {f"drags.error_px_{len(drawn)}_network": float(np.mean(errors))}


def _dragged(pipe: MotionI2VPipeline, clip: Clip, drawn: list[Drag], seed: int, **options: object) -> Tensor:
    """The motion `(N, 2, H, W)` predicted from frame 0 and the drags; the options are those of `predict_motion`."""
    control = MotionControl(size=clip.frames.shape[2:0:-1], drags=drawn)
    output = pipe.predict_motion(clip.frames[0], "", control, stride=clip.stride, generator=noise(seed), **options)
    return output.flow[0].cpu()


def anchors(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """Gives one drag to the pipeline and three anchors, on points that do not move in the clip."""
    drag, still = true_drag(clip), np.linalg.norm(clip.flow, axis=1).max(0) < STILL_PX
    inner = depth(still)
    places = np.argwhere(inner > 6)
    if drag is None or len(places) < 50:
        return {}
    chosen = places[np.random.default_rng(seed).choice(len(places), 3, replace=False)]
    held = [Anchor((float(x), float(y))) for y, x in chosen]
    control = MotionControl(size=clip.frames.shape[2:0:-1], drags=[drag], anchors=held)
    output = pipe.predict_motion(clip.frames[0], "", control, stride=clip.stride, generator=noise(seed))
    drift = [output.flow[0, -1, :, y, x].norm().item() for y, x in chosen]
    return {"anchors.drift_px": float(np.mean(drift))}


def brush(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """Gives the caption to the pipeline with a brush over all that moves in the clip."""
    moving = (np.linalg.norm(clip.flow, axis=1).max(0) >= STILL_PX).astype(np.uint8)
    region = cv2.dilate(moving, np.ones((17, 17), np.uint8)).astype(bool)
    if not 0.02 < region.mean() < 0.9:
        return {}
    control = MotionControl(size=clip.frames.shape[2:0:-1], brush=region)
    output = pipe.predict_motion(clip.frames[0], clip.caption, control, stride=clip.stride, generator=noise(seed))
    return {"brush.leakage_px": leakage(output.flow[0].cpu(), torch.from_numpy(region)).item()}
