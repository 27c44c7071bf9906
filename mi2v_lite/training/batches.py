"""From photos and clips to batches: each depends on its draws alone, so a resumed training sees the same ones.

Every source has `draw(draws)`, which returns tensors by name. `photo_source`, `field_source` and `clip_source` open
what the `data` of a step names: clips on disk, whose latents are encoded once and kept, or the world, see `drawn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from mi2v_lite.data.clips import Clips, open_clips
from mi2v_lite.data.lite_world import LiteWorld
from mi2v_lite.data.shards import Column, Order, ShardSet
from mi2v_lite.io.files import brief, check_ordinary
from mi2v_lite.io.images import IMAGE_SUFFIXES, check_pixels
from mi2v_lite.io.pixels import frames_tensor
from mi2v_lite.training.curriculum import Config, Step
from mi2v_lite.training.drawn import (
    Batch,
    PictureBatches,
    WorldBatches,
    WorldFields,
    draw_clips,
    open_world,
    tokens_of,
)
from mi2v_lite.training.draws import Draws, generator_for
from mi2v_lite.training.latents import cached_latents
from mi2v_lite.training.schema import WORLD, ClipData, FieldData
from mi2v_lite.training.step_models import load_tokenizer

HELDOUT = 32  # clips of the held-out world to validate with
LARGEST_PHOTO = 512  # pixels of the shorter side that are kept: at the default scale the smallest crop then has 128


class PhotoCrops:
    """Random crops of the photos in a folder, which are held in memory.

    Args:
        folder: searched for pictures, also in its subfolders.
        size: side of the crops in pixels.
        scale: smallest and largest side of a crop as a share of the photo's shorter side.
        jitter: brightness, contrast and saturation vary by up to this share; 0 gives plain crops.
        frames_from: clips or a world whose frames are mixed in, if any.
        frames_share: the share of the crops that are whole frames of these.

    Raises:
        ValueError: If the folder holds no pictures.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int = 128,
        scale: tuple[float, float] = (0.25, 1.0),
        jitter: float = 0.1,
        frames_from: str | Path | LiteWorld | None = None,
        frames_share: float = 0.0,
    ) -> None:
        paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise ValueError(f"No pictures ({', '.join(IMAGE_SUFFIXES)}) in {folder}: fill it, or name another folder.")
        self.size, self.scale, self.jitter = size, tuple(scale), jitter
        self.photos = [_load(path) for path in paths]
        self.world = frames_from if isinstance(frames_from, LiteWorld) else None
        self.frames = open_clips(frames_from).frames if frames_from and self.world is None else None
        self.frames_share = frames_share

    def __len__(self) -> int:
        return len(self.photos)

    def draw(self, draws: Draws) -> Batch:
        """A crop for each sample, see `batch`."""
        return self.batch(draws.generators)

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """A crop from each generator: `images`, `(B, 3, size, size)` in [-1, 1]."""
        images = torch.stack([self._crop(generator) for generator in generators])
        if self.world is None:
            return {"images": images}
        u = torch.stack([torch.rand(2, generator=generator) for generator in generators])
        drawn = (u[:, 0] < self.frames_share).nonzero().flatten()
        images = images.to(self.world.device)
        if len(drawn):
            seeds = (u[drawn, 1] * 2**24).long().tolist()
            images[drawn.to(images.device)] = self.world.batch(seeds, frames="first", pasted=True).frames[:, 0]
        return {"images": images}

    def _crop(self, generator: torch.Generator) -> Tensor:
        u = torch.rand(9, generator=generator).tolist()
        if self.frames is not None and u[8] < self.frames_share:
            clip, frame = _index(u[0], self.frames.shape[0]), _index(u[1], self.frames.shape[1])
            return frames_tensor(self.frames[clip][frame])
        photo = self.photos[_index(u[0], len(self.photos))]
        side = min(photo.size) * (self.scale[0] + (self.scale[1] - self.scale[0]) * u[1])
        left, top = u[2] * (photo.width - side), u[3] * (photo.height - side)
        box = (left, top, left + side, top + side)
        crop = photo.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        image = torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 255  # (3, size, size)
        if u[4] < 0.5:
            image = image.flip(-1)
        if self.jitter:
            brightness, contrast, saturation = (1 + self.jitter * (2 * value - 1) for value in u[5:8])
            image = image * brightness
            image = image.mean() + (image - image.mean()) * contrast
            grey = image.mean(0, keepdim=True)
            image = (grey + (image - grey) * saturation).clamp(0, 1)
        return image * 2 - 1


