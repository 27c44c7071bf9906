"""Arrays of numbers from .npz files that a stranger may have written."""

from __future__ import annotations

import io
import math
import reprlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from typing import IO

import numpy as np

from mi2v_lite.io.files import brief

LARGEST = 2**32  # bytes of an array
# What zipfile, zlib and NumPy's readers of headers raise for bytes that are not what they should be.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, TypeError, AttributeError, LookupError)
DAMAGED += (NotImplementedError, RuntimeError, SyntaxError, MemoryError, OverflowError, tokenize.TokenError)
DAMAGED += (struct.error, RecursionError)


def read_arrays(content: bytes, required: Collection[str], optional: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Reads arrays of an .npz file. Nothing in it is executed, and arrays that are not asked for are not looked at.

    The size in an array's header is compared with the bytes that are there before memory is taken for it.

    Args:
        content: the bytes of the file.
        required: the names of arrays that must be there.
        optional: the names of further arrays to read if they are there.

    Returns:
        The arrays by their names.

    Raises:
        ValueError: if it is not an .npz file, is damaged or lacks a required array, or if one of the arrays holds
            something other than numbers or takes more than 4 GiB.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            arrays = {}
            for name in (*required, *optional):
                if name in members:
                    with archive.open(members[name]) as file:
                        arrays[name] = _read_array(file, members[name].file_size)
    except DAMAGED as error:
        raise ValueError(f"damaged, or not an .npz file with plain numeric arrays ({brief(error)})") from error
    if lacking := [name for name in required if name not in arrays]:
        raise ValueError(
            f"there is no array {', '.join(map(repr, lacking))}; there are {reprlib.repr(sorted(members))}"
        )
    return arrays


def _read_array(file: IO[bytes], size: int) -> np.ndarray:
    """Reads one array in NumPy's format from an open member of the archive that has `size` bytes when unpacked."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"an array has the unknown version {version}")
    shape, fortran, dtype = readers[version](file)
    if dtype.kind not in "biuf" or any(side < 0 for side in shape):
        raise ValueError(f"an array holds {dtype} {shape} and not numbers")
    if size > LARGEST or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"an array of {dtype} {shape} cannot have {size} bytes")
    return np.frombuffer(file.read(), dtype).reshape(shape, order="F" if fortran else "C").copy()
