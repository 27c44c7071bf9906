"""Pictures in files: reads a photo, finds photos in a folder, gives them a size, and writes stills and animated PNGs.

It works without torch, so it is also the home of the defaults that the command line shows in its help.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image, ImageCms, ImageOps

from mi2v_lite.io.files import absent, atomic, brief, check_ordinary

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

# What people get unless they ask for something else.
SHORT_SIDE = 512  # pixels, the shorter side of a photo; a larger photo is reduced to it
FPS, SECONDS = 24.0, 2.0  # rate and length of a clip that carries the photo's detail
NETWORK_FPS = 8  # rate of the networks' own frames: the release shows its 16 frames in two seconds

LARGEST_TRAINING_PHOTO = 2**28  # pixels; phones take photos of 200 million
PILLOW_LIMIT = Lock()  # held while Pillow's own limit is another one

# Tags of TIFF: the bits of a value, whether a picture is a smaller copy, where others are, and Adobe's mark of a raw
# file.
BITS, REDUCED, SUB_PICTURES, DNG_VERSION = 258, 254, 330, 50706
HEIF = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc")  # how the photos of iPhones begin
COLOURED, MASK_EDGE = 48, 64  # levels: by which channels differ in a coloured pixel; from black and white to grey
MOSTLY_GREY = 0.4  # of the pixels: no mask with soft edges has so many

SRGB_GAMMA = 0.45455  # the chunk gAMA of a PNG, 1/2.2
SRGB_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # its chunk cHRM: white, red, green and blue
SRGB_CODES = bytes((1, 13))  # its primaries and its curve in H.273, as the chunk cICP states them
GREY_MODES = ("1", "L", "I")  # how the modes of Pillow without colours begin
HDR = {16: "PQ", 18: "HLG"}  # transfer curves of H.273 that need tone mapping

Frames = np.ndarray | Sequence[Image.Image] | Sequence[np.ndarray]


def read_image(path: str | os.PathLike, background: str = "white") -> Image.Image:
    """Reads a picture as people see it: upright, whatever its EXIF orientation, in RGB, and in the colours of sRGB.

    Args:
        path: a PNG, a JPEG, or another format that Pillow reads.
        background: the colour behind transparent parts.

    Returns:
        The picture, in RGB.

    Raises:
        ValueError: if the file is missing, damaged, not a picture, or so large that Pillow suspects an attack; or if
            its values have no known scale.
    """
    path = Path(path)
    image = _opened(path)
    try:
        return as_rgb(image, background)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a picture: {brief(error)}") from error


def _opened(path: Path) -> Image.Image:
    """The whole picture in a file, upright and otherwise as it is stored. Raises ValueError if there is none."""
    check_ordinary(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # up to the size that is refused all is well
            with Image.open(path) as opened:
                _check_whole(path, opened)
                opened.load()
                return _upright(path, opened)
    except FileNotFoundError as error:
        raise ValueError(absent(path, "the path of a picture")) from error
    except IsADirectoryError as error:
        raise ValueError(f"{path} cannot be read as a picture: it is a folder; give the path of a file.") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except Exception as error:  # the plugins of Pillow raise errors of many kinds for damaged files
        advice = "give a PNG, JPEG or the like"
        with suppress(OSError, ValueError):  # it may not even be the name of a file
            with path.open("rb") as file:
                if file.read(12)[4:] in HEIF:
                    advice = "it is a HEIC photo; save it as a JPEG first"
        raise ValueError(f"{path} cannot be read as a picture ({brief(error)}); {advice}.") from error


def check_pixels(path: Path, most: int | None = None) -> None:
    """Refuses a picture that is too large; for readers that would take gigabytes for it.

    Args:
        path: the file. What is no picture is left to the reader.
        most: how many pixels it may have; as many as `read_image` reads if None.

    Raises:
        ValueError: if it has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with _pillow_reads(most):
                Image.open(path).close()
    except Image.DecompressionBombError as error:
        raise _too_large(path, most) from error
    except Exception:  # the plugins of Pillow raise errors of many kinds for damaged files
        return


@contextmanager
def _pillow_reads(most: int | None) -> Iterator[None]:
    """Within the context, Pillow opens pictures of up to `most` pixels; None changes nothing."""
    with PILLOW_LIMIT:
        before = Image.MAX_IMAGE_PIXELS
        try:
            if most is not None:
                Image.MAX_IMAGE_PIXELS = most // 2  # it refuses twice as many
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _too_large(path: Path, most: int | None = None) -> ValueError:
    most = most or 2 * Image.MAX_IMAGE_PIXELS
    return ValueError(f"{path} has more than the {most:,} pixels that are read; make it smaller first.")


def _check_whole(path: Path, image: Image.Image) -> None:
    """Refuses raw files of cameras, of which Pillow would read the small preview, and tells what it cannot show."""
    tags = getattr(image, "tag_v2", {})
    if DNG_VERSION in tags or (tags.get(REDUCED, 0) & 1 and SUB_PICTURES in tags):
        raise ValueError(
            "it is a camera's raw file, of which only the preview can be read: develop it to a JPEG or PNG"
        )
    if image.format == "EPS":
        raise ValueError("it is PostScript, a program, which is not run: save it as a PNG or JPEG")
    if image.format == "PNG":
        with path.open("rb") as file:
            _, _, stated = file.read(2**16).partition(b"IDAT")[0].partition(b"\0\0\0\4cICP")
        if stated[:2] == SRGB_CODES:
            image.info["srgb"] = 0  # as Pillow does for the chunk sRGB
        elif stated[1:2] and stated[1] in HDR:
            warn_hdr(path, stated[1], stacklevel=5)
        primaries = image.info.get("chromaticity", ())
        if (
            len(primaries) == len(SRGB_PRIMARIES)
            and any(primaries)
            and not np.allclose(primaries, SRGB_PRIMARIES, atol=0.01)
            and not {"srgb", "icc_profile"} & set(image.info)
            and not image.mode.startswith(GREY_MODES)
        ):
            warnings.warn(
                f"{path} has other primary colours than sRGB and no profile, so its colours look paler than they are "
                "shown elsewhere.",
                stacklevel=4,
            )


