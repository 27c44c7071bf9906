"""How a `MotionControl` looks on its photo: the flow it asks for, before anything is sampled (notebook 04).

What `MotionControl.field` gives is painted as it is, in the colours of viz/flow.py. `still` shows all of it as one
picture; the widget DragCanvas lays `overlay` over the photo and draws the paths of `scene` on top.
"""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mi2v_lite.control import MotionControl, Point, default_radius_of, resample
from mi2v_lite.flow.metrics import trajectory_error
from mi2v_lite.viz.flow import SMOOTH, arrow, dot, flow_to_rgb
from mi2v_lite.viz.pictures import INK, Picture

# Longer sides in pixels: of what a browser shows, of the grid on which the field is painted, and of the still.
DISPLAY, GRID, STILL = 1024, 256, 384
# The colours of the drags, in turn, by Okabe and Ito: they can be told apart with any kind of colour vision.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
MOVES, STAYS = 140, 120  # opacity, of 255
STILL_COLOUR = (25, 35, 60)  # lies over what shall stay


def shown_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Reduces a size so that the longer side fits; a smaller size stays as it is.

    Args:
        size: (width, height) in pixels.
        longest: the most pixels for the longer side.

    Returns:
        (width, height) in pixels.
    """
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def overlay(control: MotionControl, num_frames: int = 15) -> Image.Image:
    """Paints what the control asks for, as a transparent picture to lie over the photo.

    Args:
        control: what was drawn.
        num_frames: N, the number of future frames; the flow to the last one is shown.

    Returns:
        RGBA, at most 1024 pixels on the longer side: flow colours where something shall move, dark where something
        shall stay (anchors, and what the brush leaves out), transparent elsewhere.
    """
    size = shown_size(control.size, DISPLAY)
    flow, mask = _field(control, num_frames)
    moving = np.linalg.norm(flow, axis=0) > 0
    pixels = np.zeros((*moving.shape, 4), np.uint8)
    pixels[mask] = (*STILL_COLOUR, STAYS)
    pixels[moving, :3] = flow_to_rgb(flow[None])[0][moving]
    pixels[moving, 3] = MOVES
    picture = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))
    if control.brush is not None:  # its edge is finer than the field's grid
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int)
            for new, old in zip(size[::-1], control.size[::-1], strict=True)
        )
        picture[~control.brush[rows][:, columns]] = (*STILL_COLOUR, STAYS)
    return Image.fromarray(picture)


def _field(control: MotionControl, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The last frame's flow (2, h, w) and mask (h, w) on a small grid; that of 12 megapixels would take 2 GB."""
    if control.brush is not None:  # `overlay` paints it itself; a thin brush might vanish on the small grid
        control = replace(control, brush=None)
    flow, mask = control.resized(*shown_size(control.size, GRID)).field(num_frames)
    return flow[-1].numpy(), mask[-1, 0].numpy() > 0


def scene(control: MotionControl, num_frames: int = 15) -> dict[str, Any]:
    """Lists what there is to draw over the photo, as plain data for a browser.

    Args:
        control: what was drawn.
        num_frames: N, the number of future frames.

    Returns:
        "drags": for each, its "points" and its "path" (N + 1 places, one a frame) as [x, y] in pixels of the photo, the
        "radius" that was given (None for the default), "half", the radius that counts, its "colour", and "held":
        whether it starts where the brush allows no motion. "anchors": for each, "point", "radius" and "half".
        "painted": the number of pixels that may move, None without a brush. "auto": the default radius.
    """
    auto = default_radius_of(control.size)
    return {
        "drags": [
            {
                "points": [list(point) for point in drag.points],
                "path": resample(drag.points, num_frames + 1).round(2).tolist(),
                "radius": drag.radius,
                "half": drag.radius or auto,
                "colour": COLOURS[number % len(COLOURS)],
                "held": control.brush is not None and not control.brush[_pixel(drag.points[0])],
            }
            for number, drag in enumerate(control.drags)
        ],
        "anchors": [
            {"point": list(anchor.point), "radius": anchor.radius, "half": anchor.radius or auto}
            for anchor in control.anchors
        ],
        "painted": None if control.brush is None else int(control.brush.sum()),
        "auto": auto,
    }


