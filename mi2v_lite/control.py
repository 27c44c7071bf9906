"""What a person asks to move: drags, anchors and a brush, and how they become the ControlNet's condition.

`MotionControl` is plain data with JSON in and out; widget, command line and code all edit the same thing. `field` draws
it as a sparse motion field with a mask, `condition` encodes that for the trajectory ControlNet (Motion-I2V, Section
3.4; notebook 04). `official_field` draws it exactly as the release does.
"""

from __future__ import annotations

import base64
import io
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.interpolate import PchipInterpolator

from mi2v_lite.flow.fields import to_unit
from mi2v_lite.io.files import atomic

FORMAT = "mi2v-motion-control"
VERSION = 1
# Default block half-size, as a share of the shorter side. The release takes 0.2 (64 px of 320): a block 0.4 of the
# image wide, so that two drags on one object overlap and the later erases the earlier, and a small object's block
# claims background too. With 0.08, drags 0.16 apart stay separate.
DEFAULT_RADIUS_SHARE = 0.08
# The mask is reduced to latent size by its top-left pixel in each 8x8 block: a half-size of 8 px always meets one.
SMALLEST_DEFAULT_RADIUS = 8.0
# Background anchors: how far apart, and how much about a drag's start is left to the thing; shares of the shorter side.
BACKGROUND_SPACING = 0.2
BACKGROUND_FREE = 0.25

Point = tuple[float, float]


@dataclass(frozen=True)
class Drag:
    """A path that the thing under its first point shall follow.

    points: two or more (x, y) in pixels of the image, y down. The path runs through them all, with equal time between
    neighbours. radius: half-size in pixels of the square around the first point where the motion is written; None
    leaves it to `MotionControl.field`. Under 8 px it may fall between the latent's cells.
    Errors: ValueError for fewer than two points, NaN, or a radius that is not positive.
    """

    points: Sequence[Point]
    radius: float | None = None

    def __post_init__(self) -> None:
        if len(self.points) == 0:
            raise ValueError("a drag has no points; give at least a start and an end, or leave the drag out.")
        if len(self.points) == 1:
            raise ValueError(
                f"a drag has only one point, {self.points[0]}; add where it goes, or use an anchor to hold it."
            )
        object.__setattr__(self, "points", tuple(_checked_point(point, "drag") for point in self.points))
        object.__setattr__(self, "radius", _checked_radius(self.radius, "drag"))


@dataclass(frozen=True)
class Anchor:
    """A point that stays where it is: a true zero, not the release's drag by one pixel.

    point: (x, y) in pixels. radius: as in `Drag`. Errors: ValueError for NaN or a radius that is not positive.
    """

    point: Point
    radius: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "point", _checked_point(self.point, "anchor"))
        object.__setattr__(self, "radius", _checked_radius(self.radius, "anchor"))


