"""Files that are written whole or not at all; every floor writes its files through this."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """A name beside `path` to write to; it becomes `path` when the block ends well and is removed when it does not.

    Raises:
        OSError: the folder is missing or cannot be written, or `path` is a folder.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
