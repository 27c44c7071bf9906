"""Reads shards by number and says in which order: split over processes, shuffled by seed, resumed (notebook 06).

WebDataset streams whole tars, shuffles in a buffer and gives each process its own shards. Here a clip is a place in a
tar, and the order is a function: position p of a training names a clip, whatever the number of processes, and whoever
stopped at p goes on at p. Within a group of shards the order is random, so few tars are read at a time.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from mi2v_lite.data.shards import ABOUT, FRAMES, INDEX, MOTION, Shard, decode_frames, decode_motion
from mi2v_lite.data.source import Clip
from mi2v_lite.data.store import ClipStore

OPEN = 64  # tars and their indices that are kept open
GROUP = 16  # shards among which the clips are mixed


class Column(Sequence):
    """One kind of thing of all clips: `column[i]` reads it, `shape` is that of all of them together."""

    def __init__(self, shape: tuple[int, ...], read: Callable[[int], Any]) -> None:
        self.shape, self._read = shape, read

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return self._read(index)


class ShardSet:
    """A finished set of shards, with the columns of a `ClipStore` (a `ClipSource`).

    frames: uint8 (C, F, H, W, 3). flow: float16 (C, N, 2, H, W), pixels. visibility: bool (C, N, H, W). captions,
    strides. Clips are numbered through all shards. Raises ValueError if `folder` holds no finished set.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            told = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(
                f"{folder} holds no finished shards ({INDEX} is missing); make them with mi2v shards."
            ) from None
        self.shards: list[tuple[str, int]] = [(name, count) for name, count in told["shards"]]
        self._ends = list(accumulate(count for _, count in self.shards))
        self._files: OrderedDict[str, _Tar] = OrderedDict()
        self.num_frames, height, width = (told["clip"][name] for name in ("num_frames", "height", "width"))
        clips, size = self._ends[-1], (height, width)
        self.frames = Column(
            (clips, self.num_frames, *size, 3), lambda i: decode_frames(self.part(i, FRAMES), self.num_frames)
        )
        self.flow = Column((clips, self.num_frames - 1, 2, *size), lambda i: decode_motion(self.part(i, MOTION))[0])
        self.visibility = Column((clips, self.num_frames - 1, *size), lambda i: decode_motion(self.part(i, MOTION))[1])
        self.captions = Column((clips,), lambda i: self.about(i)["caption"])
        self.strides = Column((clips,), lambda i: self.about(i)["stride"])

    def __len__(self) -> int:
        return self._ends[-1]

    def __reduce__(self) -> tuple:
        return ShardSet, (self.folder,)  # open files stay in their process

    def place(self, index: int) -> tuple[int, int]:
        """(which shard, which clip of it)."""
        shard = bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def part(self, index: int, name: str) -> bytes:
        """The bytes of one part of a clip."""
        shard, inside = self.place(index)
        return self._tar(self.shards[shard][0]).read(inside, name)

    def about(self, index: int) -> dict[str, Any]:
        """What its .json says: caption, stride, video, start."""
        return json.loads(self.part(index, ABOUT))

    def key(self, index: int) -> str:
        """Its name in the tar, the same in every reader."""
        shard, inside = self.place(index)
        return self._tar(self.shards[shard][0]).clips[inside]["key"]

    def clip(self, index: int) -> Clip:
        """Clip number `index` in memory, flow as float32."""
        flow, visibility = decode_motion(self.part(index, MOTION))
        about = self.about(index)
        return Clip(self.frames[index], flow.astype(np.float32), visibility, about["caption"], about["stride"])

    def _tar(self, name: str) -> _Tar:
        if name not in self._files:
            self._files[name] = _Tar(self.folder, name)
            if len(self._files) > OPEN:
                self._files.popitem(last=False)
        self._files.move_to_end(name)
        return self._files[name]


class _Tar:
    """An open tar and where its clips' parts are."""

    def __init__(self, folder: Path, name: str) -> None:
        self.clips = Shard.read(folder, name).clips
        self.path = folder / f"{name}.tar"
        self.file = self.path.open("rb", buffering=0)

    def read(self, inside: int, part: str) -> bytes:
        offset, size = self.clips[inside]["parts"][part]
        data = os.pread(self.file.fileno(), size, offset)  # moves no file position: processes may share the file
        if len(data) < size:
            raise ValueError(f"{self.path} is shorter than its index says: make this shard again.")
        return data


def open_clips(folder: str | Path) -> ClipStore | ShardSet:
    """The clips of a folder, a store or shards; both have the same columns."""
    return ShardSet(folder) if (Path(folder) / INDEX).is_file() else ClipStore(folder)


class Order:
    """Which clip comes at which position of an endless reading: every clip once an epoch, each epoch shuffled anew.

    Args:
        counts: clips of each shard. seed: of the shuffle. group: shards whose clips are mixed; the larger, the more
            random, and the more tars are read side by side.
    """

    def __init__(self, counts: Sequence[int], seed: int = 0, group: int = GROUP) -> None:
        self.counts, self.seed, self.group = np.asarray(counts), seed, group
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        self._epoch: tuple[int, np.ndarray, np.ndarray] | None = None
        self._mixed: tuple[tuple[int, int], np.ndarray] | None = None

    def __getitem__(self, position: int) -> int:
        """The clip's number; position is 0 or more, and each process asks for its own."""
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


class ShardStream(IterableDataset):
    """Numbers and clips for one process, for a `torch.utils.data.DataLoader` of any number of workers.

    Args:
        clips: the set. seed: of the shuffle. rank, processes: of all nodes together. start, stop: positions of the
            reading of all processes; to resume, `start` is what all have read together. One epoch by default.
    """

    def __init__(
        self, clips: ShardSet, seed: int = 0, rank: int = 0, processes: int = 1, start: int = 0, stop: int | None = None
    ) -> None:
        self.clips, self.seed, self.rank, self.processes = clips, seed, rank, processes
        self.start, self.stop = start, len(clips) if stop is None else stop

    def __iter__(self) -> Iterator[tuple[int, Clip]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        order = Order([count for _, count in self.clips.shards], self.seed)
        first = self.start + self.rank * workers + worker
        for position in range(first, self.stop, self.processes * workers):
            index = order[position]
            yield index, self.clips.clip(index)
