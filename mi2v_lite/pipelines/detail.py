"""Detail carried from the photo: frames of the photo's own size and of any rate (notebook 03; not in the paper).

The networks work on a small picture, and what they paint is soft. But the motion is explicit, so the photo's own pixels
can be moved along it, and Stage 2 is only needed for what the photo cannot know. A frame is composed of three pictures:

    carried   the photo, read at the places where the pixels of the frame come from (`flow.preimage`). The field is
              enlarged to the photo's grid for this, along the edges of the photo (`flow.guided`).
    backdrop  what is uncovered: the photo without its moving things (`layers.py`), continued behind them and beyond
              its border (`backdrop.py`).
    painted   Stage 2's frame, enlarged. It gives light and colour, and wins where it contradicts what was carried.

Between the frames of the networks each pixel follows its own track (`flow.between`), so a clip can have any rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from mi2v_lite.control import MotionControl
from mi2v_lite.flow.between import FieldsInTime
from mi2v_lite.flow.guided import GuidedEnlarger
from mi2v_lite.flow.preimage import Preimage, bands, preimage
from mi2v_lite.pipelines.backdrop import FEATHER, blurred, make_backdrop, read, softened
from mi2v_lite.pipelines.layers import sort_layers
from mi2v_lite.pipelines.things import HeldThings

DETAILS = ("carry", "none")

RIM_FEATHER = 0.7  # width in pixels of the soft edge of a thing
RIM = 3  # width of the rim of a thing, whose pixels mix its colours with the backdrop's: pixels of a 512-pixel photo
# Lengths below are in cells of the field's grid, colours in levels from 0 to 255.
LIGHT_SIGMA, LIGHT_LEAST = 10.0, 12.0  # light changes over wide areas; a smaller change is taken for Stage 2's error
DOUBT_SIGMA, DOUBT_FROM, DOUBT_TO = 2.0, 70.0, 110.0  # between these differences painted takes over from carried


def carry(
    photo: np.ndarray,
    flow: Tensor,
    painted: np.ndarray,
    times: Sequence[float] | None = None,
    brush: np.ndarray | None = None,
    control: MotionControl | None = None,
) -> Iterator[np.ndarray]:
    """Makes the frames of a clip at the photo's own size, one after the other.

    Args:
        photo: frame 0, uint8 `(H, W, 3)`, RGB, of any size.
        flow: f_{0->i}, `(N, 2, h, w)` in pixels of its own grid.
        painted: Stage 2's frames, uint8 `(N + 1, h', w', 3)`, of any size.
        times: the times of the frames, rising, from 0 (the photo) to N (the last field); 0, 1, ..., N if None.
        brush: bool `(H, W)`, True = may move; outside it every frame has the photo's own pixels.
        control: what was drawn on the photo, if its things shall move exactly as it says.

    Yields:
        uint8 `(H, W, 3)`, one for each time. At time 0 it is the photo itself.

    Raises:
        ValueError: for inputs that do not fit together; already at the call, not only at the first frame.
    """
    count = flow.shape[0]
    if len(painted) != count + 1:
        raise ValueError(f"{count} fields go with {count + 1} painted frames, got {len(painted)}.")
    times = np.arange(count + 1.0) if times is None else np.asarray(times, np.float64)
    if times.ndim != 1 or not (np.diff(times) >= 0).all() or not ((times >= 0) & (times <= count)).all():
        raise ValueError(f"times must rise within 0 and {count}, the number of fields, got {times}.")
    if brush is not None and brush.shape != photo.shape[:2]:
        raise ValueError(f"the brush is {brush.shape} (height, width) but the photo {photo.shape[:2]}.")
    if control is not None and control.size != photo.shape[1::-1]:
        raise ValueError(f"the control has the size {control.size} (width, height) but the photo {photo.shape[1::-1]}.")
    held = HeldThings(control, count) if control is not None and control.things else None
    enlarger = GuidedEnlarger(flow if held is None else held.beneath(flow), photo)
    return _frames(photo, enlarger, painted, times, brush, held)


def frame_times(num_fields: int, fps: float, seconds: float) -> np.ndarray:
    """The times of a clip's frames, evenly from the photo to the last field.

    Args:
        num_fields: N.
        fps: frames a second.
        seconds: length of the clip.

    Returns:
        `(max(2, round(fps * seconds)),)`, from 0 to N.

    Raises:
        ValueError: if the rate or the length is not positive and finite.
    """
    for name, value in (("fps", fps), ("seconds", seconds)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number, got {value}.")
    return np.linspace(0, num_fields, max(2, round(fps * seconds)))


def _frames(
    photo: np.ndarray,
    enlarger: GuidedEnlarger,
    painted: np.ndarray,
    times: np.ndarray,
    brush: np.ndarray | None,
    held: HeldThings | None,
) -> Iterator[np.ndarray]:
    (height, width), (h, w) = photo.shape[:2], enlarger.flow.shape[-2:]
    flow = enlarger.flow.numpy()
    painted = np.stack([cv2.resize(f, (w, h), interpolation=cv2.INTER_AREA) for f in painted]).astype(np.float32)
    small = cv2.resize(photo, (w, h), interpolation=cv2.INTER_AREA)
    layers = sort_layers(flow, small, painted)
    order = enlarger.spread(torch.from_numpy(layers.order)).numpy()
    thing = enlarger.spread(torch.from_numpy(layers.things.astype(np.float32))).numpy()
    if held is not None:
        flow = held.on_grid(h, w).write_all(flow)
        layers, order, thing = held.in_front(layers, order, thing)
    seen = [preimage(field, layers.order) for field in flow]
    light, trust = _judged(small, painted, seen)
    rim = max(1, round(RIM * min(height, width) / 512))
    solid = (thing > 0.5).astype(np.uint8)
    thing = cv2.dilate((thing > 0.05).astype(np.uint8), np.ones((2 * rim + 1,) * 2, np.uint8)) > 0
    backdrop = make_backdrop(photo, thing, layers, flow, seen, painted, light)
    behind = FieldsInTime(list(backdrop.flow).__getitem__, len(flow))

    def carried(index: int) -> np.ndarray:
        field = enlarger(index).numpy()
        return field if held is None else held.write(field, index)

    carried_along = FieldsInTime(carried, len(flow))
    for time in times:
        if time == 0:
            yield photo.copy()
            continue
        field = carried_along(time)
        if brush is not None:
            field = field * brush
        back = preimage(field, order)
        under = backdrop.places(behind(time), (height, width))
        share = _share(back, solid, under, backdrop.corner)
        shade, sure, own = (_between(pictures, time) for pictures in (light, trust, painted))
        frame = np.empty_like(photo)
        for rows in bands(height, width):
            front = read(photo, back.x[rows], back.y[rows], cv2.INTER_CUBIC, cv2.BORDER_REFLECT)
            behind_it = read(backdrop.picture, *under[:, rows], cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
            part = behind_it + share[rows, :, None] * (front - behind_it) + _enlarged(shade, (height, width), rows)
            certain = _enlarged(sure, (height, width), rows)
            if certain.min() < 1:
                painting = _enlarged(own, (height, width), rows)
                part = painting + certain[..., None] * (part - painting)
            frame[rows] = part.round().clip(0, 255)
        yield frame if brush is None else np.where(brush[..., None], frame, photo)


def _share(back: Preimage, solid: np.ndarray, under: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
    """How much the carried photo counts at each pixel, from 0 to 1; the backdrop has the rest.

    The photo fades at the border of holes. It also fades at the rim of a thing as soon as the thing has moved away from
    what was behind it, since the pixels there hold colours of both.

    Args:
        back: where the pixels of the frame come from.
        solid: uint8 `(H, W)`, 1 on the photo's things.
        under: the places in the backdrop's picture, float32 `(2, H, W)`.
        corner: where the photo's corner lies in that picture, (x, y).

    Returns:
        `(H, W)` float32.
    """
    share = softened(back.seen, FEATHER)
    if solid.any():
        there = cv2.remap(solid, back.x, back.y, cv2.INTER_NEAREST) * back.seen.astype(np.uint8)
        apart = np.hypot(back.x - under[0] + corner[0], back.y - under[1] + corner[1]).clip(0, 1)
        rim = np.where(there > 0, 1 - apart * (1 - softened(there > 0, RIM_FEATHER)), 1)
        share = np.minimum(share, rim)
    return share


def _enlarged(picture: np.ndarray, size: tuple[int, int], rows: slice) -> np.ndarray:
    """Some rows of a picture on the field's grid when it is enlarged to (height, width), bilinearly."""
    (height, width), (h, w) = size, picture.shape[:2]
    scale = np.array([[w / width, 0, 0.5 * w / width - 0.5], [0, h / height, (rows.start + 0.5) * h / height - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    part = (width, rows.stop - rows.start)
    return cv2.warpAffine(picture, scale, part, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _between(pictures: np.ndarray, time: float) -> np.ndarray:
    """Pictures `(F, ...)` of the times 0, 1, ..., interpolated at a time between them."""
    before = min(int(time), len(pictures) - 2)
    return pictures[before] + (time - before) * (pictures[before + 1] - pictures[before])


def _judged(small: np.ndarray, painted: np.ndarray, seen: list[Preimage]) -> tuple[np.ndarray, np.ndarray]:
    """Compares the photo, carried on the field's grid, with what Stage 2 painted.

    Args:
        small: the photo on that grid, uint8 `(h, w, 3)`.
        painted: Stage 2's frames on that grid, `(N + 1, h, w, 3)`.
        seen: where the cells of each frame come from.

    Returns:
        The change of light to be added, `(N + 1, h, w, 3)`, and the trust in the carried picture, `(N + 1, h, w)`,
        which is 0 where the painted frame shall win.
    """
    photo = small.astype(np.float32)
    # What the autoencoder does to the photo itself is not a change of light.
    habit = cv2.GaussianBlur(painted[0] - photo, (0, 0), DOUBT_SIGMA)
    light, trust = np.zeros_like(painted), np.ones(painted.shape[:3], np.float32)
    for i, (way, picture) in enumerate(zip(seen, painted[1:], strict=True), start=1):
        both = cv2.remap(np.dstack([photo, habit]), way.x, way.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        known = cv2.erode(way.seen.astype(np.float32), np.ones((3, 3)))
        change = picture - both[..., :3] - both[..., 3:]
        wide, _ = blurred(change, known, LIGHT_SIGMA)
        usual = known * (np.abs(change - wide).max(axis=2) < DOUBT_FROM)  # a larger one is no change of light
        wide, _ = blurred(change, usual, LIGHT_SIGMA)
        light[i] = np.sign(wide) * np.maximum(np.abs(wide) - LIGHT_LEAST, 0)
        near, much = blurred(change - light[i], known, DOUBT_SIGMA)
        doubt = (np.abs(near).max(axis=2) - DOUBT_FROM) / (DOUBT_TO - DOUBT_FROM)
        trust[i] = np.where(much > 0.5, 1 - doubt.clip(0, 1), 1)
    return light, trust
