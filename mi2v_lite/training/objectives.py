"""What each step minimises. All objectives have one signature: `loss(models, batch, draws, step)`.

`models` are the step's, by name; `batch` comes from `batch(step, draws)`; all noise comes from `draws` on the CPU, so
that it is the same on every device and in however many processes. `validate` gives figures on held-out data, `finish`
runs before the result is saved. Serves notebooks 01 (autoencoders), 02 (motion field), 03 (animation), 04 (control).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mi2v_lite import control
from mi2v_lite.flow.fields import from_unit, to_unit
from mi2v_lite.models.autoencoder import start_pca
from mi2v_lite.models.motion_start import start_warped
from mi2v_lite.training import masks
from mi2v_lite.training.batches import ClipBatches, Draws, FlowFields, InTurn, PhotoCrops, generator_for
from mi2v_lite.training.builders import load_tokenizer, make_scheduler, predicted_clean, prediction_target
from mi2v_lite.training.curriculum import Config, Step
from mi2v_lite.training.latents import cached_latents, estimate_scale

Batch = dict[str, Tensor]
Logs = dict[str, Tensor]
Predict = Callable[[Tensor, Tensor], Tensor]  # of noisy latents and timesteps


def _start_of(step: Step, default: str, other: str) -> str:
    """The option `start` of a step; ValueError unless it is one of the two."""
    start = step.options.get("start", default)
    if start not in (default, other):
        raise ValueError(f"Step {step.name}: start is {start!r}, expected {default!r} or {other!r}.")
    return start


class _Autoencoder:
    """What both autoencoders share: the sampled reconstruction, the pull to N(0, 1), the scale of the latents."""

    def __init__(self, step: Step) -> None:
        self.edge = float(step.options.get("edge_weight", 0.5))
        self.kl = float(step.options.get("kl_weight", 1e-6))

    def _start(self, models: nn.ModuleDict, step: Step) -> None:
        """With the option `start: pca`, sets a fresh model to the principal components of training patches."""
        start = _start_of(step, "random", "pca")
        if start == "pca" and step.model not in step.start_from:
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
        if step.options.get("keep_scale", False) or not any(
            parameter.requires_grad for parameter in vae.encoder.parameters()
        ):
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
        data = dict(step.data)
        train, heldout = runs / data.pop("folder"), data.pop("heldout", None)
        if "clips" in data:
            data["clips"] = runs / data["clips"]
        self.source = PhotoCrops(train, **data)
        self.heldout = PhotoCrops(runs / heldout, size=self.source.size).fixed(48) if heldout else None
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


def data_folders(step: Step, runs: Path) -> tuple[Path, Path | None, dict[str, Any]]:
    """Where the clips of a step are, where the held-out ones, and its other data settings.

    Raises:
        ValueError: unless the step names one store or one set of shards.
    """
    rest = dict(step.data)
    named = [str(rest.pop(key)) for key in ("store", "shards") if key in rest]
    if len(named) != 1:
        raise ValueError(f"Step {step.name}: data needs either store or shards, the folder of the clips.")
    heldout = rest.pop("heldout", None)
    return runs / named[0], runs / heldout if heldout else None, rest


class FlowAutoencoder(_Autoencoder):
    """Reconstructs single motion fields, with the error counted in pixels so that gradients are of a usual size."""

    def __init__(self, config: Config, step: Step, runs: Path, models: nn.ModuleDict) -> None:
        super().__init__(step)
        train, heldout, data = data_folders(step, runs)
        self.source = FlowFields(train, **data, seed=step.seed)
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


class _Diffusion:
    """What the three denoising objectives share: clips with latents, text, timesteps, target, held-out loss."""

    uses_flow_latents = True
    uses_flow = False

    def __init__(self, config: Config, step: Step, runs: Path, models: nn.ModuleDict) -> None:
        train, heldout, rest = data_folders(step, runs)
        # Other stores, one or a list: samples come from the first and from these in turn; one may be named twice.
        mixed = rest.pop("mixed_with", [])
        if rest:
            known = "store or shards, mixed_with, and heldout"
            raise ValueError(f"Step {step.name}: unknown data settings {sorted(rest)}; known are {known}.")
        self.scheduler, self.pipeline = make_scheduler(config.noise), config.pipeline
        # Least share of the noise schedule to train on. The noisier, the more a prediction must rest on its conditions.
        self.noise_from = float(step.options.get("noise_from", 0.0))
        # Above 1, the density of the drawn timesteps t grows as t ** (noise_emphasis - 1): 2 doubles it at the end.
        self.noise_emphasis = float(step.options.get("noise_emphasis", 1.0))
        # How often the noise hides the network's own first guess instead of the truth, as it does in sampling.
        self.own_guess = float(step.options.get("own_guess", 0.0))
        if not 0 <= self.own_guess <= 1:
            raise ValueError(f"Step {step.name}: own_guess is {self.own_guess}, expected a share from 0 to 1.")
        tokenizer = load_tokenizer(config)
        length = min(tokenizer.model_max_length, models["text_encoder"].config.max_position_embeddings)
        device = "cuda" if torch.cuda.is_available() else "cpu"

        def open_store(folder: Path) -> ClipBatches:
            kinds = ("image", "flow") if self.uses_flow_latents else ("image",)
            latents = [cached_latents(folder, models[f"{kind}_vae"], kind, step.precision, device) for kind in kinds]
            return ClipBatches(folder, tokenizer, length, *latents, with_flow=self.uses_flow, seed=step.seed)

        self.source = open_store(train)
        if mixed:
            named = [mixed] if isinstance(mixed, str) else mixed
            self.source = InTurn([self.source, *(open_store(runs / name) for name in named)])
        self.heldout = open_store(heldout) if heldout else None

    def batch(self, step: Step, draws: Draws) -> Batch:
        """A training batch, see `ClipBatches.draw`."""
        return self.source.draw(draws, step.text_dropout)

    def finish(self, models: nn.ModuleDict, step: Step) -> None:
        """Nothing to do."""

    def _text(self, models: nn.ModuleDict, tokens: Tensor) -> Tensor:
        """`(B, L)` to `(B, L, D)`; gradients flow if the text encoder trains."""
        return models["text_encoder"](input_ids=tokens).last_hidden_state

    def _scaled(self, models: nn.ModuleDict, batch: Batch, kind: str) -> Tensor:
        """Latents `(B, C, F or N, h, w)` with their autoencoder's scale."""
        return batch[f"{kind}_latents"] * models[f"{kind}_vae"].config.scaling_factor

    def _noised(self, clean: Tensor, draws: Draws, predict: Predict) -> tuple[Tensor, Tensor, Tensor]:
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


