"""Things: regions of a picture that a person takes hold of, and that move whole.

A drag tells where a small square goes and leaves it to the network which pixels go along. A thing says which pixels
these are. One drag shifts it; two or more also turn and scale it. This is an addition of ours: Motion-I2V has drags and
a brush, but its ControlNet was trained on the true motion under a mask, and a thing is exactly that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mi2v_lite.control.parts import Drag, resample


@dataclass(frozen=True, eq=False)
class Thing:
    """A region that moves as one piece.

    Attributes:
        mask: bool (height, width), True on the thing.
        drags: none lets the thing stay where it is; one shifts it along its path; two or more move it by the similarity
            (shift, turn and scale) that comes nearest to all of them, which is exact for two. Their radii mean nothing.

    Raises:
        ValueError: if the mask has another type or dimension, or no pixel.
    """

    mask: np.ndarray
    drags: Sequence[Drag] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", checked_mask(self.mask, "the mask of a thing", "on the thing"))
        if not self.mask.any():
            raise ValueError("the mask of a thing is empty; mark its pixels with True, or leave the thing out.")
        object.__setattr__(self, "drags", tuple(self.drags))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Thing):
            return NotImplemented
        return self.drags == other.drags and np.array_equal(self.mask, other.mask)

    __hash__ = None

    def motion(self, num_frames: int = 15) -> np.ndarray:
        """The affine motion of the thing in each future frame.

        With the starts z of the drags and their places w in a frame as complex numbers, the similarity is w = a z + b,
        and least squares give a = sum(conj(z - mean z) (w - mean w)) / sum(|z - mean z|^2).

        Equation: thing

        Args:
            num_frames: N, the number of future frames.

        Returns:
            (N, 2, 3) float64: the pixel (x, y) of frame 0 is displaced by `motion[i] @ (x, y, 1)`.
        """
        motion = np.zeros((num_frames, 2, 3))
        if not self.drags:
            return motion
        paths = np.stack([resample(drag.points, num_frames + 1) for drag in self.drags])  # (drags, N + 1, 2)
        places = paths @ (1, 1j)
        start, there = places[:, 0], places[:, 1:].T  # (drags,), (N, drags)
        arm = start - start.mean()
        length = np.sum(np.abs(arm) ** 2)
        # Drags that all start at one point cannot turn or scale anything.
        turn = (there - there.mean(1, keepdims=True)) @ arm.conj() / length if length > 0 else np.ones(num_frames)
        shift = there.mean(1) - turn * start.mean()
        motion[:, 0] = np.stack([turn.real - 1, -turn.imag, shift.real], 1)
        motion[:, 1] = np.stack([turn.imag, turn.real - 1, shift.imag], 1)
        return motion


def displacements(motion: np.ndarray, part: np.ndarray) -> np.ndarray:
    """What an affine motion does to some pixels.

    Args:
        motion: (..., 2, 3), see `Thing.motion`.
        part: bool (H, W), True for these n pixels.

    Returns:
        (..., 2, n) in pixels, in the order in which `field[..., part]` has them.
    """
    y, x = np.nonzero(part)
    return motion @ np.stack([x, y, np.ones(len(x))])


def checked_mask(mask: Any, what: str, meaning: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """A copy of a bool mask (height, width).

    Args:
        mask: the mask.
        what: its name in the messages of errors.
        meaning: what True says of a pixel.
        size: (width, height) of the picture, or None if it is not known.

    Returns:
        The copy.

    Raises:
        ValueError: if the mask has another type or size.
    """
    mask = np.array(mask)
    if mask.dtype != bool:
        raise ValueError(
            f"{what} has type {mask.dtype}, expected bool (True = {meaning}); for a 0..255 mask pass mask > 127."
        )
    if mask.ndim != 2 or (size is not None and mask.shape != (size[1], size[0])):
        expected = "(height, width)" + ("" if size is None else f" = {(size[1], size[0])}")
        raise ValueError(
            f"{what} has shape {mask.shape}, expected {expected} of the image; resize it to the image first."
        )
    return mask


def resized_mask(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """The mask of a thing on another grid.

    A larger grid takes the nearest pixel. On a smaller one, a pixel belongs to the thing if at least half of it is
    covered. A thing that covers half of no pixel keeps the pixels that it covers most, so that it never vanishes.

    Args:
        mask: bool (H, W).
        width: of the other grid.
        height: of the other grid.

    Returns:
        bool (height, width).
    """
    # Sides that grow take the nearest pixel first; those that shrink follow.
    high, wide = max(height, mask.shape[0]), max(width, mask.shape[1])
    rows = ((np.arange(high) + 0.5) * (mask.shape[0] / high)).astype(int)
    columns = ((np.arange(wide) + 0.5) * (mask.shape[1] / wide)).astype(int)
    mask = mask[rows][:, columns]
    if mask.shape == (height, width):
        return mask
    covered = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return covered >= min(0.5, covered.max())
