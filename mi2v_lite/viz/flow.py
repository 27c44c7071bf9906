"""Motion fields as pictures: colours on one scale, tracks, the photo carried along, and the wheel that reads colours.

The colours are those of Baker et al., "A Database and Evaluation Methodology for Optical Flow" (2011): hue is direction
and saturation is length. All frames of a field share one maximum, so that their colours can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping

import flow_vis
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from mi2v_lite.flow.warp import splat_average
from mi2v_lite.viz.pictures import INK, PAPER, Picture, Pictured, panels, side_by_side, to_image

TILE = 256  # pixels along the longer side of a small field in `flow_picture`; the photo gets twice as many
GAP = 16
TEXT = 20  # font size: it can still be read when the picture is shown at half its size
RIM = (170, 170, 170)
TRACKS = 10  # tracks along the longer side
HOLE = (255, 0, 255)  # the colour of what forward splatting leaves empty
SMOOTH = 3  # lines are drawn this many times larger and then reduced


def flow_to_rgb(flow: Tensor | np.ndarray, max_flow: float | None = None) -> np.ndarray:
    """Paints a motion field: hue is direction, saturation is length, white stands still.

    The scale is linear: a displacement of `max_flow` pixels has full colour, half of it half the saturation. It is the
    same for all frames. Give `max_flow` yourself where several fields are to be compared.

    Args:
        flow: `(N, 2, H, W)` in pixels, (x right, y down). Unknown flow (nan) becomes black.
        max_flow: the length in pixels that gets full colour; longer displacements are painted like it. By default it
            is the longest displacement of the whole field.

    Returns:
        uint8 `(N, H, W, 3)`.

    Raises:
        ValueError: for another shape, or if `max_flow` is not positive.
    """
    array = _array(flow)
    top = longest(array) if max_flow is None else float(max_flow)
    if not (np.isfinite(top) and top > 0) and max_flow is not None:
        raise ValueError(f"max_flow must be a positive number of pixels, got {max_flow}.")
    known = np.isfinite(array).all(axis=1)  # (N, H, W)
    array = np.where(known[:, None], array, 0) / (top or 1.0)
    # flow_vis darkens what is longer than 1, be it by rounding only.
    array /= np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1) * (1 + 1e-6)
    rgb = np.stack([flow_vis.flow_uv_to_colors(u, v) for u, v in array])
    return rgb * known[..., None].astype(np.uint8)


def longest(flow: Tensor | np.ndarray) -> float:
    """Measures the longest displacement of a motion field.

    Args:
        flow: `(N, 2, H, W)` in pixels; unknown flow (nan) does not count.

    Returns:
        its length in pixels; 0 if nothing is known.
    """
    length = np.linalg.norm(_array(flow), axis=1)
    return float(np.max(length, initial=0, where=np.isfinite(length)))


def flow_picture(image: Image.Image, flow: Tensor | np.ndarray) -> Image.Image:
    """Shows a field at a glance: the photo with tracks, four frames in colours on one scale, and their wheel.

    Args:
        image: the photo, of any size.
        flow: `(N, 2, H, W)` in pixels of its own grid.

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
    head = GAP + TEXT + GAP // 2  # where pictures begin, below the first line of text
    large = (2 * tile[0] + GAP, 2 * tile[1] + head)  # the size of the photo, and of the four tiles together
    side = 160  # of the wheel
    legend = 11 * TEXT  # its width
    # Beside a low photo there must still be room for the wheel and its four lines.
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
        draw.rectangle((x - 1, y - 1, x + tile[0], y + tile[1]), outline=RIM)

    left += large[0] + GAP
    draw.text((left, GAP), "direction, length", INK, font)
    page.paste(colour_wheel(side), (left, head))
    lines = ["centre: 0 px", f"rim: {top:.3g} px", f"(longest of {count}", f"frames, {width}x{height} px)"]
    for number, line in enumerate(lines):
        draw.text((left, head + side + TEXT // 2 + number * round(1.25 * TEXT)), line, INK, font)
    return page


def colour_wheel(side: int) -> Image.Image:
    """Draws the legend of `flow_to_rgb`: each point of a disc has the colour of the flow from the centre to it.

    Args:
        side: the disc's diameter in pixels.

    Returns:
        RGB picture `(side, side)`, white around the disc.
    """
    y, x = np.mgrid[:side, :side] * (2 / (side - 1)) - 1
    rgb = flow_to_rgb(np.stack([x, y])[None], 1.0)[0]
    edge = np.clip((1 - np.hypot(x, y)) * side / 2, 0, 1)[..., None]  # smooth over one pixel
    return Image.fromarray((rgb * edge + 255 * (1 - edge)).astype(np.uint8))


def with_tracks(
    image: Image.Image, flow: Tensor | np.ndarray, size: tuple[int, int], max_flow: float, step: float | None = None
) -> Image.Image:
    """Draws a grid of points and their ways over a photo, each in the colour of its last displacement.

    Args:
        image: the photo.
        flow: `(N, 2, H, W)` in pixels of its own grid.
        size: (width, height) of the result in pixels.
        max_flow: the length in pixels that gets full colour.
        step: the distance between points, in pixels of the flow's grid; by default ten fit along the longer side.

    Returns:
        RGB picture. A point that moves less than half a pixel is a small dot, and unknown flow draws nothing.
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
    fields: Mapping[str, Tensor | np.ndarray],
    *,
    frame: int = -1,
    max_flow: float | None = None,
    alt: str | None = None,
) -> Picture:
    """Compares fields: their colours on ONE scale, side by side, with the wheel that reads them.

    Args:
        fields: title -> field, `(N, 2, H, W)` or `(2, H, W)` in pixels.
        frame: which of the N frames is shown.
        max_flow: the length in pixels that gets full colour; by default the longest displacement that is shown.
        alt: a sentence that says what is shown.

    Returns:
        the fields and their wheel as one still.
    """
    shown = {name: _array(_one(flow, frame)) for name, flow in fields.items()}
    top = max_flow or max(longest(flow) for flow in shown.values()) or 1.0
    colours = [ImageOps.expand(_enlarged(flow_to_rgb(flow, top)[0]), 2, RIM) for flow in shown.values()]
    wheel = Image.new("RGB", colours[0].size, PAPER)
    side = min(round(0.72 * wheel.width), round(0.9 * wheel.height))
    wheel.paste(colour_wheel(side), ((wheel.width - side) // 2, (wheel.height - side) // 2))
    titles = [*shown, f"rim: {top:.3g} px"]
    alt = alt or f"Motion fields as colours on one scale ({', '.join(shown)}); full colour is {top:.3g} pixels."
    columns = len(titles) if len(titles) <= 5 else (len(titles) + 1) // 2
    return panels([*colours, wheel], titles, columns=columns, alt=alt)


def tracks(image: Pictured, flow: Tensor | np.ndarray, *, step: int | None = None, alt: str | None = None) -> Picture:
    """Shows the photo under the tracks of a grid of points, from frame 0 to the last.

    Args:
        image: the photo, as `to_image` takes it; it is shown at the flow's size, enlarged.
        flow: `(N, 2, H, W)` in pixels.
        step: the distance between points in pixels; by default ten fit along the longer side.
        alt: a sentence that says what is shown.

    Returns:
        the photo with its tracks as a still.
    """
    array = _array(flow)
    size = _enlarged(np.zeros((*array.shape[2:], 3), np.uint8)).size
    picture = with_tracks(to_image(image), array, size, longest(array), step)
    return Picture(picture, alt or "The photo under the tracks of a grid of points.")


def warped(image: Pictured, flow: Tensor | np.ndarray, *, frame: int = -1, alt: str | None = None) -> Picture:
    """Shows the photo carried along the flow by forward splatting, with the holes where nothing lands in magenta.

    Args:
        image: the photo, as `to_image` takes it; it is resized to the flow's grid.
        flow: `(N, 2, H, W)` or `(2, H, W)` in pixels.
        frame: along which of the N fields.
        alt: a sentence that says what is shown.

    Returns:
        the moved photo as a still.
    """
    rgb = splat_frames(image, _one(flow, frame))[0]
    holes = (rgb == HOLE).all(-1)
    words = f"The photo splatted along its motion; {holes.mean():.0%} of the pixels are holes, in magenta."
    return Picture(_enlarged(rgb), alt or words)


def splat_frames(image: Pictured, flow: Tensor | np.ndarray) -> np.ndarray:
    """Carries the photo along every field by forward splatting; holes, where nothing lands, are magenta.

    Args:
        image: the photo, as `to_image` takes it; it is resized to the flow's grid.
        flow: `(N, 2, H, W)` in pixels.

    Returns:
        uint8 `(N, H, W, 3)`, a clip for `animation` and `side_by_side`.
    """
    fields = torch.as_tensor(_array(flow)).float()
    height, width = fields.shape[2:]
    pixels = np.array(to_image(image).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    photo = torch.from_numpy(pixels).permute(2, 0, 1)[None].expand(len(fields), -1, -1, -1)
    moved, weight = splat_average(photo, fields)
    rgb = moved.permute(0, 2, 3, 1).clamp(0, 255).round().byte().numpy()  # (N, H, W, 3)
    rgb[weight[:, 0].numpy() == 0] = HOLE
    return rgb


def flow_clips(
    fields: Mapping[str, Tensor | np.ndarray],
    *,
    max_flow: float | None = None,
    columns: int | None = None,
    width: int = 760,
    fps: float = 8,
    every: int = 1,
    alt: str | None = None,
) -> Picture:
    """Compares fields as they grow: `flow_panels` that moves, with ONE scale and one wheel for all fields and frames.

    Args:
        fields: title -> field, `(N, 2, H, W)` in pixels, all of one shape.
        max_flow: the length in pixels that gets full colour; by default the longest displacement of all.
        columns: the number of fields in a row, the wheel included; all of them by default.
        width: the width of the whole, in pixels.
        fps: frames a second.
        every: the animated PNG keeps only every so many frames.
        alt: a sentence that says what is shown.

    Returns:
        the moving picture.
    """
    top = max_flow or max(longest(flow) for flow in fields.values()) or 1.0
    clips = {title: list(flow_to_rgb(flow, top)) for title, flow in fields.items()}
    height, across = next(iter(clips.values()))[0].shape[:2]
    wheel = Image.new("RGB", (across, height), PAPER)
    side = round(0.8 * min(across, height))
    wheel.paste(colour_wheel(side), ((across - side) // 2, (height - side) // 2))
    clips[f"rim: {top:.3g} px"] = [wheel] * len(next(iter(clips.values())))
    alt = alt or f"Motion fields as colours on one scale ({', '.join(fields)}); full colour is {top:.3g} pixels."
    return side_by_side(clips, columns=columns, width=width, fps=fps, every=every, alt=alt)


def _one(flow: Tensor | np.ndarray, frame: int) -> Tensor | np.ndarray:
    return flow[None] if flow.ndim == 3 else flow[frame][None]


def _enlarged(rgb: np.ndarray) -> Image.Image:
    """Small fields at a whole multiple of their pixels, about 380 wide."""
    image = Image.fromarray(rgb)
    times = max(1, 384 // image.width)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def dot(draw: ImageDraw.ImageDraw, at: np.ndarray, radius: float, colour: tuple[int, ...]) -> None:
    """Draws a dot with a dark rim, on a canvas that is `SMOOTH` times larger than the picture will be.

    Args:
        draw: what draws on the canvas.
        at: (x, y) of the centre, in pixels of the canvas.
        radius: in pixels of the canvas, without the rim.
        colour: the dot's colour.
    """
    rim = radius + SMOOTH
    draw.ellipse([*(at - rim), *(at + rim)], fill=INK)
    draw.ellipse([*(at - radius), *(at + radius)], fill=colour)


def arrow(draw: ImageDraw.ImageDraw, path: np.ndarray, thick: int, colour: tuple[int, ...]) -> None:
    """Draws a line with a head at its end, with a dark rim, so that it is seen on any photo; a dot if it leads nowhere.

    Args:
        draw: what draws on a canvas that is `SMOOTH` times larger than the picture will be.
        path: `(F, 2)`, the points (x, y) of the line in pixels of the canvas.
        thick: the line's width in pixels of the canvas, without the rim.
        colour: the arrow's colour.
    """
    head = 4.0 * thick
    back = path[-1] - path
    far = np.linalg.norm(back, axis=1)
    if far.max() == 0:
        dot(draw, path[-1], thick, colour)
        return
    # The head points along the last stretch that is as long as the head, since single steps may be noise.
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
