"""`python -m tools.gpu check`: what only a GPU can tell; see tools/gpu/README.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import torch

from tools.gpu import check
from tools.gpu.tasks import run_tasks, table


def main(arguments: list[str] | None = None) -> int:
    """Runs the tasks, prints the table and returns 0 if all of them were done."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu", description="Checks and measures on a GPU.")
    commands = parser.add_subparsers(dest="command", required=True)
    each = commands.add_parser("check", help="tests on the device; what full scale costs there")
    each.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", "outputs/gpu")), help="folder of the results"
    )
    each.add_argument("--limit", type=float, default=300, help="seconds after which nothing new begins (default: 300)")
    each.add_argument("--toy", action="store_true", help="small sizes: a dry run, also without a GPU")
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.toy:
        print(
            "There is no GPU here: PyTorch sees no CUDA device. --toy runs the same lines at a small size.",
            file=sys.stderr,
        )
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "check.json"
    complete = run_tasks(check.tasks(device, options.toy), options.limit, path, check.about(device))
    text = table(json.loads(path.read_text(encoding="utf-8"))["tasks"])
    (options.out / "check.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
