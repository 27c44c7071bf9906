"""What each step minimises: one loss a function, and the table that says how its batches, validation and end are made.

Every loss has the signature `loss(models, batch, draws, task) -> (loss, logs)`. `models` are those of the step, by
name; `batch` comes from `task.train.draw`; all randomness comes from `draws`. Serves notebooks 01 (the autoencoders),
02 (the motion field), 03 (the animation) and 04 (the control).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor, nn

from mi2v_lite import control
from mi2v_lite.diffusion import clean_error, predicted_clean, prediction_target
from mi2v_lite.flow.fields import from_unit, length, to_unit
from mi2v_lite.models.autoencoder import encode
from mi2v_lite.training import masks, samples
from mi2v_lite.training.batches import Batch, ClipBatches, InTurn, clip_source, field_source, photo_source
from mi2v_lite.training.curriculum import Config, Step
from mi2v_lite.training.decoded_error import DecodedError, seen_share, weighted_mean
from mi2v_lite.training.draws import Draws, generator_for
from mi2v_lite.training.latents import READERS, estimate_scale
from mi2v_lite.training.samples import Pair
from mi2v_lite.training.schema import DECLARED, DenoisingOptions
from mi2v_lite.training.starts import start_pca, start_warped
from mi2v_lite.training.step_models import make_scheduler

Logs = dict[str, Tensor]
Predict = Callable[[Tensor, Tensor], Tensor]  # noisy latents and timesteps to the network's prediction
SAMPLES = 16  # frames or fields on which it is measured what the channels of the latents are worth
ENCODE_BATCH = 64  # frames or fields that are encoded at once


@dataclass(frozen=True)
class Task:
    """A step with all that its objective needs beside the models and the batch.

    Attributes:
        step: the step, with its typed `options`.
        train: the source of its batches, see `batches`.
        heldout: what it validates with, if anything: a batch for an autoencoder, clips for a denoiser.
        scheduler: the noise schedule.
        pipeline: the config's section `pipeline`, by which validation samples.
        decoded: measures the errors of latents after decoding, if the step's `decoded_error` asks for it.
    """

    step: Step
    train: Any
    heldout: Batch | ClipBatches | None
    scheduler: DDIMScheduler
    pipeline: dict[str, Any]
    decoded: DecodedError | None = None


def make_task(
    config: Config, step: Step, runs: Path, models: nn.ModuleDict, device: torch.device | str = "cpu"
) -> Task:
    """Opens the data of a step and gives its fresh model the start that the step's options ask for.

    Args:
        config: the curriculum.
        step: the step to train.
        runs: the folder of the data and of the results.
        models: the models of the step, by name; those that start anew are changed in place.
        device: where clips of the world are drawn.
    """
    objective = OBJECTIVES[step.objective]
    train, heldout = objective.source(config, step, runs, models, device)
    decoded = _decoded_error(step, models, train)
    task = Task(step, train, heldout, make_scheduler(config.noise), config.pipeline, decoded)
    objective.start(models, task)
    return task


# The two autoencoders (section 3.2; notebook 01).


def image_autoencoder(models: nn.ModuleDict, batch: Batch, draws: Draws, task: Task) -> tuple[Tensor, Logs]:
    """Reconstructs photos `(B, 3, H, W)` in [-1, 1]: absolute and squared error, sharp edges, latents near N(0, 1)."""
    images, options = batch["images"], task.step.options
    output, kl, logs = _reconstructed(models, images, draws, task.step)
    error = output - images
    squared = error.square().mean()
    loss = error.abs().mean() + squared + options.edge_weight * _edges(error) + options.kl_weight * kl
    return loss, {"psnr": 10 * torch.log10(4 / squared.detach()), **logs}


def flow_autoencoder(models: nn.ModuleDict, batch: Batch, draws: Draws, task: Task) -> tuple[Tensor, Logs]:
    """Reconstructs motion fields `(B, 2, H, W)`; errors count in pixels, which gives gradients of a usual size."""
    unit, options = _autoencoded(batch), task.step.options
    output, kl, logs = _reconstructed(models, unit, draws, task.step)
    height, width = unit.shape[-2:]
    error = (output - unit) * unit.new_tensor([2.0 * width, 2.0 * height]).view(2, 1, 1)
    loss = error.abs().mean() + options.edge_weight * _edges(error) + options.kl_weight * kl
    return loss, {"epe": error.detach().square().sum(1).sqrt().mean(), **logs}


def _autoencoded(batch: Batch) -> Tensor:
    """What an autoencoder reconstructs: images in [-1, 1], or motion fields in its units, [0, 1]."""
    return batch["images"] if "images" in batch else to_unit(batch["flow"]).clamp(0, 1)


def _reconstructed(models: nn.ModuleDict, x: Tensor, draws: Draws, step: Step) -> tuple[Tensor, Tensor, Logs]:
    """The reconstruction `(B, C, H, W)` from sampled latents, and the divergence of these from N(0, 1)."""
    vae = models[step.model]
    if step.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    posterior = vae.encode(x).latent_dist
    mean, logvar = posterior.mean.float(), posterior.logvar.float()  # (B, latents, h, w)
    noise = draws.randn(*mean.shape[1:]).to(mean.device)
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum((1, 2, 3)).mean()
    output = vae.decode(mean + (0.5 * logvar).exp() * noise).sample.float()
    if output.shape != x.shape:
        sides, made = tuple(x.shape[2:]), tuple(output.shape[2:])
        raise ValueError(
            f"Step {step.name}: pictures of {sides} pixels come back as {made}; their size must be a multiple of the "
            "autoencoder's factor."
        )
    return output, kl, {"kl": kl.detach(), "latent_std": mean.detach().std()}


def _edges(error: Tensor) -> Tensor:
    """The mean absolute difference between the errors of neighbouring pixels: small errors there keep edges sharp."""
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def _start_autoencoder(models: nn.ModuleDict, task: Task) -> None:
    """With `start: pca`, sets a fresh autoencoder to the principal components of training patches."""
    step = task.step
    if step.options.start == "pca" and step.model not in step.start_from:
        batches = (task.train.batch([generator_for(step.seed, i, 3)] * 16) for i in range(32))
        start_pca(models[step.model], (_autoencoded(batch).cpu() for batch in batches))


def _finish_autoencoder(models: nn.ModuleDict, task: Task) -> None:
    """Registers the scale that gives the latents unit variance, unless later steps have learned with the old one."""
    step, vae = task.step, models[task.step.model]
    if step.options.keep_scale or not any(parameter.requires_grad for parameter in vae.encoder.parameters()):
        return
    device = next(vae.parameters()).device
    batches = (task.train.batch([generator_for(step.seed, i, 2)] * 8) for i in range(32))
    scale = estimate_scale(vae, (_autoencoded(batch).to(device) for batch in batches))
    vae.register_to_config(scaling_factor=scale)


def _heldout_psnr(models: nn.ModuleDict, task: Task) -> dict[str, float]:
    """Peak signal-to-noise ratio on fixed held-out crops in dB, mean of the pictures."""
    vae, values = models[task.step.model], []
    for images in task.heldout["images"].split(8):
        images = images.to(next(vae.parameters()).device)
        output = vae.decode(vae.encode(images).latent_dist.mode()).sample.float().clamp(-1, 1)
        values.append(10 * torch.log10(4 / F.mse_loss(output, images, reduction="none").mean((1, 2, 3))))
    return {"heldout_psnr": float(torch.cat(values).mean())}


def _heldout_epe(models: nn.ModuleDict, task: Task) -> dict[str, float]:
    """Mean endpoint error on fixed held-out fields, in pixels and as a share of their mean motion."""
    vae, error, motion = models[task.step.model], 0.0, 0.0
    for flow in task.heldout["flow"].split(8):
        flow = flow.to(next(vae.parameters()).device)
        output = vae.decode(vae.encode(to_unit(flow).clamp(0, 1)).latent_dist.mode()).sample.float()
        error += float((from_unit(output) - flow).square().sum(1).sqrt().mean((1, 2)).sum())
        motion += float(flow.square().sum(1).sqrt().mean((1, 2)).sum())
    return {"heldout_epe": error / len(task.heldout["flow"]), "heldout_epe_share": error / motion}


# The denoisers.


def text_to_video(models: nn.ModuleDict, batch: Batch, draws: Draws, task: Task) -> tuple[Tensor, Logs]:
    """Frames from text alone: what Stable Diffusion and AnimateDiff have learned, where the paper's stages start.

    With the option `single` a text-to-image model of single frames, otherwise its extension in time. The first frame is
    made like all others, so the model has no `first_frame_timestep`.
    """
    step = task.step
    frames = latents(models, batch, "image")  # (B, C, F, h, w)
    if step.options.single:
        frames = _picked(frames, draws.randint(frames.shape[2]), 2)
    text = _text(models, batch)

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        return models[step.model](noisy, timesteps, text)

    error, timesteps = _denoising_error(predict, frames, draws, task)
    return _reduced(error, timesteps, task), {}


def motion_field(models: nn.ModuleDict, batch: Batch, draws: Draws, task: Task) -> tuple[Tensor, Logs]:
    """Stage 1: denoises the latents of f_{0->i} beside the latent of the photo, given text and stride (section 3.2).

    With the option `single` it trains on one random future frame (step 1 of the curriculum), otherwise on all N. With
    `object_weight` errors count more where something moves by itself: moving things are small, and beside a moving
    camera a small network that starts from nothing does not learn to move them at all.

    Equation: training-loss
    """
    step, pixels = task.step, batch["flow"] if task.step.options.object_weight else None
    image = latents(models, batch, "image")[:, :, :1]  # (B, C, 1, h, w)
    flow, stride = latents(models, batch, "flow"), batch["stride"]  # (B, C', N, h, w), (B, N)
    if step.options.single:
        chosen = draws.randint(flow.shape[2])
        flow, stride = _picked(flow, chosen, 2), _picked(stride, chosen, 1)
        pixels = None if pixels is None else _picked(pixels, chosen, 1)
    image = image.expand(-1, -1, flow.shape[2], -1, -1)
    text = _text(models, batch)

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        return models[step.model](torch.cat([image, noisy], dim=1), timesteps, text, stride=stride)

    error, timesteps = _denoising_error(predict, flow, draws, task)
    weight = None if pixels is None else object_weights(pixels, step.options.object_weight, flow.shape[-2:])
    return _reduced(error, timesteps, task, weight), {"plain": error.detach().mean()}


def trajectory_control(models: nn.ModuleDict, batch: Batch, draws: Draws, task: Task) -> tuple[Tensor, Logs]:
    """The ControlNet on the frozen Stage 1: the same task, given a part of the flow (section 3.4).

    The option `shares` says how often each kind of control of `masks.KINDS` is drawn. `told_share` (0 in the paper) is
    the part of each sample's loss that is the error where the control tells the true flow: a few drags cover few
    positions, and a short training would hardly feel them. The option `single` trains on one random future frame, as
    step 1 of the curriculum does: that gives many more different drags for the same work.
    """
    step, true = task.step, batch["flow"]  # (B, N, 2, H, W)
    image = latents(models, batch, "image")[:, :, :1]  # (B, C, 1, h, w)
    flow, stride = latents(models, batch, "flow"), batch["stride"]  # (B, C', N, h, w), (B, N)
    sparse, mask = masks.draw(true.cpu(), draws.generators, step.options.shares, batch.get("labels"))
    if step.options.single:
        chosen = draws.randint(flow.shape[2])
        flow, stride = _picked(flow, chosen, 2), _picked(stride, chosen, 1)
        sparse, mask, true = (_picked(field, chosen, 1) for field in (sparse, mask, true))
    image = image.expand(-1, -1, flow.shape[2], -1, -1)
    with torch.no_grad():
        sparse, mask = sparse.to(flow.device), mask.to(flow.device)
        condition = control.condition(sparse, mask, models["flow_vae"], tuple(flow.shape[-2:])).float()
        text = _text(models, batch)

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        sample = torch.cat([image, noisy], dim=1)
        down, mid = models[step.model](sample, timesteps, text, condition, stride=stride)
        return models["stage1_unet"](sample, timesteps, text, stride=stride, down_residuals=down, mid_residual=mid)

    error, timesteps = _denoising_error(predict, flow, draws, task)
    told = masks.told(true, sparse, mask, tuple(flow.shape[-2:])).transpose(1, 2)  # (B, 1, N, h, w)
    inside = weighted_mean(error, told)  # (B,)
    # Where a control tells the truth nowhere, this part of the sample's loss is constant and has no gradient.
    there = inside if task.decoded is None else task.decoded(_clean(error, timesteps, task), told)
    share = step.options.told_share
    loss = (1 - share) * _reduced(error, timesteps, task) + share * there.mean()
    return loss, {"mask_share": mask.mean(), "inside": inside.detach().mean()}


def animation(models: nn.ModuleDict, batch: Batch, draws: Draws, task: Task) -> tuple[Tensor, Logs]:
    """Stage 2: frame 0 stays clean, frames 1 to N are denoised with frame 0's features warped to them (section 3.3).

    `hole_weight` is what an error counts where frame 0 shows nothing, and within `hole_margin` places around it. Below
    1 it spares the network what it cannot know; above 1 it teaches most where nothing else can help: everywhere else
    the photo's own pixels are carried along the motion. The option `single` trains on frame 0 and one random later
    frame, which shows many more different motions for the same work.
    """
    step, flow = task.step, batch["flow"]  # (B, N, 2, H, W)
    frames = latents(models, batch, "image")  # (B, C, N + 1, h, w)
    if step.options.single:
        chosen = draws.randint(flow.shape[1])
        flow = _picked(flow, chosen, 1)
        frames = torch.cat([frames[:, :, :1], _picked(frames[:, :, 1:], chosen, 2)], dim=2)
    text = _text(models, batch)

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        sample = torch.cat([frames[:, :, :1], noisy[:, :, 1:]], dim=2)
        return models[step.model](sample, timesteps, text, flow=flow)

    error, timesteps = _denoising_error(predict, frames, draws, task)
    error, options, weight = error[:, :, 1:], step.options, None
    if options.hole_weight != 1:
        weight = hole_weights(flow, options.hole_weight, options.hole_margin, error.shape[-2:])
    return _reduced(error, timesteps, task, weight), {"plain": error.detach().mean()}


def _denoising_error(predict: Predict, clean: Tensor, draws: Draws, task: Task) -> tuple[Tensor, Tensor]:
    """Squared errors `(B, C, N, h, w)` of what the network predicts from noised latents, and the timesteps `(B,)`."""
    noisy, timesteps, target = noised(clean, draws, predict, task.scheduler, task.step.options)
    return (predict(noisy, timesteps).float() - target).square(), timesteps


def noised(
    clean: Tensor, draws: Draws, predict: Predict, scheduler: DDIMScheduler, options: DenoisingOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixes clean latents with noise.

    With the option `own_guess`, the noisy latents of that share of the samples are what DDIM's first step makes of the
    network's guess from noise alone; the truth is the target all the same. This is scheduled sampling (Deng et al.,
    "Markup-to-Image Diffusion Models with Scheduled Sampling", ICLR 2023). Without it a training shows the truth
    through the noise, which sampling never does, and errors of the first step stay or grow. Where there is less noise
    than signal only a part of the guess's error is kept, as after several steps.

    Equation: noising

    Args:
        clean: scaled latents, `(B, C, N, h, w)`.
        draws: the randomness.
        predict: the network, for `own_guess`.
        scheduler: the noise schedule.
        options: `noise_from`, `noise_emphasis` and `own_guess` are read.

    Returns:
        The noisy latents, their timesteps `(B,)`, and what the network should predict from them.
    """
    noise = draws.randn(*clean.shape[1:]).to(clean.device)
    last = scheduler.config.num_train_timesteps
    u = options.noise_from + (1 - options.noise_from) * draws.strata() ** (1 / options.noise_emphasis)
    timesteps = (u * last).long().clamp(max=last - 1).to(clean.device)
    if options.own_guess > 0:
        chosen = draws.rand() < options.own_guess
        with torch.no_grad():
            end = torch.full_like(timesteps, last - 1)
            start = scheduler.add_noise(clean, noise, end)
            guess = predicted_clean(scheduler, predict(start, end).float(), start, end)
            # The noise that would lead from the truth to where the step from the guess leads.
            signal = scheduler.alphas_cumprod.to(clean)
            ratio = (1 / signal - 1).rsqrt()  # of signal to noise; with zero terminal SNR the last is 0
            kept = (ratio[timesteps].clamp(max=1) - ratio[-1]) * chosen.to(clean.device)
            noise = noise + kept.view(-1, *[1] * (clean.ndim - 1)) * (guess - clean)
    noisy = scheduler.add_noise(clean, noise, timesteps)
    return noisy, timesteps, prediction_target(scheduler, clean, noise, timesteps)


