"""What each step minimises. All objectives have one signature: `loss(models, batch, draws, step)`.

`models` are the step's, by name; `batch` comes from `batch(step, draws)`; all noise comes from `draws` on the CPU, so
that it is the same on every device and in however many processes. `validate` gives figures on held-out data, `finish`
runs before the result is saved. `step.options` and `step.data` are of the classes in `options.py`. Serves
notebooks 01 (autoencoders), 02 (motion field), 03 (animation), 04 (control).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mi2v_lite import control
from mi2v_lite.training import masks
from mi2v_lite.training.autoencoding import FlowAutoencoder, ImageAutoencoder
from mi2v_lite.training.batches import Draws
from mi2v_lite.training.common import Batch, Logs, weighted_mean
from mi2v_lite.training.curriculum import Config, Step
from mi2v_lite.training.decoded_error import seen_share
from mi2v_lite.training.denoising import Denoising
from mi2v_lite.training.starts import start_warped


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


class TextToVideo(Denoising):
    """Frames from text alone: what Stable Diffusion and AnimateDiff had learned, from which the paper's stages start
    (sections 3.2 and 3.3).

    With the option `single` a text-to-image model of single frames, otherwise its temporal extension. The first frame
    is made like all others, so the model has no `first_frame_timestep`.
    """

    uses_flow_latents = False

    def loss(self, models: nn.ModuleDict, batch: Batch, draws: Draws, step: Step) -> tuple[Tensor, Logs]:
        """`batch` as in `ClipBatches.clips`."""
        frames = self.scaled(models, batch, "image")
        if step.options.single:
            frames = _pick(frames, _one_frame(frames.shape[2], draws), 2)
        text = self.text(models, batch["tokens"])

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return models[step.model](noisy, timesteps, text)

        noisy, timesteps, target = self.noised(frames, draws, predict)
        return self.reduced((predict(noisy, timesteps).float() - target).square(), timesteps), {}


class MotionField(Denoising):
    """Stage 1: denoise the latents of f_{0->i} beside the image latent, given text and stride (paper, section 3.2).

    The option `single` trains on one random future frame (curriculum step 1), otherwise on all N. With `object_weight`
    above 0 the error counts up to that many times more where something moves otherwise than most of the picture: moving
    things are small, and beside a moving camera a small network from nothing does not learn at all to move them.
    """

    def __init__(self, config: Config, step: Step, runs: Path, models: nn.ModuleDict) -> None:
        self.object_weight = step.options.object_weight
        self.uses_flow = self.object_weight > 0
        super().__init__(config, step, runs, models)

    def loss(self, models: nn.ModuleDict, batch: Batch, draws: Draws, step: Step) -> tuple[Tensor, Logs]:
        """`batch` as in `ClipBatches.clips`."""
        image = self.scaled(models, batch, "image")[:, :, :1]
        flow, stride, pixels = self.scaled(models, batch, "flow"), batch["stride"], batch.get("flow")
        if step.options.single:
            chosen = _one_frame(flow.shape[2], draws)
            flow, stride = _pick(flow, chosen, 2), _pick(stride, chosen, 1)
            pixels = None if pixels is None else _pick(pixels, chosen, 1)
        image = image.expand(-1, -1, flow.shape[2], -1, -1)
        text = self.text(models, batch["tokens"])

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return models[step.model](torch.cat([image, noisy], dim=1), timesteps, text, stride=stride)

        noisy, timesteps, target = self.noised(flow, draws, predict)
        prediction = predict(noisy, timesteps)
        error = (prediction.float() - target).square()
        weight = None if pixels is None else _on_objects(pixels, self.object_weight, flow.shape[-2:])
        return self.reduced(error, timesteps, weight), {"plain": error.detach().mean()}


class TrajectoryControl(Denoising):
    """The ControlNet on the frozen Stage 1: the same task, given part of the flow (paper, section 3.4).

    The option `shares` says how often each kind of control of `masks.KINDS` is drawn. `told_share` (0 in the paper) is
    what part of each sample's loss is the error where the control tells the true flow (`masks.told`): with a few drags
    those positions are few, and a short training hardly feels them. The option `single` trains on one random future
    frame, as curriculum step 1 does: for the same work many more different drags.
    """

    uses_flow = True

    def __init__(self, config: Config, step: Step, runs: Path, models: nn.ModuleDict) -> None:
        self.told_share = step.options.told_share
        super().__init__(config, step, runs, models)

    def loss(self, models: nn.ModuleDict, batch: Batch, draws: Draws, step: Step) -> tuple[Tensor, Logs]:
        """`batch` as in `ClipBatches.clips`, with the flow in pixels."""
        image = self.scaled(models, batch, "image")[:, :, :1]
        flow, stride = self.scaled(models, batch, "flow"), batch["stride"]
        controls = zip(batch["flow"].cpu().split(1), draws.generators, strict=True)
        drawn = [masks.draw(flow, generator, step.options.shares) for flow, generator in controls]
        sparse, mask = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        true = batch["flow"]
        if step.options.single:
            chosen = _one_frame(flow.shape[2], draws)
            flow, stride = _pick(flow, chosen, 2), _pick(stride, chosen, 1)
            sparse, mask, true = (_pick(field, chosen, 1) for field in (sparse, mask, true))
        image = image.expand(-1, -1, flow.shape[2], -1, -1)
        with torch.no_grad():
            sparse, mask = sparse.to(flow.device), mask.to(flow.device)
            condition = control.condition(sparse, mask, models["flow_vae"], tuple(flow.shape[-2:])).float()
            text = self.text(models, batch["tokens"])

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            sample = torch.cat([image, noisy], dim=1)
            down, mid = models[step.model](sample, timesteps, text, condition, stride=stride)
            return models["stage1_unet"](sample, timesteps, text, stride=stride, down_residuals=down, mid_residual=mid)

        noisy, timesteps, target = self.noised(flow, draws, predict)
        prediction = predict(noisy, timesteps)
        error = (prediction.float() - target).square()
        told = masks.told(true, sparse, mask, tuple(flow.shape[-2:])).transpose(1, 2)  # (B, 1, N, h, w)
        inside = weighted_mean(error, told)  # (B,)
        # A sample without a place that is told the truth gives a constant there, which has no gradient.
        there = inside if self.decoded is None else self.decoded(self.clean(error, timesteps), told)
        loss = (1 - self.told_share) * self.reduced(error, timesteps) + self.told_share * there.mean()
        return loss, {"mask_share": mask.mean(), "inside": inside.detach().mean()}


class Animation(Denoising):
    """Stage 2: frame 0 stays clean, frames 1..N are denoised with frame 0's features warped to them (section 3.3).

    With the option `start: warped`, fresh motion modules begin as `motion_start.start_warped` sets them. `hole_weight`
    (1 by default) is what an error counts where frame 0 shows nothing: such places are few, but no network can know
    them, and their error would outweigh what can be learned.
    """

    uses_flow_latents = False
    uses_flow = True

    def __init__(self, config: Config, step: Step, runs: Path, models: nn.ModuleDict) -> None:
        super().__init__(config, step, runs, models)
        if step.options.start == "warped" and (step.fresh or step.model not in step.start_from):
            start_warped(models[step.model])
        self.hole_weight = step.options.hole_weight

    def loss(self, models: nn.ModuleDict, batch: Batch, draws: Draws, step: Step) -> tuple[Tensor, Logs]:
        """`batch` as in `ClipBatches.clips`, with the flow in pixels. The loss is on frames 1..N only."""
        frames = self.scaled(models, batch, "image")
        text = self.text(models, batch["tokens"])

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            sample = torch.cat([frames[:, :, :1], noisy[:, :, 1:]], dim=2)
            return models[step.model](sample, timesteps, text, flow=batch["flow"])

        noisy, timesteps, target = self.noised(frames, draws, predict)
        prediction = predict(noisy, timesteps)
        error = (prediction.float() - target)[:, :, 1:].square()
        weight = None
        if self.hole_weight < 1:
            weight = self.hole_weight + (1 - self.hole_weight) * seen_share(batch["flow"], error.shape[-2:])
        return self.reduced(error, timesteps, weight), {"plain": error.detach().mean()}


OBJECTIVES = {
    "image_autoencoder": ImageAutoencoder,
    "flow_autoencoder": FlowAutoencoder,
    "text_to_video": TextToVideo,
    "motion_field": MotionField,
    "trajectory_control": TrajectoryControl,
    "animation": Animation,
}
