"""Architecture figures: boxes with the shapes that pass through them, and the arrows between. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from mi2v_lite.viz.pictures import Picture
from mi2v_lite.viz.plots import figure_picture, style

# What a box is, and its colour.
KINDS = {"data": "#E8E8E8", "network": "#CFE3F3", "linear": "#FBE3C8", "latent": "#D4EDDF"}
WIDE, HIGH = 0.9, 0.72  # of a box, in columns and rows

Point = tuple[float, float]  # (column, row)


@dataclass(frozen=True)
class Box:
    """One box of a figure.

    Attributes:
        name: what the box is or does; a line break begins a new line.
        shape: the shape that leaves it, or another short note.
        at: (column, row) of its middle; rows count down.
        kind: one of "data", "network", "linear" and "latent", which have different colours.
    """

    name: str
    shape: str
    at: Point
    kind: str = "network"


def diagram(boxes: Sequence[Box], arrows: Sequence[tuple], *, title: str | None = None, alt: str) -> Picture:
    """Draws boxes on a grid, with arrows between them.

    Args:
        boxes: what is drawn.
        arrows: (from, to), numbers of boxes; or (from, to, corners), where the corners are points (column, row) at
            which the arrow bends.
        title: a line above the figure.
        alt: a sentence that says what is shown.

    Returns:
        the figure as a still, 170 pixels wide for each column.
    """
    ways = [_way(boxes[start].at, boxes[end].at, *corners) for start, end, *corners in arrows]
    columns, rows = zip(*(box.at for box in boxes), strict=True)
    bends = [x for way in ways for x, _ in way]
    left, right = min(min(columns) - 0.5, min(bends) - 0.03), max(max(columns) + 0.5, max(bends) + 0.03)
    with style():
        figure, axes = plt.subplots(figsize=(1.7 * (right - left), 1.05 * (max(rows) - min(rows) + 1.1)))
        for box in boxes:
            corner = (box.at[0] - WIDE / 2, box.at[1] - HIGH / 2)
            outline = FancyBboxPatch(
                corner, WIDE, HIGH, "round,pad=0,rounding_size=0.07", fc=KINDS[box.kind], ec="#555555"
            )
            axes.add_patch(outline)
            axes.text(box.at[0], box.at[1] - 0.1, box.name, ha="center", va="center", fontsize=12)
            axes.text(box.at[0], box.at[1] + 0.22, box.shape, ha="center", va="center", fontsize=10, color="#222222")
        for way in ways:
            line = FancyArrowPatch(path=Path(way), arrowstyle="-|>", mutation_scale=14, color="#333333")
            axes.add_patch(line)
        axes.set(xlim=(left, right), ylim=(max(rows) + 0.5, min(rows) - 0.5))
        axes.set_title(title or "")
        axes.axis("off")
        return figure_picture(figure, alt)


def _way(start: Point, end: Point, corners: Sequence[Point] = ()) -> list[Point]:
    """The points of an arrow from the side of one box, over its corners, to the side of another."""
    first, last = (corners[0], corners[-1]) if corners else (end, start)
    return [_side(start, first), *corners, _side(end, last)]


def _side(box: Point, towards: Point) -> Point:
    """The middle of that side of a box which faces a point."""
    (x, y), (u, v) = box, towards
    if abs(u - x) >= abs(v - y):
        return (x + (WIDE / 2 if u > x else -WIDE / 2), y)
    return (x, y + (HIGH / 2 if v > y else -HIGH / 2))
