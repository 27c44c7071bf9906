"""`mi2v train`, `mi2v curves` and `mi2v export`: from a configuration to a model."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from . import common


def add(commands: argparse._SubParsersAction) -> None:
    """Register `train`, `curves` and `export`."""
    each = commands.add_parser("train", help="train one step", description="Trains one step of a curriculum.")
    each.set_defaults(run=train)
    each.add_argument("config", metavar="CONFIG", type=Path, help="a YAML file, e.g. mi2v_lite/configs/lite.yaml")
    each.add_argument("--step", required=True, metavar="NAME", help="the step's name in CONFIG")
    each.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="data and results (default: runs)")
    old = each.add_mutually_exclusive_group()
    old.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    old.add_argument("--restart", action="store_true", help="remove the step's old results and start anew")

    each = commands.add_parser("curves", help="training logs at a glance", description="Table and picture of the logs.")
    each.set_defaults(run=curves)
    each.add_argument("logs", metavar="FOLDER", type=Path, help="with NAME.csv or NAME/log.csv, e.g. runs")
    each.add_argument("-o", "--output", type=Path, metavar="curves.png", help="draw the losses there")

    each = commands.add_parser(
        "export", help="results to a pipeline", description="The results of a curriculum become one pipeline folder."
    )
    each.set_defaults(run=export)
    each.add_argument("config", metavar="CONFIG", type=Path, help="a YAML file, e.g. mi2v_lite/configs/lite.yaml")
    each.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="data and results (default: runs)")
    each.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="the pipeline's folder")


def train(options: argparse.Namespace) -> None:
    """`mi2v train`: one step of a curriculum."""
    from mi2v_lite.training.curriculum import load_config

    config = load_config(options.config)
    config.step(options.step)  # refuses a wrong name before torch loads
    from mi2v_lite.training.trainer import train as train_step

    result = train_step(config, options.step, options.runs, options.resume, options.restart)
    if os.environ.get("RANK", "0") == "0":  # of the processes of `accelerate launch`, the first one says it
        print(f"wrote {result}")


def curves(options: argparse.Namespace) -> None:
    """`mi2v curves`: updates, minutes and losses of the training logs; Markdown on stdout, the curves in a picture."""
    if options.output is not None:
        common.check_writable([options.output])
    from mi2v_lite.training import curves as drawn

    logs = drawn.read_logs(options.logs)
    print(drawn.markdown(logs))
    if options.output is not None:
        drawn.picture(logs).save(options.output)
        print(f"\nwrote {options.output}")


def export(options: argparse.Namespace) -> None:
    """`mi2v export`: the results of a curriculum as one pipeline folder."""
    from mi2v_lite.training.curriculum import load_config

    config = load_config(options.config)
    from mi2v_lite.training import export as exporter

    print(f"wrote {exporter.export(config, options.runs, options.output)}")
