"""The error of latents measured by what they decode to (`weights/README.md` tells what it brought).

A channel of the latents that holds the brightness of a whole block, or its whole displacement, changes the decoded
result far more than a channel of fine grain. A plain mean over the channels counts both alike.
"""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from mi2v_lite.flow.warp import travelled
from mi2v_lite.models.autoencoder import decode, encode
from mi2v_lite.training.schema import Measure

NUDGE = 0.35  # how far scaled latents are changed: about as far as a trained network errs
MEASURES = get_args(Measure)
BATCH = 4  # pictures at once: bounds the memory at full size


def weighted_mean(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean of each sample.

    Args:
        x: `(B, C, N, h, w)`.
        weight: `(B, 1, N, h, w)`, 0 or more: how much a place counts. All count alike if None.

    Returns:
        `(B,)`; 0 where all weights are 0.
    """
    places = (1, 2, 3, 4)
    if weight is None:
        return x.mean(places)
    return (x * weight).mean(places) / weight.mean(places).clamp(min=1e-6)


class DecodedError:
    """Estimates the squared error after decoding from the squared error of the latents.

    Args:
        vae: the autoencoder of the latents.
        samples: `(B, C, H, W)` in its range: frames in [-1, 1] or unit flow in [0, 1].
        measure: one of `MEASURES`, see `__call__`.
        seed: of the noise by which one channel of their latents after the other is changed.

    Attributes:
        channels: `(latent_channels,)`: by how much the decoded values change, as a mean square, for a mean square of 1
            in that channel of the scaled latents.
        floor: the mean squared error of the autoencoder's own reconstruction, in the same unit.
        unit: the mean of `channels`.

    Raises:
        ValueError: If there is no such measure.
    """

    @torch.no_grad()
    def __init__(self, vae: AutoencoderKL, samples: Tensor, measure: str = "log", seed: int = 0) -> None:
        if measure not in MEASURES:
            raise ValueError(f"decoded_error is {measure!r}, expected one of {', '.join(MEASURES)}.")
        self.measure = measure
        device = next(vae.parameters()).device
        generator = torch.Generator().manual_seed(seed)
        samples = samples.to(device)
        latents = encode(vae, samples, batch=BATCH)
        rebuilt = decode(vae, latents, batch=BATCH)
        self.floor = F.mse_loss(rebuilt, samples).item()
        changes = []
        for channel in range(latents.shape[1]):
            nudged = latents.clone()
            noise = torch.randn(latents[:, channel].shape, generator=generator).to(device)
            nudged[:, channel] += NUDGE * noise
            changes.append(F.mse_loss(decode(vae, nudged, batch=BATCH), rebuilt) / (NUDGE * noise).square().mean())
        self.channels = torch.stack(changes)
        self.unit = self.channels.mean().item()

    def __call__(self, error: Tensor, weight: Tensor | None = None) -> Tensor:
        """The error of each sample after decoding, which includes the autoencoder's own.

        Args:
            error: squared errors of the clean scaled latents, `(B, C, N, h, w)`.
            weight: `(B, 1, N, h, w)`, 0 or more: how much a place counts. All count alike if None.

        Returns:
            `(B,)`. By the measure "log" the logarithm of the mean square over all places: like PSNR, it falls equally
            for 10 % less error on a quiet sample and on a busy one. By "root" the mean over places of the root, as in
            an endpoint error, counted in the unit of the latents: displacements as shares of the picture are so small
            that their gradients would come near the epsilon of Adam.
        """
        decoded = torch.einsum("bcnhw,c->bnhw", error, self.channels.to(error))[:, None]
        if self.measure == "root":
            return weighted_mean(((self.floor + decoded) / self.unit).sqrt(), weight)
        return (self.floor + weighted_mean(decoded, weight)).log()


def seen_share(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """The share of each latent's block of pixels that frame 0 shows, that is, where something lands.

    Args:
        flow: f_{0->i}, `(B, N, 2, H, W)` in pixels.
        size: `(h, w)` of the latents, which divides `(H, W)`.

    Returns:
        `(B, 1, N, h, w)` in [0, 1].
    """
    _, landed = travelled(flow)  # (B, N, 1, H, W)
    share = F.adaptive_avg_pool2d(landed.flatten(0, 1).float(), size)
    return share.unflatten(0, flow.shape[:2]).transpose(1, 2)
