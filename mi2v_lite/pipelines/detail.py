"""Detail carried from the photo: frames of the photo's own size and of any rate (notebook 03; not in the paper).

The networks work small, and what they paint is soft. But the motion is explicit, so the photo's own pixels can go along
it; Stage 2 is needed for what the photo cannot know. A frame at time t is put together from three pictures:

    carried   the photo, read where each pixel comes from (`flow.preimage`), along the field enlarged to its grid with
              its own edges (`flow.guided`)
    backdrop  what is uncovered: the photo without its moving things, continued into their places and beyond its
              border, further in by what Stage 2 painted there; one picture for the whole clip, so it cannot flicker
    painted   Stage 2's frame, enlarged: it gives light and colour, and wins where it disagrees with what was carried

Between the frames of the networks each pixel follows its own track, a monotone cubic (Fritsch and Carlson 1980), so a
clip can have any rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from mi2v_lite.flow.guided import GuidedEnlarger
from mi2v_lite.flow.preimage import Preimage, bands, preimage

DETAILS = ("carry", "none")

# All lengths below are in cells of the field's grid, all colours in levels of 255, unless they say otherwise.
THING = 0.5  # what leaves the motion of the backdrop by so much, on average over the clip, is a thing
SMALLEST_THING = 12  # cells; smaller ones belong to the backdrop
MOST_THINGS = 0.98  # of the photo
ROBUST_ROUNDS = 12
RIM = 3  # pixels of a 512-pixel photo about a thing that mix its colours with the backdrop's
MOST_BEYOND = 0.75  # of the shorter side: how far the backdrop is continued beyond the photo
INPAINT_RADIUS = 4
PAINTED_FROM = 24.0  # how far from what the photo knows Stage 2's picture counts as much as its continuation
GRAIN_SIGMA, GRAIN_LEVELS = 0.75, 30.0  # fine detail is what a blur of so many cells takes away, softly cut at a level
GRAIN_REACH = 0.3  # of the shorter side: how far in the grain fades to a third
FEATHER, RIM_FEATHER = 1.0, 0.7  # pixels: the soft edge between carried and backdrop, and of a thing
LIGHT_SIGMA, LIGHT_LEAST = 10.0, 12.0  # light changes over wide areas; less than so many levels is Stage 2's error
DOUBT_SIGMA, DOUBT_FROM, DOUBT_TO = 2.0, 70.0, 110.0  # where carried and painted differ by so much, painted wins


def carry(
    photo: np.ndarray,
    flow: Tensor,
    painted: np.ndarray,
    times: Sequence[float] | None = None,
    brush: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """The frames of a clip at the photo's own size, one after the other.

    Args:
        photo: frame 0, uint8 `(H, W, 3)`, RGB, of any size.
        flow: f_{0->i}, `(N, 2, h, w)` in pixels of its own grid.
        painted: Stage 2's frames, uint8 `(N + 1, h', w', 3)`, of any size.
        times: rising, from 0 (the photo) to N (the last field); 0, 1, ..., N if None.
        brush: bool `(H, W)`, True = may move; the rest of every frame is the photo's own pixels.

    Yields:
        uint8 `(H, W, 3)`, one for each time. At time 0 it is the photo.

    Raises:
        ValueError: for inputs that do not fit together. At the call, not at the first frame.
    """
    count = flow.shape[0]
    if len(painted) != count + 1:
        raise ValueError(f"{count} fields go with {count + 1} painted frames, got {len(painted)}.")
    times = np.arange(count + 1.0) if times is None else np.asarray(times, np.float64)
    if times.ndim != 1 or not (np.diff(times) >= 0).all() or not ((times >= 0) & (times <= count)).all():
        raise ValueError(f"times must rise within 0 and {count}, the number of fields, got {times}.")
    if brush is not None and brush.shape != photo.shape[:2]:
        raise ValueError(f"the brush is {brush.shape} (height, width) but the photo {photo.shape[:2]}.")
    enlarger = GuidedEnlarger(flow, photo)
    return _frames(photo, enlarger, painted, times, brush)


def frame_times(num_fields: int, fps: float, seconds: float) -> np.ndarray:
    """The times of a clip's frames: from the photo to the last field, evenly.

    Args:
        num_fields: N. fps: frames a second. seconds: length of the clip.

    Returns:
        `(max(2, round(fps * seconds)),)`, from 0 to N.

    Raises:
        ValueError: a rate or length that is not positive and finite.
    """
    for name, value in (("fps", fps), ("seconds", seconds)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number, got {value}.")
    return np.linspace(0, num_fields, max(2, round(fps * seconds)))


def _frames(
    photo: np.ndarray, enlarger: GuidedEnlarger, painted: np.ndarray, times: np.ndarray, brush: np.ndarray | None
) -> Iterator[np.ndarray]:
    (height, width), (h, w) = photo.shape[:2], enlarger.flow.shape[-2:]
    flow = enlarger.flow.numpy()
    painted = np.stack([cv2.resize(f, (w, h), interpolation=cv2.INTER_AREA) for f in painted]).astype(np.float32)
    small = cv2.resize(photo, (w, h), interpolation=cv2.INTER_AREA)
    layers = _layers(flow, small, painted)
    order = enlarger.spread(torch.from_numpy(layers.order)).numpy()
    seen = [preimage(field, layers.order) for field in flow]
    light, trust = _judged(small, painted, seen)
    rim = max(1, round(RIM * min(height, width) / 512))
    thing = enlarger.spread(torch.from_numpy(layers.things.astype(np.float32))).numpy()
    solid = (thing > 0.5).astype(np.uint8)
    thing = cv2.dilate((thing > 0.05).astype(np.uint8), np.ones((2 * rim + 1,) * 2, np.uint8)) > 0
    backdrop = _backdrop(photo, thing, layers, flow, painted, light)
    behind = _Track(list(backdrop.flow).__getitem__, len(flow))
    carried_along = _Track(lambda i: enlarger(i).numpy(), len(flow))
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
        shade, sure, own = (_between(each, time) for each in (light, trust, painted))
        frame = np.empty_like(photo)
        for rows in bands(height, width):
            front = _read(photo, back.x[rows], back.y[rows], cv2.INTER_CUBIC, cv2.BORDER_REFLECT)
            behind_it = _read(backdrop.picture, *under[:, rows], cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
            part = behind_it + share[rows, :, None] * (front - behind_it) + _enlarged(shade, (height, width), rows)
            certain = _enlarged(sure, (height, width), rows)
            if certain.min() < 1:
                painting = _enlarged(own, (height, width), rows)
                part = painting + certain[..., None] * (part - painting)
            frame[rows] = part.round().clip(0, 255)
        yield frame if brush is None else np.where(brush[..., None], frame, photo)


def _share(back: Preimage, solid: np.ndarray, under: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
    """How much the carried photo counts at each pixel, `(H, W)` float32, 0 to 1; the rest is the backdrop's.

    It fades at the border of holes, and at the rim of a thing, whose pixels hold colours of what was behind it in the
    photo: as soon as it has left that behind. `solid`: uint8 `(H, W)`, 1 on the photo's things. `under`: the places
    of the backdrop.
    """
    share = _softened(back.seen, FEATHER)
    if solid.any():
        there = cv2.remap(solid, back.x, back.y, cv2.INTER_NEAREST) * back.seen.astype(np.uint8)
        apart = np.hypot(back.x - under[0] + corner[0], back.y - under[1] + corner[1]).clip(0, 1)
        rim = np.where(there > 0, 1 - apart * (1 - _softened(there > 0, RIM_FEATHER)), 1)
        share = np.minimum(share, rim)
    return share


def _softened(seen: np.ndarray, sigma: float) -> np.ndarray:
    """1 inside a region, 0 outside, and less than 1 inside along its border: `(H, W)` float32."""
    soft = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.where(seen, (2 * soft - 1).clip(0, 1), 0)


def _read(picture: np.ndarray, x: np.ndarray, y: np.ndarray, mode: int, border: int) -> np.ndarray:
    """The picture at points, float32."""
    return cv2.remap(picture, x, y, mode, borderMode=border).astype(np.float32)


def _enlarged(picture: np.ndarray, size: tuple[int, int], rows: slice) -> np.ndarray:
    """Some rows of what a picture of cells is at another size (height, width), bilinear."""
    (height, width), (h, w) = size, picture.shape[:2]
    scale = np.array([[w / width, 0, 0.5 * w / width - 0.5], [0, h / height, (rows.start + 0.5) * h / height - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    part = (width, rows.stop - rows.start)
    return cv2.warpAffine(picture, scale, part, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _between(pictures: np.ndarray, time: float) -> np.ndarray:
    """Pictures of whole times, `(F, ...)`, read at a time between them."""
    before = min(int(time), len(pictures) - 2)
    return pictures[before] + (time - before) * (pictures[before + 1] - pictures[before])


class _Track:
    """Fields at whole times, read at times between: the monotone cubic through 0 and all of them.

    `fields`: index 0 to count - 1 -> f_{0->index+1}, `(2, H, W)`. As the times rise each is asked for once, and four
    are held.
    """

    def __init__(self, fields: Callable[[int], np.ndarray], count: int) -> None:
        self._fields, self._count, self._held = fields, count, {}

    def __call__(self, time: float) -> np.ndarray:
        """The field at a time from 0 to count."""
        first = min(int(time), self._count - 1)
        self._held = {index: field for index, field in self._held.items() if index >= first - 1}
        four = [self._at(index) for index in range(first - 1, first + 3)]
        found = np.empty_like(four[1])
        for rows in bands(*found.shape[1:]):
            found[:, rows] = _monotone(*(None if f is None else f[:, rows] for f in four), np.float32(time - first))
        return found

    def _at(self, index: int) -> np.ndarray | None:
        """The field at a whole time, None beyond the ends."""
        if not 0 <= index <= self._count:
            return None
        if index not in self._held:
            field = self._fields(max(index - 1, 0))
            self._held[index] = field if index else np.zeros_like(field)
        return self._held[index]


def _monotone(
    before: np.ndarray | None, here: np.ndarray, there: np.ndarray, after: np.ndarray | None, t: np.float32
) -> np.ndarray:
    """Between `here` (t = 0) and `there` (t = 1), and never beyond them; `before` and `after` give the slopes."""
    step = there - here
    first = _end_slope(step, after, there) if before is None else _slope(here - before, step)
    last = _end_slope(step, before, here, -1) if after is None else _slope(step, after - there)
    # Hermite's form, about the straight line between the two.
    return here + t * step + t * (1 - t) * ((1 - t) * (first - step) - t * (last - step))


def _slope(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """At a point: the harmonic mean of the steps on both sides, 0 where it turns."""
    product = before * after
    return np.where(product > 0, 2 * product / np.where(product > 0, before + after, 1), 0)


def _end_slope(step: np.ndarray, beyond: np.ndarray | None, inner: np.ndarray, sign: int = 1) -> np.ndarray:
    """At an end: that of the parabola through three points, kept from overshooting. `beyond` lies past `inner`."""
    if beyond is None:
        return step
    beside = sign * (beyond - inner)
    slope = 1.5 * step - 0.5 * beside
    slope = np.where(slope * step > 0, slope, 0)
    return np.where((step * beside < 0) & (np.abs(slope) > 3 * np.abs(step)), 3 * step, slope)


@dataclass(frozen=True)
class _Layers:
    """What is in front of what, on the small grid.

    order: `(h, w)` float32, 0 to 1, larger is nearer. things: `(h, w)` bool. backdrop: the affine motion of all the
    rest, `(N, 2, 3)`: f = backdrop @ (1, x, y), x and y counted from the middle.
    """

    order: np.ndarray
    things: np.ndarray
    backdrop: np.ndarray


def _layers(flow: np.ndarray, small: np.ndarray, painted: np.ndarray) -> _Layers:
    """Most of a picture moves as one, by the camera; what leaves that motion is a thing, and in front of it.

    Among things that cross, the one is in front under which the crossing looks more as Stage 2 painted it.
    """
    motion, apart = _dominant_motion(flow)
    things = cv2.morphologyEx((apart > THING).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(things, connectivity=8)
    for label in range(1, count):
        if stats[label, cv2.CC_STAT_AREA] < SMALLEST_THING:
            labels[labels == label] = 0
    kept = [label for label in range(1, count) if (labels == label).any()]
    kept.sort(key=lambda label: apart[labels == label].mean())
    # The backdrop fills the lower half of the order by how far it leaves its motion, each thing has a place above.
    order = 0.4 * (apart / max(apart.max(), 1e-6))
    ranked = _ranked(kept, labels, flow, small, painted)
    for place, label in enumerate(ranked):
        order[labels == label] = 0.5 + 0.5 * (place + 1) / len(ranked)
    return _Layers(order.astype(np.float32), labels > 0, motion)


def _ranked(kept: list[int], labels: np.ndarray, flow: np.ndarray, small: np.ndarray, painted: np.ndarray) -> list[int]:
    """The things from the farthest to the nearest."""
    if len(kept) < 2:
        return kept
    place = np.zeros(labels.max() + 1, np.float32)
    place[kept] = np.linspace(0.1, 1, len(kept))
    votes: dict[tuple[int, int], float] = {}
    for field, picture in zip(flow, painted[1:], strict=True):
        ways = [preimage(field, order[labels]) for order in (place, np.where(place > 0, 1.1 - place, 0))]
        names = [cv2.remap(labels.astype(np.float32), way.x, way.y, cv2.INTER_NEAREST).astype(int) for way in ways]
        errors = [np.abs(cv2.remap(small, way.x, way.y, cv2.INTER_LINEAR) - picture).mean(axis=2) for way in ways]
        cross = ways[0].seen & ways[1].seen & (names[0] != names[1]) & (names[0] > 0) & (names[1] > 0)
        for front, back, vote in zip(names[0][cross], names[1][cross], (errors[1] - errors[0])[cross], strict=True):
            votes[front, back] = votes.get((front, back), 0.0) + float(vote)
    ranked = list(kept)
    for i in range(len(ranked)):  # a bubble sort: few things, and votes need not be transitive
        for j in range(len(ranked) - 1 - i):
            if votes.get((ranked[j + 1], ranked[j]), 0.0) < 0:
                ranked[j], ranked[j + 1] = ranked[j + 1], ranked[j]
    return ranked


def _grid(h: int, w: int, beyond: int = 0) -> np.ndarray:
    """(1, x, y) of every cell, counted from the middle, float32 `(3, h + 2 beyond, w + 2 beyond)`."""
    y, x = np.mgrid[-beyond : h + beyond, -beyond : w + beyond].astype(np.float32)
    return np.stack([np.ones_like(x), x - (w - 1) / 2, y - (h - 1) / 2])


def _dominant_motion(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The affine motion that most cells follow, and how far each cell leaves it on average over the clip.

    Iteratively reweighted least squares, one weight a cell for all fields.
    """
    count, _, h, w = flow.shape
    terms = _grid(h, w).reshape(3, -1).astype(np.float64)
    fields = flow.reshape(2 * count, -1).astype(np.float64)
    weights = np.ones(h * w)
    for _ in range(ROBUST_ROUNDS):
        motion = np.linalg.solve((terms * weights) @ terms.T, (terms * weights) @ fields.T).T  # (2N, 3)
        apart = np.linalg.norm((fields - motion @ terms).reshape(count, 2, -1), axis=1).mean(axis=0)
        weights = 1 / (1 + (apart / max(1.5 * np.median(apart), 0.1)) ** 2) ** 2
    return motion.reshape(count, 2, 3), apart.reshape(h, w).astype(np.float32)


