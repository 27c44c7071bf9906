"""Makes motion and clip of what is drawn, through any pipeline: what the two buttons of DragCanvas do."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mi2v_lite.control import MotionControl
from mi2v_lite.io import images
from mi2v_lite.models.autoencoder import factor
from mi2v_lite.viz.drawing import png
from mi2v_lite.viz.flow import colour_wheel, flow_to_rgb, longest
from mi2v_lite.viz.widgets.files import video_bytes

FIELD_GRID = 256  # pixels along the longer side of the field as the page shows it
STILL = 0.1  # displacements up to this share of the longest are shown faintly over the photo


class Cancelled(Exception):
    """Somebody pressed Cancel."""


# Called after each step of the work with words on what was done; it may raise `Cancelled`.
Watch = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """All that a motion depends on, besides the photo and the weights.

    Attributes:
        control: what is drawn.
        prompt: what is written.
        seed: of all randomness.
        control_scale: how strongly the control counts.
        num_frames: the frames that the networks make, with the photo.
        num_inference_steps: of each stage; None for the pipeline's own.
        guidance_scale: of the prompt; None for the pipeline's own.
    """

    control: MotionControl
    prompt: str = ""
    seed: int = 0
    control_scale: float = 1.0
    num_frames: int = 16
    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    @property
    def drawn(self) -> MotionControl | None:
        """The control, or None if nothing is drawn, so that only the prompt counts."""
        control = self.control
        something = control.drags or control.anchors or control.things or control.brush is not None
        return control if something else None

    @property
    def sampling(self) -> dict[str, Any]:
        """The arguments of both stages that are not left to the pipeline."""
        chosen = {"num_inference_steps": self.num_inference_steps, "guidance_scale": self.guidance_scale}
        return {name: value for name, value in chosen.items() if value is not None}


class Runner:
    """Runs `predict` and `render`, and remembers what they gave.

    The arguments are those of `DragCanvas`.

    Attributes:
        photo: the photo as it was given.
        image: the photo as the two functions see it.
        motion: the last motion, or None.
        clip: the last clip, or None.
        made_for: the `Request` that `motion` answers, or None.
    """

    def __init__(
        self,
        photo: Image.Image,
        pipeline: Any,
        predict: Callable[..., Any] | None,
        render: Callable[..., Any] | None,
        size: int | None,
    ) -> None:
        self.pipeline, self.size = pipeline, size
        self._predict, self._render = predict, render
        self.take(photo)

    def take(self, photo: Image.Image) -> None:
        """Starts anew on another photo.

        Args:
            photo: the photo.
        """
        vae = getattr(self.pipeline, "vae", None)
        if self.carries_detail:
            image = images.bounded(photo, self.size or images.SHORT_SIDE)
        else:
            short = self.size or (min(photo.size) if vae is None else vae.config.sample_size)
            image = images.fitted(photo, short, 1 if vae is None else factor(vae))
        self.photo, self.image = photo, image
        self.motion: Any = None
        self.clip: Any = None
        self.made_for: Request | None = None
        self._random: torch.Tensor | None = None  # the generator's state after predict, where render goes on

    @property
    def carries_detail(self) -> bool:
        """Whether the pipeline makes clips of the photo's own size."""
        return getattr(getattr(self.pipeline, "config", None), "detail", "none") == "carry"

    @property
    def predicts(self) -> bool:
        """Whether there is something to predict with."""
        return self._predict is not None or self.pipeline is not None

    @property
    def renders(self) -> bool:
        """Whether there is something to render with."""
        return self._render is not None or self.pipeline is not None

    def predict(self, request: Request, watch: Watch = lambda done: None) -> None:
        """Makes `motion`.

        Args:
            request: what is asked for.
            watch: hears of each step of a pipeline.

        Raises:
            ValueError: if there is nothing to predict with, or if nothing says what shall move.
            Cancelled: if `watch` raised it.
        """
        if not self.predicts:
            raise ValueError("there is nothing to predict with: make the canvas with pipeline=... or predict=...")
        control = request.control
        moves = control.drags or control.things or control.brush is not None or request.prompt.strip()
        if not moves:
            raise ValueError("nothing says what shall move: take hold of a thing, draw a drag, or write a prompt.")
        generator = torch.Generator().manual_seed(request.seed)
        options = {"control_scale": request.control_scale, "generator": generator}
        function = self._predict
        if function is None:
            function = self.pipeline.predict_motion
            options |= {"num_frames": request.num_frames, "callback_on_step_end": _on_step(watch), **request.sampling}
        motion = function(self.image, request.prompt, request.drawn, **options)
        flow_of(motion)  # refuses a wrong answer at once
        watch("motion made")
        self.motion, self.made_for, self._random = motion, request, generator.get_state()

    def render(self, request: Request, full_size: bool = False, watch: Watch = lambda done: None) -> None:
        """Makes `clip` of the motion there is.

        Args:
            request: what is asked for.
            full_size: whether a pipeline that carries detail makes the clip as large as the photo.
            watch: hears of each step of a pipeline, and of each frame.

        Raises:
            ValueError: if there is nothing to render with.
            Cancelled: if `watch` raised it.
        """
        if not self.renders:
            raise ValueError("there is nothing to render with: make the canvas with pipeline=... or render=...")
        # One generator for both stages, as in `pipe(...)` and `mi2v animate`: the same seed gives the same clip.
        generator = torch.Generator().manual_seed(request.seed)
        if self._random is not None:
            generator.set_state(self._random)
        if self._render is not None:
            clip = self._render(self.image, self.motion, request.prompt, generator=generator)
        else:
            options = {"generator": generator, "callback_on_step_end": _on_step(watch), **request.sampling}
            if self.carries_detail:
                options["output_type"] = "stream"  # so that it can be cancelled between two frames
            image = self.photo if full_size and self.carries_detail else self.image
            clip = self.pipeline.render(image, self.motion, request.prompt, **options)
            if self.carries_detail:
                clip.frames = [_collected(frames, watch) for frames in clip.frames]
        watch("clip made")
        self.clip = clip

    def field(self) -> dict[str, Any]:
        """What the page needs to show the motion over the photo.

        Returns:
            "strip": a PNG with the N frames of the field below each other, in flow colours that fade where nothing
            moves; "frames": N; "wheel": the legend as a PNG; "longest": the longest displacement in pixels of the
            photo.
        """
        flow = flow_of(self.motion)
        top = longest(flow)
        height, width = flow.shape[-2:]
        length = flow.norm(dim=1).nan_to_num(0).numpy()
        alpha = (255 * np.clip(length / max(STILL * top, 1e-6), 0, 1)).astype(np.uint8)
        tiles = np.dstack([flow_to_rgb(flow, top or 1.0).reshape(-1, width, 3), alpha.reshape(-1, width)])
        share = min(1.0, FIELD_GRID / max(height, width))
        size = (max(1, round(width * share)), len(flow) * max(1, round(height * share)))
        return {
            "strip": png(Image.fromarray(tiles).resize(size, Image.Resampling.BILINEAR)),
            "frames": len(flow),
            "wheel": png(colour_wheel(96)),
            "longest": round(top * self.photo.width / width, 1),
        }

    def video(self) -> bytes:
        """Returns the clip as the content of an MP4 file."""
        return video_bytes(_frames_of(self.clip))

    def command(self, photo: Path | None, request: Request, control: str, output: str = "clip.mp4") -> str:
        """Returns the command line that makes the same clip with the lite weights.

        Args:
            photo: the photo's file, or None if it has none.
            request: what is asked for.
            control: the file that holds the control.
            output: the file that the clip goes to.
        """
        words = ["mi2v", "animate", str(photo or "PHOTO")]
        if request.drawn is not None:
            words += ["--control", control]
        if request.prompt:
            words += ["--prompt", request.prompt]
        words += ["--seed", str(request.seed)]
        options = (
            ("--control-scale", request.control_scale, 1.0),
            ("--frames", request.num_frames, 16),
            ("--steps", request.num_inference_steps, None),
            ("--guidance", request.guidance_scale, None),
            ("--size", self.size, None),
        )
        for option, value, default in options:
            if value != default:
                words += [option, f"{value:g}"]
        return shlex.join([*words, "-o", output])


