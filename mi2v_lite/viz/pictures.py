"""Motion as pictures: colours on one scale, arrows, tracks, warped photos (all notebooks), and the door to the others:
`panels`, `strip`, `animation` (viz/picture.py) and `curve`, `bars`, `heat` (viz/plots.py, needs matplotlib).

Colours as in Baker et al., "A Database and Evaluation Methodology for Optical Flow": hue is direction, saturation is
length. All frames of a field share one maximum, so that their colours compare.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import flow_vis
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from mi2v_lite.flow.warp import splat_average
from mi2v_lite.viz.picture import Anything, Picture, animation, panels, strip, to_image

__all__ = [
    "Picture",
    "animation",
    "colour_wheel",
    "flow_panels",
    "flow_picture",
    "flow_to_rgb",
    "longest",
    "panels",
    "quiver",
    "strip",
    "to_image",
    "tracks",
    "warped",
    "with_tracks",
]
_PLOTS = ("COLOURS", "bars", "curve", "figure_picture", "heat", "style")


def __getattr__(name: str) -> Any:
    """The plots, loaded at first use: the command line draws flow without matplotlib."""
    if name in _PLOTS:
        return getattr(import_module("mi2v_lite.viz.plots"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


TILE = 256  # longer side of a small tile, pixels; the photo gets twice that
GAP = 16
TEXT = 20  # font size: still read when the picture is shown at half its size
INK, PAPER = (20, 20, 20), (255, 255, 255)
TRACKS = 10  # tracks along the longer side
HOLE = (255, 0, 255)  # what forward splatting leaves empty
SMOOTH = 3  # lines are drawn this much larger, then reduced


def flow_to_rgb(flow: Tensor | np.ndarray, max_flow: float | None = None) -> np.ndarray:
    """Colours of a motion field.

    Args:
        flow: `(N, 2, H, W)`, pixels, (x right, y down). Unknown flow (nan) becomes black.
        max_flow: the length in pixels that gets full colour; longer ones are shown as it. None takes the field's
            longest. One maximum for all frames.

    Returns:
        uint8 `(N, H, W, 3)`; no motion is white.

    Raises:
        ValueError: for another shape, or a maximum that is not positive.
    """
    array = _array(flow)
    top = longest(array) if max_flow is None else float(max_flow)
    if not (np.isfinite(top) and top > 0) and max_flow is not None:
        raise ValueError(f"max_flow must be a positive number of pixels, got {max_flow}.")
    known = np.isfinite(array).all(axis=1)
    array = np.where(known[:, None], array, 0) / (top or 1.0)
    # flow_vis darkens what is beyond 1, if only by rounding.
    array /= np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1) * (1 + 1e-6)
    rgb = np.stack([flow_vis.flow_uv_to_colors(u, v) for u, v in array])
    return rgb * known[..., None].astype(np.uint8)


def longest(flow: Tensor | np.ndarray) -> float:
    """Length of the longest known displacement in pixels, 0 without any. `flow`: `(N, 2, H, W)` pixels."""
    length = np.linalg.norm(_array(flow), axis=1)
    return float(np.max(length, initial=0, where=np.isfinite(length)))


def flow_picture(image: Image.Image, flow: Tensor | np.ndarray) -> Image.Image:
    """A field at a glance: photo with tracks, four frames in colour on one scale, and the wheel that reads them.

    Args:
        image: the photo, of any size; shown at the flow's. flow: `(N, 2, H, W)` pixels of its own grid.

    Returns:
        RGB picture, about 1340 pixels wide for a square photo.

    Raises:
        ValueError: for another shape of flow.
    """
    array = _array(flow)
    count, _, height, width = array.shape
    top = longest(array)
    scale = TILE / max(width, height)
    tile = (max(1, round(width * scale)), max(1, round(height * scale)))
    head = GAP + TEXT + GAP // 2  # where pictures begin, under the first line of text
    large = (2 * tile[0] + GAP, 2 * tile[1] + head)  # of the photo and of the four tiles
    side = 160  # the wheel
    legend = 11 * TEXT
    # Short photos still leave room for the wheel and its four lines.
    size = (4 * GAP + 2 * large[0] + legend, max(head + large[1] + GAP, head + side + 6 * TEXT))
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(TEXT)

    draw.text((GAP, GAP), "photo with tracks", INK, font)
    page.paste(with_tracks(image, array, (2 * tile[0], 2 * tile[1]), top), (GAP, head))

    left = 2 * GAP + large[0]
    shown = np.unique((np.arange(1, 5) * count / 4).round().clip(1).astype(int))
    for place, frame in enumerate(shown):
        x = left + (place % 2) * (tile[0] + GAP)
        y = head + (place // 2) * (tile[1] + head)
        draw.text((x, y - TEXT - GAP // 2), f"flow 0 to {frame}", INK, font)
        colours = Image.fromarray(flow_to_rgb(array[frame - 1 : frame], top or 1.0)[0])
        page.paste(colours.resize(tile, Image.Resampling.NEAREST), (x, y))
        draw.rectangle((x - 1, y - 1, x + tile[0], y + tile[1]), outline=(170, 170, 170))

    left += large[0] + GAP
    draw.text((left, GAP), "direction, length", INK, font)
    page.paste(colour_wheel(side), (left, head))
    lines = ["centre: 0 px", f"rim: {top:.3g} px", f"(longest of {count}", f"frames, {width}x{height} px)"]
    for number, line in enumerate(lines):
        draw.text((left, head + side + TEXT // 2 + number * round(1.25 * TEXT)), line, INK, font)
    return page


def colour_wheel(side: int) -> Image.Image:
    """The legend of `flow_to_rgb`: a disc where each point has the colour of the flow from the centre to it."""
    y, x = np.mgrid[:side, :side] * (2 / (side - 1)) - 1
    rgb = flow_to_rgb(np.stack([x, y])[None], 1.0)[0]
    edge = np.clip((1 - np.hypot(x, y)) * side / 2, 0, 1)[..., None]  # one pixel of smoothing
    return Image.fromarray((rgb * edge + 255 * (1 - edge)).astype(np.uint8))


def with_tracks(
    image: Image.Image, flow: Tensor | np.ndarray, size: tuple[int, int], max_flow: float, step: float | None = None
) -> Image.Image:
    """The photo with a grid of points and the ways they go, each in the colour of its last displacement.

    Args:
        image: the photo. flow: `(N, 2, H, W)` pixels of its own grid. size: (width, height) of the result.
        max_flow: the length in pixels that gets full colour. step: pixels of the flow's grid between points.

    Returns:
        RGB picture. A point that moves less than half a pixel is a small dot; unknown flow draws nothing.
    """
    array = _array(flow)
    height, width = array.shape[2:]
    colours = flow_to_rgb(array[-1:], max_flow or 1.0)[0]
    canvas = image.convert("RGB").resize((size[0] * SMOOTH, size[1] * SMOOTH), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    scale = np.array([size[0] / width, size[1] / height]) * SMOOTH
    step = step or max(width, height) / TRACKS
    thick = 2 * SMOOTH
    for y in np.arange(step / 2, height, step).astype(int):
        for x in np.arange(step / 2, width, step).astype(int):
            moves = array[:, :, y, x]
            if not np.isfinite(moves).all():
                continue
            path = (np.concatenate([np.zeros((1, 2)), moves]) + (x + 0.5, y + 0.5)) * scale
            colour = tuple(int(c) for c in colours[y, x])
            if np.linalg.norm(moves[-1]) < 0.5:
                dot(draw, path[0], thick * 0.7, (255, 255, 255))
            else:
                arrow(draw, path, thick, colour)
    return canvas.resize(size, Image.Resampling.BOX)


def flow_panels(
    fields: dict[str, Tensor | np.ndarray],
    *,
    frame: int = -1,
    max_flow: float | None = None,
    alt: str | None = None,
) -> Picture:
    """Fields compared: colours on ONE scale, and the wheel that reads them.

    Args:
        fields: title -> `(N, 2, H, W)` or `(2, H, W)` pixels. frame: which of the N is shown.
        max_flow: the length that gets full colour, pixels; the longest shown by default. alt: what is shown.
    """
    shown = {name: _array(_one(flow, frame)) for name, flow in fields.items()}
    top = max_flow or max(longest(flow) for flow in shown.values()) or 1.0
    colours = [ImageOps.expand(_enlarged(flow_to_rgb(flow, top)[0]), 2, (170, 170, 170)) for flow in shown.values()]
    wheel = Image.new("RGB", colours[0].size, PAPER)
    side = min(round(0.72 * wheel.width), round(0.9 * wheel.height))
    wheel.paste(colour_wheel(side), ((wheel.width - side) // 2, (wheel.height - side) // 2))
    titles = [*shown, f"rim: {top:.3g} px"]
    names = ", ".join(shown)
    alt = alt or f"Motion fields as colours on one scale ({names}); full colour is {top:.3g} pixels."
    return panels([*colours, wheel], titles, columns=min(len(titles), 5), alt=alt)


def quiver(
    image: Anything,
    flow: Tensor | np.ndarray,
    *,
    frame: int = -1,
    step: int | None = None,
    max_flow: float | None = None,
    alt: str | None = None,
) -> Picture:
    """The photo under arrows that end where their starts will be.

    Args:
        image: see `picture.to_image`; shown at the flow's size, enlarged. flow: `(N, 2, H, W)` or `(2, H, W)` pixels.
        frame: which of the N. step: pixels between arrows. max_flow: the length that gets full colour.
    """
    field = _one(flow, frame)
    straight = np.asarray(_array(field))  # a track of one step is an arrow
    return _tracked(image, straight, step, max_flow, alt or "The photo under arrows of its motion.")


def tracks(image: Anything, flow: Tensor | np.ndarray, *, step: int | None = None, alt: str | None = None) -> Picture:
    """The photo under the whole ways of a grid of points. Arguments as in `quiver`, flow `(N, 2, H, W)`."""
    return _tracked(image, _array(flow), step, None, alt or "The photo under the tracks of a grid of points.")


def warped(image: Anything, flow: Tensor | np.ndarray, *, frame: int = -1, alt: str | None = None) -> Picture:
    """The photo carried along the flow by forward splatting; what nothing lands on is marked in magenta.

    Args:
        image: see `picture.to_image`; resized to the flow's grid. flow: `(N, 2, H, W)` or `(2, H, W)` pixels.
    """
    field = torch.as_tensor(_array(_one(flow, frame))).float()  # (1, 2, H, W)
    height, width = field.shape[2:]
    pixels = np.array(to_image(image).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    moved, valid = splat_average(torch.from_numpy(pixels).permute(2, 0, 1)[None], field)
    rgb = moved[0].permute(1, 2, 0).clamp(0, 255).round().byte().numpy()
    holes = valid[0, 0].numpy() == 0
    rgb[holes] = HOLE
    words = f"The photo splatted along its motion; {holes.mean():.0%} of the pixels are holes, in magenta."
    return Picture(_enlarged(rgb), alt or words)


def _tracked(image: Anything, flow: np.ndarray, step: int | None, max_flow: float | None, alt: str) -> Picture:
    height, width = flow.shape[2:]
    size = _enlarged(np.zeros((height, width, 3), np.uint8)).size
    step = step or max(width, height) / TRACKS
    return Picture(with_tracks(to_image(image), flow, size, max_flow or longest(flow), step), alt)


def _one(flow: Tensor | np.ndarray, frame: int) -> Tensor | np.ndarray:
    return flow[None] if flow.ndim == 3 else flow[frame][None]


def _enlarged(rgb: np.ndarray) -> Image.Image:
    """Small fields at a whole multiple of their pixels, about 380 wide."""
    image = Image.fromarray(rgb)
    times = max(1, 384 // image.width)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def dot(draw: ImageDraw.ImageDraw, at: np.ndarray, radius: float, colour: tuple[int, ...]) -> None:
    rim = radius + SMOOTH
    draw.ellipse([*(at - rim), *(at + rim)], fill=INK)
    draw.ellipse([*(at - radius), *(at + radius)], fill=colour)


def arrow(draw: ImageDraw.ImageDraw, path: np.ndarray, thick: int, colour: tuple[int, ...]) -> None:
    """A line through `path` `(F, 2)` with a head at its end; dark rim under the colour, so it reads on any photo."""
    head = 4.0 * thick
    back = path[-1] - path
    far = np.linalg.norm(back, axis=1)
    # The head looks along the last stretch that is as long as the head: single steps may be noise.
    along = back[np.flatnonzero(far >= min(head, far.max()))[-1]]
    along = along / np.linalg.norm(along)
    across = np.array([-along[1], along[0]])
    tip = path[-1] + along * head * 0.4
    points = [tuple(point) for point in path]
    for rim, paint in ((SMOOTH, INK), (0, colour)):
        draw.line(points, paint, round(thick + 2 * rim), joint="curve")
        base = tip - along * (head + rim)
        wide = across * (head * 0.45 + 1.6 * rim)
        draw.polygon([tuple(tip + along * 2 * rim), tuple(base + wide), tuple(base - wide)], fill=paint)


def _array(flow: Tensor | np.ndarray) -> np.ndarray:
    array = flow.detach().cpu().numpy() if isinstance(flow, Tensor) else np.asarray(flow)
    array = array.astype(np.float64)
    if array.ndim != 4 or array.shape[1] != 2 or 0 in array.shape:
        raise ValueError(f"flow must be (N, 2, H, W) pixels, got {array.shape}.")
    return array
