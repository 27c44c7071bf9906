"""Sprites of the lite world: emoji glyphs and textured shapes, as colour with soft alpha. Serves world.py.

The glyphs are small PNG files named after what they show (`red_apple.png`), drawn from Noto Color Emoji (SIL Open Font
License 1.1). They were drawn once by

    python -m tools.glyphs --font NotoColorEmoji.ttf --out data_samples/sprites

The shapes are made on the spot from a plain colour or from a piece of a photo: they teach the models to move things
that are not clip art.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mi2v_lite.io.images import check_pixels

# Colour names of plain shapes with RGB values; each shape varies them a little.
COLOURS = {
    "red": (214, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (245, 215, 60),
    "green": (60, 160, 70),
    "blue": (40, 90, 200),
    "purple": (130, 60, 170),
    "pink": (240, 140, 180),
    "brown": (125, 80, 45),
    "black": (30, 30, 32),
    "white": (240, 240, 238),
}
# Shape word for a plain colour and phrase for a piece of a photo.
SHAPES = {
    "disc": "round patch",
    "square": "square patch",
    "box": "long patch",
    "star": "star patch",
    "blob": "patch of picture",
}


@dataclass(frozen=True)
class Sprite:
    """A picture that can be laid over a scene.

    Attributes:
        name: what a caption calls it, without an article; "" for scenery, which no caption mentions.
        pixels: float32 `(n, n, 4)`, colour 0 to 255, already multiplied by alpha, and alpha 0 to 1. Nothing opaque
            touches the rim, so that a linear warp fades out softly.
        mirrored: whether it looks to the right; as drawn, glyphs look to the left.
    """

    name: str
    pixels: np.ndarray
    mirrored: bool = False


def with_article(name: str) -> str:
    """`"red balloon"` -> `"a red balloon"`, `"owl"` -> `"an owl"`."""
    vowel = name[0] in "aeiou" and not name.startswith("uni")
    return ("an " if vowel else "a ") + name


def load_glyph(path: Path, size: int, flip: bool = False) -> Sprite:
    """A glyph from its file, named after the file.

    Args:
        path: a PNG with alpha.
        size: side of the sprite in pixels.
        flip: whether to mirror it left and right.

    Raises:
        ValueError: the file is not such a PNG.
    """
    check_pixels(path)
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4:
        raise ValueError(f"{path} is not a PNG with alpha; sprites need four channels (tools.glyphs makes them)")
    pixels = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA).astype(np.float32)
    pixels[..., 3] /= 255
    pixels[..., :3] *= pixels[..., 3:]
    if flip:
        pixels = pixels[:, ::-1]
    inner = size - 4
    area = cv2.INTER_AREA if inner < pixels.shape[0] else cv2.INTER_CUBIC
    pixels = cv2.resize(pixels, (inner, inner), interpolation=area)
    pixels[..., 3] = pixels[..., 3].clip(0, 1)
    pixels[..., :3] = pixels[..., :3].clip(0, 255 * pixels[..., 3:])
    framed = cv2.copyMakeBorder(pixels, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=0)
    return Sprite(path.stem.replace("_", " "), framed, mirrored=flip)


def shape_alpha(shape: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Alpha of a shape, float32 (size, size) in 0 to 1 with an edge about 1.5 pixels wide (blobs: softer).

    The shape is given by its radius as a function of the angle, or by the distance to a rounded box.
    """
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis, axis)
    rim = 1 - 5 / size
    edge = 3.0 / size
    if shape in ("square", "box"):
        half = (0.78 * rim, 0.78 * rim) if shape == "square" else (rim * 0.95, rim * rng.uniform(0.4, 0.6))
        corner = rng.uniform(0.1, 0.4) * min(half)
        dx, dy = np.abs(x) - half[0] + corner, np.abs(y) - half[1] + corner
        distance = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner
        return np.clip(0.5 - distance / edge, 0, 1).astype(np.float32)
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    if shape == "disc":
        outline = np.full_like(angle, 0.92)
    elif shape == "star":
        # Distance along the ray to the straight edge between a tip (radius 1) and a notch (radius 0.5).
        wedge = np.pi / 5
        from_tip = wedge - np.abs((angle + np.pi / 2) % (2 * wedge) - wedge)
        outline = 0.5 * np.sin(wedge) / (np.sin(from_tip) + 0.5 * np.sin(wedge - from_tip))
    elif shape == "blob":
        outline = np.full_like(angle, 0.76)
        for order in (1, 2, 3, 4):
            outline += rng.normal(0, 0.13 / order) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
        outline, edge = outline.clip(0.4, 0.95), edge * rng.uniform(1, 2.5)
    else:
        raise ValueError(f"unknown shape {shape!r}; choose from {', '.join(SHAPES)}")
    return np.clip(0.5 - (radius - outline * rim) / edge, 0, 1).astype(np.float32)


def plain_shape(shape: str, colour: str, size: int, rng: np.random.Generator) -> Sprite:
    """A shape in a colour of COLOURS with a faint gradient, `size` x `size` pixels."""
    alpha = shape_alpha(shape, size, rng)
    base = np.array(COLOURS[colour], np.float32) + rng.normal(0, 8, 3).astype(np.float32)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    shade = rng.uniform(5, 30) * (ramp[:, None] * rng.uniform(-1, 1) + ramp[None, :] * rng.uniform(-1, 1))
    pixels = np.dstack([(base + shade[..., None]).clip(0, 255) * alpha[..., None], alpha]).astype(np.float32)
    return Sprite(f"{colour} {shape}", pixels)


def photo_shape(shape: str, photo: np.ndarray, size: int, rng: np.random.Generator) -> Sprite:
    """A shape filled with a random piece of `photo` (uint8 RGB (h, w, 3)), `size` x `size` pixels."""
    return _filled(SHAPES[shape], shape_alpha(shape, size, rng), photo, rng.uniform(0.35, 0.9), rng)


def ridge(photo: np.ndarray, size: int, rng: np.random.Generator) -> Sprite:
    """Scenery: the lower half of a `size` x `size` square under a wavy skyline, filled with a piece of `photo`."""
    x = np.linspace(0, 2 * np.pi, size, dtype=np.float32)
    skyline = np.full(size, size / 2, np.float32)
    for order in (1, 2, 3, 5):
        skyline += size * rng.normal(0, 0.035 / order**0.5) * np.cos(order * x + rng.uniform(0, 2 * np.pi))
    alpha = np.clip(0.5 + (np.arange(size, dtype=np.float32)[:, None] - skyline) / 1.5, 0, 1)
    alpha = cv2.copyMakeBorder(alpha[2:-2, 2:-2], 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=0)
    return _filled("", alpha, photo, rng.uniform(0.6, 0.95), rng)


def _filled(name: str, alpha: np.ndarray, photo: np.ndarray, share: float, rng: np.random.Generator) -> Sprite:
    """A shape cut from a random square of `photo` whose side is `share` of the photo's shorter one."""
    height, width = photo.shape[:2]
    side = int(share * min(height, width))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    size = (alpha.shape[1], alpha.shape[0])
    piece = cv2.resize(photo[top : top + side, left : left + side], size, interpolation=cv2.INTER_AREA)
    pixels = np.dstack([piece.astype(np.float32) * alpha[..., None], alpha])
    return Sprite(name, pixels.astype(np.float32))
