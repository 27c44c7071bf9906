"""Small scenes whose motion is known by a formula: a wall that is passed, approached or turned, and a thing before it.

    scene = view("turn", mean=12.0, photo=photo, near=other, side=256, num_frames=16)
    scene.frames, scene.flow           # uint8 (16, 256, 256, 3), float (15, 2, 256, 256)

Notebook 01 and its experiment `views` look at them. A wall is a plane, and a plane seen from two places is related by a
matrix of 3 x 3 (a homography), so the field is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

KINDS = {
    "pan": "the camera turns a little: everything shifts alike",
    "zoom": "the camera comes nearer",
    "turn": "the camera walks around: the wall is seen at an angle",
    "parallax": "the camera steps aside: what is near moves more",
    "light": "nothing moves, but the light goes down",
}
FINER = 3  # frames are drawn this many times larger and averaged down
WIDER = 1.6  # the photo reaches so far beyond the frame, so that nothing is missing when the camera moves
NEAR_MOTION, FAR_MOTION = 1.0, 0.35  # of what is near and of the wall, in "parallax"


@dataclass(frozen=True)
class Scene:
    """A drawn clip of F = N + 1 frames.

    Attributes:
        frames: uint8 `(F, S, S, 3)`.
        flow: `(N, 2, S, S)` float32 in pixels: the true f_{0->i}.
        near: bool `(S, S)`: which pixels of frame 0 belong to the thing in front.
    """

    frames: np.ndarray
    flow: Tensor
    near: Tensor


def plane_matrix(kind: str, amount: float, side: int) -> np.ndarray:
    """The 3 x 3 matrix that takes a pixel (x, y, 1) of frame 0 to (X, Y, Z), and so to its place (X / Z, Y / Z).

    Args:
        kind: "pan", "zoom" or "turn".
        amount: how much: a share of the side, a growth, or an angle in radians.
        side: of the frame in pixels.
    """
    centre = (side - 1) / 2
    to_middle = np.array([[1, 0, -centre], [0, 1, -centre], [0, 0, 1.0]])
    matrix = {
        "pan": lambda a: np.array([[1, 0, a * side], [0, 1, 0], [0, 0, 1]]),
        "zoom": lambda a: np.diag([1 + a, 1 + a, 1]),
        # The wall, at a distance of 1.2 sides, turns about the upright line through its middle.
        "turn": lambda a: np.array([[np.cos(a), 0, 0], [0, 1, 0], [np.sin(a) / (1.2 * side), 0, 1]]),
    }[kind](amount)
    return np.linalg.inv(to_middle) @ matrix @ to_middle


def plane_field(matrix: np.ndarray, height: int, width: int) -> Tensor:
    """The field of a plane: where the matrix takes each pixel, minus where it was; `(2, height, width)` in pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    u, v, w = np.einsum("ab,bhw->ahw", np.asarray(matrix, dtype=np.float64), np.stack([x, y, np.ones_like(x)]))
    return torch.from_numpy(np.stack([u / w - x, v / w - y])).float()


def view(kind: str, mean: float, photo: Image.Image, near: Image.Image, side: int = 128, num_frames: int = 2) -> Scene:
    """Draws a scene.

    Args:
        kind: one of KINDS.
        mean: the mean length of the last field in pixels; for "light" the frame loses 1/40 of its light for each.
        photo: what is painted on the wall.
        near: what is painted on the thing in front, of "parallax" only.
        side: of the frames in pixels.
        num_frames: F, of which the first is frame 0; the motion is even.

    Returns:
        the frames and their exact field.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"A scene is one of {', '.join(KINDS)}, not {kind!r}.")
    wall, thing, mask = _texture(photo, side), _texture(near, side), _ellipse(side)
    has_thing = kind == "parallax"
    owner = torch.from_numpy(_seen(mask, np.eye(3), side) > 0.5) & has_thing
    geometry = "pan" if has_thing else kind

    def fields(amount: float) -> tuple[Tensor, list[np.ndarray]]:
        if kind == "light":
            return torch.zeros(2, side, side), [np.eye(3)]
        shares = (FAR_MOTION, NEAR_MOTION) if has_thing else (1.0,)
        matrices = [plane_matrix(geometry, share * amount, side) for share in shares]
        parts = [plane_field(matrix, side, side) for matrix in matrices]
        return torch.where(owner, parts[-1], parts[0]), matrices

    low, high = 0.0, 1.2  # the amount whose mean length is wanted, by bisection
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if float(fields(middle)[0].norm(dim=0).mean()) < mean else (low, middle)
    frames, flow = [], []
    for i in range(num_frames):
        field, matrices = fields(low * i / (num_frames - 1))
        picture = _seen(wall, matrices[0], side)
        if has_thing:
            alpha = _seen(mask, matrices[1], side)[..., None]
            picture = picture * (1 - alpha) + _seen(thing, matrices[1], side) * alpha
        if kind == "light":
            picture = picture * (1 - mean / 40 * i / (num_frames - 1))
        frames.append(picture.round().clip(0, 255).astype(np.uint8))
        flow.append(field)
    return Scene(np.stack(frames), torch.stack(flow[1:]), owner)


def _texture(photo: Image.Image, side: int) -> np.ndarray:
    """The middle of a photo, `WIDER` frames wide and `FINER` times finer, float32 `(W, W, 3)`."""
    wide = round(WIDER * side) * FINER
    scale = wide / min(photo.size)
    large = photo.convert("RGB").resize(
        (round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC
    )
    left, top = (large.width - wide) // 2, (large.height - wide) // 2
    return np.asarray(large.crop((left, top, left + wide, top + wide)), dtype=np.float32)


def _ellipse(side: int) -> np.ndarray:
    """The shape of the thing in front, as large as a texture, 0 to 1."""
    wide = round(WIDER * side) * FINER
    mask, middle, scale = np.zeros((wide, wide), np.float32), wide // 2, side * FINER
    cv2.ellipse(
        mask, (middle - scale // 8, middle + scale // 12), (scale // 5, scale // 4), 0, 0, 360, 1.0, -1, cv2.LINE_AA
    )
    return mask


def _seen(texture: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """A texture, moved by a matrix of frame pixels, as it appears in the frame: `(side, side, ...)`."""
    margin = (texture.shape[0] / FINER - side) / 2
    half = (FINER - 1) / 2
    from_texture = np.array([[1 / FINER, 0, -half / FINER - margin], [0, 1 / FINER, -half / FINER - margin], [0, 0, 1]])
    to_canvas = np.array([[FINER, 0, half], [0, FINER, half], [0, 0, 1.0]])
    size = (side * FINER, side * FINER)
    drawn = cv2.warpPerspective(texture, to_canvas @ matrix @ from_texture, size, borderMode=cv2.BORDER_REFLECT)
    return cv2.resize(drawn, (side, side), interpolation=cv2.INTER_AREA)
