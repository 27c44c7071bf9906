"""`mi2v train`, `mi2v curves` and `mi2v export`: from a configuration to a model."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from . import common

LAUNCHED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")  # what `accelerate launch` sets


def add(commands: argparse._SubParsersAction) -> None:
    """Registers `train`, `curves` and `export`."""
    parser = commands.add_parser(
        "train",
        help="train a curriculum, or one step of it",
        description="Trains a curriculum: all steps that are not done yet, one after the other, where an interrupted "
        "one goes on from its newest checkpoint. Or, with --step, one step alone.",
    )
    parser.set_defaults(run=train)
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a YAML file, e.g. mi2v_lite/configs/lite.yaml")
    parser.add_argument("--step", metavar="NAME", help="train this step alone")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="data and results (default: runs)"
    )
    old = parser.add_mutually_exclusive_group()
    old.add_argument("--resume", action="store_true", help="with --step: go on from the newest checkpoint")
    old.add_argument("--restart", action="store_true", help="with --step: remove its old results and start anew")

    parser = commands.add_parser(
        "curves", help="training logs at a glance", description="Table and picture of the logs."
    )
    parser.set_defaults(run=curves)
    parser.add_argument("logs", metavar="FOLDER", type=Path, help="with NAME.csv or NAME/log.csv, e.g. runs")
    parser.add_argument("-o", "--output", type=Path, metavar="curves.png", help="draw the losses there")

    parser = commands.add_parser(
        "export", help="results to a pipeline", description="The results of a curriculum become one pipeline folder."
    )
    parser.set_defaults(run=export)
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a YAML file, e.g. mi2v_lite/configs/lite.yaml")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="data and results (default: runs)"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="the pipeline's folder")


def train(options: argparse.Namespace) -> None:
    """Runs `mi2v train`: a curriculum or a step of it, here and in other processes that `accelerate launch` started."""
    from mi2v_lite.training.curriculum import check_data, is_done, load_config

    for name in LAUNCHED:
        if not os.environ.get(name, "0").removeprefix("-").isdecimal():  # some launchers say -1 for "not launched"
            raise ValueError(
                f"the environment variable {name} is {os.environ[name]!r}, expected a whole number: `accelerate "
                "launch` sets it; for one process, unset it."
            )
    speaks = os.environ.get("RANK", "0") == "0"  # the first process speaks for all
    try:  # refuses a wrong config or name, and missing data, before torch loads
        config = load_config(options.config)
        if options.step is not None:
            config.step(options.step).check_trainable()
        elif options.resume or options.restart:
            raise ValueError("--resume and --restart are for one step; name it with --step.")
        else:
            waiting = [step for step in config.steps if not is_done(options.runs, step)]
            check_data(config, options.runs, waiting)
    except ValueError:
        if speaks:
            raise
        raise SystemExit(2) from None
    from mi2v_lite.training import trainer

    if options.step is None:
        results = trainer.train_all(config, options.runs)
    else:
        results = [trainer.train(config, options.step, options.runs, options.resume, options.restart)]
    if speaks:
        print("\n".join(f"wrote {result}" for result in results) or "All steps are done.")


def curves(options: argparse.Namespace) -> None:
    """Runs `mi2v curves`: prints updates, minutes and losses of the training logs as Markdown, and draws the curves."""
    if options.output is not None:
        common.check_writable([options.output])
    from mi2v_lite.training import curves as training_curves

    logs = training_curves.read_logs(options.logs)
    print(training_curves.markdown(logs))
    if options.output is not None:
        training_curves.picture(logs).save(options.output)
        print(f"\nwrote {options.output}")


def export(options: argparse.Namespace) -> None:
    """Runs `mi2v export`: the results of a curriculum become the folder of a pipeline."""
    from mi2v_lite.training.curriculum import load_config

    config = load_config(options.config)
    common.check_folder(options.output.parent)
    from mi2v_lite.training import export as exporter

    print(f"wrote {exporter.export(config, options.runs, options.output)}")
