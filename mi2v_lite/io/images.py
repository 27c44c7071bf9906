"""Pictures in files: read a photo, find photos in a folder, write stills and animated PNG (notebook 00).

What is written appears under its name only when it is whole: it is made beside the target and then moved over it, so a
failure leaves no half-written file and the old one as it was.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mi2v_lite.io.files import atomic

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

# What people get unless they ask for something else.
SHORT_SIDE = 512  # pixels, the shorter side of a photo; a larger photo is reduced to it
FPS, SECONDS = 24.0, 2.0  # rate and length of a clip that carries the photo's detail
NETWORK_FPS = 8  # rate of the networks' own frames: the release shows its 16 frames in two seconds

Frames = np.ndarray | Sequence[Image.Image] | Sequence[np.ndarray]


def read_image(path: str | os.PathLike, background: str = "white") -> Image.Image:
    """Read a picture upright: RGB, its EXIF orientation applied, transparent parts laid on `background`.

    Raises:
        ValueError: the file is missing, no picture, damaged, or too large to be meant as one.
    """
    path = Path(path)
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; give the path of a picture.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error}); give a PNG, JPEG or the like.") from error
    if image.mode.startswith("I;16"):  # Pillow cuts 16 bits at 255 instead of scaling them
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, background), over)
    return image.convert("RGB")


def list_images(folder: Path) -> list[Path]:
    """Every image below `folder` (recursive), sorted. One picture is kept of several sizes of it in the same folder.

    Wallpaper packages hold the same picture as `1080x1920.png` and `5120x2880.png`; the largest file stays.
    """
    sized: dict[Path, Path] = {}
    images = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file() or path.stem == "screenshot":
            continue
        if path.stem.replace("x", "").isdigit():
            best = sized.get(path.parent)
            if best is None or path.stat().st_size > best.stat().st_size:
                sized[path.parent] = path
        else:
            images.append(path)
    return sorted(images + list(sized.values()))


def fitted_size(size: tuple[float, float], short: int | None = None, multiple: int = 1) -> tuple[int, int]:
    """The size that is given to a picture: its aspect ratio is kept as nearly as `multiple` allows.

    Args:
        size: both sides of the picture, (height, width) or (width, height), pixels.
        short: what the shorter side becomes, a multiple of `multiple`; about its own length if None.
        multiple: what both sides become multiples of, for example the autoencoder's downsampling factor.

    Returns:
        Both sides, in the order of `size`.
    """
    least = multiple if short is None else max(short, multiple)
    wanted = size if short is None else [side * short / min(size) for side in size]
    first, second = (max(least, round(side / multiple) * multiple) for side in wanted)
    return first, second


def fitted(photo: Image.Image, short: int, multiple: int = 1) -> Image.Image:
    """The photo at the size at which a model sees it, see `fitted_size`.

    Args:
        photo: a picture of any size.
        short: what the shorter side becomes, pixels.
        multiple: what both sides become multiples of.

    Returns:
        The photo, resized unless it has that size already.

    Raises:
        ValueError: If `short` is not a multiple of `multiple`.
    """
    if short % multiple:
        raise ValueError(f"size {short} must be a multiple of {multiple}, the autoencoder's factor.")
    size = fitted_size(photo.size, short, multiple)
    return photo if photo.size == size else photo.resize(size, Image.Resampling.LANCZOS)


def bounded(photo: Image.Image, short: int) -> Image.Image:
    """The photo, made smaller if its shorter side is longer than `short` pixels."""
    return photo if min(photo.size) <= short else fitted(photo, short)


def frames_array(frames: Frames) -> np.ndarray:
    """A clip as one array.

    Args:
        frames: uint8 `(F, H, W, 3)`, or a sequence of PIL images or uint8 `(H, W, 3)` arrays of one size.

    Returns:
        uint8 `(F, H, W, 3)`.

    Raises:
        ValueError: no frames, several sizes, or another type or layout.
    """
    if not isinstance(frames, np.ndarray):
        parts = [np.asarray(f.convert("RGB") if isinstance(f, Image.Image) else f) for f in frames]
        shapes = {part.shape for part in parts}
        if len(shapes) != 1:
            raise ValueError(f"A clip needs frames of one size, at least one; got {sorted(shapes)}.")
        frames = np.stack(parts)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f"A clip must be uint8 (F, H, W, 3), got {frames.dtype} {frames.shape}.")
    return frames


def write_animated_png(path: str | os.PathLike, frames: Frames, fps: float = NETWORK_FPS) -> None:
    """Write an endless animated PNG: exact pixels, and a clip that also shows where video does not.

    Args and errors: as `write_video`, without the even sides.
    """
    first, *rest = (Image.fromarray(frame) for frame in frames_array(frames))
    with atomic(path) as beside:
        first.save(beside, "PNG", save_all=True, append_images=rest, duration=1000 / fps, loop=0)


def write_image(path: str | os.PathLike, image: Image.Image | np.ndarray) -> None:
    """Write a still in the format of the suffix (.png, .jpg, .webp, ...).

    Args:
        path: where to. image: PIL, or uint8 `(H, W, 3)`.

    Raises:
        ValueError: unknown suffix, or an array that is no picture. OSError: it cannot be written.
    """
    if not isinstance(image, Image.Image):
        image = Image.fromarray(frames_array([image])[0])
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"{path}: pictures cannot be written as {Path(path).suffix!r}; use .png.")
    with atomic(path) as beside:
        image.save(beside, kind)
