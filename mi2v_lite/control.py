"""What a person asks to move, as drags, anchors and a brush, and how this becomes the condition of the ControlNet.

A `MotionControl` is plain data that can be saved as JSON; the widgets, the command line and Python code all edit the
same kind of object. Its method `field` draws it as a sparse motion field with a mask, and `condition` encodes that for
the trajectory ControlNet (Motion-I2V, section 3.4; notebook 04). `official_field` draws exactly what the release does.
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
# Half of the default block's side, as a share of the image's shorter side. The release uses 0.2 (64 px of 320). Its
# blocks are so large that two drags on one object overlap, where the later erases the earlier, and that the block of a
# small object covers background too. With 0.08, drags that start 0.16 apart stay separate.
DEFAULT_RADIUS_SHARE = 0.08
# The mask is reduced to the size of the latents by taking the top-left pixel of each 8x8 block; a block with a radius
# of 8 pixels always contains one of these.
SMALLEST_DEFAULT_RADIUS = 8.0
BACKGROUND_SPACING = 0.2  # between neighbouring background anchors, as a share of the shorter side
BACKGROUND_FREE = 0.25  # around the start of a drag, where there are none, as a share of the shorter side

Point = tuple[float, float]


@dataclass(frozen=True)
class Drag:
    """A path which the thing at its first point shall follow.

    Attributes:
        points: two or more points (x, y) in pixels of the image, x right, y down. The path goes through all of them, in
            equal times from each to the next.
        radius: the motion is written to a square around the first point, and this is half of its side in pixels; None
            leaves it to `MotionControl.field`. A square with a radius below 8 may fall between the cells of the
            latents.

    Raises:
        ValueError: if there are fewer than two points, a point is not finite, or the radius is not positive.
    """

    points: Sequence[Point]
    radius: float | None = None

    def __post_init__(self) -> None:
        if len(self.points) == 0:
            raise ValueError("a drag has no points; give at least a start and an end, or leave the drag out.")
        if len(self.points) == 1:
            raise ValueError(
                f"a drag has only one point, {self.points[0]}; add a point where it goes, or use an anchor to hold it."
            )
        object.__setattr__(self, "points", tuple(_checked_point(point, "drag") for point in self.points))
        object.__setattr__(self, "radius", _checked_radius(self.radius, "drag"))


@dataclass(frozen=True)
class Anchor:
    """A point that stays where it is. Its motion is exactly zero, and not a drag by one pixel as in the release.

    Attributes:
        point: (x, y) in pixels of the image.
        radius: as in `Drag`.

    Raises:
        ValueError: if the point is not finite, or the radius is not positive.
    """

    point: Point
    radius: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "point", _checked_point(self.point, "anchor"))
        object.__setattr__(self, "radius", _checked_radius(self.radius, "anchor"))


@dataclass(frozen=True, eq=False)
class MotionControl:
    """Everything that a person asks of the motion of one picture.

    Attributes:
        size: (width, height) of the picture on which the points were set.
        drags: what shall move, and where to.
        anchors: what shall stay.
        brush: None, or bool (height, width), where True means that a pixel may move; all others are held still.

    Raises:
        ValueError: if a point lies outside `0 <= x < width, 0 <= y < height`, or the brush has another size or type, or
            lets nothing move.
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
        """Draw the sparse motion field that the person asks for.

        Where the squares of two drags overlap, the later drag counts. Where the squares of an anchor and a drag
        overlap, the nearer of the two points counts, so that neither erases the other. Outside the brush everything is
        held still, whatever the drags say.

        Args:
            num_frames: N, the number of future frames.
            default_radius: radius in pixels of the drags and anchors that have none; None means
                `max(8, 0.08 * shorter side)`.

        Returns:
            The flow (N, 2, H, W), in pixels from frame 0, channels (x, y), 0 where nothing is asked for; and the mask
            (N, 1, H, W), 1 where something is asked for and 0 elsewhere. Both are float32 and on the CPU.

        Raises:
            ValueError: if `num_frames` is below 1, or the radius is not positive.
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
            is_nearer = _distance(anchor.point, self.size)[block] <= distance_to_drag[block]
            flow[(..., *block)] *= ~is_nearer
            mask[(..., *block)] = 1
        if self.brush is not None:
            _hold_outside(flow, mask, self.brush)
        return torch.from_numpy(flow), torch.from_numpy(mask)

    def anchor_background(self, free: float | None = None) -> MotionControl:
        """Add anchors all over the picture except around the drags, so that the thing moves and the camera does not.

        The anchors stand on a grid, a fifth of the shorter side apart. None is added near an anchor that is already
        there, or where the brush holds everything still. This is an addition of ours; Motion-I2V does not do it.

        Args:
            free: how far, in x and in y, the surroundings of each drag's start stay without new anchors, in pixels;
                half the size of the thing is a good choice. None means a quarter of the shorter side.

        Returns:
            A new `MotionControl`.

        Raises:
            ValueError: if there is no drag, since then everything would be held still, or if `free` is negative.
        """
        if not self.drags:
            raise ValueError(
                "there is no drag, so background anchors would hold everything still; draw what shall move first."
            )
        short = min(self.size)
        free = BACKGROUND_FREE * short if free is None else float(free)
        if not free >= 0:
            raise ValueError(f"free is {free:g}, expected a distance in pixels of 0 or more.")
        counts = [max(1, round(length / (BACKGROUND_SPACING * short))) for length in self.size]
        columns, rows = ((np.arange(n) + 0.5) * length / n for n, length in zip(counts, self.size, strict=True))
        occupied = [(drag.points[0], free) for drag in self.drags]
        occupied += [(anchor.point, BACKGROUND_SPACING * short / 2) for anchor in self.anchors]
        new = [
            Anchor((float(x), float(y)))
            for y in rows
            for x in columns
            if all(max(abs(x - px), abs(y - py)) > reach for (px, py), reach in occupied)
            and (self.brush is None or self.brush[int(y), int(x)])
        ]
        return MotionControl(self.size, self.drags, [*self.anchors, *new], self.brush)

    def resized(self, width: int, height: int) -> MotionControl:
        """The same control for the picture resized to another size.

        Points move as pixel centres do in a resize with half-pixel centres, and are kept inside the image. Radii scale
        with the square root of the area, and the brush takes the nearest pixel.

        Args:
            width: the new width in pixels.
            height: the new height in pixels.

        Returns:
            A new `MotionControl`.

        Raises:
            ValueError: if the size is not positive, or nothing of the brush is left at the new size.
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
        """The control as JSON text, with points as [x, y] and the brush as a PNG in base64 (white means may move)."""
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
        """Read what `to_json` wrote.

        Args:
            text: the JSON text.

        Returns:
            The `MotionControl`.

        Raises:
            ValueError: which names the part that is missing or wrong.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"the motion control is not valid JSON ({error}); write it with to_json().") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f'the JSON is not a motion control: "format" must be "{FORMAT}"; write it with to_json().')
        if data.get("version") != VERSION:
            raise ValueError(
                f"the motion control has version {data.get('version')!r}, expected {VERSION}; save it again with this "
                "version of the package."
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
        """Write `to_json` to a file. If this is interrupted, an older file stays as it was.

        Args:
            path: where to write.

        Raises:
            OSError: if the file cannot be written.
        """
        with atomic(path) as beside:
            beside.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> MotionControl:
        """Read a file that `save` wrote.

        Args:
            path: the file.

        Returns:
            The `MotionControl`.

        Raises:
            ValueError: as in `from_json`.
            OSError: if the file cannot be read.
        """
        return cls.from_json(Path(path).read_text(encoding="utf-8"))


def default_radius_of(size: tuple[int, int]) -> float:
    """The default radius in pixels for an image of a size (width, height): `max(8, 0.08 * shorter side)`."""
    return max(SMALLEST_DEFAULT_RADIUS, DEFAULT_RADIUS_SHARE * min(size))


def resample(points: Sequence[Point], count: int) -> np.ndarray:
    """Read a path at equally spaced times.

    The path is a monotone cubic (PCHIP) through the points, which are themselves equally spaced in time. It does not
    overshoot: between two points, each coordinate stays between theirs. Two points give a straight line at constant
    speed.

    Args:
        points: two or more points (x, y).
        count: the number of times.

    Returns:
        (count, 2) float64, (x, y) in the unit of the points.
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
    """Draw the field as the release's demo does, so that its checkpoints get the numbers that they were used with.

    This differs from `MotionControl.field`, where points must lie inside the image, single points are anchors with a
    motion of exactly zero, and an empty brush is an error.

    Args:
        tracks: lists of points (x, y) in pixels, which may leave the image. To a track of one point, a second point is
            added one pixel further right and down.
        painted: the layer of paint, (height, width), uint8 0 to 255 or bool, or None. A pixel above half may move; if
            nothing is painted, everything may.
        width: of the image, in pixels.
        height: of the image, in pixels.
        unit: radius of the blocks in pixels; in the demo 64 at 512x320.
        num_frames: N, the number of future frames.

    Returns:
        The flow (N, 2, H, W) in pixels, the mask (N, 1, H, W) float32 of 0 and 1, and the brush (H, W) bool, which is
        True where a pixel may move.

    Raises:
        ValueError: if a track has no points, or the paint has another size than the image.
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
    """The condition of the ControlNet: the masked flow as a latent, and the mask.

    As in the released code, the flow is encoded as `(unit(flow) - 0.5) * mask + 0.5`, its latent is not scaled, and the
    mask is reduced to the size of the latent by taking the top-left pixel of each block.

    Args:
        control_flow: (B, N, 2, H, W) or (N, 2, H, W), pixels.
        mask: of the same shape with one channel, 0 or 1.
        flow_vae: the flow autoencoder, or anything else with `.encode(x).latent_dist.mode()` for x (batch, 2, H, W) in
            [0, 1], where 0.5 is no motion.
        latent_size: (h, w) of the latents.

    Returns:
        (B, C + 1, N, h, w) in the dtype of the autoencoder: the C channels of the latent, then the mask.

    Raises:
        ValueError: if the shapes do not fit together.
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
        raise ValueError(f"the flow VAE returned latents of {tuple(latent.shape[-2:])}, expected {tuple(latent_size)}.")
    small = F.interpolate(mask.flatten(0, 1).to(dtype), size=tuple(latent_size), mode="nearest")
    if mask.any() and not small.any():
        warnings.warn(
            "the control falls between the cells of the latents, so its mask is empty; use a radius of 8 px or more.",
            stacklevel=2,
        )
    return torch.cat([latent, small], 1).unflatten(0, (batch, frames)).movedim(2, 1)