def _reduced(error: Tensor, timesteps: Tensor, task: Task, weight: Tensor | None = None) -> Tensor:
    """The loss of squared errors: their mean, where places count by `weight` `(B, 1, N, h, w)` if it is given.

    With the option `decoded_error` it is the mean over samples of what `DecodedError` measures instead.
    """
    if task.decoded is not None:
        return task.decoded(_clean(error, timesteps, task), weight).mean()
    return error.mean() if weight is None else (error * weight).mean() / weight.mean()


def _clean(error: Tensor, timesteps: Tensor, task: Task) -> Tensor:
    """Squared errors of the clean latents, from those of the predictions at `timesteps`; both `(B, C, N, h, w)`."""
    return error * clean_error(task.scheduler, timesteps).view(-1, *[1] * (error.ndim - 1))


def latents(models: nn.ModuleDict, batch: Batch, kind: str) -> Tensor:
    """The batch's latents of that kind with the scale of their autoencoder.

    Args:
        models: the models of the step, by name.
        batch: holds `image_latents` and `flow_latents`, which were encoded before; or `frames` and `flow`, which are
            encoded now, without gradients.
        kind: "image" or "flow".

    Returns:
        `(B, C, F or N, h, w)`.
    """
    vae = models[f"{kind}_vae"]
    if f"{kind}_latents" in batch:
        return batch[f"{kind}_latents"] * vae.config.scaling_factor
    pictures = batch["frames"] if kind == "image" else to_unit(batch["flow"]).clamp(0, 1)
    with torch.no_grad():
        return encode(vae, pictures, batch=ENCODE_BATCH).float().transpose(1, 2)


