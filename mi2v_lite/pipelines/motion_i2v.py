"""Both stages: the class that users import (notebook 00).

`motion = pipe.predict_motion(image, prompt, control)`, look at it, edit it, `pipe.render(image, motion, prompt)`; or
`pipe(image, prompt, control)` for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from mi2v_lite.control import MotionControl
from mi2v_lite.flow.tracking import Tracker
from mi2v_lite.models import autoencoder
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.pipelines import common
from mi2v_lite.pipelines.animation import AnimationOutput, AnimationPipeline
from mi2v_lite.pipelines.common import Generators, ImageInput
from mi2v_lite.pipelines.motion_field import MotionFieldOutput, MotionFieldPipeline
from mi2v_lite.pipelines.video import WINDOW, VideoToVideoOutput, video_to_video

LITE_WEIGHTS = Path(__file__).parents[1] / "weights" / "lite"


@dataclass
class MotionI2VOutput(BaseOutput):
    """A clip and its motion.

    Attributes:
        frames: see `AnimationOutput`.
        flow: f_{0->i}, `(B, N, 2, H, W)` float32 pixels.
        brush: `(B, 1, H, W)` float, 1 where motion was allowed; None without a brush.
    """

    frames: list[list[Image.Image]] | np.ndarray | Tensor
    flow: Tensor
    brush: Tensor | None = None


class MotionI2VPipeline(DiffusionPipeline):
    """Photo to clip with the motion made explicit in between.

    Args:
        vae, flow_vae, text_encoder, tokenizer, controlnet, scheduler: shared by the stages, see theirs.
        motion_unet, animation_unet: Stage 1's and Stage 2's.
        stage1_image_range: see `MotionFieldPipeline`.
        stride, motion_steps, motion_guidance_scale, control_guidance_scale, hold_control, animation_steps,
            animation_guidance_scale: defaults of the calls.
    """

    model_cpu_offload_seq = "text_encoder->vae->flow_vae->motion_unet->animation_unet"
    _optional_components = ["text_encoder", "tokenizer", "controlnet"]

    def __init__(
        self,
        vae: AutoencoderKL,
        flow_vae: AutoencoderKL,
        text_encoder: CLIPTextModel | None,
        tokenizer: CLIPTokenizer | None,
        motion_unet: VideoUNet,
        controlnet: TrajectoryControlNet | None,
        animation_unet: VideoUNet,
        scheduler: SchedulerMixin,
        stage1_image_range: str = "signed",
        stride: int = 8,
        motion_steps: int = 25,
        motion_guidance_scale: float = 7.0,
        animation_steps: int = 25,
        animation_guidance_scale: float = 7.0,
        control_guidance_scale: float = 1.0,
        hold_control: bool = False,
    ):
        super().__init__()
        self.register_modules(
            vae=vae,
            flow_vae=flow_vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            motion_unet=motion_unet,
            controlnet=controlnet,
            animation_unet=animation_unet,
            scheduler=scheduler,
        )
        self.register_to_config(
            stage1_image_range=stage1_image_range,
            stride=stride,
            motion_steps=motion_steps,
            motion_guidance_scale=motion_guidance_scale,
            animation_steps=animation_steps,
            animation_guidance_scale=animation_guidance_scale,
            control_guidance_scale=control_guidance_scale,
            hold_control=hold_control,
        )

    @classmethod
    def from_lite(cls, folder: str | Path | None = None, **kwargs: object) -> MotionI2VPipeline:
        """The lite model that ships with the package, float32 on the CPU.

        Args:
            folder: another folder of the same form. kwargs: of diffusers' `from_pretrained`.

        Raises:
            FileNotFoundError: if the weights are not there.
        """
        folder = LITE_WEIGHTS if folder is None else Path(folder)
        if not (folder / cls.config_name).is_file():
            raise FileNotFoundError(
                f"No lite weights: {folder / cls.config_name} is missing. They come with the package; install it "
                "again, or train them and write the folder with MotionI2VPipeline.save_pretrained."
            )
        return cls.from_pretrained(folder, **{"dtype": torch.float32, "local_files_only": True, **kwargs})

    @property
    def motion_field(self) -> MotionFieldPipeline:
        """Stage 1 by itself, of the same components. Made anew each time, so that a swapped part is seen."""
        stage = MotionFieldPipeline(
            vae=self.vae,
            flow_vae=self.flow_vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.motion_unet,
            controlnet=self.controlnet,
            scheduler=self.scheduler,
            stage1_image_range=self.config.stage1_image_range,
            stride=self.config.stride,
            num_inference_steps=self.config.motion_steps,
            guidance_scale=self.config.motion_guidance_scale,
            control_guidance_scale=self.config.control_guidance_scale,
            hold_control=self.config.hold_control,
        )
        return self._like_me(stage, "motion")

    @property
    def animation(self) -> AnimationPipeline:
        """Stage 2 by itself, of the same components. Made anew each time, so that a swapped part is seen."""
        stage = AnimationPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.animation_unet,
            scheduler=self.scheduler,
            num_inference_steps=self.config.animation_steps,
            guidance_scale=self.config.animation_guidance_scale,
            hold_control=self.config.hold_control,
        )
        return self._like_me(stage, "frames")

    def predict_motion(
        self,
        image: ImageInput,
        prompt: str | Sequence[str] = "",
        control: MotionControl | Sequence[MotionControl] | None = None,
        **kwargs: object,
    ) -> MotionFieldOutput:
        """Stage 1: how the photo moves. Arguments and errors of `MotionFieldPipeline.__call__`."""
        output = self.motion_field(image, prompt, control=control, **kwargs)
        self.maybe_free_model_hooks()
        return output

    def render(
        self,
        image: ImageInput,
        motion: MotionFieldOutput | Tensor | np.ndarray,
        prompt: str | Sequence[str] = "",
        **kwargs: object,
    ) -> AnimationOutput:
        """Stage 2: the clip of a motion, which is `predict_motion`'s or any flow `(B, N, 2, H, W)` in pixels.

        The motion's brush holds unless `brush` is given. Arguments and errors of `AnimationPipeline.__call__`.
        """
        if isinstance(motion, MotionFieldOutput):
            kwargs = {"brush": motion.brush, **kwargs}
            motion = motion.flow
        output = self.animation(image, motion, prompt, **kwargs)
        self.maybe_free_model_hooks()
        return output

    def video_to_video(
        self,
        video: np.ndarray | Sequence[Image.Image],
        first_frame: ImageInput,
        prompt: str = "",
        tracker: Tracker | None = None,
        window: int = WINDOW,
        generator: Generators = None,
        output_type: str = "pil",
        **options: object,
    ) -> VideoToVideoOutput:
        """The motion of a video drives a restyled first frame (Motion-I2V, section 3.4).

        Args:
            video: the source, uint8 `(F, H, W, 3)` or PIL images, one take, sides multiples of the autoencoder's
                factor. first_frame: frame 0 in another style, see `render`'s image and `mi2v_lite.restyle`; another
                size is resized, and content that is shifted is warned of.
            prompt: what is seen. tracker: `ChainTracker` by default, see `mi2v_lite.flow.trackers`.
            window: the most frames rendered at once; longer clips go in windows that share one frame, each started
                from the last rendered frame of the one before.
            generator: draws the noise of all windows. output_type: "pil", "np" or "pt".
            options: of `AnimationPipeline.__call__`.

        Raises:
            ValueError: a clip that cannot be tracked or cuts to another scene, or inputs that do not fit together.
        """
        return video_to_video(self, video, first_frame, prompt, tracker, window, generator, output_type, **options)

    def __call__(
        self,
        image: ImageInput,
        prompt: str | Sequence[str] = "",
        control: MotionControl | Sequence[MotionControl] | None = None,
        negative_prompt: str | Sequence[str] = "",
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
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> MotionI2VOutput | tuple:
        """Photo to clip, both stages.

        Args:
            image, prompt, control, negative_prompt, control_scale, control_guidance_scale, num_frames, stride, height,
                width: see `MotionFieldPipeline.__call__`.
            hold_control, num_inference_steps, guidance_scale: of both stages; each stage's own default if None.
            generator: draws Stage 1's noise, then Stage 2's.
            output_type: of the frames, see `AnimationOutput`; the flow is a tensor.

        Returns:
            `MotionI2VOutput`, or `(frames, flow, brush)` if not `return_dict`.

        Raises:
            ValueError: for inputs that do not fit together.
        """
        # Resized here, once: both stages see the same pixels, and a resize is said once.
        pixels = common.prepare_images(image, autoencoder.factor(self.vae), height, width)
        shared = {
            "negative_prompt": negative_prompt,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "hold_control": hold_control,
            "generator": generator,
        }
        motion = self.predict_motion(
            pixels,
            prompt,
            control,
            control_scale=control_scale,
            control_guidance_scale=control_guidance_scale,
            num_frames=num_frames,
            stride=stride,
            **shared,
        )
        frames = self.render(pixels, motion, prompt, output_type=output_type, **shared).frames
        if not return_dict:
            return frames, motion.flow, motion.brush
        return MotionI2VOutput(frames=frames, flow=motion.flow, brush=motion.brush)

    def _like_me(self, stage: DiffusionPipeline, desc: str) -> DiffusionPipeline:
        stage.set_progress_bar_config(**{"desc": desc, **getattr(self, "_progress_bar_config", {})})
        return stage
