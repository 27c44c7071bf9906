"""Which point of the photo is seen at each pixel of a later frame (notebook 03).

A flow says where the pixels of frame 0 go; to draw frame i sharply, one needs the way back. Here each pixel of frame 0
is carried along as the small parallelogram into which the flow turns it, and it covers all pixels whose centres lie in
this parallelogram. There are therefore no cracks where the picture grows or turns, and the way back is exact where the
motion is affine. Where several pixels land, the one in front is seen; where none lands, there is a hole.

`mi2v_lite.flow.invert` also inverts a flow, but averages what collides. That is good for flows and not for pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch

LARGEST_STRETCH = 3.0  # what is stretched to more than this many times its size has too few pixels to be drawn
OVERLAP = 0.12  # pixels by which parallelograms are enlarged, so that rounding leaves no cracks
SEAM = 1.0  # pixels: where the slope of a flow changes by more from one pixel to the next, the flow is torn
IN_FRONT = 0.02  # difference in order, from 0 to 1, by which one thing is in front of another
PLACE_BITS = 40  # the lower bits of a key hold the place, the bits above them the order
BAND = 2**19  # pixels that are processed at a time, which bounds the memory for large photos


class Preimage(NamedTuple):
    """The way back from a frame to the photo.

    Attributes:
        x: `(H, W)` float32, the column in the photo of the point that is seen at each pixel of the frame.
        y: `(H, W)` float32, its row.
        seen: `(H, W)` bool, False in holes, where x and y have no meaning.
    """

    x: np.ndarray
    y: np.ndarray
    seen: np.ndarray


def bands(height: int, width: int, pixels: int = BAND) -> Iterator[slice]:
    """Divide the rows of a picture into bands.

    Args:
        height: of the picture.
        width: of the picture.
        pixels: about how many there are in a band.

    Yields:
        The rows of each band as a slice.
    """
    step = max(1, pixels // width)
    for first in range(0, height, step):
        yield slice(first, min(first + step, height))


def preimage(flow: np.ndarray, order: np.ndarray) -> Preimage:
    """Find the way back along a flow.

    Where things move apart, the flow is torn. Close to a tear, within about 1/250 of the shorter side, a photo mixes
    the colours of both things. On the side that is behind, these pixels are left out, since they would carry a rim of
    the wrong colour along.

    Args:
        flow: f_{0->i}, `(2, H, W)` float32 in pixels, finite.
        order: `(H, W)` float32 from 0 to 1; what is larger is nearer to the camera.

    Returns:
        The point of the photo that is seen at each pixel of frame i.
    """
    height, width = order.shape
    fx, fy = (np.ascontiguousarray(part, np.float32) for part in flow)
    inverse, drawn = _inverse_slopes(fx, fy)
    drawn &= ~_rims(fx, fy, order)
    # The nearest pixel wins, and among equals the last. Order and place form one number, so a maximum finds the winner.
    winner = torch.full((height * width,), -1, dtype=torch.int64)
    columns = np.arange(width, dtype=np.float32)
    for rows in bands(height, width):
        lines = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        x, y = columns + fx[rows], lines + fy[rows]
        left, top = np.floor(x), np.floor(y)
        rank = (order[rows].clip(0, 1) * 255).astype(np.int64) << PLACE_BITS
        key = rank | np.arange(rows.start * width, rows.stop * width).reshape(-1, width)
        for down in (0, 1):
            for right in (0, 1):
                qx, qy = left + right, top + down
                dx, dy = _back(inverse[:, rows], qx - x, qy - y)
                hit = drawn[rows] & (np.abs(dx) < 0.5 + OVERLAP) & (np.abs(dy) < 0.5 + OVERLAP)
                hit &= (qx >= 0) & (qx < width) & (qy >= 0) & (qy < height)
                target = qy[hit].astype(np.int64) * width + qx[hit].astype(np.int64)
                winner.scatter_reduce_(0, torch.from_numpy(target), torch.from_numpy(key[hit]), "amax")
    return _read_back(winner.numpy().reshape(height, width), fx, fy, inverse)


def _inverse_slopes(fx: np.ndarray, fy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of each pixel's Jacobian, `(4, H, W)` row by row, and whether it can be drawn, `(H, W)` bool."""
    height, width = fx.shape
    inverse, drawable = np.empty((4, height, width), np.float32), np.empty((height, width), bool)
    for rows in bands(height, width):
        wide = slice(max(rows.start - 1, 0), rows.stop + 1)  # differences need the neighbours on both sides
        own = slice(rows.start - wide.start, rows.stop - wide.start)
        a, b, c, d = (_slope(part[wide], axis)[own] for part in (fx, fy) for axis in (1, 0))
        a, d = 1 + a, 1 + d
        area = a * d - b * c
        drawable[rows] = (area > 1 / LARGEST_STRETCH**2) & (area < LARGEST_STRETCH**2)
        area[~drawable[rows]] = 1
        inverse[:, rows] = np.stack([d, -b, -c, a]) / area
    return inverse, drawable


