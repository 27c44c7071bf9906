"""Both stages in one pipeline: the class that users import (notebook 00).

`motion = pipe.predict_motion(image, prompt, control)` predicts how the photo moves, the caller looks at the motion and
edits it, and `pipe.render(image, motion, prompt)` makes the clip. `pipe(image, prompt, control)` does both at once.

The photo may have any size. The networks work on a smaller copy of it, `working_size`, and with `detail="carry"` the
clip nevertheless has the photo's own size, and any rate (see `pipelines/detail.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from mi2v_lite.pipelines.animation import OUTPUT_TYPES, AnimationOutput, AnimationPipeline, as_output_type
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
    """From a photo to a clip, with the motion made explicit in between.

    Args:
        vae: the image autoencoder of both stages.
        flow_vae: the flow autoencoder, of the same downsampling factor.
        text_encoder: encodes the prompts of both stages; may be None if embeddings are given.
        tokenizer: that of the text encoder.
        motion_unet: the UNet of Stage 1.
        controlnet: the ControlNet of Stage 1, or None.
        animation_unet: the UNet of Stage 2.
        scheduler: of both stages, any of diffusers' with `add_noise`.
        stage1_image_range: see `MotionFieldPipeline`.
        stride: the default of `predict_motion`.
        motion_steps: `num_inference_steps` of Stage 1.
        motion_guidance_scale: `guidance_scale` of Stage 1.
        animation_steps: `num_inference_steps` of Stage 2.
        animation_guidance_scale: `guidance_scale` of Stage 2.
        control_guidance_scale: the default of `predict_motion`.
        hold_control: the default of both stages.
        working_size: the shorter side of what the networks see, in pixels; a photo of another size is resized for
            them. If None, they see the photo as it is.
        detail: the default of the calls. "carry" carries the photo's own pixels along the motion, so that the clip has
            the photo's size. "none" gives the networks' own frames, as in the paper and the release.
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
        self._stages: dict[type, DiffusionPipeline] = {}
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
        """Loads the lite model that ships with the package, in float32 and on the CPU.

        Args:
            folder: another folder of the same form.
            kwargs: arguments of diffusers' `from_pretrained`, among them settings of the pipeline such as
                `detail="none"`.

        Returns:
            The pipeline.

        Raises:
            FileNotFoundError: if the weights are not there.
        """
        place = LITE_WEIGHTS if folder is None else Path(folder)
        if not (place / cls.config_name).is_file():
            if folder is not None:
                raise FileNotFoundError(f"{place} holds no pipeline: {cls.config_name} is missing there.")
            raise FileNotFoundError(
                f"No lite weights: {place / cls.config_name} is missing. They come with the package; install it "
                "again, or train them and write the folder with MotionI2VPipeline.save_pretrained."
            )
        return cls.from_pretrained(place, **{"dtype": torch.float32, "local_files_only": True, **kwargs})

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: object) -> MotionI2VPipeline:
        """Loads a saved pipeline with diffusers' `from_pretrained`, and checks that its folder is whole.

        Args:
            folder: a folder, or a name on the Hugging Face Hub.
            kwargs: arguments of diffusers' `from_pretrained`.

        Returns:
            The pipeline.

        Raises:
            ValueError: if a part is missing, or a file and its network do not have the same tensors.
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
        """Stage 1 by itself, made of the same components."""
        components = {
            "vae": self.vae,
            "flow_vae": self.flow_vae,
            "text_encoder": self.text_encoder,
            "tokenizer": self.tokenizer,
            "unet": self.motion_unet,
            "controlnet": self.controlnet,
            "scheduler": self.scheduler,
        }
        settings = {
            "stage1_image_range": self.config.stage1_image_range,
            "stride": self.config.stride,
            "num_inference_steps": self.config.motion_steps,
            "guidance_scale": self.config.motion_guidance_scale,
            "control_guidance_scale": self.config.control_guidance_scale,
            "hold_control": self.config.hold_control,
        }
        return self._stage(MotionFieldPipeline, "motion", components, settings)

    @property
    def animation(self) -> AnimationPipeline:
        """Stage 2 by itself, made of the same components."""
        components = {
            "vae": self.vae,
            "text_encoder": self.text_encoder,
            "tokenizer": self.tokenizer,
            "unet": self.animation_unet,
            "scheduler": self.scheduler,
        }
        settings = {
            "num_inference_steps": self.config.animation_steps,
            "guidance_scale": self.config.animation_guidance_scale,
            "hold_control": self.config.hold_control,
        }
        return self._stage(AnimationPipeline, "frames", components, settings)

    def _stage(
        self, kind: type[DiffusionPipeline], desc: str, components: dict[str, Any], settings: dict[str, Any]
    ) -> Any:
        """A stage, which is built again only when one of its components or settings has been replaced."""
        stage = self._stages.get(kind)
        if (
            stage is None
            or any(getattr(stage, name) is not part for name, part in components.items())
            or any(stage.config[name] != value for name, value in settings.items())
        ):
            stage = self._stages[kind] = kind(**components, **settings)
        stage.set_progress_bar_config(**{"desc": desc, **getattr(self, "_progress_bar_config", {})})
        return stage

    def predict_motion(
        self,
        image: ImageInput,
        prompt: str | Sequence[str] = "",
        control: MotionControl | Sequence[MotionControl] | None = None,
        **kwargs: object,
    ) -> MotionFieldOutput:
        """Runs Stage 1: how does the photo move?

        Args:
            image: of any size, see `MotionFieldPipeline.__call__`.
            prompt: what happens; one for all images or one for each.
            control: what the user drew; one for all images or one for each.
            kwargs: further arguments of `MotionFieldPipeline.__call__`. `height` and `width` say at which size the
                networks work; by default it is the pipeline's `working_size`.

        Returns:
            `MotionFieldOutput`; the flow has the size at which the networks work and is in pixels of that size.

        Raises:
            ValueError: for inputs that do not fit together.
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
        """Runs Stage 2 and carries the photo's detail: the clip of a motion.

        Args:
            image: of any size, see `MotionFieldPipeline.__call__`.
            motion: what `predict_motion` returned, or any flow `(B, N, 2, h, w)` or `(N, 2, h, w)` in pixels of its
                own grid. Things that it was held to move exactly at the photo's own resolution.
            prompt: what happens; one for all images or one for each.
            detail: "carry" or "none", see the class; the pipeline's config if None.
            fps: frames a second of a clip with carried detail.
            seconds: length of a clip with carried detail.
            times: the times of its frames instead, rising from 0 (the photo) to N (the last field).
            brush: bool, True = may move; the motion's own if None. With carried detail it may have the photo's size,
                and is then exact to the pixel.
            output_type: "pil", "np", "pt" or "latent", see `AnimationOutput`. With carried detail there is no
                "latent", but "stream": for each item an iterator that makes one frame, uint8 `(H, W, 3)`, at a time.
            kwargs: further arguments of `AnimationPipeline.__call__`. `height` and `width` say at which size the
                network works.

        Returns:
            `AnimationOutput`: N + 1 frames of the network's size, or with carried detail `fps * seconds` (or as many
            as `times`) frames of the photo's size.

        Raises:
            ValueError: for inputs that do not fit together.
        """
        control = None
        if isinstance(motion, MotionFieldOutput):
            brush = motion.brush if brush is None else brush
            motion, control = motion.flow, motion.control
        height, width = kwargs.pop("height", None), kwargs.pop("width", None)
        if self._detail(detail) == "none":
            pixels = self._working_image(image, height, width)
            output = self.animation(pixels, motion, prompt, brush=brush, output_type=output_type, **kwargs)
            self.maybe_free_model_hooks()
            return output
        _check_carried_type(output_type)
        photos = image_tensor(image)
        pixels = self._working_image(photos, height, width)
        flow = _batch_of_fields(motion)
        times = frame_times(flow.shape[1], fps, seconds) if times is None else times
        painted = self._painted(pixels, flow, prompt, brush=brush, **kwargs)
        on_photo = inputs.brush_tensor(brush, *photos.shape[-2:])
        return AnimationOutput(frames=self._carried(photos, flow, painted, times, on_photo, control, output_type))

    def _painted(self, pixels: Tensor, flow: Tensor, prompt: str | Sequence[str], **kwargs: object) -> np.ndarray:
        """Stage 2's frames, uint8 `(B, N + 1, H, W, 3)`, of a flow `(B, N, 2, h, w)` of any size."""
        size = tuple(pixels.shape[-2:])
        _check_aspect(tuple(flow.shape[-2:]), size)
        flow = flow if tuple(flow.shape[-2:]) == size else resize(flow.float(), size)
        frames = self.animation(pixels, flow, prompt, output_type="np", **kwargs).frames
        self.maybe_free_model_hooks()
        return frames

    def _carried(
        self,
        photos: Tensor,
        flow: Tensor,
        painted: np.ndarray,
        times: Sequence[float],
        brush: Tensor | None,
        control: Sequence[MotionControl] | None,
        output_type: str,
    ) -> list[list[Image.Image]] | np.ndarray | Tensor | list[Iterator[np.ndarray]]:
        """The detail of the photos carried along the flow, one clip for each painted one.

        Args:
            photos: `(B, 3, H, W)` in [-1, 1], of any size.
            flow: `(B, N, 2, h, w)` in pixels of its own grid.
            painted: Stage 2's frames, uint8 `(B, N + 1, h', w', 3)`.
            times: those of the frames, from 0 to N.
            brush: `(B, 1, H, W)`, 1 = may move, or None.
            control: B controls whose things are held, or None.
            output_type: see `render`.
        """
        batch = len(painted)
        photos = to_uint8(inputs.to_batch(photos, batch, "image"))
        flow = inputs.to_batch(flow, batch, "flow")
        masks = [None] * batch if brush is None else inputs.to_batch(brush, batch, "brush")[:, 0].numpy() > 0.5
        controls = [None] * batch if control is None else drawn_on(control, *photos.shape[2:0:-1])
        items = zip(photos, flow, painted, masks, controls, strict=True)
        clips = [carry(*item, times, mask, things) for *item, mask, things in items]
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
        one_take: bool = False,
        **options: object,
    ) -> VideoToVideoOutput:
        """Lets the motion of a video drive a restyled first frame (Motion-I2V, section 3.4).

        Args:
            video: the source, uint8 `(F, H, W, 3)` or PIL images, filmed in one take.
            first_frame: frame 0 in another style, see `render`'s image and `restyle`. With carried detail the clip
                has its size; otherwise it is resized to the video's. Content that has shifted is warned of.
            prompt: what is seen.
            tracker: finds the motion, see `mi2v_lite.flow.trackers`; `ChainTracker` if None.
            window: the most frames that are rendered at once. A longer clip is rendered in windows that share one
                frame, each of which starts from the last frame of the window before, as it was rendered.
            generator: draws the noise of all windows.
            output_type: "pil", "np" or "pt".
            one_take: whether the clip is known to have no cut, even where it looks as if it had one.
            options: `detail` of `render`, and the options of `AnimationPipeline.__call__`.

        Returns:
            `VideoToVideoOutput`, with as many frames as the source.

        Raises:
            ValueError: for a clip that cannot be tracked or cuts to another scene, or inputs that do not fit together.
        """
        return video_to_video(
            self, video, first_frame, prompt, tracker, window, generator, output_type, one_take, **options
        )

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
        """Turns a photo into a clip: `predict_motion`, then `render`.

        Args:
            image: of any size, see `MotionFieldPipeline.__call__`.
            prompt: what happens; one for all images or one for each.
            control: what the user drew; one for all images or one for each.
            negative_prompt: what shall not happen, for both stages.
            control_scale: see `MotionFieldPipeline.__call__`.
            control_guidance_scale: see `MotionFieldPipeline.__call__`.
            hold_control: of both stages; the pipeline's config if None.
            num_frames: N + 1, the frames of the networks; with carried detail the clip has its own number.
            stride: see `MotionFieldPipeline.__call__`.
            height: the size at which the networks work; see `predict_motion`.
            width: likewise.
            num_inference_steps: of both stages; each stage's own default if None.
            guidance_scale: of both stages; each stage's own default if None.
            detail: see `render`.
            fps: see `render`.
            seconds: see `render`.
            generator: draws the noise of Stage 1 and then that of Stage 2.
            output_type: of the frames, see `render`; the flow is a tensor.
            return_dict: whether to return an output object instead of a tuple.

        Returns:
            `MotionI2VOutput`, or `(frames, flow, brush)` if not `return_dict`.

        Raises:
            ValueError: for inputs that do not fit together.
        """
        detail = self._detail(detail)
        # A mistake that concerns Stage 2 alone is reported before the sampling of Stage 1, which takes long.
        if detail == "carry":
            _check_carried_type(output_type)
            times = frame_times(num_frames - 1, fps, seconds)
        else:
            inputs.check_output_type(output_type, OUTPUT_TYPES)
        inputs.check_frames(num_frames, self.animation_unet)
        # Resized once, so that both stages see the same pixels and a resize is reported once.
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
        shared["brush"] = motion.brush
        if detail == "none":
            frames = self.animation(pixels, motion.flow, prompt, output_type=output_type, **shared).frames
            self.maybe_free_model_hooks()
        else:
            painted = self._painted(pixels, motion.flow, prompt, **shared)
            photos = image_tensor(image)
            # The networks took the brush on their own grid; the photo takes it with the edges that were drawn.
            height, width = photos.shape[-2:]
            on_photo = inputs.brush_tensor(brush_of(drawn_on(control, width, height)), height, width)
            frames = self._carried(photos, motion.flow, painted, times, on_photo, motion.control, output_type)
        if not return_dict:
            return frames, motion.flow, motion.brush
        return MotionI2VOutput(frames=frames, flow=motion.flow, brush=motion.brush)

    def _working_image(self, image: ImageInput, height: int | None, width: int | None) -> Tensor:
        """The image at the size at which the networks work: the size asked for, the `working_size`, or its own."""
        factor, short = autoencoder.factor(self.vae), self.config.working_size
        if short is None or height is not None or width is not None:
            return inputs.prepare_images(image, factor, height, width)
        pixels = image_tensor(image)
        return inputs.resized(pixels, fitted_size(tuple(pixels.shape[-2:]), short, factor))

    def _detail(self, detail: str | None) -> str:
        return self.config.detail if detail is None else _check_detail(detail)


