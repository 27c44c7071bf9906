"""Arrays of numbers from .npz files that a stranger may have written."""

from __future__ import annotations

import errno
import io
import math
import os
import reprlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from typing import IO

import numpy as np

from mi2v_lite.io.files import TooLarge, brief

LARGEST = 2**32  # bytes of an array: as float32, the flow of 250 frames of 1920x1080 pixels
PIECE = 2**20  # bytes unpacked at once
# What zipfile, zlib and NumPy's readers of headers raise for bytes that are not what they should be.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, TypeError, AttributeError, LookupError)
DAMAGED += (NotImplementedError, RuntimeError, SyntaxError, MemoryError, OverflowError, tokenize.TokenError)
DAMAGED += (struct.error, RecursionError)


def read_arrays(
    source: bytes | os.PathLike, required: Collection[str], optional: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Reads arrays of an .npz file. Nothing in it is executed, and arrays that are not asked for are not looked at.

    The size in an array's header is compared with the size that the archive states, and with `LARGEST`, before any
    memory is taken: a few bytes can unpack to gigabytes of zeros. How small an array is packed says nothing, for the
    motion of a still picture is all zeros, too.

    Args:
        source: the path of the file, or its bytes.
        required: the names of arrays that must be there.
        optional: the names of further arrays to read if they are there.

    Returns:
        The arrays by their names.

    Raises:
        ValueError: if it is not an .npz file, is damaged or lacks a required array, or if one of the arrays holds
            something other than numbers.
        TooLarge: if one of the arrays has more than `LARGEST` bytes.
        OSError: if the file is missing or cannot be read.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as opened:
        try:
            with zipfile.ZipFile(opened) as archive:
                members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
                arrays = {}
                for name in (*required, *optional):
                    if name in members:
                        _check_packing(members[name])
                        with archive.open(members[name]) as file:
                            arrays[name] = _read_array(file, members[name].file_size)
        except TooLarge:
            raise
        except DAMAGED as error:
            raise ValueError(f"damaged, or not an .npz file with plain numeric arrays ({brief(error)})") from error
    if lacking := [name for name in required if name not in arrays]:
        raise ValueError(
            f"there is no array {', '.join(map(repr, lacking))}; there are {reprlib.repr(sorted(members))}"
        )
    return arrays


def _check_packing(member: zipfile.ZipInfo) -> None:
    """Raises ValueError for the ways of packing that NumPy does not use: they are unpacked whole, or not at all."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is packed in another way than NumPy's")


def _read_array(file: IO[bytes], size: int) -> np.ndarray:
    """Reads one array in NumPy's format from an open member of the archive that has `size` bytes when unpacked."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):  # the later ones are for structured arrays, and their headers can be gigabytes long
        raise ValueError(f"an array has the unknown version {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or any(side < 0 for side in shape):
        raise ValueError(f"an array holds {dtype} {shape} and not numbers")
    length = math.prod(shape) * dtype.itemsize
    if length != size - file.tell():
        raise ValueError(f"an array of {dtype} {shape} cannot have {size} bytes")
    check_length(length, f"an array of {dtype} {shape}")
    content = bytearray(length)
    for start in range(0, len(content), PIECE):
        piece = memoryview(content)[start : start + PIECE]
        if file.readinto(piece) != len(piece):
            raise EOFError("an array ends too early")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def new_array(path: str | os.PathLike, dtype: np.typing.DTypeLike, shape: tuple[int, ...]) -> np.memmap:
    """Makes a memory-mapped array in a new .npy file. The disk has room for all of it.

    Otherwise the system would end the process, without a word, when what is written into memory finds no room.

    Args:
        path: the file.
        dtype: of the numbers.
        shape: of the array.

    Returns:
        The array, full of zeros.

    Raises:
        OSError: if the file cannot be written, or the disk has too little room.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):  # some file systems have no such call
                    raise OSError(error.errno, error.strerror, str(path)) from None
    return array


def check_length(length: int, what: str) -> None:
    """Refuses arrays that are implausibly large.

    Args:
        length: how many bytes the array has.
        what: what holds it, as the error begins.

    Raises:
        TooLarge: if it has more than `LARGEST`.
    """
    if length > LARGEST:
        raise TooLarge(f"{what} has {length:,} bytes, and at most {LARGEST:,} are read")
