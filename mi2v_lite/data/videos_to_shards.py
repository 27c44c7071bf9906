"""From videos to shards: each video is read, cut, tracked and written, in many processes (Section 4.1; notebook 06).

A shard is the unit of work. Which videos belong to it follows from their list alone, so that any process on any node
can make it. It is done when its .json is there, and a run that was killed goes on with the others. Every video of the
list ends in a shard, or in skipped.csv with the reason; this is checked before the set counts as finished.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm.auto import tqdm

from mi2v_lite.data.clips import SHARDS_INDEX, Clip
from mi2v_lite.data.shards import Shard, Skipped, shard_name, write_index, write_shard
from mi2v_lite.data.video_list import VideoEntry
from mi2v_lite.flow.tracking import ChainTracker, Tracker, check_one_take
from mi2v_lite.io.files import atomic, brief
from mi2v_lite.io.videos import count_frames, read_video

PLAN, SKIPPED = "plan.json", "skipped.csv"
PLANNED = {"recipe": "other settings", "tracker": "another tracker", "videos": "other videos", "list": "other videos"}
STRIDES = (8, 4, 2, 1)  # among which the stride of a video is chosen if none is given


class OtherSettings(ValueError):
    """The folder holds shards of other videos, or shards that were made with other settings."""


@dataclass(frozen=True)
class Recipe:
    """How a video becomes clips.

    Attributes:
        height: of the frames in pixels, a multiple of 8 and at least 16. The video is scaled to cover the frames, and
            its middle is cut out.
        width: of the frames, likewise.
        num_frames: F of a clip.
        stride: source frames between two frames of a clip; None takes, for each video, the largest of `STRIDES` that
            leaves room for a clip.
        clips: clips a video, spread evenly over it.
        links: tracked steps from one frame to the next, a divisor of `stride`. With more than one the tracker also sees
            frames in between, which it needs where things move far.
        per_shard: videos a shard.
        one_take: whether no clip is left out because it looks as if it cut to another scene.

    Raises:
        ValueError: a value is out of its range.
    """

    height: int = 320
    width: int = 512
    num_frames: int = 16
    stride: int | None = None
    clips: int = 1
    links: int = 1
    per_shard: int = 100
    one_take: bool = False

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            if getattr(self, name) < 16 or getattr(self, name) % 8:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a multiple of 8, at least 16.")
        for name, least in (("num_frames", 2), ("clips", 1), ("links", 1), ("per_shard", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}.")
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"stride is {self.stride}; expected at least 1.")
        if not self.strides:
            raise ValueError(f"links is {self.links}; expected a divisor of the stride {self.stride or STRIDES[0]}.")

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides that a clip may have, the largest first."""
        choice = STRIDES if self.stride is None else (self.stride,)
        return tuple(stride for stride in choice if stride % self.links == 0)

    def span(self, stride: int) -> int:
        """Source frames from the first to the last frame of a clip, both counted."""
        return (self.num_frames - 1) * stride + 1

    def cuts(self, length: int) -> tuple[int, list[int]]:
        """Where to cut clips from a video of `length` frames.

        Returns:
            the stride, and the number of the first frame of each clip, no two the same; none if the video is too short.
        """
        stride = next((stride for stride in self.strides if self.span(stride) <= length), self.strides[-1])
        room = length - self.span(stride)
        return stride, sorted({round((i + 0.5) / self.clips * room) for i in range(self.clips)}) if room >= 0 else []


@dataclass(frozen=True)
class Report:
    """What was made.

    Attributes:
        shards: of the whole set.
        done: shards that exist.
        videos: looked at for these.
        clips: in these.
        skipped: entries of skipped.csv of these.
        made: videos of this run alone.
        seconds: that this run took.
    """

    shards: int
    done: int
    videos: int
    clips: int
    skipped: int
    made: int
    seconds: float


