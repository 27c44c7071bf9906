"""Latents of clips on disk: encoded once, kept beside them as memory-mapped arrays, and read from there ever after.

Of shards each has its own file of latents, and the processes share the work. The name of a file holds a hash of the
encoder's weights, so latents of other weights are never used. They are kept without `scaling_factor`, which may change
without the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm.auto import tqdm

from mi2v_lite.data.clips import Clips, open_clips
from mi2v_lite.data.shards import Column, ShardSet
from mi2v_lite.flow.fields import to_unit
from mi2v_lite.io.arrays import DAMAGED, new_array
from mi2v_lite.io.files import atomic, brief
from mi2v_lite.io.pixels import frames_tensor
from mi2v_lite.models.autoencoder import encode

BATCH = 16


def encoder_hash(vae: AutoencoderKL) -> str:
    """12 hexadecimal digits that change with any parameter that encoding uses; the decoder may train on."""
    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        if name.startswith(("encoder.", "quant_conv.", "shortcut_in.")):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def clip_frames(clips: Clips, index: int) -> Tensor:
    """Frames of a clip, `(F, 3, H, W)` float32 in [-1, 1]."""
    return frames_tensor(clips.frames[index])


def clip_unit_flow(clips: Clips, index: int) -> Tensor:
    """Motion field of a clip in the flow autoencoder's units, `(N, 2, H, W)` float32 in [0, 1], 0.5 = no motion."""
    return to_unit(clip_flow(clips, index)).clamp(0, 1)


def clip_flow(clips: Clips, index: int) -> Tensor:
    """Motion field of a clip, `(N, 2, H, W)` float32 in pixels."""
    return torch.from_numpy(np.array(clips.flow[index])).float()


READERS: dict[str, Callable[[Clips, int], Tensor]] = {"image": clip_frames, "flow": clip_unit_flow}


def cached_latents(
    source: str | Path | Clips, vae: AutoencoderKL, kind: str, precision: str = "no"
) -> np.ndarray | Column:
    """The latents of all clips, encoded now if they are not there yet: on a GPU if there is one.

    All processes of a training call this together: each encodes a part of the shards, the first one encodes a store.

    Args:
        source: the clips, or what `open_clips` opens; the latents are written beside them.
        vae: the autoencoder of that kind. It is moved to where it encodes, and back.
        kind: "image" (all F frames) or "flow" (the N fields).
        precision: "bf16" encodes under autocast, which is twice as fast; "no" does not.

    Returns:
        float16, without `scaling_factor`: for each clip `(F or N, C, h, w)`, memory-mapped.

    Raises:
        ValueError: If there is no such kind, or there are no clips.
    """
    if kind not in READERS:
        raise ValueError(f"kind is {kind!r}, expected one of {sorted(READERS)}.")
    clips, suffix = open_clips(source), f"latents_{kind}_{encoder_hash(vae)}.npy"
    if isinstance(clips, ShardSet):
        paths = [clips.folder / f"{name}.{suffix}" for name, _ in clips.shards]
        ends = np.cumsum([count for _, count in clips.shards])
        ranges = [range(end - count, end) for end, (_, count) in zip(ends, clips.shards, strict=True)]
    else:
        paths, ranges = [clips.folder / suffix], [range(len(clips))]
    state = PartialState()
    missing = [pair for pair in zip(paths, ranges, strict=True) if not pair[0].is_file()]
    state.wait_for_everyone()  # all have looked before one writes
    if mine := missing[state.process_index :: state.num_processes]:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        _write(mine, clips, vae, READERS[kind], precision, device)
    state.wait_for_everyone()
    if not isinstance(clips, ShardSet):
        return _mapped(paths[0], len(clips))
    arrays: dict[int, np.ndarray] = {}

    def read(index: int) -> np.ndarray:
        shard, inside = clips.place(index)
        if shard not in arrays:
            arrays[shard] = _mapped(paths[shard], len(ranges[shard]))
        return arrays[shard][inside]

    return Column((len(clips), *read(0).shape), read)


def _mapped(path: Path, count: int) -> np.ndarray:
    """Opens a file of `count` latents."""
    try:
        latents = np.load(path, mmap_mode="r", allow_pickle=False)
        if latents.dtype == np.float16 and len(latents) == count:
            return latents
        said = f"{len(latents)} entries of {latents.dtype}"
    except DAMAGED as error:
        said = brief(error)
    raise ValueError(f"{path} does not hold the latents of {count} clips ({said}): remove it, and they are made anew.")


@contextmanager
def encoder_on(
    device: torch.device | str, vae: AutoencoderKL, precision: str = "no"
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Within the context the autoencoder is on a device; after it, it is where it was.

    Args:
        device: the device.
        vae: the autoencoder.
        precision: "bf16" encodes under autocast.

    Yields:
        A function from pictures `(..., C, H, W)` to their latents on the CPU, float32, without `scaling_factor`.
    """
    home, training = next(vae.parameters()).device, vae.training
    vae.to(device, memory_format=torch.channels_last).eval()

    @torch.no_grad()
    def encoded(pictures: Tensor) -> Tensor:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            return encode(vae, pictures.to(device), batch=BATCH, scaled=False).float().cpu()

    yield encoded
    vae.to(home, memory_format=torch.contiguous_format).train(training)


def _write(
    parts: list[tuple[Path, range]],
    clips: Clips,
    vae: AutoencoderKL,
    read: Callable,
    precision: str,
    device: torch.device,
) -> None:
    """Writes a file for each range of clips, whole or not at all."""
    bar = tqdm(total=sum(len(indices) for _, indices in parts), desc=parts[0][0].name, mininterval=5.0)
    with encoder_on(device, vae, precision) as encoded:
        for path, indices in parts:
            out = None
            with atomic(path) as partial:
                for place, index in enumerate(indices):
                    latents = encoded(read(clips, index)).numpy()
                    if out is None:
                        shape = (len(indices), *latents.shape)
                        out = new_array(partial, np.float16, shape)
                    out[place] = latents
                    bar.update()
                out.flush()
    bar.close()


@torch.no_grad()
def estimate_scale(vae: AutoencoderKL, pictures: Iterable[Tensor]) -> float:
    """The factor that gives latents unit variance: 1 / their standard deviation (Rombach et al. 2022, appendix D.1).

    Args:
        vae: the autoencoder.
        pictures: batches `(B, C, H, W)` in the autoencoder's range.

    Returns:
        The factor, rounded to six decimals.

    Raises:
        ValueError: If there are no pictures, or their latents do not vary.
    """
    count, total, square = 0, 0.0, 0.0
    for batch in pictures:
        latents = encode(vae, batch, batch=BATCH, scaled=False).double()
        count += latents.numel()
        total += float(latents.sum())
        square += float(latents.square().sum())
    variance = square / count - (total / count) ** 2 if count else 0.0
    if not variance > 0:
        raise ValueError("The scale needs pictures whose latents vary; there were none.")
    return round(variance**-0.5, 6)
