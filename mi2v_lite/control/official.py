"""The sparse motion field exactly as the demo of the release draws it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mi2v_lite.control.parts import Point, resample
from mi2v_lite.control.squares import block_of, hold_outside, write_block


def official_field(
    tracks: Sequence[Sequence[Point]],
    painted: np.ndarray | None,
    width: int,
    height: int,
    unit: int,
    num_frames: int = 15,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw the field as the release's demo does, so that its checkpoints get the numbers that they were used with.

    This differs from `MotionControl.field`, where points must lie inside the image, single points are anchors with a
    motion of exactly zero, and an empty brush is an error.

    Args:
        tracks: lists of points (x, y) in pixels, which may leave the image. To a track of one point, a second point is
            added one pixel further right and down.
        painted: the layer of paint, (height, width), uint8 0 to 255 or bool, or None. A pixel above half may move; if
            nothing is painted, everything may.
        width: of the image, in pixels.
        height: of the image, in pixels.
        unit: radius of the blocks in pixels; in the demo 64 at 512x320.
        num_frames: N, the number of future frames.

    Returns:
        The flow (N, 2, H, W) in pixels, the mask (N, 1, H, W) float32 of 0 and 1, and the brush (H, W) bool, which is
        True where a pixel may move.

    Raises:
        ValueError: if a track has no points, or the paint has another size than the image.
    """
    flow = np.zeros((num_frames, 2, height, width), np.float32)
    mask = np.zeros((num_frames, 1, height, width), np.float32)
    for track in tracks:
        if len(track) == 0:
            raise ValueError("a track has no points; leave it out.")
        x, y = track[0]
        path = resample([(x, y), (x + 1, y + 1)] if len(track) == 1 else track, num_frames + 1)
        write_block(flow, mask, block_of((x, y), unit, (width, height)), path[1:] - path[0])
    brush = np.ones((height, width), bool) if painted is None else np.asarray(painted)
    if brush.shape != (height, width):
        raise ValueError(f"painted has shape {brush.shape}, expected (height, width) = {(height, width)}.")
    if brush.dtype != bool:
        brush = brush > 127
    if not brush.any():
        brush = np.ones_like(brush)
    hold_outside(flow, mask, brush)
    return torch.from_numpy(flow), torch.from_numpy(mask), torch.from_numpy(brush)
