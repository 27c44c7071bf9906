"""Architecture figures: boxes with the shapes that pass through them, and the arrows between. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from mi2v_lite.viz.pictures import Picture
from mi2v_lite.viz.plots import figure_picture, style

# What a box is, and its colour.
KINDS = {"data": "#E8E8E8", "network": "#CFE3F3", "linear": "#FBE3C8", "latent": "#D4EDDF"}
WIDE, HIGH = 0.9, 0.72  # of a box, in columns and rows


@dataclass(frozen=True)
class Box:
    """One box of a figure.

    Attributes:
        name: what the box is or does; a line break begins a new line.
        shape: the shape that leaves it, or another short note.
        at: (column, row) of its middle; row 0 is at the top.
        kind: one of "data", "network", "linear" and "latent", which have different colours.
    """

    name: str
    shape: str
    at: tuple[float, float]
    kind: str = "network"


def diagram(boxes: Sequence[Box], arrows: Sequence[tuple[int, int]], *, title: str | None = None, alt: str) -> Picture:
    """Draws boxes on a grid, with arrows between them.

    Args:
        boxes: what is drawn.
        arrows: (from, to), numbers of boxes.
        title: a line above the figure.
        alt: a sentence that says what is shown.

    Returns:
        the figure as a still, 170 pixels wide for each column.
    """
    columns, rows = zip(*(box.at for box in boxes), strict=True)
    size = (1.7 * (max(columns) - min(columns) + 1), 1.05 * (max(rows) - min(rows) + 1.1))
    with style():
        figure, axes = plt.subplots(figsize=size)
        for box in boxes:
            corner = (box.at[0] - WIDE / 2, box.at[1] - HIGH / 2)
            outline = FancyBboxPatch(
                corner, WIDE, HIGH, "round,pad=0,rounding_size=0.07", fc=KINDS[box.kind], ec="#555555"
            )
            axes.add_patch(outline)
            axes.text(box.at[0], box.at[1] - 0.1, box.name, ha="center", va="center", fontsize=12)
            axes.text(box.at[0], box.at[1] + 0.22, box.shape, ha="center", va="center", fontsize=10, color="#222222")
        for start, end in arrows:
            (x, y), (u, v) = boxes[start].at, boxes[end].at
            if abs(u - x) >= abs(v - y):  # from side to side
                reach = WIDE / 2 if u > x else -WIDE / 2
                ends = ((x + reach, y), (u - reach, v))
            else:  # from below to above
                reach = HIGH / 2 if v > y else -HIGH / 2
                ends = ((x, y + reach), (u, v - reach))
            axes.add_patch(
                FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=14, color="#333333", shrinkA=0, shrinkB=0)
            )
        axes.set(xlim=(min(columns) - 0.5, max(columns) + 0.5), ylim=(max(rows) + 0.5, min(rows) - 0.5))
        axes.set_title(title or "")
        axes.axis("off")
        return figure_picture(figure, alt)
