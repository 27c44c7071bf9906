"""Is a painting that is driven steadier than one that is painted anew in every frame, at equal motion and detail?

The clips are drawn, so their motion is known. Compared is how much the colour of a point changes from one frame to the
next (flicker). Three things could make this number small without any merit, and each of them is controlled: points that
do not move as they should are left out on both sides, the sharper of two clips is blurred until both have the same
detail, and points that hardly move are left out. The source itself, a painting that stands still, and frames that are
all painted with the same random strokes are measured as well.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from experiments import shipped_pipeline
from mi2v_lite.data.clips import Clip
from mi2v_lite.data.samples import heldout_scenes
from mi2v_lite.evaluation.video import per_frame, same_motion, tracked, warp_error
from mi2v_lite.flow.tracking import Tracks
from mi2v_lite.flow.warp import backward_warp
from mi2v_lite.io.pixels import frames_tensor, to_uint8
from mi2v_lite.pipelines.detail import carry
from mi2v_lite.pipelines.restyle import restyle

QUESTION = "Is a driven painting steadier than one painted anew in every frame, at equal motion and equal detail?"
SEEDS = tuple(range(10))  # one clip each
MOTION = (2.0, 16.0)  # pixels: the mean motion of a clip in its last frame lies between these
HIDDEN = 0.02  # at least this share of its points gets covered on the way
FAR = 1.0  # pixels: what moves less hardly moves
SLACK = 1.05  # details that differ by less than this factor count as equal
RULES = (
    "all points that are seen",
    "right in the driven clip",
    "right in both",
    "right in both, and far",
    "right in both, far, equal detail",
)
SETTINGS = {"frames": 16, "side": 128, "style": "strokes", "far_px": FAR}


def moving_clip(seed: int) -> Clip:
    """The first clip from a seed on in which something moves, not too far, and something gets covered."""
    world, number = heldout_scenes(), 8000 + 100 * seed
    while True:
        clip = world.clip(number)
        moved = np.linalg.norm(clip.flow[-1], axis=0).mean()
        if MOTION[0] < moved < MOTION[1] and (~clip.visibility).mean() > HIDDEN:
            return clip
        number += 1


def detail(frames: Tensor) -> float:
    """The mean step between neighbouring pixels, in levels of 255, over all frames but the first."""
    later = frames[1:]
    return 63.75 * float(later.diff(dim=-1).abs().mean() + later.diff(dim=-2).abs().mean())


def blurred(frames: Tensor, wanted: float) -> Tensor:
    """The clip, blurred by the Gaussian that leaves it the wanted detail; unchanged if it has no more than that."""
    if detail(frames) <= wanted:
        return frames
    pixels, low, high = to_uint8(frames), 0.0, 8.0
    for _ in range(8):
        middle = (low + high) / 2
        soft = frames_tensor(np.stack([cv2.GaussianBlur(frame, (0, 0), middle) for frame in pixels]))
        low, high = (middle, high) if detail(soft) > wanted else (low, middle)
    return soft


def flicker(frames: Tensor, flow: Tensor, seen: Tensor) -> float:
    """The mean change of colour from frame to frame along the tracks of the points that are seen in both, of 255."""
    along = torch.cat([frames[:1], backward_warp(frames[1:], flow)[0]])
    seen = torch.cat([torch.ones_like(seen[:1]), seen])
    change = (along[1:] - along[:-1]).abs().mean(1)
    return 127.5 * float(change[seen[1:] & seen[:-1]].mean())


def compared(driven: Tensor, anew: Tensor, tracks: Tracks) -> dict[str, list[float]]:
    """Compares two clips at the points of each rule.

    Args:
        driven: the painting that follows the tracks, `(F, 3, H, W)` in [-1, 1].
        anew: the frames that were painted one by one.
        tracks: the true motion.

    Returns:
        "driven" and "anew", the flicker of each clip, and "share", that of the points; a number for each of RULES.
    """
    level = SLACK * min(detail(driven), detail(anew))
    pairs = [(driven, anew)] * 4 + [(blurred(driven, level), blurred(anew, level))]
    (ours, theirs), (ours_soft, theirs_soft) = (
        [same_motion(tracked(clip), tracks) for clip in pair] for pair in (pairs[0], pairs[-1])
    )
    far = tracks.flow.norm(dim=1) > FAR
    points = (tracks.visibility, ours, ours & theirs, ours & theirs & far, ours_soft & theirs_soft & far)
    return {
        "driven": [flicker(pair[0], tracks.flow, kept) for pair, kept in zip(pairs, points, strict=True)],
        "anew": [flicker(pair[1], tracks.flow, kept) for pair, kept in zip(pairs, points, strict=True)],
        "share": [float(kept.float().mean()) for kept in points],
    }


def run(seed: int) -> dict:
    """Drives the painted first frame of a clip with its true motion, and compares.

    Args:
        seed: chooses the clip and the noise.

    Returns:
        "network" (what Stage 2 paints) and "carried" (with carried strokes) -> what `compared` returns. Each kind of
        clip -> its flicker over all points that are seen, and its detail.
    """
    clip = moving_clip(seed)
    tracks = Tracks(torch.from_numpy(clip.flow), torch.from_numpy(clip.visibility))
    anew = per_frame(clip.frames)
    first, noise = to_uint8(anew[0]), torch.Generator().manual_seed(seed)
    options = {"detail": "none", "generator": noise, "output_type": "pt"}
    network = shipped_pipeline().render(first, tracks.flow[None], "", **options).frames[0].cpu()
    carried = frames_tensor(np.stack(list(carry(first, tracks.flow, to_uint8(network)))))
    same = np.stack([np.asarray(restyle(Image.fromarray(frame), "strokes", seed=0)) for frame in clip.frames])
    kinds = {
        "driven, network": network,
        "driven, carried": carried,
        "painted anew": anew,
        "painted anew, same strokes": frames_tensor(same),
        "a painting that stands still": anew[:1].expand_as(anew),
        "the source": frames_tensor(clip.frames),
    }
    values: dict = {"network": compared(network, anew, tracks), "carried": compared(carried, anew, tracks)}
    for name, frames in kinds.items():
        values[name] = {"flicker": warp_error(frames, tracks)[0], "detail": detail(frames)}
    return values
