"""The mathematics of diffusion that both stages share: what a network predicts, guidance, and the sampling loop.

A clean tensor x and unit normal noise e are mixed to sqrt(a) x + sqrt(1 - a) e, where a falls from about 1 to about 0
as the timestep rises (Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020). Notebook 02 derives it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from torch import Tensor

Generators = torch.Generator | list[torch.Generator] | None


def prediction_target(scheduler: DDIMScheduler, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """What the network learns to predict, according to the schedule's `prediction_type`.

    Equation: velocity

    Args:
        scheduler: the noise schedule.
        clean: the clean latents x, `(B, ...)`.
        noise: the noise e that is mixed in, of the same shape.
        timestep: `(B,)`, integers.

    Returns:
        The noise e for "epsilon"; v = sqrt(a) e - sqrt(1 - a) x for "v_prediction" (Salimans and Ho, "Progressive
        Distillation for Fast Sampling of Diffusion Models", ICLR 2022).

    Raises:
        ValueError: If the schedule has another `prediction_type`.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(clean, noise, timestep)
    raise ValueError(f"prediction_type is {kind!r}, expected epsilon or v_prediction.")


def predicted_clean(scheduler: DDIMScheduler, prediction: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
    """The clean latents that a prediction amounts to: `prediction_target` solved for x.

    Args:
        scheduler: the noise schedule.
        prediction: the network's output, `(B, ...)`.
        noisy: the latents that the network saw, of the same shape.
        timestep: `(B,)`, integers.

    Returns:
        An estimate of x, of the same shape.
    """
    signal = scheduler.alphas_cumprod.to(noisy)[timestep].view(-1, *[1] * (noisy.ndim - 1))  # a, (B, 1, ...)
    if scheduler.config.prediction_type == "epsilon":
        return (noisy - (1 - signal).sqrt() * prediction) / signal.sqrt()
    return signal.sqrt() * noisy - (1 - signal).sqrt() * prediction


def clean_error(scheduler: DDIMScheduler, timestep: Tensor) -> Tensor:
    """The factor by which `predicted_clean` multiplies the squared error of a prediction.

    Args:
        scheduler: the noise schedule.
        timestep: `(B,)`, integers.

    Returns:
        `(B,)`: (1 - a) / a for "epsilon", 1 - a for "v_prediction".
    """
    signal = scheduler.alphas_cumprod.to(timestep.device)[timestep]
    return (1 - signal) / (signal if scheduler.config.prediction_type == "epsilon" else 1)


def guide(prediction: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022): n + g (p - n).

    Equation: guidance

    Args:
        prediction: `(2B, ...)`, the predictions n for the negative prompts and then p for the positive ones. Without
            guidance it is `(B, ...)`, of the positive prompts alone, and is handed back.
        guidance_scale: g; there is no guidance if it is 1 or less.

    Returns:
        `(B, ...)`.
    """
    if guidance_scale <= 1:
        return prediction
    negative, positive = prediction.chunk(2)
    return negative + guidance_scale * (positive - negative)


@torch.no_grad()
def denoise(
    predict: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    scheduler: SchedulerMixin,
    num_inference_steps: int,
    callback: Callable[[int, Tensor, Tensor], Tensor] | None = None,
    generator: Generators = None,
    progress: Callable[[Iterable], Iterable] | None = None,
) -> Tensor:
    """The sampling loop: from noise to clean latents, one timestep after the other.

    Equation: sampling

    Args:
        predict: `predict(latents, timestep)`, the network with its guidance. It gets latents of the shape of `noise`,
            scaled as the scheduler wants them, and a timestep without dimensions, on the CPU. It returns what the
            scheduler's `prediction_type` says.
        noise: unit normal noise of any shape.
        scheduler: one of diffusers'. Its timesteps are set here.
        num_inference_steps: the number of steps.
        callback: `callback(i, timestep, latents)`, called after step i. The sampling goes on with the latents that it
            returns, so this is the place for everything that must hold between two steps.
        generator: for schedulers whose steps draw noise of their own.
        progress: wraps the timesteps, for example in `tqdm`.

    Returns:
        Latents of the shape of `noise`.

    Raises:
        ValueError: If `num_inference_steps` is not a whole number of at least 1, or what was sampled is not finite.
    """
    if int(num_inference_steps) != num_inference_steps or num_inference_steps < 1:
        raise ValueError(f"num_inference_steps must be a whole number of at least 1, got {num_inference_steps}.")
    # The timesteps stay on the CPU, where the scheduler reads them; from a GPU it would wait for them in every step.
    scheduler.set_timesteps(int(num_inference_steps))
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    options = {"generator": generator} if takes_generator else {}
    latents = noise * scheduler.init_noise_sigma
    timesteps = scheduler.timesteps if progress is None else progress(scheduler.timesteps)
    for i, timestep in enumerate(timesteps):
        prediction = predict(scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(prediction, timestep, latents, **options, return_dict=False)[0]
        if callback is not None:
            latents = callback(i, timestep, latents)
    if not latents.isfinite().all():
        raise ValueError(
            f"The sampling gave values that are not numbers, in {latents.dtype}: use bfloat16 or float32 if this is "
            "float16, a smaller guidance scale, or other weights."
        )
    return latents


def renoised(scheduler: SchedulerMixin, clean: Tensor, noise: Tensor, i: int) -> Tensor:
    """Known clean latents, as noisy as the latents that `denoise` samples are after step `i`.

    Equation: noising

    Args:
        scheduler: the scheduler of the loop, whose timesteps are set.
        clean: `(B, ...)`, what is known.
        noise: the noise that the loop started from, of the same shape.
        i: the number of the step, from 0.

    Returns:
        `(B, ...)`: `clean` noised to the next timestep; after the last step `clean` itself.
    """
    if i + 1 == len(scheduler.timesteps):
        return clean
    timesteps = scheduler.timesteps[i + 1].expand(len(clean))
    return scheduler.add_noise(clean, noise, timesteps.to(clean.device, non_blocking=True))
