"""Question 1: what a motion field explains when the camera moves far or changes its place, and what it cannot.

Frame 0 is carried to the last frame along the true field, at several resolutions of that field. The controls are no
motion at all, and one shift for the whole frame.
"""

from __future__ import annotations

import numpy as np
import torch
from mi2v_checks.scenes import KINDS, view
from PIL import Image

from mi2v_lite.data.samples import find_samples
from mi2v_lite.flow.fields import resize
from mi2v_lite.flow.metrics import psnr
from mi2v_lite.flow.warp import backward_warp, splat_average, splat_softmax

QUESTION = "Flow describes shifts; why does it help with large motion and changes of viewpoint, and where does it fail?"
SEEDS = (0, 1, 2, 3, 4, 5)
MEANS = (1, 2, 4, 8, 16)  # pixels: the mean length of the field
SIDE, COARSE = 128, 16
SETTINGS = {"side": SIDE, "mean_motion": MEANS, "scenes": "6, each on another photo"}
WAYS = ("no motion", "one shift", "16x16 shifts", "every pixel", "nearest wins")


def carried(first: torch.Tensor, flow: torch.Tensor, near: torch.Tensor) -> dict[str, torch.Tensor]:
    """Guesses the last frame from the first and the true field, in each of WAYS.

    Args:
        first: frame 0, `(1, 3, S, S)`.
        flow: the true field to the last frame, `(1, 2, S, S)`.
        near: what lies in front in frame 0, bool `(S, S)`.

    Returns:
        way -> the guess `(1, 3, S, S)`.
    """
    mean = flow.mean((2, 3), keepdim=True).expand_as(flow)
    coarse = resize(resize(flow, (COARSE, COARSE)), flow.shape[-2:])
    return {
        "no motion": first,
        "one shift": backward_warp(first, -mean)[0],  # for one shift, the backward field is the forward one, negated
        "16x16 shifts": splat_average(first, coarse)[0],
        "every pixel": splat_average(first, flow)[0],
        "nearest wins": splat_softmax(first, flow, 10.0 * near.float().view(1, 1, *near.shape))[0],
    }


def run(seed: int) -> dict:
    """Carries one photo along the fields of all kinds of scenes.

    Args:
        seed: chooses the photo.

    Returns:
        kind -> way -> the PSNR in decibels of each of MEANS, over the pixels on which something lands; and `holes`, the
        share of the others.
    """
    photos = [Image.open(path) for path in sorted((find_samples() / "photos").glob("*.jpg"))]
    photo, near = photos[seed % len(photos)], photos[(seed + 2) % len(photos)]
    values: dict = {}
    for kind in KINDS:
        table: dict = {way: [] for way in (*WAYS, "holes")}
        for mean in MEANS:
            scene = view(kind, mean, photo, near, SIDE)
            first, last = (torch.from_numpy(frame).permute(2, 0, 1)[None].float() for frame in scene.frames)
            landed = splat_average(first, scene.flow)[1] > 0
            landed &= splat_average(first, resize(resize(scene.flow, (COARSE, COARSE)), (SIDE, SIDE)))[1] > 0
            for way, guess in carried(first, scene.flow, scene.near).items():
                table[way].append(float(psnr(guess, last, mask=landed, max=255.0)))
            table["holes"].append(float((splat_average(first, scene.flow)[1] == 0).float().mean()))
        values[kind] = {name: np.array(row).tolist() for name, row in table.items()}
    return values
