"""Makes the gallery of the README: things that were taken hold of in photos, and the clips that are made of it.

    python notebooks/gallery.py -o data_samples/gallery.png

Each `data_samples/controls/NAME.json`, or `NAME-WHAT.json`, was drawn on `data_samples/photos/NAME.jpg`. Its clip is
what `mi2v animate data_samples/photos/NAME.jpg --control FILE.json --seed 0 -o clip.mp4` makes of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from mi2v_lite.control import MotionControl
from mi2v_lite.io import images
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.viz import drawing
from mi2v_lite.viz.pictures import Picture, animation

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples"
TILE = (228, 152)  # pixels
COLUMNS = 4
GAP = 6
FRAMES = 12  # so many of the 48 are shown, so that the file stays small
FPS = 6
LARGEST = 1_000_000  # bytes


def read_drawings(samples: Path = SAMPLES) -> dict[str, tuple[Image.Image, MotionControl]]:
    """Reads the photos and what was drawn on them.

    Args:
        samples: the folder with `controls` and `photos`.

    Returns:
        name -> (photo, control), in the order of the names.

    Raises:
        ValueError: if there are no controls, or if one has another size than its photo.
        OSError: if a file is missing.
    """
    drawings = {}
    for path in sorted((samples / "controls").glob("*.json")):
        name = path.stem.split("-")[0]  # that of the photo; there may be several drawings on one
        photo, control = images.read_image(samples / "photos" / f"{name}.jpg"), MotionControl.load(path)
        if control.size != photo.size:
            raise ValueError(f"{path.name} was drawn on {control.size} pixels, but its photo has {photo.size}.")
        drawings[path.stem] = photo, control
    if not drawings:
        raise ValueError(f"no controls in {samples / 'controls'}: draw some with DragCanvas and save them there.")
    return drawings


def clip(pipe: Any, photo: Image.Image, control: MotionControl) -> list[Image.Image]:
    """Makes the clip that `mi2v animate` makes with seed 0.

    Args:
        pipe: the lite pipeline.
        photo: a photo of any size.
        control: what was drawn on it.

    Returns:
        the frames.
    """
    photo = images.bounded(photo, images.SHORT_SIDE)
    return pipe(photo, "", control, generator=torch.Generator().manual_seed(0)).frames[0]


def gallery(pipe: Any, drawings: dict[str, tuple[Image.Image, MotionControl]]) -> Picture:
    """Shows the drawings as stills, and below each one the clip that was made of it.

    Args:
        pipe: the lite pipeline.
        drawings: name -> (photo, control).

    Returns:
        one moving picture.
    """
    stills = [drawing.still(photo, control).image for photo, control in drawings.values()]
    clips = []
    for photo, control in tqdm(drawings.values(), desc="gallery"):
        frames = clip(pipe, photo, control)
        clips.append(frames[:: max(1, len(frames) // FRAMES)])
    words = "; ".join(f"{name}: {drawing.in_words(control)}" for name, (_, control) in drawings.items())
    parts = [slice(first, first + COLUMNS) for first in range(0, len(stills), COLUMNS)]
    frames = [
        _page(*(row for part in parts for row in (stills[part], [frames[number] for frames in clips[part]])))
        for number in range(len(clips[0]))
    ]
    return animation(frames, fps=FPS, alt=f"Drawings and their clips. {words}")


def _page(*rows: list[Image.Image]) -> Image.Image:
    """Pictures in a grid, each as large as its tile allows."""
    width, height = TILE
    page = Image.new("RGB", (len(rows[0]) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP), "white")
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            tile = ImageOps.pad(picture, TILE, Image.Resampling.LANCZOS, color="white")
            page.paste(tile, (column * (width + GAP), row * (height + GAP)))
    return page


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: its words; those of the process by default.

    Returns:
        the exit code, 0.
    """
    parser = argparse.ArgumentParser(description="Makes the gallery of data_samples/controls.")
    parser.add_argument("-o", "--output", type=Path, default=SAMPLES / "gallery.png", metavar="gallery.png")
    output = parser.parse_args(arguments).output
    pipe = MotionI2VPipeline.from_lite()
    pipe.set_progress_bar_config(disable=True)
    picture = gallery(pipe, read_drawings())
    if len(picture.png) > LARGEST:
        raise ValueError(
            f"The gallery takes {len(picture.png)} bytes, at most {LARGEST} are allowed: make TILE or FRAMES smaller."
        )
    picture.save(output)
    print(f"{output.name}: {picture.image.width}x{picture.image.height} px, {len(picture.png) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
