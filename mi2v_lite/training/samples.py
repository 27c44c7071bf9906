"""Held-out clips drawn during a training: on the left what is true, on the right what the model makes (notebook 06).

The step's setting `validation_clips` asks for them; they are animated PNGs in `runs/STEP/validation/`. A denoiser
samples as the pipeline does, with the config's steps and guidance, by DDIM.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flow_vis
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mi2v_lite import control
from mi2v_lite.flow.fields import from_unit, to_unit
from mi2v_lite.io.files import atomic
from mi2v_lite.io.pixels import to_uint8
from mi2v_lite.models.autoencoder import decode
from mi2v_lite.training import masks
from mi2v_lite.training.batches import generator_for
from mi2v_lite.training.curriculum import Step

SEED = 0  # of the noise: pictures of different updates differ by the model alone
MILLISECONDS = 125
Pair = tuple[np.ndarray, np.ndarray]  # truth and result, uint8 (F, H, W, 3)


@torch.no_grad()
def held_out(objective: Any, models: nn.ModuleDict, step: Step) -> list[Pair]:
    """The pairs that the step asks for, fewer where fewer clips are held out. All processes may call it alike."""
    if not step.validation_clips or objective.heldout is None:
        return []
    return SAMPLERS[step.objective](objective, models, step)


def write_pairs(folder: Path, done: int, pairs: list[Pair]) -> None:
    """Writes each pair side by side as an animated PNG `<done>-<i>.png`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, pair in enumerate(pairs):
        frames = [Image.fromarray(np.concatenate(sides, axis=1)) for sides in zip(*pair, strict=True)]
        path = folder / f"{done:07d}-{i}.png"
        with atomic(path) as beside:
            frames[0].save(beside, "PNG", save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0)


def _photos(objective: Any, models: nn.ModuleDict, step: Step) -> list[Pair]:
    images = objective.heldout["images"][: step.validation_clips].to(_device(models))
    vae = models[step.model]
    made = vae.decode(vae.encode(images).latent_dist.mode()).sample
    return list(zip(to_uint8(images)[:, None], to_uint8(made)[:, None], strict=True))


def _fields(objective: Any, models: nn.ModuleDict, step: Step) -> list[Pair]:
    flow = objective.heldout["flow"][: step.validation_clips].to(_device(models))
    vae = models[step.model]
    made = from_unit(vae.decode(vae.encode(to_unit(flow).clamp(0, 1)).latent_dist.mode()).sample.float())
    return [_colours(*pair) for pair in zip(flow[:, None], made[:, None], strict=True)]


