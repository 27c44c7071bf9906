"""The one conversion between 8-bit pixels and the numbers that networks work with.

Outside the package a picture has uint8 levels from 0 to 255 and its channels last; inside it is a float32 tensor in
[-1, 1] with its channels first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mi2v_lite.io.images import as_rgb

ImageInput = Image.Image | np.ndarray | Tensor | Sequence[Image.Image] | Sequence[np.ndarray]


def frames_tensor(frames: np.ndarray) -> Tensor:
    """Pictures or clips as a network takes them.

    Args:
        frames: uint8 `(..., H, W, 3)`.

    Returns:
        `(..., 3, H, W)`, float32 in [-1, 1].
    """
    return torch.from_numpy(np.array(frames)).movedim(-1, -3).float() / 127.5 - 1


def to_uint8(pixels: Tensor) -> np.ndarray:
    """Pictures or clips as people look at them: `frames_tensor` backwards.

    Args:
        pixels: `(..., 3, H, W)`, float in [-1, 1]; what lies outside is clamped.

    Returns:
        uint8 `(..., H, W, 3)`.
    """
    levels = ((pixels.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return levels.movedim(-3, -1).contiguous().cpu().numpy()


def image_tensor(image: ImageInput) -> Tensor:
    """An image of any kind that the package accepts, checked.

    Args:
        image: a PIL image, a uint8 array `(H, W, 3)` or `(B, H, W, 3)`, a float tensor `(3, H, W)` or `(B, 3, H, W)`
            in [-1, 1], or a list of PIL images or arrays of one size.

    Returns:
        `(B, 3, H, W)`, float32 in [-1, 1].

    Raises:
        ValueError: If the type, the layout or the range is another, or a list is empty or holds several sizes.
    """
    if isinstance(image, Sequence) and not isinstance(image, (str, bytes)):
        images = [image_tensor(part) for part in image]
        if not images:
            raise ValueError("The list of images is empty; give at least one image.")
        sizes = {tuple(pixels.shape[-2:]) for pixels in images}
        if len(sizes) > 1:
            raise ValueError(f"The images of a batch must have one size (height, width), got {sorted(sizes)}.")
        return torch.cat(images)
    if isinstance(image, Image.Image):
        image = np.asarray(as_rgb(image))
    if isinstance(image, np.ndarray):
        array = image[None] if image.ndim == 3 else image
        if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8 or 0 in array.shape:
            raise ValueError(
                f"An image array must be uint8 of (H, W, 3) or (B, H, W, 3), got {image.dtype} {image.shape}."
            )
        return frames_tensor(array)
    if isinstance(image, Tensor):
        pixels = image[None] if image.dim() == 3 else image
        if pixels.dim() != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point() or 0 in pixels.shape:
            raise ValueError(
                f"An image tensor must be float of (3, H, W) or (B, 3, H, W), got {image.dtype} {tuple(image.shape)}."
            )
        low, high = pixels.min().item(), pixels.max().item()
        if not (low >= -1.001 and high <= 1.001):  # also catches NaN
            raise ValueError(
                f"An image tensor must lie in [-1, 1], got {low:.4g} to {high:.4g}. If yours lies in [0, 1], give "
                "2 * image - 1."
            )
        return pixels.float()
    raise ValueError(f"image must be a PIL image, a uint8 array, a float tensor or a list of these, got {type(image)}.")
