"""Paints the first frame in another style, and checks that it still lies over its source (notebook 05).

Motion-I2V, section 3.4: frame 0 of a video is restyled by any image-to-image method, and the video's motion drives it.
The styles here need no download. With the weights of Stable Diffusion on disk, `diffuse` uses its image-to-image.

| style | what it does | random |
| --- | --- | --- |
| posterise | eight colours, found by k-means in the frame itself | the start of the clusters, by seed |
| sketch | a pencil drawing: the picture divided by its own blur | no |
| oil | each pixel gets the mean colour of the commonest brightness around it | no |
| strokes | brush strokes along the edges, in random places and order | the strokes, by seed |
| colours | the mean and spread of another picture's colours | no |

The strokes follow Litwinowicz, "Processing Images and Video for an Impressionist Effect", SIGGRAPH 1997, who moves them
by optical flow because strokes that are drawn anew for each frame flicker. The colours follow Reinhard et al., "Color
Transfer between Images", IEEE CG&A 2001.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

PALETTE = 8  # colours of `posterise`
OIL_LEVELS = 12  # brightness steps of `oil`
LARGEST_SHIFT = 0.02  # as a part of the longer side; a smaller shift is neither seen nor does it spoil the motion
LEAST_RESPONSE = 0.1  # height of the peak of phase correlation; below it, the edges have nothing in common


def posterise(image: Image.Image, seed: int = 0) -> Image.Image:
    """Flat areas of `PALETTE` colours. They are the picture's own, so each frame of a video would get others."""
    pixels = np.asarray(image.convert("RGB"))
    smooth = cv2.bilateralFilter(pixels, 7, 40, 5)
    cv2.setRNGSeed(seed)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 1.0)
    flat = smooth.reshape(-1, 3).astype(np.float32)
    _, labels, centres = cv2.kmeans(flat, PALETTE, None, stop, 1, cv2.KMEANS_PP_CENTERS)
    return Image.fromarray(centres.round().astype(np.uint8)[labels.ravel()].reshape(pixels.shape))


def sketch(image: Image.Image) -> Image.Image:
    """A pencil drawing: white where the picture is as bright as its surroundings, and dark at edges."""
    grey = cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2GRAY)
    blurred = cv2.GaussianBlur(grey, (0, 0), max(1.0, max(grey.shape) / 60))
    drawn = cv2.divide(grey, np.maximum(blurred, 1), scale=250)
    return Image.fromarray(cv2.cvtColor(drawn, cv2.COLOR_GRAY2RGB))


def oil(image: Image.Image) -> Image.Image:
    """Blots of oil paint: each pixel gets the mean colour of the commonest of `OIL_LEVELS` brightnesses around it."""
    pixels = np.asarray(image.convert("RGB"))
    level = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.int32) * OIL_LEVELS // 256
    radius = max(2, round(max(level.shape) / 64))
    size = (2 * radius + 1, 2 * radius + 1)
    most, painted = np.zeros(level.shape, np.float32), np.zeros(pixels.shape, np.float32)
    for brightness in range(OIL_LEVELS):
        chosen = (level == brightness).astype(np.float32)
        count = cv2.boxFilter(chosen, -1, size)
        mean = cv2.boxFilter(pixels * chosen[..., None], -1, size) / np.maximum(count, 1e-6)[..., None]
        better = count > most
        most, painted = np.where(better, count, most), np.where(better[..., None], mean, painted)
    return Image.fromarray(painted.round().clip(0, 255).astype(np.uint8))


def strokes(image: Image.Image, seed: int = 0) -> Image.Image:
    """Brush strokes in random order, each in the colour of its middle and at right angles to the gradient there."""
    pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    smooth = cv2.GaussianBlur(pixels, (0, 0), 1.5)
    grey = cv2.cvtColor(smooth, cv2.COLOR_RGB2GRAY).astype(np.float32)
    across, down = cv2.Scharr(grey, cv2.CV_32F, 1, 0), cv2.Scharr(grey, cv2.CV_32F, 0, 1)
    random = np.random.default_rng(seed)
    long = max(3.0, max(height, width) / 20)  # pixels
    thick, count = max(2, round(long / 3)), round(6 * height * width / long**2)
    x, y = random.integers(0, width, count), random.integers(0, height, count)
    angle = np.arctan2(down[y, x], across[y, x]) + np.pi / 2 + random.normal(0, 0.2, count)
    painted = smooth.copy()
    for px, py, turn, part in zip(x, y, angle, long * random.uniform(0.3, 0.6, count), strict=True):
        step = np.array([np.cos(turn), np.sin(turn)]) * part
        ends = [tuple(int(v) for v in np.round((px, py) + sign * step)) for sign in (-1, 1)]
        shade = smooth[py, px].astype(float) + random.normal(0, 8)  # no two strokes of one colour are quite equal
        cv2.line(painted, *ends, tuple(float(v) for v in shade.clip(0, 255)), thick, cv2.LINE_AA)
    return Image.fromarray(painted)


