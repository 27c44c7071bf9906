"""The ablation of Stage 2 (section 4, table 2): numbers and clips of the same UNet with and without warped features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from mi2v_lite.data.world import Clip, World
from mi2v_lite.evaluation.parts import flow_tensor, noise
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.pipelines import MotionI2VPipeline

GAP = 4  # pixels between the clips of a sheet


@contextmanager
def painting_with(pipe: MotionI2VPipeline, unet: VideoUNet) -> Iterator[None]:
    """Inside, Stage 2 of `pipe` is `unet`."""
    own = pipe.animation_unet
    pipe.register_modules(animation_unet=unet)
    try:
        yield
    finally:
        pipe.register_modules(animation_unet=own)


def far_moving(world: World, clips: int, seed: int, count: int) -> list[tuple[int, Clip]]:
    """The `count` clips, of the first `clips` from `seed`, that move farthest on average, with their seeds."""
    found = [(seed + index, world.clip(seed + index)) for index in range(clips)]
    return sorted(found, key=lambda pair: -float(np.linalg.norm(pair[1].flow, axis=1).mean()))[:count]


def fusion_clips(
    pipe: MotionI2VPipeline, world: World, fusions: dict[str, VideoUNet], clips: int = 24, seed: int = 0, count: int = 2
) -> np.ndarray:
    """The clips that move farthest, each in a row: the truth, then as every UNet of `fusions` paints it.

    Args:
        pipe: both stages. world: clips with true flow. fusions: name -> Stage 2 UNet. clips, seed: which clips to
            choose from. count: rows.

    Returns:
        uint8 `(F, count * (H + gap) - gap, (1 + fusions) * (W + gap) - gap, 3)`, white in the gaps of 4 pixels.
    """
    rows = []
    for number, clip in far_moving(world, clips, seed, count):
        painted = [clip.frames]
        for unet in fusions.values():
            with painting_with(pipe, unet):
                options = {"detail": "none", "generator": noise(number), "output_type": "np"}
                output = pipe.render(clip.frames[0], flow_tensor(clip), clip.caption, **options)
            painted.append(output.frames[0])
        rows.append(joined(painted, axis=2))
    return joined(rows, axis=1)


def joined(parts: list[np.ndarray], axis: int) -> np.ndarray:
    """Clips `(F, H, W, 3)` side by side, white between them."""
    pad = [(0, GAP) if i == axis else (0, 0) for i in range(4)]
    padded = [np.pad(part, pad, constant_values=255) for part in parts[:-1]]
    return np.concatenate([*padded, parts[-1]], axis=axis)