def still(photo: Image.Image, control: MotionControl, num_frames: int = 15) -> Picture:
    """Shows the photo with everything that was drawn on it, for paper and for pages without a kernel.

    Args:
        photo: the photo that was drawn on.
        control: what was drawn.
        num_frames: N, the number of future frames.

    Returns:
        a still, 384 pixels on its longer side.
    """
    scale = STILL / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    page = photo.convert("RGB").resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    page.alpha_composite(overlay(control, num_frames).resize(size, Image.Resampling.NEAREST))
    large = page.convert("RGB").resize((size[0] * SMOOTH, size[1] * SMOOTH), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(large)
    font = ImageFont.load_default(14 * SMOOTH)
    for number, drag in enumerate(control.drags):
        path = (resample(drag.points, num_frames + 1) + 0.5) * scale * SMOOTH
        colour = tuple(bytes.fromhex(COLOURS[number % len(COLOURS)][1:]))
        arrow(draw, path, 2 * SMOOTH, colour)
        for point in path[1:-1]:
            dot(draw, point, 1.5 * SMOOTH, colour)
        dot(draw, path[0], 9 * SMOOTH, colour)
        draw.text(tuple(path[0]), str(number + 1), INK, font, anchor="mm")
    for anchor in control.anchors:
        x, y = (np.array(anchor.point) + 0.5) * scale * SMOOTH
        for grow, paint in ((2 * SMOOTH, INK), (0, (255, 255, 255))):
            side = 6 * SMOOTH + grow
            draw.rectangle((x - side, y - side, x + side, y + side), fill=paint)
        draw.line((x - 4 * SMOOTH, y, x + 4 * SMOOTH, y), INK, 2 * SMOOTH)
        draw.line((x, y - 4 * SMOOTH, x, y + 4 * SMOOTH), INK, 2 * SMOOTH)
    return Picture(large.resize(size, Image.Resampling.BOX), in_words(control))


def in_words(control: MotionControl) -> str:
    """Says in one sentence what is drawn.

    Args:
        control: what was drawn.

    Returns:
        the sentence.
    """
    parts = [
        f"{len(things)} {name}{'s' if len(things) != 1 else ''}"
        for things, name in ((control.drags, "drag"), (control.anchors, "anchor"))
        if things
    ]
    if control.brush is not None:
        parts.append(f"a brush over {control.brush.mean():.0%} of the pixels")
    width, height = control.size
    return f"A photo of {width}x{height} pixels with {' and '.join(parts) or 'nothing drawn on it yet'}."


def missed(control: MotionControl, flow: Tensor) -> float | None:
    """Measures how far a motion is from the drags: the mean distance of the two tracks (ObjMC).

    Args:
        control: what was drawn.
        flow: `(N, 2, H, W)` in pixels of its own grid; each drag's track is read at its first point.

    Returns:
        the distance in pixels of the control; None if there are no drags.
    """
    if not control.drags:
        return None
    height, width = flow.shape[-2:]
    scale = np.array(control.size) / (width, height)
    wanted, got = [], []
    for drag, small in zip(control.drags, replace(control, brush=None).resized(width, height).drags, strict=True):
        path = resample(drag.points, len(flow) + 1)
        wanted.append(path[1:] - path[0])
        got.append(flow[(..., *_pixel(small.points[0]))].detach().cpu().double().numpy() * scale)
    return float(trajectory_error(torch.tensor(np.array(got)), torch.tensor(np.array(wanted))))


def _pixel(point: Point) -> tuple[int, int]:
    """(row, column) of the pixel that a point lies in."""
    return math.floor(point[1] + 0.5), math.floor(point[0] + 0.5)


def png(image: Image.Image) -> bytes:
    """Returns the content of a PNG file, packed quickly rather than well.

    Args:
        image: the picture.
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def jpeg(image: Image.Image) -> bytes:
    """Returns the content of a JPEG file, as a browser gets the photo: at most 1024 pixels on the longer side.

    Args:
        image: the photo.
    """
    buffer = io.BytesIO()
    size = shown_size(image.size, DISPLAY)
    image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
