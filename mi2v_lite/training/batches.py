"""Batches as pure functions of (seed, index), so that a resumed training sees what an uninterrupted one would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer

from mi2v_lite.data.shard_reader import Column, Order, ShardSet, open_clips
from mi2v_lite.data.store import ClipStore
from mi2v_lite.io.pixels import frames_tensor

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LONGEST_SHORT_SIDE = 512  # photos are shrunk to this on loading: the smallest crop is then 128 px of the default scale


def generator_for(*key: int) -> torch.Generator:
    """A CPU generator that depends on all of `key` (seed, step, rank, ...) and on nothing else."""
    state = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


@dataclass(frozen=True)
class Draws:
    """The randomness of the samples of a batch: a generator for each, so that a sample is the same in any process.

    Attributes:
        generators: one a sample.
        first: place of the first sample in the batch of all processes together.
        total: samples in that batch.
        batch: how many such batches came before in this training.
    """

    generators: tuple[torch.Generator, ...]
    first: int
    total: int
    batch: int = 0

    @classmethod
    def of(cls, *key: int, count: int, rank: int = 0, processes: int = 1, batch: int = 0) -> Draws:
        """The draws of process `rank` of `processes`, `count` samples each, from what `key` says."""
        first = rank * count
        return cls(tuple(generator_for(*key, first + i) for i in range(count)), first, count * processes, batch)

    def only(self, i: int) -> Draws:
        """The draws of the sample with the generator `i` alone."""
        return Draws(self.generators[i : i + 1], self.first + i, self.total, self.batch)

    def positions(self) -> range:
        """Places of the samples among all that the training draws: what an `Order` of shards is asked with."""
        start = self.batch * self.total + self.first
        return range(start, start + len(self.generators))

    def stack(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        """`draw` for every sample, stacked along a new first dimension."""
        return torch.stack([draw(generator) for generator in self.generators])

    def randn(self, *shape: int) -> Tensor:
        """Normal numbers, `(count, *shape)`."""
        return self.stack(lambda generator: torch.randn(shape, generator=generator))

    def strata(self) -> Tensor:
        """`(count,)` in [0, 1), uniform, one in each of `total` equal parts over all processes."""
        u = self.stack(lambda generator: torch.rand((), generator=generator))
        return (torch.arange(self.first, self.first + len(u)) + u) / self.total


class PhotoCrops:
    """Random crops of a folder of photos, held in memory as uint8.

    Args:
        folder: searched for pictures, also in its subfolders.
        size: side of the crops in pixels.
        scale: the crop's side as a share of the photo's short side, drawn from this range.
        jitter: brightness, contrast and saturation vary by up to this share; 0 gives plain crops.
        clips: a store whose frames are mixed in, if any.
        clip_share: how many of the crops are whole frames of that store.

    Raises:
        ValueError: if the folder holds no pictures.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int = 128,
        scale: tuple[float, float] = (0.25, 1.0),
        jitter: float = 0.1,
        clips: str | Path | None = None,
        clip_share: float = 0.0,
    ) -> None:
        paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise ValueError(f"No pictures ({', '.join(SUFFIXES)}) in {folder}: fill it, or name another folder.")
        self.size, self.scale, self.jitter = size, tuple(scale), jitter
        self.photos = [_load(path) for path in paths]
        self.frames, self.clip_share = (ClipStore(clips).frames if clips else None), clip_share

    def __len__(self) -> int:
        return len(self.photos)

    def batch(self, generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """`{"images": (B, 3, size, size) in [-1, 1]}`, a crop from each generator."""
        return {"images": torch.stack([self._crop(generator) for generator in generators])}

    def _crop(self, generator: torch.Generator) -> Tensor:
        u = torch.rand(9, generator=generator).tolist()
        if self.frames is not None and u[8] < self.clip_share:
            clips, frames = self.frames.shape[:2]
            frame = self.frames[min(int(u[0] * clips), clips - 1), min(int(u[1] * frames), frames - 1)]
            return frames_tensor(frame)
        photo = self.photos[min(int(u[0] * len(self.photos)), len(self.photos) - 1)]
        short = min(photo.size)
        side = short * (self.scale[0] + (self.scale[1] - self.scale[0]) * u[1])
        left, top = u[2] * (photo.width - side), u[3] * (photo.height - side)
        box = (left, top, left + side, top + side)
        crop = photo.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        image = torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 255
        if u[4] < 0.5:
            image = image.flip(-1)
        if self.jitter:
            brightness, contrast, saturation = (1 + self.jitter * (2 * value - 1) for value in u[5:8])
            image = image * brightness
            image = image.mean() + (image - image.mean()) * contrast
            grey = image.mean(0, keepdim=True)
            image = (grey + (image - grey) * saturation).clamp(0, 1)
        return image * 2 - 1

    def fixed(self, count: int, seed: int = 0) -> dict[str, Tensor]:
        """The same `count` crops at every call, without jitter."""
        jitter, self.jitter = self.jitter, 0.0
        try:
            return self.batch([generator_for(seed)] * count)
        finally:
            self.jitter = jitter


def _load(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        opened.draft("RGB", (2 * LONGEST_SHORT_SIDE, 2 * LONGEST_SHORT_SIDE))
        photo = opened.convert("RGB")
    ratio = LONGEST_SHORT_SIDE / min(photo.size)
    if ratio < 1:
        photo = photo.resize((round(photo.width * ratio), round(photo.height * ratio)), Image.Resampling.LANCZOS)
    return photo


class _Clips:
    """Clips of a store, of which a random one is drawn each time, or of shards, of which each comes once an epoch."""

    def __init__(self, folder: str | Path, seed: int) -> None:
        self.folder, self.store = Path(folder), open_clips(folder)
        shards = self.store.shards if isinstance(self.store, ShardSet) else None
        self.order = None if shards is None else Order([count for _, count in shards], seed)

    def __len__(self) -> int:
        return len(self.store)

    def in_order(self, draws: Draws) -> list[int] | None:
        """The clips that the order of shards has for these draws; None for a store."""
        return None if self.order is None else [self.order[position] for position in draws.positions()]


class ClipBatches(_Clips):
    """Samples of a store or of shards with their cached latents and tokens, for the objectives on motion and frames.

    Args:
        folder: the store or the shards.
        tokenizer: of the captions.
        length: tokens a caption is padded to.
        image_latents, flow_latents: from `cached_latents`, `(clips, F or N, C, h, w)`; None if not needed.
        with_flow: also give the flow in pixels.
        seed: of the order of shards.
    """

    def __init__(
        self,
        folder: str | Path,
        tokenizer: CLIPTokenizer,
        length: int,
        image_latents: np.ndarray | Column,
        flow_latents: np.ndarray | Column | None = None,
        with_flow: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(folder, seed)
        self.image_latents, self.flow_latents, self.with_flow = image_latents, flow_latents, with_flow
        self.tokenizer, self.length = tokenizer, length

    def tokens(self, texts: list[str]) -> Tensor:
        """`(B, L)` of captions."""
        options = {"padding": "max_length", "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        return self.tokenizer(texts, **options).input_ids

    def draw(self, draws: Draws, text_dropout: float) -> dict[str, Tensor]:
        """A clip for each generator, see `clips`; a caption is empty with the probability `text_dropout`."""
        chosen = self.in_order(draws)
        if chosen is None:
            chosen = [int(torch.randint(len(self), (), generator=generator)) for generator in draws.generators]
        dropped = [bool(torch.rand((), generator=generator) < text_dropout) for generator in draws.generators]
        return self.clips(chosen, dropped)

    def clips(self, indices: list[int], dropped: Sequence[bool] = ()) -> dict[str, Tensor]:
        """These clips, those that are `dropped` without words: `image_latents (B, C, F, h, w)`,
        `flow_latents (B, C, N, h, w)`, `stride (B, N)` source frames after frame 0, `tokens (B, L)`,
        `flow (B, N, 2, H, W)` pixels. Latents are without scale, all is on the CPU.
        """
        steps = torch.arange(1, self.store.flow.shape[1] + 1)
        dropped = dropped or [False] * len(indices)
        texts = ["" if drop else self.store.captions[i] for i, drop in zip(indices, dropped, strict=True)]
        strides = torch.as_tensor([int(self.store.strides[i]) for i in indices])
        batch = {
            "image_latents": _stack(self.image_latents, indices).transpose(1, 2),
            "stride": strides[:, None] * steps,
            "tokens": self.tokens(texts),
        }
        if self.flow_latents is not None:
            batch["flow_latents"] = _stack(self.flow_latents, indices).transpose(1, 2)
        if self.with_flow:
            batch["flow"] = _stack(self.store.flow, indices)
        return batch


class InTurn:
    """Batches from several stores: a training's first sample from the first, its second from the second, and so on.

    Raises:
        ValueError: if one of them is a set of shards, whose clips come once an epoch: here some would miss their turn;
            or if their clips differ in shape, as pairs of frames and whole clips do.
    """

    def __init__(self, sources: Sequence[ClipBatches]) -> None:
        if any(source.order is not None for source in sources):
            raise ValueError(
                "mixed_with takes clips in turn from stores, not from shards; give stores, or shards alone."
            )
        shapes = {source.store.frames.shape[1:4]: source.folder for source in sources}
        if len(shapes) > 1:
            told = ", ".join(f"{folder} has {' x '.join(map(str, shape))}" for shape, folder in shapes.items())
            raise ValueError(f"mixed_with: clips of one batch must have the same frames x height x width, but {told}.")
        self.sources = tuple(sources)

    def draw(self, draws: Draws, text_dropout: float) -> dict[str, Tensor]:
        """A clip for each generator, as `ClipBatches.draw`; a sample has the same source in any number of processes."""
        drawn = [
            self.sources[position % len(self.sources)].draw(draws.only(i), text_dropout)
            for i, position in enumerate(draws.positions())
        ]
        return {name: torch.cat([batch[name] for batch in drawn]) for name in drawn[0]}


class FlowFields(_Clips):
    """Single motion fields: a random frame of a clip, so a random stride; flipped and scaled at random."""

    def __init__(self, folder: str | Path, amplitude: tuple[float, float] = (0.5, 1.3), seed: int = 0) -> None:
        super().__init__(folder, seed)
        self.amplitude = tuple(amplitude)

    def batch(self, generators: Sequence[torch.Generator], chosen: list[int] | None = None) -> dict[str, Tensor]:
        """`{"flow": (B, 2, H, W) pixels}`, a field from each generator, of the clips `chosen` or of random ones."""
        picked = chosen or [None] * len(generators)
        return {"flow": torch.stack([self._field(*pair) for pair in zip(generators, picked, strict=True)])}

    def _field(self, generator: torch.Generator, chosen: int | None) -> Tensor:
        u = torch.rand(5, generator=generator).tolist()
        clips, frames = self.store.flow.shape[:2]
        index = min(int(u[0] * clips), clips - 1) if chosen is None else chosen
        field = self.store.flow[index][min(int(u[1] * frames), frames - 1)]
        flow = torch.from_numpy(np.array(field)).float()
        if u[2] < 0.5:  # mirrored left and right: the x components point the other way
            flow = flow.flip(-1) * torch.tensor([-1.0, 1.0]).view(2, 1, 1)
        if u[3] < 0.5:
            flow = flow.flip(-2) * torch.tensor([1.0, -1.0]).view(2, 1, 1)
        return flow * (self.amplitude[0] + (self.amplitude[1] - self.amplitude[0]) * u[4])


def _stack(array: np.ndarray, indices: list[int]) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(array[i])).float() for i in indices])
