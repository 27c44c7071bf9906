"""Makes motion and clip of what is drawn, through any pipeline: what the two buttons of DragCanvas do."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mi2v_lite.control import MotionControl
from mi2v_lite.io import images
from mi2v_lite.models.autoencoder import factor
from mi2v_lite.viz.drawing import png
from mi2v_lite.viz.flow import flow_picture
from mi2v_lite.viz.pictures import animation

CLIP_WIDTH = 384  # pixels, of a square clip on the screen
CLIP_FRAMES, CLIP_SECONDS = 24, 2  # on the screen; more frames would take seconds to pack


@dataclass(frozen=True)
class Request:
    """All that a clip of one photo depends on, besides the weights.

    Attributes:
        control: what is drawn.
        prompt: what is written.
        seed: of all randomness.
        control_scale: how strongly the control counts.
    """

    control: MotionControl
    prompt: str = ""
    seed: int = 0
    control_scale: float = 1.0

    @property
    def drawn(self) -> MotionControl | None:
        """The control, or None if nothing is drawn, so that only the prompt counts."""
        control = self.control
        return control if control.drags or control.anchors or control.brush is not None else None


class Runner:
    """Runs `predict` and `render`, and remembers what they gave.

    The arguments are those of `DragCanvas`.

    Attributes:
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
        num_frames: int,
    ) -> None:
        vae = getattr(pipeline, "vae", None)
        self.size, self.num_frames = size, num_frames
        if getattr(getattr(pipeline, "config", None), "detail", "none") == "carry":
            self.image = images.bounded(photo, size or images.SHORT_SIDE)
        else:
            short = size or (min(photo.size) if vae is None else vae.config.sample_size)
            self.image = images.fitted(photo, short, 1 if vae is None else factor(vae))
        self.predictor, self.renderer = predict, render
        if pipeline is not None:
            self.predictor = predict or self._predict_with(pipeline)
            self.renderer = render or pipeline.render
        self.motion: Any = None
        self.clip: Any = None
        self.made_for: Request | None = None
        self._random: torch.Tensor | None = None  # the generator's state after predict, where render goes on

    def _predict_with(self, pipeline: Any) -> Callable[..., Any]:
        return lambda *inputs, **options: pipeline.predict_motion(*inputs, num_frames=self.num_frames, **options)

    def predict(self, request: Request) -> None:
        """Makes `motion`.

        Args:
            request: what is asked for.

        Raises:
            ValueError: if there is nothing to predict with, or if nothing says what shall move.
        """
        if self.predictor is None:
            raise ValueError("there is nothing to predict with: make the canvas with pipeline=... or predict=...")
        control = request.control
        if not (control.drags or control.brush is not None or request.prompt.strip()):
            raise ValueError("nothing says what shall move: draw a drag, paint, or write a prompt.")
        generator = torch.Generator().manual_seed(request.seed)
        motion = self.predictor(
            self.image, request.prompt, request.drawn, control_scale=request.control_scale, generator=generator
        )
        flow_of(motion)  # refuses a wrong answer at once
        self.motion, self.made_for, self._random = motion, request, generator.get_state()

    def render(self, request: Request) -> None:
        """Makes `clip` of the motion there is.

        Args:
            request: what is asked for.

        Raises:
            ValueError: if there is nothing to render with.
        """
        if self.renderer is None:
            raise ValueError("there is nothing to render with: make the canvas with pipeline=... or render=...")
        # One generator for both stages, as in `pipe(...)` and `mi2v animate`: the same seed gives the same clip.
        generator = torch.Generator().manual_seed(request.seed)
        if self._random is not None:
            generator.set_state(self._random)
        self.clip = self.renderer(self.image, self.motion, request.prompt, generator=generator)

    def motion_picture(self) -> bytes:
        """Returns the motion as a PNG."""
        return png(flow_picture(self.image, flow_of(self.motion)))

    def clip_picture(self) -> bytes:
        """Returns the clip as an animated PNG."""
        frames = _frames_of(self.clip)
        shown = frames[:: max(1, len(frames) // CLIP_FRAMES)]
        width = min(CLIP_WIDTH, round(CLIP_WIDTH * self.image.width / self.image.height))
        return animation(shown, fps=len(shown) / CLIP_SECONDS, width=width, alt="The clip.").bytes()

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
        options = (("--control-scale", request.control_scale, 1.0), ("--frames", self.num_frames, 16))
        for option, value, default in (*options, ("--size", self.size, None)):
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
