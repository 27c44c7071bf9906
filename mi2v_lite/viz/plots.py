"""Numbers as pictures, in the look of the course: curves, bars, heat maps (all notebooks). Needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from mi2v_lite.viz.picture import Picture

# Okabe and Ito (2008): told apart with any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "os^Dv*Px"
DPI = 100


@contextmanager
def style() -> Iterator[None]:
    """Within the context, matplotlib draws in the course's fonts, sizes and colours."""
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
    """A matplotlib figure as a Picture; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    plt.close(figure)
    return Picture(Image.open(buffer).convert("RGB"), alt)


def curve(
    series: dict[str, tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    title: str | None = None,
    log_y: bool = False,
    alt: str,
) -> Picture:
    """Lines with a legend; few points also get markers.

    Args:
        series: name -> (x, y). xlabel, ylabel: with units. log_y: logarithmic second axis.

    Raises:
        ValueError: without a series.
    """
    if not series:
        raise ValueError("curve needs at least one series: name -> (x, y).")
    with style():
        figure, axes = plt.subplots(figsize=(7.2, 3.8))
        for (name, (x, y)), marker in zip(series.items(), MARKERS * len(series), strict=False):
            axes.plot(x, y, label=name, linewidth=2, marker=marker if len(x) <= 20 else None)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title or "", yscale="log" if log_y else "linear")
        if len(series) > 1:
            axes.legend()
        return figure_picture(figure, alt)


def bars(values: dict[str, float], *, ylabel: str, title: str | None = None, alt: str) -> Picture:
    """One bar a value, the number written on top. Raises ValueError without values."""
    if not values:
        raise ValueError("bars needs at least one value: name -> number.")
    with style():
        names = [name.replace("_", "_\n") for name in values]
        widest = max(len(part) for name in names for part in name.split("\n"))  # words want room, numbers do not
        figure, axes = plt.subplots(figsize=(min(max(4.0, len(names) * (0.5 + 0.11 * widest)), 9.0), 3.6))
        drawn = axes.bar(names, list(values.values()), color=COLOURS[0])
        axes.bar_label(drawn, fmt="%.3g", padding=2)
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
    """Maps side by side on one scale with one colour bar.

    Args:
        arrays: title -> `(H, W)`, anything numpy takes. label: of the colour bar, with units.
        vmin, vmax: ends of the scale; those of all maps together by default.

    Raises:
        ValueError: without maps, or for another shape.
    """
    maps = {name: np.asarray(value, dtype=float) for name, value in arrays.items()}
    if not maps or any(value.ndim != 2 for value in maps.values()):
        raise ValueError("heat needs maps of (H, W): " + str({name: value.shape for name, value in maps.items()}))
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
