"""Pictures to look at before you believe the table: prompts, drags, the ablation and carried detail."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from mi2v_lite.control import Drag, MotionControl
from mi2v_lite.data.clips import ClipSource
from mi2v_lite.data.samples import find_samples
from mi2v_lite.evaluation.detail import reduced
from mi2v_lite.evaluation.stages import flow_tensor, middle_square, noise
from mi2v_lite.evaluation.table import painting_with
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.viz.contact_sheets import Row, sheet
from mi2v_lite.viz.flow import flow_to_rgb, longest, with_tracks

ROWS, SIZE = 12, 128
SHOWN = (5, 10, 15)  # frames
GAP = 4  # pixels between clips
# For each photo two drags of something that a person would want to move, from and to in shares of the middle square.
DRAGS = {
    "astronaut": (((0.50, 0.30), (0.75, 0.30)), ((0.40, 0.75), (0.40, 0.50))),
    "chelsea": (((0.50, 0.45), (0.30, 0.45)), ((0.35, 0.25), (0.35, 0.50))),
    "china": (((0.60, 0.40), (0.60, 0.20)), ((0.30, 0.75), (0.60, 0.75))),
    "coffee": (((0.45, 0.50), (0.70, 0.60)), ((0.45, 0.50), (0.25, 0.35))),
    "flower": (((0.50, 0.50), (0.50, 0.25)), ((0.50, 0.50), (0.75, 0.65))),
    "rocket": (((0.50, 0.55), (0.50, 0.20)), ((0.50, 0.55), (0.80, 0.55))),
}


def prompt_sheet(pipe: MotionI2VPipeline, source: ClipSource, seed: int = 0) -> Image.Image:
    """Draws what the captions of 12 clips become, a row each, on the colour scale of the row's true motion.

    Args:
        pipe: both stages.
        source: the clips, from number `seed` on.
        seed: also of the noise.

    Returns:
        a sheet: photo, true motion, predicted motion, three frames of the result, the true last frame.
    """
    rows = []
    for number in tqdm(range(seed, seed + ROWS), desc="prompts"):
        clip = source.clip(number)
        flow, frames = _animated(pipe, clip.frames[0], clip.caption, None, number, stride=clip.stride)
        top = longest(clip.flow[-1:]) or 1.0
        colours = [flow_to_rgb(field[-1:], top)[0] for field in (clip.flow, flow)]
        rows.append(Row(f"{number}: {clip.caption}", [clip.frames[0], *colours, *frames[[*SHOWN]], clip.frames[-1]]))
    titles = ["photo", "true flow", "predicted", *(f"frame {i}" for i in SHOWN), "true last"]
    return sheet(rows, titles, note="Full colour is the longest true motion of the row; the hue is the direction.")


def drag_sheet(pipe: MotionI2VPipeline, seed: int = 0) -> Image.Image:
    """Draws what two drags on each of the six sample photos become, without a prompt.

    Args:
        pipe: both stages.
        seed: of the noise.

    Returns:
        a sheet: the photo with the drag, predicted motion, three frames of the result.
    """
    rows = []
    for name, drags in tqdm(DRAGS.items(), desc="drags"):
        photo = middle_square(find_samples() / "photos" / f"{name}.jpg", SIZE)
        for drag in drags:
            start, end = (tuple((SIZE - 1) * share for share in point) for point in drag)
            control = MotionControl(size=(SIZE, SIZE), drags=[Drag(points=[start, end])])
            flow, frames = _animated(pipe, np.asarray(photo), "", control, seed)
            top = longest(flow[-1:]) or 1.0
            drawn = with_tracks(photo, _only(flow.shape, start, end), (SIZE, SIZE), top, step=1)
            words = (
                f"{name}: ({start[0]:.0f}, {start[1]:.0f}) to ({end[0]:.0f}, {end[1]:.0f}); full colour {top:.0f} px"
            )
            rows.append(Row(words, [drawn, flow_to_rgb(flow[-1:], top)[0], *frames[[*SHOWN]]]))
    return sheet(rows, ["drag", "predicted flow", *(f"frame {i}" for i in SHOWN)])


def fusion_clips(
    pipe: MotionI2VPipeline,
    source: ClipSource,
    fusions: dict[str, VideoUNet],
    clips: int = 24,
    seed: int = 0,
    count: int = 2,
) -> np.ndarray:
    """Joins the clips that move farthest, a row each: the truth, then as every UNet paints it with the true motion.

    Args:
        pipe: both stages.
        source: clips with true motion.
        fusions: name to Stage 2 UNet.
        clips: among how many clips to choose.
        seed: of the first of them, and of the noise.
        count: the number of rows.

    Returns:
        uint8 `(F, rows, columns, 3)`, with white gaps of `GAP` pixels.
    """
    numbered = [(seed + index, source.clip(seed + index)) for index in range(clips)]
    numbered.sort(key=lambda pair: -float(np.linalg.norm(pair[1].flow, axis=1).mean()))
    rows = []
    for number, clip in numbered[:count]:
        painted = [clip.frames]
        for unet in fusions.values():
            with painting_with(pipe, unet):
                options = {"detail": "none", "generator": noise(number), "output_type": "np"}
                painted.append(pipe.render(clip.frames[0], flow_tensor(clip), clip.caption, **options).frames[0])
        rows.append(_joined(painted, axis=2))
    return _joined(rows, axis=1)


def detail_clips(pipe: MotionI2VPipeline, source: ClipSource, numbers: Sequence[int]) -> np.ndarray:
    """Joins clips that were drawn large, a row each: Stage 2's frames enlarged, detail carried, the truth.

    Both renderings get the true motion, reduced to the networks' working size, and the caption.

    Args:
        pipe: both stages.
        source: square clips, several times the working size.
        numbers: which of its clips.

    Returns:
        as `fusion_clips`.
    """
    rows = []
    for number in numbers:
        clip = source.clip(number)
        _, flow = reduced(clip, pipe.config.working_size)
        options = {"times": range(len(flow) + 1), "output_type": "np"}
        plain, carried = (
            pipe.render(clip.frames[0], flow, clip.caption, detail=how, generator=noise(number), **options).frames[0]
            for how in ("none", "carry")
        )
        large = clip.frames.shape[2:0:-1]
        enlarged = np.stack([cv2.resize(frame, large, interpolation=cv2.INTER_CUBIC) for frame in plain])
        rows.append(_joined([enlarged, carried, clip.frames], axis=2))
    return _joined(rows, axis=1)


def _joined(parts: list[np.ndarray], axis: int) -> np.ndarray:
    """Clips `(F, H, W, 3)` side by side, white between them."""
    pad = [(0, GAP) if i == axis else (0, 0) for i in range(4)]
    padded = [np.pad(part, pad, constant_values=255) for part in parts[:-1]]
    return np.concatenate([*padded, parts[-1]], axis=axis)


def _animated(
    pipe: MotionI2VPipeline, photo: np.ndarray, prompt: str, control: MotionControl | None, seed: int, **options: int
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts the motion, `(N, 2, H, W)`, and renders it, uint8 `(F, H, W, 3)`."""
    generator = noise(seed)
    motion = pipe.predict_motion(photo, prompt, control, generator=generator, **options)
    output = pipe.render(photo, motion, prompt, detail="none", generator=generator, output_type="np")
    return motion.flow[0].cpu().numpy(), output.frames[0]


def _only(shape: tuple[int, ...], start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
    """A motion that is known only at the drag's start, and leads straight to its end."""
    flow = np.full(shape, np.nan)
    way = np.subtract(end, start) * np.arange(1, shape[0] + 1)[:, None] / shape[0]
    flow[:, :, round(start[1]), round(start[0])] = way
    return flow
