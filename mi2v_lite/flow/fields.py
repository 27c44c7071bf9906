"""The conventions of motion fields: units, change of size, composition, inversion, and reading at points.

A flow is a float tensor (..., 2, H, W) with the channels (x right, y down), in pixels of its own grid. The flow
f_{0->i} lives on the grid of frame 0 and says how far each of its pixels has moved in frame i. Pixel centres have
integer coordinates. Notebook 01 introduces all this.

There are three units, the same as in the released code:

    pixels    used everywhere inside the package
    fraction  (x / W, y / H), so that 1 is one whole side of the image
    unit      (fraction + 1) / 2, so that 0.5 is no motion; the flow autoencoder works in this unit
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
    """The factors of the two channels, (2, 1, 1)."""
    return torch.tensor([x, y], device=flow.device, dtype=flow.dtype).view(2, 1, 1)


def normalise(flow: Tensor) -> Tensor:
    """Pixels to fractions of the image's sides.

    Args:
        flow: (..., 2, H, W), pixels.

    Returns:
        (..., 2, H, W), (x / W, y / H), within [-1, 1] for whatever starts and ends inside the image.

    Raises:
        ValueError: if the shape is not that of a flow.
    """
    _check_flow(flow)
    return flow / _scale(flow, flow.shape[-1], flow.shape[-2])


def denormalise(fraction: Tensor) -> Tensor:
    """Fractions of the image's sides to pixels: the inverse of `normalise`.

    Args:
        fraction: (..., 2, H, W), (x / W, y / H).

    Returns:
        (..., 2, H, W), pixels of its own grid.

    Raises:
        ValueError: if the shape is not that of a flow.
    """
    _check_flow(fraction, "fraction")
    return fraction * _scale(fraction, fraction.shape[-1], fraction.shape[-2])


def to_unit(flow: Tensor) -> Tensor:
    """Pixels to the unit range of the flow autoencoder.

    Equation: unit-flow

    Args:
        flow: (..., 2, H, W), pixels.

    Returns:
        (..., 2, H, W), (fraction + 1) / 2: 0.5 is no motion, 1 is one whole side to the right or down. Values are not
        clamped.

    Raises:
        ValueError: if the shape is not that of a flow.
    """
    return (normalise(flow) + 1) / 2


def from_unit(unit: Tensor) -> Tensor:
    """The unit range to pixels: the inverse of `to_unit`, for motions of up to one whole side.

    Args:
        unit: (..., 2, H, W), where 0.5 is no motion. A decoder may overshoot, so values are clamped to [0, 1].

    Returns:
        (..., 2, H, W), pixels, |x| <= W and |y| <= H.

    Raises:
        ValueError: if the shape is not that of a flow.
    """
    _check_flow(unit, "unit")
    return denormalise((2 * unit - 1).clamp(-1, 1))


def length(flow: Tensor) -> Tensor:
    """The lengths of displacements, `(..., 2, H, W)` -> `(..., 1, H, W)`; on a CPU far faster than `norm` over two."""
    return torch.hypot(*flow.unbind(-3)).unsqueeze(-3)


def resize(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a flow to another grid: interpolate it, and scale the displacements with the sides.

    As inside the attention of the released code, interpolation is bilinear with half-pixel centres and without
    antialiasing; x is then divided by W / w and y by H / h.

    Equation: feature-flow

    Args:
        flow: (..., 2, H, W), pixels of the H x W grid.
        size: (h, w), the new height and width.

    Returns:
        (..., 2, h, w), pixels of the h x w grid.

    Raises:
        ValueError: if the shape is not that of a flow, or the size is not positive.
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
        field: (..., C, H, W), a flow or anything else.
        points: (..., P, 2), pixels (x, y), with the leading dimensions of `field`. A point beyond the border reads
            the border, and a nan reads nan.

    Returns:
        (..., P, C) in the dtype of `field`, exact at pixel centres.

    Raises:
        ValueError: if the shapes do not fit.
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
    """Chain two flows: `f_ac(p) = f_ab(p) + f_bc(p + f_ab(p))`.

    Equation: composition

    Args:
        first: f_{a->b}, (..., 2, H, W), pixels, on the grid of a.
        second: f_{b->c}, the same shape, pixels, on the grid of b. It is read bilinearly; a point that has left the
            image reads its border.

    Returns:
        f_{a->c}, (..., 2, H, W), pixels, on the grid of a.

    Raises:
        ValueError: if the shapes are not those of flows, or differ.
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
    """Fill holes from their rims inwards: each ring takes the means of its known 3x3 neighbours."""
    known = known.to(field.dtype)
    box = field.new_ones(1, 1, 3, 3)
    channels = field.shape[1]
    while bool((known == 0).any()):
        count = F.conv2d(known, box, padding=1)
        total = F.conv2d(field * known, box.expand(channels, 1, 3, 3), padding=1, groups=channels)
        ring = (known == 0) & (count > 0)
        if not bool(ring.any()):  # nothing is known in the whole image, which then stays 0
            break
        field = torch.where(ring, total / count.clamp(min=1), field)
        known = torch.where(ring, 1.0, known)
    return field


def invert(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Turn f_{a->b} on the grid of a into f_{b->a} on the grid of b.

    The negated flow is splatted along the flow, so where pixels collide the inverse is their average. Holes are then
    filled from their rims inwards: each pixel beside known ones takes the mean of its known 3x3 neighbours, until no
    hole is left. If nothing lands in the whole image, the inverse is 0.

    Args:
        flow: (..., 2, H, W), pixels. Pixels whose flow is nan or infinite are dropped.

    Returns:
        `inverse` (..., 2, H, W), pixels, finite everywhere, and `valid` (..., 1, H, W) bool, which is True where a
        pixel landed and False where the value was filled in.

    Raises:
        ValueError: if the shape is not that of a flow.
    """
    _check_flow(flow)
    flat = flow.reshape(-1, *flow.shape[-3:])
    finite = torch.isfinite(flat)
    # eps only guards against 0 / 0 here: even where a weight of 1e-7 lands, the displacement is right.
    inverse, weight = splat_average(torch.where(finite, -flat, 0), flat, eps=1e-30)
    valid = weight > 0
    inverse = _fill_holes(inverse, valid)
    return inverse.reshape(flow.shape), valid.reshape(*flow.shape[:-3], 1, *flow.shape[-2:])
