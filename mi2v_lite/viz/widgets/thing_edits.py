"""What a hand does to a `Thing` on DragCanvas: lead it along a path, turn it, scale it, change its pace (notebook 04).

On the canvas a thing has one path, that of its middle, and a turn and a scale which grow evenly along it. A `Thing` has
drags instead. The first is the path. If the thing turns or scales, the second leads a point beside the middle, and two
drags determine the similarity of every frame exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mi2v_lite.control import Drag, Point, Thing, resample
from mi2v_lite.viz.drawing import middle

ARM = 0.04  # from the middle to the start of the second drag, as a share of the photo's shorter side
SMALLEST, LARGEST = 0.2, 5.0  # of the scale
FINE = 65  # points along a path where its turn or its length is measured

# How far along its path something is, when a share t of the time has passed.
PACES = {
    "even": lambda t: t,
    "starts slowly": lambda t: t**2,
    "ends slowly": lambda t: 1 - (1 - t) ** 2,
    "starts and ends slowly": lambda t: t**2 * (3 - 2 * t),
}
PACED_POINTS = 9  # of a path with another pace


def path_of(thing: Thing) -> tuple[Point, ...]:
    """Returns the points of a thing's path; twice its middle if it stays where it is.

    Args:
        thing: the thing.
    """
    return thing.drags[0].points if thing.drags else (middle(thing),) * 2


def turn_and_scale(thing: Thing) -> tuple[float, float]:
    """Measures how far a thing turns until the last frame, and how much larger it becomes.

    Args:
        thing: the thing.

    Returns:
        the angle in radians, clockwise as seen, of any number of turns; and the factor.
    """
    motion = thing.motion(FINE)
    factors = np.concatenate([[1], motion[:, 0, 0] + 1 + 1j * motion[:, 1, 0]])
    return float(np.unwrap(np.angle(factors))[-1]), float(abs(factors[-1]))


def led(thing: Thing, points: Sequence[Point], turn: float, scale: float, size: tuple[int, int], frames: int) -> Thing:
    """Gives a thing another motion.

    Args:
        thing: the thing; its old drags go.
        points: the path of its middle, two or more points (x, y) in pixels.
        turn: the angle in radians, clockwise as seen, by which it turns until the last frame.
        scale: the factor by which it grows; it is kept between 0.2 and 5.
        size: (width, height) of the photo, inside which all points are kept.
        frames: N, the number of future frames; the motion is exact in each of them.

    Returns:
        the thing with no drag, one drag or two.
    """
    scale = min(max(scale, SMALLEST), LARGEST)
    path, most = np.asarray(points, np.float64), np.array(size) - 1.0
    turns = abs(turn) > 1e-6 or abs(scale - 1) > 1e-6
    arm = ARM * min(size) if turns else 0.0
    room = np.minimum(arm * max(1.0, scale), most / 2)  # beside the path, for the second drag
    path = np.clip(path, room, most - room).round(2)
    if not turns:
        return replace(thing, drags=[Drag(path)] if np.ptp(path, axis=0).any() else [])
    share = np.linspace(0, 1, frames + 1)
    angle, length = turn * share, arm * scale**share
    beside = resample(path, frames + 1) + length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return replace(thing, drags=[Drag(path), Drag(np.clip(beside, 0, most))])


def stretched(points: Sequence[Point], end: Point) -> list[Point]:
    """Turns and stretches a path as a whole, so that it keeps its start and its shape and ends elsewhere.

    Args:
        points: the path.
        end: where it shall end.

    Returns:
        the points of the new path; only the start and `end` if the old path ends where it starts.
    """
    places = np.asarray(points, np.float64) @ (1, 1j)
    way, wanted = places[-1] - places[0], complex(*end) - places[0]
    if abs(way) < 1:
        return [points[0], tuple(end)]
    places = places[0] + (places - places[0]) * (wanted / way)
    return [(float(place.real), float(place.imag)) for place in places]


def paced(points: Sequence[Point], pace: str) -> list[Point]:
    """Gives a path another pace, which is written in the distances between its points.

    Args:
        points: the path; its own pace goes.
        pace: one of `PACES`.

    Returns:
        the same way, by other points; for the pace "even" as few as its shape needs.
    """
    fine = resample(points, FINE)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    if along[-1] == 0:
        return list(points)

    def at(share: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(share * along[-1], along, fine[:, axis]) for axis in (0, 1)], axis=1)

    for count in range(2, PACED_POINTS + 1):
        chosen = at(PACES[pace](np.linspace(0, 1, count)))
        wanted = at(PACES[pace](np.linspace(0, 1, FINE)))
        if np.linalg.norm(resample(chosen, FINE) - wanted, axis=1).max() < 0.01 * along[-1]:
            break
    return [(round(float(x), 1), round(float(y), 1)) for x, y in chosen]