def _text(models: nn.ModuleDict, batch: Batch) -> Tensor:
    """The embedded captions, `(B, L, D)`; gradients flow if the text encoder trains."""
    return models["text_encoder"](input_ids=batch["tokens"]).last_hidden_state


def _picked(x: Tensor, chosen: Tensor, dim: int) -> Tensor:
    """The chosen entry of `dim` for each sample; the dimension stays, with length 1."""
    return torch.stack([item.narrow(dim - 1, int(i), 1) for item, i in zip(x, chosen, strict=True)])


def object_weights(flow: Tensor, amount: float, size: tuple[int, int]) -> Tensor:
    """How much errors count where something moves otherwise than most of the picture does.

    Args:
        flow: `(B, N, 2, H, W)` in pixels.
        amount: what is added at the place that moves most differently.
        size: `(h, w)` of the result.

    Returns:
        `(B, 1, N, h, w)`: 1 where a place moves as the median place does, up to 1 + `amount` elsewhere.
    """
    usual = flow.flatten(3).median(dim=3).values[..., None, None]
    apart = length(flow - usual)
    share = apart / apart.amax(dim=(3, 4), keepdim=True).clamp(min=2.0)
    share = F.adaptive_avg_pool2d(share.flatten(0, 1), size).unflatten(0, flow.shape[:2])
    return 1 + amount * share.transpose(1, 2)


