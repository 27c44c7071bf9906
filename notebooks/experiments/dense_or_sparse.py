"""Question 6: is dense control of the motion steadier than sparse control?

The ControlNet alone is told more and more of the true motion of held-out scenes in which the camera rests. What is told
is no achievement, so the error is measured on those pixels as well of which nothing was told. The control is a network
that is told nothing at all.
"""

from __future__ import annotations

from typing import Any

import torch
from mi2v_checks.steering import STILL, Steered, steered
from torch import Tensor

from experiments import shipped_pipeline
from mi2v_lite import MotionControl
from mi2v_lite.control import Thing, condition
from mi2v_lite.evaluation.control import true_drags

QUESTION = "Is dense control of the motion steadier than sparse control?"
SEEDS = tuple(range(10))  # one clip each
NOISES, BLOCK = 2, 8
SHARES = (0.25, 0.5)  # of the blocks; in training it was never more than a half
SETTINGS = {"noises": NOISES, "side": 128, "block": BLOCK}


def levels(thing: Steered, seed: int, flow_vae: Any) -> dict[str, tuple[dict, Tensor]]:
    """What is told of the true motion.

    Args:
        thing: the clip.
        seed: of the places of drags and blocks.
        flow_vae: encodes the condition.

    Returns:
        level -> arguments of `predict_motion`, and where something is told, `(H, W)`.
    """
    true, size = torch.from_numpy(thing.clip.flow), thing.clip.frames.shape[2:0:-1]
    drawn = {
        "one drag": MotionControl(size, [thing.drags[0]]),
        "ten drags": MotionControl(size, [thing.drags[0], *true_drags(thing.clip, 10, seed)[1:]]),
        "the thing": MotionControl(size, things=[Thing(thing.mask, thing.drags)]),
    }
    told: dict = {"nothing": ({}, torch.zeros(true.shape[-2:]))}
    for name, control in drawn.items():
        told[name] = {"control": control}, control.field(1)[1][0, 0]
    places = [side // BLOCK for side in true.shape[-2:]]
    order = torch.rand(*places, generator=torch.Generator().manual_seed(seed))
    for share in SHARES:
        kept = (order < share).float().repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)  # (H, W)
        mask = kept.expand(len(true), 1, -1, -1)
        told[f"{share:.0%} of the blocks"] = {"condition": condition(true * mask, mask, flow_vae, tuple(places))}, kept
    return told


@torch.no_grad()
def run(seed: int) -> dict:
    """Measures every level on a clip, from two noises each.

    Args:
        seed: chooses the clip, the places and the noises.

    Returns:
        level -> means in pixels over the thing: "length", how far it moves; "apart", how far the fields of the two
        noises differ; "jitter", the length of the second difference in time; "error", the distance from the true field;
        "error untold", the same where nothing is told of it, or "error" again where all is told. "slip" is how far
        pixels move that rest. "truth" -> "length" and "jitter" of the true field.
    """
    pipe, (thing,) = shipped_pipeline(), steered(1, first=20_000 + 100 * seed)
    true, on = torch.from_numpy(thing.clip.flow), torch.from_numpy(thing.mask)
    resting = true[-1].norm(dim=0) < STILL
    values: dict = {}
    for name, (given, told) in levels(thing, seed, pipe.flow_vae).items():
        fields = [
            pipe.predict_motion(
                thing.clip.frames[0],
                "",
                stride=thing.clip.stride,
                hold_control=False,
                generator=torch.Generator().manual_seed(NOISES * seed + k),
                **given,
            ).flow[0]
            for k in range(NOISES)
        ]
        flow = torch.stack(fields)  # (noises, N, 2, H, W)
        error = (flow - true)[:, -1].norm(dim=1).mean(0)  # (H, W)
        untold = on & (told == 0)
        values[name] = {
            "length": flow[:, -1].norm(dim=1)[:, on].mean(),
            "apart": (flow[0] - flow[1])[-1].norm(dim=0)[on].mean(),
            "jitter": flow.diff(n=2, dim=1).norm(dim=2)[..., on].mean(),
            "error": error[on].mean(),
            "error untold": error[untold if untold.any() else on].mean(),
            "slip": flow[:, -1].norm(dim=1)[:, resting].mean(),
        }
    length, jitter = true[-1].norm(dim=0)[on].mean(), true.diff(n=2, dim=0).norm(dim=1)[:, on].mean()
    values["truth"] = {"length": length, "jitter": jitter}
    return {name: {measure: float(value) for measure, value in row.items()} for name, row in values.items()}