def _motion(objective: Any, models: nn.ModuleDict, step: Step) -> list[Pair]:
    """Stage 1's fields, of a step on single frames the last one; with part of the truth given to a ControlNet."""
    batch = _batch(objective, models, step)
    image = objective.scaled(models, batch, "image")[:, :, :1]
    first = batch["flow_latents"].shape[2] - 1 if step.options.single else 0
    stride, shape = batch["stride"][:, first:], batch["flow_latents"][:, :, first:].shape
    truth = [objective.heldout.store.flow[i][first:] for i in range(len(stride))]
    steers = _control(models, step, truth, shape) if step.objective == "trajectory_control" else None
    unet = models["stage1_unet" if steers is not None else step.model]

    def predict(latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        sample, residuals = torch.cat([image.expand(-1, -1, shape[2], -1, -1), latents], dim=1), {}
        if steers is not None:
            down, mid = models[step.model](sample, timestep, text, steers, stride=stride)
            residuals = {"down_residuals": down, "mid_residual": mid}
        return unet(sample, timestep, text, stride=stride, **residuals)

    latents = _denoise(objective, models, batch, shape, predict, "motion")
    made = from_unit(decode(models["flow_vae"], latents.transpose(1, 2)).float())  # (B, N, 2, H, W)
    return [_colours(torch.from_numpy(np.array(a)), b) for a, b in zip(truth, made, strict=True)]


def _control(models: nn.ModuleDict, step: Step, truth: list[np.ndarray], shape: torch.Size) -> Tensor:
    """The ControlNet's condition, of the kinds of control that the step trains with."""
    drawn = []
    for i, flow in enumerate(truth):
        field = torch.from_numpy(np.array(flow)).float()[None]  # (1, N, 2, H, W)
        drawn.append(masks.draw(field, generator_for(SEED, i), step.options.shares))
    sparse, mask = (torch.cat(parts).to(_device(models)) for parts in zip(*drawn, strict=True))
    return control.condition(sparse, mask, models["flow_vae"], tuple(shape[-2:])).float()


def _from_text(objective: Any, models: nn.ModuleDict, step: Step) -> list[Pair]:
    """Clips made from captions alone, of a step on single frames one frame each, beside the clips of the captions."""
    batch = _batch(objective, models, step)
    clean = objective.scaled(models, batch, "image")[:, :, : 1 if step.options.single else None]

    def predict(latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return models[step.model](latents, timestep, text)

    return _beside_truth(objective, models, _denoise(objective, models, batch, clean.shape, predict, "animation"))


def _frames(objective: Any, models: nn.ModuleDict, step: Step) -> list[Pair]:
    batch = _batch(objective, models, step)
    clean = objective.scaled(models, batch, "image")

    def predict(latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        sample = torch.cat([clean[:, :, :1], latents[:, :, 1:]], dim=2)
        return models[step.model](sample, timestep, text, flow=batch["flow"])

    latents = _denoise(objective, models, batch, clean.shape, predict, "animation")
    return _beside_truth(objective, models, torch.cat([clean[:, :, :1], latents[:, :, 1:]], dim=2))


def _beside_truth(objective: Any, models: nn.ModuleDict, latents: Tensor) -> list[Pair]:
    """Decoded latents `(B, C, F, h, w)` beside the first F frames of the first B held-out clips."""
    made = decode(models["image_vae"], latents.transpose(1, 2), batch=1)
    truth = [objective.heldout.store.frames[i][: latents.shape[2]] for i in range(len(latents))]
    return [(np.array(a), to_uint8(b)) for a, b in zip(truth, made, strict=True)]


def _denoise(
    objective: Any,
    models: nn.ModuleDict,
    batch: dict[str, Tensor],
    shape: torch.Size,
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    stage: str,
) -> Tensor:
    """DDIM from the same noise each time, with guidance by the text where the config has it: `(B, C, F, h, w)`."""
    scheduler, device = type(objective.scheduler).from_config(objective.scheduler.config), _device(models)
    scheduler.set_timesteps(int(objective.pipeline.get(f"{stage}_steps", 10)), device=device)
    scale = float(objective.pipeline.get(f"{stage}_guidance_scale", 1.0))
    text = objective.text(models, batch["tokens"])
    empty = objective.text(models, objective.heldout.tokens([""] * len(text)).to(device)) if scale != 1 else None
    latents = torch.stack([torch.randn(shape[1:], generator=generator_for(SEED, i)) for i in range(shape[0])])
    latents = latents.to(device) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        out = predict(latents, timestep, text).float()
        if empty is not None:
            without = predict(latents, timestep, empty).float()
            out = without + scale * (out - without)
        latents = scheduler.step(out, timestep, latents).prev_sample
    return latents


def _batch(objective: Any, models: nn.ModuleDict, step: Step) -> dict[str, Tensor]:
    batch = objective.heldout.clips(list(range(min(step.validation_clips, len(objective.heldout)))))
    return {name: value.to(_device(models)) for name, value in batch.items()}


def _device(models: nn.ModuleDict) -> torch.device:
    return next(models.parameters()).device


def _colours(truth: Tensor, made: Tensor) -> Pair:
    """Both `(N, 2, H, W)` in flow colours of one scale: full colour is the true field's longest displacement."""
    top = max(float(truth.float().norm(dim=1).max()), 1e-6)
    both = []
    for flow in (truth, made):
        unit = flow.float().cpu().numpy() / top
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1) * (1 + 1e-6)
        both.append(np.stack([flow_vis.flow_uv_to_colors(u, v) for u, v in unit]))
    return both[0], both[1]


SAMPLERS: dict[str, Callable[[Any, nn.ModuleDict, Step], list[Pair]]] = {
    "image_autoencoder": _photos,
    "flow_autoencoder": _fields,
    "text_to_video": _from_text,
    "motion_field": _motion,
    "trajectory_control": _motion,
    "animation": _frames,
}
