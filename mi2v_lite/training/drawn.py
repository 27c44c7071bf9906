"""Clips of the world, drawn anew for every update: the training never sees one twice, and none is kept on the disk.

The seed of each clip comes from the draws of its sample, and the world draws the same clip for it on any device and in
any batch. Nothing is encoded beforehand: these batches have frames and fields, and the objectives encode them where
they train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from mi2v_lite.data.clips import Clips
from mi2v_lite.data.lite_world import LiteWorld
from mi2v_lite.flow.fields import to_unit
from mi2v_lite.io.pixels import frames_tensor, to_uint8
from mi2v_lite.training.curriculum import Config
from mi2v_lite.training.draws import Draws
from mi2v_lite.training.latents import encoder_on

Batch = dict[str, Tensor]
SEEDS = 2**31  # of how many clips of the world a training draws


def open_world(config: Config, runs: Path, split: str, device: Any = "cpu") -> LiteWorld:
    """The world that the section `world` of a config describes.

    Args:
        config: the curriculum.
        runs: the folder that the names in the config are below.
        split: "train" or "heldout".
        device: where it is drawn.
    """
    world = config.world
    things = runs / world.things if world.things else None
    more = {"sprites": runs / world.sprites} if world.sprites else {}
    more |= {"size": world.size, "num_frames": world.num_frames}
    return LiteWorld(photos=runs / world.photos, things=things, split=split, device=device, **more)


def tokens_of(captions: Sequence[str], tokenizer: CLIPTokenizer, length: int) -> Tensor:
    """The captions as tokens, `(B, length)`."""
    settings = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
    return tokenizer(list(captions), **settings).input_ids


class _Pictures:
    """What the two sources of clips as pictures share.

    Args:
        tokenizer: of the captions.
        length: the number of tokens that a caption is padded to.
        whole: whether a batch has the frames to which its fields go, too, or frame 0 alone.
        single: whether it has one motion field of each clip, drawn at random, or all of them.
        text_dropout: the share of the captions that are left empty.
    """

    order = None  # no clip has its turn

    def __init__(self, tokenizer: CLIPTokenizer, length: int, whole: bool, single: bool, text_dropout: float) -> None:
        self.tokenizer, self.length, self.text_dropout = tokenizer, length, text_dropout
        self.whole, self.single = whole, single

    def _later(self, draws: Draws, count: int) -> list[int] | None:
        """Which of the `count` fields each sample has, from 1 on; None for all of them."""
        return (1 + draws.randint(count)).tolist() if self.single else None

    def _strides(self, strides: Tensor, later: list[int] | None, count: int) -> Tensor:
        """Source frames from frame 0 to each field, `(B, N or 1)`, from those between two frames, `(B,)`."""
        return strides[:, None] * (torch.arange(1, count + 1) if later is None else torch.tensor(later)[:, None])

    def _tokens(self, draws: Draws, captions: Sequence[str]) -> Tensor:
        empty = (draws.rand() < self.text_dropout).tolist()
        kept = ["" if drop else caption for caption, drop in zip(captions, empty, strict=True)]
        return tokens_of(kept, self.tokenizer, self.length)


class WorldBatches(_Pictures):
    """Clips of the world for the denoising objectives. What is not named here is told in `_Pictures`.

    Args:
        world: of the split "train".
    """

    def __init__(self, world: LiteWorld, *shared: Any, **more: Any) -> None:
        super().__init__(*shared, **more)
        self.world, self.folder, size = world, "the world", world.sources.size
        self.shape = (world.sources.num_frames, size, size)

    def draw(self, draws: Draws) -> Batch:
        """A clip for each sample.

        Returns:
            `frames` `(B, F, 3, H, W)` in [-1, 1], where F is 1, 2 or all; `flow` `(B, N or 1, 2, H, W)` in pixels;
            `labels` `(B, H, W)` (see `LiteWorld`); `stride` `(B, N or 1)` in source frames after frame 0; and `tokens`
            `(B, L)`.
        """
        seeds, count = draws.randint(SEEDS).tolist(), self.shape[0] - 1
        later = self._later(draws, count)
        # Only of pasted things it is known what they uncover.
        drawn = self.world.batch(seeds, frames="all" if self.whole else "first", later=later, pasted=self.whole)
        return {
            "frames": drawn.frames,
            "flow": drawn.flow,
            "labels": drawn.labels,
            "stride": self._strides(drawn.stride.cpu(), later, count),
            "tokens": self._tokens(draws, drawn.captions),
        }


class PictureBatches(_Pictures):
    """Clips of a store in the form that `WorldBatches` have, to be mixed with them.

    Args:
        clips: the store.
    """

    def __init__(self, clips: Clips, *shared: Any, **more: Any) -> None:
        super().__init__(*shared, **more)
        self.clips, self.folder, self.shape = clips, clips.folder, tuple(clips.frames.shape[1:4])

    def draw(self, draws: Draws) -> Batch:
        """A clip for each sample, see `WorldBatches.draw`; nobody knows whose its pixels are, so all labels are 0."""
        chosen, count = draws.randint(len(self.clips)).tolist(), self.shape[0] - 1
        later = self._later(draws, count)
        fields = [slice(None)] * len(chosen) if later is None else [slice(i - 1, i) for i in later]
        frames = [slice(None) if self.whole else slice(1)] * len(chosen)
        if self.whole and later is not None:
            frames = [[0, i] for i in later]
        flow = [np.array(self.clips.flow[i][field]) for i, field in zip(chosen, fields, strict=True)]
        strides = torch.tensor([int(self.clips.strides[i]) for i in chosen])
        return {
            "frames": torch.stack(
                [frames_tensor(self.clips.frames[i][shown]) for i, shown in zip(chosen, frames, strict=True)]
            ),
            "flow": torch.from_numpy(np.stack(flow)).float(),
            "labels": torch.zeros(len(chosen), *self.shape[1:], dtype=torch.int64),
            "stride": self._strides(strides, later, count),
            "tokens": self._tokens(draws, [self.clips.captions[i] for i in chosen]),
        }


class WorldFields:
    """Single motion fields of the world, for a flow autoencoder.

    Args:
        world: where they come from.
        amplitude: a field is multiplied by a random number between these two.
    """

    def __init__(self, world: LiteWorld, amplitude: tuple[float, float]) -> None:
        self.world, self.amplitude = world, amplitude

    def draw(self, draws: Draws) -> Batch:
        """A field for each sample, see `batch`."""
        return self.batch(draws.generators)

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """A field from each generator: `flow`, `(B, 2, H, W)` pixels."""
        draws, (low, high) = Draws(tuple(generators), (), 0), self.amplitude
        seeds, later = draws.randint(SEEDS).tolist(), draws.randint(self.world.sources.num_frames - 1) + 1
        flow = self.world.batch(seeds, frames="first", later=later.tolist()).flow[:, 0]
        return {"flow": flow * (low + (high - low) * draws.rand()).to(flow).view(-1, 1, 1, 1)}


@dataclass(frozen=True)
class DrawnClips:
    """Clips of the world in memory: `data.clips.Clips` that also know whose pixels are whose.

    Attributes:
        frames: uint8 `(C, F or 1, H, W, 3)`.
        flow: float32 `(C, N, 2, H, W)`, pixels.
        visibility: bool `(C, N, H, W)`.
        captions: C strings.
        strides: C whole numbers.
        labels: int64 `(C, H, W)`, see `LiteWorld`.
        folder: what stands in messages.
    """

    frames: np.ndarray
    flow: np.ndarray
    visibility: np.ndarray
    captions: list[str]
    strides: list[int]
    labels: np.ndarray
    folder: Path = Path("the world")

    def __len__(self) -> int:
        return len(self.captions)


def draw_clips(
    world: LiteWorld, count: int, whole: bool, vaes: dict[str, AutoencoderKL], device: Any, precision: str
) -> tuple[DrawnClips, dict[str, np.ndarray]]:
    """Draws the clips of the seeds 0, 1, 2, ... and encodes them, to validate with.

    Args:
        world: of the split "heldout".
        count: C, the number of clips.
        whole: whether they have all frames, or frame 0 alone.
        vaes: the autoencoders by "image" and "flow".
        device: where they encode.
        precision: "bf16" encodes under autocast.

    Returns:
        The clips, and `image_latents` `(C, F or 1, C', h, w)` and `flow_latents` without `scaling_factor`.
    """
    parts = [
        world.batch(range(seed, min(seed + 4, count)), frames="all" if whole else "first", pasted=whole)
        for seed in range(0, count, 4)
    ]
    latents = {}
    for kind, vae in vaes.items():
        with encoder_on(device, vae, precision) as encoded:
            pictures = (part.frames if kind == "image" else to_unit(part.flow).clamp(0, 1) for part in parts)
            latents[f"{kind}_latents"] = np.concatenate([encoded(picture).numpy() for picture in pictures])
    columns = {
        name: np.concatenate([np.asarray(getattr(part, name).cpu()) for part in parts])
        for name in ("flow", "visibility", "labels", "stride")
    }
    frames = np.concatenate([to_uint8(part.frames.cpu()) for part in parts])
    captions = [caption for part in parts for caption in part.captions]
    strides = columns.pop("stride").tolist()
    return DrawnClips(frames, captions=captions, strides=strides, **columns), latents
