"""Measures `mi2v shards` on small videos made for it: speed, size, and that no clip is lost or doubled (notebook 06).

    python -m tools.corpus --videos 1000

makes the videos from the world (every 50th is broken on purpose), turns them into shards with each number of processes,
then as two nodes would, reads the result with as many readers, and prints a table. Run it in the repository's folder.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from mi2v_lite.data.shards import Order, ShardSet
from mi2v_lite.data.video_list import list_folder
from mi2v_lite.data.videos_to_shards import Recipe, Report, make_shards
from mi2v_lite.data.world import World
from mi2v_lite.io.images import list_images

BROKEN_EVERY = 50
SAMPLES = Path("data_samples")
NODES = 2


def make_corpus(folder: str | Path, count: int, size: int = 64, num_frames: int = 4, samples: Path = SAMPLES) -> int:
    """Write MP4s with their captions; every `BROKEN_EVERY`-th is cut in half.

    Args:
        folder: where to.
        count: how many.
        size: side of the frames in pixels.
        num_frames: of a video.
        samples: a folder with photos/ and sprites/.

    Returns:
        how many are broken.

    Raises:
        ValueError: `samples` has no photos or sprites.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    world = World(list_images(samples / "photos"), samples / "sprites", "heldout", size, num_frames)
    broken = 0
    for i in tqdm(range(count), desc="making videos", unit="video"):
        clip, path = world.clip(i), folder / f"{i:06d}.mp4"
        write_mp4(path, clip.frames)
        path.with_suffix(".txt").write_text(clip.caption, encoding="utf-8")
        if i % BROKEN_EVERY == BROKEN_EVERY - 1:
            os.truncate(path, path.stat().st_size // 2)
            broken += 1
    return broken


def write_mp4(path: Path, frames: np.ndarray, fps: int = 8) -> None:
    """uint8 `(F, H, W, 3)` RGB to H.264 of good quality."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "12", "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def read_all(folder: Path, nodes: int, processes: int) -> Counter[str]:
    """How often each clip is read in one epoch by `nodes` times `processes` readers, each a process."""
    readers = nodes * processes
    with multiprocessing.get_context("spawn").Pool(readers) as pool:
        parts = pool.starmap(_read_part, [(folder, rank, readers) for rank in range(readers)], chunksize=1)
    return Counter(key for part in parts for key in part)


def _read_part(folder: Path, rank: int, readers: int) -> list[str]:
    clips = ShardSet(folder)
    order, keys = Order([count for _, count in clips.shards], seed=1), []
    for position in range(rank, len(clips), readers):
        clips.clip(order[position])  # raises if the clip cannot be read
        keys.append(clips.key(order[position]))
    return keys


def lost_and_doubled(folder: Path, nodes: int, processes: int) -> tuple[int, int]:
    """How many clips of the set no reader saw, and how many were seen more than once."""
    read, clips = read_all(folder, nodes, processes), ShardSet(folder)
    return sum(clips.key(i) not in read for i in range(len(clips))), sum(count > 1 for count in read.values())


def measure(count: int, processes: Sequence[int], work: Path, size: int, num_frames: int) -> list[str]:
    """The lines of the table in Markdown, see the head of the module."""
    started = time.perf_counter()
    broken = make_corpus(work / "videos", count, size, num_frames)
    lines = [
        f"{count} videos of {num_frames} frames at {size}x{size}, {broken} of them broken, made in "
        f"{time.perf_counter() - started:.0f} s. {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} before.",
        "",
        "| nodes | processes | seconds | videos a second | CPU ms a video | clips | skipped | unaccounted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    videos, recipe = list_folder(work / "videos"), Recipe(size, size, num_frames, 1, per_shard=25)
    for nodes, each in [*((1, number) for number in processes), (NODES, max(processes))]:
        folder = work / f"shards_{nodes}_{each}"
        before, started = _cpu(), time.perf_counter()
        reports: list[Report] = [
            make_shards(videos, folder, recipe, processes=each, node=i, nodes=nodes) for i in range(nodes)
        ]
        seconds, spent, done = time.perf_counter() - started, _cpu() - before, reports[-1]
        counts = f"{done.clips} | {done.skipped} | {count - done.clips - done.skipped}"
        speed = f"{seconds:.1f} | {count / seconds:.1f} | {1000 * spent / count:.0f}"
        lines.append(f"| {nodes}{' (one after the other)' if nodes > 1 else ''} | {each} | {speed} | {counts} |")
    lost, doubled = lost_and_doubled(folder, NODES, max(processes))
    lines += ["", f"Read by {NODES} nodes of {max(processes)} processes: {lost} clips lost, {doubled} doubled."]
    bytes_each = sum(path.stat().st_size for path in folder.glob("*.tar")) / max(1, done.clips)
    return [*lines, f"{bytes_each / 1e3:.1f} kB a clip in the shards."]


def _cpu() -> float:
    """Seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.corpus", description="Measures `mi2v shards`.")
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=int, default=64, help="side of the frames, pixels")
    parser.add_argument("--frames", type=int, default=4, help="of a video")
    options = parser.parse_args(arguments)
    work = Path(tempfile.mkdtemp())
    try:
        print("\n".join(measure(options.videos, options.processes, work, options.size, options.frames)))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
