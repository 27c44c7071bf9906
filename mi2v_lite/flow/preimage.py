"""Which point of the photo is seen at each pixel of a later frame (notebook 03).

A field says where the pixels of frame 0 go; to draw frame i sharply one needs the way back. Each pixel of frame 0 is
carried as the small parallelogram that the field makes of it, and covers the pixels whose centres lie in it: so there
are no cracks where the picture grows or turns, and the point that is read is exact where the motion is affine. Where
several land the one in front is seen; where none lands is a hole.

This is the inverse of `mi2v_lite.flow.invert` made for pictures: that one averages what collides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch

LARGEST_STRETCH = 3.0  # times as long: what is stretched more has too few pixels to be drawn
OVERLAP = 0.12  # pixels: parallelograms are drawn so much larger, for rounding
SEAM = 1.0  # pixels: a field that bends more from one pixel to the next is torn there
IN_FRONT = 0.02  # of the order's range
PLACE_BITS = 40  # of a key; above them stands the order
BAND = 2**19  # pixels worked on at a time: bounds the memory for large photos


class Preimage(NamedTuple):
    """The way back from a frame to the photo.

    x, y: `(H, W)` float32, the point of the photo seen at each pixel. seen: `(H, W)` bool, False in holes, where x and
    y mean nothing.
    """

    x: np.ndarray
    y: np.ndarray
    seen: np.ndarray


def bands(height: int, width: int) -> Iterator[slice]:
    """The rows of a picture in parts of about `BAND` pixels."""
    step = max(1, BAND // width)
    for first in range(0, height, step):
        yield slice(first, min(first + step, height))


def preimage(flow: np.ndarray, order: np.ndarray) -> Preimage:
    """Go back along a field.

    Pixels beside a tear, on the side that is behind, are left out where a photo mixes the colours of both sides, about
    a two hundred and fiftieth of its shorter side: they would be carried as a rim of the wrong thing.

    Args:
        flow: f_{0->i}, `(2, H, W)` float32 in pixels, finite. order: `(H, W)` float32, 0 to 1; larger is nearer.

    Returns:
        `Preimage`.
    """
    height, width = order.shape
    fx, fy = (np.ascontiguousarray(part, np.float32) for part in flow)
    inverse, drawn = _inverse_slopes(fx, fy)
    drawn &= ~_rims(fx, fy, order)
    # The nearest wins, and of equals the last: order and place in one number, so that a maximum finds both.
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
    """The inverse of each pixel's Jacobian, `(4, H, W)` row by row, and where it can be drawn, `(H, W)` bool."""
    height, width = fx.shape
    inverse, good = np.empty((4, height, width), np.float32), np.empty((height, width), bool)
    for rows in bands(height, width):
        wide = slice(max(rows.start - 1, 0), rows.stop + 1)  # the differences need both neighbours
        own = slice(rows.start - wide.start, rows.stop - wide.start)
        a, b, c, d = (_slope(part[wide], axis)[own] for part in (fx, fy) for axis in (1, 0))
        a, d = 1 + a, 1 + d
        area = a * d - b * c
        good[rows] = (area > 1 / LARGEST_STRETCH**2) & (area < LARGEST_STRETCH**2)
        area[~good[rows]] = 1
        inverse[:, rows] = np.stack([d, -b, -c, a]) / area
    return inverse, good


def _slope(field: np.ndarray, axis: int) -> np.ndarray:
    """Of the differences to both neighbours the smaller, 0 where they disagree: so a tear makes no slope."""
    step = np.diff(field, axis=axis)
    before, after = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
    before[axis], after[axis] = (1, 0), (0, 1)
    low, high = np.pad(step, before, mode="edge"), np.pad(step, after, mode="edge")
    return np.where(low * high > 0, np.where(np.abs(low) < np.abs(high), low, high), 0)


def _rims(fx: np.ndarray, fy: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The pixels beside a tear that have something nearer at their side."""
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
    return inverse[0] * x + inverse[1] * y, inverse[2] * x + inverse[3] * y


def _read_back(winner: np.ndarray, fx: np.ndarray, fy: np.ndarray, inverse: np.ndarray) -> Preimage:
    """The exact point of each pixel's winner."""
    height, width = winner.shape
    box = np.ones((3, 3), np.uint8)
    seen = winner >= 0
    gaps = (cv2.morphologyEx(seen.astype(np.uint8), cv2.MORPH_CLOSE, box) > 0) & ~seen
    if gaps.any():  # single pixels that no parallelogram met take a neighbour's
        padded = np.pad(winner, 1, constant_values=-1)
        around = [padded[dy : dy + height, dx : dx + width][gaps] for dy in range(3) for dx in range(3)]
        winner[gaps] = np.max(around, axis=0)
        seen = winner >= 0
    seen = cv2.morphologyEx(seen.astype(np.uint8), cv2.MORPH_OPEN, box) > 0  # and single ones that landed are dust
    found = np.empty((2, height, width), np.float32)
    for rows in bands(height, width):
        source = np.where(winner[rows] >= 0, winner[rows] & (2**PLACE_BITS - 1), 0)
        row, column = (part.astype(np.float32) for part in np.divmod(source, width))
        x = np.arange(width, dtype=np.float32) - column - fx.ravel()[source]
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - row - fy.ravel()[source]
        dx, dy = _back(inverse.reshape(4, -1)[:, source], x, y)
        found[0, rows], found[1, rows] = column + dx, row + dy
    return Preimage(*found, seen)
