"""Video-to-video: the motion of a clip drives its restyled first frame (Motion-I2V, section 3.4; notebook 05).

    source clip --tracker--> f_{0->i}  \\
    first frame --restyled-----------> Stage 2 --> the clip in another style

Nothing is trained for it. With carried detail the painted frame's own pixels move, so the clip is as large and as sharp
as the painting. A clip that is longer than Stage 2's 16 frames is made in windows that share one frame: each window
starts from the last frame of the one before, as it was rendered, so that errors add up from window to window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from mi2v_lite.diffusion import Generators
from mi2v_lite.flow.trackers import FieldFile
from mi2v_lite.flow.tracking import ChainTracker, Tracker, Tracks, check_clip, check_one_take
from mi2v_lite.io.images import fitted_size
from mi2v_lite.io.pixels import ImageInput, image_tensor, to_uint8
from mi2v_lite.models import autoencoder
from mi2v_lite.pipelines import inputs
from mi2v_lite.pipelines.animation import as_output_type
from mi2v_lite.pipelines.restyle import Alignment, warn_of_misalignment

if TYPE_CHECKING:
    from mi2v_lite.pipelines.motion_i2v import MotionI2VPipeline

WINDOW = 16  # frames, as many as Stage 2 was trained with
TRACKED = 2  # motion that carries detail is tracked at so many times the size at which Stage 2 works


@dataclass
class VideoToVideoOutput(BaseOutput):
    """A clip in another style.

    Attributes:
        frames: a batch of one clip, as in `AnimationOutput`, with as many frames as the source.
        tracks: the motion of each window, from its first frame on.
        starts: the number of the source frame at which each window starts.
        alignment: how well the first frame lies over the source.
    """

    frames: list[list[Image.Image]] | np.ndarray | Tensor
    tracks: list[Tracks]
    starts: list[int]
    alignment: Alignment


def windows(num_frames: int, window: int = WINDOW) -> list[tuple[int, int]]:
    """Divides a clip into windows, each of which starts with the frame with which the one before ends.

    Args:
        num_frames: the number of frames of the clip, at least 2.
        window: the most frames of one window, at least 2.

    Returns:
        The first and the last frame of each window.

    Raises:
        ValueError: if there are fewer than 2 frames.
    """
    if num_frames < 2 or window < 2:
        raise ValueError(f"a clip and a window need 2 frames at least, got {num_frames} and {window}.")
    return [(first, min(first + window, num_frames) - 1) for first in range(0, num_frames - 1, window - 1)]


def video_to_video(
    pipe: MotionI2VPipeline,
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
    """Lets the motion of a video drive a restyled first frame: see `MotionI2VPipeline.video_to_video`."""
    inputs.check_output_type(output_type, ("pil", "np", "pt"))
    frames = np.stack([np.asarray(f.convert("RGB")) for f in video]) if not isinstance(video, np.ndarray) else video
    check_clip(frames)
    if not one_take:
        check_one_take(frames)
    factor, (height, width) = autoencoder.factor(pipe.vae), frames.shape[1:3]
    carried = (options.get("detail") or pipe.config.detail) == "carry"
    if not carried and (height % factor or width % factor):
        raise ValueError(
            f"The clip has {width}x{height} px; its sides must be multiples of {factor}: "
            f"read it with mi2v_lite.io.videos.read_video(..., multiple={factor})."
        )
    tracker = ChainTracker() if tracker is None else tracker
    parts = windows(len(frames), window)
    if len(parts) > 1 and isinstance(tracker, FieldFile):
        raise ValueError(
            f"{tracker.path} holds motion from frame 0 only, which drives one window of {window} frames; the clip has "
            f"{len(frames)}. Take fewer frames, or a tracker."
        )
    own = image_tensor(first_frame)
    if len(own) != 1:
        raise ValueError(f"first_frame must be one picture, got {len(own)}.")
    alignment = warn_of_misalignment(_picture(own[0]), Image.fromarray(frames[0]))
    if carried:
        anchor, frames = own, _for_tracking(frames, pipe.config.working_size, factor, tracker)
    else:
        anchor = inputs.prepare_images(own, factor, height, width)  # (1, 3, H, W)
        options |= {"height": height, "width": width}  # the network works at the clip's size

    rendered, motions = [], []
    for first, last in tqdm(parts, desc="windows", disable=len(parts) == 1):
        motions.append(tracker(frames[first : last + 1]))
        flow = motions[-1].flow[None]  # (1, N, 2, H, W)
        if carried:
            options["times"] = range(flow.shape[1] + 1)  # as many frames as the source
        clip = pipe.render(anchor, flow, prompt, generator=generator, output_type="pt", **options).frames
        rendered.append(clip[:, 0 if first == 0 else 1 :].cpu())  # the frame that two windows share is kept once
        anchor = clip[:, -1].cpu()
    clip = torch.cat(rendered, dim=1)  # (1, F, 3, H, W)
    if output_type != "pt":
        clip = as_output_type(to_uint8(clip), output_type)
    return VideoToVideoOutput(frames=clip, tracks=motions, starts=[first for first, _ in parts], alignment=alignment)


def _for_tracking(frames: np.ndarray, short: int | None, multiple: int, tracker: Tracker) -> np.ndarray:
    """The clip, reduced to the size at which it is tracked; a file of fields needs the clip's own size."""
    if short is None or isinstance(tracker, FieldFile) or min(frames.shape[1:3]) <= TRACKED * short:
        return frames
    height, width = fitted_size(frames.shape[1:3], short, multiple)
    size = (TRACKED * width, TRACKED * height)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def _picture(tensor: Tensor) -> Image.Image:
    return Image.fromarray(to_uint8(tensor))
