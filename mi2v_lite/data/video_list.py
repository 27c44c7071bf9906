"""Lists of videos with their captions: those of a folder, or a table as WebVid has it (notebook 06).

WebVid (Bain et al., "Frozen in Time", ICCV 2021) is a table of addresses and captions. Nothing is downloaded here: a
video is looked for where the usual download tools put it, at DIR/page_dir/videoid.mp4 or at DIR/videoid.mp4.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".mpg", ".mpeg", ".gif")
COLUMNS = ("videoid", "contentUrl", "page_dir", "name")


@dataclass(frozen=True)
class VideoEntry:
    """A video of a list.

    Attributes:
        name: what reports call it; no two videos of a list have the same.
        path: the file.
        caption: what is to be seen, or "".
        trouble: why the video cannot be used, as far as the list tells; "" if nothing speaks against it.
    """

    name: str
    path: Path
    caption: str
    trouble: str = ""


def list_videos(source: str | Path, videos: str | Path | None = None) -> list[VideoEntry]:
    """The videos of a folder or of a WebVid table.

    Args:
        source: the folder, or the table (.csv).
        videos: the folder with the videos of a table, by default the table's own.

    Raises:
        ValueError: `source` is neither, or holds no videos.
    """
    source = Path(source)
    if source.is_dir():
        return list_folder(source)
    if source.suffix.lower() == ".csv" and source.is_file():
        return read_webvid(source, source.parent if videos is None else videos)
    raise ValueError(f"{source} is {'neither a folder nor a .csv table' if source.exists() else 'not there'}.")


def list_folder(folder: str | Path) -> list[VideoEntry]:
    """All videos of a folder and its subfolders, in the order of their names.

    Args:
        folder: where to look. The caption of a video is the text of NAME.txt beside it, if there is one.

    Raises:
        ValueError: the folder holds no videos.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise ValueError(f"{folder} holds no videos ({', '.join(SUFFIXES)}).")
    return [VideoEntry(path.relative_to(folder).as_posix(), path, _text(path.with_suffix(".txt"))) for path in paths]


def _text(path: Path) -> str:
    return " ".join(path.read_text(encoding="utf-8").split()) if path.is_file() else ""


def read_webvid(table: str | Path, folder: str | Path) -> list[VideoEntry]:
    """The videos of a WebVid table, in its order.

    A row that cannot be used, because its file is missing or its videoid stands in a row before, stays in the list with
    its trouble.

    Args:
        table: a csv file with the columns `COLUMNS`; others are ignored.
        folder: where the videos are.

    Raises:
        ValueError: the table cannot be read, lacks one of these columns or has no rows.
    """
    table, folder, entries, known = Path(table), Path(folder), [], set()
    try:
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                raise ValueError(f"{table} lacks the columns {lacking}; a WebVid csv has {list(COLUMNS)}.")
            for line, row in enumerate(reader, start=2):
                entries.append(_webvid_row(row, line, folder, known))
                known.add(row["videoid"])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} cannot be read as a csv ({error}).") from error
    if not entries:
        raise ValueError(f"{table} has no rows.")
    return entries


def _webvid_row(row: dict[str, str | None], line: int, folder: Path, known: set[str | None]) -> VideoEntry:
    videoid, page, caption = (" ".join((row[name] or "").split()) for name in ("videoid", "page_dir", "name"))
    places = [folder / page / f"{videoid}.mp4", folder / f"{videoid}.mp4"]
    path = next((place for place in places if place.is_file()), places[0])
    trouble = ""
    if not videoid or Path(videoid).name != videoid or ".." in Path(page).parts or Path(page).is_absolute():
        trouble, path = "the row has no videoid, or one that cannot be a file name", folder
    elif videoid in known:
        trouble = "its videoid also stands in a row before"
    elif not path.is_file():
        trouble = f"there is no file {places[0]}; its address is {(row['contentUrl'] or '')[:200]}"
    name = f"{videoid or 'no videoid'} (line {line})" if trouble else videoid
    return VideoEntry(name, path, caption, trouble)
