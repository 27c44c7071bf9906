"""The mathematics that both stages share: the sampling loop, and clean latents made noisy again."""

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler

from mi2v_lite.diffusion import denoise, renoised


def ddim() -> DDIMScheduler:
    return DDIMScheduler(prediction_type="epsilon", clip_sample=False, timestep_spacing="trailing")


def noise() -> torch.Tensor:
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


def test_a_network_that_knows_the_noise_finds_the_clean_latents():
    """All noisy latents lie on one line from the clean ones to the noise, and DDIM stays on it (float32 rounding)."""
    scheduler, clean, start = ddim(), torch.full((2, 3, 4), 0.5), noise()
    seen = []

    def knowing(latents, timestep):
        seen.append(int(timestep))
        signal = scheduler.alphas_cumprod[timestep]
        return (latents - signal.sqrt() * clean) / (1 - signal).sqrt()

    found = denoise(knowing, start, scheduler, 5)
    assert seen == [999, 799, 599, 399, 199]
    torch.testing.assert_close(found, clean, atol=1e-4, rtol=0)


def test_the_sampling_goes_on_with_what_the_callback_returns():
    scheduler, start, steps, seen = ddim(), noise(), [], []

    def predict(latents, _timestep):
        seen.append(latents)
        return torch.zeros_like(latents)

    def callback(i, timestep, latents):
        steps.append((i, int(timestep)))
        return renoised(scheduler, torch.ones_like(latents), start, i)

    found = denoise(predict, start, scheduler, 2, callback, progress=list)
    assert steps == [(0, 999), (1, 499)]
    assert torch.equal(seen[0], start)
    assert torch.equal(seen[1], scheduler.add_noise(torch.ones_like(start), start, torch.tensor([499, 499])))
    assert torch.equal(found, torch.ones_like(start))


def test_steps_that_draw_noise_take_the_generator():
    def sample(seed):
        generator = torch.Generator().manual_seed(seed)
        return denoise(lambda latents, _: latents, noise(), EulerAncestralDiscreteScheduler(), 3, generator=generator)

    assert torch.equal(sample(1), sample(1)) and not torch.equal(sample(1), sample(2))


@pytest.mark.parametrize("steps", [0, 2.5, -1])
def test_a_wrong_number_of_steps_is_named(steps):
    with pytest.raises(ValueError, match=f"at least 1, got {steps}"):
        denoise(lambda latents, _: latents, noise(), ddim(), steps)
