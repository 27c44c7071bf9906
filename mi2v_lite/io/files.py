"""Files and folders that are written whole or not at all.

A program may be killed at any moment. What is written here first gets another name beside its own, and is renamed when
it is complete and on the disk, so that nobody ever reads half a file, not even after the power has failed. The whole
package writes its files in this way. `locked` keeps two programs from writing the same thing at the same time.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None
    import msvcrt

# What a killed program may leave beside NAME: .NAME.<random>.part is unfinished or half removed, and
# .NAME.<random>.old is a whole folder that was moved aside.
LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>part|old)")
LONGEST_NAME = 238  # bytes; a longer one leaves no room for what `_beside` adds, since a name may have 255
LARGEST_TEXT = 2**24  # bytes of a JSON file or a caption; parsed it takes about thirty times as much memory
PIECE = 2**20  # bytes read at once where a file states no size
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # how a URL begins; "C:" is a drive
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what a file system says that has no locks


class TooLarge(ValueError):
    """A file, or what it unpacks to, is larger than what is read. It need not be damaged."""


def checksum(path: str | os.PathLike) -> int:
    """Returns the CRC-32 of a file's content, which tells whether bits of it have changed."""
    value = 0
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            value = zlib.crc32(part, value)
    return value


def brief(error: Exception, most: int = 200) -> str:
    """Returns the beginning of what an error says, which can be as long as a damaged file made it."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= most else f"{said[:most]}..."


def absent(path: str | os.PathLike, wanted: str) -> str:
    """Returns what to say of a file that is not there.

    Args:
        path: the file that was asked for, possibly a URL: the package never fetches anything.
        wanted: what should have been given, as in "the path of a picture".
    """
    if ADDRESS.match(os.fspath(path)):
        return f"{path} is a URL or begins like one, and URLs are not read: download the file, and give {wanted}."
    return f"{path} does not exist; give {wanted}."


def check_ordinary(path: str | os.PathLike) -> None:
    """Makes sure that a path is none of a pipe, a socket or a device, which may never end, or never begin.

    Args:
        path: what is to be read or written. What the shell opens for <(...) has no real path, and is let through.

    Raises:
        ValueError: if it is one.
    """
    odd = os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))
    if odd and os.path.exists(os.path.realpath(path)):
        raise ValueError(f"{path} is a pipe, a socket or a device, which cannot be read or written as a file.")


def _short(name: str) -> str:
    """The name, or a hash of it where it is too long to be a part of another name."""
    coded = os.fsencode(name)
    return name if len(coded) <= LONGEST_NAME else hashlib.sha256(coded).hexdigest()[:32]


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{_short(path.name)}.{secrets.token_hex(4)}.{kind}")


def _to_disk(path: Path) -> None:
    """Returns once a file, or the list of names in a folder, has reached the disk."""
    if path.is_dir() and (os.name == "nt" or not os.access(path, os.R_OK)):
        return  # Windows does this by itself, and opens no folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: str | os.PathLike, wait: bool = False) -> Iterator[None]:
    """Lets one program at a time work on a file or a folder; all that use this function for it respect each other.

    The lock belongs to a file `.NAME.lock` beside it, which is removed at the end. When a program is killed, the system
    frees its lock, and the next program takes the file that was left.

    Args:
        path: the file or the folder, which need not be there; the folder that it is in must be.
        wait: whether to wait until it is free.

    Raises:
        BlockingIOError: if another program works on it, and `wait` is false.
        OSError: if the folder that it is in is missing or cannot be written.
    """
    path = Path(path)
    file = path.with_name(f".{_short(path.name)}.lock")
    handle = _take(file, path, wait)
    try:
        yield
    finally:
        if fcntl:
            file.unlink(missing_ok=True)  # while the lock still holds, so that it cannot be another program's
        os.close(handle)
        if not fcntl:
            with suppress(OSError):  # another program has it now
                file.unlink(missing_ok=True)


def _take(file: Path, path: Path, wait: bool) -> int:
    """Opens the file and locks it; returns the handle."""
    while True:
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OSError(error.errno, f"nothing can be written there ({error.strerror})", str(path.parent)) from error
        try:
            if fcntl:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            else:
                msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(file)):
                    return handle
        except OSError as error:
            if error.errno in NO_LOCKS:
                return handle
            os.close(handle)
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLOCK):
                said = "another program is working on it: wait until that one has ended, or choose another name"
                raise BlockingIOError(errno.EAGAIN, said, str(path)) from None
            raise
        os.close(handle)  # its last owner has removed the file since it was opened


def remove_unfinished(path: str | os.PathLike) -> None:
    """Removes the unfinished files that killed programs left of a file; hold its lock meanwhile (`locked`).

    Args:
        path: the file that they were going to become.
    """
    path = Path(path)
    for entry in os.scandir(path.parent):
        match = LEFTOVER.fullmatch(entry.name)
        if match and (match["name"], match["kind"]) == (_short(path.name), "part") and entry.is_file():
            os.unlink(entry.path)


@contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[None]:
    """Makes a folder and those above it that are missing, and removes at the end those of them that are still empty.

    Args:
        path: the folder, which may be there already.

    Raises:
        OSError: if it cannot be made, or a file is in its place.
    """
    path = Path(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with suppress(OSError):  # something is in one of them, and so in all above it
            for folder in missing:
                folder.rmdir()


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
        _to_disk(beside)
        os.replace(beside, path)
        _to_disk(path.parent)
    except OSError as error:
        if error.errno and error.filename is None:  # as when the disk is full
            error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a block a new folder to fill, which takes the place of `path` when the block ends well.

    The old folder is moved aside, the new one is moved to its place, and only then is the old one removed. If the block
    or a move fails, the old folder stays or comes back. If the program is killed, the old or the new folder is whole,
    possibly under the name of a folder that was moved aside; `recover_folders`, with which the next call begins, gives
    it its own name back.

    Args:
        path: the folder to write; whatever it holds is replaced.

    Yields:
        The new folder, which is empty.

    Raises:
        BlockingIOError: if another program is writing the same folder.
        OSError: if the parent folder is missing or cannot be written, or `path` is a file or a symbolic link.
    """
    path = Path(path)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise NotADirectoryError(errno.ENOTDIR, "not a folder, or a symbolic link to one", str(path))
    if _short(path.name) != path.name:
        raise OSError(errno.ENAMETOOLONG, f"the name is longer than {LONGEST_NAME} bytes", str(path))
    with locked(path):
        recover_folders(path.parent, path.name)
        beside = _beside(path, "part")
        beside.mkdir()
        try:
            yield beside
            for inside in sorted(beside.rglob("*"), reverse=True):
                _to_disk(inside)
            _to_disk(beside)
            if path.exists():
                os.rename(path, _beside(path, "old"))
            os.rename(beside, path)
            _to_disk(path.parent)
        finally:
            try:
                recover_folders(path.parent, path.name)
            except KeyboardInterrupt:  # what it had begun to remove would stay
                recover_folders(path.parent, path.name)
                raise


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


