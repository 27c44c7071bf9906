"""What each part of the pipeline does on worlds whose truth is known: one function a part, one clip a call.

Every measure takes `(pipe, clip, seed)` and gives metric name -> number; a clip that has nothing to say gives {}.
Pixels are those of the clip's grid.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mi2v_lite.data.source import Clip
from mi2v_lite.evaluation import appearance
from mi2v_lite.evaluation.mean_flow import training_mean
from mi2v_lite.flow.fields import from_unit, to_unit
from mi2v_lite.flow.metrics import direction_accuracy, endpoint_error, followed_share, psnr
from mi2v_lite.flow.similarity import ssim
from mi2v_lite.flow.warp import splat_average
from mi2v_lite.models.autoencoder import decode, encode
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.pipelines.common import image_tensor

Numbers = dict[str, float]

LARGE_MOTION_PX = 8.0
VERY_LARGE_MOTION_PX = 12.0
FEW_STEPS, MANY_STEPS = 10, 50


def frames_tensor(clip: Clip) -> Tensor:
    """Frames of a clip, `(F, 3, H, W)` in [-1, 1]."""
    return torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def flow_tensor(clip: Clip) -> Tensor:
    """True motion of a clip, `(1, N, 2, H, W)` pixels."""
    return torch.from_numpy(clip.flow)[None]


def noise(seed: int) -> torch.Generator:
    """The generator of a clip's noise."""
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def autoencoders(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """`world.motion_px`: mean length of the true flow. `flow_vae.epe_px`: end-point error of the field after encoding
    and decoding. `image_vae.world_psnr_db`, `image_vae.world_ssim`: of frames after encoding and decoding.
    """
    flow, frames = flow_tensor(clip), frames_tensor(clip)[::5]
    fields = from_unit(decode(pipe.flow_vae, encode(pipe.flow_vae, to_unit(flow))))
    rebuilt = decode(pipe.vae, encode(pipe.vae, frames)).clamp(-1, 1)
    return {
        "world.motion_px": flow.norm(dim=2).mean().item(),
        "flow_vae.epe_px": endpoint_error(fields, flow).item(),
        "image_vae.world_psnr_db": psnr(rebuilt, frames, max=2).item(),
        "image_vae.world_ssim": ssim((rebuilt + 1) / 2, (frames + 1) / 2).item(),
    }


def middle_square(path: Path, size: int) -> Image.Image:
    """The middle square of a photo, RGB, `size` pixels a side."""
    with Image.open(path) as opened:
        photo = opened.convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return photo.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


@torch.no_grad()
def photos(pipe: MotionI2VPipeline, folder: Path, size: int = 128) -> list[Numbers]:
    """`image_vae.psnr_db` and `image_vae.ssim` of the middle square of every photo of a folder, at `size` pixels."""
    found = []
    for path in sorted(folder.glob("*.jpg")):
        pixels = image_tensor(middle_square(path, size))
        rebuilt = decode(pipe.vae, encode(pipe.vae, pixels)).clamp(-1, 1)
        numbers = {
            "psnr_db": psnr(rebuilt, pixels, max=2).item(),
            "ssim": ssim((rebuilt + 1) / 2, (pixels + 1) / 2).item(),
        }
        found.append({f"image_vae.{name}": value for name, value in numbers.items()})
    return found


def stage1(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """The field predicted from frame 0, the caption and the clip's stride.

    `stage1.epe_px`; `world.training_mean_epe_px`, the error of the mean motion of the training clips of that stride
    (`training_mean`); `stage1.direction_accuracy`: whether the mean flow of the last frame's moving pixels (above 1 px)
    points within 45 degrees of the true one, only where that mean is at least 2 px; `stage1.followed`: there, how far
    it goes along the true one, as a share of its length (1 is right, 0 is no obedience).
    """
    flow = flow_tensor(clip)
    found = pipe.predict_motion(clip.frames[0], clip.caption, stride=clip.stride, generator=noise(seed)).flow
    numbers = {"stage1.epe_px": endpoint_error(found, flow).item()}
    mean = training_mean(clip.stride, flow.shape[1], flow.shape[-2:])
    if mean is not None:
        numbers["world.training_mean_epe_px"] = endpoint_error(mean[None], flow).item()
    moving = flow[:, -1:].norm(dim=2, keepdim=True) > 1
    if moving.any():
        for name, measure in {"direction_accuracy": direction_accuracy, "followed": followed_share}.items():
            value = measure(found[:, -1:], flow[:, -1:], moving, least=2.0).item()
            if np.isfinite(value):
                numbers[f"stage1.{name}"] = value
    return numbers


def stage1_steps(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """`stage1.epe_10_steps_px`, `stage1.epe_50_steps_px`: as `stage1.epe_px`, in so many denoising steps."""
    found = {}
    for steps in (FEW_STEPS, MANY_STEPS):
        output = pipe.predict_motion(
            clip.frames[0], clip.caption, stride=clip.stride, num_inference_steps=steps, generator=noise(seed)
        )
        found[f"stage1.epe_{steps}_steps_px"] = endpoint_error(output.flow, flow_tensor(clip)).item()
    return found


def stage2(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """Frames rendered with the true flow against the true frames, and against what the image autoencoder could do.

    - `stage2.psnr_large_motion_db`, `stage2.frozen_large_motion_db`, `stage2.gain_large_motion_db`: PSNR over pixels
      where motion of more than 8 px landed, of the rendering, of frame 0 kept frozen, and their difference.
    - `stage2.psnr_very_large_motion_db`: over 12 px.
    - `stage2.psnr_gap_db`: over visible pixels (something lands there), how far below the autoencoder's own
      reconstruction. `stage2.psnr_holes_db`: where nothing lands.
    - `stage2.first_frame_db`: frame 0 against the autoencoder's reconstruction of the photo.
    - what `appearance.regions` and `appearance.over_time` measure.
    """
    flow, frames = flow_tensor(clip), frames_tensor(clip)
    options = {"detail": "none", "generator": noise(seed), "output_type": "pt"}
    output = pipe.render(clip.frames[0], flow, clip.caption, **options)
    rendered = output.frames[0].cpu()
    with torch.no_grad():
        rebuilt = decode(pipe.vae, encode(pipe.vae, frames)).clamp(-1, 1).cpu()
    landed, weight = splat_average(flow[0].norm(dim=1, keepdim=True), flow[0])  # (N, 1, H, W)
    seen = weight > 0
    numbers = {
        "stage2.psnr_gap_db": (psnr(rebuilt[1:], frames[1:], seen, 2) - psnr(rendered[1:], frames[1:], seen, 2)).item(),
        "stage2.first_frame_db": min(psnr(rendered[:1], rebuilt[:1], max=2).item(), 99.0),
    }
    if (~seen).float().mean() > 0.005:
        numbers["stage2.psnr_holes_db"] = psnr(rendered[1:], frames[1:], ~seen, 2).item()
    numbers |= {f"stage2.{name}": value for name, value in _large_motion(rendered, frames, landed).items()}
    return numbers | appearance.regions(clip, rendered, frames) | appearance.over_time(clip, rendered, frames)


def _large_motion(rendered: Tensor, frames: Tensor, landed: Tensor) -> Numbers:
    moved, far = landed > LARGE_MOTION_PX, landed > VERY_LARGE_MOTION_PX
    numbers = {}
    if moved.float().mean() >= 0.01:
        own = psnr(rendered[1:], frames[1:], moved, 2).item()
        frozen = psnr(frames[:1].expand_as(frames[1:]), frames[1:], moved, 2).item()
        numbers |= {
            "psnr_large_motion_db": own,
            "frozen_large_motion_db": frozen,
            "gain_large_motion_db": own - frozen,
        }
    if far.float().mean() >= 0.01:
        numbers["psnr_very_large_motion_db"] = psnr(rendered[1:], frames[1:], far, 2).item()
    return numbers


def fusion(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """`psnr_large_motion_db` of the ablation: rendered with the true flow, over pixels that moved more than 12 px."""
    flow, frames = flow_tensor(clip), frames_tensor(clip)
    landed, _ = splat_average(flow[0].norm(dim=1, keepdim=True), flow[0])
    if (landed > VERY_LARGE_MOTION_PX).float().mean() < 0.01:
        return {}
    options = {"detail": "none", "generator": noise(seed), "output_type": "pt"}
    output = pipe.render(clip.frames[0], flow, clip.caption, **options)
    found = _large_motion(output.frames[0].cpu(), frames, landed)
    return {"psnr_large_motion_db": found["psnr_very_large_motion_db"]}