def hole_weights(flow: Tensor, amount: float, margin: int, size: tuple[int, int]) -> Tensor:
    """How much errors count where frame 0 shows nothing.

    Args:
        flow: `(B, N, 2, H, W)` in pixels.
        amount: what an error counts there; elsewhere it counts 1.
        margin: how far around such a place it still counts as much, in places of the result.
        size: `(h, w)` of the result.

    Returns:
        `(B, 1, N, h, w)`.
    """
    holes = 1 - seen_share(flow, size)
    if margin:
        holes = F.max_pool2d(holes.squeeze(1), 2 * margin + 1, stride=1, padding=margin)[:, None]
    return 1 + (amount - 1) * holes


def _decoded_error(step: Step, models: nn.ModuleDict, train: Any) -> DecodedError | None:
    """Measures what the channels of the latents are worth on some training clips, if the step asks for it."""
    measure = getattr(step.options, "decoded_error", None)
    if measure is None:
        return None
    kind = "flow" if "flow_vae" in DECLARED[step.objective].needs else "image"
    first = train.sources[0] if isinstance(train, InTurn) else train
    if isinstance(first, ClipBatches):
        indices = range(min(SAMPLES, len(first)))
        pictures = torch.stack([READERS[kind](first.clips, i)[-1] for i in indices])
    else:
        batch = first.draw(Draws.of(step.seed, 4, count=SAMPLES))
        pictures = (batch["frames"] if kind == "image" else to_unit(batch["flow"]).clamp(0, 1))[:, -1]
    return DecodedError(models[f"{kind}_vae"], pictures, measure)


