"""Finds the thing that a person points at, with OpenCV's GrabCut.

GrabCut (Rother et al., SIGGRAPH 2004) parts a picture into foreground and background by the colours of both and by the
edges between them, and what it finds depends on where it starts. So it starts several times: in a box from ellipses of
several sizes, and around a click from discs of several sizes, since a click does not say how large the thing is. Of the
regions that come out the one is chosen that looks most like a thing, or that also fills the box best. More clicks on
the thing and beside it mend the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from mi2v_lite.control.parts import Point

# Lengths without a unit are shares of the shorter side of the photo.
SEARCH_SIDE, FINE_SIDE = 192, 320  # pixels of the shorter side of the copies for the search and for the outline
RADII = (0.05, 0.075, 0.11, 0.16, 0.23, 0.33)  # of the discs around a click that are probably the thing
SURE, POSSIBLE, AROUND = 0.35, 1.9, 2.5  # of such a disc: surely the thing, farthest edge of it, what is looked at
ITERATIONS, FINE_ITERATIONS = 3, 3
POINT = 0.012  # radius of the disc that a click marks
LINE = 0.015  # width of a scribble
ELLIPSES = (1, 0.75, 0.5)  # that are probably the thing, as shares of the one in a box
BESIDE = 0.11  # radius of the disc that is probably the thing around a mark beside the box
BOX_MARGIN = 0.5  # how much around a box is looked at, as a share of its longer side
DOUBT = 0.3  # how far the fine outline may lie from the first, as a share of the region's radius
SMALLEST = 9  # pixels of a region
USUAL_RADIUS = 0.14  # of a thing, as if it were a disc
BOX = np.ones((3, 3), np.uint8)
# How much each property of a region counts, fitted to IoU on the training things of the world.
AGREEMENT, COLOUR, SIZE, BORDER = 0.41, 0.26, -0.23, -0.42
# The same for regions in a box: that they reach its sides, and that their colours are not those around them.
REACH, BOX_COLOUR = 0.72, 0.43


def select_thing(
    photo: Image.Image | np.ndarray,
    points: Sequence[Point] = (),
    not_points: Sequence[Point] = (),
    box: tuple[float, float, float, float] | None = None,
    scribbles: Sequence[Sequence[Point]] = (),
    not_scribbles: Sequence[Sequence[Point]] = (),
) -> np.ndarray:
    """Finds the pixels of a thing from marks on the photo.

    Args:
        photo: PIL, or uint8 (H, W, 3) in RGB.
        points: points (x, y) on the thing, in pixels of the photo.
        not_points: points that are not on it.
        box: left, top, right and bottom; the thing lies inside, or near points that are beside it. With a box, one
            point or none is usually enough.
        scribbles: lines of points on the thing.
        not_scribbles: lines of points beside it.

    Returns:
        The mask of the thing, bool (H, W), for a `Thing`. Each of its parts holds a mark; without a point or scribble
        on the thing, it is the largest part in the box.

    Raises:
        ValueError: if nothing says where the thing is, a mark lies outside the photo, or the box has no area.
    """
    picture = np.ascontiguousarray(np.asarray(photo.convert("RGB") if isinstance(photo, Image.Image) else photo))
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"the photo must be uint8 (H, W, 3), got {picture.dtype} {picture.shape}.")
    height, width = picture.shape[:2]
    on = [*([point] for point in points), *scribbles]
    off = [*([point] for point in not_points), *not_scribbles]
    _check(on, off, box, width, height)

    fine = _reduced(picture, FINE_SIDE)
    marks = _Marks(on, off, (width, height), fine.shape[:2])
    if box is None:
        small = _reduced(picture, SEARCH_SIDE)
        region = _searched(small, _Marks(on, off, (width, height), small.shape[:2]))
        labels, window = _near_region(region, fine.shape[:2])
        found = marks.parts(_cut(fine, marks.write(labels), window, FINE_ITERATIONS))
    else:
        found = _boxed(fine, marks, np.array(box) * fine.shape[1] / width)
    large = cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(large, (0, 0), max(0.5, 0.6 * height / fine.shape[0])) > 0.5


def _check(
    on: Sequence[Sequence[Point]], off: Sequence[Sequence[Point]], box: Sequence[float] | None, width: int, height: int
) -> None:
    if not any(len(line) for line in on) and box is None:
        raise ValueError("nothing says where the thing is; give a point on it, a box or a scribble.")
    for x, y in (point for line in (*on, *off) for point in line):
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"the point ({x:g}, {y:g}) lies outside the {width}x{height} photo.")
    if box is not None:
        left, top, right, bottom = box
        if not (left < right and top < bottom and left < width and top < height and right > 0 and bottom > 0):
            raise ValueError(
                f"the box {tuple(box)} holds nothing of the {width}x{height} photo; give left, top, right and bottom."
            )


def _reduced(picture: np.ndarray, side: int) -> np.ndarray:
    """The picture with this shorter side, or as it is if it is smaller."""
    height, width = picture.shape[:2]
    scale = min(1.0, side / min(height, width))
    return cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


class _Marks:
    """Clicks and scribbles, drawn on a copy of the photo of another size.

    Attributes:
        on: bool (h, w), what is surely on the thing.
        off: bool (h, w), what is surely not.
    """

    def __init__(
        self,
        on: Sequence[Sequence[Point]],
        off: Sequence[Sequence[Point]],
        size: tuple[int, int],
        shape: tuple[int, int],
    ) -> None:
        scale = np.array(shape[::-1]) / size
        canvases = []
        for lines in (on, off):
            canvas = np.zeros(shape, np.uint8)
            for line in lines:
                places = np.floor((np.array(line, float).reshape(-1, 2) + 0.5) * scale).astype(np.int32)
                if len(places) == 1:
                    cv2.circle(canvas, places[0].tolist(), max(1, round(POINT * min(shape))), 1, -1)
                elif len(places):
                    cv2.polylines(canvas, [places], False, 1, max(1, round(LINE * min(shape))))
            canvases.append(canvas > 0)
        self.off = canvases[1]
        self.on = canvases[0] & ~self.off

    def write(self, labels: np.ndarray) -> np.ndarray:
        """GrabCut's labels with the marks in them, in place."""
        labels[self.on], labels[self.off] = cv2.GC_FGD, cv2.GC_BGD
        return labels

    def parts(self, found: np.ndarray) -> np.ndarray:
        """The connected parts of a region that hold a mark, or else the largest.

        Their holes are filled, except those that hold a mark beside the thing.
        """
        count, parts, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=4)
        if count == 1:
            return found
        kept = set(np.unique(parts[self.on])) - {0} or {1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())}
        whole = np.isin(parts, list(kept))
        _, holes = cv2.connectedComponents((~np.pad(whole, 1)).astype(np.uint8), connectivity=4)
        left_open = {holes[0, 0], *np.unique(holes[1:-1, 1:-1][self.off])} - {0}
        return ~np.isin(holes, list(left_open))[1:-1, 1:-1]


