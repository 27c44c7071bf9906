"""The calls of which sampling and training consist, on the meta device to count them or on a real one to time them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mi2v_lite.flow.splat_cache import SplatCache
from mi2v_lite.importing.parts import shell
from mi2v_lite.models.autoencoder import decode, encode, factor
from mi2v_lite.pipelines.inputs import DECODE_BATCH
from mi2v_lite.training.curriculum import Config, Step
from mi2v_lite.training.export import PARTS
from mi2v_lite.training.trainer import make_optimizer, trainable_parameters
from tools.benchmark.meter import ShapesOnly


@dataclass
class Call:
    """A call of which sampling or training consists.

    Attributes:
        name: what the table calls it.
        models: the models that it needs, by name.
        run: makes the call once.
        count: how often it is made in all.
        moments: the optimiser's bytes for each parameter that trains.
    """

    name: str
    models: nn.ModuleDict
    run: Callable[[], Tensor]
    count: int = 1
    moments: int = 8


@dataclass(frozen=True)
class Clip:
    """The size of a clip and where its tensors are made.

    Attributes:
        height: pixels.
        width: pixels.
        frames: their number, with the reference.
        device: where tensors are made.
        dtype: their precision.
    """

    height: int
    width: int
    frames: int
    device: str
    dtype: torch.dtype


def build(config: Config, name: str, clip: Clip) -> nn.Module:
    """Builds a model with random weights, or without any on the meta device."""
    model = nn.Module.to(shell(config, name), clip.dtype)  # diffusers' own `to` would warn
    if clip.device == "meta":
        # The autoencoders' first and last convolutions switch autocast off, which does not know the meta device.
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.__class__ = nn.Conv2d
    else:
        model = model.to_empty(device=clip.device)
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.is_floating_point():
                    tensor.normal_(std=0.02)
    return model


def sampling_calls(config: Config, clip: Clip) -> list[Callable[[], Call]]:
    """Returns functions that make the calls of one clip: both UNets, with guidance in a batch of two, and the decoders.

    They are made one at a time, so that the models need not all be in memory at once.
    """

    def stage1() -> Call:
        models = _models(config, clip, "stage1_unet", "controlnet")
        run = _denoise(config, models, "controlnet", clip, batch=2, frames=clip.frames - 1)
        return Call("Stage 1, a step", models.eval(), run, config.pipeline.get("motion_steps", 25))

    def stage2() -> Call:
        models = _models(config, clip, "stage2_unet")
        run = _denoise(config, models, "stage2_unet", clip, batch=2, frames=clip.frames)
        return Call("Stage 2, a step", models.eval(), run, config.pipeline.get("animation_steps", 25))

    def decoder(name: str, frames: int, what: str) -> Callable[[], Call]:
        def make() -> Call:
            models = _models(config, clip, name)
            vae, side = models[name], factor(models[name])
            latents = _zeros(clip, frames, vae.config.latent_channels, clip.height // side, clip.width // side)
            return Call(what, models.eval(), lambda: decode(vae, latents, batch=DECODE_BATCH))

        return make

    return [
        stage1,
        stage2,
        decoder("flow_vae", clip.frames - 1, "decode the motion"),
        decoder("image_vae", clip.frames, "decode the frames"),
    ]


def training_call(config: Config, step: Step, clip: Clip) -> Call:
    """Returns the call for one batch of a step of the curriculum, with gradient checkpointing if the step has it.

    On the meta device it is forward and backward, on a real one a whole update with AdamW and the average. The
    diffusion steps are counted without the autoencoders, whose latents are computed once and kept, and without the text
    encoder, which is small beside the UNet.
    """
    trunk = ("stage1_unet",) if step.objective == "trajectory_control" else ()
    models = _models(_as_in(config, step, trunk), clip, *trunk, step.model).train()
    names = [name for name, _ in models.named_parameters()]
    patterns = tuple(pattern for pattern in step.trainable if fnmatch.filter(names, pattern))
    parameters = list(trainable_parameters(models, patterns).values())
    if step.gradient_checkpointing:
        models[step.model].enable_gradient_checkpointing()
    forward = _forward(config, models, step, clip)
    if clip.device == "meta":
        return Call(step.name, models, lambda: _backward(forward), moments=2 if step.optimizer == "8bit" else 8)
    optimizer = make_optimizer(step, parameters, clip.device)
    average = [parameter.detach().clone() for parameter in parameters]

    def run() -> Tensor:
        with torch.autocast(torch.device(clip.device).type, torch.bfloat16):
            loss = _backward(forward)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1e-4)
        return loss

    return Call(step.name, models, run)


def _forward(config: Config, models: nn.ModuleDict, step: Step, clip: Clip) -> Callable[[], Tensor]:
    if step.objective.endswith("autoencoder"):
        vae = models[step.model]
        pictures = _zeros(clip, step.batch_size, vae.config.in_channels, clip.height, clip.width)
        return lambda: decode(vae, encode(vae, pictures))
    whole = clip.frames if step.objective in ("animation", "text_to_video") else clip.frames - 1
    frames = 1 if getattr(step.options, "single", False) else whole
    return _denoise(config, models, step.model, clip, step.batch_size, frames)


def _backward(forward: Callable[[], Tensor]) -> Tensor:
    loss = forward().float().square().mean()
    loss.backward()
    return loss


def _as_in(config: Config, step: Step, trunk: tuple[str, ...]) -> Config:
    """The config with the models as this step has them: 2-D ones where it trains or starts from such."""
    models = config.models | {step.model: config.models[step.model] | step.model_overrides}
    for name in trunk:
        for origin, _ in step.earlier(name):
            models[name] = models[name] | config.step(origin).model_overrides
    return Config(models, config.noise, config.steps)


def parts(config: Config) -> dict[str, int]:
    """Counts the parameters of each part of the pipeline."""
    return {part: sum(p.numel() for p in shell(config, name).parameters()) for part, name in PARTS.items()}


def _models(config: Config, clip: Clip, *names: str) -> nn.ModuleDict:
    return nn.ModuleDict({name: build(config, name, clip) for name in names})


def _zeros(clip: Clip, *shape: int) -> Tensor:
    return torch.zeros(shape, device=clip.device, dtype=clip.dtype)


def _denoise(
    config: Config, models: nn.ModuleDict, name: str, clip: Clip, batch: int, frames: int
) -> Callable[[], Tensor]:
    """One call of the UNet `name`, or of the ControlNet and the UNet that it steers."""
    unet = models["stage1_unet" if name == "controlnet" else name]
    vae = shell(config, "image_vae")
    height, width = clip.height // factor(vae), clip.width // factor(vae)
    sample = _zeros(clip, batch, unet.config.in_channels, frames, height, width)
    tokens = config.models["text_encoder"].get("max_position_embeddings", 32)
    text = _zeros(clip, batch, tokens, unet.config.cross_attention_dim)
    time = torch.full((batch,), 500, device=clip.device)
    stride = torch.full((batch, frames), 8, device=clip.device)
    if unet.config.fusion != "none":
        if clip.device == "meta":
            motion = ShapesOnly(batch, frames)
        else:
            motion = SplatCache(4 * torch.randn(batch, frames - 1, 2, clip.height, clip.width, device=clip.device))
        return lambda: unet(sample, time, text, flow=motion)
    strides = {"stride": stride} if unet.config.use_stride_embedding else {}
    if name != "controlnet":
        return lambda: unet(sample, time, text, **strides)
    net = models["controlnet"]
    condition = _zeros(clip, batch, net.config.condition_channels, frames, height, width)

    def steered() -> Tensor:
        down, mid = net(sample, time, text, condition, **strides)
        return unet(sample, time, text, down_residuals=down, mid_residual=mid, **strides)

    return steered
