"""What carried detail brings: worlds drawn large, whose truth is known at the photo's own size (notebook 03).

The networks see the clip reduced to their working size. Beside what is carried stand Stage 2's frames enlarged, and
what a textbook would do without any network: splat the photo along the true motion of every pixel, and fill the holes
by Telea's inpainting.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from mi2v_lite.data.source import Clip, ClipSource
from mi2v_lite.evaluation.fusions import joined
from mi2v_lite.evaluation.parts import Numbers, noise
from mi2v_lite.evaluation.video import warp_error
from mi2v_lite.flow.fields import resize
from mi2v_lite.flow.guided import GuidedEnlarger
from mi2v_lite.flow.metrics import endpoint_error, psnr
from mi2v_lite.flow.similarity import ssim_map
from mi2v_lite.flow.tracking import Tracks
from mi2v_lite.flow.warp import splat_average
from mi2v_lite.pipelines import MotionI2VPipeline

MEASURED_FRAMES = (5, 10, 15)
SEEN_WEIGHT = 0.25  # of the bilinear weights that land on a pixel: from there on it shows what frame 0 shows
TELEA_RADIUS = 5  # pixels
EDGE_PX, NEAR_EDGE_PX = 2.0, 16  # a step of the true field, and what counts as near to it
MOST_DB = 60.0  # equal pictures have no finite PSNR


def detail(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """A clip drawn large, rendered at the networks' working size and brought back to its own.

    With the true motion, reduced to the working grid, for `plain` (Stage 2's frames enlarged), `carried` and `telea`:

    - `detail.visible_psnr_db_*`, `detail.visible_ssim_*`: where a pixel of frame 0 is still seen.
    - `detail.holes_psnr_db_*`, `detail.holes_ssim_*`, `detail.holes_sharpness_*`: where none is.
    - `detail.sharpness_*`: mean step between neighbouring pixels, over the truth's.
    - `detail.flicker_levels_*`: mean change of colour from frame to frame along the true motion, in levels of 255;
      `detail.warp_error_levels_*`: the same from frame 0 to each later one. `*_true`: of the truth.

    With the predicted motion, for `plain` and `carried`: `detail.predicted_psnr_db_*`, over all pixels,
    `detail.predicted_sharpness_*`, `detail.predicted_flicker_levels_*` (along the predicted motion).

    Of the fields enlarged to the clip's size, `bilinear` and `guided`, true and predicted: `detail.field_epe_px_*`,
    `detail.field_edge_epe_px_*` (near steps of the true field), `detail.field_roughness_*` (mean size of the Laplacian
    away from them, the creases of tiles).
    """
    size = pipe.config.working_size
    _, flow = reduced(clip, size)
    true = torch.from_numpy(clip.flow)
    options = {"generator": noise(seed), "times": range(len(true) + 1), "output_type": "np"}
    plain = pipe.render(clip.frames[0], flow[None], clip.caption, **{**options, "detail": "none"}).frames[0]
    options["generator"] = noise(seed)
    clips = {
        "plain": _enlarged(plain, clip.frames.shape[1:3]),
        "carried": pipe.render(clip.frames[0], flow[None], clip.caption, detail="carry", **options).frames[0],
        "telea": splat_with_telea(clip),
    }
    found = _compared(clip, clips, true)
    generator = noise(seed)
    motion = pipe.predict_motion(clip.frames[0], clip.caption, stride=clip.stride, generator=generator)
    options["generator"] = generator
    carried = pipe.render(clip.frames[0], motion, clip.caption, detail="carry", **options).frames[0]
    predicted = motion.flow[0].cpu()
    found |= _fields(clip, flow, "true") | _fields(clip, predicted, "predicted")
    tracks = Tracks(resize(predicted, clip.frames.shape[1:3]), torch.ones(clip.visibility.shape, dtype=torch.bool))
    options |= {"generator": noise(seed), "detail": "none"}
    plain = _enlarged(pipe.render(clip.frames[0], motion, clip.caption, **options).frames[0], clip.frames.shape[1:3])
    for name, frames in {"plain": plain, "carried": carried}.items():
        picture, truth = _levels(frames), _levels(clip.frames)
        found[f"predicted_psnr_db_{name}"] = psnr(picture[1:], truth[1:], max=255).item()
        found[f"predicted_sharpness_{name}"] = _sharpness(picture[1:]) / _sharpness(truth[1:])
        found[f"predicted_flicker_levels_{name}"] = warp_error(picture / 127.5 - 1, tracks)[0]
    return {f"detail.{name}": value for name, value in found.items()}


def detail_clips(pipe: MotionI2VPipeline, world: ClipSource, numbers: Sequence[int]) -> np.ndarray:
    """Clips of a world drawn large, each in a row: Stage 2's frames enlarged, carried, and the truth.

    Both renderings are given the true motion, reduced to the networks' working size, and the caption.

    Args:
        pipe: both stages. world: large squares. numbers: which of its clips.

    Returns:
        uint8 `(F, rows * (H + gap) - gap, 3 * (W + gap) - gap, 3)`, white in the gaps.
    """
    rows = []
    for number in numbers:
        clip = world.clip(number)
        _, flow = reduced(clip, pipe.config.working_size)
        options = {"times": range(len(flow) + 1), "output_type": "np"}
        plain, carried = (
            pipe.render(clip.frames[0], flow, clip.caption, detail=how, generator=noise(number), **options).frames[0]
            for how in ("none", "carry")
        )
        rows.append(joined([_enlarged(plain, clip.frames.shape[1:3]), carried, clip.frames], axis=2))
    return joined(rows, axis=1)


def reduced(clip: Clip, size: int) -> tuple[np.ndarray, Tensor]:
    """A clip of square frames at a smaller size that divides its own.

    Returns:
        frames, uint8 `(F, size, size, 3)`, and flow `(N, 2, size, size)` in pixels of that size: in each cell the mean
        of the pixels that move as its middle does, so that no cell moves between two things.
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
    """Frame 0 splatted along the true motion of the pixels that stay visible, holes inpainted: uint8 frames."""
    photo = torch.from_numpy(clip.frames[0]).permute(2, 0, 1).float()[None]
    frames = [clip.frames[0]]
    for flow, seen in zip(torch.from_numpy(clip.flow), torch.from_numpy(clip.visibility), strict=True):
        moved, weight = splat_average(photo, torch.where(seen, flow, torch.inf)[None])
        picture = moved[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
        holes = (weight[0, 0] < SEEN_WEIGHT).byte().numpy()
        frames.append(cv2.inpaint(picture, holes, TELEA_RADIUS, cv2.INPAINT_TELEA))
    return np.stack(frames)


def _enlarged(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.stack([cv2.resize(frame, size[::-1], interpolation=cv2.INTER_CUBIC) for frame in frames])


def _levels(frames: np.ndarray) -> Tensor:
    """uint8 `(F, H, W, 3)` to float `(F, 3, H, W)`, 0 to 255."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float()


def _sharpness(frames: Tensor, mask: Tensor | None = None) -> float:
    """Mean step between neighbouring pixels of `(F, 3, H, W)`, where both are in the mask `(F, H, W)`."""
    across, down = frames.diff(dim=-1).abs().mean(1), frames.diff(dim=-2).abs().mean(1)
    if mask is not None:
        across, down = across[mask[:, :, 1:] & mask[:, :, :-1]], down[mask[:, 1:] & mask[:, :-1]]
    return (across.mean() + down.mean()).item()


def _compared(clip: Clip, clips: dict[str, np.ndarray], flow: Tensor) -> Numbers:
    """The figures of several renderings of one clip."""
    chosen = torch.tensor(MEASURED_FRAMES)
    true = _levels(clip.frames)
    seen = torch.from_numpy(clip.visibility)
    ones = torch.ones(len(chosen), 1, *seen.shape[1:])
    going = torch.where(seen[:, None], flow, torch.inf)[chosen - 1]
    weight = splat_average(ones, going)[1][:, 0]  # (n, H, W)
    visible, holes = weight > SEEN_WEIGHT, weight == 0
    tracks = Tracks(flow, seen)
    found = {}
    for name, frames in clips.items():
        picture = _levels(frames)
        similar = ssim_map(picture[chosen], true[chosen], max=255)[:, 0]
        for where, mask in {"visible": visible, "holes": holes}.items():
            if mask.float().mean() < 0.002:
                continue
            error = psnr(picture[chosen], true[chosen], mask, max=255).item()
            found[f"{where}_psnr_db_{name}"] = min(error, MOST_DB)
            found[f"{where}_ssim_{name}"] = similar[mask].mean().item()
        if holes.float().mean() >= 0.002:
            sharp = _sharpness(picture[chosen], holes) / max(_sharpness(true[chosen], holes), 0.1)
            found[f"holes_sharpness_{name}"] = sharp
        found[f"sharpness_{name}"] = _sharpness(picture[1:]) / _sharpness(true[1:])
    for name, frames in {**clips, "true": clip.frames}.items():
        flicker, drift = warp_error(_levels(frames) / 127.5 - 1, tracks)
        found |= {f"flicker_levels_{name}": flicker, f"warp_error_levels_{name}": drift}
    return found


def _fields(clip: Clip, flow: Tensor, name: str) -> Numbers:
    """The field of the working grid, enlarged both ways, against the truth."""
    true, size = torch.from_numpy(clip.flow), clip.frames.shape[1:3]
    enlarger = GuidedEnlarger(flow, clip.frames[0])
    found = {}
    chosen = [frame - 1 for frame in MEASURED_FRAMES]
    step = torch.zeros(size)
    for axis in (1, 2):
        change = true[-1].diff(dim=axis).norm(dim=0)
        step[: change.shape[0], : change.shape[1]] = torch.maximum(step[: change.shape[0], : change.shape[1]], change)
    box = np.ones((2 * NEAR_EDGE_PX + 1,) * 2, np.uint8)
    near = torch.from_numpy(cv2.dilate((step > EDGE_PX).byte().numpy(), box) > 0)
    ways = {"bilinear": resize(flow[chosen], size), "guided": torch.stack([enlarger(i) for i in chosen])}
    for way, fields in ways.items():
        found[f"field_epe_px_{name}_{way}"] = endpoint_error(fields, true[chosen]).item()
        if near.any():
            found[f"field_edge_epe_px_{name}_{way}"] = endpoint_error(fields, true[chosen], near).item()
        bend = [cv2.Laplacian(part.numpy(), cv2.CV_32F, ksize=3) for part in fields.flatten(0, 1)]
        found[f"field_roughness_{name}_{way}"] = float(np.abs(bend)[:, ~near.numpy()].mean())
    return found
