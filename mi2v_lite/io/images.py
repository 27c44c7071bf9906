"""Pictures in files: reads a photo, finds photos in a folder, gives them a size, and writes stills and animated PNGs.

It works without torch, so it is also the home of the defaults that the command line shows in its help.
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
    """Reads a picture as people see it: upright, whatever its EXIF orientation, and in RGB.

    Args:
        path: a PNG, a JPEG, or another format that Pillow reads.
        background: the colour behind transparent parts.

    Returns:
        The picture, in RGB.

    Raises:
        ValueError: if the file is missing, damaged, not a picture, or so large that Pillow suspects an attack.
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
    if image.mode.startswith("I;16"):  # Pillow would cut 16-bit values off at 255 instead of scaling them
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert("RGB")


def list_images(folder: Path) -> list[Path]:
    """Finds all images in a folder and the folders below it.

    Packages of wallpapers hold one picture in several sizes, as `1080x1920.png` and `5120x2880.png`. Of such files in
    one folder only the largest is listed.

    Args:
        folder: where to look.

    Returns:
        The paths, sorted.
    """
    sized: dict[Path, Path] = {}  # the largest of the files that are named after their size, by folder
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
    """Puts the frames of a clip into one array.

    Args:
        frames: uint8 `(F, H, W, 3)`, or a sequence of PIL images or uint8 `(H, W, 3)` arrays of one size.

    Returns:
        uint8 `(F, H, W, 3)`.

    Raises:
        ValueError: if there are no frames, or they have several sizes or another type or layout.
    """
    if not isinstance(frames, np.ndarray):
        arrays = [np.asarray(f.convert("RGB") if isinstance(f, Image.Image) else f) for f in frames]
        shapes = {array.shape for array in arrays}
        if len(shapes) != 1:
            raise ValueError(f"A clip needs frames of one size, at least one; got {sorted(shapes)}.")
        frames = np.stack(arrays)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f"A clip must be uint8 (F, H, W, 3), got {frames.dtype} {frames.shape}.")
    return frames


def write_animated_png(path: str | os.PathLike, frames: Frames, fps: float = NETWORK_FPS) -> None:
    """Writes a clip as an animated PNG, which repeats for ever.

    It keeps every pixel exactly, and is shown in places where a video is not.

    Args:
        path: the file to write.
        frames: see `frames_array`.
        fps: frames a second.

    Raises:
        ValueError: if the frames are not a clip.
        OSError: if the file cannot be written.
    """
    first, *rest = (Image.fromarray(frame) for frame in frames_array(frames))
    with atomic(path) as beside:
        first.save(beside, "PNG", save_all=True, append_images=rest, duration=1000 / fps, loop=0)


def write_image(path: str | os.PathLike, image: Image.Image | np.ndarray) -> None:
    """Writes a still in the format that its suffix names (.png, .jpg, .webp, ...).

    Args:
        path: the file to write.
        image: a PIL image, or uint8 `(H, W, 3)`.

    Raises:
        ValueError: if the suffix is unknown or the array is not a picture.
        OSError: if the file cannot be written.
    """
    if not isinstance(image, Image.Image):
        image = Image.fromarray(frames_array([image])[0])
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"{path}: pictures cannot be written as {Path(path).suffix!r}; use .png.")
    with atomic(path) as beside:
        image.save(beside, kind)
