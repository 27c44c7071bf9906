"""Measures of motion and of pictures. Each returns a float32 scalar tensor, nan where its mask selects nothing.

A mask is bool (or 0 and 1), True is counted. For a flow (..., 2, H, W) it is (..., 1, H, W), (..., H, W), or one (H, W)
for all. Values that the mask leaves out may be nan.
Serves the evaluation of every notebook.
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
    """The mask for ``like`` (..., C, H, W), as (..., 1, H, W) bool."""
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
    """End-point error (EPE): the mean over pixels of the distance between two flow vectors, in their unit (pixels).

    Args:
        pred: (..., 2, H, W).
        true: (..., 2, H, W), same shape.
        mask: what counts, see the module's header; by default everything.

    Returns:
        scalar, >= 0.

    Raises:
        ValueError: the shapes do not fit.

    Source: Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011.
    """
    pred, true = _check_flow(pred, "pred"), _check_flow(true, "true")
    _check_same(pred, true)
    distance = torch.linalg.vector_norm(pred - true, dim=-3, keepdim=True)
    return distance[_mask_for(mask, pred)].mean()


def trajectory_error(pred: Tensor, true: Tensor, mask: Tensor | None = None) -> Tensor:
    """Trajectory error (ObjMC): the mean over points and frames of the distance between two tracks, in pixels.

    Args:
        pred: (..., 2), positions (x, y), for instance (B, F, P, 2). How they are tracked is the caller's affair.
        true: (..., 2), same shape.
        mask: (...), True where the point counts (say, is visible); by default all.

    Returns:
        scalar, >= 0.

    Raises:
        ValueError: the shapes do not fit.

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
    """Peak signal-to-noise ratio in decibels: ``10 log10(max^2 / mean((a - b)^2))``, over everything that counts.

    One mean square is taken over the whole input, not one per image; call it per image to average decibels.

    Args:
        a: (..., C, H, W).
        b: (..., C, H, W), same shape and range.
        mask: (..., 1, H, W) or (..., H, W), see the module's header; by default everything.
        max: the width of the value range: 1 for [0, 1], 2 for [-1, 1]. By default 255 for uint8, else 1.

    Returns:
        scalar, decibels; inf when equal.

    Raises:
        ValueError: the shapes do not fit, or ``max`` is not positive.

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
    """How much moves where nothing should: the mean length of the flow outside a mask, in its unit (pixels).

    Args:
        flow: (..., 2, H, W).
        mask: True = may move, as a brush; see the module's header for its shape.

    Returns:
        scalar, >= 0; 0 is a background that stays.

    Raises:
        ValueError: the shapes do not fit.

    Source: ours, for the region control (motion brush) of Motion-I2V.
    """
    flow = _check_flow(flow, "flow")
    length = torch.linalg.vector_norm(flow, dim=-3, keepdim=True)
    return length[~_mask_for(mask, flow)].mean()


def direction_accuracy(pred: Tensor, true: Tensor, mask: Tensor | None = None, least: float = 0.5) -> Tensor:
    """The share of fields whose mean flow points the right way: its cosine with the true mean flow is above cos 45 deg.

    Every (2, H, W) field counts as one; give only the last frame's to judge a whole clip.

    Args:
        pred: (..., 2, H, W), pixels.
        true: (..., 2, H, W), same shape.
        mask: the pixels to take the means over, see the module's header; by default all.
        least: fields whose true mean flow is shorter than this have no direction and are left out, in pixels.

    Returns:
        scalar in [0, 1]; nan when no field is left. A prediction without motion is wrong.

    Raises:
        ValueError: the shapes do not fit.

    Source: ours, to check that a prompt or a drag is followed.
    """
    p, t = _mean_flows(pred, true, mask)
    length_p, length_t = torch.linalg.vector_norm(p, dim=-1), torch.linalg.vector_norm(t, dim=-1)
    right = (p * t).sum(-1) > math.cos(math.radians(45)) * length_p * length_t
    return right[length_t >= least].float().mean()


def followed_share(pred: Tensor, true: Tensor, mask: Tensor | None = None, least: float = 0.5) -> Tensor:
    """How far the mean flow goes along the true mean flow, as a share of its length; the mean of the fields.

    Args, errors and source as of `direction_accuracy`.

    Returns:
        scalar: 1 is all the way, 0 is no motion along it, below 0 is the other way; nan when no field is left.
    """
    p, t = _mean_flows(pred, true, mask)
    share = (p * t).sum(-1) / t.square().sum(-1)
    return share[torch.linalg.vector_norm(t, dim=-1) >= least].mean()


def _mean_flows(pred: Tensor, true: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The mean displacements (..., 2) of both over the pixels that count."""
    pred, true = _check_flow(pred, "pred"), _check_flow(true, "true")
    _check_same(pred, true)
    counted = _mask_for(mask, pred)
    pixels = counted.sum(dim=(-2, -1))
    p, t = (torch.where(counted, flow, 0).sum(dim=(-2, -1)) / pixels for flow in (pred, true))
    return p, t
