"""Structural similarity (SSIM): do two pictures have the same local structure? Serves the evaluation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def ssim_map(a: Tensor, b: Tensor, max: float = 1.0) -> Tensor:
    """SSIM at every pixel, averaged over the channels.

    Args:
        a: `(B, C, H, W)`, H and W of at least 11, values from 0 up (not [-1, 1]: the measure compares means, and they
            must not cancel). b: the same shape and range. max: the largest possible value.

    Returns:
        `(B, 1, H, W)`, at most 1, which is for equal pictures. At the rim the windows reach into mirrored pixels.

    Raises:
        ValueError: the shapes differ or are too small.

    Source: Wang et al., "Image Quality Assessment", IEEE TIP 2004: Gaussian windows of 11 pixels, sigma 1.5,
    K1 = 0.01, K2 = 0.03.
    """
    if a.shape != b.shape or a.ndim != 4 or min(a.shape[-2:]) < WINDOW:
        raise ValueError(
            f"two pictures (B, C, H, W) of {WINDOW} pixels at least, got {tuple(a.shape)}, {tuple(b.shape)}"
        )
    axis = torch.arange(WINDOW, dtype=torch.float32, device=a.device) - WINDOW // 2
    weights = torch.exp(-axis.square() / (2 * SIGMA**2))
    weights = weights / weights.sum()
    channels = a.shape[1]

    def blur(x: Tensor) -> Tensor:
        x = F.pad(x, [WINDOW // 2] * 4, mode="reflect")
        x = F.conv2d(x, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
        return F.conv2d(x, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)

    a, b = a.float(), b.float()
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    c1, c2 = (K1 * max) ** 2, (K2 * max) ** 2
    found = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return found.mean(dim=1, keepdim=True)


def ssim(a: Tensor, b: Tensor, mask: Tensor | None = None, max: float = 1.0) -> Tensor:
    """The mean of `ssim_map`, a scalar; over the pixels of `mask`, bool `(B, 1, H, W)`, nan where it selects none."""
    found = ssim_map(a, b, max)
    return found.mean() if mask is None else found[mask].mean()
