"""The lite world: scenes with exact motion, drawn anew for every update from one seed each.

    world = LiteWorld("runs/photos", things="runs/things")
    batch = world.batch(range(16), later=[15] * 16)   # frame 0, one exact motion field each, captions
    clip = world.clip(7)                              # 16 frames, all fields

It stands in for WebVid with estimated flow (Motion-I2V, Section 4.1): here the flow f_{0->i} is known. `scene_plan.py`
says what happens in a scene, and `scene_drawing.py` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from mi2v_lite.data.clips import SPLITS, Clip
from mi2v_lite.data.photo_bank import PhotoBank
from mi2v_lite.data.scene_drawing import WorldBatch, draw
from mi2v_lite.data.scene_plan import SCENES, ScenePlan, Sources, plan_scene
from mi2v_lite.data.things import read_things


class LiteWorld:
    """Draws scenes; the same seed gives the same scene, alone or in a batch, on any device. A `ClipSource`.

    Args:
        photos: a folder with `train/` and `heldout/`, or one with photos.
        sprites: a folder of glyph PNGs, or one that holds `train/` and `heldout/`; None takes those that come with
            mi2v_lite.
        things: the folder that `tools.things.masks` writes; None for a world without things of photos.
        split: "train" or "heldout". It chooses the folders and keeps the seeds of the splits apart.
        size: the side of the square frames, in pixels.
        num_frames: F of a clip.
        device: where the scenes are drawn.
        photo_scenes: how often things of the photo itself move, where that is possible.
        scenes: one of `scene_plan.SCENES`: "all"; "resting", whose camera rests, with at least one thing; "pans", in
            which the camera pans and there is nothing else; "cameras", in which it moves in any way; "drifts", whose
            camera rests while one thing drifts; "solos", in which it moves in any way; or "choices", whose
            camera rests while of several things one or two move, and the caption does not name the others.

    Raises:
        ValueError: there is nothing to draw from, or there is no such split, or no such scenes.
    """

    def __init__(
        self,
        photos: str | Path,
        sprites: str | Path | None = None,
        things: str | Path | None = None,
        split: str = "train",
        size: int = 128,
        num_frames: int = 16,
        device: str | torch.device = "cpu",
        photo_scenes: float = 0.5,
        scenes: str = "all",
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; choose 'train' or 'heldout'")
        self.scenes = _known(scenes)
        if sprites is None:
            from mi2v_lite.data.samples import find_samples

            sprites = find_samples() / "sprites"
        folder = Path(sprites) / split
        glyphs = sorted((folder if folder.is_dir() else Path(sprites)).glob("*.png"))
        if not glyphs:
            raise ValueError(f"no PNG glyphs in {sprites} or {folder}; the repository has some in data_samples/sprites")
        bank = PhotoBank(photos, split)
        listed = read_things(Path(things), split) if things is not None else []
        known = [thing for thing in listed if thing.photo in bank.numbers]
        if listed and not known:
            raise ValueError(f"none of the {len(listed)} photos with things of {things} is in {photos}")
        self.sources = Sources(bank, glyphs, known, size, num_frames, None if things is None else Path(things))
        self.split, self.device = split, torch.device(device)
        self.photo_scenes = photo_scenes if known else 0.0

    def only(self, scenes: str) -> LiteWorld:
        """The same world with some of its scenes alone; photos and things are held once for both.

        Args:
            scenes: as in the constructor.

        Raises:
            ValueError: there are no such scenes.
        """
        world = copy(self)
        world.scenes = _known(scenes)
        return world

    def plan(self, seed: int, pasted: bool = False) -> ScenePlan:
        """What happens in the scene of this seed (an integer, 0 or more).

        Args:
            seed: of everything random.
            pasted: whether all things are pasted, so that every pixel of every frame is known.
        """
        key = [SPLITS[self.split], seed, int(pasted)]
        photo_scene = not pasted and np.random.default_rng([*key, 1]).random() < self.photo_scenes
        return plan_scene(self.sources, key, photo_scene, self.scenes)

    def batch(
        self,
        seeds: Sequence[int],
        frames: Literal["first", "all"] = "first",
        later: Sequence[int] | None = None,
        pasted: bool = False,
    ) -> WorldBatch:
        """The scenes of B seeds.

        Args:
            seeds: of the scenes.
            frames: "first" draws frame 0 alone, "all" also the frames to which the fields go.
            later: one later frame of each scene, 1 to N, to which its only field goes; None gives all N fields.
            pasted: whether all things are pasted, which is needed where all frames are drawn.

        Raises:
            ValueError: all frames of scenes with things of the photo itself are asked for, or `later` does not fit.
        """
        last = self.sources.num_frames - 1
        if frames not in ("first", "all"):
            raise ValueError(f"frames is {frames!r}; choose 'first' or 'all'")
        if frames == "all" and not pasted:
            raise ValueError(
                "where a thing of the photo itself moves, nobody knows what was behind it, so there is only frame 0: "
                "ask for frames='first', or for pasted=True"
            )
        if later is not None and (len(later) != len(seeds) or not all(1 <= frame <= last for frame in later)):
            raise ValueError(f"`later` is {list(later)}; give {len(seeds)} frames from 1 to {last}, one for each seed")
        plans = [self.plan(int(seed), pasted) for seed in seeds]
        fields = [list(range(1, last + 1))] * len(plans) if later is None else [[int(frame)] for frame in later]
        return draw(plans, self.sources, fields, frames == "all", self.device)

    def clip(self, seed: int) -> Clip:
        """The clip of this seed: all things are pasted, and all frames are drawn."""
        batch = self.batch([seed], frames="all", pasted=True)
        frames = batch.frames[0].add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        flow, visibility = batch.flow[0].cpu().numpy(), batch.visibility[0].cpu().numpy()
        return Clip(frames, flow, visibility, batch.captions[0], int(batch.stride[0]))


def _known(scenes: str) -> str:
    if scenes not in SCENES:
        raise ValueError(f"scenes is {scenes!r}; choose one of {', '.join(SCENES)}")
    return scenes