def _one_frame(count: int, draws: Draws) -> Tensor:
    """A random future frame for each sample, `(B,)`."""
    return draws.stack(lambda generator: torch.randint(count, (), generator=generator))


def _pick(x: Tensor, chosen: Tensor, dim: int) -> Tensor:
    """Of each sample only the chosen entry of `dim`, which stays with length 1."""
    return torch.stack([item.narrow(dim - 1, int(i), 1) for item, i in zip(x, chosen, strict=True)])


def _on_objects(flow: Tensor, amount: float, size: tuple[int, int]) -> Tensor:
    """Weights `(B, 1, N, h, w)` for the error of fields `(B, N, 2, H, W)` in pixels: 1 where a place moves as most do,
    and up to 1 + `amount` where it moves otherwise than the median place, in the measure of the farthest from it.
    """
    usual = flow.flatten(3).median(dim=3).values[..., None, None]
    apart = (flow - usual).norm(dim=2, keepdim=True)
    share = apart / apart.amax(dim=(3, 4), keepdim=True).clamp(min=2.0)
    share = F.adaptive_avg_pool2d(share.flatten(0, 1), size).unflatten(0, flow.shape[:2])
    return 1 + amount * share.transpose(1, 2)


class MotionField(_Diffusion):
    """Stage 1: denoise the latents of f_{0->i} beside the image latent, given text and stride (paper, section 3.2).

    The option `single` trains on one random future frame (curriculum step 1), otherwise on all N. With `object_weight`
    above 0 the error counts up to that many times more where something moves otherwise than most of the picture: moving
    things are small, and beside a moving camera a small network from nothing does not learn at all to move them.
    """

    def __init__(self, config: Config, step: Step, runs: Path, models: nn.ModuleDict) -> None:
        self.object_weight = float(step.options.get("object_weight", 0.0))
        self.uses_flow = self.object_weight > 0
        super().__init__(config, step, runs, models)

    def loss(self, models: nn.ModuleDict, batch: Batch, draws: Draws, step: Step) -> tuple[Tensor, Logs]:
        """`batch` as in `ClipBatches.clips`."""
        image = self._scaled(models, batch, "image")[:, :, :1]
        flow, stride, pixels = self._scaled(models, batch, "flow"), batch["stride"], batch.get("flow")
        if step.options.get("single", False):
            chosen = _one_frame(flow.shape[2], draws)
            flow, stride = _pick(flow, chosen, 2), _pick(stride, chosen, 1)
            pixels = None if pixels is None else _pick(pixels, chosen, 1)
        image = image.expand(-1, -1, flow.shape[2], -1, -1)
        text = self._text(models, batch["tokens"])

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return models[step.model](torch.cat([image, noisy], dim=1), timesteps, text, stride=stride)

        noisy, timesteps, target = self._noised(flow, draws, predict)
        prediction = predict(noisy, timesteps)
        error = (prediction.float() - target).square()
        if pixels is None:
            return error.mean(), {}
        weight = _on_objects(pixels, self.object_weight, flow.shape[-2:])
        return (error * weight).mean() / weight.mean(), {"plain": error.detach().mean()}


