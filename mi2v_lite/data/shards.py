"""Shards: clips with their motion fields in WebDataset's format, many in one tar file (Section 4.1; notebook 06).

A folder of shards holds

    shard-000000.tar    KEY.frames.jpg, KEY.motion.npz and KEY.json of each clip
    shard-000000.json   where these parts begin in the tar, and which videos were left out and why
    shards.json         how many clips each shard has; it is written last, and without it the set is not finished

KEY.frames.jpg is all F frames below each other. KEY.motion.npz has `flow` (float16 pixels, rounded to 1/64 of a pixel,
which halves its size) and `visibility`. KEY.json has the caption, the stride and the source.

`webdataset.WebDataset` reads the tars as they are. It streams whole tars, shuffles in a buffer and gives each process
its own shards. Here a clip is a place in a tar, and the order of reading is a function (`Order`): position p of a
training names a clip, whatever the number of processes, and a training that stopped at p goes on at p exactly.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mi2v_lite.data.clips import LARGEST_SHARDS_INDEX, SHARDS_INDEX, Clip
from mi2v_lite.io.arrays import read_arrays
from mi2v_lite.io.files import TooLarge, atomic, brief, locked, read_text, remove_unfinished

FRAMES, MOTION, ABOUT = "frames.jpg", "motion.npz", "json"  # the parts of a clip, after KEY and a dot
QUALITY = 95  # of the JPEG, without colour subsampling
TALLEST = 65_000  # pixels: the height that a JPEG can have
STEPS = 64  # steps to a pixel of motion, as in KITTI's files
OPEN = 64  # tars that a reader keeps open
GROUP = 16  # shards among which the clips are mixed


@dataclass(frozen=True)
class Skipped:
    """A video that gave no clip, or fewer than it should have given, and the reason."""

    video: str
    reason: str


@dataclass
class Shard:
    """What one shard holds.

    Attributes:
        name: of its files, without the suffix.
        videos: how many videos were looked at.
        clips: the key of each clip, and `{part: [offset, size, CRC-32]}` in the tar. Older shards have no CRC-32.
        skipped: the videos that were left out.
    """

    name: str
    videos: int = 0
    clips: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path, name: str) -> Shard:
        """Read NAME.json of the folder.

        Raises:
            FileNotFoundError: the shard is not written yet.
            ValueError: the file is damaged.
        """
        path = folder / f"{name}.json"
        try:
            content = json.loads(read_text(path, LARGEST_SHARDS_INDEX))
            for clip in content["clips"]:
                str(clip["key"]), [tuple(map(int, clip["parts"][part])) for part in (FRAMES, MOTION, ABOUT)]
            skipped = [Skipped(**entry) for entry in content["skipped"]]
            return cls(name, int(content["videos"]), content["clips"], skipped)
        except TooLarge:
            raise
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"{path} is damaged ({brief(error)}): remove it with {name}.tar and make this shard again."
            ) from error


def shard_name(number: int) -> str:
    """The name of a shard: "shard-000007" for 7."""
    return f"shard-{number:06d}"


def encode_clip(clip: Clip, about: dict[str, Any]) -> dict[str, bytes]:
    """The parts of a clip as they stand in the tar.

    Args:
        clip: the clip.
        about: what goes into its .json beside the caption and the stride.

    Raises:
        ValueError: a JPEG cannot hold these frames.
    """
    count, height, width, _ = clip.frames.shape
    if count * height > TALLEST or width > TALLEST or height % 8:
        raise ValueError(
            f"{count} frames of {width}x{height} do not fit one JPEG: the height must be a multiple of 8, and all "
            f"frames below each other at most {TALLEST} pixels; take a smaller size or fewer frames."
        )
    tall = cv2.cvtColor(clip.frames.reshape(count * height, width, 3), cv2.COLOR_RGB2BGR)
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, jpeg = cv2.imencode(".jpg", tall, [cv2.IMWRITE_JPEG_QUALITY, QUALITY, *sampling])
    motion = io.BytesIO()
    flow = (np.round(clip.flow * STEPS) / STEPS).astype(np.float16)  # (N, 2, H, W): many zero bits, so it packs well
    np.savez_compressed(motion, flow=flow, visibility=clip.visibility)
    words = {"caption": clip.caption, "stride": int(clip.stride), **about}
    return {FRAMES: jpeg.tobytes(), MOTION: motion.getvalue(), ABOUT: json.dumps(words).encode()}


def decode_frames(data: bytes, num_frames: int, height: int, width: int) -> np.ndarray:
    """KEY.frames.jpg to uint8 `(F, H, W, 3)`, RGB. Raises ValueError if it is no picture of that size."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as header:
        if header.size != (width, num_frames * height):
            raise ValueError(f"its picture has {header.size} pixels, expected {(width, num_frames * height)}")
    tall = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if tall is None:
        raise ValueError("its picture cannot be decoded")
    return cv2.cvtColor(tall, cv2.COLOR_BGR2RGB).reshape(num_frames, height, width, 3)


