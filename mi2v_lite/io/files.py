"""Files and folders that are written whole or not at all; every floor writes its files through this."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a kill may leave beside NAME: .NAME.<random>.part is unfinished or half removed, .NAME.<random>.old is whole.
LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>part|old)")


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{kind}")


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """A name beside `path` to write to; it becomes `path` when the block ends well and is removed when it does not.

    Raises:
        OSError: the folder is missing or cannot be written, or `path` is a folder.
    """
    path = Path(path)
    beside = _beside(path, "part")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A new folder beside `path` to fill; it takes the place of `path` when the block ends well.

    An old folder `path` is moved aside, the new one moved to its place, and only then the old one removed. When the
    block or a move fails, the old folder stays or comes back. A kill at any moment leaves the old or the new folder
    whole, if need be under the name of one moved aside; `recover_folders`, with which the next call begins, gives it
    its own name back. Two writers of one `path` at once are not provided for.

    Args:
        path: the folder to write; whatever it holds is replaced.

    Yields:
        the new folder, empty.

    Raises:
        OSError: the folder above is missing or cannot be written, or `path` is a file or a symbolic link.
    """
    path = Path(path)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise NotADirectoryError(errno.ENOTDIR, "not a folder, or a symbolic link to one", str(path))
    recover_folders(path.parent, path.name)
    beside = _beside(path, "part")
    beside.mkdir()
    try:
        yield beside
        if path.exists():
            os.rename(path, _beside(path, "old"))
        os.rename(beside, path)
    finally:
        recover_folders(path.parent, path.name)


def recover_folders(parent: str | os.PathLike, name: str | None = None) -> None:
    """Ends what `atomic_folder` and `remove_folder` left half done in `parent` when they were killed or failed.

    A folder that was moved aside and not replaced gets its name back; one that was replaced, and what is unfinished,
    is removed. Nothing else is touched: no file, and no folder whose name is not of the form of `LEFTOVER`.

    Args:
        parent: the folder to look in; it may be missing. name: of the only folder to do it for, otherwise for all.

    Raises:
        OSError: a folder cannot be renamed.
    """
    parent = Path(parent)
    found: dict[str, list[Path]] = {"part": [], "old": []}
    for entry in os.scandir(parent) if parent.is_dir() else ():
        match = LEFTOVER.fullmatch(entry.name)
        if match and name in (None, match["name"]) and entry.is_dir(follow_symlinks=False):
            found[match["kind"]].append(parent / entry.name)
    for aside in sorted(found["old"], key=lambda each: each.stat().st_mtime, reverse=True):
        path = parent / LEFTOVER.fullmatch(aside.name)["name"]
        if os.path.lexists(path):
            found["part"].append(aside.rename(_beside(path, "part")))  # before its files go one by one
        else:
            aside.rename(path)
    for part in found["part"]:
        shutil.rmtree(part, ignore_errors=True)  # what resists is tried again by the next call


def folder_names(parent: str | os.PathLike) -> set[str]:
    """The names of the folders in `parent`, also of those that are moved aside and that `recover_folders` brings back.

    Args:
        parent: the folder to look in, which is left as it is.

    Returns:
        the names, without those of unfinished folders.

    Raises:
        OSError: `parent` is missing or cannot be read.
    """
    names = [entry.name for entry in os.scandir(parent) if entry.is_dir()]
    matches = {name: LEFTOVER.fullmatch(name) for name in names}
    return {match["name"] if match else name for name, match in matches.items() if not match or match["kind"] == "old"}


def remove_folder(path: str | os.PathLike) -> None:
    """Removes a folder; a kill in the middle of it leaves no half of it under its name.

    Args:
        path: the folder; of a symbolic link only the link is removed.

    Raises:
        OSError: it is missing or cannot be renamed.
    """
    path = Path(path)
    if path.is_symlink():
        path.unlink()
        return
    part = path.rename(_beside(path, "part"))
    shutil.rmtree(part, ignore_errors=True)  # what resists is tried again by `recover_folders`