class TrajectoryControl(_Diffusion):
    """The ControlNet on the frozen Stage 1: the same task, given part of the flow (paper, section 3.4).

    The option `shares` says how often each kind of control of `masks.KINDS` is drawn. `told_share` (0 in the paper) is
    what part of each sample's loss is the error where the control tells the true flow (`masks.told`): with a few drags
    those positions are few, and a short training hardly feels them. The option `single` trains on one random future
    frame, as curriculum step 1 does: for the same work many more different drags.

    Raises:
        ValueError: for a `told_share` outside [0, 1].
    """

    uses_flow = True

    def __init__(self, config: Config, step: Step, runs: Path, models: nn.ModuleDict) -> None:
        self.told_share = float(step.options.get("told_share", 0.0))
        if not 0 <= self.told_share <= 1:
            raise ValueError(f"Step {step.name}: told_share is {self.told_share}, expected a share from 0 to 1.")
        super().__init__(config, step, runs, models)

    def loss(self, models: nn.ModuleDict, batch: Batch, draws: Draws, step: Step) -> tuple[Tensor, Logs]:
        """`batch` as in `ClipBatches.clips`, with the flow in pixels."""
        image = self._scaled(models, batch, "image")[:, :, :1]
        flow, stride = self._scaled(models, batch, "flow"), batch["stride"]
        controls = zip(batch["flow"].cpu().split(1), draws.generators, strict=True)
        drawn = [masks.draw(flow, generator, step.options["shares"]) for flow, generator in controls]
        sparse, mask = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        true = batch["flow"]
        if step.options.get("single", False):
            chosen = _one_frame(flow.shape[2], draws)
            flow, stride = _pick(flow, chosen, 2), _pick(stride, chosen, 1)
            sparse, mask, true = (_pick(field, chosen, 1) for field in (sparse, mask, true))
        image = image.expand(-1, -1, flow.shape[2], -1, -1)
        with torch.no_grad():
            sparse, mask = sparse.to(flow.device), mask.to(flow.device)
            condition = control.condition(sparse, mask, models["flow_vae"], tuple(flow.shape[-2:])).float()
            text = self._text(models, batch["tokens"])

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            sample = torch.cat([image, noisy], dim=1)
            down, mid = models[step.model](sample, timesteps, text, condition, stride=stride)
            return models["stage1_unet"](sample, timesteps, text, stride=stride, down_residuals=down, mid_residual=mid)

        noisy, timesteps, target = self._noised(flow, draws, predict)
        prediction = predict(noisy, timesteps)
        error = (prediction.float() - target).square()
        told = masks.told(true, sparse, mask, tuple(flow.shape[-2:])).transpose(1, 2)  # (B, 1, N, h, w)
        inside = (error * told).mean((1, 2, 3, 4)) / told.mean((1, 2, 3, 4)).clamp(min=1e-6)  # (B,)
        loss = (1 - self.told_share) * error.mean() + self.told_share * inside.mean()
        return loss, {"mask_share": mask.mean(), "inside": inside.detach().mean()}


class Animation(_Diffusion):
    """Stage 2: frame 0 stays clean, frames 1..N are denoised with frame 0's features warped to them (section 3.3).

    With the option `start: warped`, fresh motion modules begin as `motion_start.start_warped` sets them.
    """

    uses_flow_latents = False
    uses_flow = True

    def __init__(self, config: Config, step: Step, runs: Path, models: nn.ModuleDict) -> None:
        super().__init__(config, step, runs, models)
        start = _start_of(step, "zero", "warped")
        if start == "warped" and (step.fresh or step.model not in step.start_from):
            start_warped(models[step.model])

    def loss(self, models: nn.ModuleDict, batch: Batch, draws: Draws, step: Step) -> tuple[Tensor, Logs]:
        """`batch` as in `ClipBatches.clips`, with the flow in pixels. The loss is on frames 1..N only."""
        frames = self._scaled(models, batch, "image")
        text = self._text(models, batch["tokens"])

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            sample = torch.cat([frames[:, :, :1], noisy[:, :, 1:]], dim=2)
            return models[step.model](sample, timesteps, text, flow=batch["flow"])

        noisy, timesteps, target = self._noised(frames, draws, predict)
        prediction = predict(noisy, timesteps)
        return F.mse_loss(prediction.float()[:, :, 1:], target[:, :, 1:]), {}


OBJECTIVES = {
    "image_autoencoder": ImageAutoencoder,
    "flow_autoencoder": FlowAutoencoder,
    "motion_field": MotionField,
    "trajectory_control": TrajectoryControl,
    "animation": Animation,
}
