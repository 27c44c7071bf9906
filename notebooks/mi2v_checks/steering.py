"""Clips in which one thing moves and can be steered, and how well a field or a picture obeys (notebook 04).

The clips come from the held-out scenes of the lite world, whose motion is known: so a true drag, the true mask of the
thing and the true field are at hand, and every way of telling the motion can be compared with what really happened.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from mi2v_lite.control import Drag
from mi2v_lite.data.clips import Clip
from mi2v_lite.data.lite_world import LiteWorld
from mi2v_lite.data.samples import heldout_scenes
from mi2v_lite.evaluation.control import depth
from mi2v_lite.evaluation.things import find_thing, true_drags_of

SHORTEST = 1 / 12  # of a true drag, as a share of the side
DEEPEST = 1 / 21  # how far the innermost pixel of a thing is from its rim at least, as a share of the side
STILL = 0.5  # pixels: what moves less rests


@dataclass(frozen=True)
class Steered:
    """A clip in which the camera rests and one thing moves.

    Attributes:
        clip: with its true motion.
        name: what the thing is called, as "llama".
        mask: bool `(H, W)`, where the thing is in frame 0.
        drags: two true tracks of the thing; the first starts at its innermost pixel.
        seed: of the scene, which `still_scenes` draws at any size.
    """

    clip: Clip
    name: str
    mask: np.ndarray
    drags: tuple[Drag, Drag]
    seed: int

    @property
    def start(self) -> tuple[int, int]:
        """(x, y) of the pixel at which the first drag starts."""
        x, y = self.drags[0].points[0]
        return round(x), round(y)


def still_scenes(size: int = 128) -> LiteWorld:
    """The held-out scenes of what comes with the package, with a resting camera and at least one thing.

    Args:
        size: the side of the frames in pixels.
    """
    return heldout_scenes(size=size).only("resting")


def steered(count: int, first: int = 0, size: int = 128) -> list[Steered]:
    """The first clips of a resting camera in which one thing moves far enough to be dragged.

    Args:
        count: how many.
        first: the seed of the world at which the search begins.
        size: the side of the frames in pixels.
    """
    world, found, seed = still_scenes(size), [], first
    while len(found) < count:
        moving = [layer for layer in world.plan(seed, pasted=True).layers if layer.motion.moves]
        if len(moving) == 1 and (one := _steered(world.clip(seed), moving[0].names[0], seed)) is not None:
            found.append(one)
        seed += 1
    return found


def _steered(clip: Clip, name: str, seed: int) -> Steered | None:
    """A clip with its thing, or None if nobody could drag it."""
    thing = find_thing(clip)
    if thing is None or not thing.background_rests:
        return None
    drags, side = true_drags_of(clip, thing.mask), clip.flow.shape[-1]
    if len(drags) < 2 or depth(thing.mask).max() < DEEPEST * side:
        return None
    if np.hypot(*np.subtract(drags[0].points[-1], drags[0].points[0])) < SHORTEST * side:
        return None
    return Steered(clip, name, thing.mask, tuple(drags), seed)


def obedience(flow: Tensor, thing: Steered) -> dict[str, float]:
    """How far a field is from the true motion of a clip, in the last frame.

    Args:
        flow: `(N, 2, H, W)` in pixels.
        thing: the clip.

    Returns:
        "end": how far the pixel at which the first drag starts misses its place, as a share of the way (0 is perfect,
        1 is standing still); "thing": the same over all pixels of the thing; "slip": how far pixels move that rest, in
        pixels.
    """
    true, found = torch.from_numpy(thing.clip.flow[-1]), flow[-1].cpu()
    on, resting, (x, y) = torch.from_numpy(thing.mask), true.norm(dim=0) < STILL, thing.start
    error, length = (found - true).norm(dim=0), true.norm(dim=0)
    return {
        "end": float(error[y, x] / length[y, x]),
        "thing": float(error[on].mean() / length[on].mean()),
        "slip": float(found.norm(dim=0)[resting].mean()),
    }


def seen_at(photo: np.ndarray, frame: np.ndarray, mask: np.ndarray, reach: int = 44) -> tuple[np.ndarray, float]:
    """Where a thing of the photo is found again in another frame, by looking for its pattern as a whole.

    Args:
        photo: uint8 `(H, W, 3)`.
        frame: another of the same size.
        mask: bool `(H, W)`, the thing in the photo.
        reach: how far it is looked for to the left and to the right, in pixels; a quarter of that up and down.

    Returns:
        its displacement (x, y) in pixels, and how much it looks like the thing there: the normalised correlation of
        the colours under the mask, 1 for a thing that has kept its looks. What leaves the frame is not found.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    spot, shape = photo[top:bottom, left:right], mask[top:bottom, left:right].astype(np.float32)
    low_y, low_x = max(0, top - reach // 4), max(0, left - reach)
    window = frame[low_y : bottom + reach // 4, low_x : right + reach]
    likeness = cv2.matchTemplate(
        np.ascontiguousarray(window, np.float32),
        np.ascontiguousarray(spot, np.float32),
        cv2.TM_CCOEFF_NORMED,
        mask=np.repeat(shape[..., None], 3, -1),
    )
    likeness = np.where(np.isfinite(likeness), likeness, -1)
    row, column = np.unravel_index(likeness.argmax(), likeness.shape)
    return np.array([low_x + column - left, low_y + row - top], float), float(likeness[row, column])
