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
    import torch

    from mi2v_lite.pipelines import MotionI2VPipeline

Point = tuple[float, float]
DTYPES = ("float32", "bf16", "fp16")
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


def add_device(parser: argparse.ArgumentParser, dtype: bool = True) -> None:
    """The options --device and --dtype, for `load` and `device`."""
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    if dtype:
        parser.add_argument(
            "--dtype", choices=DTYPES, help="precision of the networks (default: bf16 on a GPU, float32 on the CPU)"
        )


def device(name: str | None) -> torch.device:
    """The device of that name; a GPU if there is one, else the CPU, for None.

    Raises:
        ValueError: no such device on this machine.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise ValueError(
            f"--device {name} is not to be had here ({reason(error)}); there is {', '.join(there)}."
        ) from error
    return found


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


def load(folder: Path | None, where: str | None = None, dtype: str | None = None) -> MotionI2VPipeline:
    """The pipeline, with quiet loading and a progress bar only where somebody looks.

    Args:
        folder: of a saved pipeline, None for the lite model. where, dtype: what --device and --dtype say.

    Raises:
        FileNotFoundError, ValueError: no weights there, damaged ones, or no such device.
    """
    place = device(where)
    import torch

    kinds = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    kind = kinds[dtype or ("float32" if place.type == "cpu" else "bf16")]
    if kind == torch.float16 and place.type == "cpu":
        raise ValueError("--dtype fp16 needs a GPU: a CPU computes it slowly and without its range; take bf16.")
    import diffusers.utils.logging
    import transformers.utils.logging

    from mi2v_lite.pipelines import MotionI2VPipeline

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    for library in libraries:
        library.disable_progress_bar()
        for handler in library.get_logger().handlers:
            handler.setFormatter(_OneLine())
    try:
        # Where motion is near zero half precision has steps of pixels: the flow's autoencoder keeps its digits.
        pipe = MotionI2VPipeline.from_lite(folder, dtype={"default": kind, "flow_vae": torch.float32}).to(place)
    except FileNotFoundError:
        raise
    except Exception as error:  # every library below has errors of its own for damaged files
        which = "the weights" if folder is None else f"the weights in {folder}"
        raise ValueError(f"{which} cannot be loaded ({type(error).__name__}: {reason(error)})") from error
    finally:
        for library in libraries:
            library.enable_progress_bar()
    pipe.set_progress_bar_config(disable=None)  # tqdm: shown on a terminal, not in a log
    return pipe
