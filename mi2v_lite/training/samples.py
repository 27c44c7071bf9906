"""Held-out clips drawn during a training: the truth on the left, what the model makes on the right (notebook 06).

The setting `validation_clips` of a step asks for them; they are animated PNGs in `runs/STEP/validation/`. A denoiser is
sampled by the pipeline that it will be a part of, built around the models that are being trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from mi2v_lite import control
from mi2v_lite.diffusion import denoise, guide
from mi2v_lite.flow.fields import from_unit, to_unit
from mi2v_lite.io.images import write_animated_png
from mi2v_lite.io.pixels import to_uint8
from mi2v_lite.models.autoencoder import decode
from mi2v_lite.models.text import encode_text
from mi2v_lite.pipelines.animation import AnimationPipeline
from mi2v_lite.pipelines.motion_field import MotionFieldPipeline
from mi2v_lite.training import masks
from mi2v_lite.training.draws import Draws, generator_for
from mi2v_lite.training.latents import clip_flow
from mi2v_lite.viz.flow import flow_to_rgb, longest

if TYPE_CHECKING:
    from mi2v_lite.training.objectives import Task

SEED = 0  # of the noise, always the same, so that pictures of different updates differ by the model alone
Pair = tuple[np.ndarray, np.ndarray]  # truth and result, uint8 (F, H, W, 3)


def write_pairs(folder: Path, done: int, pairs: list[Pair]) -> None:
    """Writes each pair side by side as the animated PNG `<done>-<i>.png`, whole or not at all."""
    for i, pair in enumerate(pairs):
        folder.mkdir(parents=True, exist_ok=True)
        write_animated_png(folder / f"{done:07d}-{i}.png", np.concatenate(pair, axis=2))


def photos(models: nn.ModuleDict, task: Task) -> list[Pair]:
    """Photos and their reconstructions, one frame each."""
    vae = models[task.step.model]
    images = task.heldout["images"][: task.step.validation_clips].to(vae.device)  # (B, 3, H, W)
    made = vae.decode(vae.encode(images).latent_dist.mode()).sample
    return list(zip(to_uint8(images)[:, None], to_uint8(made)[:, None], strict=True))


def fields(models: nn.ModuleDict, task: Task) -> list[Pair]:
    """Single motion fields and their reconstructions in flow colours, one frame each."""
    vae = models[task.step.model]
    flow = task.heldout["flow"][: task.step.validation_clips].to(vae.device)  # (B, 2, H, W)
    made = from_unit(vae.decode(vae.encode(to_unit(flow).clamp(0, 1)).latent_dist.mode()).sample.float())
    return [_colours(*pair) for pair in zip(flow[:, None], made[:, None], strict=True)]


def motion(models: nn.ModuleDict, task: Task) -> list[Pair]:
    """Stage 1's fields in flow colours: all of them, or the last one if the step trains on single frames."""
    step, clips, indices = task.step, task.heldout.clips, _indices(task)
    frames = slice(-1, None) if step.options.single else slice(None)
    truth = torch.stack([clip_flow(clips, i)[frames] for i in indices])  # (B, N, 2, H, W)
    steered = step.objective == "trajectory_control"
    condition = None
    if steered:
        vae, size = models["flow_vae"], tuple(task.heldout.flow_latents[0].shape[-2:])
        labels = task.heldout.batch(indices).get("labels")
        controls = masks.draw(truth, _generators(task), step.options.shares, labels)
        sparse, mask = (part.to(vae.device) for part in controls)
        condition = control.condition(sparse, mask, vae, size)
    pipe = MotionFieldPipeline(
        vae=models["image_vae"],
        flow_vae=models["flow_vae"],
        text_encoder=models["text_encoder"],
        tokenizer=task.heldout.tokenizer,
        unet=models["stage1_unet" if steered else step.model],
        controlnet=models[step.model] if steered else None,
        scheduler=_own_scheduler(task),
    )
    pipe.set_progress_bar_config(disable=True)
    made = pipe(
        [np.array(clips.frames[i][0]) for i in indices],
        [clips.captions[i] for i in indices],
        num_frames=truth.shape[1] + 1,
        stride=task.heldout.batch(indices)["stride"][:, frames],
        condition=condition,
        control_guidance_scale=task.pipeline.get("control_guidance_scale"),
        generator=_generators(task),
        **_sampling(task, "motion"),
    ).flow
    return [_colours(*pair) for pair in zip(truth, made, strict=True)]


