"""From videos to shards: each video is read, cut, tracked and written, in many processes (paper, section 4.1).

A shard is the unit of work. Which videos belong to it follows from their list alone, so any process on any node can do
it, it is done when its .json is there, and a run that was killed goes on with the others. Every video of the list ends
in a shard or in skipped.csv with the reason; the sum is checked before the set is called finished.
"""

from __future__ import annotations

import csv
import hashlib
import json
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

from mi2v_lite.data.shards import Shard, Skipped, shard_name, write_index, write_shard
from mi2v_lite.data.source import Clip
from mi2v_lite.data.videos import VideoEntry, read_moments
from mi2v_lite.flow.tracking import ChainTracker, Tracker, check_one_take
from mi2v_lite.io.files import atomic

PLAN, SKIPPED = "plan.json", "skipped.csv"


@dataclass(frozen=True)
class Recipe:
    """How a video becomes clips.

    Attributes:
        height, width: of the frames, pixels, multiples of 8 from 16 on; the video is scaled and cut to its middle.
        num_frames: F of a clip. stride: source frames between two of them. clips: a video, spread evenly over it.
        links: tracked steps from one frame to the next, a divisor of `stride`: the tracker then sees the frames in
            between, which it needs where things move far. per_shard: videos a shard.
    """

    height: int = 320
    width: int = 512
    num_frames: int = 16
    stride: int = 8
    clips: int = 1
    links: int = 1
    per_shard: int = 100

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be made."""
        for name in ("height", "width"):
            if getattr(self, name) < 16 or getattr(self, name) % 8:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a multiple of 8, at least 16.")
        for name, least in (("num_frames", 2), ("stride", 1), ("clips", 1), ("links", 1), ("per_shard", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}.")
        if self.stride % self.links:
            raise ValueError(f"links is {self.links}; expected a divisor of the stride {self.stride}.")

    @property
    def span(self) -> int:
        """Source frames from the first to the last of a clip, both counted."""
        return (self.num_frames - 1) * self.stride + 1

    def starts(self, length: int) -> list[int]:
        """Where the clips of a video of `length` frames begin; no two are the same. [] if it is too short."""
        room = length - self.span
        if room < 0:
            return []
        return sorted({round((i + 0.5) / self.clips * room) for i in range(self.clips)})


@dataclass(frozen=True)
class Report:
    """What was made. `done` of `shards` exist; `videos` looked at, `clips` and entries of skipped.csv are in those; of
    this run alone were `made` videos, which took `seconds`."""

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
    """Turn videos into a set of shards, or go on with one that was begun.

    Args:
        videos: from `list_folder` or `read_webvid`. folder: of the set; the same on all nodes.
        recipe: how. tracker: makes the tracker in each process: a `TrackerMaker`, or, with several processes, a
            function or class of a module. processes: on this machine. node, nodes: this machine does every
            `nodes`-th shard.

    Returns:
        the report. The set is finished (shards.json) once all nodes are done.

    Raises:
        ValueError: no videos, a folder begun with other settings, a tracker that gives no finite field, a process that
            died, or no clip in all of the videos.
    """
    folder, recipe = Path(folder), recipe or Recipe()
    if not videos:
        raise ValueError("There are no videos to make shards of.")
    if not 0 <= node < nodes:
        raise ValueError(f"node is {node} of {nodes}; nodes are counted from 0.")
    folder.mkdir(parents=True, exist_ok=True)
    _plan(folder, videos, recipe, tracker)
    numbers = range(-(-len(videos) // recipe.per_shard))
    todo = [i for i in numbers if i % nodes == node and not (folder / f"{shard_name(i)}.json").is_file()]
    tasks = {i: _Task(folder, i, videos[i * recipe.per_shard : (i + 1) * recipe.per_shard], recipe) for i in todo}
    made, started = sum(len(task.videos) for task in tasks.values()), time.perf_counter()
    with tqdm(total=made, desc=f"videos to {folder.name}", unit="video", disable=not made) as bar:
        for number in _run(list(tasks.values()), tracker, processes):
            bar.update(len(tasks[number].videos))
    seconds = time.perf_counter() - started
    shards = [Shard.read(folder, shard_name(i)) for i in numbers if (folder / f"{shard_name(i)}.json").is_file()]
    counts = [sum(len(shard.clips) for shard in shards), sum(len(shard.skipped) for shard in shards)]
    report = Report(len(numbers), len(shards), sum(shard.videos for shard in shards), *counts, made, seconds)
    if report.done == report.shards:
        _finish(folder, videos, shards, recipe)
    return report


@dataclass(frozen=True)
class _Task:
    folder: Path
    number: int
    videos: Sequence[VideoEntry]
    recipe: Recipe


def _run(tasks: list[_Task], tracker: Callable[[], Tracker], processes: int) -> Iterator[int]:
    """Does the tasks; gives their numbers as they are done."""
    if processes == 1 or len(tasks) <= 1:
        with _one_thread():
            made = tracker()
            for task in tasks:
                yield _make(task, made)
        return
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_start_process, initargs=(tracker,)
    )
    try:
        for future in as_completed([pool.submit(_make, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise ValueError(
            "A process died while it read a video. What is done stays: run the same again to go on, with fewer "
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
    """As in the processes: one thread each, so that more processes bring more."""
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
    """The clips of a video with their keys; a `Skipped` for each that cuts to another scene, or one for all.

    Raises ValueError if the tracker, and not the video, is at fault.
    """
    if video.trouble:
        yield Skipped(video.name, video.trouble)
        return
    gap = recipe.stride // recipe.links
    try:
        moments = read_moments(video.path, recipe.starts, range(0, recipe.span, gap), (recipe.height, recipe.width))
    except (ValueError, OSError) as error:
        yield Skipped(video.name, str(error))
        return
    for i, (start, frames) in enumerate(moments):
        try:
            check_one_take(frames)
        except ValueError as error:
            yield Skipped(video.name, f"the clip from frame {start} on: {error}")
            continue
        flow, seen = tracker(frames)
        flow, seen = flow.numpy()[recipe.links - 1 :: recipe.links], seen.numpy()[recipe.links - 1 :: recipe.links]
        if not np.isfinite(flow).all():
            raise ValueError(f"The tracker gave a field that is not finite for {video.name}, from frame {start}.")
        clip = Clip(frames[:: recipe.links], flow, seen, video.caption, recipe.stride)
        yield f"{number:09d}_{i:02d}", clip, {"video": video.name, "start": start}


def _plan(folder: Path, videos: Sequence[VideoEntry], recipe: Recipe, tracker: Callable[[], Tracker]) -> None:
    """Writes what this set is made of, or compares it with what was begun."""
    digest = hashlib.sha256("\n".join(f"{video.name}\t{video.caption}" for video in videos).encode()).hexdigest()
    name = f"{tracker.__module__}:{tracker.__qualname__}" if hasattr(tracker, "__qualname__") else repr(tracker)
    plan = {"recipe": asdict(recipe), "tracker": name, "videos": len(videos), "list": digest}
    path = folder / PLAN
    if not path.is_file():
        with atomic(path) as partial:
            partial.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
        return
    begun = json.loads(path.read_text(encoding="utf-8"))
    other = [key for key in plan if begun.get(key) != plan[key]]
    if other:
        raise ValueError(
            f"{folder} was begun with another {' and '.join(other)} ({path.name} has it): choose another folder, or "
            "give the same again to go on."
        )


def _finish(folder: Path, videos: Sequence[VideoEntry], shards: list[Shard], recipe: Recipe) -> None:
    """Checks that every video is accounted for, then writes skipped.csv and shards.json."""
    skipped = [each for shard in shards for each in shard.skipped]
    with atomic(folder / SKIPPED) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "reason"])
        writer.writerows([each.video, each.reason] for each in skipped)
    keys = [clip["key"] for shard in shards for clip in shard.clips]
    kept = {videos[int(key.partition("_")[0])].name for key in keys}
    told = kept | {each.video for each in skipped}
    if len(set(keys)) != len(keys) or told != {video.name for video in videos}:
        raise ValueError(
            f"{folder}: a clip comes twice, or the {len(told)} videos with clips or reasons are not the {len(videos)} "
            "of the list: files were changed in between; remove the folder and make it again."
        )
    if not keys:
        raise ValueError(f"None of the {len(videos)} videos gave a clip; {folder / SKIPPED} says why.")
    write_index(folder, shards, {name: getattr(recipe, name) for name in ("num_frames", "height", "width")})