Block = tuple[slice, slice]


def _block(point: Point, radius: float, size: tuple[int, int]) -> Block:
    """The release's block: rows y-r to y+r-1 and columns x-r to x+r-1 around the nearest pixel, cut at the border."""
    half = max(1, round(radius))

    def cut(centre: float, length: int) -> slice:
        middle = math.floor(centre + 0.5)
        return slice(min(max(middle - half, 0), length), min(max(middle + half, 0), length))

    return cut(point[1], size[1]), cut(point[0], size[0])


def _write(flow: np.ndarray, mask: np.ndarray, block: Block, displacement: np.ndarray) -> None:
    """Set a block of the flow (N, 2, H, W) to the displacement (N, 2), and its mask to 1."""
    flow[(..., *block)] = displacement[:, :, None, None]
    mask[(..., *block)] = 1


def _hold_outside(flow: np.ndarray, mask: np.ndarray, brush: np.ndarray) -> None:
    flow[..., ~brush] = 0
    mask[..., ~brush] = 1


def _distance(point: Point, size: tuple[int, int]) -> np.ndarray:
    """The distance of each pixel from the point as squares measure it (Chebyshev), (H, W) in pixels."""
    x = np.abs(np.arange(size[0]) - point[0])
    y = np.abs(np.arange(size[1]) - point[1])
    return np.maximum(x[None], y[:, None])


def _checked_point(point: Any, what: str) -> Point:
    try:
        x, y = (float(value) for value in point)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} point {point!r} is not a pair of numbers; give (x, y) in pixels.") from error
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"{what} point ({x}, {y}) is not finite; give pixel numbers (x, y).")
    return x, y


def _checked_radius(radius: float | None, what: str) -> float | None:
    if radius is None:
        return None
    try:
        number = float(radius)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} radius {radius!r} is not a number; give pixels, or None for the default.") from error
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
            "resize the brush to the image first."
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
        raise ValueError(f"the brush of the motion control is not a readable PNG ({error}); save it again.") from error
