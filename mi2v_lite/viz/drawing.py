"""How a `MotionControl` looks on its photo: the flow it asks for, before anything is sampled (notebook 04).

What drags, anchors and the brush ask for is painted as `MotionControl.field` gives it, in the colours of viz/flow.py;
things are cut out and shown where they go. `still` shows all of it as one picture. The widget DragCanvas lays `overlay`
over the photo, and draws the paths and the things of `scene` on top.
"""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mi2v_lite.control import MotionControl, Point, Thing, default_radius_of, displacements, resample
from mi2v_lite.flow.metrics import trajectory_error
from mi2v_lite.viz.flow import SMOOTH, arrow, dot, flow_to_rgb
from mi2v_lite.viz.pictures import INK, Picture

# Longer sides in pixels: of what a browser shows, of the grid on which the field is painted, and of the still.
DISPLAY, GRID, STILL = 1024, 256, 384
# The colours of the drags, in turn, by Okabe and Ito: they can be told apart with any kind of colour vision.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
MOVES, STAYS = 140, 120  # opacity, of 255
STILL_COLOUR = (25, 35, 60)  # lies over what shall stay, and over the place that a thing leaves


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
    """Paints what drags, anchors and brush ask for, as a transparent picture to lie over the photo.

    Args:
        control: what was drawn; its things are left out.
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
    # `overlay` paints the brush itself, since a thin one might vanish on the small grid.
    control = replace(control, brush=None, things=())
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
        whether it starts where the brush allows no motion.
        "anchors": for each, "point", "radius" and "half".
        "things": for each, from the farthest, the "points" and the "path" of its first drag ([] if it stays), its
        "middle", its "name" and "colour", the "box" (left, top, right, bottom) of its mask, "ground" (see `is_ground`),
        and the "poses", for each frame (a, b, x, y): a pixel z of the photo, as a complex number, goes to
        (a + ib) z + (x + iy).
        "painted": the number of pixels that may move, None without a brush.
        "auto": the default radius.
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
        "things": [
            _thing_scene(thing, number, num_frames)
            for number, thing in zip(_numbers(control), control.things, strict=True)
        ],
        "painted": None if control.brush is None else int(control.brush.sum()),
        "auto": auto,
    }


def _numbers(control: MotionControl) -> list[int]:
    """A number for each thing, from 0, in which the background does not count."""
    moving = np.cumsum([not is_ground(thing) for thing in control.things], dtype=int)
    return [int(number) - 1 for number in moving]


def _thing_scene(thing: Thing, number: int, num_frames: int) -> dict[str, Any]:
    box = mask_box(thing.mask)
    points = [list(point) for point in thing.drags[0].points] if thing.drags else []
    motion = np.concatenate([np.zeros((1, 2, 3)), thing.motion(num_frames)])
    poses = np.stack([motion[:, 0, 0] + 1, motion[:, 1, 0], motion[:, 0, 2], motion[:, 1, 2]], axis=1)
    return {
        "points": points,
        "path": resample(points, num_frames + 1).round(2).tolist() if points else [],
        "middle": list(middle(thing)),
        "poses": poses.round(5).tolist(),
        "name": chr(ord("A") + number % 26),
        "colour": COLOURS[-1 - number % len(COLOURS)],
        "box": box,
        "ground": is_ground(thing),
    }


def is_ground(thing: Thing) -> bool:
    """Whether a thing is the background that stays: it has no drag and reaches all sides of the picture.

    Args:
        thing: the thing.
    """
    height, width = thing.mask.shape
    return not thing.drags and mask_box(thing.mask) == (0, 0, width, height)


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Finds the smallest rectangle around a mask.

    Args:
        mask: bool `(height, width)`, with at least one pixel.

    Returns:
        (left, top, right, bottom) in pixels; right and bottom lie just outside.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def middle(thing: Thing) -> Point:
    """Finds the point that leads a thing on the canvas.

    Args:
        thing: the thing.

    Returns:
        the start of its first drag, or else the middle of its mask's box, (x, y) in pixels.
    """
    if thing.drags:
        return thing.drags[0].points[0]
    left, top, right, bottom = mask_box(thing.mask)
    return (left + right - 1) / 2, (top + bottom - 1) / 2


def mask_png(mask: np.ndarray) -> bytes:
    """Returns the content of a PNG file with a mask inside its box, white where it is True and else transparent.

    Args:
        mask: bool `(height, width)` of the photo; the picture is reduced as the photo is for a browser.
    """
    left, top, right, bottom = mask_box(mask)
    part = Image.fromarray(mask[top:bottom, left:right].astype(np.uint8) * 255)
    scale = min(1.0, DISPLAY / max(mask.shape))
    part = part.resize([max(1, round(length * scale)) for length in part.size], Image.Resampling.BOX)
    return png(Image.merge("LA", [Image.new("L", part.size, 255), part]))


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
    page = photo.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    page = _with_things(page, control.resized(*size), num_frames).convert("RGBA")
    page.alpha_composite(overlay(control, num_frames).resize(size, Image.Resampling.NEAREST))
    large = page.convert("RGB").resize((size[0] * SMOOTH, size[1] * SMOOTH), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(large)
    font = ImageFont.load_default(14 * SMOOTH)
    for number, thing in zip(_numbers(control), control.things, strict=True):
        for drag in thing.drags[:1]:
            path = (resample(drag.points, num_frames + 1) + 0.5) * scale * SMOOTH
            arrow(draw, path, 2 * SMOOTH, _thing_colour(number))
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


def _with_things(page: Image.Image, control: MotionControl, num_frames: int) -> Image.Image:
    """The picture with all things where they are in the last frame, in their outlines; what they leave is dimmed."""
    photo = np.asarray(page)
    shown = photo.copy()
    for thing in control.things:
        if thing.drags:
            shown[thing.mask] = (0.5 * shown[thing.mask] + 0.5 * np.array(STILL_COLOUR)).astype(np.uint8)
    for number, thing in zip(_numbers(control), control.things, strict=True):
        if is_ground(thing):
            continue
        move = thing.motion(num_frames)[-1] + np.eye(2, 3)
        size = (photo.shape[1], photo.shape[0])
        moved = cv2.warpAffine(thing.mask.astype(np.uint8), move, size) > 0
        shown[moved] = cv2.warpAffine(photo, move, size, borderMode=cv2.BORDER_REPLICATE)[moved]
        draw_outline(shown, moved, _thing_colour(number), 2)
    return Image.fromarray(shown)


def draw_outline(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, ...], width: int = 1) -> None:
    """Draws the outline of a region into a picture, with a dark rim on both sides that sets it off.

    Args:
        picture: uint8 `(H, W, 3)`, RGB, which is drawn into.
        mask: bool `(H, W)`, the region.
        colour: of the outline, RGB.
        width: of the outline in pixels; the rim is one pixel wide.
    """
    lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for ink, thick in ((INK, width + 2), (colour, width)):
        cv2.drawContours(picture, lines, -1, ink, thick)


def _thing_colour(number: int) -> tuple[int, ...]:
    return tuple(bytes.fromhex(COLOURS[-1 - number % len(COLOURS)][1:]))


def in_words(control: MotionControl) -> str:
    """Says in one sentence what is drawn.

    Args:
        control: what was drawn.

    Returns:
        the sentence.
    """
    things = [thing for thing in control.things if not is_ground(thing)]
    parts = [
        f"{len(parts)} {name}{'s' if len(parts) != 1 else ''}"
        for parts, name in ((things, "thing"), (control.drags, "drag"), (control.anchors, "anchor"))
        if parts
    ]
    if len(things) < len(control.things):
        parts.append("a background that stays")
    if control.brush is not None:
        parts.append(f"a brush over {control.brush.mean():.0%} of the pixels")
    width, height = control.size
    return f"A photo of {width}x{height} pixels with {' and '.join(parts) or 'nothing drawn on it yet'}."


def missed(control: MotionControl, flow: Tensor) -> float | None:
    """Measures how far a motion is from the drags and the things: the mean distance of the two tracks (ObjMC).

    Args:
        control: what was drawn.
        flow: `(N, 2, H, W)` in pixels of its own grid; each drag's track is read at its first point, a thing's at all
            of its pixels.

    Returns:
        the distance in pixels of the control, the mean over drags and things; None if nothing is led anywhere.
    """
    height, width = flow.shape[-2:]
    scale = torch.tensor(control.size) / torch.tensor([width, height])
    small = replace(control, brush=None).resized(width, height)
    tracks = []  # (got, wanted), each (N, 2) of a drag or (pixels, N, 2) of a thing
    for drag in small.drags:
        path = resample(drag.points, len(flow) + 1)
        tracks.append((flow[(..., *_pixel(drag.points[0]))], path[1:] - path[0]))
    for thing in small.things:
        if thing.drags:
            wanted = displacements(thing.motion(len(flow)), thing.mask)  # (N, 2, pixels)
            moved = flow[..., torch.from_numpy(thing.mask)]
            tracks.append((moved.movedim(2, 0), np.moveaxis(wanted, 2, 0)))
    if not tracks:
        return None
    errors = [
        trajectory_error(got.detach().cpu() * scale, torch.from_numpy(wanted) * scale.double())
        for got, wanted in tracks
    ]
    return float(sum(errors) / len(errors))


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
