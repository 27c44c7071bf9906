"""Lists of videos: a folder, or a table as WebVid has it; and the frames of one at given moments (notebook 06).

WebVid (Bain et al., "Frozen in Time", ICCV 2021) is a csv of addresses and captions. Nothing is downloaded here: a
video is looked for where the usual download tools put it, at DIR/page_dir/videoid.mp4 or DIR/videoid.mp4.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from mi2v_lite.io.videos import read_video

SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".mpg", ".mpeg", ".gif")
COLUMNS = ("videoid", "contentUrl", "page_dir", "name")


@dataclass(frozen=True)
class VideoEntry:
    """A video of a list. name: unique, what reports call it. trouble: why it cannot be used, known from the list."""

    name: str
    path: Path
    caption: str
    trouble: str = ""


def list_folder(folder: str | Path) -> list[VideoEntry]:
    """All videos of a folder and its subfolders, by name. The caption is NAME.txt beside the video, or empty.

    Raises ValueError if there are none.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise ValueError(f"{folder} holds no videos ({', '.join(SUFFIXES)}).")
    return [VideoEntry(path.relative_to(folder).as_posix(), path, _text(path.with_suffix(".txt"))) for path in paths]


def _text(path: Path) -> str:
    return " ".join(path.read_text(encoding="utf-8").split()) if path.is_file() else ""


def read_webvid(table: str | Path, folder: str | Path) -> list[VideoEntry]:
    """The rows of a WebVid csv (columns `COLUMNS`; others are ignored), in its order.

    A row that cannot be used stays in the list with its trouble: a file that is not there, an id that came before.

    Raises ValueError for a table without those columns or without rows.
    """
    table, folder, found, known = Path(table), Path(folder), [], set()
    try:
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                raise ValueError(f"{table} lacks the columns {lacking}; a WebVid csv has {list(COLUMNS)}.")
            for line, row in enumerate(reader, start=2):
                video = _webvid_row(row, line, folder, known)
                known.add(row["videoid"])
                found.append(video)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} cannot be read as a csv ({error}).") from error
    if not found:
        raise ValueError(f"{table} has no rows.")
    return found


def _webvid_row(row: dict[str, str | None], line: int, folder: Path, known: set[str | None]) -> VideoEntry:
    ident, page, caption = (" ".join((row[name] or "").split()) for name in ("videoid", "page_dir", "name"))
    places = [folder / page / f"{ident}.mp4", folder / f"{ident}.mp4"]
    path = next((place for place in places if place.is_file()), places[0])
    trouble = ""
    if not ident or Path(ident).name != ident or ".." in Path(page).parts or Path(page).is_absolute():
        trouble, path = "the row has no videoid, or one that is no file name", folder
    elif ident in known:
        trouble = "its videoid stands in a row before, too"
    elif not path.is_file():
        trouble = f"there is no file {places[0]}; its address is {row['contentUrl']}"
    return VideoEntry(ident if not trouble else f"{ident or 'no videoid'} (line {line})", path, caption, trouble)


def read_moments(
    path: Path, starts: Callable[[int], list[int]], offsets: range, size: tuple[int, int]
) -> list[tuple[int, np.ndarray]]:
    """Frames `start + offsets` of a video, scaled to cover `size` (height, width) and cut to its middle.

    Args:
        path: the video. starts: from the number of its frames to where clips begin, counted from 0.
        offsets: from 0 in even steps.

    Returns:
        for each start itself and uint8 `(len(offsets), H, W, 3)` RGB.

    Raises:
        ValueError: it cannot be read, is shorter than it says or than is needed, or is damaged where it is needed.
    """
    first = read_video(path, 1)
    height, width = first.frames.shape[1:3]
    short = math.ceil(min(height, width) * max(size[0] / height, size[1] / width))
    length = _length(path)
    chosen = starts(length)
    if not chosen:
        raise ValueError(f"{path} is too short: it has {length} frames, {offsets[-1] + 1} are needed")
    moments = []
    for start in chosen:
        frames = read_video(path, len(offsets), float(start / first.fps), offsets.step, short).frames
        if len(frames) < len(offsets):
            raise ValueError(f"{path} is damaged: only {len(frames)} of {len(offsets)} frames from {start} on are good")
        top, left = (frames.shape[1] - size[0]) // 2, (frames.shape[2] - size[1]) // 2
        moments.append((start, frames[:, top : top + size[0], left : left + size[1]]))
    return moments


def _length(path: Path) -> int:
    """Frames in the file, counted without decoding them; a ValueError if it says that there should be more."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            there = sum(packet.size > 0 for packet in container.demux(stream))
            if there < stream.frames:
                raise ValueError(f"{path} is cut off: {there} of its {stream.frames} frames are there")
            return there
    except av.FFmpegError as error:
        raise ValueError(f"{path} cannot be read to its end ({error})") from error