def colours(image: Image.Image, style: Image.Image) -> Image.Image:
    """The picture in the colours of another: each channel of Lab gets the mean and the spread that it has there."""
    ours, theirs = (
        cv2.cvtColor(np.asarray(part.convert("RGB"), np.float32) / 255, cv2.COLOR_RGB2LAB) for part in (image, style)
    )
    mean, spread = ours.mean(axis=(0, 1)), ours.std(axis=(0, 1))
    moved = (ours - mean) / np.maximum(spread, 1e-3) * theirs.std(axis=(0, 1)) + theirs.mean(axis=(0, 1))
    rgb = cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2RGB)
    return Image.fromarray((rgb * 255).round().clip(0, 255).astype(np.uint8))


STYLES: dict[str, Callable[..., Image.Image]] = {
    "posterise": posterise,
    "sketch": sketch,
    "oil": oil,
    "strokes": strokes,
}
SEEDED = ("posterise", "strokes")


def restyle(image: Image.Image, style: str, style_image: Image.Image | None = None, seed: int = 0) -> Image.Image:
    """Paints a picture in a style that is chosen by its name.

    Args:
        image: the picture, RGB.
        style: a name in the table above.
        style_image: the picture whose colours are taken; only for the style "colours".
        seed: the seed of the styles that have something random.

    Returns:
        The painted picture, RGB and of the same size.

    Raises:
        ValueError: if the style is unknown, or a style image is missing or not needed.
    """
    if style not in (*STYLES, "colours"):
        raise ValueError(f"style {style!r} is unknown; there are {', '.join((*STYLES, 'colours'))}.")
    if (style == "colours") != (style_image is not None):
        raise ValueError("the style colours needs a style image, and only this style takes one.")
    if style_image is not None:
        return colours(image, style_image)
    return STYLES[style](image, seed) if style in SEEDED else STYLES[style](image)


def diffuse(
    image: Image.Image, prompt: str, folder: str | Path, strength: float = 0.5, seed: int = 0, **options: object
) -> Image.Image:
    """Restyles a picture with Stable Diffusion's image-to-image, for which a GPU is needed.

    Args:
        image: RGB; its sides are multiples of 8.
        prompt: the style in words.
        folder: a folder of Stable Diffusion in the form of diffusers.
        strength: 0 keeps the picture and 1 forgets it; above 0.6 things tend to move, see `alignment`.
        seed: the seed of the noise.
        options: further options of `StableDiffusionImg2ImgPipeline.__call__`.

    Returns:
        The restyled picture.

    Raises:
        ValueError: if the folder does not hold such a pipeline.
    """
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline

    try:
        pipe = StableDiffusionImg2ImgPipeline.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no Stable Diffusion pipeline in diffusers' form: {error}") from error
    pipe = pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(seed)
    return pipe(prompt=prompt, image=image, strength=strength, generator=generator, **options).images[0]


class Alignment(NamedTuple):
    """How well a restyled frame lies over its source.

    Attributes:
        shift: how far its content is shifted, (x right, y down) in pixels of the source.
        response: how certain the measurement is, from 0 to 1.
        same_size: whether both have the same size.
    """

    shift: tuple[float, float]
    response: float
    same_size: bool


def alignment(styled: Image.Image, source: Image.Image) -> Alignment:
    """Measures the shift between a restyled frame and its source by phase correlation of their edges.

    The method is that of Kuglin and Hines, "The Phase Correlation Image Alignment Method", 1975.

    Args:
        styled: the restyled frame, RGB; it is resized to the size of the source first.
        source: the frame as it was filmed, RGB.

    Returns:
        `Alignment`.
    """
    edges = [_edges(picture.convert("L").resize(source.size)) for picture in (source, styled)]
    window = cv2.createHanningWindow(source.size, cv2.CV_32F)
    shift, response = cv2.phaseCorrelate(*edges, window)
    return Alignment((float(shift[0]), float(shift[1])), float(response), styled.size == source.size)


def _edges(grey: Image.Image) -> np.ndarray:
    array = cv2.GaussianBlur(np.asarray(grey, np.float32), (0, 0), 1.0)
    length = np.hypot(cv2.Scharr(array, cv2.CV_32F, 1, 0), cv2.Scharr(array, cv2.CV_32F, 0, 1))
    return np.minimum(length, np.percentile(length, 95)).astype(np.float32)  # so that no single edge outweighs the rest


def warn_of_misalignment(styled: Image.Image, source: Image.Image) -> Alignment:
    """Measures the `alignment`, and warns of another size, a shift of more than 2 % of the side, or no common edges.

    Args:
        styled: the restyled frame, RGB.
        source: the frame as it was filmed, RGB.

    Returns:
        `Alignment`.
    """
    measured = alignment(styled, source)
    problems = []
    if not measured.same_size:
        problems.append(
            f"has {styled.width}x{styled.height} px where the source has {source.width}x{source.height}; it is resized"
        )
    far = max(abs(part) for part in measured.shift)
    if measured.response < LEAST_RESPONSE:
        problems.append(
            f"has no edges in common with the source (response {measured.response:.2f}); it may be of another picture"
        )
    elif far > max(1.0, LARGEST_SHIFT * max(source.size)):
        x, y = measured.shift
        problems.append(f"lies {x:+.1f} px (x) and {y:+.1f} px (y) off: the motion will move the wrong pixels")
    for problem in problems:
        warnings.warn(f"The first frame {problem}.", stacklevel=3)
    return measured
