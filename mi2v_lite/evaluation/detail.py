"""What carried detail brings, on clips drawn large, whose true motion is known at the photo's own size (notebook 03).

The networks see the clip reduced to their working size. Three ways lead back to its own size: Stage 2's frames enlarged
(`plain`), the photo's detail carried along the motion (`carried`), and what a textbook does without a network: splat
the photo along the true motion of every pixel and fill the holes by Telea's inpainting (`telea`).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from mi2v_lite.data.clips import Clip
from mi2v_lite.evaluation.stages import Numbers, noise
from mi2v_lite.evaluation.video import warp_error
from mi2v_lite.flow.fields import resize
from mi2v_lite.flow.guided import GuidedEnlarger
from mi2v_lite.flow.metrics import psnr
from mi2v_lite.flow.tracking import Tracks
from mi2v_lite.flow.warp import splat_average
from mi2v_lite.io.pixels import frames_tensor
from mi2v_lite.pipelines import MotionI2VPipeline

MEASURED_FRAMES = (5, 10, 15)
SEEN_WEIGHT = 0.25  # where bilinear weights of at least this sum land on a pixel, it shows something of frame 0
TELEA_RADIUS = 5  # pixels
EDGE_PX, NEAR_EDGE_PX = 2.0, 16  # a step of the true motion, and the distance up to which a pixel is near it
MOST_DB = 60.0  # equal pictures have no finite PSNR


def detail(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """Renders a clip that was drawn large, with its true motion and with the predicted one.

    Args:
        pipe: both stages.
        clip: square frames, several times the pipeline's working size.
        seed: of the noise.

    Returns:
        with the true motion, for `plain`, `carried` and `telea`: `detail.visible_psnr_db_*`, `detail.holes_psnr_db_*`,
        `detail.sharpness_*` (over the truth's) and `detail.flicker_levels_*` (also `true`); with the predicted motion,
        for `plain` and `carried`: `detail.predicted_psnr_db_*` and `detail.predicted_sharpness_*`; and of the predicted
        motion enlarged, `bilinear` and `guided`: `detail.field_roughness_predicted_*`.
    """
    large = clip.frames.shape[1:3]
    _, flow = reduced(clip, pipe.config.working_size)
    options = {"times": range(len(flow) + 1), "output_type": "np"}

    def rendered(motion: object, how: str, generator: torch.Generator) -> np.ndarray:
        frames = pipe.render(clip.frames[0], motion, clip.caption, detail=how, generator=generator, **options).frames[0]
        return _enlarged(frames, large) if how == "none" else frames

    ways = {"plain": rendered(flow[None], "none", noise(seed)), "carried": rendered(flow[None], "carry", noise(seed))}
    numbers = _with_true_motion(clip, ways | {"telea": splat_with_telea(clip)})

    generator = noise(seed)
    motion = pipe.predict_motion(clip.frames[0], clip.caption, stride=clip.stride, generator=generator)
    ways = {"carried": rendered(motion, "carry", generator), "plain": rendered(motion, "none", noise(seed))}
    true = _levels(clip.frames)[1:]
    for name, frames in ways.items():
        picture = _levels(frames)[1:]
        numbers[f"predicted_psnr_db_{name}"] = psnr(picture, true, max=255).item()
        numbers[f"predicted_sharpness_{name}"] = _sharpness(picture) / _sharpness(true)
    numbers |= _roughness(clip, motion.flow[0].cpu())
    return {f"detail.{name}": value for name, value in numbers.items()}


def reduced(clip: Clip, size: int) -> tuple[np.ndarray, Tensor]:
    """Reduces a clip of square frames to a smaller size that divides its own.

    Returns:
        frames, uint8 `(F, size, size, 3)`, and the motion, `(N, 2, size, size)` in pixels of that size: in each cell
        the mean over the pixels that move as the middle of the cell does, so that no cell moves between two things.

    Raises:
        ValueError: if the frames are not square or `size` does not divide their side.
    """
    count, _, side, _ = clip.flow.shape
    if side % size or clip.frames.shape[1:3] != (side, side):
        raise ValueError(f"a clip of {clip.frames.shape[1:3]} cannot be reduced to cells of {size} a side.")
    factor = side // size
    frames = np.stack([cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in clip.frames])
    blocks = torch.from_numpy(clip.flow).view(count, 2, size, factor, size, factor)
    middle = blocks[:, :, :, factor // 2, :, factor // 2]
    apart = (blocks[-1] - middle[-1][:, :, None, :, None]).norm(dim=0)  # (size, factor, size, factor)
    alike = (apart < EDGE_PX).float()
    return frames, (blocks * alike).sum((3, 5)) / alike.sum((1, 3)) / factor


def splat_with_telea(clip: Clip) -> np.ndarray:
    """Splats frame 0 along the true motion of the pixels that stay visible and inpaints the holes: uint8 frames."""
    photo = torch.from_numpy(clip.frames[0]).permute(2, 0, 1).float()[None]
    frames = [clip.frames[0]]
    for flow, seen in zip(torch.from_numpy(clip.flow), torch.from_numpy(clip.visibility), strict=True):
        moved, weight = splat_average(photo, torch.where(seen, flow, torch.inf)[None])
        picture = moved[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
        holes = (weight[0, 0] < SEEN_WEIGHT).byte().numpy()
        frames.append(cv2.inpaint(picture, holes, TELEA_RADIUS, cv2.INPAINT_TELEA))
    return np.stack(frames)


def _with_true_motion(clip: Clip, ways: dict[str, np.ndarray]) -> Numbers:
    """Compares several renderings of one clip with its true frames."""
    chosen = torch.tensor(MEASURED_FRAMES)
    flow, seen, true = torch.from_numpy(clip.flow), torch.from_numpy(clip.visibility), _levels(clip.frames)
    lands = torch.where(seen[:, None], flow, torch.inf)[chosen - 1]
    weight = splat_average(torch.ones(len(chosen), 1, *seen.shape[1:]), lands)[1][:, 0]  # (n, H, W)
    tracks = Tracks(flow, seen)
    numbers = {}
    for name, frames in ways.items():
        picture = _levels(frames)
        for where, mask in {"visible": weight > SEEN_WEIGHT, "holes": weight == 0}.items():
            if mask.float().mean() >= 0.002:
                error = psnr(picture[chosen], true[chosen], mask, max=255).item()
                numbers[f"{where}_psnr_db_{name}"] = min(error, MOST_DB)
                if where == "holes":
                    sharp = [_sharpness(frames[chosen], mask) for frames in (picture, true)]
                    numbers[f"holes_sharpness_{name}"] = tuple(sharp)
        numbers[f"sharpness_{name}"] = _sharpness(picture[1:]) / _sharpness(true[1:])
    for name, frames in {**ways, "true": clip.frames}.items():
        numbers[f"flicker_levels_{name}"], _ = warp_error(frames_tensor(frames), tracks)
    return numbers


def _roughness(clip: Clip, flow: Tensor) -> Numbers:
    """The creases of a motion field enlarged in two ways: its mean Laplacian where the true motion has no steps."""
    last, size = torch.from_numpy(clip.flow[-1]), clip.frames.shape[1:3]
    step = torch.zeros(size)
    for axis in (1, 2):
        change = last.diff(dim=axis).norm(dim=0)
        inside = step[: change.shape[0], : change.shape[1]]
        torch.maximum(inside, change, out=inside)
    box = np.ones((2 * NEAR_EDGE_PX + 1,) * 2, np.uint8)
    near = cv2.dilate((step > EDGE_PX).byte().numpy(), box) > 0
    chosen, enlarger = [frame - 1 for frame in MEASURED_FRAMES], GuidedEnlarger(flow, clip.frames[0])
    ways = {"bilinear": resize(flow[chosen], size), "guided": torch.stack([enlarger(i) for i in chosen])}
    numbers = {}
    for name, fields in ways.items():
        bend = [cv2.Laplacian(part.numpy(), cv2.CV_32F, ksize=3) for part in fields.flatten(0, 1)]
        numbers[f"field_roughness_predicted_{name}"] = float(np.abs(bend)[:, ~near].mean())
    return numbers


def _enlarged(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.stack([cv2.resize(frame, size[::-1], interpolation=cv2.INTER_CUBIC) for frame in frames])


def _levels(frames: np.ndarray) -> Tensor:
    """uint8 `(F, H, W, 3)` to float `(F, 3, H, W)`, 0 to 255."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float()


def _sharpness(frames: Tensor, where: Tensor | None = None) -> float:
    """The mean step between neighbouring pixels of `(F, 3, H, W)`, or between those of `where`, bool `(F, H, W)`."""
    total = 0.0
    for axis in (-1, -2):
        step = frames.diff(dim=axis).abs().mean(dim=1)  # (F, H, W - 1) or (F, H - 1, W)
        if where is not None:
            step = step[where.narrow(axis, 1, step.shape[axis]) & where.narrow(axis, 0, step.shape[axis])]
        total += step.mean().item()
    return total
