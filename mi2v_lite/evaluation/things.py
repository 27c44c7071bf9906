"""How well things are found by a click and moved, on clips whose true motion is known.

A thing of a clip is the region around a pixel in which all pixels follow one affine motion, other than that of the
background. Its drags are true ones, tracks of its points. Lengths are in pixels of the size at which the networks work.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mi2v_lite.control import Drag, MotionControl, Thing, displacements, select_thing
from mi2v_lite.control.select import iou
from mi2v_lite.control.things import resized_mask
from mi2v_lite.data.clips import Clip
from mi2v_lite.evaluation.control import depth, track
from mi2v_lite.evaluation.detail import reduced
from mi2v_lite.evaluation.stages import Numbers, noise
from mi2v_lite.pipelines import MotionI2VPipeline

ONE_MOTION = 0.5  # pixels by which pixels of one motion may differ
FAR = 1 / 32  # a thing must move so far against the background, as a share of the side
SMALLEST, LARGEST = 0.005, 0.5  # of a thing, as a share of the picture
TURNS = 10.0  # degrees from which a thing counts as turning
BOX_ROOM = 0.08  # how much larger than the thing a person draws its box, at most, as a share of its sides


@dataclass(frozen=True)
class TrueThing:
    """A thing of a clip.

    Attributes:
        mask: bool `(H, W)`, where it is seen in frame 0.
        background_rests: whether nothing moves but things.
    """

    mask: np.ndarray
    background_rests: bool


def find_thing(clip: Clip) -> TrueThing | None:
    """Finds the thing that shows most of itself, or None if nothing moves far against the background."""
    last = clip.flow[-1].astype(np.float64)
    height, width = last.shape[1:]
    background = _affine(last, np.ones((height, width), bool))
    apart = _distance(last, background)
    moving = apart > FAR * min(height, width)
    inner = depth(moving)
    y, x = np.unravel_index(inner.argmax(), inner.shape)
    if inner[y, x] < 4:
        return None
    around = np.zeros((height, width), bool)
    around[y - 3 : y + 4, x - 3 : x + 4] = True
    own = (_distance(last, _affine(last, around)) < ONE_MOTION) & (apart > ONE_MOTION)
    _, parts = cv2.connectedComponents(own.astype(np.uint8), connectivity=4)
    mask = parts == parts[y, x]
    if not SMALLEST < mask.mean() < LARGEST:
        return None
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    return TrueThing(mask, bool(np.linalg.norm(background @ corners, axis=0).max() < ONE_MOTION))


def _affine(field: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The affine displacement `(2, 3)` that most pixels of a part follow."""
    y, x = np.nonzero(part)
    chosen = np.random.default_rng(0).permutation(len(x))[:4000]
    start = np.stack([x, y], 1)[chosen].astype(np.float64)
    matrix, _ = cv2.estimateAffine2D(start, start + field[:, part].T[chosen], ransacReprojThreshold=ONE_MOTION)
    return matrix - [[1, 0, 0], [0, 1, 0]] if matrix is not None else np.zeros((2, 3))


def _distance(field: np.ndarray, affine: np.ndarray) -> np.ndarray:
    everywhere = np.ones(field.shape[1:], bool)
    return np.linalg.norm(field - displacements(affine, everywhere).reshape(field.shape), axis=0)


def true_drags_of(clip: Clip, mask: np.ndarray) -> list[Drag]:
    """Two tracks of a thing that stay in the picture and begin far from each other, or fewer where there are no two."""
    inner = depth(mask)
    y, x = np.nonzero(inner > 0.3 * inner.max())
    middle = np.argmax(inner[y, x])
    drags = [track(clip, int(x[middle]), int(y[middle]))]
    for far in np.argsort(-np.hypot(x - x[middle], y - y[middle]))[:: max(1, len(x) // 20)]:
        drags.append(track(clip, int(x[far]), int(y[far])))
        if drags[-1] is not None:
            break
    return [drag for drag in drags if drag is not None][:2]


def click_and_box(mask: np.ndarray, seed: int) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """Where a person might click a thing, in its inner part, and the box that they might draw around it."""
    random = np.random.default_rng(seed)
    inner = depth(mask)
    y, x = np.nonzero(inner > 0.6 * inner.max())
    chosen = random.integers(len(x))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    low, high = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]])
    room = random.uniform(0, BOX_ROOM, (2, 2)) * (high - low)
    return (int(x[chosen]), int(y[chosen])), (*(low - room[0]).tolist(), *(high + room[1]).tolist())


def things(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """Finds a thing by a click and moves it along its true tracks, with its true mask and with the mask found.

    Args:
        pipe: both stages.
        clip: square frames, several times the pipeline's working size.
        seed: of the click and of the noise.

    Returns:
        `things.*`, see `table.FIGURES`; nothing where the clip has no thing.
    """
    true = find_thing(clip)
    drags = [] if true is None else true_drags_of(clip, true.mask)
    if len(drags) < 2:
        return {}
    size = pipe.config.working_size
    _, flow = reduced(clip, size)
    flow, inside = flow.numpy(), resized_mask(true.mask, size, size)
    point, box = click_and_box(true.mask, seed)
    clicked, boxed = select_thing(clip.frames[0], [point]), select_thing(clip.frames[0], [point], box=box)
    numbers = {"iou_click": iou(clicked, true.mask), "iou_click_box": iou(boxed, true.mask)}

    def moved(mask: np.ndarray, own: list[Drag], anchored: bool = true.background_rests) -> np.ndarray:
        control = MotionControl(clip.frames.shape[2:0:-1], things=[Thing(mask, own)])
        control = control.anchor_background() if anchored else control
        options = {"stride": clip.stride, "num_frames": len(flow) + 1, "generator": noise(seed)}
        return pipe.predict_motion(clip.frames[0], "", control, **options).flow[0].cpu().numpy()

    def error(found: np.ndarray) -> float:
        return float(np.linalg.norm(found[-1] - flow[-1], axis=0)[inside].mean())

    found = moved(true.mask, drags)
    numbers["epe_px"] = error(found)
    numbers["epe_px_click"] = error(moved(clicked, drags))
    numbers["epe_px_click_one_drag"] = error(moved(clicked, drags[:1]))
    turns = [_turn(field, inside) for field in flow]
    if abs(turns[-1]) > TURNS:
        apart = [_turn(field, inside) - turn for field, turn in zip(found, turns, strict=True)]
        numbers["turn_degrees"] = float(np.abs((np.array(apart) + 180) % 360 - 180).mean())
    if true.background_rests:
        rest = np.linalg.norm(flow, axis=1).max(0) < 0.01
        numbers["slip_px"] = float(np.linalg.norm(found[-1], axis=0)[rest].mean())
        free = moved(true.mask, drags, anchored=False)
        numbers["slip_px_free"] = float(np.linalg.norm(free[-1], axis=0)[rest].mean())
    return {f"things.{name}": value for name, value in numbers.items()}


def _turn(field: np.ndarray, part: np.ndarray) -> float:
    """By how many degrees a part of a field turns: that of the least-squares similarity."""
    y, x = np.nonzero(part)
    start = x + 1j * y
    there = start + field[0, part] + 1j * field[1, part]
    start = start - start.mean()
    return float(np.degrees(np.angle((there * start.conj()).sum())))
