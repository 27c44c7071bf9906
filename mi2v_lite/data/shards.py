"""Shards: clips in WebDataset's format, many in one tar file, with their fields (paper, section 4.1; notebook 06).

A folder of shards holds

    shard-000000.tar    for each clip KEY.frames.jpg, KEY.motion.npz, KEY.json
    shard-000000.json   where each clip's parts begin in the tar, and which videos were left out and why
    shards.json         written last: how many clips each shard has; without it the set is not finished

`webdataset.WebDataset` reads the tars as they are; the .json beside each gives the random access that exact resuming
needs (`shard_reader.py`). KEY.frames.jpg is all F frames below each other, KEY.motion.npz has `flow` (float16, pixels,
rounded to 1/64 of a pixel, which halves its size) and `visibility`, KEY.json the caption, the stride and the source.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mi2v_lite.data.source import Clip
from mi2v_lite.io.files import atomic

FRAMES, MOTION, ABOUT = "frames.jpg", "motion.npz", "json"  # the parts of a clip, after KEY and a dot
INDEX = "shards.json"
QUALITY = 95  # of the JPEG, without colour subsampling
TALLEST = 65_000  # pixels: what a JPEG can hold below each other
STEPS = 64  # to a pixel of motion, as KITTI has it


@dataclass(frozen=True)
class Skipped:
    """A video that gave no clip, or less than all, and why."""

    video: str
    reason: str


@dataclass
class Shard:
    """What one shard holds. clips: for each its key and `{part: [offset, size]}` in the tar. videos: looked at."""

    name: str
    videos: int = 0
    clips: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path, name: str) -> Shard:
        """The shard's .json. Raises FileNotFoundError where it is not written yet."""
        told = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return cls(name, told["videos"], told["clips"], [Skipped(**each) for each in told["skipped"]])


def shard_name(number: int) -> str:
    """shard-000007 of 7."""
    return f"shard-{number:06d}"


def encode_clip(clip: Clip, about: dict[str, Any]) -> dict[str, bytes]:
    """The parts of a clip as they stand in the tar; `about` goes into its .json, beside caption and stride.

    Raises ValueError for frames that a JPEG cannot hold.
    """
    count, height, width, _ = clip.frames.shape
    if count * height > TALLEST or width > TALLEST or height % 8:
        raise ValueError(
            f"{count} frames of {width}x{height} do not fit one JPEG: the height must be a multiple of 8, and all "
            f"frames below each other at most {TALLEST} pixels; take a smaller size or fewer frames."
        )
    tall = cv2.cvtColor(clip.frames.reshape(count * height, width, 3), cv2.COLOR_RGB2BGR)
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    _, jpeg = cv2.imencode(".jpg", tall, options)
    motion = io.BytesIO()
    flow = (np.round(clip.flow * STEPS) / STEPS).astype(np.float16)  # (N, 2, H, W): many zero bits, so it packs well
    np.savez_compressed(motion, flow=flow, visibility=clip.visibility)
    words = {"caption": clip.caption, "stride": int(clip.stride), **about}
    return {FRAMES: jpeg.tobytes(), MOTION: motion.getvalue(), ABOUT: json.dumps(words).encode()}


def decode_frames(data: bytes, num_frames: int) -> np.ndarray:
    """KEY.frames.jpg to uint8 `(F, H, W, 3)` RGB."""
    tall = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return tall.reshape(num_frames, -1, *tall.shape[1:])


def decode_motion(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """KEY.motion.npz to flow, float16 `(N, 2, H, W)` pixels, and visibility, bool `(N, H, W)`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return arrays["flow"], arrays["visibility"]


def write_shard(
    folder: str | Path, number: int, clips: Iterable[tuple[str, Clip, dict[str, Any]] | Skipped], videos: int
) -> Shard:
    """Write one shard whole or not at all: the tar first, then the .json that makes it count.

    Args:
        folder: of the set. number: of the shard. clips: key, clip and what else is known about it; or what was skipped.
        videos: how many were looked at. A shard in which all were skipped has no tar.

    Raises:
        ValueError: a key comes twice, or a clip cannot be encoded.
    """
    folder, shard = Path(folder), Shard(shard_name(number), videos)
    tar_path = folder / f"{shard.name}.tar"
    for left in folder.glob(f".{shard.name}.*.part"):  # by one that was killed
        left.unlink(missing_ok=True)
    with atomic(tar_path) as partial:
        keys: set[str] = set()
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
            for item in clips:
                if isinstance(item, Skipped):
                    shard.skipped.append(item)
                    continue
                key, clip, about = item
                if key in keys or "." in key or "/" in key:
                    raise ValueError(f"{shard.name}: the key {key!r} comes twice, or has a dot or a slash in it.")
                keys.add(key)
                for part, data in encode_clip(clip, about).items():
                    member = tarfile.TarInfo(f"{key}.{part}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        shard.clips = _places(partial)
    if not shard.clips:
        tar_path.unlink()
    told = {"videos": videos, "clips": shard.clips, "skipped": [asdict(each) for each in shard.skipped]}
    with atomic(folder / f"{shard.name}.json") as partial:
        partial.write_text(json.dumps(told), encoding="utf-8")
    return shard


def _places(path: Path) -> list[dict[str, Any]]:
    """Where the parts of each clip are, read back from the tar."""
    places: dict[str, dict[str, list[int]]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, part = member.name.split(".", 1)
            places.setdefault(key, {})[part] = [member.offset_data, member.size]
    return [{"key": key, "parts": parts} for key, parts in places.items()]


def write_index(folder: str | Path, shards: Iterable[Shard], clip: dict[str, int]) -> None:
    """Write shards.json: the set is finished. clip: `num_frames`, `height`, `width` of every clip."""
    counts = [[shard.name, len(shard.clips)] for shard in shards if shard.clips]
    with atomic(Path(folder) / INDEX) as partial:
        partial.write_text(json.dumps({"clip": clip, "shards": counts}, indent=0), encoding="utf-8")


def write_shards(folder: str | Path, clips: Iterable[Clip], per_shard: int = 100) -> None:
    """Write clips that are there already, of the world or a film, as a finished set of shards.

    Raises ValueError if there are none, if they differ in shape or if the folder holds shards already.
    """
    folder, pending, shards, shape = Path(folder), [], [], None
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("shard-*")):
        raise ValueError(f"{folder} holds shards already; choose another folder, or empty it.")

    def flush() -> None:
        first = len(shards) * per_shard
        named = [(f"{first + i:09d}", clip, {}) for i, clip in enumerate(pending)]
        shards.append(write_shard(folder, len(shards), named, len(pending)))
        pending.clear()

    for clip in clips:
        shape = shape or clip.frames.shape
        if clip.frames.shape != shape:
            raise ValueError(f"a clip is {clip.frames.shape}, those before are {shape}")
        pending.append(clip)
        if len(pending) == per_shard:
            flush()
    if pending:
        flush()
    if shape is None:
        raise ValueError("no clips came: there is nothing to write.")
    write_index(folder, shards, dict(zip(("num_frames", "height", "width"), shape[:3], strict=True)))