def _index(u: float, count: int) -> int:
    """A number in [0, 1) to a place among `count`; float32 may have rounded it up to 1."""
    return min(int(u * count), count - 1)


def _load(path: Path) -> Image.Image:
    check_ordinary(path)
    check_pixels(path)
    try:
        with Image.open(path) as opened:
            opened.draft("RGB", (2 * LARGEST_PHOTO, 2 * LARGEST_PHOTO))
            photo = opened.convert("RGB")
    except Exception as error:  # the plugins of Pillow raise errors of many kinds for damaged files
        raise ValueError(f"{path} cannot be read as a picture ({brief(error)}); remove it from the folder.") from error
    ratio = LARGEST_PHOTO / min(photo.size)
    if ratio < 1:
        photo = photo.resize((round(photo.width * ratio), round(photo.height * ratio)), Image.Resampling.LANCZOS)
    return photo


class _Clips:
    """Clips of which a random one is drawn each time; of shards, each comes once an epoch."""

    def __init__(self, source: str | Path | Clips, seed: int) -> None:
        self.clips = open_clips(source)
        self.folder = self.clips.folder
        shards = self.clips.shards if isinstance(self.clips, ShardSet) else None
        self.order = None if shards is None else Order([count for _, count in shards], seed)

    def __len__(self) -> int:
        return len(self.clips)

    def in_order(self, draws: Draws) -> list[int] | None:
        """The clips whose turn it is, for shards; None for anything else."""
        return None if self.order is None else [self.order[position] for position in draws.positions()]


class FlowFields(_Clips):
    """Single motion fields: of a clip one frame, so one stride, at random; flipped and scaled at random.

    Args:
        source: the clips, or what `open_clips` opens.
        amplitude: a field is multiplied by a random number between these two.
        seed: of the order of shards.
    """

    def __init__(self, source: str | Path | Clips, amplitude: tuple[float, float] = (0.5, 1.3), seed: int = 0) -> None:
        super().__init__(source, seed)
        self.amplitude = tuple(amplitude)

    def draw(self, draws: Draws) -> Batch:
        """A field for each sample, see `batch`."""
        return self.batch(draws.generators, self.in_order(draws))

    def batch(self, generators: Sequence[torch.Generator], chosen: list[int] | None = None) -> Batch:
        """A field from each generator, of the clips `chosen` or of random ones: `flow`, `(B, 2, H, W)` pixels."""
        clips = chosen or [None] * len(generators)
        return {"flow": torch.stack([self._field(*pair) for pair in zip(generators, clips, strict=True)])}

    def _field(self, generator: torch.Generator, clip: int | None) -> Tensor:
        u = torch.rand(5, generator=generator).tolist()
        clips, frames = self.clips.flow.shape[:2]
        clip = _index(u[0], clips) if clip is None else clip
        flow = torch.from_numpy(np.array(self.clips.flow[clip][_index(u[1], frames)])).float()  # (2, H, W)
        if u[2] < 0.5:  # mirrored left and right: the x components point the other way
            flow = flow.flip(-1) * torch.tensor([-1.0, 1.0]).view(2, 1, 1)
        if u[3] < 0.5:
            flow = flow.flip(-2) * torch.tensor([1.0, -1.0]).view(2, 1, 1)
        return flow * (self.amplitude[0] + (self.amplitude[1] - self.amplitude[0]) * u[4])


