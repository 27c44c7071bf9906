"""The convention of a motion field: units, size, composition, inversion, reading at points.

A flow is float, (..., 2, H, W), channels (x right, y down), in pixels of its own grid; the field f_{0->i} lives on the
grid of frame 0 and says where each of its pixels is in frame i. Pixel centres have integer coordinates.

Three units:

    pixels    what everything inside uses
    fraction  (x / W, y / H): 1 is one whole side
    unit      (fraction + 1) / 2, 0.5 is no motion: what the flow autoencoder takes and gives

Serves notebook 01; the units at each interface are those of the released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .warp import gather_bilinear, splat_average


def _check_flow(flow: Tensor, name: str = "flow") -> None:
    if flow.ndim < 3 or flow.shape[-3] != 2:
        raise ValueError(f"{name} must have the shape (..., 2, H, W), got {tuple(flow.shape)}")


def _scale(flow: Tensor, x: float, y: float) -> Tensor:
    """(2, 1, 1) factors for the two channels."""
    return torch.tensor([x, y], device=flow.device, dtype=flow.dtype).view(2, 1, 1)


def normalise(flow: Tensor) -> Tensor:
    """Pixels to fractions of the image's sides.

    Args:
        flow: (..., 2, H, W), pixels.

    Returns:
        (..., 2, H, W), (x / W, y / H); within [-1, 1] for anything that starts and ends inside the image.

    Raises:
        ValueError: the shape is no flow's.
    """
    _check_flow(flow)
    return flow / _scale(flow, flow.shape[-1], flow.shape[-2])


def denormalise(fraction: Tensor) -> Tensor:
    """Fractions of the sides to pixels: the inverse of ``normalise``.

    Args:
        fraction: (..., 2, H, W), (x / W, y / H).

    Returns:
        (..., 2, H, W), pixels of that grid.

    Raises:
        ValueError: the shape is no flow's.
    """
    _check_flow(fraction, "fraction")
    return fraction * _scale(fraction, fraction.shape[-1], fraction.shape[-2])


def to_unit(flow: Tensor) -> Tensor:
    """Pixels to the unit range of the flow autoencoder.

    Args:
        flow: (..., 2, H, W), pixels.

    Returns:
        (..., 2, H, W), (fraction + 1) / 2: 0.5 is no motion, 1 is one whole side to the right or down. Not clamped.

    Raises:
        ValueError: the shape is no flow's.
    """
    return (normalise(flow) + 1) / 2


def from_unit(unit: Tensor) -> Tensor:
    """The unit range to pixels: the inverse of ``to_unit``, for motion up to one whole side.

    Args:
        unit: (..., 2, H, W), 0.5 is no motion. What lies outside [0, 1] (a decoder may overshoot) is clamped.

    Returns:
        (..., 2, H, W), pixels, |x| <= W and |y| <= H.

    Raises:
        ValueError: the shape is no flow's.
    """
    _check_flow(unit, "unit")
    return denormalise((2 * unit - 1).clamp(-1, 1))


def resize(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a flow to another grid: interpolate, and scale the vectors with the sides.

    Bilinear, align_corners=False, no antialias, then x / (W / w) and y / (H / h), as inside the released attention.

    Args:
        flow: (..., 2, H, W), pixels of the H x W grid.
        size: (h, w), the new height and width.

    Returns:
        (..., 2, h, w), pixels of the h x w grid.

    Raises:
        ValueError: the shape is no flow's, or the size is not positive.
    """
    _check_flow(flow)
    height, width = flow.shape[-2:]
    h, w = (int(side) for side in size)
    if h < 1 or w < 1:
        raise ValueError(f"size must be a positive (height, width), got {tuple(size)}")
    small = F.interpolate(flow.reshape(-1, 2, height, width), size=(h, w), mode="bilinear", align_corners=False)
    small = small / _scale(flow, width / w, height / h)
    return small.reshape(*flow.shape[:-2], h, w)


