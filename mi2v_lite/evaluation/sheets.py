"""Two contact sheets to look at before believing the table: 12 held-out prompts, and 12 drags on real photos."""

from __future__ import annotations

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from mi2v_lite.control import Drag, MotionControl
from mi2v_lite.data.samples import SAMPLES
from mi2v_lite.data.source import ClipSource
from mi2v_lite.evaluation.parts import middle_square, noise
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.viz.contact_sheets import Row, sheet
from mi2v_lite.viz.flow import flow_to_rgb, longest, with_tracks

ROWS, SIZE = 12, 128
SHOWN = (5, 10, 15)
# Photo -> two drags, each from and to in shares of the middle square: something a person would want to move.
DRAGS = {
    "astronaut": (((0.50, 0.30), (0.75, 0.30)), ((0.40, 0.75), (0.40, 0.50))),
    "chelsea": (((0.50, 0.45), (0.30, 0.45)), ((0.35, 0.25), (0.35, 0.50))),
    "china": (((0.60, 0.40), (0.60, 0.20)), ((0.30, 0.75), (0.60, 0.75))),
    "coffee": (((0.45, 0.50), (0.70, 0.60)), ((0.45, 0.50), (0.25, 0.35))),
    "flower": (((0.50, 0.50), (0.50, 0.25)), ((0.50, 0.50), (0.75, 0.65))),
    "rocket": (((0.50, 0.55), (0.50, 0.20)), ((0.50, 0.55), (0.80, 0.55))),
}


def prompt_sheet(pipe: MotionI2VPipeline, source: ClipSource, seed: int = 0) -> Image.Image:
    """The captions of 12 clips of `source` from `seed` on: photo, true flow, predicted flow, three frames of the
    result, the true last frame. Flow is that to the last frame, each row on the scale of its true flow.
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
    """Two drags on each of the six sample photos, no prompt: photo with the drag, predicted flow, three frames."""
    rows = []
    for name, drags in tqdm(DRAGS.items(), desc="drags"):
        photo = middle_square(SAMPLES / "photos" / f"{name}.jpg", SIZE)
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


def _animated(
    pipe: MotionI2VPipeline, photo: np.ndarray, prompt: str, control: MotionControl | None, seed: int, **options: int
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted flow `(N, 2, H, W)` and rendered frames, uint8 `(F, H, W, 3)`."""
    generator = noise(seed)
    motion = pipe.predict_motion(photo, prompt, control, generator=generator, **options)
    output = pipe.render(photo, motion, prompt, detail="none", generator=generator, output_type="np")
    return motion.flow[0].cpu().numpy(), output.frames[0]


def _only(shape: tuple[int, ...], start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
    """A field that is known at the drag's start alone, and there goes straight to its end."""
    flow = np.full(shape, np.nan)
    way = np.subtract(end, start) * np.arange(1, shape[0] + 1)[:, None] / shape[0]
    flow[:, :, round(start[1]), round(start[0])] = way
    return flow