class ClipBatches(_Clips):
    """Clips with their cached latents and their captions as tokens, for the denoising objectives.

    Args:
        source: the clips, or what `open_clips` opens.
        tokenizer: of the captions.
        length: the number of tokens that a caption is padded to.
        image_latents: from `cached_latents`, by clip `(F, C, h, w)`.
        flow_latents: from `cached_latents`, by clip `(N, C, h, w)`; None if they are not needed.
        with_flow: whether a batch also has the flow in pixels.
        text_dropout: the share of the captions that are left empty.
        seed: of the order of shards.
        labels: who owns each pixel of frame 0, `(C, H, W)`; None where nobody knows.
    """

    def __init__(
        self,
        source: str | Path | Clips,
        tokenizer: CLIPTokenizer,
        length: int,
        image_latents: np.ndarray | Column,
        flow_latents: np.ndarray | Column | None = None,
        with_flow: bool = False,
        text_dropout: float = 0.0,
        seed: int = 0,
        labels: np.ndarray | None = None,
    ) -> None:
        super().__init__(source, seed)
        self.labels, self.shape = labels, tuple(self.clips.frames.shape[1:4])
        self.image_latents, self.flow_latents, self.with_flow = image_latents, flow_latents, with_flow
        self.tokenizer, self.length, self.text_dropout = tokenizer, length, text_dropout

    def draw(self, draws: Draws) -> Batch:
        """A clip for each sample, see `batch`."""
        chosen = self.in_order(draws)
        if chosen is None:
            chosen = draws.randint(len(self)).tolist()
        return self.batch(chosen, (draws.rand() < self.text_dropout).tolist())

    def batch(self, chosen: Sequence[int], without_text: Sequence[bool] = ()) -> Batch:
        """These clips as a batch.

        Args:
            chosen: the numbers of the clips.
            without_text: whether the caption is left empty, for each clip; all are kept by default.

        Returns:
            `image_latents` `(B, C, F, h, w)` and `flow_latents` `(B, C, N, h, w)` without `scaling_factor`, `stride`
            `(B, N)` in source frames after frame 0, `tokens` `(B, L)`, `flow` `(B, N, 2, H, W)` in pixels, and `labels`
            `(B, H, W)`.
        """
        empty = without_text or [False] * len(chosen)
        captions = ["" if drop else self.clips.captions[i] for i, drop in zip(chosen, empty, strict=True)]
        strides = torch.as_tensor([int(self.clips.strides[i]) for i in chosen])
        batch = {
            "image_latents": _stack(self.image_latents, chosen).transpose(1, 2),
            "stride": strides[:, None] * torch.arange(1, self.clips.flow.shape[1] + 1),
            "tokens": tokens_of(captions, self.tokenizer, self.length),
        }
        if self.flow_latents is not None:
            batch["flow_latents"] = _stack(self.flow_latents, chosen).transpose(1, 2)
        if self.with_flow:
            batch["flow"] = _stack(self.clips.flow, chosen)
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[list(chosen)])
        return batch


def _stack(array: np.ndarray | Column, indices: Sequence[int]) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(array[i])).float() for i in indices])


class InTurn:
    """Batches from several sources: a training's first sample from the first, its second from the second, and so on.

    Args:
        sources: in this order; the same may come more than once.
        device: where the batches are.

    Raises:
        ValueError: If one of them is a set of shards, whose clips come once an epoch: here some would miss their turn.
            Or if their clips differ in shape, as pairs of frames and whole clips do.
    """

    def __init__(self, sources: Sequence[ClipBatches | PictureBatches | WorldBatches], device: Any = "cpu") -> None:
        if any(source.order is not None for source in sources):
            raise ValueError(
                "mixed_with takes clips in turn from stores, not from shards; give stores, or shards alone."
            )
        shapes = {source.shape: source.folder for source in sources}
        if len(shapes) > 1:
            sizes = ", ".join(f"{folder} has {' x '.join(map(str, shape))}" for shape, folder in shapes.items())
            raise ValueError(f"mixed_with: clips of one batch must have the same frames x height x width, but {sizes}.")
        self.sources, self.device = tuple(sources), device

    def draw(self, draws: Draws) -> Batch:
        """A clip for each sample; which source a sample comes from is the same in any number of processes."""
        turns = [self.sources[position % len(self.sources)] for position in draws.positions()]
        order, parts = [], []
        for source in dict.fromkeys(turns):
            samples = [i for i, turn in enumerate(turns) if turn is source]
            parts.append(source.draw(draws.only(samples)))
            order += samples
        back = torch.tensor(order).argsort()
        return {
            name: torch.cat([part[name].to(self.device) for part in parts])[back.to(self.device)] for name in parts[0]
        }


def photo_source(
    config: Config, step: Step, runs: Path, models: nn.ModuleDict, device: Any
) -> tuple[PhotoCrops, Batch | None]:
    """What an image autoencoder trains on, and 48 fixed crops of held-out photos if there are any."""
    data, heldout, frames = step.data, None, None
    if data.frames_from:
        frames = runs / data.frames_from
        if data.frames_from in WORLD:
            frames = open_world(config, runs, "train", device).only(WORLD[data.frames_from])
    source = PhotoCrops(runs / data.folder, data.size, data.scale, data.jitter, frames, data.frames_share)
    if data.heldout:
        heldout = PhotoCrops(runs / data.heldout, data.size, jitter=0.0).batch([generator_for(0)] * 48)
    return source, heldout


