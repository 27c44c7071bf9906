"""Measured quality of a pipeline on worlds whose truth is known.

`mi2v evaluate` prints this table. Every figure has a mean, a spread (standard deviation over clips) and the number of
clips. Clips, noise and drags follow from the seed alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from mi2v_lite.control import Drag, MotionControl
from mi2v_lite.data.world import Clip, World
from mi2v_lite.flow.fields import from_unit, to_unit
from mi2v_lite.flow.metrics import endpoint_error, psnr
from mi2v_lite.flow.warp import splat_average
from mi2v_lite.models.autoencoder import decode, encode
from mi2v_lite.pipelines import MotionI2VPipeline

LARGE_MOTION_PX = 8.0
SAMPLES = Path(__file__).parents[1] / "data_samples"


def heldout_world(samples: Path = SAMPLES, size: int = 128, num_frames: int = 16) -> World:
    """The world of photos and sprites that no training saw, built from ``data_samples/`` alone.

    Raises:
        ValueError: when the folder has no photos or sprites.
    """
    photos = sorted((samples / "photos").glob("*.jpg"))
    return World(photos, samples / "sprites", split="heldout", size=size, num_frames=num_frames)


def evaluate(pipe: MotionI2VPipeline, world: World, clips: int = 24, seed: int = 0) -> dict[str, dict[str, float]]:
    """Measure every part of the pipeline on ``clips`` clips of ``world``.

    Args:
        pipe: both stages. world: clips with exact flow. clips: how many. seed: of the clips and of all noise.

    Returns:
        metric name -> ``{"value", "spread", "n"}``; pixels are those of the world's grid. The names:

        - ``world.motion_px``: mean length of the true flow.
        - ``flow_vae.epe_px``, ``flow_vae.epe_relative``: end-point error of a field after encoding and decoding, and
          its share of the mean motion.
        - ``image_vae.psnr_db``: of frames after encoding and decoding.
        - ``stage1.epe_px``, ``stage1.epe_relative``: end-point error of the field predicted with the caption; its share
          of the mean motion, which is the error of the zero field.
        - ``drags.error_px_1``, ``drags.error_relative``: one drag, no caption: distance between where the drag ends and
          where the predicted flow takes its start, in pixels and as a share of the drag's length.
        - ``stage2.psnr_large_motion_db``, ``stage2.frozen_large_motion_db``, ``stage2.gain_large_motion_db``: PSNR of
          frames 1..N rendered with the true flow, of the first frame kept frozen, and their difference, over the pixels
          that moved more than 8 px.
    """
    numbers: dict[str, list[float]] = {}
    drawn = [world.clip(seed + i) for i in range(clips)]
    for index, clip in enumerate(tqdm(drawn, desc="evaluate")):
        for name, value in _evaluate_clip(pipe, clip, seed + index).items():
            numbers.setdefault(name, []).append(value)
    metrics = {name: summary(values) for name, values in numbers.items()}
    for part in ("flow_vae", "stage1"):
        metrics[f"{part}.epe_relative"] = share(numbers[f"{part}.epe_px"], numbers["world.motion_px"])
    return metrics


def share(errors: Sequence[float], motions: Sequence[float]) -> dict[str, float]:
    """Mean error over mean motion (not the mean of ratios: a clip that hardly moves would outweigh all others).

    The spread is that of the ratios of the clips that move more than 1 px.
    """
    ratios = [error / motion for error, motion in zip(errors, motions, strict=True) if motion > 1]
    return {"value": float(np.mean(errors) / np.mean(motions)), "spread": float(np.std(ratios)), "n": len(errors)}


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation and number of the finite values."""
    kept = [v for v in values if np.isfinite(v)]
    if not kept:
        return {"value": float("nan"), "spread": float("nan"), "n": 0}
    return {"value": float(np.mean(kept)), "spread": float(np.std(kept)), "n": len(kept)}


def markdown(metrics: dict[str, dict[str, float]]) -> str:
    """The metrics as a Markdown table."""
    rows = ["| metric | mean | spread | clips |", "|---|---|---|---|"]
    rows += [f"| {name} | {m['value']:.3f} | {m['spread']:.3f} | {m['n']} |" for name, m in sorted(metrics.items())]
    return "\n".join(rows)


