"""The autoencoders, Stage 1 and Stage 2, measured on clips whose true motion is known.

Every measure takes a pipeline, a clip and the seed of its noise, and returns numbers by the names that `table.FIGURES`
explains. It leaves out what a clip can say nothing about. Pixels are those of the clip's own grid.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import mi2v_lite
from mi2v_lite.data.clips import Clip
from mi2v_lite.flow.fields import from_unit, to_unit
from mi2v_lite.flow.metrics import direction_accuracy, endpoint_error, followed_share, psnr
from mi2v_lite.flow.warp import splat_average
from mi2v_lite.io.pixels import frames_tensor, image_tensor
from mi2v_lite.models.autoencoder import decode, encode
from mi2v_lite.pipelines import MotionI2VPipeline

# A pair (error, size) becomes a ratio of means; see `table.summary`.
Numbers = dict[str, float | tuple[float, float]]

LARGE_MOTION_PX = 8.0
VERY_LARGE_MOTION_PX = 12.0
MEAN_FLOW = Path(mi2v_lite.__file__).parent / "weights" / "mean_flow.npz"


def flow_tensor(clip: Clip) -> Tensor:
    """Returns the true motion of a clip, `(1, N, 2, H, W)` in pixels."""
    return torch.from_numpy(clip.flow)[None]


def noise(seed: int) -> torch.Generator:
    """Returns a generator of noise that starts from the seed."""
    return torch.Generator().manual_seed(seed)


def middle_square(path: Path, size: int) -> Image.Image:
    """Reads the middle square of a photo, RGB, and resizes it to `size` pixels a side."""
    with Image.open(path) as opened:
        photo = opened.convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return photo.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


@lru_cache(maxsize=1)
def _mean_flows(path: Path) -> dict[int, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {int(name.removeprefix("stride_")): file[name] for name in file.files}


def training_mean(stride: int, frames: int, size: tuple[int, int], path: Path = MEAN_FLOW) -> Tensor | None:
    """Returns the mean motion of the training clips, which a prediction that looks at its photo must beat.

    Args:
        stride: the number of source frames between two frames of the clip.
        frames: the number N of fields.
        size: height and width of the fields in pixels.
        path: the file that `tools/mean_flow.py` wrote: for each stride a field of 8 x 8 places, as fractions of the
            side, so that it fits any size.

    Returns:
        `(N, 2, H, W)` in pixels, or None where the training had no clips of this stride or of so many frames.
    """
    mean = _mean_flows(path).get(stride)
    if mean is None or len(mean) < frames:
        return None
    fine = F.interpolate(torch.from_numpy(mean[:frames]).float(), size, mode="bilinear", align_corners=False)
    return fine * torch.tensor([size[1], size[0]]).view(1, 2, 1, 1)


@torch.no_grad()
def flow_vae(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """Encodes and decodes the true motion of a clip."""
    flow = flow_tensor(clip)
    fields = from_unit(decode(pipe.flow_vae, encode(pipe.flow_vae, to_unit(flow))))
    error = endpoint_error(fields, flow).item()
    return {"flow_vae.epe_relative": (error, flow.norm(dim=2).mean().item())}


@torch.no_grad()
def image_vae(pipe: MotionI2VPipeline, path: Path, size: int = 128) -> Numbers:
    """Encodes and decodes the middle square of a photo, at `size` pixels a side."""
    pixels = image_tensor(middle_square(path, size))
    rebuilt = decode(pipe.vae, encode(pipe.vae, pixels)).clamp(-1, 1)
    return {"image_vae.psnr_db": psnr(rebuilt, pixels, max=2).item()}


def stage1(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """Predicts the motion from frame 0, the caption and the clip's stride."""
    flow = flow_tensor(clip)
    predicted = pipe.predict_motion(clip.frames[0], clip.caption, stride=clip.stride, generator=noise(seed)).flow
    error = endpoint_error(predicted, flow).item()
    numbers: Numbers = {"stage1.epe_relative": (error, flow.norm(dim=2).mean().item())}
    mean = training_mean(clip.stride, flow.shape[1], flow.shape[-2:])
    if mean is not None:
        numbers["stage1.epe_over_training_mean"] = (error, endpoint_error(mean[None], flow).item())
    moving = flow[:, -1:].norm(dim=2, keepdim=True) > 1
    if moving.any():
        for name, measure in {"direction_accuracy": direction_accuracy, "followed": followed_share}.items():
            value = measure(predicted[:, -1:], flow[:, -1:], moving, least=2.0).item()
            if np.isfinite(value):
                numbers[f"stage1.{name}"] = value
    return numbers


def stage2(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """Renders frame 0 with the true motion, and compares with the true frames as the autoencoder can show them."""
    flow, frames = flow_tensor(clip), frames_tensor(clip.frames)
    options = {"detail": "none", "generator": noise(seed), "output_type": "pt"}
    rendered = pipe.render(clip.frames[0], flow, clip.caption, **options).frames[0].cpu()
    with torch.no_grad():
        rebuilt = decode(pipe.vae, encode(pipe.vae, frames)).clamp(-1, 1).cpu()
    rendered, rebuilt, true = rendered[1:], rebuilt[1:], frames[1:]
    landed, weight = splat_average(flow[0].norm(dim=1, keepdim=True), flow[0])  # (N, 1, H, W)
    visible, far = weight > 0, landed > VERY_LARGE_MOTION_PX
    gap = psnr(rebuilt, true, visible, max=2) - psnr(rendered, true, visible, max=2)
    numbers: Numbers = {"stage2.psnr_gap_db": gap.item()}
    if (~visible).float().mean() > 0.005:
        numbers["stage2.psnr_holes_db"] = psnr(rendered, true, ~visible, max=2).item()
    if far.float().mean() >= 0.01:
        numbers["stage2.psnr_very_large_motion_db"] = psnr(rendered, true, far, max=2).item()
    return numbers