def _blurred(picture: np.ndarray, weight: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian mean of `(h, w, C)` over what has weight, and how much weight there is about each cell."""
    there = cv2.GaussianBlur(weight, (0, 0), sigma)
    total = cv2.GaussianBlur(picture * weight[..., None], (0, 0), sigma)
    return total / np.maximum(there, 1e-6)[..., None], there


def _judged(small: np.ndarray, painted: np.ndarray, seen: list[Preimage]) -> tuple[np.ndarray, np.ndarray]:
    """What Stage 2 says of the carried picture, on the small grid.

    Returns:
        light: `(N + 1, h, w, 3)`, to be added; trust: `(N + 1, h, w)`, 0 where the painted frame shall win.
    """
    photo = small.astype(np.float32)
    # What the autoencoder does to the photo is no light.
    habit = cv2.GaussianBlur(painted[0] - photo, (0, 0), DOUBT_SIGMA)
    light, trust = np.zeros_like(painted), np.ones(painted.shape[:3], np.float32)
    for i, (way, picture) in enumerate(zip(seen, painted[1:], strict=True), start=1):
        both = cv2.remap(np.dstack([photo, habit]), way.x, way.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        known = cv2.erode(way.seen.astype(np.float32), np.ones((3, 3)))
        change = picture - both[..., :3] - both[..., 3:]
        wide, _ = _blurred(change, known, LIGHT_SIGMA)
        usual = known * (np.abs(change - wide).max(axis=2) < DOUBT_FROM)  # another picture is no other light
        wide, _ = _blurred(change, usual, LIGHT_SIGMA)
        light[i] = np.sign(wide) * np.maximum(np.abs(wide) - LIGHT_LEAST, 0)
        near, much = _blurred(change - light[i], known, DOUBT_SIGMA)
        doubt = (np.abs(near).max(axis=2) - DOUBT_FROM) / (DOUBT_TO - DOUBT_FROM)
        trust[i] = np.where(much > 0.5, 1 - doubt.clip(0, 1), 1)
    return light, trust


@dataclass(frozen=True)
class _Backdrop:
    """The photo without its things, continued beyond its border.

    picture: uint8 `(H + 2 Y, W + 2 X, 3)`. corner: (X, Y) in pixels. flow: its motion on the small grid with `beyond`
    more cells on each side, `(N, 2, h + 2 beyond, w + 2 beyond)` in cells.
    """

    picture: np.ndarray
    corner: tuple[int, int]
    flow: np.ndarray
    beyond: int

    def places(self, flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Which point (x, y) of the picture is seen at each pixel of a frame of `size` when the backdrop has moved by
        `flow` (on its own grid): float32 `(2, H, W)`."""
        (height, width), beyond = size, self.beyond
        h, w = flow.shape[1] - 2 * beyond, flow.shape[2] - 2 * beyond
        y, x = np.mgrid[:h, :w].astype(np.float32)
        back = -flow[:, beyond : beyond + h, beyond : beyond + w]
        for _ in range(8):  # the point p that lands at q: p = q - f(p)
            place = x + back[0] + beyond, y + back[1] + beyond
            back = -np.stack(
                [cv2.remap(part, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for part in flow]
            )
        found = np.empty((2, height, width), np.float32)
        for part, there, side, small, corner in zip(found, back, (width, height), (w, h), self.corner, strict=True):
            part[:] = cv2.resize(there * np.float32(side / small), (width, height), interpolation=cv2.INTER_LINEAR)
            part += corner
        found[0] += np.arange(width, dtype=np.float32)
        found[1] += np.arange(height, dtype=np.float32)[:, None]
        return found


def _backdrop(
    photo: np.ndarray, thing: np.ndarray, layers: _Layers, flow: np.ndarray, painted: np.ndarray, light: np.ndarray
) -> _Backdrop:
    """Continue the photo behind its things and beyond its border.

    `thing`: bool `(H, W)`, what of the photo must not be continued.
    """
    (height, width), (h, w) = photo.shape[:2], flow.shape[-2:]
    reach = np.abs(np.einsum("ncA,Ayx->ncyx", layers.backdrop, _grid(h, w)[:, :: h - 1, :: w - 1])).max()
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
    seen, share = _painted_backdrop(layers, flow, motion, painted - light, beyond)
    offset = np.where(hidden[..., None] > 0, 0, whole - seen)
    matched = seen + _inpainted(offset + 128, hidden) - 128  # Stage 2's picture, without a step at the hole's border
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
    share = _softened(~thing, FEATHER)
    for rows in bands(height, width):
        known, there = share[rows, :, None], inside[rows].astype(np.float32)
        inside[rows] = (there + known * (photo[rows] - there)).round()
    known = np.zeros(picture.shape[:2], bool)
    known[corner[1] : corner[1] + height, corner[0] : corner[0] + width] = ~thing
    _add_grain(picture, known, hidden, scale, np.array(corner) - beyond * scale)
    return _Backdrop(picture, corner, motion, beyond)


def _add_grain(
    picture: np.ndarray, known: np.ndarray, hidden: np.ndarray, scale: np.ndarray, origin: np.ndarray
) -> None:
    """Gives what was continued the grain of the photo, in place: without it a hole shows as fog.

    The fine detail of the known part is mirrored at its border, so that it joins on there, and fades further in. Strong
    edges count little: mirrored, they would be seen as what they are.

    Args:
        picture: uint8 `(H', W', 3)`. known: bool `(H', W')`. hidden: uint8 `(h', w')`, 1 in cells that are not known.
        scale: (x, y), pixels a cell. origin: (x, y) of the first cell's corner in the picture, pixels.
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
        fine = np.subtract(*(_read(each, x, y, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE) for each in (picture, smooth)))
        fine = GRAIN_LEVELS * np.tanh(fine / GRAIN_LEVELS)
        share = cv2.remap(known.astype(np.uint8), x, y, cv2.INTER_NEAREST) * strength[row[rows]][:, column] * new
        picture[rows] = (picture[rows] + share[..., None] * fine).round().clip(0, 255)


def _backdrop_flow(flow: np.ndarray, layers: _Layers, beyond: int) -> np.ndarray:
    """The backdrop's motion everywhere: its affine motion, and how it leaves that, continued smoothly."""
    (h, w), frame = flow.shape[-2:], slice(beyond, -beyond)
    affine = np.einsum("ncA,Ayx->ncyx", layers.backdrop, _grid(h, w, beyond)).astype(np.float32)
    weight = np.zeros(affine.shape[-2:], np.float32)
    weight[frame, frame] = ~layers.things
    for whole, field in zip(affine, flow, strict=True):
        rest = np.zeros((*weight.shape, 2), np.float32)
        rest[frame, frame] = (field - whole[:, frame, frame]).transpose(1, 2, 0)
        near, sure = _blurred(rest, weight, 1.5)
        wide, some = _blurred(rest, weight, 8.0)
        sure, some = (2 * sure).clip(0, 1)[..., None], (8 * some).clip(0, 1)[..., None]
        whole += (sure * near + (1 - sure) * some * wide).transpose(2, 0, 1)
    return affine


def _painted_backdrop(
    layers: _Layers, flow: np.ndarray, motion: np.ndarray, painted: np.ndarray, beyond: int
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of what Stage 2 painted of each cell of the backdrop, `(h', w', 3)`, and whether it did, 0 to 1."""
    h, w = flow.shape[-2:]
    y, x = np.mgrid[-beyond : h + beyond, -beyond : w + beyond].astype(np.float32)
    total, weight = np.zeros((*x.shape, 3), np.float32), np.zeros(x.shape, np.float32)
    for field, there, picture in zip(flow, motion, painted[1:], strict=True):
        way = preimage(field, layers.order)
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
    """Telea's continuation of `(h, w, 3)`, 0 to 255, into the hidden cells."""
    plain = np.where(hidden[..., None] > 0, 0, picture).clip(0, 255).round().astype(np.uint8)
    return cv2.inpaint(plain, hidden, INPAINT_RADIUS, cv2.INPAINT_TELEA).astype(np.float32)