def _start_animation(models: nn.ModuleDict, task: Task) -> None:
    """With `start: warped`, lets fresh motion modules begin by copying the warped features."""
    step = task.step
    if step.options.start == "warped" and (step.fresh or step.model not in step.start_from):
        start_warped(models[step.model])


def _heldout_loss(models: nn.ModuleDict, task: Task) -> dict[str, float]:
    """The loss on up to 32 held-out clips, with the same noise and timesteps every time."""
    device, losses = next(models.parameters()).device, []
    count = min(32, len(task.heldout))
    for start in range(0, count, 8):
        batch = task.heldout.batch(range(start, min(start + 8, count)))
        batch = {name: value.to(device) for name, value in batch.items()}
        draws = Draws.of(0, start, count=len(batch["tokens"]))
        losses.append(float(OBJECTIVES[task.step.objective].loss(models, batch, draws, task)[0]))
    return {"heldout_loss": sum(losses) / len(losses)}


def _motion_source(config: Config, step: Step, runs: Path, models: nn.ModuleDict, device: Any) -> tuple:
    """Clips with both kinds of latents, and with the flow in pixels where `object_weight` reads it."""
    return clip_source(config, step, runs, models, device, ("image", "flow"), flow=step.options.object_weight > 0)


def _nothing(models: nn.ModuleDict, task: Task) -> None:
    """What most objectives do before and after the training."""


