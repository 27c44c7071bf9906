"""What a mean over latents does not see: how far wrong they put what they decode to (told in `weights/README.md`).

A channel of the latents that holds the light of a whole block, or its whole displacement, moves the result far more
than one of its finest grain; a plain mean over channels counts them alike.
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

NUDGE = 0.35  # of scaled latents, about as far as a trained network errs
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
    """Estimates the square error after decoding from that of the latents.

    Args:
        vae: the autoencoder of the latents.
        samples: `(B, C, H, W)` in its range: frames in [-1, 1] or unit flow in [0, 1].
        measure: one of `MEASURES`, see `__call__`.
        seed: of the noise that nudges one channel of their latents after the other.

    Attributes:
        channels: `(latent_channels,)`: the mean square of what the decoded values change by, for a mean square of 1 in
            that channel of the scaled latents.
        floor: mean square error of the autoencoder's own reconstruction, in the same unit.

    Raises:
        ValueError: for another measure.
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
        found = []
        for channel in range(latents.shape[1]):
            nudged = latents.clone()
            noise = torch.randn(latents[:, channel].shape, generator=generator).to(device)
            nudged[:, channel] += NUDGE * noise
            found.append(F.mse_loss(decode(vae, nudged, batch=BATCH), rebuilt) / (NUDGE * noise).square().mean())
        self.channels = torch.stack(found)

    def __call__(self, error: Tensor, weight: Tensor | None = None) -> Tensor:
        """Each sample's error after decoding, the autoencoder's own included: `(B,)`.

        "log": the logarithm of the mean square over all places. It falls alike for 10 % less error on a quiet sample
        and on a busy one, as PSNR does. "root": the mean over places of the root, as an end-point error is.

        Args:
            error: square errors of clean scaled latents, `(B, C, N, h, w)`.
            weight: `(B, 1, N, h, w)`, 0 or more: how much a place counts. All alike if None.
        """
        decoded = torch.einsum("bcnhw,c->bnhw", error, self.channels.to(error))[:, None]
        if self.measure == "root":
            return weighted_mean((self.floor + decoded).sqrt(), weight)
        return (self.floor + weighted_mean(decoded, weight)).log()


def seen_share(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """What part of each latent's block frame 0 shows: where something lands.

    Args:
        flow: f_{0->i}, `(B, N, 2, H, W)` in pixels.
        size: `(h, w)` of the latents, which divides `(H, W)`.

    Returns:
        `(B, 1, N, h, w)` in [0, 1].
    """
    _, landed = travelled(flow)  # (B, N, 1, H, W)
    share = F.adaptive_avg_pool2d(landed.flatten(0, 1).float(), size)
    return share.unflatten(0, flow.shape[:2]).transpose(1, 2)
