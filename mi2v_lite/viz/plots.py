"""Numbers as pictures in the look of the course: curves, bars and heat maps. Needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker
from PIL import Image

from mi2v_lite.viz.pictures import Picture

# By Okabe and Ito (2008): they can be told apart with any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "os^Dv*Px"
DPI = 100  # pixels an inch


@contextmanager
def style() -> Iterator[None]:
    """Makes matplotlib draw in the fonts, sizes and colours of the course, within a `with` statement."""
    look = {
        "font.size": 12,
        "axes.titlesize": 13,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
        "figure.dpi": DPI,
        "legend.frameon": False,
        "image.interpolation": "nearest",
    }
    with matplotlib.rc_context(look):
        yield


def figure_picture(figure: plt.Figure, alt: str) -> Picture:
    """Turns a matplotlib figure into a picture, and closes the figure.

    Args:
        figure: what was drawn.
        alt: a sentence that says what it shows.

    Returns:
        the figure as a still.
    """
    buffer, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    figure.savefig(pdf, format="pdf", bbox_inches="tight")
    plt.close(figure)
    # With few colours and no dithering, a figure takes half the room.
    image = Image.open(buffer).convert("RGB").quantize(128, kmeans=2, dither=Image.Dither.NONE)
    return Picture(image.convert("RGB"), alt, pdf=pdf.getvalue())


def curve(
    series: dict[str, tuple[Sequence[float], ...]],
    *,
    xlabel: str,
    ylabel: str,
    title: str | None = None,
    log_x: bool = False,
    log_y: bool = False,
    alt: str,
) -> Picture:
    """Draws lines with a legend; a line of at most 20 points also gets markers.

    Args:
        series: name -> (x, y), one line each; or (x, y, half), with a band from y - half to y + half around it.
        xlabel: what the first axis shows, with its unit.
        ylabel: what the second axis shows, with its unit.
        title: a line above the plot.
        log_x: whether the first axis is logarithmic; its numbers are written out.
        log_y: the same for the second axis.
        alt: a sentence that says what is shown.

    Returns:
        the plot as a still.

    Raises:
        ValueError: if there is no series.
    """
    if not series:
        raise ValueError("curve needs at least one series: name -> (x, y).")
    with style():
        figure, axes = plt.subplots(figsize=(7.2, 3.8))
        for (name, (x, y, *half)), marker in zip(series.items(), MARKERS * len(series), strict=False):
            (line,) = axes.plot(x, y, label=name, linewidth=2, marker=marker if len(x) <= 20 else None)
            if half:
                low, high = np.subtract(y, half[0]), np.add(y, half[0])
                axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title or "")
        if log_x:
            axes.set_xscale("log")
            _plain_numbers(axes.xaxis)
        if log_y:
            axes.set_yscale("log")
            _plain_numbers(axes.yaxis)
        if len(series) > 4 or (len(series) > 1 and any(len(line) > 2 for line in series.values())):
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside the plot, where it covers nothing
        elif len(series) > 1:
            axes.legend()
        return figure_picture(figure, alt)


def _plain_numbers(axis: matplotlib.axis.Axis) -> None:
    """Labels a logarithmic axis 0.2, 0.5, 1, 2, 5, 10, where matplotlib writes 6 x 10^-1."""
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def bars(values: dict[str, float | tuple[float, float]], *, ylabel: str, title: str | None = None, alt: str) -> Picture:
    """Draws one bar for each value, with the number on top.

    Args:
        values: name -> value; or (value, half), with a line from value - half to value + half.
        ylabel: what the values are, with their unit.
        title: a line above the plot.
        alt: a sentence that says what is shown.

    Returns:
        the plot as a still.

    Raises:
        ValueError: if there are no values.
    """
    if not values:
        raise ValueError("bars needs at least one value: name -> number.")
    with style():
        names = [name.replace("_", "_\n") for name in values]
        widest = max(len(line) for name in names for line in name.split("\n"))  # in letters: names take the room
        figure, axes = plt.subplots(figsize=(min(max(4.0, len(names) * (0.5 + 0.11 * widest)), 9.0), 3.6))
        pairs = [value if isinstance(value, tuple) else (value, 0.0) for value in values.values()]
        heights, halves = zip(*pairs, strict=True)
        errors = {"yerr": halves, "capsize": 5} if any(halves) else {}
        rectangles = axes.bar(names, heights, color=COLOURS[0], **errors)
        axes.bar_label(rectangles, fmt="%.3g", padding=2)
        axes.margins(y=0.12)  # the number on the highest bar stays below the title
        axes.grid(axis="x", visible=False)
        axes.set(ylabel=ylabel, title=title or "")
        return figure_picture(figure, alt)


def heat(
    arrays: dict[str, np.ndarray],
    *,
    label: str,
    vmin: float | None = None,
    vmax: float | None = None,
    alt: str,
) -> Picture:
    """Draws maps side by side on one scale, with one colour bar.

    Args:
        arrays: title -> map `(H, W)`, in any form that numpy takes.
        label: what the colour bar shows, with its unit.
        vmin: the lower end of the scale; by default the smallest value of all maps.
        vmax: the upper end of the scale; by default the largest value of all maps.
        alt: a sentence that says what is shown.

    Returns:
        the maps as a still.

    Raises:
        ValueError: if there are no maps, or one is not `(H, W)`.
    """
    maps = {name: np.asarray(value, dtype=float) for name, value in arrays.items()}
    if not maps or any(value.ndim != 2 for value in maps.values()):
        raise ValueError(f"heat needs maps (H, W), got { ({name: value.shape for name, value in maps.items()}) }.")
    low = min(np.nanmin(value) for value in maps.values()) if vmin is None else vmin
    high = max(np.nanmax(value) for value in maps.values()) if vmax is None else vmax
    with style():
        figure, axes = plt.subplots(
            1, len(maps), figsize=(3.0 * len(maps) + 0.8, 3.0), squeeze=False, layout="constrained"
        )
        for axis, (name, value) in zip(axes[0], maps.items(), strict=True):
            shown = axis.imshow(value, vmin=low, vmax=high, cmap="viridis")
            axis.set(title=name, xticks=[], yticks=[])
            axis.grid(False)
        figure.colorbar(shown, ax=axes[0].tolist(), label=label, shrink=0.85)
        return figure_picture(figure, alt)
