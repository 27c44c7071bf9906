"""What the commands share: one-line errors and warnings, readers of numbers and points, checks of files, loading.

Everything here can be imported without torch.
"""

from __future__ import annotations

import argparse
import logging
import math
import secrets
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mi2v_lite.pipelines import MotionI2VPipeline

Point = tuple[float, float]
TRACKER_HELP = "what tracks: dis (default), raft:FILE, cotracker:FILE, dot:FILE, python:MODULE:NAME"


class _OneLine(logging.Formatter):
    """A library's log message as one line of ours."""

    def format(self, record: logging.LogRecord) -> str:
        return f"mi2v: {record.levelname.lower()}: {joined(record.getMessage())}"


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Inside, each Python warning is one line without the place in the code it came from."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: say(f"warning: {joined(str(message))}")
        yield


def say(message: str) -> None:
    """One line on stderr."""
    print(f"mi2v: {message}", file=sys.stderr)


def joined(text: str) -> str:
    """The lines of a text as one."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def reason(error: Exception) -> str:
    """One line: what was wrong, for the system's errors with the file's name."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return joined(f"{error.filename}: {error.strerror}")
    return joined(str(error)) or type(error).__name__


def by(size: tuple[int, int]) -> str:
    """(90, 60) -> "90x60"."""
    return f"{size[0]}x{size[1]}"


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The option --weights, for `load`."""
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="a saved pipeline (default: the lite model)")


def point(text: str) -> Point:
    """ "x,y" to numbers; argparse's error for anything else."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise argparse.ArgumentTypeError(f'{text!r} is no point; write "x,y" in pixels, e.g. 120,80')
    return x, y


def drag_points(text: str) -> list[Point]:
    """ "x,y x,y ..." to two or more points; argparse's error for anything else."""
    points = [point(part) for part in text.split()]
    if len(points) < 2:
        raise argparse.ArgumentTypeError(f'{text!r} is no drag; write two or more points, "x,y x,y ...", in quotes')
    return points


def whole(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from `least` to what a seed may be."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text[:20]) < 2**63):
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
        return int(text)

    return read


def number(least: float) -> Callable[[str], float]:
    """A reader of finite numbers from `least`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            raise argparse.ArgumentTypeError(f"{text!r} must be a number of at least {least:g}")
        return value

    return read


def check_writable(outputs: Iterable[Path], inputs: Iterable[Path | None] = ()) -> None:
    """Makes the folders and tries them: better now than after the sampling."""
    outputs = list(outputs)
    read = {path.resolve() for path in inputs if path is not None}
    for path in outputs:
        if path.resolve() in read:
            raise ValueError(f"{path} would be written over, but it is an input; choose another output.")
        if path.is_dir():
            raise ValueError(f"the output {path} is a folder; give a file name.")
    for folder in {path.parent: None for path in outputs}:
        trial = folder / f".mi2v.{secrets.token_hex(4)}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise ValueError(f"the output folder {folder} cannot be written: {error.strerror}.") from error


def load(folder: Path | None) -> MotionI2VPipeline:
    """The pipeline, with quiet loading and a progress bar only where somebody looks."""
    import diffusers.utils.logging
    import transformers.utils.logging

    from mi2v_lite.pipelines import MotionI2VPipeline

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    for library in libraries:
        library.disable_progress_bar()
        for handler in library.get_logger().handlers:
            handler.setFormatter(_OneLine())
    try:
        pipe = MotionI2VPipeline.from_lite(folder)
    except FileNotFoundError:
        raise
    except Exception as error:  # every library below has errors of its own for damaged files
        where = "the weights" if folder is None else f"the weights in {folder}"
        raise ValueError(f"{where} cannot be loaded ({type(error).__name__}: {reason(error)})") from error
    finally:
        for library in libraries:
            library.enable_progress_bar()
    pipe.set_progress_bar_config(disable=None)  # tqdm: shown on a terminal, not in a log
    return pipe
