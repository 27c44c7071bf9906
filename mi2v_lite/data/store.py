"""Clips on disk as memory-mapped arrays, which the training reads fastest: `write_store` and `ClipStore`.

A store is a folder with frames.npy (uint8), flow.npy (float16), visibility.npy (bool) and clips.json (captions and
strides). float16 keeps 40 pixels of motion to within 0.02 pixels. `mi2v world -o FOLDER` writes one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from mi2v_lite.data.clips import LARGEST_STORE_INDEX, STORE_INDEX, Clip, ClipSource
from mi2v_lite.io.arrays import DAMAGED, new_array
from mi2v_lite.io.files import TooLarge, atomic_folder, brief, read_text


def write_store(folder: str | Path, clips: Iterable[Clip], count: int) -> None:
    """Write a store, whole or not at all; a progress bar shows how far it is.

    Args:
        folder: of the store. A store that is there already is replaced, with the latents beside its clips, once the new
            one is whole.
        clips: all of one shape; no more than `count` of them are asked for.
        count: how many to write.

    Raises:
        ValueError: there are fewer than `count` clips, or they differ in shape, or the folder holds something else.
    """
    if count < 1:
        raise ValueError(f"count is {count}; a store needs at least one clip")
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STORE_INDEX).is_file():
        raise ValueError(f"{folder} holds something other than a store: choose a new or an empty folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as beside:
        _write(beside, tqdm(islice(clips, count), total=count, desc=f"writing {folder.name}"), count)


def _write(folder: Path, clips: Iterable[Clip], count: int) -> None:
    """Fill an empty folder with `count` clips."""
    arrays: dict[str, np.memmap] = {}
    captions, strides = [], []
    dtypes = {"frames": np.uint8, "flow": np.float16, "visibility": np.bool_}
    for index, clip in enumerate(clips):
        for name, dtype in dtypes.items():
            value = getattr(clip, name)
            if name not in arrays:
                path = str(folder / f"{name}.npy")
                arrays[name] = new_array(path, dtype, (count, *value.shape))
            if arrays[name].shape[1:] != value.shape:
                raise ValueError(f"clip {index}: {name} is {value.shape}, before it was {arrays[name].shape[1:]}")
            arrays[name][index] = value
        captions.append(clip.caption)
        strides.append(int(clip.stride))
    if len(captions) < count:
        raise ValueError(f"there were only {len(captions)} of {count} clips; give an iterator that is long enough")
    for array in arrays.values():
        array.flush()
    (folder / STORE_INDEX).write_text(json.dumps({"captions": captions, "strides": strides}, indent=0))


def pairs(source: ClipSource, seed: int, count: int) -> Iterator[Clip]:
    """Clips of two frames, frame 0 and a later one, for different later frames of one clip.

    These are the single displacements at random strides of the curriculum's first step (Section 3.2): F = 2, N = 1, and
    the stride is the number of source frames between the two. For the same disk they show many more scenes.

    Args:
        source: of the clip.
        seed: which clip, and which later frames.
        count: how many pairs to take from it.

    Raises:
        ValueError: the clip has fewer later frames.
    """
    clip = source.clip(seed)
    if count > len(clip.flow):
        raise ValueError(f"a clip has {len(clip.flow)} later frames; ask for at most as many pairs, not {count}")
    for i in np.random.default_rng(seed).choice(len(clip.flow), count, replace=False):
        steps, later = int(i) + 1, slice(i, i + 1)
        yield Clip(clip.frames[[0, steps]], clip.flow[later], clip.visibility[later], clip.caption, clip.stride * steps)


class ClipStore:
    """A finished store. These are `Clips`; their arrays are memory-mapped and cannot be written to.

    Args:
        folder: with clips.json.

    Raises:
        ValueError: the store is not finished, or its files do not belong together.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = folder = Path(folder)
        index = folder / STORE_INDEX
        if not index.is_file():
            raise ValueError(
                f"{folder} holds no finished store ({STORE_INDEX} is missing); write one with mi2v world -o {folder}"
            )
        try:
            content = json.loads(read_text(index, LARGEST_STORE_INDEX))
            self.captions: list[str] = [str(caption) for caption in content["captions"]]
            self.strides: list[int] = [int(stride) for stride in content["strides"]]
            self.frames = np.load(folder / "frames.npy", mmap_mode="r")  # uint8 (C, F, H, W, 3)
            self.flow = np.load(folder / "flow.npy", mmap_mode="r")  # float16 (C, N, 2, H, W), pixels
            self.visibility = np.load(folder / "visibility.npy", mmap_mode="r")  # bool (C, N, H, W)
        except TooLarge:
            raise
        except DAMAGED as error:
            raise ValueError(f"{folder} is damaged ({brief(error)}); remove it and write the store again") from error
        for array, sides in ((self.frames, 5), (self.flow, 5), (self.visibility, 4)):
            if array.ndim != sides or array.dtype.kind not in "uifb":
                raise ValueError(
                    f"{folder} is damaged (an array is {array.dtype} {array.shape}); write the store again"
                )
        lengths = {len(self.captions), len(self.strides), len(self.frames), len(self.flow), len(self.visibility)}
        if len(lengths) != 1:
            raise ValueError(
                f"{folder}: the arrays and {STORE_INDEX} differ in length ({sorted(lengths)}); write the store again"
            )

    def __len__(self) -> int:
        return len(self.captions)

    def clip(self, index: int) -> Clip:
        """The clip of this index, in memory, with its flow as float32."""
        return Clip(
            frames=np.array(self.frames[index]),
            flow=self.flow[index].astype(np.float32),
            visibility=np.array(self.visibility[index]),
            caption=self.captions[index],
            stride=self.strides[index],
        )
