"""The mathematics of diffusion that both stages share: what is predicted, guidance, and the loop that denoises.

Serves notebooks 02 and 03. A clean tensor x and noise e are mixed as sqrt(a) x + sqrt(1 - a) e, where a falls from
about 1 to about 0 with the timestep (Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020).
"""

from __future__ import annotations

from diffusers import DDIMScheduler
from torch import Tensor


def prediction_target(scheduler: DDIMScheduler, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """What the network is to predict, by the schedule's `prediction_type`: the noise, or v (Salimans and Ho 2022)."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(clean, noise, timestep)
    raise ValueError(f"prediction_type is {kind!r}, expected epsilon or v_prediction.")


def predicted_clean(scheduler: DDIMScheduler, prediction: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
    """The clean latents that a network's `prediction` at `timestep` `(B,)` means: `prediction_target` backwards."""
    signal = scheduler.alphas_cumprod.to(noisy)[timestep].view(-1, *[1] * (noisy.ndim - 1))
    if scheduler.config.prediction_type == "epsilon":
        return (noisy - (1 - signal).sqrt() * prediction) / signal.sqrt()
    return signal.sqrt() * noisy - (1 - signal).sqrt() * prediction


def clean_error(scheduler: DDIMScheduler, timestep: Tensor) -> Tensor:
    """How much the square error of a prediction at `timestep` `(B,)` grows in `predicted_clean`: factors `(B,)`."""
    signal = scheduler.alphas_cumprod.to(timestep.device)[timestep]
    return (1 - signal) / (signal if scheduler.config.prediction_type == "epsilon" else 1)


def guide(prediction: Tensor, guidance_scale: float, guided: bool) -> Tensor:
    """[negative, positive] predictions `(2B, ...)` to the guided one `(B, ...)`; unguided ones pass."""
    if not guided:
        return prediction
    negative, positive = prediction.chunk(2)
    return negative + guidance_scale * (positive - negative)
