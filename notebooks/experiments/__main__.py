"""Runs experiments and stores what they found: `python -m experiments [NAME ...]`, in the folder `notebooks/`."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from mi2v_lite.io.files import atomic

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
NAMES = sorted(path.stem for path in HERE.glob("[a-z]*.py"))


def commit() -> str:
    """The commit that the code stands at, with a + behind it where code differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(HERE.parents[1]), *words], capture_output=True, text=True
        ).stdout.strip()

    code = ("*.py", "*.yaml", "data_samples", "mi2v_lite/weights")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *code)
    return (git("rev-parse", "--short=10", "HEAD") or "unknown") + ("+" if changed else "")


def perform(name: str) -> Path:
    """Runs one experiment over all its seeds and writes its result.

    Args:
        name: the experiment's file, without `.py`.

    Returns:
        the path of the result.
    """
    experiment = importlib.import_module(f"experiments.{name}")
    before, cpu, wall, runs = commit(), time.process_time(), time.perf_counter(), []
    for seed in experiment.SEEDS:
        torch.manual_seed(seed)
        runs.append(experiment.run(seed))
        print(f"{name}: seed {seed} done after {time.perf_counter() - wall:.0f} s", flush=True)
    arms = {arm: {measure: [run[arm][measure] for run in runs] for measure in runs[0][arm]} for arm in runs[0]}
    result = {
        "experiment": name,
        "question": experiment.QUESTION,
        "commit": before,
        "torch": torch.__version__,
        "seeds": list(experiment.SEEDS),
        "settings": experiment.SETTINGS,
        "cpu_minutes": round((time.process_time() - cpu) / 60, 2),
        "wall_minutes": round((time.perf_counter() - wall) / 60, 2),
        "values": arms,
    }
    path = RESULTS / f"{name}.json"
    with atomic(path) as beside:
        text = json.dumps(rounded(result), indent=1)
        text = re.sub(r"\[[^\[\]{}]*\]", lambda numbers: " ".join(numbers[0].split()), text)  # one list, one line
        beside.write_text(text + "\n")
    return path


def rounded(value: object) -> object:
    """The same value with every number to five digits, so that a result is a small file."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(part) for part in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: its words; those of the process by default.

    Returns:
        the exit code, 0.
    """
    parser = argparse.ArgumentParser(description="Runs experiments of the course and stores their results.")
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(NAMES)}; all by default")
    chosen = parser.parse_args(arguments).names or NAMES
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        parser.error(f"there is no experiment {', '.join(unknown)}; there are {', '.join(NAMES)}")
    for name in chosen:
        needs = getattr(importlib.import_module(f"experiments.{name}"), "NEEDS", None)
        if needs is not None and not needs.exists():
            print(f"left out: {name}, since {needs} is not there", flush=True)
            continue
        print(f"written: {perform(name).relative_to(HERE.parent)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
