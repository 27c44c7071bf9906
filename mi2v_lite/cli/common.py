"""What the commands share: errors in one line, readers of numbers and points, checks of files, and loading.

This module can be imported without torch.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mi2v_lite.io.files import ADDRESS, LEFTOVER, brief, check_ordinary, locked, new_folder, remove_unfinished

if TYPE_CHECKING:
    import torch

    from mi2v_lite.pipelines import MotionI2VPipeline

Point = tuple[float, float]
LONGEST_NAME = 255  # bytes of a file's name, on all usual systems
_held = ExitStack()  # the locks of `check_writable`
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


def shortened(text: str, most: int = 60) -> str:
    """Returns the text, or its beginning if it is long."""
    return text if len(text) <= most else f"{text[:most]}..."


def reason(error: Exception, most: int = 600) -> str:
    """Says in one line what was wrong; an error of the system is given with the name of the file.

    Args:
        error: what was raised.
        most: characters; of a longer line, which quotes something long, the middle is left out.

    Returns:
        The line.
    """
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        folder, name = os.path.split(str(error.filename2 or error.filename))  # of two names the one that is written
        while unfinished := LEFTOVER.fullmatch(name):  # one unfinished file may become a part of another
            name = unfinished["name"]
        said = joined(f"{os.path.join(folder, name)}: {error.strerror}")
    else:
        said = joined(str(error)) or type(error).__name__
    return said if len(said) <= most else f"{said[: most // 2]} ... {said[-most // 2 :]}"


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
        torch.ones(1, device=chosen).item()  # which there is not on the device "meta"
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        present = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise ValueError(
            f"--device {name} cannot be used here ({brief(error, 80)}); this machine has {', '.join(present)}."
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


def points(text: str) -> list[Point]:
    """Reads one or more points "x,y x,y ..."; argparse reports anything else."""
    return [point(part) for part in text.split()] or [point(text)]


def drag_points(text: str) -> list[Point]:
    """Reads two or more points "x,y x,y ..."; argparse reports anything else."""
    points = [point(part) for part in text.split()]
    if len(points) < 2:
        raise argparse.ArgumentTypeError(f'{text!r} is not a drag; write two or more points, "x,y x,y ...", in quotes')
    return points


def whole(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    """Returns a reader of whole numbers from `least` to `most`, by default the largest that a seed may be."""
    usual = most == 2**63 - 1

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            expected = f"of at least {least}" if usual else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{shortened(text)!r} must be a whole number {expected}")
        return int(text)

    return read


def number(least: float, most: float = math.inf) -> Callable[[str], float]:
    """Returns a reader of finite numbers from `least` to `most`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most):
            expected = f"of at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
            raise argparse.ArgumentTypeError(f"{shortened(text)!r} must be a number {expected}")
        return value

    return read


def check_paths(values: Iterable[object]) -> None:
    """Makes sure that nobody expects a file to be read from the network or from a pipe, or to be written there.

    Args:
        values: those of a command's options; what is no path is passed over.

    Raises:
        ValueError: if one is a URL, a pipe, a socket or a device.
    """
    for value in values:
        for path in value if isinstance(value, list) else [value]:
            if not isinstance(path, Path):
                continue
            if re.match(f"{ADDRESS.pattern}/", str(path)) and not path.exists():
                raise ValueError(
                    f"{path} is a URL, and a file or a folder on this machine is expected; mi2v uses no network."
                )
            check_ordinary(path)


def check_writable(outputs: Iterable[Path], inputs: Iterable[Path | None] = ()) -> None:
    """Makes sure, before any long work begins, that the outputs can be written, and by this command alone.

    Their folders are made. They are locked until `release` is called, so that a second command cannot write them in the
    meantime. What a killed command left unfinished of them is removed.

    Args:
        outputs: the files that will be written.
        inputs: the files that will be read; None is skipped.

    Raises:
        ValueError: if an output is an input or a folder, its folder cannot be written, or another command is writing
            it.
    """
    outputs = list(outputs)
    read = {os.path.realpath(path) for path in inputs if path is not None}
    for path in outputs:
        if len(os.fsencode(path.name)) > LONGEST_NAME:
            raise ValueError(f"the name of the output {path} has more than {LONGEST_NAME} bytes; choose a shorter one.")
        if os.path.realpath(path) in read:
            raise ValueError(f"{path} would be overwritten, but it is an input; choose another output.")
        check_ordinary(path)
        if path.is_dir() or any(path in other.parents for other in outputs):
            raise ValueError(f"the output {path} is a folder; give the name of a file.")
    for path in outputs:
        try:
            _held.enter_context(new_folder(path.parent))
            _held.enter_context(locked(path))
            remove_unfinished(path)
        except BlockingIOError as error:
            raise ValueError(f"the output {path} is being written by another program; choose another.") from error
        except OSError as error:
            raise ValueError(
                f"the output folder {path.parent} cannot be written: {error.strerror}; choose another."
            ) from error


def check_folder(output: Path) -> None:
    """Makes sure, before any long work begins, that a folder can be written, or made and written.

    Raises:
        ValueError: if it is a file or cannot be made.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"the output {output} is a file, but a folder is expected; choose another name.")
    try:
        with new_folder(output), tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise ValueError(f"the output folder {output} cannot be written: {error.strerror}; choose another.") from error


def release() -> None:
    """Gives up the locks of `check_writable`, and removes the folders that it made and nothing was written into."""
    _held.close()


def close_bars() -> None:
    """Ends the lines of progress bars that are still open, so that a message gets a line of its own."""
    if "tqdm" in sys.modules:
        for bar in list(sys.modules["tqdm"].tqdm._instances):
            bar.close()


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
        kind = "" if type(error) in (ValueError, OSError) else f"{type(error).__name__}: "
        raise ValueError(f"{which} cannot be loaded ({kind}{reason(error)})") from error
    finally:
        for library in libraries:
            library.enable_progress_bar()
    pipe.set_progress_bar_config(disable=None)  # for tqdm: only on a terminal
    return pipe
