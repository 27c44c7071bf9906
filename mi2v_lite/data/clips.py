"""What a clip is, where clips come from, and the one door to those on disk: `open_clips`.

    clips = open_clips("my_videos")        # a store, a set of shards, a folder of videos, or a WebVid table
    clips.clip(7).caption, clips.flow[7]   # a whole clip, or one column of it

Motion-I2V learns from videos with their motion fields and captions (Section 4.1); this module says what these are here.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mi2v_lite.io.files import locked

SPLITS = {"train": 0, "heldout": 1}  # part of the seed of every clip
STORE_INDEX, SHARDS_INDEX = "clips.json", "shards.json"  # written last: a folder that has one is whole
LARGEST_STORE_INDEX = 2**30  # bytes; it holds all captions, nine million of 112 characters
LARGEST_SHARDS_INDEX = 2**26  # bytes, also of the index of one shard


@dataclass(frozen=True)
class Clip:
    """One clip: F frames and N = F - 1 motion fields, all on an H x W grid.

    Attributes:
        frames: uint8 `(F, H, W, 3)`, RGB.
        flow: float32 `(N, 2, H, W)`, the displacement of every pixel of frame 0 to frame i + 1, in pixels `(x, y)`.
        visibility: bool `(N, H, W)`, on the grid of frame 0: whether its point is still seen in frame i + 1.
        caption: what is to be seen and how it moves.
        stride: source frames from one frame to the next; frame i lies `stride * i` source frames after frame 0.
    """

    frames: np.ndarray
    flow: np.ndarray
    visibility: np.ndarray
    caption: str
    stride: int


class ClipSource(Protocol):
    """Anything that gives a clip for a number.

    `World` (exact flow) and `Film` (tracked flow) make the clip when they are asked, and the number is a seed, of which
    there is no last. `Clips` hold a finite number of clips on disk, and the number is an index.
    """

    def clip(self, number: int, /) -> Clip:
        """The clip of this number, from 0 on; the same number always gives the same clip."""
        ...


class Clips(ClipSource, Protocol):
    """Clips on disk, as the training reads them: every `ClipSource` that also has a length and columns.

    A column holds one part of all clips and reads it alone: `clips.flow[7]` does not decode the frames of clip 7.
    `ClipStore` and `ShardSet` are of this kind; `write_store` makes a store of the clips of any `ClipSource`.

    Attributes:
        folder: where the clips are. The training writes their latents beside them.
        frames: uint8 `(C, F, H, W, 3)`, RGB. This and the next two have a `shape` and give an array for an index.
        flow: float16 `(C, N, 2, H, W)`, pixels.
        visibility: bool `(C, N, H, W)`.
        captions: C strings.
        strides: C whole numbers.
    """

    folder: Path
    frames: Sequence[np.ndarray]
    flow: Sequence[np.ndarray]
    visibility: Sequence[np.ndarray]
    captions: Sequence[str]
    strides: Sequence[int]

    def __len__(self) -> int:
        """C, the number of clips."""
        ...


def open_clips(
    source: str | Path | Clips,
    size: tuple[int, int] = (128, 128),
    num_frames: int = 16,
    stride: int | None = None,
    videos: str | Path | None = None,
) -> Clips:
    """Open clips of any kind.

    Videos are tracked and written as shards the first time, into a folder beside them (`my_videos.shards` for
    `my_videos`), and read from there ever after. An interrupted run goes on where it stopped. `mi2v shards` does the
    same with more settings, in many processes. Several processes may open the same videos at once: one does the work,
    and the others wait.

    Args:
        source: a store (a folder with clips.json), a set of shards (a folder with shards.json), a folder of videos with
            captions in NAME.txt beside them, or a WebVid table (.csv). Clips that are open already are handed back.
        size: height and width of the clips that are made of videos. The settings of a store or of shards are theirs.
        num_frames: F of the clips that are made of videos.
        stride: source frames between two frames of these clips; None takes, for each video, the largest of 8, 4, 2 and
            1 that leaves room for a clip.
        videos: the folder with the videos of a WebVid table, by default the table's own.

    Returns:
        the store or the shards.

    Raises:
        ValueError: the path is of no such kind, no video gave a clip, or the shards beside the videos were made of
            other videos or with other settings.
    """
    if not isinstance(source, str | os.PathLike):
        return source
    source = Path(source)
    if (source / SHARDS_INDEX).is_file():
        from mi2v_lite.data.shards import ShardSet

        return ShardSet(source)
    if (source / STORE_INDEX).is_file():
        from mi2v_lite.data.store import ClipStore

        return ClipStore(source)
    return _open_videos(source, size, num_frames, stride, videos)


def _open_videos(
    source: Path, size: tuple[int, int], num_frames: int, stride: int | None, videos: str | Path | None
) -> Clips:
    """The shards of a folder or a table of videos, made first where they are missing."""
    from mi2v_lite.data.shards import ShardSet
    from mi2v_lite.data.video_list import list_videos

    if source.is_dir() and any((source / name).exists() for name in ("plan.json", "frames.npy")):
        raise ValueError(
            f"{source} holds clips that are not finished ({SHARDS_INDEX} or {STORE_INDEX} is missing): run what wrote "
            "them again (mi2v shards goes on where it stopped)."
        )
    try:
        listed = list_videos(source, videos)
    except ValueError as error:
        raise ValueError(
            f"{error} Clips come from a store (a folder with {STORE_INDEX}, see mi2v world), from shards (a folder "
            f"with {SHARDS_INDEX}, see mi2v shards), from a folder of videos, or from a WebVid table (.csv)."
        ) from error
    from mi2v_lite.data.videos_to_shards import (  # these need torch and FFmpeg
        SKIPPED,
        OtherSettings,
        Recipe,
        make_shards,
    )
    from mi2v_lite.flow.trackers import TrackerMaker

    place = source.resolve()
    folder = place.with_name(f"{place.name}.shards")
    try:
        with locked(folder, wait=True):  # other processes of the same training wait here until the shards are whole
            report = make_shards(listed, folder, Recipe(*size, num_frames, stride), TrackerMaker("dis"))
    except OtherSettings as error:
        raise ValueError(
            f"{folder} was made of other videos than {source} holds now, or for another size, number of frames or "
            f"stride. To use these clips as they are, name {folder} instead; to make them anew, remove that folder."
        ) from error
    if report.made and report.skipped:
        warnings.warn(
            f"{report.skipped} of {len(listed)} videos gave no clip: {folder / SKIPPED} says why.", stacklevel=3
        )
    return ShardSet(folder)
