"""The command line: `mi2v animate | track | restyle | evaluate | train | doctor` (README, notebook 00).

Mistakes of the user end with one line on stderr and exit code 2, Ctrl-C with 130. torch and what needs it are imported
only inside the commands: `mi2v --help` answers at once. A command lives in a module of its own, which has `add` (its
options, registered here) and the function that runs it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import NoReturn

from mi2v_lite import __version__

from . import animate, common, doctor, evaluate, importing, shards, training, video, world

# Modules with `add(commands)`, in the order of `mi2v --help`.
COMMANDS = (animate, video, evaluate, training, world, shards, importing, doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after `mi2v`; those of the process if None.

    Returns:
        the exit code: 0 done, 2 wrong use or files that cannot be read or written, 130 stopped by Ctrl-C.
    """
    # torch reads this when it loads. If idle OpenMP threads spin, two processes slow each other down many times.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    with common.one_line_warnings():
        try:
            options = _parser().parse_args(argv)
            options.run(options)
        except SystemExit as leaving:  # --help and --version
            return int(leaving.code or 0)
        except KeyboardInterrupt:
            common.say("stopped")
            return 130
        except (ValueError, OSError) as error:  # what this project raises for wrong input, and what files raise
            common.say(f"error: {common.reason(error)}")
            return 2
        except MemoryError:
            common.say("error: not enough memory; a smaller --size or fewer --frames help.")
            return 2
    return 0


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is an error like any other: one line, no usage before it."""

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
