"""Makes the README's gallery: what was drawn on six photos, and the clips that the lite model makes of it.

    python notebooks/gallery.py -o data_samples/gallery.png

Every `data_samples/controls/NAME.json` is a control of DragCanvas for `data_samples/photos/NAME.jpg`. Each clip is
what `mi2v animate data_samples/photos/NAME.jpg --control data_samples/controls/NAME.json --seed 0 -o clip.mp4` makes.
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
TILE = (300, 200)  # pixels
COLUMNS = 3
GAP = 6
FRAMES = 12  # of the 48 are shown, so that the file stays small
FPS = 6
LARGEST = 4_000_000  # bytes


def drawn(samples: Path = SAMPLES) -> dict[str, tuple[Image.Image, MotionControl]]:
    """Name -> photo and what was drawn on it, in the order of the names.

    Raises:
        ValueError: without controls, or for one of another size than its photo. OSError: a file is missing.
    """
    found = {}
    for path in sorted((samples / "controls").glob("*.json")):
        photo, control = images.read_image(samples / "photos" / f"{path.stem}.jpg"), MotionControl.load(path)
        if control.size != photo.size:
            raise ValueError(f"{path.name} was drawn on {control.size} pixels, but its photo has {photo.size}.")
        found[path.stem] = photo, control
    if not found:
        raise ValueError(f"no controls in {samples / 'controls'}: draw some with DragCanvas and save them there.")
    return found


def clip(pipe: Any, photo: Image.Image, control: MotionControl) -> list[Image.Image]:
    """The frames that `mi2v animate` makes with seed 0."""
    shown = images.bounded(photo, images.SHORT_SIDE)
    return pipe(shown, "", control, generator=torch.Generator().manual_seed(0)).frames[0]


def gallery(pipe: Any, works: dict[str, tuple[Image.Image, MotionControl]]) -> Picture:
    """The drawings, which stand still, and below each the clip that was made of it, as one animated picture."""
    stills = [drawing.still(photo, control).image for photo, control in works.values()]
    clips = []
    for work in tqdm(works.values(), desc="gallery"):
        frames = clip(pipe, *work)
        clips.append(frames[:: max(1, len(frames) // FRAMES)])
    words = "; ".join(f"{name}: {drawing.in_words(control)}" for name, (_, control) in works.items())
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
    """The command line."""
    parser = argparse.ArgumentParser(description="Makes the gallery of data_samples/controls.")
    parser.add_argument("-o", "--output", type=Path, default=SAMPLES / "gallery.png", metavar="gallery.png")
    output = parser.parse_args(arguments).output
    pipe = MotionI2VPipeline.from_lite()
    pipe.set_progress_bar_config(disable=True)
    picture = gallery(pipe, drawn())
    if len(picture.png) > LARGEST:
        raise ValueError(f"the gallery takes {len(picture.png)} bytes, at most {LARGEST}: make TILE or EVERY smaller.")
    picture.save(output)
    print(f"{output.name}: {picture.image.width}x{picture.image.height} px, {len(picture.png) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
