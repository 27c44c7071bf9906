"""The condition of the ControlNet: a sparse motion field as latents beside its mask (Motion-I2V, section 3.4)."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F

from mi2v_lite.flow.fields import to_unit


def condition(
    control_flow: torch.Tensor, mask: torch.Tensor, flow_vae: Any, latent_size: tuple[int, int]
) -> torch.Tensor:
    """The condition of the ControlNet: the masked flow as a latent, and the mask.

    As in the released code, the flow is encoded as `(unit(flow) - 0.5) * mask + 0.5`, its latent is not scaled, and the
    mask is reduced to the size of the latent by taking the top-left pixel of each block.

    Equation: condition

    Args:
        control_flow: (B, N, 2, H, W) or (N, 2, H, W), pixels.
        mask: of the same shape with one channel, 0 or 1.
        flow_vae: the flow autoencoder, or anything else with `.encode(x).latent_dist.mode()` for x (batch, 2, H, W) in
            [0, 1], where 0.5 is no motion.
        latent_size: (h, w) of the latents.

    Returns:
        (B, C + 1, N, h, w) in the dtype of the autoencoder: the C channels of the latent, then the mask.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    if control_flow.ndim == 4:
        control_flow, mask = control_flow[None], mask[None]
    batch, frames, _, height, width = control_flow.shape
    if control_flow.shape[2] != 2 or mask.shape != (batch, frames, 1, height, width):
        raise ValueError(
            f"flow {tuple(control_flow.shape)} and mask {tuple(mask.shape)} do not fit; "
            "expected (B, N, 2, H, W) and (B, N, 1, H, W)."
        )
    dtype = getattr(flow_vae, "dtype", control_flow.dtype)
    unit = (to_unit(control_flow) - 0.5) * mask + 0.5
    latent = flow_vae.encode(unit.flatten(0, 1).to(dtype)).latent_dist.mode()
    if tuple(latent.shape[-2:]) != tuple(latent_size):
        raise ValueError(f"the flow VAE returned latents of {tuple(latent.shape[-2:])}, expected {tuple(latent_size)}.")
    small = F.interpolate(mask.flatten(0, 1).to(dtype), size=tuple(latent_size), mode="nearest")
    if mask.any() and not small.any():
        warnings.warn(
            "the control falls between the cells of the latents, so its mask is empty; use a radius of 8 px or more.",
            stacklevel=2,
        )
    return torch.cat([latent, small], 1).unflatten(0, (batch, frames)).movedim(2, 1)