def _opened(data: FieldData | ClipData, runs: Path, name: str) -> Clips:
    """The clips of that name, of the size and the number of frames that the step's data ask for.

    Raises:
        ValueError: If they are of another size or have another number of frames.
    """
    settings = {key: getattr(data, key) for key in ("size", "num_frames", "stride")}
    clips = open_clips(runs / name, **{key: value for key, value in settings.items() if value is not None})
    shape = tuple(clips.frames.shape[1:4])
    wanted = (data.num_frames or shape[0], *(data.size or shape[1:]))
    if shape != wanted:
        (count, height, width), (asked_count, asked_height, asked_width) = shape, wanted
        raise ValueError(
            f"{clips.folder} holds clips of {count} frames of {width}x{height} pixels (width x height), but the step's "
            f"data ask for {asked_count} of {asked_width}x{asked_height}: leave size and num_frames out to take the "
            "clips as they are, or name others."
        )
    return clips


def field_source(
    config: Config, step: Step, runs: Path, models: nn.ModuleDict, device: Any
) -> tuple[FlowFields | WorldFields, Batch | None]:
    """What a flow autoencoder trains on, and 96 fixed fields of held-out clips if there are any."""

    def opened(name: str, split: str, amplitude: tuple[float, float]) -> FlowFields | WorldFields:
        if name in WORLD:
            return WorldFields(open_world(config, runs, split, device).only(WORLD[name]), amplitude)
        return FlowFields(_opened(step.data, runs, name), amplitude, step.seed)

    source, heldout = opened(step.data.clips, "train", step.data.amplitude), None
    if step.data.heldout:
        # Of a generator that stands there 96 times, each field takes the numbers that come next.
        heldout = opened(step.data.heldout, "heldout", (1.0, 1.0)).batch([generator_for(0)] * 96)
    return source, heldout


def clip_source(
    config: Config, step: Step, runs: Path, models: nn.ModuleDict, device: Any, kinds: Sequence[str], flow: bool
) -> tuple[ClipBatches | WorldBatches | InTurn, ClipBatches | None]:
    """What a denoiser trains on, and the held-out clips if there are any. Encodes latents of stores and shards now.

    Args:
        config: the curriculum.
        step: the step that is trained.
        runs: the folder that the names in `step.data` are below.
        models: the models of the step, by name.
        device: where the world is drawn.
        kinds: which latents a batch has, of "image" and "flow".
        flow: whether it has the flow in pixels. Where the world is among the clips it always has, and instead of
            latents it has the frames.
    """
    tokenizer = load_tokenizer(config)
    length = min(tokenizer.model_max_length, models["text_encoder"].config.max_position_embeddings)
    names, single = (step.data.clips, *step.data.mixed), getattr(step.options, "single", False)
    # The later frames are needed where they are what the model makes.
    whole = step.objective == "animation" or ("flow" not in kinds and not single)

    def cached(name: str) -> ClipBatches:
        clips = _opened(step.data, runs, name)
        latents = {
            f"{kind}_latents": cached_latents(clips, models[f"{kind}_vae"], kind, step.precision) for kind in kinds
        }
        more = {"with_flow": flow, "text_dropout": step.text_dropout, "seed": step.seed}
        return ClipBatches(clips, tokenizer, length, **latents, **more)

    @cache  # its photos fill much memory
    def world() -> LiteWorld:
        return open_world(config, runs, "train", device)

    def drawn() -> ClipBatches:
        vaes = {kind: models[f"{kind}_vae"] for kind in kinds}
        heldout = open_world(config, runs, "heldout", device).only(WORLD[step.data.heldout])
        clips, latents = draw_clips(heldout, HELDOUT, whole, vaes, device, step.precision)
        more = {"with_flow": flow, "text_dropout": step.text_dropout, "labels": clips.labels}
        return ClipBatches(clips, tokenizer, length, **latents, **more)

    @cache  # clips that are named twice are opened once
    def opened(name: str) -> ClipBatches | PictureBatches | WorldBatches:
        shared = {"whole": whole, "single": single, "text_dropout": step.text_dropout}
        if name in WORLD:
            return WorldBatches(world().only(WORLD[name]), tokenizer, length, **shared)
        if any(other in WORLD for other in names):
            return PictureBatches(_opened(step.data, runs, name), tokenizer, length, **shared)
        return cached(name)

    source = opened(names[0]) if len(names) == 1 else InTurn([opened(name) for name in names], device)
    heldout = step.data.heldout
    return source, drawn() if heldout in WORLD else cached(heldout) if heldout else None