def make_shards(
    videos: Sequence[VideoEntry],
    folder: str | Path,
    recipe: Recipe | None = None,
    tracker: Callable[[], Tracker] = ChainTracker,
    processes: int = 1,
    node: int = 0,
    nodes: int = 1,
) -> Report:
    """Turn videos into a set of shards, or go on with a set that was begun.

    Args:
        videos: from `list_videos`.
        folder: of the set, the same on all nodes.
        recipe: how a video becomes clips.
        tracker: makes the tracker, once in each process: a `TrackerMaker` or, with several processes, a function or
            class of a module.
        processes: on this machine.
        node: the number of this machine, which makes every `nodes`-th shard.
        nodes: how many machines work on the set.

    Returns:
        the report. The set is finished (shards.json is there) once all nodes are done.

    Raises:
        OtherSettings: the folder was begun with other videos or settings.
        ValueError: there are no videos, the tracker gave a field that is not finite, a process died, or none of the
            videos gave a clip.
    """
    folder, recipe = Path(folder), recipe or Recipe()
    if not videos:
        raise ValueError("There are no videos to make shards of.")
    if not 0 <= node < nodes:
        raise ValueError(f"node is {node} of {nodes}; nodes are counted from 0.")
    folder.mkdir(parents=True, exist_ok=True)
    _plan(folder, videos, recipe, tracker)
    numbers = range(-(-len(videos) // recipe.per_shard))
    missing = [i for i in numbers if i % nodes == node and not (folder / f"{shard_name(i)}.json").is_file()]
    tasks = {i: _Task(folder, i, videos[i * recipe.per_shard : (i + 1) * recipe.per_shard], recipe) for i in missing}
    made, started = sum(len(task.videos) for task in tasks.values()), time.perf_counter()
    with tqdm(total=made, desc=f"videos to {folder.name}", unit="video", disable=not made) as bar:
        for number in _run(list(tasks.values()), tracker, processes):
            bar.update(len(tasks[number].videos))
    seconds = time.perf_counter() - started
    shards = [Shard.read(folder, shard_name(i)) for i in numbers if (folder / f"{shard_name(i)}.json").is_file()]
    counts = [sum(len(shard.clips) for shard in shards), sum(len(shard.skipped) for shard in shards)]
    report = Report(len(numbers), len(shards), sum(shard.videos for shard in shards), *counts, made, seconds)
    if report.done == report.shards and (made or not (folder / SHARDS_INDEX).is_file()):
        _finish(folder, videos, shards, recipe)
    return report


@dataclass(frozen=True)
class _Task:
    folder: Path
    number: int
    videos: Sequence[VideoEntry]
    recipe: Recipe


def _run(tasks: list[_Task], tracker: Callable[[], Tracker], processes: int) -> Iterator[int]:
    """Do the tasks; yields their numbers as they are done."""
    if processes == 1 or len(tasks) <= 1:
        with _one_thread():
            instance = tracker()
            for task in tasks:
                yield _make(task, instance)
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_start_process, initargs=(tracker,)
    )
    try:
        for future in as_completed([pool.submit(_make, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        # One that was still starting when another died may not hear the pool, which would wait for it for ever.
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise ValueError(
            "A process died while it read a video. The finished shards stay: run the same again to go on, with fewer "
            "processes if memory was short."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_tracker: Tracker | None = None  # of this process


def _start_process(tracker: Callable[[], Tracker]) -> None:
    global _tracker
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    _tracker = tracker()

    def leave_with_parent() -> None:  # a parent that was killed cannot tell its processes to stop
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Inside, OpenCV and torch have one thread, as in the processes of a pool."""
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])


def _make(task: _Task, tracker: Tracker | None = None) -> int:
    first, tracker = task.number * task.recipe.per_shard, tracker or _tracker
    clips = (clips_of(video, first + i, task.recipe, tracker) for i, video in enumerate(task.videos))
    write_shard(task.folder, task.number, chain.from_iterable(clips), len(task.videos))
    return task.number


def clips_of(
    video: VideoEntry, number: int, recipe: Recipe, tracker: Tracker
) -> Iterator[tuple[str, Clip, dict[str, Any]] | Skipped]:
    """The clips of one video.

    Args:
        video: the video.
        number: its place in the list, which becomes part of the keys.
        recipe: how it becomes clips.
        tracker: gives flow and visibility.

    Yields:
        the key of a clip, the clip, and where it is from; a `Skipped` for each clip that cuts to another scene, or one
        for the whole video if it cannot be used.

    Raises:
        ValueError: the tracker, and not the video, is at fault.
    """
    if video.trouble:
        yield Skipped(video.name, video.trouble)
        return
    try:
        stride, moments = read_moments(video.path, recipe)
    except (ValueError, OSError) as error:
        yield Skipped(video.name, str(error))
        return
    for i, (start, frames) in enumerate(moments):
        try:
            if not recipe.one_take:
                check_one_take(frames)
        except ValueError as error:
            yield Skipped(video.name, f"the clip from frame {start} on: {error}")
            continue
        flow, seen = (part.numpy()[recipe.links - 1 :: recipe.links] for part in tracker(frames))
        if not np.isfinite(flow).all():
            raise ValueError(f"The tracker gave a field that is not finite for {video.name}, from frame {start}.")
        clip = Clip(frames[:: recipe.links], flow, seen, video.caption, stride)
        yield f"{number:09d}_{i:02d}", clip, {"video": video.name, "start": start}


def read_moments(path: Path, recipe: Recipe) -> tuple[int, list[tuple[int, np.ndarray]]]:
    """The frames of a video that its clips need, scaled to cover the frames of the recipe and cut to their middle.

    Args:
        path: the video.
        recipe: says which frames, and their size.

    Returns:
        the stride of the clips; and for each clip the number of its first frame, counted from 0, and uint8
        `((F - 1) * links + 1, H, W, 3)`, RGB: its frames and those that the tracker sees in between.

    Raises:
        ValueError: the video cannot be read, is shorter than it says or than a clip needs, or is damaged where a clip
            is cut.
    """
    first = read_video(path, 1)
    height, width = first.frames.shape[1:3]
    short_side = math.ceil(min(height, width) * max(recipe.height / height, recipe.width / width))
    length = count_frames(path)
    stride, starts = recipe.cuts(length)
    if not starts:
        raise ValueError(f"{path} is too short: it has {length} frames, {recipe.span(stride)} are needed")
    count, step = (recipe.num_frames - 1) * recipe.links + 1, stride // recipe.links
    moments = []
    for start in starts:
        frames = read_video(path, count, float(start / first.fps), step, short_side).frames
        if len(frames) < count:
            raise ValueError(f"{path} is damaged: only {len(frames)} of {count} frames from {start} on are good")
        top, left = (frames.shape[1] - recipe.height) // 2, (frames.shape[2] - recipe.width) // 2
        moments.append((start, frames[:, top : top + recipe.height, left : left + recipe.width]))
    return stride, moments


def _digest(videos: Sequence[VideoEntry]) -> str:
    """Changes with the list of the videos, with a caption, and with the size of a file."""
    lines = []
    for video in videos:
        size = video.path.stat().st_size if video.path.is_file() else 0
        lines.append(f"{video.name}\t{video.caption}\t{size}")
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()  # a name may be no UTF-8


def _plan(folder: Path, videos: Sequence[VideoEntry], recipe: Recipe, tracker: Callable[[], Tracker]) -> None:
    """Write down what this set is made of, or compare it with what was written down when the set was begun."""
    digest = _digest(videos)
    name = f"{tracker.__module__}:{tracker.__qualname__}" if hasattr(tracker, "__qualname__") else repr(tracker)
    plan = {"recipe": asdict(recipe), "tracker": name, "videos": len(videos), "list": digest}
    path = folder / PLAN
    if not path.is_file():
        with atomic(path) as partial:
            partial.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
        return
    try:
        begun = dict(json.loads(path.read_text(encoding="utf-8")))
        begun["recipe"] = {"one_take": False, **begun["recipe"]}  # which older sets do not say
    except (LookupError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({brief(error)}): remove {folder} and make the shards again.") from error
    differing = dict.fromkeys(PLANNED[key] for key in plan if begun.get(key) != plan[key])
    if differing:
        raise OtherSettings(
            f"{folder} was begun with {' and '.join(differing)} (see {path.name} in it): choose another folder, or "
            "give the same again to go on."
        )


def _finish(folder: Path, videos: Sequence[VideoEntry], shards: list[Shard], recipe: Recipe) -> None:
    """Check that every video is accounted for, then write skipped.csv and shards.json."""
    skipped = [entry for shard in shards for entry in shard.skipped]
    with (
        atomic(folder / SKIPPED) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["video", "reason"])
        writer.writerows([entry.video, entry.reason] for entry in skipped)
    keys = [clip["key"] for shard in shards for clip in shard.clips]
    kept = {videos[int(key.partition("_")[0])].name for key in keys}
    accounted = kept | {entry.video for entry in skipped}
    if len(set(keys)) != len(keys) or accounted != {video.name for video in videos}:
        raise ValueError(
            f"{folder}: a clip comes twice, or the {len(accounted)} videos with clips or reasons are not the "
            f"{len(videos)} of the list: files were changed in between; remove the folder and make it again."
        )
    if not keys:
        raise ValueError(
            f"None of the {len(videos)} videos gave a clip; {folder / SKIPPED} says why, of {skipped[0].video}: "
            f"{skipped[0].reason.removesuffix('.')}. Once they are mended, remove {folder}."
        )
    write_index(folder, shards, {name: getattr(recipe, name) for name in ("num_frames", "height", "width")})