def _check_detail(detail: str) -> str:
    if detail not in DETAILS:
        raise ValueError(f"detail must be one of {', '.join(DETAILS)}, got {detail!r}.")
    return detail


def _check_carried_type(output_type: str) -> None:
    if output_type not in ("pil", "np", "pt", "stream"):
        raise ValueError(f"with carried detail output_type must be 'pil', 'np', 'pt' or 'stream', got {output_type!r}.")


def _batch_of_fields(flow: Tensor | np.ndarray) -> Tensor:
    """A flow `(B, N, 2, H, W)` or `(N, 2, H, W)` as `(B, N, 2, H, W)`."""
    flow = torch.as_tensor(flow)
    flow = flow[None] if flow.dim() == 4 else flow
    if flow.dim() != 5 or flow.shape[2] != 2 or 0 in flow.shape:
        raise ValueError(f"flow must be (B, N, 2, H, W) or (N, 2, H, W), got {tuple(flow.shape)}.")
    return flow


def _check_aspect(flow: tuple[int, int], image: tuple[int, int]) -> None:
    """Raises ValueError for a flow that was made for another picture; sides may differ by what rounding does."""
    if not 0.9 < (flow[0] * image[1]) / (flow[1] * image[0]) < 1.1:
        raise ValueError(
            f"flow is of {flow[1]}x{flow[0]} (width x height) but the image of {image[1]}x{image[0]}: they must have "
            "one aspect ratio; give the image that the flow was made for."
        )