def decode_motion(
    data: bytes, num_frames: int | None = None, height: int | None = None, width: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes KEY.motion.npz.

    Args:
        data: the bytes of the file, as `webdataset.WebDataset` gives them, too.
        num_frames: F of the clip, which its shape must agree with; any if None.
        height: of the frames in pixels, likewise.
        width: of the frames in pixels, likewise.

    Returns:
        The flow, float16 `(N, 2, H, W)` pixels, and the visibility, bool `(N, H, W)`, where N = F - 1.

    Raises:
        ValueError: if the bytes are damaged or hold another motion.
    """
    arrays = read_arrays(data, ("flow", "visibility"))
    flow, visibility = arrays["flow"], arrays["visibility"]
    whole = flow.ndim == 4 and flow.shape[1] == 2 and flow.dtype == np.float16
    if not whole or visibility.shape != (len(flow), *flow.shape[2:]):
        raise ValueError(f"its motion is {flow.dtype} {flow.shape}, expected float16 (frames - 1, 2, height, width)")
    size, expected = (len(flow) + 1, *flow.shape[2:]), (num_frames, height, width)
    if any(wanted not in (None, actual) for wanted, actual in zip(expected, size, strict=True)):
        raise ValueError(f"its motion is of (frames, height, width) {size}, expected {expected}")
    return flow, visibility.astype(bool)


def write_shard(
    folder: str | Path, number: int, clips: Iterable[tuple[str, Clip, dict[str, Any]] | Skipped], videos: int
) -> Shard:
    """Write one shard whole or not at all: the tar first, then the .json that makes it count.

    Args:
        folder: of the set.
        number: of the shard.
        clips: for each clip its key, the clip and what else is known about it; or a video that was skipped.
        videos: how many videos were looked at. A shard of which all were skipped has no tar.

    Raises:
        ValueError: a key comes twice, or a clip cannot be encoded.
        BlockingIOError: another program is writing this shard.
    """
    folder, shard = Path(folder), Shard(shard_name(number), videos)
    tar_path = folder / f"{shard.name}.tar"
    with locked(tar_path):
        for path in (tar_path, tar_path.with_suffix(".json")):
            remove_unfinished(path)
        _write(tar_path, shard, clips)
    return shard


def _write(tar_path: Path, shard: Shard, clips: Iterable[tuple[str, Clip, dict[str, Any]] | Skipped]) -> None:
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
    content = {"videos": shard.videos, "clips": shard.clips, "skipped": [asdict(entry) for entry in shard.skipped]}
    with atomic(tar_path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(content), encoding="utf-8")


def _places(path: Path) -> list[dict[str, Any]]:
    """Where the parts of each clip are and their CRC-32, read back from the tar."""
    places: dict[str, dict[str, list[int]]] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            key, part = member.name.split(".", 1)
            crc = zlib.crc32(tar.extractfile(member).read())
            places.setdefault(key, {})[part] = [member.offset_data, member.size, crc]
    return [{"key": key, "parts": parts} for key, parts in places.items()]


def write_index(folder: str | Path, shards: Iterable[Shard], clip: dict[str, int]) -> None:
    """Write shards.json, which makes the set a finished one.

    Args:
        folder: of the set.
        shards: all of them.
        clip: `num_frames`, `height` and `width` of every clip.
    """
    counts = [[shard.name, len(shard.clips)] for shard in shards if shard.clips]
    with atomic(Path(folder) / SHARDS_INDEX) as partial:
        partial.write_text(json.dumps({"clip": clip, "shards": counts}, indent=0), encoding="utf-8")


class Column(Sequence):
    """One part of all clips, read when it is asked for.

    Args:
        shape: of the part of all clips together, `(C, ...)`.
        read: gives the part of the clip of an index.
    """

    def __init__(self, shape: tuple[int, ...], read: Callable[[int], Any]) -> None:
        self.shape, self._read = shape, read

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return self._read(index)


class ShardSet:
    """A finished set of shards. These are `Clips`, numbered through all shards.

    Args:
        folder: with shards.json.

    Attributes:
        shards: the name of each shard and how many clips it has. The other attributes are those of `Clips`.

    Raises:
        ValueError: the set is not finished, or its index is damaged. Reading a clip that is damaged raises one, too,
            which names the shard and the clip.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            content = json.loads(read_text(self.folder / SHARDS_INDEX, LARGEST_SHARDS_INDEX))
        except FileNotFoundError:
            raise ValueError(
                f"{folder} holds no finished shards ({SHARDS_INDEX} is missing); make them with mi2v shards."
            ) from None
        except TooLarge:
            raise
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.folder / SHARDS_INDEX} is damaged ({brief(error)}): {_AGAIN}.") from error
        try:
            self.shards: list[tuple[str, int]] = [(_plain(name), int(count)) for name, count in content["shards"]]
            self._counts = dict(self.shards)
            self._ends = list(accumulate(count for _, count in self.shards))
            self._shape = tuple(int(content["clip"][name]) for name in ("num_frames", "height", "width"))
            count, self.num_frames, size = self._ends[-1], self._shape[0], self._shape[1:]
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{self.folder / SHARDS_INDEX} is damaged ({brief(error)}): {_AGAIN}.") from error
        self._tars: OrderedDict[str, _Tar] = OrderedDict()
        future = self.num_frames - 1
        self.frames = Column((count, self.num_frames, *size, 3), lambda i: self._decoded(i, FRAMES, decode_frames))
        self.flow = Column((count, future, 2, *size), lambda i: self._decoded(i, MOTION, decode_motion)[0])
        self.visibility = Column((count, future, *size), lambda i: self._decoded(i, MOTION, decode_motion)[1])
        self.captions = Column((count,), lambda i: self.about(i)["caption"])
        self.strides = Column((count,), lambda i: self.about(i)["stride"])

    def __len__(self) -> int:
        return self._ends[-1]

    def __reduce__(self) -> tuple:
        return ShardSet, (self.folder,)  # open files stay in their process

    def place(self, index: int) -> tuple[int, int]:
        """In which shard a clip is, and which one of the shard's it is."""
        shard = bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def part(self, index: int, name: str) -> bytes:
        """The bytes of one part of a clip: FRAMES, MOTION or ABOUT."""
        shard, inside = self.place(index)
        return self._tar(self.shards[shard][0]).read(inside, name)

    def about(self, index: int) -> dict[str, Any]:
        """What the .json of a clip says: caption, stride, video, start."""
        return self._decoded(index, ABOUT, _about)

    def key(self, index: int) -> str:
        """The name of a clip in the tar, which is the same for every reader."""
        shard, inside = self.place(index)
        return self._tar(self.shards[shard][0]).clips[inside]["key"]

    def clip(self, index: int) -> Clip:
        """The clip of this index, in memory, with its flow as float32."""
        flow, visibility = self._decoded(index, MOTION, decode_motion)
        about = self.about(index)
        return Clip(self.frames[index], flow.astype(np.float32), visibility, about["caption"], about["stride"])

    def _decoded(self, index: int, part: str, decode: Callable[..., Any]) -> Any:
        data = self.part(index, part)
        try:
            return decode(data, *self._shape)
        except (ValueError, LookupError, TypeError, OSError, SyntaxError, OverflowError, cv2.error) as error:
            name = self.shards[self.place(index)[0]][0]
            raise ValueError(
                f"{self.folder / name}.tar: {part} of the clip {self.key(index)} is damaged ({error}): {_AGAIN}."
            ) from error

    def _tar(self, name: str) -> _Tar:
        if name not in self._tars:
            self._tars[name] = _Tar(self.folder, name, self._counts[name])
            if len(self._tars) > OPEN:
                self._tars.popitem(last=False)
        self._tars.move_to_end(name)
        return self._tars[name]


