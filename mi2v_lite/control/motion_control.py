"""Everything that a person asks of the motion of one picture, and the sparse motion field that it makes.

A `MotionControl` is plain data that can be saved as JSON; the widgets, the command line and Python code all edit the
same kind of object. Its method `field` draws it as a sparse motion field with a mask (notebook 04).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mi2v_lite.control import saved
from mi2v_lite.control.parts import Anchor, Drag, Point, checked_radius, checked_size, resample
from mi2v_lite.control.squares import block_of, distance_from, hold_outside, write_block
from mi2v_lite.control.things import Thing, checked_mask, displacements, resized_mask
from mi2v_lite.io.files import atomic, read_text

# Half of the default block's side, as a share of the image's shorter side. The release uses 0.2 (64 px of 320). Its
# blocks are so large that two drags on one object overlap, where the later erases the earlier, and that the block of a
# small object covers background too. With 0.08, drags that start 0.16 apart stay separate.
DEFAULT_RADIUS_SHARE = 0.08
# The mask is reduced to the size of the latents by taking the top-left pixel of each 8x8 block; a block with a radius
# of 8 pixels always contains one of these.
SMALLEST_DEFAULT_RADIUS = 8.0
BACKGROUND_SPACING = 0.2  # between neighbouring background anchors, as a share of the shorter side
BACKGROUND_FREE = 0.25  # around the start of a drag, where there are none, as a share of the shorter side


@dataclass(frozen=True, eq=False)
class MotionControl:
    """Everything that a person asks of the motion of one picture.

    Attributes:
        size: (width, height) of the picture on which the points were set.
        drags: what shall move, and where to.
        anchors: what shall stay.
        brush: None, or bool (height, width), where True means that a pixel may move; all others are held still.
        things: regions that move whole, from the farthest to the nearest: a later one covers an earlier one.

    Raises:
        ValueError: if a point lies outside `0 <= x < width, 0 <= y < height`, if the brush or the mask of a thing has
            another size or type, or if the brush lets nothing move.
    """

    size: tuple[int, int]
    drags: Sequence[Drag] = ()
    anchors: Sequence[Anchor] = ()
    brush: np.ndarray | None = None
    things: Sequence[Thing] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size(self.size))
        object.__setattr__(self, "drags", tuple(self.drags))
        object.__setattr__(self, "anchors", tuple(self.anchors))
        object.__setattr__(self, "things", tuple(self.things))
        for number, drag in enumerate(self.drags, start=1):
            for point in drag.points:
                self._check_inside(point, f"drag {number}")
        for number, anchor in enumerate(self.anchors, start=1):
            self._check_inside(anchor.point, f"anchor {number}")
        for number, thing in enumerate(self.things, start=1):
            checked_mask(thing.mask, f"the mask of thing {number}", "on the thing", self.size)
            for point in (point for drag in thing.drags for point in drag.points):
                self._check_inside(point, f"a drag of thing {number}")
        if self.brush is not None:
            object.__setattr__(self, "brush", checked_mask(self.brush, "brush", "may move", self.size))
            if not self.brush.any():
                raise ValueError("brush has no pixel that may move; paint a region, or pass None for no brush.")

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
        parts = [(control.size, control.drags, control.anchors, control.things) for control in (self, other)]
        if parts[0] != parts[1]:
            return False
        if self.brush is None or other.brush is None:
            return self.brush is other.brush
        return np.array_equal(self.brush, other.brush)

    __hash__ = None

    def field(self, num_frames: int = 15, default_radius: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw the sparse motion field that the person asks for.

        Where parts of the control overlap, these rules decide:

        - A nearer thing covers a farther one.
        - The squares of drags and anchors count more than things. A drag that starts on a thing and shall move it
          belongs to the thing's own drags: see `with_things`.
        - Of two drags the later counts. Of an anchor and a drag the one whose point is nearer counts, so that neither
          erases the other.
        - Outside the brush everything is held still.

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
        radius = self._radius(default_radius)
        width, height = self.size
        flow = np.zeros((num_frames, 2, height, width), np.float32)
        mask = np.zeros((num_frames, 1, height, width), np.float32)
        for thing in self.things:
            flow[..., thing.mask] = displacements(thing.motion(num_frames), thing.mask)
            mask[..., thing.mask] = 1
        distance_to_drag = np.full((height, width), np.inf)
        for drag in self.drags:
            path = resample(drag.points, num_frames + 1)
            block = self._block(drag, radius)
            write_block(flow, mask, block, path[1:] - path[0])
            distance_to_drag[block] = distance_from(drag.points[0], self.size)[block]
        for anchor in self.anchors:
            block = self._block(anchor, radius)
            is_nearer = distance_from(anchor.point, self.size)[block] <= distance_to_drag[block]
            flow[(..., *block)] *= ~is_nearer
            mask[(..., *block)] = 1
        if self.brush is not None:
            hold_outside(flow, mask, self.brush)
        return torch.from_numpy(flow), torch.from_numpy(mask)

    def thing_map(self, default_radius: float | None = None) -> np.ndarray:
        """Which thing decides on the motion of each pixel, by the rules of `field`.

        Args:
            default_radius: as in `field`.

        Returns:
            (H, W) uint8: 0 where no thing decides, k for the thing `things[k - 1]`.
        """
        radius = self._radius(default_radius)
        thing_map = np.zeros(self.size[::-1], np.uint8)
        for number, thing in enumerate(self.things, start=1):
            thing_map[thing.mask] = number
        for square in (*self.drags, *self.anchors):
            thing_map[self._block(square, radius)] = 0
        if self.brush is not None:
            thing_map[~self.brush] = 0
        return thing_map

    def _radius(self, default: float | None) -> float:
        return default_radius_of(self.size) if default is None else checked_radius(default, "default")

    def _block(self, square: Drag | Anchor, default_radius: float) -> tuple[slice, slice]:
        point = square.points[0] if isinstance(square, Drag) else square.point
        return block_of(point, square.radius or default_radius, self.size)

    def with_things(self, *masks: np.ndarray) -> MotionControl:
        """Add things, each of which takes over the drags that start on it.

        Args:
            masks: bool (height, width) each, from the farthest thing to the nearest; all are in front of the things
                that are already there. A drag that starts where things overlap belongs to the nearest.

        Returns:
            A new `MotionControl`, in whose `drags` only those are left that start on none of the masks.

        Raises:
            ValueError: if a mask has another type or size, or no pixel.
        """
        masks = [checked_mask(mask, "the mask of a thing", "on the thing", self.size) for mask in masks]
        taken: list[list[Drag]] = [[] for _ in masks]
        drags = []
        for drag in self.drags:
            row, column = (int(value) for value in drag.points[0][::-1])
            owners = [own for own, mask in zip(taken, masks, strict=True) if mask[row, column]]
            (owners[-1] if owners else drags).append(drag)
        new = [Thing(mask, own) for mask, own in zip(masks, taken, strict=True)]
        return replace(self, drags=drags, things=[*self.things, *new])

    def anchor_background(self, free: float | None = None) -> MotionControl:
        """Add anchors all over the picture except around the drags, so that the thing moves and the camera does not.

        The anchors stand on a grid, a fifth of the shorter side apart. None is added near an anchor that is already
        there, or where the brush holds everything still. Where things tell exactly what moves, the rest needs no grid:
        it becomes one thing without drags, behind all others. This is an addition of ours; Motion-I2V does not do it.

        Args:
            free: how far, in x and in y, the surroundings of each drag's start stay without new anchors, in pixels;
                half the size of what is dragged is a good choice. None means a quarter of the shorter side. The drags
                of things need no such surroundings.

        Returns:
            A new `MotionControl`.

        Raises:
            ValueError: if there is no drag, since then everything would be held still, or if `free` is negative.
        """
        if not (self.drags or any(thing.drags for thing in self.things)):
            raise ValueError(
                "there is no drag, so background anchors would hold everything still; draw what shall move first."
            )
        short = min(self.size)
        free = BACKGROUND_FREE * short if free is None else float(free)
        if not free >= 0:
            raise ValueError(f"free is {free:g}, expected a distance in pixels of 0 or more.")
        if self.things:
            rest = np.ones(self.size[::-1], bool)
            for thing in self.things:
                rest &= ~thing.mask
            for drag in self.drags:
                rest &= distance_from(drag.points[0], self.size) > free
            return replace(self, things=[Thing(rest), *self.things]) if rest.any() else self
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
        return replace(self, anchors=[*self.anchors, *new])

    def resized(self, width: int, height: int) -> MotionControl:
        """The same control for the picture resized to another size.

        Points move as pixel centres do in a resize with half-pixel centres, and are kept inside the image. Radii scale
        with the square root of the area, the brush takes the nearest pixel, and for things see `resized_mask`.

        Args:
            width: the new width in pixels.
            height: the new height in pixels.

        Returns:
            A new `MotionControl`.

        Raises:
            ValueError: if the size is not positive, or nothing of the brush is left at the new size.
        """
        size = checked_size((width, height))
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

        def drags_of(drags: Sequence[Drag]) -> list[Drag]:
            return [Drag([move(point) for point in drag.points], grow(drag.radius)) for drag in drags]

        return MotionControl(
            size,
            drags_of(self.drags),
            [Anchor(move(anchor.point), grow(anchor.radius)) for anchor in self.anchors],
            brush,
            [Thing(resized_mask(thing.mask, width, height), drags_of(thing.drags)) for thing in self.things],
        )

    def to_json(self) -> str:
        """The control as JSON text, with points as [x, y] and masks as PNGs in base64 (see `saved`).

        Raises:
            ValueError: if it is too large to be read again.
        """
        return saved.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> MotionControl:
        """Read what `to_json` wrote.

        Args:
            text: the JSON text, of this version of the format or an older one.

        Returns:
            The `MotionControl`.

        Raises:
            ValueError: which names the part that is missing or wrong.
        """
        return cls(**saved.read_json(text))

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file. If this is interrupted, an older file stays as it was.

        Args:
            path: where to write.

        Raises:
            ValueError: if the control is too large to be read again.
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
            ValueError: as in `from_json`; or if the file is no text, or implausibly large.
            OSError: if the file cannot be read.
        """
        text = read_text(path, saved.LARGEST_CONTROL)
        try:
            return cls.from_json(text)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def default_radius_of(size: tuple[int, int]) -> float:
    """The default radius in pixels for an image of a size (width, height): `max(8, 0.08 * shorter side)`."""
    return max(SMALLEST_DEFAULT_RADIUS, DEFAULT_RADIUS_SHARE * min(size))
