"""Stage 1: from a photo, a prompt and what the user drew to a motion field (notebooks 02 and 04).

Motion-I2V, sections 3.2 and 3.4. The flow is sampled in the latent space of its own autoencoder. The photo's latent is
concatenated to the channels, the frame stride says how strong the motion is, and a ControlNet takes the trajectories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, SchedulerMixin
from diffusers.utils import BaseOutput
from torch import Tensor
from torch.nn.functional import max_pool2d
from transformers import CLIPTextModel, CLIPTokenizer

from mi2v_lite import control as controls
from mi2v_lite.control import MotionControl
from mi2v_lite.diffusion import Generators, denoise, guide, renoised
from mi2v_lite.flow.fields import from_unit, to_unit
from mi2v_lite.io.pixels import ImageInput
from mi2v_lite.models import autoencoder
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.pipelines import inputs
from mi2v_lite.pipelines.inputs import VideoPipeline
from mi2v_lite.pipelines.things import hold_things

IMAGE_RANGES = ("signed", "unit")


@dataclass
class MotionFieldOutput(BaseOutput):
    """The motion of a clip.

    Attributes:
        flow: f_{0->i}, `(B, N, 2, H, W)` float32 pixels, channels (x right, y down), on frame 0's grid.
        brush: `(B, 1, H, W)` float, 1 where the user allowed motion; None without a brush.
        control: what was drawn, one control for each item, if the flow was held to it and it has things. `render` then
            moves these things exactly at the photo's own resolution. Set it to None after editing the flow of a thing.
    """

    flow: Tensor | np.ndarray
    brush: Tensor | None = None
    control: list[MotionControl] | None = None


class MotionFieldPipeline(VideoPipeline):
    """From an image, a prompt and a control to a flow.

    Args:
        vae: the image autoencoder.
        flow_vae: the flow autoencoder, of the same downsampling factor.
        text_encoder: encodes the prompt; may be None if embeddings are given.
        tokenizer: that of the text encoder.
        unet: the UNet of Stage 1; its input channels are those of the image latent and the flow latent together.
        controlnet: its ControlNet, or None.
        scheduler: any of diffusers' with `add_noise`; the release uses DDIM.
        stage1_image_range: what the image autoencoder gets in this stage: "signed" for [-1, 1], or "unit" for [0, 1],
            with which the release's checkpoints were trained.
        stride: the default of `__call__`.
        num_inference_steps: the default of `__call__`.
        guidance_scale: the default of `__call__`.
        control_guidance_scale: the default of `__call__`.
        hold_control: the default of `__call__`.
    """

    model_cpu_offload_seq = "text_encoder->vae->flow_vae->unet"
    _optional_components = [*VideoPipeline._optional_components, "controlnet"]

    def __init__(
        self,
        vae: AutoencoderKL,
        flow_vae: AutoencoderKL,
        text_encoder: CLIPTextModel | None,
        tokenizer: CLIPTokenizer | None,
        unet: VideoUNet,
        controlnet: TrajectoryControlNet | None,
        scheduler: SchedulerMixin,
        stage1_image_range: str = "signed",
        stride: int = 8,
        num_inference_steps: int = 25,
        guidance_scale: float = 7.0,
        control_guidance_scale: float = 1.0,
        hold_control: bool = False,
    ):
        super().__init__()
        if stage1_image_range not in IMAGE_RANGES:
            raise ValueError(f"stage1_image_range must be one of {IMAGE_RANGES}, got {stage1_image_range!r}.")
        self.register_modules(
            vae=vae,
            flow_vae=flow_vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            controlnet=controlnet,
            scheduler=scheduler,
        )
        self.register_to_config(
            stage1_image_range=stage1_image_range,
            stride=stride,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            control_guidance_scale=control_guidance_scale,
            hold_control=hold_control,
        )

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput,
        prompt: str | Sequence[str] = "",
        negative_prompt: str | Sequence[str] = "",
        control: MotionControl | Sequence[MotionControl] | None = None,
        control_scale: float = 1.0,
        control_guidance_scale: float | None = None,
        hold_control: bool | None = None,
        num_frames: int = 16,
        stride: int | Sequence[int] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: Generators = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        condition: Tensor | None = None,
        brush: np.ndarray | Tensor | None = None,
        latents: Tensor | None = None,
        callback_on_step_end: Callable | None = None,
        output_type: str = "pt",
        return_dict: bool = True,
    ) -> MotionFieldOutput | tuple:
        """Predicts how the photo moves.

        Args:
            image: PIL, uint8 `(H, W, 3)`, float tensor `(3, H, W)` in [-1, 1], or a batch of one of these.
            prompt: what happens; one for all images or one for each, and there may be one image for all prompts.
            negative_prompt: what shall not happen, likewise.
            control: what the user drew, on a canvas of any size; one for all images or one for each.
            control_scale: a factor on the ControlNet's residuals; 0 is no control, though the brush still holds.
            control_guidance_scale: guidance by the control, apart from that by the text: the difference that the
                control makes to the prediction is multiplied by this (Brooks et al., "InstructPix2Pix", CVPR 2023,
                guide two conditions in this way). Values other than 1 cost one more evaluation of the UNet a step. The
                pipeline's config if None.
            hold_control: whether, after each step, the latents that `control` covers wholly are set to its flow, as
                noisy as the others, just as Stage 2 sets what is outside the brush to the photo. What was drawn is then
                obeyed to the pixel, and the network fits the rest to it. Things are held at their very borders, see
                `pipelines/things.py`. The release leaves all to the network. The pipeline's config if None.
            num_frames: N + 1, the reference image included.
            stride: how many source frames lie between two frames, so larger means more motion; or the N strides from
                the reference image to each frame.
            height: resize the image to this height; its own, to the nearest multiple, if None.
            width: likewise.
            num_inference_steps: the number of denoising steps; the pipeline's config if None.
            guidance_scale: guidance by the text. With 1 or less the positive prompt runs alone. The pipeline's config
                if None.
            generator: for exact repeats; a list holds one for each item.
            prompt_embeds: `(B, L, D)`, instead of the text.
            negative_prompt_embeds: `(B, L, D)`, instead of the text.
            condition: the ControlNet's input itself, `(B, flow latent channels + 1, N, h, w)`, instead of `control`'s.
            brush: bool `(H, W)`, True = may move, instead of `control`'s. Outside it the flow is zero.
            latents: the noise to start from, `(B, flow latent channels, N, h, w)`.
            callback_on_step_end: diffusers' `f(pipe, step, timestep, {"latents": ...}) -> dict`.
            output_type: "pt", "np", or "latent" (scaled flow latents `(B, C, N, h, w)`).
            return_dict: whether to return an output object instead of a tuple.

        Returns:
            `MotionFieldOutput`, or `(flow, brush)` if not `return_dict`.

        Raises:
            ValueError: for inputs that do not fit together.
        """
        steps = self._setting("num_inference_steps", num_inference_steps)
        guidance_scale = self._setting("guidance_scale", guidance_scale)
        control_guidance_scale = self._setting("control_guidance_scale", control_guidance_scale)
        inputs.check_output_type(output_type, ("pt", "np", "latent"))
        inputs.check_frames(num_frames, self.unet)
        inputs.check_prompts(prompt, prompt_embeds)
        inputs.check_prompts(negative_prompt, negative_prompt_embeds, "negative_prompt")
        if self.controlnet is None and not (control is None and condition is None):
            raise ValueError("A control was given but the pipeline has no ControlNet: load one, or pass control=None.")

        # Everything that was given, on one grid and as one batch of B items.
        pixels = inputs.prepare_images(image, autoencoder.factor(self.vae), height, width)
        height, width = pixels.shape[-2:]
        drawn = drawn_on(control, width, height)
        brush = inputs.brush_tensor(brush_of(drawn) if brush is None else brush, height, width)
        batch = inputs.batch_size(
            images=pixels,
            prompts=prompt,
            negative_prompts=negative_prompt,
            prompt_embeds=prompt_embeds,
            controls=drawn,
            conditions=condition,
            brushes=brush,
            latents=latents,
        )
        strides = self._strides(self._setting("stride", stride), num_frames - 1).expand(batch, -1)
        text = self._encode_prompts(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, batch, guidance_scale > 1
        )
        photo = inputs.to_batch(self.encode_image(pixels), batch, "image")  # (B, C, h, w)
        noise = self._noise(
            (batch, self.unet.config.out_channels, num_frames - 1, *photo.shape[2:]), latents, generator
        )
        held, things = None, None
        if drawn is not None:
            flow, mask = self._field(drawn, num_frames - 1)
            if condition is None:
                condition = controls.condition(flow, mask, self.flow_vae, tuple(photo.shape[-2:]))
            if self._setting("hold_control", hold_control):
                held = [inputs.to_batch(part, batch, "control") for part in self._held(flow, mask)]
                things = with_things(control, batch)
        if condition is not None:
            condition = inputs.to_batch(condition.to(noise), batch, "condition")  # (B, C + 1, N, h, w)

        predict = self._predictor(
            photo, text, strides, condition, control_scale, guidance_scale, control_guidance_scale
        )

        def after_step(i: int, timestep: Tensor, latents: Tensor) -> Tensor:
            if held is not None:
                known, covered = held
                known = renoised(self.scheduler, known, noise, i)
                latents = torch.where(covered, known.to(latents.dtype), latents)
            return self._call_back(callback_on_step_end, i, timestep, latents)

        latents = denoise(predict, noise, self.scheduler, steps, after_step, generator, self.progress_bar)

        flow = latents
        if output_type != "latent":
            flow = self._flow(latents, brush)
            if things is not None:
                reach = autoencoder.factor(self.flow_vae)
                items = zip(flow, drawn_on(things, width, height), strict=True)
                flow = torch.stack([hold_things(*item, reach) for item in items])
        flow = flow.cpu().numpy() if output_type == "np" else flow
        self.maybe_free_model_hooks()
        return MotionFieldOutput(flow=flow, brush=brush, control=things) if return_dict else (flow, brush)

    def _predictor(
        self,
        photo: Tensor,
        text: Tensor,
        strides: Tensor,
        condition: Tensor | None,
        control_scale: float,
        guidance_scale: float,
        control_guidance_scale: float,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The networks and both kinds of guidance as `predict(latents, timestep)`, see `denoise`.

        Equation: control-guidance
        """
        batch, halves = len(photo), 2 if guidance_scale > 1 else 1  # the negative and the positive prompts
        steered = condition is not None and control_scale != 0
        strides = strides.repeat(halves, 1).to(photo.device)
        if steered:
            condition = condition.repeat(halves, 1, 1, 1, 1)

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            image = photo[:, :, None].expand(-1, -1, latents.shape[2], -1, -1)  # (B, C, N, h, w)
            sample = torch.cat([image, latents], dim=1).repeat(halves, 1, 1, 1, 1)
            time = timestep.expand(len(sample)).to(sample.device, non_blocking=True)
            residuals = {}
            if steered:
                down, mid = self.controlnet(sample, time, text, condition, stride=strides, control_scale=control_scale)
                residuals = {"down_residuals": down, "mid_residual": mid}
            prediction = self.unet(sample, time, text, stride=strides, **residuals)
            guided = guide(prediction, guidance_scale)
            if steered and control_guidance_scale != 1:
                sample, time = sample[-batch:], time[-batch:]  # the positive half
                without = self.unet(sample, time, text[-batch:], stride=strides[-batch:])
                guided = guided + (control_guidance_scale - 1) * (prediction[-batch:] - without)
            return guided

        return predict

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` in [-1, 1] to Stage 1's scaled image latents `(B, C, h, w)`."""
        if self.config.stage1_image_range == "unit":
            pixels = (pixels + 1) / 2
        return autoencoder.encode(self.vae, pixels.to(self._execution_device, self.vae.dtype)).to(self.unet.dtype)

    def decode_flow(self, latents: Tensor) -> Tensor:
        """Scaled flow latents `(B, C, N, h, w)` to unit flow `(B, N, 2, H, W)`, about [0, 1], not clamped."""
        return inputs.decode(self.flow_vae, latents)

    def _flow(self, latents: Tensor, brush: Tensor | None) -> Tensor:
        """Scaled flow latents to flow in pixels, `(B, N, 2, H, W)` float32, zero outside the brush."""
        flow = from_unit(self.decode_flow(latents).float())
        return flow if brush is None else flow * brush[:, None].to(flow.device)

    def _field(self, drawn: Sequence[MotionControl], num: int) -> tuple[Tensor, Tensor]:
        """The flow `(B, N, 2, H, W)` of what was drawn, and the mask `(B, N, 1, H, W)` of where it is drawn."""
        fields = [control.field(num) for control in drawn]
        flow, mask = (torch.stack(parts).to(self._execution_device) for parts in zip(*fields, strict=True))
        return flow, mask

    def _held(self, flow: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The scaled latents `(B, C, N, h, w)` of what was drawn, and where it covers a latent's whole block of pixels,
        bool `(B, 1, N, h, w)`."""
        latents = autoencoder.encode(self.flow_vae, to_unit(flow).to(self.flow_vae.dtype))  # (B, N, C, h, w)
        covered = -max_pool2d(-mask.flatten(0, 1), autoencoder.factor(self.flow_vae)) > 0.5
        return latents.transpose(1, 2), covered.unflatten(0, mask.shape[:2]).transpose(1, 2)

    def _strides(self, stride: int | Sequence[int] | Tensor, num: int) -> Tensor:
        """`(1, N)` or `(B, N)`: source frames between frame 0 and each other frame."""
        strides = torch.as_tensor(stride)
        if strides.dim() == 0:
            strides = strides * torch.arange(1, num + 1)
        if strides.shape[-1] != num or strides.dim() > 2 or not (strides > 0).all():
            raise ValueError(f"stride must be a positive number or {num} positive numbers, got {stride!r}.")
        return strides.reshape(-1, num)


def drawn_on(
    control: MotionControl | Sequence[MotionControl] | None, width: int, height: int
) -> list[MotionControl] | None:
    """The controls as a list, resized to the image; None for None."""
    if control is None:
        return None
    drawn = [control] if isinstance(control, MotionControl) else list(control)
    if not drawn or not all(isinstance(item, MotionControl) for item in drawn):
        raise ValueError("control must be a MotionControl or a list of them, one for each image; None for no control.")
    return [item.resized(width, height) for item in drawn]


def with_things(control: MotionControl | Sequence[MotionControl] | None, batch: int) -> list[MotionControl] | None:
    """The controls as a list of one for each item of a batch, or None if there is no thing in any."""
    controls = [control] if isinstance(control, MotionControl) else list(control or ())
    if not any(item.things for item in controls):
        return None
    return controls * batch if len(controls) == 1 else controls


def brush_of(drawn: Sequence[MotionControl] | None) -> np.ndarray | None:
    """The brushes of a batch of controls, bool `(B, H, W)`, or None if there are none.

    An item without a brush may move everywhere.
    """
    if drawn is None or all(control.brush is None for control in drawn):
        return None
    width, height = drawn[0].size
    return np.stack([np.ones((height, width), bool) if item.brush is None else item.brush for item in drawn])
