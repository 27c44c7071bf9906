"""What the commands share: errors in one line, readers of numbers and points, checks of files, and loading.

This module can be imported without torch.
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
    import torch

    from mi2v_lite.pipelines import MotionI2VPipeline

Point = tuple[float, float]
DTYPES = ("float32", "bf16", "fp16")
TRACKER_HELP = "the tracker: dis (default), raft:FILE, cotracker:FILE, dot:FILE, python:MODULE:NAME"


class _OneLine(logging.Formatter):
    """Formats a library's log message as one line of ours."""

    def format(self, record: logging.LogRecord) -> str:
        return f"mi2v: {record.levelname.lower()}: {joined(record.getMessage())}"


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Inside the block, a Python warning is one line, without the place in the code that it came from."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: say(f"warning: {joined(str(message))}")
        yield


def say(message: str) -> None:
    """Prints one line to stderr."""
    print(f"mi2v: {message}", file=sys.stderr)


def joined(text: str) -> str:
    """Joins the lines of a text."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def reason(error: Exception) -> str:
    """Says in one line what was wrong; an error of the system is given with the name of the file."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return joined(f"{error.filename}: {error.strerror}")
    return joined(str(error)) or type(error).__name__


def by(size: tuple[int, int]) -> str:
    """Writes (90, 60) as "90x60"."""
    return f"{size[0]}x{size[1]}"


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Adds the option --weights, for `load`."""
    parser.add_argument(
        "--weights", type=Path, metavar="FOLDER", help="the folder of a saved pipeline (default: the lite model)"
    )


def add_device(parser: argparse.ArgumentParser, dtype: bool = True) -> None:
    """Adds the options --device and --dtype, for `load` and `device`."""
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 and so on (default: a GPU if there is one)")
    if dtype:
        parser.add_argument(
            "--dtype", choices=DTYPES, help="precision of the networks (default: bf16 on a GPU, float32 on the CPU)"
        )


def device(name: str | None) -> torch.device:
    """Returns the device of that name, or by default a GPU if there is one and else the CPU.

    Raises:
        ValueError: if this machine has no such device.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        present = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise ValueError(
            f"--device {name} cannot be used here ({reason(error)}); this machine has {', '.join(present)}."
        ) from error
    return chosen


def point(text: str) -> Point:
    """Reads a point "x,y"; argparse reports anything else."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise argparse.ArgumentTypeError(f'{text!r} is not a point; write "x,y" in pixels, for instance 120,80')
    return x, y


def drag_points(text: str) -> list[Point]:
    """Reads two or more points "x,y x,y ..."; argparse reports anything else."""
    points = [point(part) for part in text.split()]
    if len(points) < 2:
        raise argparse.ArgumentTypeError(f'{text!r} is not a drag; write two or more points, "x,y x,y ...", in quotes')
    return points


def whole(least: int) -> Callable[[str], int]:
    """Returns a reader of whole numbers from `least` up to the largest that a seed may be."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text[:20]) < 2**63):
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
        return int(text)

    return read


def number(least: float) -> Callable[[str], float]:
    """Returns a reader of finite numbers from `least` up."""

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
    """Creates the folders of the outputs and tries to write there, before any long work begins.

    Args:
        outputs: the files that will be written.
        inputs: the files that will be read; None is skipped.

    Raises:
        ValueError: if an output is an input or a folder, or its folder cannot be written.
    """
    outputs = list(outputs)
    read = {path.resolve() for path in inputs if path is not None}
    for path in outputs:
        if path.resolve() in read:
            raise ValueError(f"{path} would be overwritten, but it is an input; choose another output.")
        if path.is_dir():
            raise ValueError(f"the output {path} is a folder; give the name of a file.")
    for folder in {path.parent: None for path in outputs}:
        trial = folder / f".mi2v.{secrets.token_hex(4)}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise ValueError(f"the output folder {folder} cannot be written: {error.strerror}.") from error


def load(folder: Path | None, where: str | None = None, dtype: str | None = None) -> MotionI2VPipeline:
    """Loads a pipeline without the libraries' messages, with a progress bar only on a terminal.

    Args:
        folder: of a saved pipeline, by default the lite model.
        where: what --device says.
        dtype: what --dtype says.

    Raises:
        FileNotFoundError: if there are no weights.
        ValueError: if they are damaged or there is no such device.
    """
    place = device(where)
    import torch

    kinds = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    kind = kinds[dtype or ("float32" if place.type == "cpu" else "bf16")]
    if kind == torch.float16 and place.type == "cpu":
        raise ValueError("--dtype fp16 needs a GPU, since a CPU computes it slowly and in a smaller range; use bf16.")
    import diffusers.utils.logging
    import transformers.utils.logging

    from mi2v_lite.pipelines import MotionI2VPipeline

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    for library in libraries:
        library.disable_progress_bar()
        for handler in library.get_logger().handlers:
            handler.setFormatter(_OneLine())
    try:
        # The flow autoencoder stays in float32: near zero motion, half precision has steps of pixels.
        pipe = MotionI2VPipeline.from_lite(folder, dtype={"default": kind, "flow_vae": torch.float32}).to(place)
    except FileNotFoundError:
        raise
    except ModuleNotFoundError:
        raise
    except Exception as error:  # every library below has errors of its own for damaged files
        which = "the weights" if folder is None else f"the weights in {folder}"
        raise ValueError(f"{which} cannot be loaded ({type(error).__name__}: {reason(error)})") from error
    finally:
        for library in libraries:
            library.enable_progress_bar()
    pipe.set_progress_bar_config(disable=None)  # for tqdm: only on a terminal
    return pipe
