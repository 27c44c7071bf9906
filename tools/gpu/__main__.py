"""`python -m tools.gpu`: what only a GPU can tell, and the lite recipe in minutes; see tools/gpu/README.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import torch

from mi2v_lite.cli import guarded
from tools.gpu import check, train
from tools.gpu.tasks import run_tasks, table

RESULTS = Path(os.environ.get("OUT", "outputs/gpu"))


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns 0 if all of it was done."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu", description="Checks, measures and trains on a GPU.")
    commands = parser.add_subparsers(dest="command", required=True)
    checks = commands.add_parser("check", help="tests on the device; what full scale costs there")
    checks.add_argument(
        "--limit", type=float, default=300, help="seconds after which nothing new begins (default: 300)"
    )
    trains = commands.add_parser("train", help="the lite recipe from nothing; another call goes on")
    trains.add_argument("--minutes", type=float, default=8, help="for all of it (default: 8)")
    trains.add_argument("--data", type=Path, default=Path("runs/carried"), help="what `carry` has filled")
    trains.add_argument("--runs", type=Path, default=Path("runs/gpu"), help="folder of the steps (default: runs/gpu)")
    for command in (checks, trains):
        command.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
        command.add_argument("--toy", action="store_true", help="small sizes: a dry run, also without a GPU")
    carries = commands.add_parser("carry", help="fill the folder that `train` needs where there is no network")
    carries.add_argument("--photos", type=Path, default=Path("runs/photos"), help="photos (default: runs/photos)")
    carries.add_argument("--things", type=Path, default=Path("runs/things"), help="their masks (default: runs/things)")
    carries.add_argument("--out", type=Path, default=Path("runs/carried"), help="the folder (default: runs/carried)")
    unpacks = commands.add_parser("unpack", help="make results of steps from what `train` has brought back")
    unpacks.add_argument("folder", type=Path, help="with the files of weights")
    unpacks.add_argument("--runs", type=Path, default=Path("runs/gpu"), help="folder of the steps (default: runs/gpu)")
    options = parser.parse_args(arguments)
    if options.command == "carry":
        train.carry(options.photos, options.things, options.out)
        return 0
    if options.command == "unpack":
        train.unpack(options.folder, options.runs)
        return 0
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.toy:
        print(
            "There is no GPU here: PyTorch sees no CUDA device. --toy runs the same lines at a small size.",
            file=sys.stderr,
        )
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    if options.command == "train":
        return 0 if train.train(options.data, options.runs, options.out, 60 * options.minutes, options.toy) else 1
    path = options.out / "check.json"
    complete = run_tasks(check.tasks(device, options.toy), options.limit, path, check.about(device))
    text = table(json.loads(path.read_text(encoding="utf-8"))["tasks"])
    (options.out / "check.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(guarded(main))
