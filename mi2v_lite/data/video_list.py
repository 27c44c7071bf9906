"""Lists of videos with their captions: those of a folder, or a table as WebVid has it (notebook 06).

WebVid (Bain et al., "Frozen in Time", ICCV 2021) is a table of addresses and captions. Nothing is downloaded here: a
video is looked for where the usual download tools put it, at DIR/page_dir/videoid.mp4 or at DIR/videoid.mp4.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mi2v_lite.io.files import absent, read_text

SUFFIXES = (
    *(".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".mpg", ".mpeg", ".gif"),
    *(".ts", ".mts", ".m2ts", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".vob", ".mxf", ".divx", ".dv"),
    *(".h264", ".264", ".hevc", ".265", ".m2v", ".mjpeg", ".y4m", ".nut", ".apng", ".webp", ".avif"),
)
TABLES, DELIMITERS = (".csv", ".tsv"), ",;\t|"
LARGEST_TABLE = 2**32  # bytes; that of WebVid-10M has 2.7 GB
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
    if source.suffix.lower() in TABLES and source.is_file():
        return read_webvid(source, source.parent if videos is None else videos)
    if not source.exists():
        raise ValueError(absent(source, "a folder of videos, or a .csv table"))
    raise ValueError(f"{source} is neither a folder nor a .csv table.")


def list_folder(folder: str | Path) -> list[VideoEntry]:
    """All videos of a folder and its subfolders, in the order of their names.

    Args:
        folder: where to look. The caption of a video is the text of NAME.txt beside it, if there is one. Any other
            file, but a hidden one, is in the list with its trouble, so that none is passed over in silence.

    Raises:
        ValueError: the folder holds no videos.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    paths = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    videos = {path for path in paths if path.suffix.lower() in SUFFIXES}
    if not videos:
        raise ValueError(f"{folder} holds no videos ({', '.join(SUFFIXES)}).")
    captions = {path.with_suffix(".txt") for path in videos}
    return [_entry(path, path.relative_to(folder).as_posix(), path in videos) for path in paths if path not in captions]


def _entry(path: Path, name: str, video: bool) -> VideoEntry:
    """A file of a folder, and what speaks against it."""
    text = path.with_suffix(".txt")
    if not video:
        caption = path.suffix.lower() == ".txt"
        said = "a caption without a video of its name" if caption else f"a file {path.suffix or 'without a suffix'}"
        return VideoEntry(name, path, "", f"it is {said}, and not among the videos that are read ({SUFFIXES[0]}, ...)")
    try:
        return VideoEntry(name, path, " ".join(read_text(text).split()) if text.is_file() else "")
    except (OSError, ValueError) as error:
        return VideoEntry(name, path, "", f"its caption cannot be read: {error}")


def read_webvid(table: str | Path, folder: str | Path) -> list[VideoEntry]:
    """The videos of a WebVid table, in its order.

    A row that cannot be used, because its file is missing or its videoid stands in a row before, stays in the list with
    its trouble.

    Args:
        table: a csv file with the columns `COLUMNS`, between commas, semicolons, tabs or bars; others are ignored.
        folder: where the videos are.

    Raises:
        ValueError: the table cannot be read, lacks one of these columns or has no rows.
    """
    table, folder, entries, known = Path(table), Path(folder), [], set()
    try:
        text = read_text(table, LARGEST_TABLE)
        text = text.split("\n", 1)[-1] if text.startswith("sep=") else text  # a line that Excel writes
        rows = max((list(_rows(text, delimiter)) for delimiter in DELIMITERS), key=lambda rows: _known(rows[0]))
    except (OSError, csv.Error) as error:
        raise ValueError(f"{table} cannot be read as a csv ({error}).") from error
    if _known(rows[0]) < len(COLUMNS):
        lacking = [name for name in COLUMNS if name not in rows[0]]
        raise ValueError(
            f"{table} lacks the columns {lacking}; a WebVid csv has {list(COLUMNS)} in its first line, between commas, "
            "semicolons, tabs or bars."
        )
    for line, cells in enumerate(rows[1:], start=2):
        if any(cells):
            row = dict.fromkeys(rows[0]) | dict(zip(rows[0], cells, strict=False))
            entries.append(_webvid_row(row, line, folder, known))
            known.add(row["videoid"])
    if not entries:
        raise ValueError(f"{table} has no rows.")
    return entries


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    """The rows of a table; the names of the columns, which are in the first, without spaces around them."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    yield [name.strip() for name in next(rows, [])]
    yield from rows


def _known(names: list[str]) -> int:
    return len(set(COLUMNS) & set(names))


def _webvid_row(row: dict[str, str | None], line: int, folder: Path, known: set[str | None]) -> VideoEntry:
    videoid, page, caption = (" ".join((row[name] or "").split()) for name in ("videoid", "page_dir", "name"))
    places = [folder / page / f"{videoid}.mp4", folder / f"{videoid}.mp4"]
    try:
        path = next((place for place in places if place.is_file()), places[0])
    except OSError:  # a name that is too long for any file
        videoid, path = "", folder
    trouble = ""
    if not videoid or Path(videoid).name != videoid or ".." in Path(page).parts or Path(page).is_absolute():
        trouble, path = "the row has no videoid, or one that cannot be a file name", folder
    elif videoid in known:
        trouble = "its videoid also stands in a row before"
    elif not path.is_file():
        trouble = f"there is no file {places[0]}; its address is {(row['contentUrl'] or '')[:200]}"
    name = f"{videoid or 'no videoid'} (line {line})" if trouble else videoid
    return VideoEntry(name, path, caption, trouble)