def read_bytes(path: str | os.PathLike, most: int) -> bytes:
    """Reads a whole file, unless it is larger than a file of its kind ever is.

    Args:
        path: the file.
        most: how large it may be, in bytes.

    Returns:
        Its content.

    Raises:
        OSError: if the file is missing or cannot be read.
        TooLarge: if it is larger; this is checked before any memory is taken.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size:
            content = b"" if size > most else file.read(size + 1)
        else:  # it is empty, or what the shell opens for <(...)
            pieces = iter(lambda: file.read(PIECE), b"")
            content = b"".join(islice(pieces, most // PIECE + 1))
    if max(size, len(content)) > most:
        raise TooLarge(f"{path} has {max(size, len(content)):,} bytes, and at most {most:,} are read.")
    return content


def check_header(path: str | os.PathLike) -> None:
    """Refuses a safetensors file whose header, which is JSON, is larger than that of any model.

    Args:
        path: the file.

    Raises:
        OSError: if it is missing or cannot be read.
        ValueError: if the header is too large.
    """
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if LARGEST_TEXT < size < os.fstat(file.fileno()).st_size:
            raise ValueError(f"{path} has a header of {size:,} bytes, and at most {LARGEST_TEXT:,} are read.")


def read_text(path: str | os.PathLike, most: int = LARGEST_TEXT) -> str:
    """Reads a text file as people's editors write it: in UTF-8, or in any Unicode with a byte order mark.

    Args:
        path: the file.
        most: how large it may be, in bytes.

    Returns:
        The text without the mark.

    Raises:
        OSError: if the file is missing or cannot be read.
        TooLarge: if the file is larger.
        ValueError: if the text is in another encoding.
    """
    content = read_bytes(path, most)
    marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
    marks |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # UTF-32 begins like UTF-16
    encoding = next((name for mark, name in marks.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not in UTF-8 (byte {error.start} is {content[error.start]:#04x}): save it in that encoding."
        ) from error
    if "\0" in text:
        raise ValueError(f"{path} is no text, or in UTF-16 without a byte order mark: save it in UTF-8.")
    return text
