"""Prints how long every notebook took that `pytest --nbmake` ran, and the peak memory of its kernel."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psutil
import pytest

_seen: list[tuple[str, float, float]] = []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    peak, done, started = [0.0], threading.Event(), time.perf_counter()

    def watch() -> None:
        while not done.wait(0.3):
            for child in psutil.Process().children(recursive=True):
                try:
                    peak[0] = max(peak[0], child.memory_info().rss / 1e6)
                except psutil.Error:
                    continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    done.set()
    thread.join()
    if item.path.suffix == ".ipynb":
        _seen.append((item.path.stem, time.perf_counter() - started, peak[0]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _seen:
        terminalreporter.section("notebooks: seconds, peak memory of the kernel")
    for name, seconds, peak in _seen:
        terminalreporter.write_line(f"{name:40s} {seconds:6.1f} s {peak:7.0f} MB")