def animation(models: nn.ModuleDict, task: Task) -> list[Pair]:
    """Stage 2's frames from the first frame and the true motion."""
    clips, indices = task.heldout.clips, _indices(task)
    pipe = AnimationPipeline(
        vae=models["image_vae"],
        text_encoder=models["text_encoder"],
        tokenizer=task.heldout.tokenizer,
        unet=models[task.step.model],
        scheduler=_own_scheduler(task),
    )
    pipe.set_progress_bar_config(disable=True)
    made = pipe(
        [np.array(clips.frames[i][0]) for i in indices],
        torch.stack([clip_flow(clips, i) for i in indices]),
        [clips.captions[i] for i in indices],
        generator=_generators(task),
        output_type="np",
        **_sampling(task, "animation"),
    ).frames
    return [(np.array(clips.frames[i]), clip) for i, clip in zip(indices, made, strict=True)]


def from_text(models: nn.ModuleDict, task: Task) -> list[Pair]:
    """Clips made from captions alone, beside the clips of the captions; of a step on single frames one frame each."""
    clips, indices = task.heldout.clips, _indices(task)
    unet, vae, scheduler = models[task.step.model], models["image_vae"], _own_scheduler(task)
    scale = task.pipeline.get("animation_guidance_scale", 7.0)
    negative = [""] * len(indices) if scale > 1 else []
    captions = [*negative, *(clips.captions[i] for i in indices)]
    text = encode_text(task.heldout.tokenizer, models["text_encoder"], captions)
    count, channels, *size = task.heldout.image_latents[0].shape
    count = 1 if task.step.options.single else count
    noise = Draws.of(SEED, count=len(indices)).randn(channels, count, *size).to(vae.device)  # (B, C, F, h, w)

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        sample = torch.cat([latents] * 2) if scale > 1 else latents
        return guide(unet(sample, timestep.expand(len(sample)), text).float(), scale)

    latents = denoise(predict, noise, scheduler, task.pipeline.get("animation_steps", 25))
    made = decode(vae, latents.transpose(1, 2), batch=1)  # (B, F, 3, H, W)
    return [(np.array(clips.frames[i][:count]), to_uint8(clip)) for i, clip in zip(indices, made, strict=True)]


def _indices(task: Task) -> range:
    return range(min(task.step.validation_clips, len(task.heldout)))


def _generators(task: Task) -> list[torch.Generator]:
    """A generator for each clip."""
    return [generator_for(SEED, i) for i in _indices(task)]


def _own_scheduler(task: Task) -> DDIMScheduler:
    """A scheduler whose timesteps sampling may set, since the training uses its own."""
    return DDIMScheduler.from_config(task.scheduler.config)


def _sampling(task: Task, stage: str) -> dict[str, Any]:
    """The config's steps and guidance; the pipeline's own where it has none."""
    settings = task.pipeline
    return {
        "num_inference_steps": settings.get(f"{stage}_steps"),
        "guidance_scale": settings.get(f"{stage}_guidance_scale"),
    }


def _colours(truth: Tensor, made: Tensor) -> Pair:
    """Both fields `(N, 2, H, W)` in flow colours on one scale, that of the true field."""
    scale = max(longest(truth), 1e-6)
    return flow_to_rgb(truth, scale), flow_to_rgb(made, scale)