@dataclass(frozen=True, eq=False)
class MotionControl:
    """All control over one picture.

    size: (width, height) of the picture that the points were set on. drags, anchors: see there.
    brush: None, or bool (height, width), True = may move; everything else is held still.
    Errors: ValueError for a point outside `0 <= x < width, 0 <= y < height`, or a brush of another size or type, or one
    where nothing may move.
    """

    size: tuple[int, int]
    drags: Sequence[Drag] = ()
    anchors: Sequence[Anchor] = ()
    brush: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _checked_size(self.size))
        object.__setattr__(self, "drags", tuple(self.drags))
        object.__setattr__(self, "anchors", tuple(self.anchors))
        for number, drag in enumerate(self.drags, start=1):
            for point in drag.points:
                self._check_inside(point, f"drag {number}")
        for number, anchor in enumerate(self.anchors, start=1):
            self._check_inside(anchor.point, f"anchor {number}")
        if self.brush is not None:
            object.__setattr__(self, "brush", _checked_brush(self.brush, self.size))

    def _check_inside(self, point: Point, what: str) -> None:
        width, height = self.size
        if not (0 <= point[0] < width and 0 <= point[1] < height):
            raise ValueError(
                f"{what} has the point ({point[0]:g}, {point[1]:g}) outside the {width}x{height} image; "
                f"x must be in [0, {width}) and y in [0, {height}). For points of another image size use resized()."
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MotionControl):
            return NotImplemented
        if (self.size, self.drags, self.anchors) != (other.size, other.drags, other.anchors):
            return False
        if self.brush is None or other.brush is None:
            return self.brush is other.brush
        return np.array_equal(self.brush, other.brush)

    __hash__ = None

    def field(self, num_frames: int = 15, default_radius: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The sparse motion field that is asked for.

        num_frames: N future frames. default_radius: pixels, for drags and anchors with radius None; None takes
        `max(8, 0.08 * shorter side)`.
        Returns flow (N, 2, H, W) in pixels from frame 0, channels (x, y), 0 where nothing is said; mask (N, 1, H, W),
        1 where something is said; both float32 on the CPU.
        Later drags overwrite earlier ones. Where the blocks of an anchor and a drag overlap, the nearer point decides,
        so neither erases the other. Outside the brush: flow 0, mask 1, whatever the drags say.
        """
        if num_frames < 1:
            raise ValueError(f"num_frames is {num_frames}; it counts the future frames and must be at least 1.")
        width, height = self.size
        fallback = (
            default_radius_of(self.size) if default_radius is None else _checked_radius(default_radius, "default")
        )
        flow = np.zeros((num_frames, 2, height, width), np.float32)
        mask = np.zeros((num_frames, 1, height, width), np.float32)
        distance_to_drag = np.full((height, width), np.inf)
        for drag in self.drags:
            path = resample(drag.points, num_frames + 1)
            block = _block(drag.points[0], drag.radius or fallback, self.size)
            _write(flow, mask, block, path[1:] - path[0])
            distance_to_drag[block] = _distance(drag.points[0], self.size)[block]
        for anchor in self.anchors:
            block = _block(anchor.point, anchor.radius or fallback, self.size)
            nearer = _distance(anchor.point, self.size)[block] <= distance_to_drag[block]
            flow[(..., *block)] *= ~nearer
            mask[(..., *block)] = 1
        if self.brush is not None:
            _hold_outside(flow, mask, self.brush)
        return torch.from_numpy(flow), torch.from_numpy(mask)

    def anchor_background(self, free: float | None = None) -> MotionControl:
        """The same with anchors all over the picture but about the drags: the thing moves, the camera does not slip.

        free: pixels about each drag's start, in x and in y, that stay without new anchors: take half the size of the
        thing; None takes a quarter of the shorter side. The anchors stand on a grid, a fifth of the shorter side apart;
        none is added near one that is there, or where a brush holds all still. Motion-I2V, Section 3.4, has no such.
        Errors: ValueError without a drag, for there everything would be held, and for a negative `free`.
        """
        if not self.drags:
            raise ValueError("there is no drag: anchors all over would hold everything; draw what shall move first.")
        short = min(self.size)
        free = BACKGROUND_FREE * short if free is None else float(free)
        if not free >= 0:
            raise ValueError(f"free is {free:g}; it is a distance in pixels, 0 or more.")
        counts = [max(1, round(length / (BACKGROUND_SPACING * short))) for length in self.size]
        columns, rows = ((np.arange(n) + 0.5) * length / n for n, length in zip(counts, self.size, strict=True))
        taken = [(drag.points[0], free) for drag in self.drags]
        taken += [(anchor.point, BACKGROUND_SPACING * short / 2) for anchor in self.anchors]
        new = [
            Anchor((float(x), float(y)))
            for y in rows
            for x in columns
            if all(max(abs(x - px), abs(y - py)) > reach for (px, py), reach in taken)
            and (self.brush is None or self.brush[int(y), int(x)])
        ]
        return MotionControl(self.size, self.drags, [*self.anchors, *new], self.brush)

    def resized(self, width: int, height: int) -> MotionControl:
        """The same control on the picture resized to (width, height).

        Pixel centres go where a resize with half-pixel centres puts them, clipped to the image (at most half a new
        pixel when shrinking); given radii scale by the root of the area; the brush by nearest.
        """
        size = _checked_size((width, height))
        scale = np.array(size) / np.array(self.size)

        def move(point: Point) -> Point:
            moved = np.clip((np.array(point) + 0.5) * scale - 0.5, 0, np.array(size) - 1)
            return float(moved[0]), float(moved[1])

        def grow(radius: float | None) -> float | None:
            return None if radius is None else radius * float(np.sqrt(scale.prod()))

        brush = self.brush
        if brush is not None:
            rows = ((np.arange(height) + 0.5) / scale[1]).astype(int)
            columns = ((np.arange(width) + 0.5) / scale[0]).astype(int)
            brush = brush[rows][:, columns]
            if not brush.any():
                raise ValueError(
                    f"the painted region is too thin to survive resizing to {width}x{height}; paint a wider one."
                )
        return MotionControl(
            size,
            [Drag([move(point) for point in drag.points], grow(drag.radius)) for drag in self.drags],
            [Anchor(move(anchor.point), grow(anchor.radius)) for anchor in self.anchors],
            brush,
        )

    def to_json(self) -> str:
        """A JSON text; points as [x, y], the brush as a base64 PNG (white = may move)."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "size": list(self.size),
            "drags": [{"points": [list(p) for p in d.points], "radius": d.radius} for d in self.drags],
            "anchors": [{"point": list(a.point), "radius": a.radius} for a in self.anchors],
            "brush": None if self.brush is None else _brush_to_text(self.brush),
        }
        return json.dumps(data, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> MotionControl:
        """Read what `to_json` wrote. Errors: ValueError that names the missing or wrong part."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"the motion control is no valid JSON ({error}); write it with to_json().") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f'the JSON is no motion control: "format" must be "{FORMAT}"; write it with to_json().')
        if data.get("version") != VERSION:
            raise ValueError(
                f"motion control version {data.get('version')!r} is not {VERSION}; save it anew with this version."
            )
        try:
            brush = data.get("brush")
            return cls(
                data["size"],
                [Drag(drag["points"], drag.get("radius")) for drag in data.get("drags", [])],
                [Anchor(anchor["point"], anchor.get("radius")) for anchor in data.get("anchors", [])],
                None if brush is None else _brush_from_text(brush),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"the motion control's JSON lacks a part or has one of the wrong type: {error!r}."
            ) from error

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file; an interrupted write leaves the old file as it was."""
        with atomic(path) as beside:
            beside.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> MotionControl:
        """Read a file written by `save`. Errors: ValueError as in `from_json`; OSError when it cannot be read."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))


def default_radius_of(size: tuple[int, int]) -> float:
    """Default block half-size in pixels for an image (width, height): `max(8, 0.08 * shorter side)`."""
    return max(SMALLEST_DEFAULT_RADIUS, DEFAULT_RADIUS_SHARE * min(size))


def resample(points: Sequence[Point], count: int) -> np.ndarray:
    """`count` points along the path, (count, 2) float64 (x, y) in the points' units.

    Monotone cubic (PCHIP) through the points, which are equally spaced in time; two points give a straight, even path.
    It never overshoots: each coordinate stays between its neighbours.
    """
    given = np.asarray(points, np.float64)
    return PchipInterpolator(np.linspace(0, 1, len(given)), given)(np.linspace(0, 1, count))


def official_field(
    tracks: Sequence[Sequence[Point]],
    painted: np.ndarray | None,
    width: int,
    height: int,
    unit: int,
    num_frames: int = 15,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The field as the release's app draws it, for the same numbers as its checkpoints saw.

    tracks: lists of (x, y) pixels, which may leave the image; a track of one point gets a second at (+1, +1).
    painted: the paint layer (height, width), uint8 0..255, bool, or None; above half means may move, and nothing
    painted means all may. unit: block half-size in pixels (the app: 64 at 512x320).
    Returns flow (N, 2, H, W) pixels, mask (N, 1, H, W) float32 0/1, brush (H, W) bool, True = may move.
    Differs from `MotionControl.field` only in that: there points must lie inside, single points are true zeros
    (anchors), and an empty brush is an error.
    """
    flow = np.zeros((num_frames, 2, height, width), np.float32)
    mask = np.zeros((num_frames, 1, height, width), np.float32)
    for track in tracks:
        if len(track) == 0:
            raise ValueError("a track has no points; leave it out.")
        x, y = track[0]
        path = resample([(x, y), (x + 1, y + 1)] if len(track) == 1 else track, num_frames + 1)
        _write(flow, mask, _block((x, y), unit, (width, height)), path[1:] - path[0])
    brush = np.ones((height, width), bool) if painted is None else np.asarray(painted)
    if brush.shape != (height, width):
        raise ValueError(f"painted has shape {brush.shape}, expected (height, width) = {(height, width)}.")
    if brush.dtype != bool:
        brush = brush > 127
    if not brush.any():
        brush = np.ones_like(brush)
    _hold_outside(flow, mask, brush)
    return torch.from_numpy(flow), torch.from_numpy(mask), torch.from_numpy(brush)


def condition(
    control_flow: torch.Tensor, mask: torch.Tensor, flow_vae: Any, latent_size: tuple[int, int]
) -> torch.Tensor:
    """The ControlNet's condition: the masked flow as a latent, and the mask.

    control_flow: (B, N, 2, H, W) or (N, 2, H, W), pixels. mask: the same with 1 channel, 0/1.
    flow_vae: anything with `.encode(x).latent_dist.mode()` for x (batch, 2, H, W) in [0, 1], 0.5 = no motion, such
    as diffusers' AutoencoderKL. latent_size: (h, w).
    Returns (B, C + 1, N, h, w) in the VAE's dtype: C channels of posterior mean, NOT scaled by the latent factor, of
    `(unit(flow) - 0.5) * mask + 0.5`; then the mask by nearest, the top-left pixel of each block (the released code).
    Errors: ValueError when the shapes do not belong together.
    """
    if control_flow.ndim == 4:
        control_flow, mask = control_flow[None], mask[None]
    batch, frames, _, height, width = control_flow.shape
    if control_flow.shape[2] != 2 or mask.shape != (batch, frames, 1, height, width):
        raise ValueError(
            f"flow {tuple(control_flow.shape)} and mask {tuple(mask.shape)} do not fit; "
            "expected (B, N, 2, H, W) and (B, N, 1, H, W)."
        )
    dtype = getattr(flow_vae, "dtype", control_flow.dtype)
    unit = (to_unit(control_flow) - 0.5) * mask + 0.5
    latent = flow_vae.encode(unit.flatten(0, 1).to(dtype)).latent_dist.mode()
    if tuple(latent.shape[-2:]) != tuple(latent_size):
        raise ValueError(f"the flow VAE gave latents of {tuple(latent.shape[-2:])}, expected {tuple(latent_size)}.")
    small = F.interpolate(mask.flatten(0, 1).to(dtype), size=tuple(latent_size), mode="nearest")
    if mask.any() and not small.any():
        warnings.warn(
            "the control falls between the latent's cells and its mask is empty; use a radius of 8 px or more.",
            stacklevel=2,
        )
    return torch.cat([latent, small], 1).unflatten(0, (batch, frames)).movedim(2, 1)


Block = tuple[slice, slice]


def _block(point: Point, radius: float, size: tuple[int, int]) -> Block:
    """Rows y-r .. y+r-1 and columns x-r .. x+r-1 about the nearest pixel, cut at the image: the release's block."""
    half = max(1, round(radius))

    def cut(centre: float, length: int) -> slice:
        middle = math.floor(centre + 0.5)
        return slice(min(max(middle - half, 0), length), min(max(middle + half, 0), length))

    return cut(point[1], size[1]), cut(point[0], size[0])


def _write(flow: np.ndarray, mask: np.ndarray, block: Block, displacement: np.ndarray) -> None:
    """Set a block of flow (N, 2, H, W) to the displacement (N, 2), its mask to 1."""
    flow[(..., *block)] = displacement[:, :, None, None]
    mask[(..., *block)] = 1


def _hold_outside(flow: np.ndarray, mask: np.ndarray, brush: np.ndarray) -> None:
    flow[..., ~brush] = 0
    mask[..., ~brush] = 1


def _distance(point: Point, size: tuple[int, int]) -> np.ndarray:
    """Square (Chebyshev) distance of each pixel from the point, (H, W) pixels."""
    x = np.abs(np.arange(size[0]) - point[0])
    y = np.abs(np.arange(size[1]) - point[1])
    return np.maximum(x[None], y[:, None])


def _checked_point(point: Any, what: str) -> Point:
    try:
        x, y = (float(value) for value in point)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} point {point!r} is not a pair of numbers (x, y) in pixels.") from error
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"{what} point ({x}, {y}) is not finite; give pixel numbers (x, y).")
    return x, y