@dataclass(frozen=True)
class Objective:
    """How a step with this objective trains. What it trains and needs, and its settings, stand in `schema.DECLARED`.

    Attributes:
        source: `source(config, step, runs, models, device)` gives the sources of training and of held-out data.
        loss: `loss(models, batch, draws, task)` gives what is minimised and figures for the log.
        figures: `figures(models, task)` gives figures on the held-out data.
        pictures: `pictures(models, task)` gives held-out pictures or clips, each the truth and the model's result.
        start: `start(models, task)` sets a fresh model before the training.
        finish: `finish(models, task)` completes the trained model before it is saved.
    """

    source: Callable[[Config, Step, Path, nn.ModuleDict, Any], tuple]
    loss: Callable[[nn.ModuleDict, Batch, Draws, Task], tuple[Tensor, Logs]]
    figures: Callable[[nn.ModuleDict, Task], dict[str, float]]
    pictures: Callable[[nn.ModuleDict, Task], list[Pair]]
    start: Callable[[nn.ModuleDict, Task], None] = _nothing
    finish: Callable[[nn.ModuleDict, Task], None] = _nothing


OBJECTIVES: dict[str, Objective] = {
    "image_autoencoder": Objective(
        photo_source, image_autoencoder, _heldout_psnr, samples.photos, _start_autoencoder, _finish_autoencoder
    ),
    "flow_autoencoder": Objective(
        field_source, flow_autoencoder, _heldout_epe, samples.fields, _start_autoencoder, _finish_autoencoder
    ),
    "text_to_video": Objective(
        partial(clip_source, kinds=("image",), flow=False), text_to_video, _heldout_loss, samples.from_text
    ),
    "motion_field": Objective(_motion_source, motion_field, _heldout_loss, samples.motion),
    "trajectory_control": Objective(
        partial(clip_source, kinds=("image", "flow"), flow=True), trajectory_control, _heldout_loss, samples.motion
    ),
    "animation": Objective(
        partial(clip_source, kinds=("image",), flow=True), animation, _heldout_loss, samples.animation, _start_animation
    ),
}


@torch.no_grad()
def validate(models: nn.ModuleDict, task: Task) -> tuple[dict[str, float], list[Pair]]:
    """Figures on the held-out data, and as many pairs of truth and result as `validation_clips` says.

    Args:
        models: the models of the step; within this call they are in evaluation mode.
        task: the step and its data.

    Returns:
        the figures by name, and the pairs. Both are empty where there is no held-out data.
    """
    if task.heldout is None:
        return {}, []
    modes = {name: model.training for name, model in models.items()}
    models.eval()
    try:
        objective = OBJECTIVES[task.step.objective]
        return objective.figures(models, task), objective.pictures(models, task) if task.step.validation_clips else []
    finally:
        for name, training in modes.items():
            models[name].train(training)
