"""What a clip is and where clips come from: the world, the film and a store all give the same thing by number.

Serves the training recipes and the evaluation (Motion-I2V, Section 4.1: video with its flow and a caption).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

SPLITS = {"train": 0, "heldout": 1}  # part of the seed of every clip


@dataclass(frozen=True)
class Clip:
    """One clip. F frames, N = F - 1 future frames, all on an H x W grid.

    frames: uint8 (F, H, W, 3) RGB. flow: float32 (N, 2, H, W), pixels, (x right, y down), forward from frame 0.
    visibility: bool (N, H, W) on frame 0's grid: is the pixel's point still seen in frame i + 1? caption: the motion
    in words. stride: source frames between two frames; frame i is stride * i source frames after frame 0.
    """

    frames: np.ndarray
    flow: np.ndarray
    visibility: np.ndarray
    caption: str
    stride: int


class ClipSource(Protocol):
    """Anything that has clips: `World` (exact flow), `Film` (tracked flow), `ClipStore` (what either wrote)."""

    def clip(self, seed: int, /) -> Clip:
        """The clip of this number, 0 or more; the same number gives the same clip."""
        ...