_AGAIN = "remove it with its .json and shards.json, and run mi2v shards again"


def _plain(name: str) -> str:
    """The name of a shard, which must not lead out of the folder."""
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"{name!r} cannot be the name of a shard")
    return name


def _about(data: bytes, *_: int) -> dict[str, Any]:
    about = json.loads(data)
    return {**about, "caption": str(about["caption"]), "stride": int(about["stride"])}


class _Tar:
    """An open tar, and where the parts of its clips are."""

    def __init__(self, folder: Path, name: str, count: int) -> None:
        self.path = folder / f"{name}.tar"
        try:
            self.clips = Shard.read(folder, name).clips
        except FileNotFoundError:
            self.clips = []
        if len(self.clips) != count:
            raise ValueError(f"{folder / name}.json lists {len(self.clips)} of the {count} clips: {_AGAIN}.")
        try:
            self.file = self.path.open("rb", buffering=0)
        except FileNotFoundError:
            raise ValueError(f"{self.path} is missing: {_AGAIN}.") from None
        self.size = os.fstat(self.file.fileno()).st_size

    def read(self, inside: int, part: str) -> bytes:
        offset, size, *crc = self.clips[inside]["parts"][part]
        if not 0 <= offset <= offset + size <= self.size:
            raise ValueError(f"{self.path} is shorter than its index says: {_AGAIN}.")
        data = os.pread(self.file.fileno(), size, offset)  # moves no file position: processes may share the file
        if crc and zlib.crc32(data) != crc[0]:
            key = self.clips[inside]["key"]
            raise ValueError(f"{self.path}: {part} of the clip {key} has changed since it was written: {_AGAIN}.")
        return data