def _checked_radius(radius: float | None, what: str) -> float | None:
    if radius is None:
        return None
    try:
        number = float(radius)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} radius {radius!r} is no number; give pixels, or None for the default.") from error
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{what} radius {radius} must be above 0 pixels; leave it out for the default.")
    return number


def _checked_size(size: Any) -> tuple[int, int]:
    try:
        width, height = (int(value) for value in size)
        whole = (width, height) == tuple(size)
    except (TypeError, ValueError) as error:
        raise ValueError(f"size {size!r} is not (width, height) in pixels.") from error
    if not whole or width < 1 or height < 1:
        raise ValueError(f"size {size!r} must be two whole numbers above 0: (width, height) in pixels.")
    return width, height


def _checked_brush(brush: Any, size: tuple[int, int]) -> np.ndarray:
    brush = np.array(brush)
    if brush.dtype != bool:
        raise ValueError(
            f"brush has type {brush.dtype}, expected bool (True = may move); for a 0..255 mask pass mask > 127."
        )
    if brush.shape != (size[1], size[0]):
        raise ValueError(
            f"brush has shape {brush.shape}, expected (height, width) = {(size[1], size[0])} of the image; "
            "resize the mask to the image first."
        )
    if not brush.any():
        raise ValueError("brush has no pixel that may move; paint a region, or pass None for no brush.")
    return brush


def _brush_to_text(brush: np.ndarray) -> dict[str, str]:
    buffer = io.BytesIO()
    Image.fromarray(brush).save(buffer, format="PNG")
    return {"encoding": "png-base64", "data": base64.b64encode(buffer.getvalue()).decode("ascii")}


def _brush_from_text(brush: dict[str, str]) -> np.ndarray:
    if brush.get("encoding") != "png-base64":
        raise ValueError(f"brush encoding {brush.get('encoding')!r} is not 'png-base64'; write it with to_json().")
    try:
        with Image.open(io.BytesIO(base64.b64decode(brush["data"], validate=True)), formats=["PNG"]) as image:
            return np.array(image.convert("L")) > 127
    except (ValueError, OSError, SyntaxError) as error:
        raise ValueError(f"the brush of the motion control is no readable PNG ({error}); save it anew.") from error
