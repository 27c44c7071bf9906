"""The ablation of table 2: Stage 2 without warped features, with added ones, and with motion-augmented attention.

The networks are those of `configs/ablation.yaml`, three trainings of each fusion; `make ablation` writes them to runs/.
All are measured on the same held-out clips with true motion. The control is the fusion "none".
"""

from __future__ import annotations

from pathlib import Path

import torch

from mi2v_lite import MotionI2VPipeline
from mi2v_lite.data.clips import Clip
from mi2v_lite.data.lite_world import LiteWorld
from mi2v_lite.data.samples import find_samples
from mi2v_lite.flow.metrics import psnr
from mi2v_lite.flow.warp import splat_average
from mi2v_lite.io.pixels import frames_tensor
from mi2v_lite.models.unet import VideoUNet

QUESTION = "What does Stage 2 gain when warped features are added, and what when they are keys and values?"
SEEDS = (1, 2, 3)  # of the trainings, as configs/ablation.yaml has them
FUSIONS = ("none", "addition", "attention")
CLIPS, FAR = 12, 12.0  # clips, the same for all; pixels: the motion that counts as large
SETTINGS = {"clips": CLIPS, "side": 128, "large_motion_px": FAR}
RUNS = Path(__file__).resolve().parents[2] / "runs"
NEEDS = RUNS / "ablation_attention_3" / "final"  # what `make ablation` writes last


def far_clips() -> list[Clip]:
    """The first held-out clips in which at least a twentieth of the pixels moves far."""
    world, clips, number = LiteWorld(find_samples() / "photos", split="heldout"), [], 0
    while len(clips) < CLIPS:
        last = world.batch([number], pasted=True, later=[15]).flow[0, 0]  # (2, H, W)
        if (last.norm(dim=0) > FAR).float().mean() >= 0.05:
            clips.append(world.clip(number))
        number += 1
    return clips


def run(seed: int) -> dict:
    """Measures the three networks of one seed.

    Args:
        seed: of their training; it is that of the sampling noise, too.

    Returns:
        fusion -> for each clip `large_motion_db`, the PSNR over the pixels at which large motion arrives, and
        `visible_db`, over all pixels on which something of the photo lands.
    """
    pipe = MotionI2VPipeline.from_lite(detail="none")
    pipe.set_progress_bar_config(disable=True)
    clips = far_clips()
    values = {}
    for fusion in FUSIONS:
        name = f"ablation_{fusion}" + (f"_{seed}" if seed > 1 else "")
        pipe.register_modules(animation_unet=VideoUNet.from_pretrained(RUNS / name / "final" / "ablation_unet").eval())
        values[fusion] = {"large_motion_db": [], "visible_db": []}
        for number, clip in enumerate(clips):
            flow, truth = torch.from_numpy(clip.flow), frames_tensor(clip.frames)[1:]
            generator = torch.Generator().manual_seed(1000 * seed + number)
            options = {"generator": generator, "output_type": "pt"}
            painted = pipe.render(clip.frames[0], flow, clip.caption, **options).frames[0, 1:].cpu()
            length, weight = splat_average(flow.norm(dim=1, keepdim=True), flow)  # (N, 1, H, W)
            for measure, mask in {"large_motion_db": length > FAR, "visible_db": weight > 0}.items():
                values[fusion][measure].append(psnr(painted, truth, mask, max=2).item())
    return values
