"""What a person draws: drags and anchors, and the path of a drag in time."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

Point = tuple[float, float]


@dataclass(frozen=True)
class Drag:
    """A path which the thing at its first point shall follow.

    Attributes:
        points: two or more points (x, y) in pixels of the image, x right, y down. The path goes through all of them, in
            equal times from each to the next.
        radius: the motion is written to a square around the first point, and this is half of its side in pixels; None
            leaves it to `MotionControl.field`. A square with a radius below 8 may fall between the cells of the
            latents.

    Raises:
        ValueError: if there are fewer than two points, a point is not finite, or the radius is not positive.
    """

    points: Sequence[Point]
    radius: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.points, (Sequence, np.ndarray)) or isinstance(self.points, str):
            raise ValueError(f"the points of a drag are {_shown(self.points)}, expected two or more pairs (x, y).")
        if len(self.points) == 0:
            raise ValueError("a drag has no points; give at least a start and an end, or leave the drag out.")
        if len(self.points) == 1:
            raise ValueError(
                f"a drag has only one point, {self.points[0]}; add a point where it goes, or use an anchor to hold it."
            )
        object.__setattr__(self, "points", tuple(checked_point(point, "drag") for point in self.points))
        object.__setattr__(self, "radius", checked_radius(self.radius, "drag"))


@dataclass(frozen=True)
class Anchor:
    """A point that stays where it is. Its motion is exactly zero, and not a drag by one pixel as in the release.

    Attributes:
        point: (x, y) in pixels of the image.
        radius: as in `Drag`.

    Raises:
        ValueError: if the point is not finite, or the radius is not positive.
    """

    point: Point
    radius: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "point", checked_point(self.point, "anchor"))
        object.__setattr__(self, "radius", checked_radius(self.radius, "anchor"))


def resample(points: Sequence[Point], count: int) -> np.ndarray:
    """Read a path at equally spaced times.

    The path is a monotone cubic (PCHIP) through the points, which are themselves equally spaced in time. It does not
    overshoot: between two points, each coordinate stays between theirs. Two points give a straight line at constant
    speed.

    Equation: drag-path

    Args:
        points: two or more points (x, y).
        count: the number of times.

    Returns:
        (count, 2) float64, (x, y) in the unit of the points.
    """
    given = np.asarray(points, np.float64)
    return PchipInterpolator(np.linspace(0, 1, len(given)), given)(np.linspace(0, 1, count))


def checked_point(point: Any, what: str) -> Point:
    """A pair of finite numbers."""
    try:
        x, y = (_number(value) for value in (() if isinstance(point, str) else point))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} point {_shown(point)} is not a pair of numbers; give (x, y) in pixels.") from error
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"{what} point ({x}, {y}) is not finite; give pixel numbers (x, y).")
    return x, y


def checked_radius(radius: float | None, what: str) -> float | None:
    """A number above 0, or None."""
    if radius is None:
        return None
    try:
        number = _number(radius)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what} radius {_shown(radius)} is not a number; give pixels, or None for the default."
        ) from error
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{what} radius {_shown(radius)} must be above 0 pixels; leave it out for the default.")
    return number


def checked_size(size: Any) -> tuple[int, int]:
    """Two whole numbers above 0."""
    try:
        width, height = (_number(value) for value in (() if isinstance(size, str) else size))
    except (TypeError, ValueError) as error:
        raise ValueError(f"size {_shown(size)} is not (width, height) in pixels.") from error
    if not (width.is_integer() and height.is_integer() and width >= 1 and height >= 1):
        raise ValueError(f"size {_shown(size)} must be two whole numbers above 0: (width, height) in pixels.")
    return int(width), int(height)


def _number(value: Any) -> float:
    """The value as a float, unless it is text, true or false; one that is too large becomes infinite."""
    if isinstance(value, (str, bytes, bool, np.bool_)):
        raise TypeError
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "of thousands of digits"
