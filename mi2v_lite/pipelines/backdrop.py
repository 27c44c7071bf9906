"""The photo without its things, continued behind them and beyond its border (used by `pipelines/detail.py`).

No photo shows what a moving thing uncovers, or what comes into view at the border when the camera moves. A single
picture of it, made once for the whole clip and moved with the camera, cannot flicker. Near the known parts it continues
the photo (Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004), and further away it turns
into what Stage 2 painted there. It has the grain of the photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mi2v_lite.flow.preimage import Preimage, bands
from mi2v_lite.pipelines.layers import Layers, grid

# Lengths are in cells of the field's grid and colours in levels from 0 to 255, unless it says otherwise.
MOST_THINGS = 0.98  # if things cover a larger part of the photo, there is no backdrop to continue
MOST_BEYOND = 0.75  # how far the backdrop is continued beyond the photo, as a part of its shorter side
INPAINT_RADIUS = 4
PAINTED_FROM = 24.0  # at this distance from the known parts, Stage 2's picture and the continuation count equally
GRAIN_SIGMA, GRAIN_LEVELS = 0.75, 30.0  # the grain is what a blur of this width removes, softly limited to these levels
GRAIN_REACH = 0.3  # the distance at which the grain has faded to a third, as a part of the shorter side
FEATHER = 1.0  # width in pixels of the soft edge of what is known


def blurred(picture: np.ndarray, weight: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian mean of a picture `(h, w, C)` with weights `(h, w)`, and the mean of the weights."""
    there = cv2.GaussianBlur(weight, (0, 0), sigma)
    total = cv2.GaussianBlur(picture * weight[..., None], (0, 0), sigma)
    return total / np.maximum(there, 1e-6)[..., None], there


def softened(seen: np.ndarray, sigma: float) -> np.ndarray:
    """1 inside a region and 0 outside, falling to 0 along the inner side of its border: `(H, W)` float32."""
    soft = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.where(seen, (2 * soft - 1).clip(0, 1), 0)


def read(picture: np.ndarray, x: np.ndarray, y: np.ndarray, mode: int, border: int) -> np.ndarray:
    """The picture at the points (x, y), float32."""
    return cv2.remap(picture, x, y, mode, borderMode=border).astype(np.float32)


