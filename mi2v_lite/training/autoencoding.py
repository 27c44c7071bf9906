"""Objectives of the two autoencoders, see `objectives.py` for what an objective is. Serves notebook 01."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mi2v_lite.flow.fields import from_unit, to_unit
from mi2v_lite.training.batches import Draws, FlowFields, PhotoCrops, generator_for
from mi2v_lite.training.common import Batch, Logs, data_folders
from mi2v_lite.training.curriculum import Config, Step
from mi2v_lite.training.latents import estimate_scale
from mi2v_lite.training.starts import start_pca


class _Autoencoder:
    """What both autoencoders share: the sampled reconstruction, the pull to N(0, 1), the scale of the latents."""

    def __init__(self, step: Step) -> None:
        self.edge, self.kl = step.options.edge_weight, step.options.kl_weight

    def _start(self, models: nn.ModuleDict, step: Step) -> None:
        """With the option `start: pca`, sets a fresh model to the principal components of training patches."""
        if step.options.start == "pca" and step.model not in step.start_from:
            batches = (self.source.batch([generator_for(step.seed, i, 3)] * 16) for i in range(32))
            start_pca(models[step.model], map(self._input, batches))

    def batch(self, step: Step, draws: Draws) -> Batch:
        """A training batch, see `PhotoCrops.batch`."""
        return self.source.batch(draws.generators)

    def _reconstruct(self, models: nn.ModuleDict, x: Tensor, draws: Draws, step: Step) -> tuple[Tensor, Tensor, Logs]:
        """`(B, C, H, W)` to its reconstruction and the divergence, a mean over pictures of the sum over latents."""
        vae = models[step.model]
        if step.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(x).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        noise = draws.randn(*mean.shape[1:]).to(mean.device)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum((1, 2, 3)).mean()
        output = vae.decode(mean + (0.5 * logvar).exp() * noise).sample.float()
        return output, kl, {"kl": kl.detach(), "latent_std": mean.detach().std()}

    def finish(self, models: nn.ModuleDict, step: Step) -> None:
        """Registers the scale that gives the latents unit variance, if the encoder trained; not with `keep_scale`."""
        vae = models[step.model]
        if step.options.keep_scale or not any(parameter.requires_grad for parameter in vae.encoder.parameters()):
            return  # later steps have learned with the scale that it has
        device = next(vae.parameters()).device
        pictures = [self._input(self.source.batch([generator_for(step.seed, i, 2)] * 8)).to(device) for i in range(32)]
        vae.register_to_config(scaling_factor=estimate_scale(vae, pictures))


def _edges(error: Tensor) -> Tensor:
    """L1 of the error's differences between neighbours: keeps edges sharp at hardly any cost."""
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


class ImageAutoencoder(_Autoencoder):
    """Reconstructs photos: L1 + squared error + L1 of the gradients, with a small pull of the posterior to N(0, 1)."""

    def __init__(self, config: Config, step: Step, runs: Path, models: nn.ModuleDict) -> None:
        super().__init__(step)
        data = step.data
        train, heldout = data_folders(data, runs)
        clips = runs / data.frames_from if data.frames_from else None
        self.source = PhotoCrops(train, data.size, data.scale, data.jitter, clips, data.frames_share)
        self.heldout = PhotoCrops(heldout, size=data.size).fixed(48) if heldout else None
        self._start(models, step)

    def _input(self, batch: Batch) -> Tensor:
        return batch["images"]

    def loss(self, models: nn.ModuleDict, batch: Batch, draws: Draws, step: Step) -> tuple[Tensor, Logs]:
        """`batch["images"]` is `(B, 3, H, W)` in [-1, 1]."""
        images = self._input(batch)
        output, kl, logs = self._reconstruct(models, images, draws, step)
        error = output - images
        l2 = error.square().mean()
        loss = error.abs().mean() + l2 + self.edge * _edges(error) + self.kl * kl
        return loss, {"psnr": 10 * torch.log10(4 / l2.detach()), **logs}

    @torch.no_grad()
    def validate(self, models: nn.ModuleDict, step: Step) -> dict[str, float]:
        """PSNR in dB on fixed held-out crops, mean of the pictures."""
        if self.heldout is None:
            return {}
        vae, values = models[step.model], []
        for images in self.heldout["images"].split(8):
            images = images.to(next(vae.parameters()).device)
            output = vae.decode(vae.encode(images).latent_dist.mode()).sample.float().clamp(-1, 1)
            values.append(10 * torch.log10(4 / F.mse_loss(output, images, reduction="none").mean((1, 2, 3))))
        return {"heldout_psnr": float(torch.cat(values).mean())}


class FlowAutoencoder(_Autoencoder):
    """Reconstructs single motion fields, with the error counted in pixels so that gradients are of a usual size."""

    def __init__(self, config: Config, step: Step, runs: Path, models: nn.ModuleDict) -> None:
        super().__init__(step)
        train, heldout = data_folders(step.data, runs)
        self.source = FlowFields(train, step.data.amplitude, seed=step.seed)
        self.heldout = FlowFields(heldout, (1.0, 1.0)).batch([generator_for(0)] * 96) if heldout else None
        self._start(models, step)

    def batch(self, step: Step, draws: Draws) -> Batch:
        """A training batch, see `FlowFields.batch`."""
        return self.source.batch(draws.generators, self.source.in_order(draws))

    def _input(self, batch: Batch) -> Tensor:
        return to_unit(batch["flow"]).clamp(0, 1)

    def loss(self, models: nn.ModuleDict, batch: Batch, draws: Draws, step: Step) -> tuple[Tensor, Logs]:
        """`batch["flow"]` is `(B, 2, H, W)` in pixels."""
        unit = self._input(batch)
        output, kl, logs = self._reconstruct(models, unit, draws, step)
        height, width = unit.shape[-2:]
        error = (output - unit) * unit.new_tensor([2.0 * width, 2.0 * height]).view(2, 1, 1)
        loss = error.abs().mean() + self.edge * _edges(error) + self.kl * kl
        return loss, {"epe": error.detach().square().sum(1).sqrt().mean(), **logs}

    @torch.no_grad()
    def validate(self, models: nn.ModuleDict, step: Step) -> dict[str, float]:
        """Mean endpoint error in pixels on fixed held-out fields, and as a share of their mean motion."""
        if self.heldout is None:
            return {}
        vae, error, motion = models[step.model], 0.0, 0.0
        for flow in self.heldout["flow"].split(8):
            flow = flow.to(next(vae.parameters()).device)
            output = vae.decode(vae.encode(to_unit(flow).clamp(0, 1)).latent_dist.mode()).sample.float()
            error += float((from_unit(output) - flow).square().sum(1).sqrt().mean((1, 2)).sum())
            motion += float(flow.square().sum(1).sqrt().mean((1, 2)).sum())
        return {"heldout_epe": error / len(self.heldout["flow"]), "heldout_epe_share": error / motion}
