"""The pictures of the course: PNGs that show themselves in a notebook, with a sentence for those who cannot see them.

`panels` puts pictures side by side, `strip` shows frames of a clip in a row, and `animation` and `side_by_side` show
clips that move. `viz/flow.py` draws motion, `viz/plots.py` draws numbers.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from mi2v_lite.io.files import atomic
from mi2v_lite.io.images import write_image
from mi2v_lite.io.pixels import to_uint8

INK, PAPER = (20, 20, 20), (255, 255, 255)
GAP = 12  # pixels between pictures
TEXT = 17  # font size
CLEAR = 255  # colours of an animated PNG, and the number of the transparent one behind them
EXACT = (INK, PAPER, (255, 0, 255))  # colours that it keeps exactly: text, paper, and the magenta of holes
LARGE = 25_000  # bytes: a larger still is stored in 128 colours, which takes less than half of the room


@dataclass(frozen=True)
class Picture:
    """A still or moving picture that shows itself in a notebook, with its description as alternative text.

    What a notebook stores is a PNG, animated where the picture moves, so that it also shows on a page without a kernel.
    In a live kernel, clips play as video instead, where `mediapy` and an ffmpeg are installed.

    Attributes:
        image: what is seen; the first frame of a moving picture.
        alt: a sentence that says what the picture shows.
        png: the bytes of an animated PNG; None for a still.
        video: makes HTML that plays the same clips as video, or None where that cannot be done; None for a still.
        pdf: the bytes of a PDF in which a plot is lines and text; None for what is pixels.
    """

    image: Image.Image
    alt: str
    png: bytes | None = field(default=None, repr=False)
    video: Callable[[], str | None] | None = field(default=None, repr=False)
    pdf: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError("A Picture needs alt: one sentence that says what it shows.")

    def save(self, path: str | os.PathLike) -> None:
        """Writes the picture to a file, a moving one as an animated PNG.

        Args:
            path: the file; a still may have any suffix that `io.images.write_image` knows.
        """
        content = self.pdf if Path(path).suffix.lower() == ".pdf" else self.png
        if content is None:
            write_image(path, self.image)
        else:
            with atomic(path) as beside:
                beside.write_bytes(content)

    def bytes(self) -> bytes:
        """Returns the content of the PNG file."""
        if self.png is not None:
            return self.png
        if self.image.getcolors(256):  # a figure, or a drawing of large pixels: a palette has room for all its colours
            return _png(_exact_palette(self.image))
        full = _png(self.image)
        if len(full) <= LARGE:
            return full
        # Without dithering, the smooth colours of the flow wheel would fall into patches.
        palette = self.image.quantize(128, method=Image.Quantize.MEDIANCUT, kmeans=3)
        return min(full, _png(self.image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)), key=len)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict, dict]:
        data = {"image/png": base64.b64encode(self.bytes()).decode(), "text/plain": self.alt}
        html = self.video() if self.video is not None else None
        if html is not None:
            data["text/html"] = html  # which Jupyter prefers; notebooks/course.py does not store it
        return data, {"image/png": {"alt": self.alt}}

    def added_to(self, live: tuple[dict, dict] | dict | None) -> tuple[dict, dict]:
        """A widget's representation with this picture in it, which a page without a kernel shows instead.

        Args:
            live: what the widget's own `_repr_mimebundle_` returns, data with or without metadata.

        Returns:
            The data and the metadata of both.
        """
        data, metadata = live if isinstance(live, tuple) else (live or {}, {})
        still, words = self._repr_mimebundle_()
        return {**data, **still}, {**metadata, **words}


# Whatever shows a picture: see `to_image`.
Pictured = Picture | Image.Image | np.ndarray | Tensor
# The frames of a clip: float tensor (F, 3, H, W) in [-1, 1], uint8 array (F, H, W, 3), or a sequence of pictures.
Frames = Tensor | np.ndarray | Sequence[Pictured]


def to_image(picture: Pictured) -> Image.Image:
    """Turns whatever shows a picture into an RGB image.

    Args:
        picture: a `Picture`, a PIL image, a uint8 array `(H, W, 3)`, or a float tensor `(3, H, W)` in [-1, 1].

    Returns:
        the picture as a PIL image.

    Raises:
        ValueError: for another shape or type.
    """
    if isinstance(picture, Picture):
        return picture.image.convert("RGB")
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if isinstance(picture, Tensor) and picture.ndim == 3 and picture.shape[0] == 3 and picture.is_floating_point():
        return Image.fromarray(to_uint8(picture))
    array = np.asarray(picture)
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] == 3:
        return Image.fromarray(array)
    raise ValueError(
        f"A picture is a PIL image, uint8 (H, W, 3) or a float tensor (3, H, W) in [-1, 1]; got {array.dtype} "
        f"{array.shape}."
    )


def panels(
    pictures: Sequence[Pictured],
    titles: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    width: int = 760,
    alt: str,
) -> Picture:
    """Puts pictures side by side, each under its title, all at one width.

    Args:
        pictures: what is shown; `to_image` says in which forms.
        titles: one title for each picture.
        columns: the number of pictures in a row; all of them by default.
        width: the width of the whole, in pixels.
        alt: a sentence that says what is shown.

    Returns:
        the pictures as one still.

    Raises:
        ValueError: if there are no pictures, or another number of titles.
    """
    images = [to_image(picture) for picture in pictures]
    if not images or (titles is not None and len(titles) != len(images)):
        raise ValueError(f"panels needs pictures and a title for each; got {len(images)} pictures and titles {titles}.")
    columns = min(columns or len(images), len(images))
    cell = (width - GAP * (columns - 1)) // columns
    images = [_at_width(image, cell) for image in images]
    font = ImageFont.load_default(TEXT)
    lines = [_wrap(title, font, cell) for title in titles] if titles else [[] for _ in images]
    rows, y = [], 0
    for start in range(0, len(images), columns):
        row = slice(start, start + columns)
        head = max(len(title) for title in lines[row]) * (TEXT + 4) + (4 if titles else 0)
        rows.append((row, y, head))
        y += head + max(image.height for image in images[row]) + GAP
    page = Image.new("RGB", (width, y - GAP), PAPER)
    draw = ImageDraw.Draw(page)
    for row, top, head in rows:
        for column, (image, title) in enumerate(zip(images[row], lines[row], strict=True)):
            x = column * (cell + GAP)
            for number, line in enumerate(title):
                draw.text((x, top + number * (TEXT + 4)), line, INK, font)
            page.paste(image, (x, top + head))
    return Picture(page, alt)


def strip(frames: Frames, *, count: int = 6, titles: Sequence[str] | None = None, alt: str) -> Picture:
    """Shows some frames of a clip in a row, evenly spread from the first to the last.

    Args:
        frames: the clip, a tensor `(F, 3, H, W)`, an array `(F, H, W, 3)` or a sequence of pictures.
        count: the number of frames to show.
        titles: one title for each frame that is shown; "frame i" by default.
        alt: a sentence that says what is shown.

    Returns:
        the frames as one still.
    """
    shown = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    titles = titles if titles is not None else [f"frame {i}" for i in shown]
    return panels([frames[int(i)] for i in shown], titles, alt=alt)


def animation(frames: Frames, *, fps: float = 8, width: int | None = None, every: int = 1, alt: str) -> Picture:
    """Shows a clip that moves: as video in a live kernel, and as an endless animated PNG elsewhere.

    Args:
        frames: the clip, a tensor `(F, 3, H, W)`, an array `(F, H, W, 3)` or a sequence of pictures.
        fps: frames a second.
        width: the width in pixels at which the clip is shown; its own by default.
        every: the animated PNG keeps only every so many frames, so that it stays small. It plays as long as the video.
        alt: a sentence that says what is shown.

    Returns:
        the moving picture.
    """
    images = [to_image(frame) for frame in frames]
    images = images if width is None else [_at_width(image, width) for image in images]
    return Picture(images[0], alt, _animated_png(images[::every], fps / every), partial(_video, {"": images}, fps))


def side_by_side(
    clips: Mapping[str, Frames],
    *,
    columns: int | None = None,
    width: int = 760,
    fps: float = 8,
    every: int = 1,
    alt: str,
) -> Picture:
    """Shows several clips that play together, each under its title: as videos in a live kernel, else as animated PNG.

    Args:
        clips: title -> clip, in the forms that `animation` takes; all of one size and with the same number of frames.
        columns: the number of clips in a row; all of them by default.
        width: the width of the whole, in pixels.
        fps: frames a second.
        every: the animated PNG keeps only every so many frames, so that it stays small. It plays as long as the videos.
        alt: a sentence that says what is shown.

    Returns:
        the moving picture.

    Raises:
        ValueError: if there are no clips, or if their numbers of frames differ.
    """
    lengths = {title: len(frames) for title, frames in clips.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"side_by_side needs clips with the same number of frames, got {lengths}.")
    columns = min(columns or len(clips), len(clips))
    cell = (width - GAP * (columns - 1)) // columns
    images = {title: [_at_width(to_image(frame), cell) for frame in frames] for title, frames in clips.items()}
    moments = list(zip(*images.values(), strict=True))[::every]
    pages = [panels(moment, list(images), columns=columns, width=width, alt=alt).image for moment in moments]
    return Picture(pages[0], alt, _animated_png(pages, fps / every), partial(_video, images, fps, columns))


def _exact_palette(image: Image.Image) -> Image.Image:
    """The same picture with a palette, of at most 256 colours."""
    pixels = np.asarray(image.convert("RGB"))
    colours, index = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    exact = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8), "P")
    exact.putpalette(colours.flatten().tolist())
    return exact


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _animated_png(images: Sequence[Image.Image], fps: float) -> bytes:
    """The content of an endless animated PNG with one palette for all frames, for otherwise colours would flicker.

    A frame stores only the pixels that differ from the frame before; the others are transparent and cost little room.
    """
    row = Image.new("RGB", (images[0].width * len(images), images[0].height))
    for place, image in enumerate(images):
        row.paste(image, (place * image.width, 0))
    palette = row.quantize(CLEAR - len(EXACT), method=Image.Quantize.MEDIANCUT, kmeans=1)
    room = 3 * (CLEAR - len(EXACT))
    colours = ((palette.getpalette() or []) + [0] * room)[:room] + [value for colour in EXACT for value in colour]
    palette.putpalette(colours)
    pages = [np.array(image.quantize(palette=palette, dither=Image.Dither.NONE)) for image in images]
    for page, image in zip(pages, images, strict=True):
        for number, colour in enumerate(EXACT, CLEAR - len(EXACT)):
            page[(np.asarray(image) == colour).all(-1)] = number
    frames = []
    for before, page in zip([None, *pages], pages, strict=False):
        shown = page if before is None else np.where(page == before, np.uint8(CLEAR), page)
        frame = Image.fromarray(shown, "P")
        frame.putpalette([*colours, 0, 0, 0])
        frames.append(frame)
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "PNG", save_all=True, append_images=frames[1:], duration=1000 / fps, loop=0, optimize=True,
        transparency=CLEAR, disposal=PngImagePlugin.Disposal.OP_NONE, blend=PngImagePlugin.Blend.OP_OVER,
    )  # fmt: skip
    return buffer.getvalue()


def _video(clips: Mapping[str, Sequence[Image.Image]], fps: float, columns: int | None = None) -> str | None:
    """HTML with a row of videos; None for single frames, outside a kernel, and without mediapy or an ffmpeg."""
    if max(map(len, clips.values())) < 2:
        return None  # a player would only lay its buttons over the picture
    try:
        from IPython import get_ipython

        if getattr(get_ipython(), "kernel", None) is None:
            return None
        import imageio_ffmpeg
        import mediapy

        mediapy.set_ffmpeg(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None
    # Players want even sides: a last odd row or column is left out.
    videos = {
        title: [np.asarray(image)[: image.height // 2 * 2, : image.width // 2 * 2] for image in images]
        for title, images in clips.items()
    }
    return mediapy.show_videos(videos, fps=fps, columns=columns, return_html=True)


def _at_width(image: Image.Image, width: int) -> Image.Image:
    """Small pictures are enlarged so that their pixels are seen; large ones are reduced smoothly."""
    if width == image.width:
        return image
    method = Image.Resampling.NEAREST if width > image.width else Image.Resampling.LANCZOS
    return image.resize((width, max(1, round(image.height * width / image.width))), method)


def _wrap(title: str, font: ImageFont.ImageFont, width: int) -> list[str]:
    lines = [""]
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