def warn_hdr(path: Path, transfer: int, stacklevel: int = 4) -> None:
    """Warns that a picture or a video is HDR; `transfer` is one of the curves in `HDR`."""
    warnings.warn(
        f"{path} is HDR ({HDR[transfer]}) and is read without tone mapping, so its colours look paler than they are "
        "shown elsewhere; convert it to SDR first if that matters.",
        stacklevel=stacklevel,
    )


def _upright(path: Path, image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow has no list of what damaged EXIF data can raise
        warnings.warn(f"The EXIF data of {path} are damaged ({error}): it is shown as it is stored.", stacklevel=4)
        return image.copy()


def as_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """A picture of any mode in RGB: its values scaled to 8 bits, its colour profile applied, laid on a background.

    Args:
        image: a picture as Pillow opens it.
        background: the colour behind transparent parts.

    Returns:
        The picture, in RGB.

    Raises:
        ValueError: if its values have no known scale.
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):
        stated = {key: value for key, value in image.info.items() if key != "transparency"}  # a level of 16 bits
        image = Image.fromarray(_eight_bits(image))
        image.info = stated
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    image = _in_srgb(image, profile) if profile else _with_srgb_curve(image)
    image = image.convert("RGB")
    if alpha is not None:
        opaque = Image.new("RGB", image.size, background)
        opaque.paste(image, mask=alpha)
        image = opaque
    return image


def _with_srgb_curve(image: Image.Image) -> Image.Image:
    """The picture without transparency, converted from the gamma that a PNG states to the curve of sRGB.

    By the PNG specification a profile and the chunks cICP and sRGB take precedence over it. Most programs that write a
    gAMA of 0.45455 mean sRGB, whose curve is nearly the same. Other primaries than those of sRGB (cHRM) are reported
    but not converted.
    """
    gamma = image.info.get("gamma", SRGB_GAMMA)
    if "srgb" in image.info or not 0.01 < gamma < 100 or abs(gamma / SRGB_GAMMA - 1) < 0.05:
        return image
    light = np.linspace(0, 1, 256) ** (1 / gamma)
    levels = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    image = image.convert("RGB").point(np.rint(3 * [*(255 * levels)]).astype(int).tolist())
    del image.info["gamma"]  # it must not be applied again
    return image


def _eight_bits(image: Image.Image) -> np.ndarray:
    """The grey values of a picture with more than 8 bits. Pillow would cut them off at 255 instead of scaling them."""
    values = np.asarray(image)
    low, high = values.min(), values.max()  # nan if any value is
    bits = getattr(image, "tag_v2", {}).get(BITS, (16,))[0]  # of a TIFF; Pillow scales other formats to 16 bits
    if image.mode.startswith("F"):
        # Floats are from 0 to 1, or from 0 to 255, which light without an upper bound hardly fills.
        largest = 255.0 if high > 1 and values.mean() > 8 else 1.0
    else:
        largest = 2.0 ** min(bits, 16) - 1
    if not (low >= 0 and high <= largest):
        raise ValueError(
            f"its values go from {low:g} to {high:g}, which no scale of brightness explains; save it with 8 or 16 bits."
        )
    return (values.astype(np.float64) * 255 / largest).astype(np.uint8)


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The picture without transparency, converted from its colour profile to sRGB."""
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(given).lower():
            return image
        space = given.profile.xcolor_space.strip()
        mode = {"RGB": "RGB", "CMYK": "CMYK", "GRAY": "L", "Lab": "LAB"}[space]
        if image.mode != mode:  # a palette or transparency; never another number of inks
            if mode in ("CMYK", "LAB") or image.mode in ("CMYK", "LAB"):
                raise ValueError(f"a profile of {space} in a picture of {image.mode}")
            image = image.convert(mode)
        return ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, KeyError, ValueError) as error:
        warnings.warn(f"A colour profile cannot be used ({error}): the picture is read without it.", stacklevel=4)
        return image


def as_mask(image: Image.Image, name: str) -> np.ndarray:
    """Where a picture of two colours, white on black, is white.

    Args:
        image: the picture, in RGB, read on a black background. Soft edges are cut in their middle.
        name: what errors call it.

    Returns:
        bool `(H, W)`.

    Raises:
        ValueError: if it is no such picture, being coloured, mostly grey, or without any white.
    """
    pixels = np.asarray(image).astype(np.int16)
    rule = "it must be white where something may move, and black elsewhere"
    grey = pixels.mean(axis=-1)
    coloured = (np.ptp(pixels, axis=-1) > COLOURED).mean()
    between = ((grey > MASK_EDGE) & (grey < 255 - MASK_EDGE)).mean()
    if coloured > 0.01:
        raise ValueError(f"{name} has colours in {coloured:.0%} of its pixels; {rule}.")
    if grey.max() <= 127:
        raise ValueError(f"{name} has no white pixel, for its brightest value is {grey.max():.0f} of 255; {rule}.")
    if between > MOSTLY_GREY:
        raise ValueError(f"{name} is grey in {between:.0%} of its pixels, as a photo is; {rule}.")
    return grey > 127


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
