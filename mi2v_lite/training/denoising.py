"""What all denoising objectives share: clips with latents, text, timesteps, target, held-out loss.

`objectives.py` says what an objective is. Serves notebooks 02, 03 and 04.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from mi2v_lite.diffusion import clean_error, predicted_clean, prediction_target
from mi2v_lite.training.batches import ClipBatches, Draws, InTurn
from mi2v_lite.training.builders import load_tokenizer, make_scheduler
from mi2v_lite.training.common import Batch, Predict, data_folders
from mi2v_lite.training.curriculum import Config, Step
from mi2v_lite.training.decoded_error import DecodedError
from mi2v_lite.training.latents import READERS, cached_latents

SAMPLES = 16  # that say what the channels of latents are worth


class Denoising:
    """A denoising objective without its loss. `uses_flow_latents` and `uses_flow` say what its batches must hold; it
    denoises latents of flow if they have any, of frames otherwise.

    The options that all of them take are `options.DenoisingOptions`.
    """

    uses_flow_latents = True
    uses_flow = False

    def __init__(self, config: Config, step: Step, runs: Path, models: nn.ModuleDict) -> None:
        train, heldout = data_folders(step.data, runs)
        self.scheduler, self.pipeline = make_scheduler(config.noise), config.pipeline
        options = step.options
        self.noise_from, self.noise_emphasis = options.noise_from, options.noise_emphasis
        self.own_guess = options.own_guess
        tokenizer = load_tokenizer(config)
        length = min(tokenizer.model_max_length, models["text_encoder"].config.max_position_embeddings)
        device = "cuda" if torch.cuda.is_available() else "cpu"

        @cache  # a store that is named twice is opened once
        def open_store(folder: Path) -> ClipBatches:
            kinds = ("image", "flow") if self.uses_flow_latents else ("image",)
            latents = [cached_latents(folder, models[f"{kind}_vae"], kind, step.precision, device) for kind in kinds]
            return ClipBatches(folder, tokenizer, length, *latents, with_flow=self.uses_flow, seed=step.seed)

        self.source = first = open_store(train)
        if step.data.mixed:
            self.source = InTurn([self.source, *(open_store(runs / name) for name in step.data.mixed)])
        self.heldout = open_store(heldout) if heldout else None
        self.decoded: DecodedError | None = None
        if options.decoded_error:
            kind, clips = "flow" if self.uses_flow_latents else "image", first.store
            samples = torch.stack([READERS[kind](clips, i)[-1] for i in range(min(SAMPLES, len(clips)))])
            self.decoded = DecodedError(models[f"{kind}_vae"], samples, options.decoded_error)

    def batch(self, step: Step, draws: Draws) -> Batch:
        """A training batch, see `ClipBatches.draw`."""
        return self.source.draw(draws, step.text_dropout)

    def finish(self, models: nn.ModuleDict, step: Step) -> None:
        """Nothing to do."""

    def text(self, models: nn.ModuleDict, tokens: Tensor) -> Tensor:
        """`(B, L)` to `(B, L, D)`; gradients flow if the text encoder trains."""
        return models["text_encoder"](input_ids=tokens).last_hidden_state

    def scaled(self, models: nn.ModuleDict, batch: Batch, kind: str) -> Tensor:
        """Latents `(B, C, F or N, h, w)` with their autoencoder's scale."""
        return batch[f"{kind}_latents"] * models[f"{kind}_vae"].config.scaling_factor

    def noised(self, clean: Tensor, draws: Draws, predict: Predict) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, timesteps `(B,)` from the share `noise_from` on, and the target of the prediction.

        With the option `own_guess`, the noisy latents of that share of the samples are what DDIM's first step makes of
        the network's guess from noise alone, with the truth as the target all the same: scheduled sampling (Deng et
        al., "Markup-to-Image Diffusion Models with Scheduled Sampling", ICLR 2023). Without it a training shows the
        truth through the noise, which sampling never does, and errors of the first step stay or grow. Where there is
        less noise than signal only part of the guess's error is kept, as after several steps.
        """
        noise = draws.randn(*clean.shape[1:]).to(clean.device)
        last = self.scheduler.config.num_train_timesteps
        u = self.noise_from + (1 - self.noise_from) * draws.strata() ** (1 / self.noise_emphasis)
        timesteps = (u * last).long().clamp(max=last - 1).to(clean.device)
        if self.own_guess > 0:
            chosen = draws.stack(lambda generator: torch.rand((), generator=generator)) < self.own_guess
            with torch.no_grad():
                end = torch.full_like(timesteps, last - 1)
                start = self.scheduler.add_noise(clean, noise, end)
                guess = predicted_clean(self.scheduler, predict(start, end).float(), start, end)
                # The noise that would lead from the truth to where the step from the guess leads.
                signal = self.scheduler.alphas_cumprod.to(clean)
                ratio = (1 / signal - 1).rsqrt()  # of signal to noise; at zero terminal SNR the last is 0
                kept = (ratio[timesteps].clamp(max=1) - ratio[-1]) * chosen.to(clean.device)
                noise = noise + kept.view(-1, *[1] * (clean.ndim - 1)) * (guess - clean)
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        return noisy, timesteps, prediction_target(self.scheduler, clean, noise, timesteps)

    def clean(self, error: Tensor, timesteps: Tensor) -> Tensor:
        """Square errors `(B, C, N, h, w)` of the clean latents, from those of a prediction at `timesteps`."""
        return error * clean_error(self.scheduler, timesteps).view(-1, *[1] * (error.ndim - 1))

    def reduced(self, error: Tensor, timesteps: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of square errors `(B, C, N, h, w)`, where places count by `weight` `(B, 1, N, h, w)` if given.

        Their mean; with the option `decoded_error` the mean over samples of `DecodedError` in that measure.
        """
        if self.decoded is not None:
            return self.decoded(self.clean(error, timesteps), weight).mean()
        return error.mean() if weight is None else (error * weight).mean() / weight.mean()

    @torch.no_grad()
    def validate(self, models: nn.ModuleDict, step: Step) -> dict[str, float]:
        """The loss on up to 32 held-out clips with fixed noise and timesteps."""
        if self.heldout is None:
            return {}
        device, losses = next(models.parameters()).device, []
        for start in range(0, min(32, len(self.heldout)), 8):
            batch = self.heldout.clips(list(range(start, min(start + 8, len(self.heldout)))))
            batch = {name: value.to(device) for name, value in batch.items()}
            losses.append(float(self.loss(models, batch, Draws.of(0, start, count=len(batch["tokens"])), step)[0]))
        return {"heldout_loss": sum(losses) / len(losses)}
