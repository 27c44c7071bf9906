"""Stage 2: from a photo, its motion field and a prompt to frames (notebook 03).

Motion-I2V, section 3.3. Frame 0 stays the photo's clean latent. Its features travel along the flow to the other frames,
inside the UNet's motion-augmented temporal attention. Outside the motion brush every frame stays as the photo is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, SchedulerMixin
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from mi2v_lite.diffusion import Generators, denoise, guide, renoised
from mi2v_lite.flow.splat_cache import SplatCache
from mi2v_lite.io.pixels import ImageInput, frames_tensor, to_uint8
from mi2v_lite.models import autoencoder
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.pipelines import inputs
from mi2v_lite.pipelines.inputs import VideoPipeline

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@dataclass
class AnimationOutput(BaseOutput):
    """A clip.

    Attributes:
        frames: "pil": a list of PIL images for each item; "np": uint8 `(B, F, H, W, 3)`; "pt": float
            `(B, F, 3, H, W)` in [-1, 1]; "latent": scaled latents `(B, C, F, h, w)`.
    """

    frames: list[list[Image.Image]] | np.ndarray | Tensor


class AnimationPipeline(VideoPipeline):
    """From an image, a flow and a prompt to frames.

    Args:
        vae: the image autoencoder.
        text_encoder: encodes the prompt; may be None if embeddings are given.
        tokenizer: that of the text encoder.
        unet: the UNet of Stage 2.
        scheduler: any of diffusers' with `add_noise`.
        num_inference_steps: the default of `__call__`.
        guidance_scale: the default of `__call__`.
        hold_control: the default of `__call__`.
    """

    model_cpu_offload_seq = "text_encoder->vae->unet"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel | None,
        tokenizer: CLIPTokenizer | None,
        unet: VideoUNet,
        scheduler: SchedulerMixin,
        num_inference_steps: int = 25,
        guidance_scale: float = 7.0,
        hold_control: bool = False,
    ):
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.register_to_config(
            num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, hold_control=hold_control
        )

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput,
        flow: Tensor | np.ndarray,
        prompt: str | Sequence[str] = "",
        negative_prompt: str | Sequence[str] = "",
        brush: np.ndarray | Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        hold_control: bool | None = None,
        generator: Generators = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        latents: Tensor | None = None,
        callback_on_step_end: Callable | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> AnimationOutput | tuple:
        """Moves the photo along the flow.

        Args:
            image: PIL, uint8 `(H, W, 3)`, float tensor `(3, H, W)` in [-1, 1], or a batch of one of these.
            flow: f_{0->i}, `(B, N, 2, Hf, Wf)` or `(N, 2, Hf, Wf)` in pixels of its own grid, which has the image's
                aspect ratio. It makes N + 1 frames.
            prompt: what happens; one for all or one for each. There may also be one image or one flow for all.
            negative_prompt: what shall not happen, likewise.
            brush: bool `(H, W)`, True = may move. Outside it every frame stays as the photo is: after each step but
                the last, the latents there are set to the photo's, as noisy as the others.
            height: resize the image to this height; its own, to the nearest multiple, if None.
            width: likewise.
            num_inference_steps: the number of denoising steps; the pipeline's config if None.
            guidance_scale: guidance by the text. With 1 or less the positive prompt runs alone. The pipeline's config
                if None.
            hold_control: whether the brush also holds after the last step, so that nothing of the network's own picture
                is left outside it. In the release it does not. The pipeline's config if None.
            generator: for exact repeats; a list holds one for each item.
            prompt_embeds: `(B, L, D)`, instead of the text.
            negative_prompt_embeds: `(B, L, D)`, instead of the text.
            latents: the noise to start from, `(B, C, N + 1, h, w)`.
            callback_on_step_end: diffusers' `f(pipe, step, timestep, {"latents": ...}) -> dict`. It sees frame 0 as the
                step left it; before the next step frame 0 is set to the photo's latent again.
            output_type: "pil", "np", "pt" or "latent", see `AnimationOutput`.
            return_dict: whether to return an output object instead of a tuple.

        Returns:
            `AnimationOutput`, or `(frames,)` if not `return_dict`.

        Raises:
            ValueError: for inputs that do not fit together.
        """
        steps = self._setting("num_inference_steps", num_inference_steps)
        guidance_scale = self._setting("guidance_scale", guidance_scale)
        hold_control = self._setting("hold_control", hold_control)
        guided = guidance_scale > 1
        inputs.check_output_type(output_type, OUTPUT_TYPES)
        inputs.check_prompts(prompt, prompt_embeds)
        inputs.check_prompts(negative_prompt, negative_prompt_embeds, "negative_prompt")

        # Everything that was given, on one grid and as one batch of B items.
        pixels = inputs.prepare_images(image, autoencoder.factor(self.vae), height, width)
        height, width = pixels.shape[-2:]
        flow = self._check_flow(flow, height, width)
        num_frames = flow.shape[1] + 1
        brush = inputs.brush_tensor(brush, height, width)
        batch = inputs.batch_size(
            images=pixels,
            flows=flow,
            prompts=prompt,
            negative_prompts=negative_prompt,
            prompt_embeds=prompt_embeds,
            brushes=brush,
            latents=latents,
        )
        text = self._encode_prompts(prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, batch, guided)
        photo = autoencoder.encode(self.vae, pixels.to(self._execution_device, self.vae.dtype)).to(self.unet.dtype)
        photo = inputs.to_batch(photo, batch, "image")  # (B, C, h, w)
        still = None if brush is None else _still(brush.to(photo), photo.shape[-2:])
        # One field for all layers, steps and guidance halves, so that the splat of each resolution is built once.
        motion = SplatCache(
            inputs.to_batch(flow.to(photo.device), batch, "flow"),
            official_batch_quirk=self.unet.config.official_batch_quirk,
        )
        self.unet.prepare(motion, tuple(photo.shape[-2:]))
        noise = self._noise((batch, photo.shape[1], num_frames, *photo.shape[2:]), latents, generator)
        # Frame 0 starts without noise, as in the release, so that the latents between the steps can be compared.
        noise = _with_first_frame(noise, photo)

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            sample = _with_first_frame(latents, photo)  # clean, and not scaled by the scheduler either
            sample = torch.cat([sample] * 2) if guided else sample
            time = timestep.expand(len(sample)).to(sample.device, non_blocking=True)
            prediction = self.unet(sample, time, text, flow=motion)
            return guide(prediction, guidance_scale)

        def after_step(i: int, timestep: Tensor, latents: Tensor) -> Tensor:
            is_last = i + 1 == len(self.scheduler.timesteps)
            if still is not None and (hold_control or not is_last):
                photos = photo[:, :, None].expand_as(noise)
                latents = still * renoised(self.scheduler, photos, noise, i) + (1 - still) * latents
            latents = self._call_back(callback_on_step_end, i, timestep, latents)
            return _with_first_frame(latents, photo)

        latents = denoise(predict, noise, self.scheduler, steps, after_step, generator, self.progress_bar)

        frames = latents if output_type == "latent" else self._frames(latents, output_type)
        self.maybe_free_model_hooks()
        return AnimationOutput(frames=frames) if return_dict else (frames,)

    def decode_frames(self, latents: Tensor) -> Tensor:
        """Scaled latents `(B, C, F, h, w)` to frames `(B, F, 3, H, W)`, clamped to [-1, 1], float32."""
        return inputs.decode(self.vae, latents).float().clamp(-1, 1)

    def _frames(self, latents: Tensor, output_type: str) -> Tensor | np.ndarray | list[list[Image.Image]]:
        frames = self.decode_frames(latents)
        return frames if output_type == "pt" else as_output_type(to_uint8(frames), output_type)

    def _check_flow(self, flow: Tensor | np.ndarray, height: int, width: int) -> Tensor:
        flow = torch.as_tensor(flow).float()
        flow = flow[None] if flow.dim() == 4 else flow
        if flow.dim() != 5 or flow.shape[2] != 2 or 0 in flow.shape:
            raise ValueError(f"flow must be (B, N, 2, H, W) or (N, 2, H, W), got {tuple(flow.shape)}.")
        if not flow.isfinite().all():
            raise ValueError("flow holds NaN or infinite values; set them to 0 or repair the field first.")
        inputs.check_frames(flow.shape[1] + 1, self.unet)
        own_height, own_width = flow.shape[-2:]
        if own_height * width != own_width * height:
            raise ValueError(
                f"flow is of {own_width}x{own_height} (width x height) but the image of {width}x{height}: they must "
                "have one aspect ratio; use mi2v_lite.flow.resize or give the image that the flow was made for."
            )
        return flow


def as_output_type(frames: np.ndarray, output_type: str) -> list[list[Image.Image]] | np.ndarray | Tensor:
    """Clips, uint8 `(B, F, H, W, 3)`, as "pil", "np" or "pt", see `AnimationOutput`."""
    if output_type == "np":
        return frames
    if output_type == "pt":
        return frames_tensor(frames)
    return [[Image.fromarray(frame) for frame in clip] for clip in frames]


def _still(brush: Tensor, latent_size: tuple[int, int]) -> Tensor:
    """The latents that the brush leaves out, `(B, 1, 1, h, w)`, 0 or 1.

    The top-left pixel of each latent's block decides, as in the release.

    Equation: brush
    """
    return 1 - F.interpolate(brush, latent_size, mode="nearest")[:, :, None]


def _with_first_frame(latents: Tensor, photo: Tensor) -> Tensor:
    """`(B, C, F, h, w)` with frame 0 replaced by `(B, C, h, w)`.

    Equation: clean-first-frame
    """
    return torch.cat([photo[:, :, None].to(latents.dtype), latents[:, :, 1:]], dim=2)