def _evaluate_clip(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> dict[str, float]:
    flow = torch.from_numpy(clip.flow)[None]  # (1, N, 2, H, W)
    frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 127.5 - 1  # (F, 3, H, W)
    found = {"world.motion_px": flow.norm(dim=2).mean().item()}
    with torch.no_grad():
        fields = from_unit(decode(pipe.flow_vae, encode(pipe.flow_vae, to_unit(flow))))
        found["flow_vae.epe_px"] = endpoint_error(fields, flow).item()
        rebuilt = decode(pipe.vae, encode(pipe.vae, frames[::5])).clamp(-1, 1)
        found["image_vae.psnr_db"] = psnr(rebuilt, frames[::5], max=2).item()
    found["stage1.epe_px"] = stage1_error(pipe, clip, flow, seed)
    found |= drag_error(pipe, clip, seed)
    found |= stage2_gain(pipe, clip, flow, frames, seed)
    return found


def stage1_error(pipe: MotionI2VPipeline, clip: Clip, flow: Tensor, seed: int) -> float:
    """EPE in pixels of the field predicted from frame 0, the caption and the clip's stride."""
    output = pipe.predict_motion(
        clip.frames[0], clip.caption, stride=clip.stride, generator=torch.Generator().manual_seed(seed)
    )
    return endpoint_error(output.flow, flow).item()


def true_drag(clip: Clip, points: int = 5) -> Drag | None:
    """A drag that the clip's own motion answers: the track of the innermost point among those that move far.

    Returns:
        a drag of at least ``LARGE_MOTION_PX`` that stays inside the picture, or None when nothing moves so far.
    """
    far = np.linalg.norm(clip.flow[-1], axis=0) > LARGE_MOTION_PX
    inner = cv2.distanceTransform(np.pad(far, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(inner.argmax(), inner.shape)
    if inner[y, x] < 4:
        return None
    track = np.concatenate([np.zeros((1, 2)), clip.flow[:, :, y, x]]) + (x, y)  # (F, 2)
    height, width = far.shape
    if (track < 0).any() or (track > (width - 1, height - 1)).any():
        return None
    chosen = track[np.linspace(0, len(track) - 1, points).round().astype(int)]
    return Drag(points=[(float(a), float(b)) for a, b in chosen])


def drag_error(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> dict[str, float]:
    """How far from the drag's end the predicted flow takes its start; empty when the clip offers no drag."""
    drag = true_drag(clip)
    if drag is None:
        return {}
    height, width = clip.frames.shape[1:3]
    control = MotionControl(size=(width, height), drags=[drag])
    output = pipe.predict_motion(clip.frames[0], "", control, generator=torch.Generator().manual_seed(seed))
    start, end = np.array(drag.points[0]), np.array(drag.points[-1])
    x, y = start.round().astype(int)
    error = float(np.linalg.norm(start + output.flow[0, -1, :, y, x].numpy() - end))
    return {"drags.error_px_1": error, "drags.error_relative": error / float(np.linalg.norm(end - start))}


def stage2_gain(pipe: MotionI2VPipeline, clip: Clip, flow: Tensor, frames: Tensor, seed: int) -> dict[str, float]:
    """PSNR in dB of the clip rendered with its true flow, and of the frozen first frame, where motion is large."""
    moved = landed_motion(flow[0]) > LARGE_MOTION_PX  # (N, 1, H, W)
    if moved.float().mean() < 0.01:
        return {}
    output = pipe.render(
        clip.frames[0], flow, clip.caption, generator=torch.Generator().manual_seed(seed), output_type="pt"
    )
    rendered = psnr(output.frames[0][1:], frames[1:], mask=moved, max=2).item()
    frozen = psnr(frames[:1].expand_as(frames[1:]), frames[1:], mask=moved, max=2).item()
    return {
        "stage2.psnr_large_motion_db": rendered,
        "stage2.frozen_large_motion_db": frozen,
        "stage2.gain_large_motion_db": rendered - frozen,
    }


def landed_motion(flow: Tensor) -> Tensor:
    """Length in pixels of the displacement that landed on each pixel: ``(N, 2, H, W)`` -> ``(N, 1, H, W)``."""
    length = flow.norm(dim=1, keepdim=True)
    return splat_average(length, flow)[0]


def report(metrics: dict[str, dict[str, float]], notes: Iterable[str] = ()) -> dict:
    """The JSON form: ``{"metrics": {KEY: {"value", "spread", "n"}}, "notes": [...]}``."""
    return {"metrics": metrics, "notes": list(notes)}
