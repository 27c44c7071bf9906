"""A clip's fields at times between its frames: each pixel follows its own track, a monotone cubic.

Through the points of a track goes the curve of Fritsch and Carlson ("Monotone Piecewise Cubic Interpolation", SIAM J.
Numer. Anal. 1980) with the slopes of PCHIP: it is smooth, and never goes beyond two neighbouring points between them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mi2v_lite.flow.preimage import bands


class FieldsInTime:
    """Fields at whole times, read at times between: the monotone cubic through 0 and all of them.

    `fields`: index 0 to count - 1 -> f_{0->index+1}, `(2, H, W)`. As the times rise each is asked for once, and four
    are held.
    """

    def __init__(self, fields: Callable[[int], np.ndarray], count: int) -> None:
        self._fields, self._count, self._held = fields, count, {}

    def __call__(self, time: float) -> np.ndarray:
        """The field at a time from 0 to count."""
        first = min(int(time), self._count - 1)
        self._held = {index: field for index, field in self._held.items() if index >= first - 1}
        four = [self._at(index) for index in range(first - 1, first + 3)]
        found = np.empty_like(four[1])
        for rows in bands(*found.shape[1:]):
            found[:, rows] = _monotone(*(None if f is None else f[:, rows] for f in four), np.float32(time - first))
        return found

    def _at(self, index: int) -> np.ndarray | None:
        """The field at a whole time, None beyond the ends."""
        if not 0 <= index <= self._count:
            return None
        if index not in self._held:
            field = self._fields(max(index - 1, 0))
            self._held[index] = field if index else np.zeros_like(field)
        return self._held[index]


def _monotone(
    before: np.ndarray | None, here: np.ndarray, there: np.ndarray, after: np.ndarray | None, t: np.float32
) -> np.ndarray:
    """Between `here` (t = 0) and `there` (t = 1), and never beyond them; `before` and `after` give the slopes."""
    step = there - here
    first = _end_slope(step, after, there) if before is None else _slope(here - before, step)
    last = _end_slope(step, before, here, -1) if after is None else _slope(step, after - there)
    # Hermite's form, about the straight line between the two.
    return here + t * step + t * (1 - t) * ((1 - t) * (first - step) - t * (last - step))


def _slope(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """At a point: the harmonic mean of the steps on both sides, 0 where it turns."""
    product = before * after
    return np.where(product > 0, 2 * product / np.where(product > 0, before + after, 1), 0)


def _end_slope(step: np.ndarray, beyond: np.ndarray | None, inner: np.ndarray, sign: int = 1) -> np.ndarray:
    """At an end: that of the parabola through three points, kept from overshooting. `beyond` lies past `inner`."""
    if beyond is None:
        return step
    beside = sign * (beyond - inner)
    slope = 1.5 * step - 0.5 * beside
    slope = np.where(slope * step > 0, slope, 0)
    return np.where((step * beside < 0) & (np.abs(slope) > 3 * np.abs(step)), 3 * step, slope)