class Order:
    """Which clip comes at which position of an endless reading.

    Every clip comes once an epoch, each epoch in a new order. The shards are shuffled, and then the clips of each group
    of shards, so that only a few tars are read at a time.

    Args:
        counts: clips of each shard.
        seed: of the shuffle.
        group: shards whose clips are mixed. The larger it is, the more random is the order, and the more tars are read
            side by side.
    """

    def __init__(self, counts: Sequence[int], seed: int = 0, group: int = GROUP) -> None:
        self.counts, self.seed, self.group = np.asarray(counts), seed, group
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        self._epoch: tuple[int, np.ndarray, np.ndarray] | None = None
        self._mixed: tuple[tuple[int, int], np.ndarray] | None = None

    def __getitem__(self, position: int) -> int:
        """The number of the clip at this position, from 0 on; each process asks for its own positions."""
        epoch, rest = divmod(position, int(self.counts.sum()))
        if self._epoch is None or self._epoch[0] != epoch:
            shards = np.random.default_rng([self.seed, epoch]).permutation(len(self.counts))
            sizes = np.add.reduceat(self.counts[shards], np.arange(0, len(shards), self.group))
            self._epoch = (epoch, shards, np.cumsum(sizes))
        _, shards, ends = self._epoch
        group = int(np.searchsorted(ends, rest, side="right"))
        if self._mixed is None or self._mixed[0] != (epoch, group):
            inside = shards[group * self.group : (group + 1) * self.group]
            clips = np.concatenate([np.arange(self.counts[i]) + self.starts[i] for i in inside])
            self._mixed = ((epoch, group), np.random.default_rng([self.seed, epoch, group]).permutation(clips))
        return int(self._mixed[1][rest - (int(ends[group - 1]) if group else 0)])
