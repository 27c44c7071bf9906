"""Measures of motion and of pictures.

Each returns a float32 scalar tensor, which is nan if its mask selects nothing. A mask is bool (or 0 and 1), and what is
True counts. For a flow (..., 2, H, W) or pictures (..., C, H, W), a mask has the shape (..., 1, H, W), (..., H, W), or
(H, W) for all of them. Values that the mask excludes may be nan.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _check_flow(flow: Tensor, name: str) -> Tensor:
    if flow.ndim < 3 or flow.shape[-3] != 2:
        raise ValueError(f"{name} must have the shape (..., 2, H, W), got {tuple(flow.shape)}")
    return flow.float()


def _check_same(pred: Tensor, true: Tensor) -> None:
    if pred.shape != true.shape:
        raise ValueError(f"both must have the same shape, got {tuple(pred.shape)} and {tuple(true.shape)}")


def _mask_for(mask: Tensor | None, like: Tensor) -> Tensor:
    """The mask that belongs to `like` (..., C, H, W), expanded to (..., 1, H, W) bool."""
    lead, size = tuple(like.shape[:-3]), tuple(like.shape[-2:])
    shape = (*lead, 1, *size)
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=like.device)
    if tuple(mask.shape) == (*lead, *size):
        mask = mask.unsqueeze(-3)
    elif tuple(mask.shape) not in (shape, size):
        raise ValueError(f"mask must have the shape {shape}, {(*lead, *size)} or {size}, got {tuple(mask.shape)}")
    return mask.bool().expand(shape)


def endpoint_error(pred: Tensor, true: Tensor, mask: Tensor | None = None) -> Tensor:
    """End-point error (EPE): the mean distance between two displacements of the same pixel.

    Args:
        pred: (..., 2, H, W), pixels.
        true: of the same shape, pixels.
        mask: which pixels count, see the head of this file; by default all.

    Returns:
        A scalar >= 0, in pixels.

    Raises:
        ValueError: if the shapes do not fit.

    Source: Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011.
    """
    pred, true = _check_flow(pred, "pred"), _check_flow(true, "true")
    _check_same(pred, true)
    distance = torch.linalg.vector_norm(pred - true, dim=-3, keepdim=True)
    return distance[_mask_for(mask, pred)].mean()


def trajectory_error(pred: Tensor, true: Tensor, mask: Tensor | None = None) -> Tensor:
    """Trajectory error (ObjMC): the mean distance between two tracks, over points and frames.

    Args:
        pred: (..., 2), positions (x, y) in pixels, for instance (B, F, P, 2), from any tracker.
        true: of the same shape, pixels.
        mask: (...), True where a point counts, for instance where it is visible; by default everywhere.

    Returns:
        A scalar >= 0, in pixels.

    Raises:
        ValueError: if the shapes do not fit.

    Source: ObjMC of Wang et al., "MotionCtrl", SIGGRAPH 2024.
    """
    if pred.ndim < 2 or pred.shape[-1] != 2:
        raise ValueError(f"tracks must have the shape (..., 2), got {tuple(pred.shape)}")
    _check_same(pred, true)
    distance = torch.linalg.vector_norm(pred.float() - true.float(), dim=-1)
    if mask is None:
        return distance.mean()
    if mask.shape != distance.shape:
        raise ValueError(f"mask must have the shape {tuple(distance.shape)}, got {tuple(mask.shape)}")
    return distance[mask.bool()].mean()


def psnr(a: Tensor, b: Tensor, mask: Tensor | None = None, max: float | None = None) -> Tensor:
    """Peak signal-to-noise ratio: `10 log10(max^2 / mean((a - b)^2))`.

    The mean is taken over the whole input and not for each image. For a mean of decibels, call this for each image.

    Args:
        a: (..., C, H, W).
        b: of the same shape and range.
        mask: which pixels count, see the head of this file; by default all.
        max: the width of the range of values: 1 for [0, 1], 2 for [-1, 1]. By default 255 for uint8, and 1 otherwise.

    Returns:
        A scalar in decibels, which is infinite if the two are equal.

    Raises:
        ValueError: if the shapes do not fit, or `max` is not positive.

    Source: the usual definition, for instance Huynh-Thu and Ghanbari, Electronics Letters 2008.
    """
    _check_same(a, b)
    if a.ndim < 3:
        raise ValueError(f"images must have the shape (..., C, H, W), got {tuple(a.shape)}")
    if max is None:
        max = 255.0 if a.dtype == torch.uint8 else 1.0
    if not max > 0:
        raise ValueError(f"max must be the positive width of the value range, got {max}")
    square = (a.float() - b.float()).square()
    error = square[_mask_for(mask, a).expand_as(square)].mean()
    return 20 * math.log10(max) - 10 * torch.log10(error)


def leakage(flow: Tensor, mask: Tensor) -> Tensor:
    """How much moves where nothing should move: the mean length of the flow outside a mask.

    Args:
        flow: (..., 2, H, W), pixels.
        mask: True where a pixel may move, like a brush; see the head of this file for its shape.

    Returns:
        A scalar >= 0, in pixels; 0 means that the background stays where it is.

    Raises:
        ValueError: if the shapes do not fit.

    Source: ours, for the region control (motion brush) of Motion-I2V.
    """
    flow = _check_flow(flow, "flow")
    length = torch.linalg.vector_norm(flow, dim=-3, keepdim=True)
    return length[~_mask_for(mask, flow)].mean()


def direction_accuracy(pred: Tensor, true: Tensor, mask: Tensor | None = None, least: float = 0.5) -> Tensor:
    """The share of flows whose mean points in the right direction, within 45 degrees of the true mean.

    Every flow (2, H, W) counts once; to judge a whole clip, give only that of its last frame.

    Args:
        pred: (..., 2, H, W), pixels.
        true: of the same shape, pixels.
        mask: the pixels over which the means are taken, see the head of this file; by default all.
        least: a flow whose true mean is shorter than this, in pixels, has no direction and does not count.

    Returns:
        A scalar in [0, 1], or nan if no flow counts. A prediction without any motion is wrong.

    Raises:
        ValueError: if the shapes do not fit.

    Source: ours, to check whether a prompt or a drag is followed.
    """
    p, t = _mean_flows(pred, true, mask)
    length_p, length_t = torch.linalg.vector_norm(p, dim=-1), torch.linalg.vector_norm(t, dim=-1)
    right = (p * t).sum(-1) > math.cos(math.radians(45)) * length_p * length_t
    return right[length_t >= least].float().mean()


def followed_share(pred: Tensor, true: Tensor, mask: Tensor | None = None, least: float = 0.5) -> Tensor:
    """How far the mean flow goes in the direction of the true mean flow, as a share of the true length.

    Args:
        pred: (..., 2, H, W), pixels.
        true: of the same shape, pixels.
        mask: as in `direction_accuracy`.
        least: as in `direction_accuracy`.

    Returns:
        A scalar, the mean over the flows: 1 means all the way, 0 no motion in that direction, and a negative number a
        motion in the opposite one. It is nan if no flow counts.

    Raises:
        ValueError: if the shapes do not fit.
    """
    p, t = _mean_flows(pred, true, mask)
    share = (p * t).sum(-1) / t.square().sum(-1)
    return share[torch.linalg.vector_norm(t, dim=-1) >= least].mean()


def _mean_flows(pred: Tensor, true: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The mean displacements of both, (..., 2), over the pixels that count."""
    pred, true = _check_flow(pred, "pred"), _check_flow(true, "true")
    _check_same(pred, true)
    counted = _mask_for(mask, pred)
    pixels = counted.sum(dim=(-2, -1))
    p, t = (torch.where(counted, flow, 0).sum(dim=(-2, -1)) / pixels for flow in (pred, true))
    return p, t
