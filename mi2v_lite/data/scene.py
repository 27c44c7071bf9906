"""The plan of a clip of the lite world, and its drawing: exact affine maps of pictures. Serves world.py."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mi2v_lite.data.motion import Motion
from mi2v_lite.data.sprites import Sprite

# Pictures are drawn at twice the size and averaged down: soft edges, no aliasing when something shrinks.
SUPERSAMPLE = 2


@dataclass(frozen=True)
class Layer:
    """A sprite in a scene.

    Attributes:
        sprite: its picture.
        centre: (x, y) in frame 0, in pixels.
        size: in frame 0, in pixels.
        tilt: in radians.
        motion: how it moves.
        silent: whether the caption only names it and leaves its motion to the reader, who knows its habit.
    """

    sprite: Sprite
    centre: tuple[float, float]
    size: float
    tilt: float
    motion: Motion
    silent: bool = False


@dataclass(frozen=True)
class Scene:
    """The plan of a clip before it is drawn.

    Attributes:
        background: a photo, uint8 `(h, w, 3)`, with SUPERSAMPLE photo pixels to a frame pixel.
        origin: (x, y) of frame 0's top-left corner in it.
        camera: how the camera moves.
        layers: the sprites; later ones are nearer.
        stride: source frames between two frames.
        caption: what moves, and how.
    """

    background: np.ndarray
    origin: tuple[int, int]
    camera: Motion
    layers: list[Layer]
    stride: int
    caption: str


def camera_matrix(camera: Motion, tau: float, size: int) -> np.ndarray:
    """The map `(2, 3)` of the background from frame 0 to the time tau, in pixels."""
    middle = (size - 1) / 2
    return camera.matrix(tau, (middle, middle), size / 2, size)


def layer_matrix(layer: Layer, tau: float, size: int) -> np.ndarray:
    """The map `(2, 3)` of a layer from frame 0 to the time tau, in pixels."""
    return layer.motion.matrix(tau, layer.centre, layer.size / 2, size)


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply an affine map `(2, 3)` to points `(2, ...)`."""
    return np.einsum("ij,j...->i...", matrix[:, :2], points) + matrix[:, 2].reshape(2, *[1] * (points.ndim - 1))


def _square(matrix: np.ndarray) -> np.ndarray:
    return np.vstack([matrix, [0.0, 0.0, 1.0]])


# Pixel centres are integers. Frame pixel x covers the supersampled pixels S x to S x + S - 1, and its centre lies at
# S x + (S - 1) / 2.
_TO_SUPER = np.array(
    [[SUPERSAMPLE, 0, (SUPERSAMPLE - 1) / 2], [0, SUPERSAMPLE, (SUPERSAMPLE - 1) / 2], [0, 0, 1]], np.float64
)
_FROM_SUPER = np.linalg.inv(_TO_SUPER)


def draw_background(scene: Scene, camera: np.ndarray, size: int) -> np.ndarray:
    """The photo as the camera sees it, uint8 `(S*size, S*size, 3)`. Beyond its edges the photo is mirrored."""
    shift = np.array([[1, 0, -scene.origin[0]], [0, 1, -scene.origin[1]], [0, 0, 1]], np.float64)
    matrix = _TO_SUPER @ _square(camera) @ _FROM_SUPER @ shift
    side = size * SUPERSAMPLE
    return cv2.warpAffine(
        scene.background, matrix[:2], (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )


def draw_sprite(picture: np.ndarray, layer: Layer, moved: np.ndarray, size: int) -> np.ndarray:
    """Lay a sprite over `picture`, in place; returns its alpha in frame pixels, float32 `(size, size)`."""
    pixels = layer.sprite.pixels
    middle, scale = (pixels.shape[0] - 1) / 2, layer.size / pixels.shape[0]
    cos, sin = scale * np.cos(layer.tilt), scale * np.sin(layer.tilt)
    place = np.array([[cos, -sin, layer.centre[0]], [sin, cos, layer.centre[1]], [0, 0, 1]]) @ np.array(
        [[1, 0, -middle], [0, 1, -middle], [0, 0, 1]]
    )
    matrix = _TO_SUPER @ _square(moved) @ place
    side = size * SUPERSAMPLE
    alpha = np.zeros((side, side), np.float32)
    # Only the box around the sprite is drawn.
    corners = apply(matrix[:2], np.array([[0, 1, 0, 1], [0, 0, 1, 1]], np.float64) * (pixels.shape[0] - 1))
    left, top = np.floor(corners.min(axis=1)).astype(int).clip(0, side)
    right, bottom = (np.ceil(corners.max(axis=1)).astype(int) + 1).clip(0, side)
    if right > left and bottom > top:
        box = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], np.float64) @ matrix
        drawn = cv2.warpAffine(pixels, box[:2], (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
        part = picture[top:bottom, left:right]
        part[:] = np.rint(part * (1 - drawn[..., 3:]) + drawn[..., :3])
        alpha[top:bottom, left:right] = drawn[..., 3]
    return average_down(alpha, size)


def average_down(picture: np.ndarray, size: int) -> np.ndarray:
    """Average from supersampled to frame pixels, `(size, size, ...)`."""
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
