"""The motion field of a clip at times between its frames, where each pixel follows a smooth track of its own.

The points of a track are joined by the monotone cubic of Fritsch and Carlson ("Monotone Piecewise Cubic Interpolation",
SIAM J. Numer. Anal. 1980) with the slopes of PCHIP. It is smooth, and between two points it stays between their values.
With it, a clip can be shown at any frame rate.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mi2v_lite.flow.preimage import bands


class FieldsInTime:
    """Flows at whole times, which can be read at any time between them.

    Time 0 is frame 0, with a flow of zero; time t is frame t. If the times that are read never decrease, each flow is
    asked for only once, and at most four are in memory.

    Args:
        fields: gives f_{0->index+1}, `(2, H, W)`, for an index from 0 to count - 1.
        count: the number of flows.
    """

    def __init__(self, fields: Callable[[int], np.ndarray], count: int) -> None:
        self._fields, self._count, self._held = fields, count, {}

    def __call__(self, time: float) -> np.ndarray:
        """Read the flow at a time.

        Args:
            time: from 0 to count, in frames.

        Returns:
            `(2, H, W)` in the unit of the flows.
        """
        first = min(int(time), self._count - 1)
        self._held = {index: field for index, field in self._held.items() if index >= first - 1}
        four = [self._at(index) for index in range(first - 1, first + 3)]
        flow = np.empty_like(four[1])
        for rows in bands(*flow.shape[1:]):
            flow[:, rows] = _monotone(*(None if f is None else f[:, rows] for f in four), np.float32(time - first))
        return flow

    def _at(self, index: int) -> np.ndarray | None:
        """The flow at a whole time; None before 0 and after the last."""
        if not 0 <= index <= self._count:
            return None
        if index not in self._held:
            self._held[index] = self._fields(index - 1) if index else np.zeros_like(self._at(1))
        return self._held[index]


def _monotone(
    before: np.ndarray | None, here: np.ndarray, there: np.ndarray, after: np.ndarray | None, t: np.float32
) -> np.ndarray:
    """The cubic from `here` (t = 0) to `there` (t = 1); the points `before` and `after` determine its slopes."""
    step = there - here
    first = _end_slope(step, after, there) if before is None else _slope(here - before, step)
    last = _end_slope(step, before, here, -1) if after is None else _slope(step, after - there)
    # The Hermite form, written as a deviation from the straight line between the two.
    return here + t * step + t * (1 - t) * ((1 - t) * (first - step) - t * (last - step))


def _slope(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The slope at an inner point: the harmonic mean of the steps on both sides, or 0 if the direction changes."""
    product = before * after
    return np.where(product > 0, 2 * product / np.where(product > 0, before + after, 1), 0)


def _end_slope(step: np.ndarray, beyond: np.ndarray | None, inner: np.ndarray, sign: int = 1) -> np.ndarray:
    """The slope at an end: that of the parabola through three points, limited so that the curve does not overshoot.

    `inner` is the neighbour of the end, and `beyond` the point after it.
    """
    if beyond is None:
        return step
    beside = sign * (beyond - inner)
    slope = 1.5 * step - 0.5 * beside
    slope = np.where(slope * step > 0, slope, 0)
    return np.where((step * beside < 0) & (np.abs(slope) > 3 * np.abs(step)), 3 * step, slope)
