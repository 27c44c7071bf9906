"""What a hand does to a `MotionControl` on DragCanvas: draw, move, lead, paint, undo (notebook 04).

These are plain functions from one control to the next. All coordinates are pixels of the photo, whatever the size at
which it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mi2v_lite.control import Anchor, Drag, MotionControl, Point, Thing, resample
from mi2v_lite.viz.drawing import middle
from mi2v_lite.viz.widgets import thing_edits

MOST_POINTS = 16  # of a drag that is drawn in one stroke
LONGEST_HISTORY = 100


def edited(control: MotionControl, edit: Mapping[str, Any], frames: int = 15) -> MotionControl:
    """Makes the control that follows one edit.

    Args:
        control: what was drawn before.
        edit: "do" and its arguments, plain data as a browser sends it. `index` counts from 0, `kind` is "drag",
            "anchor" or "thing", and a `radius` of None stands for the default:
            stroke (points, tolerance, radius): adds a drag along a hand's line, see `simplified`;
            drag (points, radius) and anchor (point, radius): add one;
            move (kind, index, by): moves it by (dx, dy), as far as the photo reaches;
            point (index, number, to): moves one point of a drag;
            radius (kind, index, radius) and delete (kind, index): change it, remove it;
            paint (points, size, erase): see `painted`; invert, unpaint: turn the brush round, remove it;
            clear: removes everything;
            carry (index, points, tolerance): leads a thing along a hand's line, wherever on the thing that began;
            turn (index, by, times): turns a thing by an angle and scales it, beside what it already does;
            layer (index, to): puts a thing before or behind others;
            pace (kind, index, pace): see `thing_edits.paced`.
        frames: N, the number of future frames.

    Returns:
        the new control; the old one stays as it is.

    Raises:
        ValueError: if this cannot be done; the message is for the person who draws.
    """
    match edit["do"]:
        case "stroke":
            points = simplified(edit["points"], edit["tolerance"])
            return replace(control, drags=[*control.drags, Drag(points, edit.get("radius"))])
        case "drag":
            return replace(control, drags=[*control.drags, Drag(edit["points"], edit.get("radius"))])
        case "anchor":
            return replace(control, anchors=[*control.anchors, Anchor(edit["point"], edit.get("radius"))])
        case "move" | "point" | "radius" | "pace" | "delete" | "carry" | "turn":
            kind, index = edit.get("kind", "thing"), edit["index"]
            parts = getattr(control, f"{kind}s")
            part = _part(parts, index, kind)
            changed = {"drag": _drag, "anchor": _anchor, "thing": _thing}[kind]
            new = [] if edit["do"] == "delete" else [changed(part, edit, control.size, frames)]
            return replace(control, **{f"{kind}s": [*parts[:index], *new, *parts[index + 1 :]]})
        case "layer":
            things = list(control.things)
            thing = _part(things, edit["index"], "thing")
            things.remove(thing)
            things.insert(edit["to"], thing)
            return replace(control, things=things)
        case "paint":
            return replace(control, brush=painted(control, edit["points"], edit["size"], edit["erase"]))
        case "invert":
            if control.brush is None:
                raise ValueError("there is no brush to invert: nothing is painted, and everything may move.")
            return replace(control, brush=_or_none(~control.brush))
        case "unpaint":
            return replace(control, brush=None)
        case "clear":
            return MotionControl(control.size)
    raise ValueError(f"unknown edit {edit['do']!r}.")


def simplified(points: Sequence[Point], tolerance: float) -> list[Point]:
    """Describes a hand's line by few points, for `Drag`, whose path takes equal time from each point to the next.

    The speed of the hand does not count: the points lie at equal distances along the line.

    Args:
        points: (x, y) in pixels, two or more, as dense as the pointer gave them.
        tolerance: how far in pixels the path through the points may leave the line.

    Returns:
        the fewest points whose path stays within the tolerance, 2 to 16, rounded to a tenth of a pixel.

    Raises:
        ValueError: if the line has no length.
    """
    line = np.asarray(points, np.float64).reshape(-1, 2)
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    line = line[np.concatenate([[True], steps > 0])]
    along = np.concatenate([[0], np.cumsum(steps[steps > 0])])
    if along[-1] == 0:
        raise ValueError("the drag has no length; drag further, or set an anchor to hold a point.")

    def walked(count: int) -> np.ndarray:
        at = np.linspace(0, along[-1], count)
        return np.stack([np.interp(at, along, line[:, axis]) for axis in (0, 1)], axis=1)

    fine = walked(65)
    for count in range(2, MOST_POINTS + 1):
        chosen = walked(count)
        if np.linalg.norm(resample(chosen, len(fine)) - fine, axis=1).max() <= tolerance:
            break
    return [(round(float(x), 1), round(float(y), 1)) for x, y in chosen]


def painted(control: MotionControl, points: Sequence[Point], size: float, erase: bool = False) -> np.ndarray | None:
    """Makes the brush that follows one stroke.

    Args:
        control: what was drawn before.
        points: (x, y) of the stroke in pixels; a single point paints a disc.
        size: the diameter of the stroke in pixels.
        erase: whether the stroke takes away instead of adding.

    Returns:
        bool `(height, width)`, changed where a pixel's centre lies within size / 2 of the stroke; None if no pixel is
        left.

    Raises:
        ValueError: if there is nothing to erase.
    """
    if control.brush is None and erase:
        raise ValueError("there is no brush to erase: nothing is painted, and everything may move.")
    width, height = control.size
    brush = np.zeros((height, width), bool) if control.brush is None else control.brush.copy()
    radius = size / 2
    kept = [points[0]]
    for point in points[1:]:  # a pointer gives many more points than a broad brush needs
        if math.dist(point, kept[-1]) >= radius / 4:
            kept.append(point)
    kept.append(points[-1])
    for start, end in zip(kept, kept[1:], strict=False):
        (left, right), (top, bottom) = (
            (max(0, math.floor(min(a, b) - radius)), min(length, math.ceil(max(a, b) + radius) + 1))
            for a, b, length in zip(start, end, control.size, strict=True)
        )
        x, y = np.arange(left, right) - start[0], np.arange(top, bottom)[:, None] - start[1]
        dx, dy = end[0] - start[0], end[1] - start[1]
        part = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)  # of the way, where the line is nearest
        brush[top:bottom, left:right][(x - part * dx) ** 2 + (y - part * dy) ** 2 <= radius**2] = not erase
    return _or_none(brush)


class History:
    """The controls so far, for undo and redo.

    Masks are kept as bits, so that a hundred of them, of 12 megapixels each, take 150 MB.

    Args:
        control: the first state.
    """

    def __init__(self, control: MotionControl) -> None:
        self._states = [_packed(control, None)]
        self._at = 0
        self._key: object = None

    @property
    def can_undo(self) -> bool:
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        return self._at + 1 < len(self._states)

    def push(self, control: MotionControl, key: object = None) -> None:
        """Adds a state; what was undone before is forgotten.

        Args:
            control: the new state.
            key: if it equals the key of the state before, and is not None, the new state takes that one's place.
        """
        del self._states[self._at + 1 :]
        state = _packed(control, self._states[-1])
        if key is not None and key == self._key:
            self._states[-1] = state
        else:
            self._states = [*self._states, state][-LONGEST_HISTORY:]
        self._at = len(self._states) - 1
        self._key = key

    def undo(self) -> MotionControl:
        """Goes one step back, if there is one, and returns the state there."""
        return self._go(max(self._at - 1, 0))

    def redo(self) -> MotionControl:
        """Goes one step forward, if there is one, and returns the state there."""
        return self._go(min(self._at + 1, len(self._states) - 1))

    def _go(self, to: int) -> MotionControl:
        self._at, self._key = to, None
        return self._states[to].control()


@dataclass(frozen=True, eq=False)
class _Packed:
    """A control without its masks, and the masks as bits."""

    rest: MotionControl
    brush: np.ndarray | None
    things: tuple[tuple[np.ndarray, tuple[Drag, ...]], ...]

    def control(self) -> MotionControl:
        width, height = self.rest.size

        def mask(bits: np.ndarray) -> np.ndarray:
            return np.unpackbits(bits, count=width * height).reshape(height, width).astype(bool)

        return replace(
            self.rest,
            brush=None if self.brush is None else mask(self.brush),
            things=[Thing(mask(bits), drags) for bits, drags in self.things],
        )


def _packed(control: MotionControl, before: _Packed | None) -> _Packed:
    old = [] if before is None else [before.brush, *(bits for bits, _ in before.things)]

    def packed(mask: np.ndarray) -> np.ndarray:
        bits = np.packbits(mask)
        # Most edits leave the masks as they were, and share one copy.
        return next((same for same in old if same is not None and np.array_equal(same, bits)), bits)

    return _Packed(
        replace(control, brush=None, things=()),
        None if control.brush is None else packed(control.brush),
        tuple((packed(thing.mask), thing.drags) for thing in control.things),
    )


def _part(parts: Sequence[Any], index: int, kind: str) -> Any:
    if not 0 <= index < len(parts):
        raise ValueError(f"there is no {kind} number {index + 1}; there are {len(parts)}.")
    return parts[index]


def _drag(drag: Drag, edit: Mapping[str, Any], size: tuple[int, int], frames: int) -> Drag:
    match edit["do"]:
        case "move":
            return replace(drag, points=_moved(drag.points, edit["by"], size))
        case "point":
            return replace(drag, points=_with_point(drag.points, edit))
        case "radius":
            return replace(drag, radius=edit["radius"])
        case "pace":
            return replace(drag, points=thing_edits.paced(drag.points, edit["pace"]))
    raise ValueError(f"{edit['do']!r} is nothing that a drag can do.")


def _anchor(anchor: Anchor, edit: Mapping[str, Any], size: tuple[int, int], frames: int) -> Anchor:
    match edit["do"]:
        case "move":
            return replace(anchor, point=_moved([anchor.point], edit["by"], size)[0])
        case "radius":
            return replace(anchor, radius=edit["radius"])
    raise ValueError(f"{edit['do']!r} is nothing that an anchor can do.")


def _thing(thing: Thing, edit: Mapping[str, Any], size: tuple[int, int], frames: int) -> Thing:
    points, (turn, scale) = thing_edits.path_of(thing), thing_edits.turn_and_scale(thing)
    match edit["do"]:
        case "carry":
            line = np.asarray(edit["points"], np.float64)
            points = simplified(line - line[0] + middle(thing), edit["tolerance"])
        case "move":  # where the thing is taken to; it starts where it is in the photo
            points = thing_edits.stretched(points, _moved([points[-1]], edit["by"], size)[0])
        case "point":
            points = _with_point(points, edit)
        case "pace":
            points = thing_edits.paced(points, edit["pace"])
        case "turn":
            turn, scale = turn + edit["by"], scale * edit["times"]
        case _:
            raise ValueError(f"{edit['do']!r} is nothing that a thing can do.")
    return thing_edits.led(thing, points, turn, scale, size, frames)


def _with_point(points: Sequence[Point], edit: Mapping[str, Any]) -> list[Point]:
    points = list(points)
    points[edit["number"]] = edit["to"]
    return points


def _moved(points: Sequence[Point], by: Point, size: tuple[int, int]) -> list[Point]:
    """All points moved alike, until the first of them reaches the edge."""
    given = np.asarray(points, np.float64)
    most = np.array(size) - 1 - given.max(axis=0)
    step = np.clip(by, np.minimum(-given.min(axis=0), 0), np.maximum(most, 0))
    return [(float(x), float(y)) for x, y in (given + step).round(2)]


def _or_none(brush: np.ndarray) -> np.ndarray | None:
    return brush if brush.any() else None