def _slope(field: np.ndarray, axis: int) -> np.ndarray:
    """The smaller of the differences to the two neighbours, or 0 if their signs differ; a tear thus makes no slope."""
    step = np.diff(field, axis=axis)
    before, after = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
    before[axis], after[axis] = (1, 0), (0, 1)
    low, high = np.pad(step, before, mode="edge"), np.pad(step, after, mode="edge")
    return np.where(low * high > 0, np.where(np.abs(low) < np.abs(high), low, high), 0)


def _rims(fx: np.ndarray, fy: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The pixels close to a tear that have something nearer to the camera beside them."""
    torn = np.zeros(order.shape, bool)
    for field in (fx, fy):
        torn[:, 1:-1] |= np.abs(np.diff(field, n=2, axis=1)) > SEAM
        torn[1:-1] |= np.abs(np.diff(field, n=2, axis=0)) > SEAM
    if not torn.any():
        return torn
    reach = max(1, round(min(order.shape) / 256))
    box = np.ones((2 * reach + 1,) * 2, np.uint8)
    return (cv2.dilate(torn.astype(np.uint8), box) > 0) & (cv2.dilate(order, box) - order > IN_FRONT)


def _back(inverse: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multiply the inverse Jacobians with the vectors (x, y)."""
    return inverse[0] * x + inverse[1] * y, inverse[2] * x + inverse[3] * y


def _read_back(winner: np.ndarray, fx: np.ndarray, fy: np.ndarray, inverse: np.ndarray) -> Preimage:
    """The exact point of the photo that each pixel's winner shows there."""
    height, width = winner.shape
    box = np.ones((3, 3), np.uint8)
    seen = winner >= 0
    gaps = (cv2.morphologyEx(seen.astype(np.uint8), cv2.MORPH_CLOSE, box) > 0) & ~seen
    if gaps.any():  # single pixels that no parallelogram covers take the winner of a neighbour
        padded = np.pad(winner, 1, constant_values=-1)
        around = [padded[dy : dy + height, dx : dx + width][gaps] for dy in range(3) for dx in range(3)]
        winner[gaps] = np.max(around, axis=0)
        seen = winner >= 0
    seen = cv2.morphologyEx(seen.astype(np.uint8), cv2.MORPH_OPEN, box) > 0  # pixels that landed alone are removed
    points = np.empty((2, height, width), np.float32)
    for rows in bands(height, width):
        source = np.where(winner[rows] >= 0, winner[rows] & (2**PLACE_BITS - 1), 0)
        row, column = (part.astype(np.float32) for part in np.divmod(source, width))
        x = np.arange(width, dtype=np.float32) - column - fx.ravel()[source]
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - row - fy.ravel()[source]
        dx, dy = _back(inverse.reshape(4, -1)[:, source], x, y)
        points[0, rows], points[1, rows] = column + dx, row + dy
    return Preimage(*points, seen)
