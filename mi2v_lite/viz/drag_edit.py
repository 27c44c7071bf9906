"""What a hand does to a `MotionControl`: draw, move, paint, undo (notebook 04; the widget is viz/drag_canvas.py).

Plain functions from one control to the next. All coordinates are pixels of the photo, whatever size it is shown at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mi2v_lite.control import Anchor, Drag, MotionControl, Point, resample

MOST_POINTS = 16  # of a drag drawn in one stroke
LONGEST_HISTORY = 100


def edited(control: MotionControl, edit: Mapping[str, Any]) -> MotionControl:
    """The control after one edit.

    Args:
        edit: "do" and its arguments, plain data as a browser sends it; `index` counts from 0, `kind` is "drag" or
            "anchor", `radius` None is the default one:
            stroke (points, tolerance, radius): a drag along a hand's line, see `simplified`.
            drag (points, radius); anchor (point, radius); delete (kind, index); radius (kind, index, radius).
            move (kind, index, by): by (dx, dy), as far as the photo reaches. point (index, number, to): of a drag.
            paint (points, size, erase): see `painted`. invert, unpaint: the brush. clear: everything.
            background: anchors all over but about the drags, see `MotionControl.anchor_background`.

    Raises:
        ValueError: what was asked cannot be done; the message is for the person who drew.
    """
    match edit["do"]:
        case "stroke":
            points = simplified(edit["points"], edit["tolerance"])
            return replace(control, drags=[*control.drags, Drag(points, edit.get("radius"))])
        case "drag":
            return replace(control, drags=[*control.drags, Drag(edit["points"], edit.get("radius"))])
        case "anchor":
            return replace(control, anchors=[*control.anchors, Anchor(edit["point"], edit.get("radius"))])
        case "move" | "radius" | "delete":
            return _with_thing(control, edit["kind"], edit["index"], edit)
        case "point":
            drag = _thing(control.drags, edit["index"], "drag")
            points = list(drag.points)
            points[edit["number"]] = edit["to"]
            return replace(control, drags=_put(control.drags, edit["index"], [Drag(points, drag.radius)]))
        case "paint":
            return replace(control, brush=painted(control, edit["points"], edit["size"], edit["erase"]))
        case "invert":
            if control.brush is None:
                raise ValueError("nothing is painted that could be inverted; everything may move.")
            return replace(control, brush=_or_none(~control.brush))
        case "unpaint":
            return replace(control, brush=None)
        case "background":
            return control.anchor_background()
        case "clear":
            return MotionControl(control.size)
    raise ValueError(f"unknown edit {edit['do']!r}.")


def simplified(points: Sequence[Point], tolerance: float) -> list[Point]:
    """A hand's line as few points, for `Drag`, whose path runs through its points with equal time between them.

    Args:
        points: (x, y), two or more, as dense as the pointer gave them. tolerance: pixels.

    Returns:
        2 to 16 points at equal distances along the line, rounded to a tenth, the first and last as they were; the
        fewest whose path stays within `tolerance`. The speed of the hand does not count: the path is walked evenly.

    Raises:
        ValueError: the line has no length.
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
    """The control's brush after one stroke.

    Args:
        points: (x, y) of the stroke; one is a disc. size: diameter in pixels. erase: take away instead of add.

    Returns:
        bool (height, width): pixels whose centre lies within size / 2 of the line are set; None when none is left.

    Raises:
        ValueError: there is nothing to erase.
    """
    if control.brush is None and erase:
        raise ValueError("nothing is painted that could be erased; everything may move.")
    width, height = control.size
    brush = np.zeros((height, width), bool) if control.brush is None else control.brush.copy()
    radius = size / 2
    kept = [points[0]]
    for point in points[1:]:  # a pointer gives many more points than a broad brush shows
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
        part = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)  # of the way, at the nearest point
        brush[top:bottom, left:right][(x - part * dx) ** 2 + (y - part * dy) ** 2 <= radius**2] = not erase
    return _or_none(brush)


class History:
    """The controls so far, for undo and redo. Brushes are kept as bits: a hundred of 12 megapixels are 150 MB."""

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
        """Adds a state; what was undone is forgotten. Of successive ones with an equal `key` the last remains."""
        del self._states[self._at + 1 :]
        state = _packed(control, self._states[-1])
        if key is not None and key == self._key:
            self._states[-1] = state
        else:
            self._states = [*self._states, state][-LONGEST_HISTORY:]
        self._at = len(self._states) - 1
        self._key = key

    def undo(self) -> MotionControl:
        """One step back; the first state stays what it is."""
        return self._go(max(self._at - 1, 0))

    def redo(self) -> MotionControl:
        """One step forward; the last state stays what it is."""
        return self._go(min(self._at + 1, len(self._states) - 1))

    def _go(self, to: int) -> MotionControl:
        self._at, self._key = to, None
        return self._states[to].control()


@dataclass(frozen=True, eq=False)
class _Packed:
    """A control without its brush, and the brush as bits."""

    rest: MotionControl
    bits: np.ndarray | None

    def control(self) -> MotionControl:
        if self.bits is None:
            return self.rest
        width, height = self.rest.size
        flat = np.unpackbits(self.bits, count=width * height)
        return replace(self.rest, brush=flat.reshape(height, width).astype(bool))


def _packed(control: MotionControl, before: _Packed | None) -> _Packed:
    bits = None if control.brush is None else np.packbits(control.brush)
    if before is not None and bits is not None and np.array_equal(bits, before.bits):
        bits = before.bits  # most edits leave the brush as it was: one copy for all of them
    return _Packed(replace(control, brush=None), bits)


def _with_thing(control: MotionControl, kind: str, index: int, edit: Mapping[str, Any]) -> MotionControl:
    """The control with one drag or anchor moved, of another radius, or gone."""
    name = {"drag": "drags", "anchor": "anchors"}[kind]
    things = getattr(control, name)
    thing = _thing(things, index, kind)
    if edit["do"] == "delete":
        changed = []
    elif edit["do"] == "radius":
        changed = [replace(thing, radius=edit["radius"])]
    elif kind == "drag":
        changed = [replace(thing, points=_moved(thing.points, edit["by"], control.size))]
    else:
        changed = [replace(thing, point=_moved([thing.point], edit["by"], control.size)[0])]
    return replace(control, **{name: _put(things, index, changed)})


def _thing(things: Sequence[Any], index: int, kind: str) -> Any:
    if not 0 <= index < len(things):
        raise ValueError(f"there is no {kind} {index + 1}.")
    return things[index]


def _put(things: Sequence[Any], index: int, changed: Sequence[Any]) -> list[Any]:
    return [*things[:index], *changed, *things[index + 1 :]]


def _moved(points: Sequence[Point], by: Point, size: tuple[int, int]) -> list[Point]:
    """All points moved alike, as far as the first of them to reach the edge."""
    given = np.asarray(points, np.float64)
    most = np.array(size) - 1 - given.max(axis=0)
    step = np.clip(by, np.minimum(-given.min(axis=0), 0), np.maximum(most, 0))
    return [(float(x), float(y)) for x, y in (given + step).round(2)]


def _or_none(brush: np.ndarray) -> np.ndarray | None:
    return brush if brush.any() else None
