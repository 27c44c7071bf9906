"""Measures computations in turn, so that a busy moment hits all of them alike, and tells what else the machine did."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch

GIB = 2**30


@dataclass(frozen=True)
class Pace:
    """How long is measured.

    Attributes:
        rounds: how many there are at least.
        seconds: after so many seconds no further round begins.
        most: how many rounds there are at most.
        call: seconds for which a short computation is repeated within a round.
    """

    rounds: int = 3
    seconds: float = 6.0
    most: int = 15
    call: float = 0.1


def seconds(run: Callable[[], object], least: float) -> float:
    """Makes calls for a time, one at least, and returns the seconds of one of them."""
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < least:
        run()
        calls += 1
    return (time.perf_counter() - start) / calls


def in_turn(pace: Pace, *runs: Callable[[], object]) -> list[list[float]]:
    """Measures computations by turns, after a first call of each that does not count.

    Args:
        pace: how long.
        runs: the computations. A `Worker` measures itself.

    Returns:
        for each round the seconds of one call of each computation.
    """
    sides = [run if isinstance(run, Worker) else partial(seconds, run, pace.call) for run in runs]
    for side in sides:
        side()
    start, rounds = time.perf_counter(), []
    while len(rounds) < pace.rounds or (len(rounds) < pace.most and time.perf_counter() - start < pace.seconds):
        rounds.append([side() for side in sides])
    return rounds


def columns(rounds: list[list[float]]) -> list[float]:
    """Returns the median of each computation's seconds."""
    return [median(column) for column in zip(*rounds, strict=True)]


class Worker:
    """A computation in a process of its own, whose memory nothing else has used before.

    Args:
        make: prepares the computation there and returns it as a function; it must be possible to pickle `make`.
    """

    def __init__(self, make: Callable[[], Callable[[], object]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def __call__(self) -> float:
        """Makes one call, and returns its seconds."""
        self._pipe.send(True)
        return self._pipe.recv()

    def close(self) -> float | None:
        """Ends the process; returns the most GiB that it held, or None where the system does not tell."""
        self._pipe.send(False)
        peak = self._pipe.recv()
        self._process.join()
        return peak


def _serve(make: Callable[[], Callable[[], object]], pipe: Connection) -> None:
    with torch.no_grad():
        run = make()
        pipe.send(True)
        while pipe.recv():
            pipe.send(seconds(run, 0.0))
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    held = [1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    pipe.send(held[0] / GIB if held else None)


@contextmanager
def other_programs() -> Iterator[dict[str, Any]]:
    """Tells what the machine did beside us during the block.

    Yields:
        a mapping that holds, after the block, the `seconds` that it took, the `load` when it began (programs that
        wanted to run, over a minute) and `others`, the cores that other programs kept busy; None where the system
        does not tell.
    """
    told = {"load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None}
    start, busy, ours = time.monotonic(), _busy(), sum(os.times()[:4])
    yield told
    told["seconds"] = time.monotonic() - start
    after = _busy()
    known = busy is not None and after is not None
    # Processes that have ended count as ours; the kernel's ticks are coarse, so a short block may seem to be below 0.
    told["others"] = max(0.0, (after - busy - sum(os.times()[:4]) + ours) / told["seconds"]) if known else None


def _busy() -> float | None:
    """The seconds for which the cores were not idle since the machine started."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return None
    user, nice, system, _, _, irq, soft, *_ = (int(word) for word in stat.read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
