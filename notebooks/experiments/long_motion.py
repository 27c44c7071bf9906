"""How the motion of a clip should be estimated when it is long: at once, chained, or chained and corrected.

The clips are drawn, so the true field is known. The control is the field that is zero everywhere.
"""

from __future__ import annotations

import numpy as np
import torch

from mi2v_lite.data.samples import heldout_world
from mi2v_lite.flow.fields import compose
from mi2v_lite.flow.tracking import DIS, ChainTracker
from mi2v_lite.flow.warp import backward_warp

QUESTION = "How far can motion be estimated at once, and what does chaining gain and cost?"
SEEDS = (0, 1, 2, 3, 4, 5)
CLIPS = 12  # for each seed
EDGES = (0, 1, 2, 4, 8, 16)  # pixels: the true lengths by which errors are sorted
SETTINGS = {"clips_per_seed": CLIPS, "frames": 16, "side": 128, "edges": EDGES}


def estimates(frames: np.ndarray) -> dict[str, torch.Tensor]:
    """The fields f_{0->i} of a clip by each way of estimating them.

    Args:
        frames: uint8 `(F, H, W, 3)`.

    Returns:
        name -> `(N, 2, H, W)` in pixels.
    """
    pairs = DIS()
    direct = [pairs(frames[0], frame) for frame in frames[1:]]
    chain = [direct[0]]
    for before, after in zip(frames[1:-1], frames[2:], strict=True):
        chain.append(compose(chain[-1], pairs(before, after)))
    refined = ChainTracker()(frames).flow
    direct = torch.stack(direct)
    return {"no motion": torch.zeros_like(direct), "at once": direct, "chained": torch.stack(chain), "refined": refined}


def photo_error(frames: np.ndarray, flow: torch.Tensor) -> float:
    """How much the last frame, read along its field, differs from frame 0, in grey levels."""
    first, last = (torch.from_numpy(frames[i]).permute(2, 0, 1)[None].float() for i in (0, -1))
    return float((backward_warp(last, flow[-1:])[0] - first).abs().mean())


def run(seed: int) -> dict:
    """Estimates the motion of some clips and compares it with the truth, where the point is still seen.

    Args:
        seed: chooses the clips.

    Returns:
        way -> `by_length`, the mean error in pixels between neighbouring EDGES of the true length (the last beyond all
        of them); `by_frame`, for each frame; `clip` and `photo`, for the last frame of every clip, the error in pixels
        and the photometric error in grey levels.
    """
    world = heldout_world()
    found: dict = {}
    for number in range(seed * CLIPS, (seed + 1) * CLIPS):
        clip = world.clip(5000 + number)
        true, seen = torch.from_numpy(clip.flow), torch.from_numpy(clip.visibility)
        group = torch.bucketize(true.norm(dim=1), torch.tensor(EDGES[1:], dtype=torch.float32))  # (N, H, W)
        for name, flow in estimates(clip.frames).items():
            error = (flow - true).norm(dim=1)
            sums = torch.tensor(
                [[error[seen & (group == k)].sum(), (seen & (group == k)).sum()] for k in range(len(EDGES))]
            )
            frames = torch.tensor([float(error[i][seen[i]].mean()) for i in range(len(true))])
            kept = found.setdefault(name, {"sums": [], "frames": [], "clip": [], "photo": []})
            kept["sums"].append(sums)
            kept["frames"].append(frames)
            kept["clip"].append(float(frames[-1]))
            kept["photo"].append(photo_error(clip.frames, flow))
    values = {}
    for name, kept in found.items():
        total, count = torch.stack(kept["sums"]).sum(0).T
        values[name] = {
            "by_length": (total / count).tolist(),
            "by_frame": torch.stack(kept["frames"]).mean(0).tolist(),
            "clip": kept["clip"],
            "photo": kept["photo"],
        }
    return values
