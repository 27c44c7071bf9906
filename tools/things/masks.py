"""Finds the masks of the things that are marked in `things.json`, with OpenCV's GrabCut.

    python -m tools.things.masks --photos runs/photos --out runs/things

writes the mask of each thing as a PNG of one bit a pixel, and the list of them, `things.json`, which the lite world
reads. With `--sheets` it draws contact sheets of all marked photos instead, each thing with its outline. README.md
beside this file describes the marks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from mi2v_lite.cli import guarded
from mi2v_lite.data.things import Thing, write_things
from mi2v_lite.io.files import atomic
from mi2v_lite.io.images import read_image
from mi2v_lite.viz.contact_sheets import Row, sheet
from mi2v_lite.viz.drawing import draw_outline

THINGS = Path(__file__).with_name("things.json")
SIDE = 320  # GrabCut works on a copy of the photo whose shorter side has at most this many pixels
ITERATIONS = 6
SMALLEST_PART = 0.02  # smaller parts of a thing are dropped, as a share of its largest part
CELL = (420, 280)  # the size of a photo on a contact sheet
COLUMNS, ROWS = 3, 4
COLOURS = [(255, 255, 0), (255, 0, 255), (0, 255, 255)]  # of the outlines, in RGB


def read_things(path: Path = THINGS) -> dict[str, dict]:
    """Reads the marked photos.

    Args:
        path: the JSON file.

    Returns:
        For each file name of a photo its entry, as README.md describes it.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def mask(photo: np.ndarray, thing: dict) -> np.ndarray:
    """Finds the pixels of a thing.

    Args:
        photo: RGB, uint8 `(H, W, 3)`.
        thing: its marks, as README.md describes them.

    Returns:
        Boolean `(H, W)`, true on the thing.
    """
    height, width = photo.shape[:2]
    scale = min(1.0, SIDE / min(height, width))
    # The colours are in OpenCV's order. GrabCut rounds a little differently in the other order.
    small = cv2.resize(
        np.ascontiguousarray(photo[..., ::-1]),
        (round(width * scale), round(height * scale)),
        interpolation=cv2.INTER_AREA,
    )
    labels = _marked(small.shape[:2], thing)
    window = _surroundings(small.shape[:2], thing["box"])
    found = np.zeros(small.shape[:2], np.uint8)
    found[window] = _grab_cut(small[window], labels[window])
    found = cv2.morphologyEx(found, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    found = _filled(_marked_parts(found, thing), thing)
    large = cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(large, (0, 0), 0.6 / scale if scale < 1 else 0.5) > 0.5


def _corners(shape: tuple[int, int], box: list[float]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a box, in pixels."""
    height, width = shape
    left, top, right, bottom = box
    return left * width, top * height, right * width, bottom * height


def _marked(shape: tuple[int, int], thing: dict) -> np.ndarray:
    """GrabCut's labels before it begins: an ellipse in the box is probably the thing, points and cuts are certain."""
    height, width = shape
    left, top, right, bottom = _corners(shape, thing["box"])
    y, x = np.mgrid[:height, :width] + 0.5
    in_box = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    from_middle = ((x - (left + right) / 2) / ((right - left) / 2)) ** 2
    from_middle = from_middle + ((y - (top + bottom) / 2) / ((bottom - top) / 2)) ** 2
    labels = np.full(shape, cv2.GC_BGD, np.uint8)
    labels[in_box] = cv2.GC_PR_BGD
    labels[in_box & (from_middle <= 1)] = cv2.GC_PR_FGD
    # A point is a small disc, smaller still on a small thing.
    is_large = min(right - left, bottom - top) > 0.15 * min(shape)
    radius = 0.02 * min(shape) if is_large else max(1.5, 0.01 * min(shape))
    for label, points in ((cv2.GC_BGD, thing["outside"]), (cv2.GC_FGD, thing["inside"])):
        for point_x, point_y in points:
            labels[np.hypot(x - point_x * width, y - point_y * height) <= radius] = label
    for x0, y0, x1, y1 in thing.get("cut", []):
        start, end = (int(x0 * width), int(y0 * height)), (int(x1 * width), int(y1 * height))
        cv2.line(labels, start, end, cv2.GC_BGD, 2)
    return labels


def _surroundings(shape: tuple[int, int], box: list[float]) -> tuple[slice, slice]:
    """The box and a margin about it, from which GrabCut learns the colours of the background."""
    height, width = shape
    left, top, right, bottom = _corners(shape, box)
    margin = int(0.35 * max(right - left, bottom - top)) + 8
    rows = slice(max(0, int(top) - margin), min(height, int(bottom) + margin))
    return rows, slice(max(0, int(left) - margin), min(width, int(right) + margin))


def _grab_cut(picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Runs GrabCut from the given labels. Returns where it finds the thing."""
    picture, labels = np.ascontiguousarray(picture), labels.copy()
    if not (labels == cv2.GC_BGD).any():  # the box is the whole picture: its rim is taken as background
        rim = np.ones(labels.shape, bool)
        rim[1:-1, 1:-1] = False
        labels[rim & (labels != cv2.GC_FGD)] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(picture, labels, None, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def _parts_at(parts: np.ndarray, points: list[list[float]], shape: tuple[int, int], border: int = 0) -> set[int]:
    """The numbers of the connected parts in which points lie; `border` is how far `parts` goes beyond the photo."""
    height, width = shape
    rows = [min(height - 1, int(y * height)) + border for _, y in points]
    columns = [min(width - 1, int(x * width)) + border for x, _ in points]
    return {int(number) for number in parts[rows, columns]}


def _marked_parts(found: np.ndarray, thing: dict) -> np.ndarray:
    """Keeps the connected parts that hold a point of the thing, or the largest part where no point is in any."""
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(found)
    if count == 1:
        return found
    areas = statistics[:, cv2.CC_STAT_AREA]
    kept = _parts_at(parts, thing["inside"], found.shape) - {0} or {1 + int(np.argmax(areas[1:]))}
    largest = max(areas[part] for part in kept)
    return np.isin(parts, [part for part in kept if areas[part] >= SMALLEST_PART * largest]).astype(np.uint8)


def _filled(found: np.ndarray, thing: dict) -> np.ndarray:
    """Fills the holes, except those with an outside point in them if the thing is marked as one with holes."""
    _, parts = cv2.connectedComponents(1 - np.pad(found, 1), connectivity=4)
    background = {int(parts[0, 0])}
    if thing.get("holes"):
        background |= _parts_at(parts, thing["outside"], found.shape, border=1) - {0}
    return ~np.isin(parts, list(background))[1:-1, 1:-1]


def find_masks(photos: Path, things: dict[str, dict]) -> Iterator[tuple[str, dict, np.ndarray, list[np.ndarray]]]:
    """Finds the things of all marked photos.

    Args:
        photos: the folder with the photos, in `train` and `heldout`.
        things: the marked photos, as `read_things` returns them.

    Yields:
        The file name of a photo, its entry, the photo in RGB, uint8 `(H, W, 3)`, and a boolean `(H, W)` for each thing.

    Raises:
        ValueError: a photo is missing.
    """
    for name, entry in tqdm(things.items(), desc="finding masks", unit="photo"):
        photo = np.asarray(read_image(photos / entry["split"] / name))
        yield name, entry, photo, [mask(photo, marked) for marked in entry["things"]]


def write_masks(photos: Path, out: Path, things: dict[str, dict]) -> list[Thing]:
    """Writes the mask of each thing, cut to the box around it, and the list that `mi2v_lite.data.things` reads.

    The list is written last: a folder without it is not finished, and the command is to be run again (about
    two minutes).

    Args:
        photos: the folder with the photos, in `train` and `heldout`.
        out: the folder to write to.
        things: the marked photos, as `read_things` returns them.

    Returns:
        The things of the list.

    Raises:
        ValueError: a photo is missing.
    """
    written = []
    for name, entry, photo, masks in find_masks(photos, things):
        for number, (marked, found) in enumerate(zip(entry["things"], masks, strict=True)):
            left, top, width, height = cv2.boundingRect(found.astype(np.uint8))
            path = out / entry["split"] / f"{Path(name).stem}__{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as beside:
                Image.fromarray(found[top : top + height, left : left + width]).save(beside, format="PNG")
            box = (left, top, left + width, top + height)
            size = (photo.shape[1], photo.shape[0])
            written.append(Thing(marked["name"], name, entry["split"], path.relative_to(out).as_posix(), box, size))
    write_things(out, written)
    return written


def outlined(photo: np.ndarray, masks: list[np.ndarray]) -> Image.Image:
    """Draws the outlines of things into a photo that fits a cell of a contact sheet.

    Args:
        photo: RGB, uint8 `(H, W, 3)`.
        masks: one boolean `(H, W)` for each thing.

    Returns:
        RGB picture of the size `CELL`.
    """
    view = np.array(ImageOps.contain(Image.fromarray(photo), CELL))
    for number, shown in enumerate(masks):
        small = cv2.resize(shown.astype(np.uint8), view.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        draw_outline(view, small, COLOURS[number % len(COLOURS)])
    return ImageOps.pad(Image.fromarray(view), CELL, color="white")


def contact_sheets(photos: Path, out: Path, things: dict[str, dict]) -> int:
    """Draws all marked photos on pages, and writes the pages as `things_00.jpg`, `things_01.jpg` and so on.

    Args:
        photos: the folder with the photos, in `train` and `heldout`.
        out: the folder to write to.
        things: the marked photos, as `read_things` returns them.

    Returns:
        How many pages were written.

    Raises:
        ValueError: a photo is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    cells = []
    for name, entry, photo, masks in find_masks(photos, things):
        shares = [f"{thing['name']} {found.mean():.1%}" for thing, found in zip(entry["things"], masks, strict=True)]
        cells.append((f"{Path(name).stem}: {', '.join(shares)}", outlined(photo, masks)))
    blank = ("", Image.new("RGB", CELL, "white"))
    cells += [blank] * (-len(cells) % COLUMNS)
    rows = []
    for start in range(0, len(cells), COLUMNS):
        captions, pictures = zip(*cells[start : start + COLUMNS], strict=True)
        rows.append(Row("   |   ".join(filter(None, captions)), pictures))
    pages = [sheet(rows[start : start + ROWS], [""] * COLUMNS) for start in range(0, len(rows), ROWS)]
    for number, page in enumerate(pages):
        page.save(out / f"things_{number:02d}.jpg", quality=88)
    return len(pages)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line, which the module's docstring shows."""
    parser = argparse.ArgumentParser(description="Writes the masks of the things that are marked in photos.")
    parser.add_argument("--photos", type=Path, default=Path("runs/photos"), help="the folder with train/ and heldout/")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write to")
    parser.add_argument("--sheets", action="store_true", help="draw contact sheets instead")
    options = parser.parse_args(arguments)
    if options.sheets:
        print(f"{contact_sheets(options.photos, options.out, read_things())} pages in {options.out}")
    else:
        print(f"{len(write_masks(options.photos, options.out, read_things()))} masks in {options.out}")


if __name__ == "__main__":
    sys.exit(guarded(main))