def _searched(picture: np.ndarray, marks: _Marks) -> np.ndarray:
    """The best of the regions that GrabCut finds from discs of several sizes around the marks, bool (h, w)."""
    side, (h, w) = min(picture.shape[:2]), picture.shape[:2]
    far_on, far_off = (
        cv2.distanceTransform((~part).astype(np.uint8), cv2.DIST_L2, 5) if part.any() else np.full((h, w), np.inf)
        for part in (marks.on, marks.off)
    )
    regions = []
    for radius in (share * side for share in RADII):
        is_nearer = far_on < far_off
        labels = np.full((h, w), cv2.GC_PR_BGD, np.uint8)
        labels[is_nearer & (far_on < radius)] = cv2.GC_PR_FGD
        labels[is_nearer & (far_on < SURE * radius)] = cv2.GC_FGD
        labels[far_on > POSSIBLE * radius + 3] = cv2.GC_BGD
        window = _window(far_on < AROUND * radius + 7)
        region = marks.parts(_cut(picture, marks.write(labels), window, ITERATIONS))
        if region.sum() >= SMALLEST:
            regions.append(region)
    if not regions:
        return marks.on
    return regions[int(np.argmax(_likeness_to_a_thing(regions, picture)))]


def _likeness_to_a_thing(regions: Sequence[np.ndarray], picture: np.ndarray) -> list[float]:
    """How much each region looks like a whole thing.

    A thing is found again from other discs (mean IoU with the more alike half of the other regions). It has other
    colours than its surroundings (Bhattacharyya distance of their histograms in CIELAB). It has a usual size, and it
    does not run along the border of the photo.
    """
    colours = _coarse_colours(picture)
    frame = np.ones(colours.shape, bool)
    frame[1:-1, 1:-1] = False
    scores = []
    for number, region in enumerate(regions):
        others = sorted((iou(region, other) for k, other in enumerate(regions) if k != number), reverse=True)
        agreement = np.mean(others[: max(1, len(others) // 2)]) if others else 0.0
        size = abs(np.log(np.sqrt(region.sum() / np.pi) / (USUAL_RADIUS * min(region.shape))))
        outline = region & ~(cv2.erode(region.astype(np.uint8), BOX, borderValue=0) > 0)
        border = (outline & frame).sum() / outline.sum()
        apart = _apart(region, colours)
        scores.append(AGREEMENT * agreement + COLOUR * apart + SIZE * size + BORDER * border)
    return scores


def _coarse_colours(picture: np.ndarray) -> np.ndarray:
    """A number from 0 to 2047 for the colour of each pixel, int (h, w), by parts of CIELAB."""
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB) // (32, 16, 16)
    return lab[..., 0].astype(int) * 256 + lab[..., 1] * 16 + lab[..., 2]


def _apart(region: np.ndarray, colours: np.ndarray) -> float:
    """How far the colours of a region differ from those around it, from 0 to 1."""
    ring = cv2.dilate(region.astype(np.uint8), BOX, iterations=max(3, int(0.25 * np.sqrt(region.sum())))) > 0
    parts = region, ring & ~region
    inside, outside = (np.bincount(colours[part], minlength=2048) / max(1, part.sum()) for part in parts)
    return 1 - np.sqrt(inside * outside).sum()


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks, bool `(H, W)`."""
    return float((one & other).sum() / max(1, (one | other).sum()))


def _near_region(region: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, tuple[slice, slice]]:
    """GrabCut's labels for the fine outline of a region: what is deep inside is sure, and what is far outside."""
    region = cv2.resize(region.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST)
    radius = np.sqrt(region.sum() / np.pi)
    inward, outward = (cv2.distanceTransform(part, cv2.DIST_L2, 5) for part in (region, 1 - region))
    labels = np.full(shape, cv2.GC_BGD, np.uint8)
    labels[outward <= DOUBT * radius + 1] = cv2.GC_PR_BGD
    labels[region > 0] = cv2.GC_PR_FGD
    labels[inward > DOUBT * radius] = cv2.GC_FGD
    return labels, _window(outward <= (DOUBT + 0.5) * radius + 6)


def _boxed(picture: np.ndarray, marks: _Marks, box: np.ndarray) -> np.ndarray:
    """The best of the regions that GrabCut finds in a box, in RGB and in CIELAB, bool (h, w).

    A person draws a box close to the thing, so it should reach the sides (Lempitsky et al., ICCV 2009).
    """
    colours, (left, top, right, bottom) = _coarse_colours(picture), box
    (h, w), regions, scores = picture.shape[:2], [], []
    area = (min(right, w) - max(left, 0)) * (min(bottom, h) - max(top, 0))
    for view in (picture, cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)):
        for share in ELLIPSES:
            labels, window = _in_box(box, share, marks)
            region = marks.parts(_cut(view, marks.write(labels), window, FINE_ITERATIONS))
            rows, columns = _window(region)
            tall = max(min(rows.stop, bottom) - max(rows.start, top), 0)
            wide = max(min(columns.stop, right) - max(columns.start, left), 0)
            regions.append(region)
            score = REACH * tall * wide / area + BOX_COLOUR * _apart(region, colours)
            scores.append(score if region.any() else -np.inf)
    return regions[int(np.argmax(scores))]


def _in_box(box: np.ndarray, share: float, marks: _Marks) -> tuple[np.ndarray, tuple[slice, slice]]:
    """GrabCut's labels for a thing in a box: it probably fills a share of the ellipse in the box."""
    (left, top, right, bottom), shape = box, marks.on.shape
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    from_middle = ((x - (left + right) / 2) / ((right - left) / 2)) ** 2
    from_middle = from_middle + ((y - (top + bottom) / 2) / ((bottom - top) / 2)) ** 2
    labels = np.full(shape, cv2.GC_BGD, np.uint8)
    inside = (x >= left - 1) & (x <= right + 1) & (y >= top - 1) & (y <= bottom + 1)
    labels[inside] = cv2.GC_PR_BGD
    labels[from_middle <= share**2] = cv2.GC_PR_FGD
    margin = BOX_MARGIN * max(right - left, bottom - top) + 6
    around = (x > left - margin) & (x < right + margin) & (y > top - margin) & (y < bottom + margin)
    beside = marks.on & ~inside
    if beside.any():
        far, radius = cv2.distanceTransform((~beside).astype(np.uint8), cv2.DIST_L2, 5), BESIDE * min(shape)
        labels[~inside & (far < POSSIBLE * radius)] = cv2.GC_PR_BGD
        labels[~inside & (far < radius)] = cv2.GC_PR_FGD
        around |= far < AROUND * radius
    return labels, _window(around)


def innermost(mask: np.ndarray) -> tuple[int, int]:
    """The pixel (x, y) of a mask, bool `(H, W)`, that is farthest from its rim and the picture's."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return int(x), int(y)


def _window(region: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns in which a region lies."""
    return tuple(
        slice(int(line.argmax()), len(line) - int(line[::-1].argmax())) for line in (region.any(1), region.any(0))
    )


def _cut(picture: np.ndarray, labels: np.ndarray, window: tuple[slice, slice], iterations: int) -> np.ndarray:
    """Where GrabCut finds the thing in a window of a picture, bool (h, w)."""
    part = np.ascontiguousarray(labels[window])
    background, thing = (part == cv2.GC_BGD) | (part == cv2.GC_PR_BGD), (part == cv2.GC_FGD) | (part == cv2.GC_PR_FGD)
    found = np.zeros(labels.shape, bool)
    found[window] = thing
    if background.any() and thing.any():
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(np.ascontiguousarray(picture[window]), part, None, *models, iterations, cv2.GC_INIT_WITH_MASK)
        found[window] = (part == cv2.GC_FGD) | (part == cv2.GC_PR_FGD)
    return found
