"""Both stages: the class that users import (notebook 00).

`motion = pipe.predict_motion(image, prompt, control)`, look at it, edit it, `pipe.render(image, motion, prompt)`; or
`pipe(image, prompt, control)` for both. The photo may have any size: the networks work at `working_size`, and with
`detail="carry"` the clip has the photo's own size and any rate (`pipelines/detail.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from mi2v_lite.control import MotionControl
from mi2v_lite.diffusion import Generators
from mi2v_lite.flow.fields import resize
from mi2v_lite.flow.tracking import Tracker
from mi2v_lite.io.images import FPS, SECONDS, fitted_size
from mi2v_lite.io.pixels import ImageInput, image_tensor, to_uint8
from mi2v_lite.models import autoencoder
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.pipelines import inputs
from mi2v_lite.pipelines.animation import AnimationOutput, AnimationPipeline, as_output_type
from mi2v_lite.pipelines.detail import DETAILS, carry, frame_times
from mi2v_lite.pipelines.motion_field import MotionFieldOutput, MotionFieldPipeline, brush_of, drawn_on
from mi2v_lite.pipelines.saved import check_folders, check_weights
from mi2v_lite.pipelines.video import WINDOW, VideoToVideoOutput, video_to_video

LITE_WEIGHTS = Path(__file__).parents[1] / "weights" / "lite"


@dataclass
class MotionI2VOutput(BaseOutput):
    """A clip and its motion.

    Attributes:
        frames: see `AnimationOutput`; with `output_type="stream"` an iterator of uint8 `(H, W, 3)` for each item.
        flow: f_{0->i}, `(B, N, 2, h, w)` float32, in pixels of the size at which the networks work.
        brush: `(B, 1, h, w)` float, 1 where motion was allowed; None without a brush.
    """

    frames: list[list[Image.Image]] | np.ndarray | Tensor | list[Iterator[np.ndarray]]
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
        working_size: the shorter side of what the networks see, pixels; a photo of another size is resized for them.
            None: they see the photo as it is.
        detail: "carry" the photo's own pixels along the motion, so that the clip has the photo's size, or "none": the
            networks' own frames, as in the paper and the release. The default of the calls.
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
        working_size: int | None = None,
        detail: str = "none",
    ):
        super().__init__()
        _check_detail(detail)
        if working_size is not None and (working_size <= 0 or working_size % autoencoder.factor(vae)):
            raise ValueError(f"working_size must be a multiple of {autoencoder.factor(vae)}, got {working_size}.")
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
            working_size=working_size,
            detail=detail,
        )

    @classmethod
    def from_lite(cls, folder: str | Path | None = None, **kwargs: object) -> MotionI2VPipeline:
        """The lite model that ships with the package, float32 on the CPU.

        Args:
            folder: another folder of the same form.
            kwargs: of diffusers' `from_pretrained`; also settings of the pipeline, such as `detail="none"`.

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

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: object) -> MotionI2VPipeline:
        """diffusers' `from_pretrained`, which here also checks that the folder is whole.

        Raises:
            ValueError: a part is missing, or a file and its network do not have the same tensors.
        """
        local = Path(folder)
        whole = (local / cls.config_name).is_file()
        if whole:
            check_folders(local, kwargs)
        pipe = super().from_pretrained(folder, **kwargs)
        if whole:
            check_weights(pipe, local, kwargs)
        return pipe

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
        """Stage 1: how the photo moves.

        The image may have any size; `height` and `width` say at which the network works, by default the pipeline's
        `working_size`. The flow is on that grid, in its pixels. All else, errors too: `MotionFieldPipeline.__call__`.
        """
        pixels = self._working_image(image, kwargs.pop("height", None), kwargs.pop("width", None))
        output = self.motion_field(pixels, prompt, control=control, **kwargs)
        self.maybe_free_model_hooks()
        return output

    def render(
        self,
        image: ImageInput,
        motion: MotionFieldOutput | Tensor | np.ndarray,
        prompt: str | Sequence[str] = "",
        detail: str | None = None,
        fps: float = FPS,
        seconds: float = SECONDS,
        times: Sequence[float] | None = None,
        brush: np.ndarray | Tensor | None = None,
        output_type: str = "pil",
        **kwargs: object,
    ) -> AnimationOutput:
        """Stage 2, and detail: the clip of a motion.

        Args:
            image: of any size, see `MotionFieldPipeline.__call__`.
            motion: `predict_motion`'s, or any flow `(B, N, 2, h, w)` or `(N, 2, h, w)` in pixels of its own grid.
            prompt: one for all or one each.
            detail: "carry" or "none", see the class; the pipeline's config if None.
            fps, seconds: rate and length of a clip with carried detail.
            times: instead, the times of its frames, rising from 0 (the photo) to N (the last field).
            brush: bool, True = may move; the motion's own if None. With carried detail its finest form is of the
                photo's size.
            output_type: "pil", "np", "pt" or "latent", see `AnimationOutput`; with carried detail not "latent", but
                "stream": for each item an iterator that makes one frame, uint8 `(H, W, 3)`, at a time.
            kwargs: of `AnimationPipeline.__call__`; `height` and `width` say at which size the network works.

        Returns:
            `AnimationOutput`: N + 1 frames of the network's size, or with carried detail `fps * seconds` (or
            `times`) frames of the photo's.

        Raises:
            ValueError: for inputs that do not fit together.
        """
        if isinstance(motion, MotionFieldOutput):
            brush = motion.brush if brush is None else brush
            motion = motion.flow
        detail = self._detail(detail)
        if detail == "none":
            pixels = self._working_image(image, kwargs.pop("height", None), kwargs.pop("width", None))
            output = self.animation(pixels, motion, prompt, brush=brush, output_type=output_type, **kwargs)
            self.maybe_free_model_hooks()
            return output
        photos = image_tensor(image)
        pixels = self._working_image(photos, kwargs.pop("height", None), kwargs.pop("width", None))
        finest = inputs.brush_tensor(brush, *photos.shape[-2:])
        frames = self._carried(
            photos, pixels, motion, prompt, fps, seconds, times, brush, finest, output_type, **kwargs
        )
        return AnimationOutput(frames=frames)

    def _carried(
        self,
        photos: Tensor,
        pixels: Tensor,
        motion: Tensor | np.ndarray,
        prompt: str | Sequence[str],
        fps: float,
        seconds: float,
        times: Sequence[float] | None,
        brush: np.ndarray | Tensor | None,
        finest: Tensor | None,
        output_type: str,
        **kwargs: object,
    ) -> list[list[Image.Image]] | np.ndarray | Tensor | list[Iterator[np.ndarray]]:
        """Stage 2 on `pixels`, and the detail of `photos` carried: see `render`. `finest`: the brush on the photos."""
        _check_carried_type(output_type)
        flow = torch.as_tensor(motion)
        flow = flow[None] if flow.dim() == 4 else flow
        if flow.dim() != 5 or flow.shape[2] != 2 or 0 in flow.shape:
            raise ValueError(f"flow must be (B, N, 2, H, W) or (N, 2, H, W), got {tuple(flow.shape)}.")
        times = frame_times(flow.shape[1], fps, seconds) if times is None else times
        size = tuple(pixels.shape[-2:])
        _check_aspect(tuple(flow.shape[-2:]), size)
        small = flow if tuple(flow.shape[-2:]) == size else resize(flow.float(), size)
        painted = self.animation(pixels, small, prompt, brush=brush, output_type="np", **kwargs).frames
        self.maybe_free_model_hooks()
        batch = len(painted)
        photos = to_uint8(inputs.to_batch(photos, batch, "image"))
        flow = inputs.to_batch(flow, batch, "flow")
        masks = [None] * batch if finest is None else inputs.to_batch(finest, batch, "brush")[:, 0].numpy() > 0.5
        clips = [carry(*item, times, mask) for *item, mask in zip(photos, flow, painted, masks, strict=True)]
        if output_type == "stream":
            return clips
        config = {"desc": "detail", "total": len(times), **getattr(self, "_progress_bar_config", {})}
        array = np.stack([np.stack(list(tqdm(clip, **config))) for clip in clips])  # (B, F, H, W, 3)
        return as_output_type(array, output_type)

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
            video: the source, uint8 `(F, H, W, 3)` or PIL images, one take.
            first_frame: frame 0 in another style, see `render`'s image and `restyle`. With carried detail the clip
                has its size; else it is resized to the video's. Content that is shifted is warned of.
            prompt: what is seen. tracker: `ChainTracker` by default, see `mi2v_lite.flow.trackers`.
            window: the most frames rendered at once; longer clips go in windows that share one frame, each started
                from the last rendered frame of the one before.
            generator: draws the noise of all windows. output_type: "pil", "np" or "pt".
            options: `detail` of `render`, and those of `AnimationPipeline.__call__`.

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
        detail: str | None = None,
        fps: float = FPS,
        seconds: float = SECONDS,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> MotionI2VOutput | tuple:
        """Photo to clip, both stages.

        Args:
            image, prompt, control, negative_prompt, control_scale, control_guidance_scale, num_frames, stride, height,
                width: see `MotionFieldPipeline.__call__` and `predict_motion`.
            hold_control, num_inference_steps, guidance_scale: of both stages; each stage's own default if None.
            detail, fps, seconds: see `render`.
            generator: draws Stage 1's noise, then Stage 2's.
            output_type: of the frames, see `render`; the flow is a tensor.

        Returns:
            `MotionI2VOutput`, or `(frames, flow, brush)` if not `return_dict`.

        Raises:
            ValueError: for inputs that do not fit together.
        """
        detail = self._detail(detail)
        if detail == "carry":
            # What is wrong is told before the sampling.
            frame_times(num_frames - 1, fps, seconds)
            _check_carried_type(output_type)
        # Resized here, once: both stages see the same pixels, and a resize is said once.
        pixels = self._working_image(image, height, width)
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
            height=pixels.shape[-2],
            width=pixels.shape[-1],
            control_scale=control_scale,
            control_guidance_scale=control_guidance_scale,
            num_frames=num_frames,
            stride=stride,
            **shared,
        )
        if detail == "none":
            frames = self.animation(pixels, motion.flow, prompt, brush=motion.brush, output_type=output_type, **shared)
            frames = frames.frames
            self.maybe_free_model_hooks()
        else:
            photos = image_tensor(image)
            # The networks take the brush on their own grid, the photo one with its own edges.
            height, width = photos.shape[-2:]
            finest = inputs.brush_tensor(brush_of(drawn_on(control, width, height)), height, width)
            frames = self._carried(
                photos, pixels, motion.flow, prompt, fps, seconds, None, motion.brush, finest, output_type, **shared
            )
        if not return_dict:
            return frames, motion.flow, motion.brush
        return MotionI2VOutput(frames=frames, flow=motion.flow, brush=motion.brush)

    def _working_image(self, image: ImageInput, height: int | None, width: int | None) -> Tensor:
        """The image at the size at which the networks work: that asked for, the `working_size`, or its own."""
        factor, short = autoencoder.factor(self.vae), self.config.working_size
        if short is None or height is not None or width is not None:
            return inputs.prepare_images(image, factor, height, width)
        pixels = image_tensor(image)
        return inputs.resized(pixels, fitted_size(tuple(pixels.shape[-2:]), short, factor))

    def _detail(self, detail: str | None) -> str:
        return self.config.detail if detail is None else _check_detail(detail)

    def _like_me(self, stage: DiffusionPipeline, desc: str) -> DiffusionPipeline:
        stage.set_progress_bar_config(**{"desc": desc, **getattr(self, "_progress_bar_config", {})})
        return stage


def _check_detail(detail: str) -> str:
    if detail not in DETAILS:
        raise ValueError(f"detail must be one of {', '.join(DETAILS)}, got {detail!r}.")
    return detail


def _check_carried_type(output_type: str) -> None:
    if output_type not in ("pil", "np", "pt", "stream"):
        raise ValueError(f"with carried detail output_type must be 'pil', 'np', 'pt' or 'stream', got {output_type!r}.")


def _check_aspect(flow: tuple[int, int], image: tuple[int, int]) -> None:
    """Raises ValueError where a flow was plainly made for another picture; what rounding does to a side may pass."""
    if not 0.9 < (flow[0] * image[1]) / (flow[1] * image[0]) < 1.1:
        raise ValueError(
            f"flow is of {flow[1]}x{flow[0]} (width x height) but the image of {image[1]}x{image[0]}: they must have "
            "one aspect ratio; give the image that the flow was made for."
        )
