"""How a displacement is written to a square of a motion field and its mask, and how a brush holds the rest."""

from __future__ import annotations

import math

import numpy as np

from mi2v_lite.control.parts import Point

Block = tuple[slice, slice]


def block_of(point: Point, radius: float, size: tuple[int, int]) -> Block:
    """The release's block: rows y-r to y+r-1 and columns x-r to x+r-1 around the nearest pixel, cut at the border."""
    half = max(1, round(radius))

    def cut(centre: float, length: int) -> slice:
        middle = math.floor(centre + 0.5)
        return slice(min(max(middle - half, 0), length), min(max(middle + half, 0), length))

    return cut(point[1], size[1]), cut(point[0], size[0])


def write_block(flow: np.ndarray, mask: np.ndarray, block: Block, displacement: np.ndarray) -> None:
    """Set a block of the flow (N, 2, H, W) to the displacement (N, 2), and its mask to 1."""
    flow[(..., *block)] = displacement[:, :, None, None]
    mask[(..., *block)] = 1


def hold_outside(flow: np.ndarray, mask: np.ndarray, brush: np.ndarray) -> None:
    flow[..., ~brush] = 0
    mask[..., ~brush] = 1


def distance_from(point: Point, size: tuple[int, int]) -> np.ndarray:
    """The distance of each pixel from the point as squares measure it (Chebyshev), (H, W) in pixels."""
    x = np.abs(np.arange(size[0]) - point[0])
    y = np.abs(np.arange(size[1]) - point[1])
    return np.maximum(x[None], y[:, None])
