"""The command line, `mi2v` (README, notebook 00).

A command has a module with the function `add`, which registers its options, and the function that runs it. torch and
all that needs it are imported only inside the commands, so `mi2v --help` answers at once. A mistake of the user ends
with one line on stderr and exit code 2, Ctrl-C with 130.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NoReturn

from mi2v_lite import __version__

from . import animate, common, course, doctor, evaluate, importing, shards, training, video, world

# In the order of `mi2v --help`.
COMMANDS = (animate, video, evaluate, training, world, shards, importing, course, doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after `mi2v`, by default those of this process.

    Returns:
        the exit code: 0 for success, 2 for wrong use, a file that cannot be read or written or a package that is not
        installed, 130 after Ctrl-C, 141 if the program that reads the output has ended.
    """
    # torch reads this when it loads. If idle OpenMP threads spin, two processes slow each other down many times.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console or a name of a file may have other letters than UTF-8 allows
            stream.reconfigure(errors="backslashreplace")
    return guarded(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> None:
    options = _parser().parse_args(argv)
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ValueError("the current folder has been removed; go to another one.") from None
    common.check_paths(vars(options).values())
    options.run(options)


def guarded(program: Callable[[], int | None]) -> int:
    """Runs a program, and says in one line on stderr what its user can mend; the programs of tools/ use it, too.

    Args:
        program: what to run; it may return an exit code.

    Returns:
        The exit code, as `main` has it.
    """
    pressed = []

    def stop(number: int, frame: object) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    with common.one_line_warnings():
        try:
            if ours:
                signal.signal(signal.SIGINT, stop)
            return program() or 0
        except SystemExit as leaving:  # --help and --version
            return int(leaving.code or 0)
        except (KeyboardInterrupt, Exception) as error:
            if pressed or isinstance(error, KeyboardInterrupt):  # some library may have taken it for a damaged file
                said, code = "stopped", 130
            elif isinstance(error, BrokenPipeError) and sys.stdout is not None:  # what reads it has ended, as head does
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 141  # as if SIGPIPE had ended it
            elif wrong := _what_is_wrong(error):
                said, code = f"error: {wrong}", 2
            else:  # a fault of the code, whose traceback is wanted
                raise
            common.close_bars()
            common.say(said)
            return code
        finally:
            if ours:
                signal.signal(signal.SIGINT, before)
            common.release()


def _what_is_wrong(error: Exception) -> str | None:
    """Says what the user can do something about: wrong input, files, packages and memory; None for anything else."""
    if isinstance(error, (ValueError, OSError)):
        return common.reason(error)
    if isinstance(error, ImportError):
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("mi2v_lite"):
            return _how_to_install(error.name.split(".")[0])
        return common.reason(error) if error.name is None else None  # the package words what it lacks itself
    said = str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in said:
        return "there is not enough memory; try a smaller --size or fewer --frames."
    return None


# Import name to extra, for what only an extra of pyproject.toml brings.
EXTRAS = dict.fromkeys(("anywidget", "ipywidgets", "IPython", "matplotlib", "mediapy", "traitlets"), "notebooks")
EXTRAS |= {"webdataset": "test", "playwright": "test"}
# Import name to the name under which pip knows the package, where they differ.
PIP_NAMES = {"PIL": "pillow", "cv2": "opencv-python-headless", "yaml": "pyyaml", "flow_vis": "flow-vis"}


def _how_to_install(module: str) -> str:
    package = PIP_NAMES.get(module, module)
    wanted = f"'mi2v_lite[{EXTRAS[module]}]'" if module in EXTRAS else package
    return f"the package {package} is not installed; install it by: pip install {wanted}"


class _Parser(argparse.ArgumentParser):
    """An argparse parser that reports a mistake as an error like any other, in one line and without the usage."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mi2v", description="A photo becomes a clip through an explicit motion field.")
    parser.add_argument("--version", action="version", version=f"mi2v_lite {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for module in COMMANDS:
        module.add(commands)
    return parser
