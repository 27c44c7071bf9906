"""Unpacks the pictures of Qt resource files, in which some Debian packages keep theirs.

    python -m tools.things.rcc --out FOLDER FILE.rcc [FILE.rcc ...]

A picture `bee.webp` of `erase.rcc` becomes `erase__bee.webp`. The format is that of Qt's `rcc --binary`: a header, a
tree of folders and files, and what its entries point to: a block of data and a list of names.
"""

from __future__ import annotations

import argparse
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from mi2v_lite.cli import guarded

COMPRESSED, FOLDER, ZSTD = 1, 2, 4  # the flags of an entry
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def resource_files(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Reads a Qt resource file.

    Args:
        content: the bytes of the file.

    Yields:
        The name and the bytes of each file in it. Files that are compressed by Zstandard are left out.

    Raises:
        ValueError: the bytes are no Qt resource file.
    """
    if content[:4] != b"qres":
        raise ValueError("this is no Qt resource file: those begin with the letters 'qres'; give a .rcc file")
    version, tree, data, names = struct.unpack(">4I", content[4:20])
    entry_size = 14 if version < 2 else 22
    waiting = [0]
    while waiting:
        entry = tree + entry_size * waiting.pop()
        name_offset, flags = struct.unpack(">IH", content[entry : entry + 6])
        if flags & FOLDER:
            count, first = struct.unpack(">II", content[entry + 6 : entry + 14])
            waiting += range(first, first + count)
        elif not flags & ZSTD:
            name = names + name_offset
            (letters,) = struct.unpack(">H", content[name : name + 2])
            (data_offset,) = struct.unpack(">I", content[entry + 10 : entry + 14])
            start = data + data_offset + 4
            (size,) = struct.unpack(">I", content[start - 4 : start])
            packed = content[start : start + size]
            # A compressed file begins with its size before compression, in four bytes.
            file = zlib.decompress(packed[4:]) if flags & COMPRESSED else packed
            yield content[name + 6 : name + 6 + 2 * letters].decode("utf-16-be"), file


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line, which the module's docstring shows."""
    parser = argparse.ArgumentParser(description="Unpacks the pictures of Qt resource files.")
    parser.add_argument("sources", nargs="+", type=Path, help="the .rcc files")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write to")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    count = 0
    for source in options.sources:
        for name, file in resource_files(source.read_bytes()):
            if name.lower().endswith(SUFFIXES):
                (options.out / f"{source.stem}__{name}").write_bytes(file)
                count += 1
    print(f"{count} pictures in {options.out}")


if __name__ == "__main__":
    sys.exit(guarded(main))