@dataclass(frozen=True)
class Backdrop:
    """The photo without its things, continued beyond its border, and how it moves.

    Attributes:
        picture: uint8 `(H + 2 Y, W + 2 X, 3)`.
        corner: where the photo's corner lies in it, (X, Y) in pixels.
        flow: the motion of the picture on the field's grid, with `beyond` more cells on each side:
            `(N, 2, h + 2 beyond, w + 2 beyond)` in cells.
        beyond: the number of these cells.
    """

    picture: np.ndarray
    corner: tuple[int, int]
    flow: np.ndarray
    beyond: int

    def places(self, flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Finds the point of the picture that is seen at each pixel of a frame.

        Args:
            flow: how far the backdrop has moved, `(2, h + 2 beyond, w + 2 beyond)` in cells.
            size: (H, W) of the frame.

        Returns:
            (x, y) in pixels of the picture, float32 `(2, H, W)`.
        """
        (height, width), beyond = size, self.beyond
        h, w = flow.shape[1] - 2 * beyond, flow.shape[2] - 2 * beyond
        y, x = np.mgrid[:h, :w].astype(np.float32)
        back = -flow[:, beyond : beyond + h, beyond : beyond + w]
        for _ in range(8):  # a fixed point: the p that lands at q is q - f(p)
            place = x + back[0] + beyond, y + back[1] + beyond
            back = -np.stack(
                [cv2.remap(part, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for part in flow]
            )
        places = np.empty((2, height, width), np.float32)
        for part, there, side, small, corner in zip(places, back, (width, height), (w, h), self.corner, strict=True):
            part[:] = cv2.resize(there * np.float32(side / small), (width, height), interpolation=cv2.INTER_LINEAR)
            part += corner
        places[0] += np.arange(width, dtype=np.float32)
        places[1] += np.arange(height, dtype=np.float32)[:, None]
        return places


def make_backdrop(
    photo: np.ndarray,
    thing: np.ndarray,
    layers: Layers,
    flow: np.ndarray,
    seen: Sequence[Preimage],
    painted: np.ndarray,
    light: np.ndarray,
) -> Backdrop:
    """Continues the photo behind its things and beyond its border.

    Args:
        photo: uint8 `(H, W, 3)`.
        thing: bool `(H, W)`, the part of the photo that must not be continued.
        layers: the backdrop and the things, see `sort_layers`.
        flow: f_{0->i}, `(N, 2, h, w)` in cells.
        seen: where the cells of each frame come from.
        painted: Stage 2's frames on that grid, `(N + 1, h, w, 3)`, 0 to 255.
        light: the change of light in them, of the same shape.

    Returns:
        `Backdrop`.
    """
    (height, width), (h, w) = photo.shape[:2], flow.shape[-2:]
    reach = np.abs(np.einsum("ncA,Ayx->ncyx", layers.backdrop, grid(h, w)[:, :: h - 1, :: w - 1])).max()
    beyond = int(np.ceil(min(reach * 1.1 + 2, MOST_BEYOND * min(h, w))))
    motion = _backdrop_flow(flow, layers, beyond)

    # On the small grid: the known colours, their continuation, and what Stage 2 painted there.
    if thing.mean() > MOST_THINGS:  # nothing is left to continue
        thing = np.zeros_like(thing)
    known = cv2.resize((~thing).astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
    colours = cv2.resize(photo * (~thing)[..., None].astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
    frame = (slice(beyond, beyond + h), slice(beyond, beyond + w))
    whole = np.zeros((h + 2 * beyond, w + 2 * beyond, 3), np.float32)
    whole[frame] = colours / np.maximum(known, 1e-6)[..., None]
    hidden = np.ones(whole.shape[:2], np.uint8)
    hidden[frame] = known < 0.5
    continued = _inpainted(whole, hidden)
    shown, share = _painted_backdrop(layers, seen, motion, painted - light, beyond)
    offset = np.where(hidden[..., None] > 0, 0, whole - shown)
    matched = shown + _inpainted(offset + 128, hidden) - 128  # Stage 2's picture joins on at the border of the hole
    far = cv2.distanceTransform(hidden, cv2.DIST_L2, 5) ** 2
    weight = (share * far / (far + PAINTED_FROM**2))[..., None]
    filled = np.where(hidden[..., None] > 0, continued + weight * (matched - continued), whole).clip(0, 255)

    scale = np.array([width / w, height / h])
    corner = tuple(int(c) for c in np.ceil(beyond * scale))
    size = (width + 2 * corner[0], height + 2 * corner[1])
    # Cell centres lie at (x + 0.5) * scale - 0.5.
    place = np.hstack([np.diag(scale), ((0.5 - beyond) * scale - 0.5 + corner)[:, None]])
    picture = cv2.warpAffine(
        filled.astype(np.uint8), place, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    inside = picture[corner[1] : corner[1] + height, corner[0] : corner[0] + width]
    share = softened(~thing, FEATHER)
    for rows in bands(height, width):
        known, there = share[rows, :, None], inside[rows].astype(np.float32)
        inside[rows] = (there + known * (photo[rows] - there)).round()
    known = np.zeros(picture.shape[:2], bool)
    known[corner[1] : corner[1] + height, corner[0] : corner[0] + width] = ~thing
    _add_grain(picture, known, hidden, scale, np.array(corner) - beyond * scale)
    return Backdrop(picture, corner, motion, beyond)


def _add_grain(
    picture: np.ndarray, known: np.ndarray, hidden: np.ndarray, scale: np.ndarray, origin: np.ndarray
) -> None:
    """Gives the continued parts the grain of the photo, in place; without grain they look like fog.

    The fine detail of the known part is mirrored at its border, so that it joins on there, and fades further in. Strong
    edges are weakened, since they would be recognised as mirror images.

    Args:
        picture: uint8 `(H', W', 3)`.
        known: bool `(H', W')`.
        hidden: uint8 `(h', w')`, 1 in cells that are not known.
        scale: pixels in a cell, (x, y).
        origin: the corner of the first cell in the picture, (x, y) in pixels.
    """
    if hidden.all() or not hidden.any():
        return
    far, labels = cv2.distanceTransformWithLabels(hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    places = np.argwhere(hidden == 0)[:, ::-1]  # (n, 2), x and y
    index = np.zeros(labels.max() + 1, np.int64)
    index[labels[hidden == 0]] = np.arange(len(places))
    nearest = ((places[index[labels]] + 0.5) * scale - 0.5 + origin).astype(np.float32)  # (h', w', 2) pixels
    strength = np.exp(-far / (GRAIN_REACH * min(hidden.shape))).astype(np.float32)
    smooth = cv2.GaussianBlur(picture, (0, 0), GRAIN_SIGMA * scale.mean())
    (height, width), sides = known.shape, np.array(hidden.shape)[::-1]
    column, row = (
        np.floor((np.arange(length) + 0.5 - start) / size).clip(0, side - 1).astype(int)
        for length, start, size, side in zip((width, height), origin, scale, sides, strict=True)
    )
    for rows in bands(height, width):
        new = ~known[rows]
        if not new.any():
            continue
        there = 2 * nearest[row[rows]][:, column]
        x = there[..., 0] - np.arange(width, dtype=np.float32)
        y = there[..., 1] - np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        fine = np.subtract(*(read(part, x, y, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE) for part in (picture, smooth)))
        fine = GRAIN_LEVELS * np.tanh(fine / GRAIN_LEVELS)
        share = cv2.remap(known.astype(np.uint8), x, y, cv2.INTER_NEAREST) * strength[row[rows]][:, column] * new
        picture[rows] = (picture[rows] + share[..., None] * fine).round().clip(0, 255)


def _backdrop_flow(flow: np.ndarray, layers: Layers, beyond: int) -> np.ndarray:
    """The backdrop's motion everywhere: the affine motion, and its departure from it, continued smoothly."""
    (h, w), frame = flow.shape[-2:], slice(beyond, -beyond)
    affine = np.einsum("ncA,Ayx->ncyx", layers.backdrop, grid(h, w, beyond)).astype(np.float32)
    weight = np.zeros(affine.shape[-2:], np.float32)
    weight[frame, frame] = ~layers.things
    for whole, field in zip(affine, flow, strict=True):
        rest = np.zeros((*weight.shape, 2), np.float32)
        rest[frame, frame] = (field - whole[:, frame, frame]).transpose(1, 2, 0)
        near, sure = blurred(rest, weight, 1.5)
        wide, some = blurred(rest, weight, 8.0)
        sure, some = (2 * sure).clip(0, 1)[..., None], (8 * some).clip(0, 1)[..., None]
        whole += (sure * near + (1 - sure) * some * wide).transpose(2, 0, 1)
    return affine


def _painted_backdrop(
    layers: Layers, seen: Sequence[Preimage], motion: np.ndarray, painted: np.ndarray, beyond: int
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of what Stage 2 painted in each cell of the backdrop, `(h', w', 3)`, and 1 where it painted anything."""
    h, w = layers.things.shape
    y, x = np.mgrid[-beyond : h + beyond, -beyond : w + beyond].astype(np.float32)
    total, weight = np.zeros((*x.shape, 3), np.float32), np.zeros(x.shape, np.float32)
    for way, there, picture in zip(seen, motion, painted[1:], strict=True):
        covered = cv2.remap(layers.things.astype(np.float32), way.x, way.y, cv2.INTER_LINEAR) * way.seen
        free = (cv2.dilate(covered, np.ones((3, 3))) < 0.1).astype(np.float32)
        place = x + there[0], y + there[1]
        free = cv2.remap(free, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        total += free[..., None] * cv2.remap(picture, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        weight += free
    known = (weight > 0.5).astype(np.float32)
    mean = total / np.maximum(weight, 1e-6)[..., None]
    return np.where(known[..., None] > 0, mean, _inpainted(mean, (1 - known).astype(np.uint8))), known


def _inpainted(picture: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """A picture `(h, w, 3)`, 0 to 255, continued into its hidden cells by Telea's method."""
    plain = np.where(hidden[..., None] > 0, 0, picture).clip(0, 255).round().astype(np.uint8)
    return cv2.inpaint(plain, hidden, INPAINT_RADIUS, cv2.INPAINT_TELEA).astype(np.float32)
