"""One form for all pictures of the course: a PNG with words for those who cannot see it (all notebooks).

`panels`, `strip` and `animation` compose pictures; `viz/pictures.py` draws motion, `viz/plots.py` draws numbers.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mi2v_lite.io.files import atomic
from mi2v_lite.io.images import write_image

INK, PAPER = (20, 20, 20), (255, 255, 255)
GAP = 12
LARGE = 25_000  # bytes: a larger still is stored in 128 colours, less than half of the room
TEXT = 17


@dataclass(frozen=True)
class Picture:
    """A still or animated picture. In a notebook it shows itself, with its description as alternative text.

    Attributes:
        image: what is seen; of an animation the first frame.
        alt: what it shows, in a sentence.
        png: the bytes of an animated PNG; None for a still.
    """

    image: Image.Image
    alt: str
    png: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuses a picture without words.

        Raises:
            ValueError: if `alt` is empty.
        """
        if not self.alt.strip():
            raise ValueError("A Picture needs alt: one sentence that says what it shows.")

    def save(self, path: str | os.PathLike) -> None:
        """Writes the picture, an animation as animated PNG. Errors: as `media.write_image`."""
        if self.png is None:
            write_image(path, self.image)
        else:
            with atomic(path) as beside:
                beside.write_bytes(self.png)

    def bytes(self) -> bytes:
        """The PNG file's content."""
        if self.png is not None:
            return self.png
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG", optimize=True)
        if buffer.tell() > LARGE:
            # Dithered, or the smooth colours of the flow wheel would fall into patches.
            palette = self.image.quantize(128, method=Image.Quantize.MEDIANCUT, kmeans=3)
            few = self.image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
            buffer = io.BytesIO()
            few.save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict, dict]:
        data = {"image/png": base64.b64encode(self.bytes()).decode(), "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}


Anything = Picture | Image.Image | np.ndarray | Tensor


def to_image(picture: Anything) -> Image.Image:
    """RGB image of whatever shows a picture.

    Args:
        picture: a Picture, PIL image, uint8 `(H, W, 3)` array, or float tensor `(3, H, W)` in [-1, 1].

    Raises:
        ValueError: for another shape or type.
    """
    if isinstance(picture, Picture):
        return picture.image.convert("RGB")
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if isinstance(picture, Tensor) and picture.ndim == 3 and picture.shape[0] == 3 and picture.is_floating_point():
        array = picture.detach().cpu().float().clamp(-1, 1).add(1).mul(127.5).round().byte()
        return Image.fromarray(array.permute(1, 2, 0).numpy())
    array = np.asarray(picture)
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] == 3:
        return Image.fromarray(array)
    raise ValueError(
        f"A picture is a PIL image, uint8 (H, W, 3) or a float tensor (3, H, W) in [-1, 1]; got {array.dtype} "
        f"{array.shape}."
    )


def to_images(frames: Tensor | np.ndarray | Sequence[Anything]) -> list[Image.Image]:
    """RGB images of a clip: float tensor `(F, 3, H, W)` in [-1, 1], uint8 `(F, H, W, 3)`, or a sequence of pictures."""
    return [to_image(frame) for frame in frames]


def panels(
    pictures: Sequence[Anything],
    titles: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    width: int = 760,
    alt: str,
) -> Picture:
    """Pictures side by side, each under its title, all at one width.

    Args:
        pictures: see `to_image`. titles: one for each. columns: how many in a row, all by default.
        width: of the whole, pixels. alt: what is shown.

    Raises:
        ValueError: without pictures, or with another number of titles.
    """
    images = [to_image(picture) for picture in pictures]
    if not images or (titles is not None and len(titles) != len(images)):
        raise ValueError(f"panels needs pictures and a title for each; got {len(images)} pictures and titles {titles}.")
    columns = min(columns or len(images), len(images))
    cell = (width - GAP * (columns - 1)) // columns
    small = [
        image.resize((cell, max(1, round(image.height * cell / image.width))), _filter(image, cell)) for image in images
    ]
    font = ImageFont.load_default(TEXT)
    lines = [_wrap(title, font, cell) for title in titles] if titles else [[] for _ in images]
    rows, y = [], 0
    for start in range(0, len(small), columns):
        part = slice(start, start + columns)
        head = max(len(each) for each in lines[part]) * (TEXT + 4) + (4 if titles else 0)
        rows.append((part, y, head))
        y += head + max(image.height for image in small[part]) + GAP
    page = Image.new("RGB", (width, y - GAP), PAPER)
    draw = ImageDraw.Draw(page)
    for part, top, head in rows:
        for place, (image, words) in enumerate(zip(small[part], lines[part], strict=True)):
            x = place * (cell + GAP)
            for number, line in enumerate(words):
                draw.text((x, top + number * (TEXT + 4)), line, INK, font)
            page.paste(image, (x, top + head))
    return Picture(page, alt)


def strip(
    frames: Tensor | np.ndarray | Sequence[Anything], *, count: int = 6, titles: Sequence[str] | None = None, alt: str
) -> Picture:
    """`count` frames of a clip, evenly spread from the first to the last, in a row.

    Args:
        frames: see `to_images`. titles: one for each that is shown; "frame i" by default.
    """
    shown = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    titles = titles if titles is not None else [f"frame {i}" for i in shown]
    return panels([to_image(frames[int(i)]) for i in shown], titles, alt=alt)


def animation(
    frames: Tensor | np.ndarray | Sequence[Anything], *, fps: float = 8, width: int | None = None, alt: str
) -> Picture:
    """A clip as an endless animated PNG of 128 colours, which also shows where video does not.

    Args:
        frames: see `to_images`. fps: frames a second. width: pixels; as they are by default.
    """
    images = to_images(frames)
    if width is not None:
        size = (width, round(images[0].height * width / images[0].width))
        images = [image.resize(size, _filter(image, width)) for image in images]
    # One palette for all frames, or colours would flicker.
    row = Image.new("RGB", (images[0].width * len(images), images[0].height))
    for place, image in enumerate(images):
        row.paste(image, (place * image.width, 0))
    palette = row.quantize(128, method=Image.Quantize.MEDIANCUT)
    first, *rest = (image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images)
    buffer = io.BytesIO()
    first.save(buffer, "PNG", save_all=True, append_images=rest, duration=1000 / fps, loop=0, optimize=True)
    return Picture(images[0], alt, buffer.getvalue())


def _filter(image: Image.Image, width: int) -> Image.Resampling:
    """Small pictures are enlarged with their pixels seen; large ones are reduced smoothly."""
    return Image.Resampling.NEAREST if width >= image.width else Image.Resampling.LANCZOS


def _wrap(title: str, font: ImageFont.ImageFont, width: int) -> list[str]:
    lines = [""]
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