def flow_of(motion: Any) -> torch.Tensor:
    """Reads the flow of what `predict` gave.

    Args:
        motion: a flow, or an object with a `flow`; of a batch the first is taken.

    Returns:
        `(N, 2, H, W)`, float32 on the CPU.

    Raises:
        ValueError: for anything else.
    """
    try:
        flow = torch.as_tensor(getattr(motion, "flow", motion)).detach().cpu().float()
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"predict gave {type(motion).__name__}, expected a flow (N, 2, H, W) in pixels.") from error
    flow = flow[0] if flow.ndim == 5 else flow
    if flow.ndim != 4 or flow.shape[1] != 2:
        raise ValueError(f"the motion must be a flow (N, 2, H, W) in pixels, got {tuple(flow.shape)}.")
    return flow


def _frames_of(clip: Any) -> Any:
    """The pictures of a clip, or of an object with `frames`; of a batch the first."""
    frames = getattr(clip, "frames", clip)
    batch = isinstance(frames[0], list) or getattr(frames, "ndim", 4) == 5
    return frames[0] if batch else frames


def _on_step(watch: Watch) -> Callable[..., dict]:
    """`watch` as the `callback_on_step_end` of a pipeline."""

    def callback(_pipeline: Any, step: int, _timestep: Any, tensors: dict) -> dict:
        watch(f"step {step + 1}")
        return tensors

    return callback


def _collected(frames: Iterator[np.ndarray], watch: Watch) -> list[Image.Image]:
    """The frames of a stream, each of which is reported."""
    collected = []
    for frame in frames:
        collected.append(Image.fromarray(frame))
        watch(f"frame {len(collected)}")
    return collected