def sample(field: Tensor, points: Tensor) -> Tensor:
    """Read a field at points between the pixels, bilinearly.

    Args:
        field: (..., C, H, W), any unit; a flow or anything else.
        points: (..., P, 2), pixel (x, y), pixel centres at integers; leading dimensions those of ``field``. Points
            beyond the border read the border; a nan point reads nan.

    Returns:
        (..., P, C) in the dtype of ``field``; exact at pixel centres.

    Raises:
        ValueError: the shapes do not fit.
    """
    if field.ndim < 3:
        raise ValueError(f"field must have the shape (..., C, H, W), got {tuple(field.shape)}")
    if points.ndim < 2 or points.shape[-1] != 2 or points.shape[:-2] != field.shape[:-3]:
        raise ValueError(
            f"points must have the shape {(*field.shape[:-3], 'P', 2)} to go with field {tuple(field.shape)}, "
            f"got {tuple(points.shape)}"
        )
    flat_field = field.reshape(-1, *field.shape[-3:])
    flat_points = points.reshape(-1, *points.shape[-2:])
    read = gather_bilinear(flat_field, flat_points[..., 0], flat_points[..., 1])
    return read.transpose(1, 2).reshape(*points.shape[:-1], field.shape[-3])


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Chain two flows: ``f_ac(p) = f_ab(p) + f_bc(p + f_ab(p))``.

    Args:
        first: (..., 2, H, W), pixels, f_{a->b} on the grid of a.
        second: (..., 2, H, W), pixels, f_{b->c} on the grid of b; same shape. Read bilinearly, points that left the
            image read its border.

    Returns:
        (..., 2, H, W), pixels, f_{a->c} on the grid of a.

    Raises:
        ValueError: the shapes are no flow's or differ.
    """
    _check_flow(first, "first")
    if first.shape != second.shape:
        raise ValueError(f"first and second must have the same shape, got {tuple(first.shape)}, {tuple(second.shape)}")
    height, width = first.shape[-2:]
    flat = first.reshape(-1, 2, height, width)
    x = (torch.arange(width, device=first.device, dtype=first.dtype) + flat[:, 0]).flatten(1)
    y = (torch.arange(height, device=first.device, dtype=first.dtype)[:, None] + flat[:, 1]).flatten(1)
    then = gather_bilinear(second.reshape(-1, 2, height, width), x, y).unflatten(2, (height, width))
    return (flat + then).reshape(first.shape)


def _fill_holes(field: Tensor, known: Tensor) -> Tensor:
    """Grow the known pixels ring by ring: a hole beside known pixels takes the mean of its known 3x3 neighbours."""
    known = known.to(field.dtype)
    box = field.new_ones(1, 1, 3, 3)
    channels = field.shape[1]
    while bool((known == 0).any()):
        count = F.conv2d(known, box, padding=1)
        total = F.conv2d(field * known, box.expand(channels, 1, 3, 3), padding=1, groups=channels)
        ring = (known == 0) & (count > 0)
        if not bool(ring.any()):  # nothing landed in the whole image: it stays 0
            break
        field = torch.where(ring, total / count.clamp(min=1), field)
        known = torch.where(ring, 1.0, known)
    return field


def invert(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Turn f_{a->b} on the grid of a into f_{b->a} on the grid of b.

    The negated flow is splatted forward along itself (average, so colliding pixels are averaged). Holes are then filled
    ring by ring from outside in: each hole beside known pixels takes the mean of its known 3x3 neighbours, until
    none is left; where nothing landed in the whole image the inverse is 0.

    Args:
        flow: (..., 2, H, W), pixels. May hold nan or inf: dropped.

    Returns:
        ``inverse`` (..., 2, H, W), pixels, finite everywhere, and ``valid`` (..., 1, H, W) bool: True where a pixel
        landed, False where the value was filled in.

    Raises:
        ValueError: the shape is no flow's.
    """
    _check_flow(flow)
    flat = flow.reshape(-1, *flow.shape[-3:])
    finite = torch.isfinite(flat)
    # eps only guards 0 / 0 here: a weight of 1e-7 is small but its vector is right.
    inverse, weight = splat_average(torch.where(finite, -flat, 0), flat, eps=1e-30)
    valid = weight > 0
    inverse = _fill_holes(inverse, valid)
    return inverse.reshape(flow.shape), valid.reshape(*flow.shape[:-3], 1, *flow.shape[-2:])
