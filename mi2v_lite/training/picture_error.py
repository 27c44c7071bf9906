"""How far wrong latents put the decoded picture: what a loss on latents does not see (notebook 03).

A channel of the latents that draws the light of a whole block moves the picture far more than one of its finest
grain; a plain mean over channels counts them alike.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from mi2v_lite.flow.warp import splat_average
from mi2v_lite.models.autoencoder import decode, encode

NUDGE = 0.35  # of scaled latents, about as far as a trained Stage 2 errs


@torch.no_grad()
def channel_weights(vae: AutoencoderKL, frames: Tensor, seed: int = 0) -> tuple[Tensor, float]:
    """What an error of each latent channel costs in the picture, and what the autoencoder alone costs.

    Args:
        vae: the image autoencoder.
        frames: `(B, 3, H, W)` in [-1, 1].
        seed: of the noise that nudges one channel after the other.

    Returns:
        `(C,)`: the mean square of what the decoded pixels change by, for a mean square of 1 in that channel of the
        scaled latents, so that the sum over channels of weight times error estimates the picture's mean square error;
        and the mean square error of the autoencoder's own reconstruction, in the same unit, pixels in [-1, 1].
    """
    device = next(vae.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    frames = frames.to(device)
    latents = encode(vae, frames)
    rebuilt = decode(vae, latents)
    found = []
    for channel in range(latents.shape[1]):
        nudged = latents.clone()
        noise = torch.randn(latents[:, channel].shape, generator=generator).to(device)
        nudged[:, channel] += NUDGE * noise
        found.append(F.mse_loss(decode(vae, nudged), rebuilt) / (NUDGE * noise).square().mean())
    return torch.stack(found), F.mse_loss(rebuilt, frames).item()


def seen_share(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """What part of each latent's block frame 0 shows: where something lands.

    Args:
        flow: f_{0->i}, `(B, N, 2, H, W)` in pixels.
        size: `(h, w)` of the latents, which divides `(H, W)`.

    Returns:
        `(B, 1, N, h, w)` in [0, 1].
    """
    fields = flow.flatten(0, 1)
    _, landed = splat_average(torch.ones_like(fields[:, :1]), fields)
    share = F.adaptive_avg_pool2d((landed > 0).float(), size)
    return share.unflatten(0, flow.shape[:2]).transpose(1, 2)
