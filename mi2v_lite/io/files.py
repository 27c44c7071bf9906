"""Files and folders that are written whole or not at all.

A program may be killed at any moment. What is written here first gets another name beside its own, and is renamed when
it is complete, so that nobody ever reads half a file. The whole package writes its files in this way.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a killed program may leave beside NAME: .NAME.<random>.part is unfinished or half removed, and
# .NAME.<random>.old is a whole folder that was moved aside.
LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>part|old)")


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{kind}")


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a block a temporary name to write to; the file gets its own name when the block ends well.

    If the block raises an error, the unfinished file is removed and an older file of that name stays as it was.

    Args:
        path: the file to write.

    Yields:
        The temporary name, in the same folder.

    Raises:
        OSError: if the folder is missing or cannot be written, or `path` is a folder.
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
    """Gives a block a new folder to fill, which takes the place of `path` when the block ends well.

    The old folder is moved aside, the new one is moved to its place, and only then is the old one removed. If the block
    or a move fails, the old folder stays or comes back. If the program is killed, the old or the new folder is whole,
    possibly under the name of a folder that was moved aside; `recover_folders`, with which the next call begins, gives
    it its own name back. Only one program at a time may write a folder.

    Args:
        path: the folder to write; whatever it holds is replaced.

    Yields:
        The new folder, which is empty.

    Raises:
        OSError: if the parent folder is missing or cannot be written, or `path` is a file or a symbolic link.
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
    """Finishes what `atomic_folder` and `remove_folder` left half done when they failed or were killed.

    A folder that was moved aside and not replaced gets its name back. A folder that was replaced is removed, and so is
    an unfinished one. Files are not touched, and neither are folders whose names do not match `LEFTOVER`.

    Args:
        parent: the folder to look in; it may be missing.
        name: the only folder to recover; all of them if None.

    Raises:
        OSError: if a folder cannot be renamed.
    """
    parent = Path(parent)
    leftovers: dict[str, list[Path]] = {"part": [], "old": []}
    for entry in os.scandir(parent) if parent.is_dir() else ():
        match = LEFTOVER.fullmatch(entry.name)
        if match and name in (None, match["name"]) and entry.is_dir(follow_symlinks=False):
            leftovers[match["kind"]].append(parent / entry.name)
    for aside in sorted(leftovers["old"], key=lambda folder: folder.stat().st_mtime, reverse=True):
        path = parent / LEFTOVER.fullmatch(aside.name)["name"]
        if os.path.lexists(path):
            # Renamed first: if the removal is interrupted, what is left must not pass for a whole folder.
            leftovers["part"].append(aside.rename(_beside(path, "part")))
        else:
            aside.rename(path)
    for part in leftovers["part"]:
        shutil.rmtree(part, ignore_errors=True)  # the next call tries again what cannot be removed now


def folder_names(parent: str | os.PathLike) -> set[str]:
    """Lists the folders in `parent`, including those that `recover_folders` would give their names back.

    Args:
        parent: the folder to look in, in which nothing is changed.

    Returns:
        The names of all folders but the unfinished ones.

    Raises:
        OSError: if `parent` is missing or cannot be read.
    """
    names = [entry.name for entry in os.scandir(parent) if entry.is_dir()]
    matches = {name: LEFTOVER.fullmatch(name) for name in names}
    return {match["name"] if match else name for name, match in matches.items() if not match or match["kind"] == "old"}


def remove_folder(path: str | os.PathLike) -> None:
    """Removes a folder in such a way that never half of it can be found under its name.

    Args:
        path: the folder. If it is a symbolic link, only the link is removed.

    Raises:
        OSError: if the folder is missing or cannot be renamed.
    """
    path = Path(path)
    if path.is_symlink():
        path.unlink()
        return
    part = path.rename(_beside(path, "part"))
    shutil.rmtree(part, ignore_errors=True)  # `recover_folders` tries again what cannot be removed now
