"""`mi2v train`, `mi2v curves`, `mi2v export` and `mi2v evaluate`: from a configuration to a measured model."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from mi2v_lite import __version__

from . import common

if TYPE_CHECKING:
    from mi2v_lite.models.unet import VideoUNet


def add(commands: argparse._SubParsersAction) -> None:
    """Register `evaluate`, `train`, `curves` and `export`."""
    each = commands.add_parser("evaluate", help="measure the model", description="The quality table, in Markdown.")
    each.set_defaults(run=evaluate)
    each.add_argument("-o", "--output", type=Path, metavar="report.json", help="write the figures there")
    each.add_argument("--clips", type=common.whole(1), default=24, metavar="N", help="held-out clips (default: 24)")
    each.add_argument("--ablation", type=Path, metavar="RUNS", help="also compare the fusions trained in that folder")
    each.add_argument(
        "--ablation-clips",
        type=Path,
        metavar="clips.png",
        help="with --ablation: three clips side by side, animated",
    )
    each.add_argument("--seed", type=common.whole(0), default=0, metavar="N", help="of clips and noise (default: 0)")
    common.add_weights(each)

    each = commands.add_parser("train", help="train one step", description="Trains one step of a curriculum.")
    each.set_defaults(run=train)
    each.add_argument("config", metavar="CONFIG", type=Path, help="a YAML file, e.g. mi2v_lite/configs/lite.yaml")
    each.add_argument("--step", required=True, metavar="NAME", help="the step's name in CONFIG")
    each.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="data and results (default: runs)")
    each.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")

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


def evaluate(options: argparse.Namespace) -> None:
    """`mi2v evaluate`: the quality table on held-out worlds; Markdown on stdout, JSON in a file."""
    if options.output is not None:
        if options.output.suffix.lower() != ".json":
            raise ValueError(f"the report {options.output} must end in .json.")
        common.check_writable([options.output])
    if options.ablation_clips is not None:
        if options.ablation is None:
            raise ValueError("--ablation-clips shows the UNets of --ablation RUNS: give both.")
        common.check_writable([options.ablation_clips])
    pipe = common.load(options.weights)
    from mi2v_lite import evaluation
    from mi2v_lite.viz import picture
    from mi2v_lite.viz.media import atomic

    pipe.set_progress_bar_config(disable=True)  # the clips have a bar of their own
    fusions = _fusions(options.ablation)
    metrics = evaluation.evaluate(
        pipe, evaluation.heldout_world(), clips=options.clips, seed=options.seed, fusions=fusions
    )
    print(evaluation.markdown(metrics))
    if options.ablation_clips is not None:
        clips = evaluation.fusion_clips(pipe, evaluation.heldout_world(), fusions, options.clips, options.seed)
        alt = "Clips that move far, in rows: the truth, then Stage 2 with each fusion."
        with atomic(options.ablation_clips) as beside:
            picture.animation(clips[::2], fps=4, width=clips.shape[2] * 3 // 4, alt=alt).save(beside)
        print(f"\nwrote {options.ablation_clips}: truth, {', '.join(fusions)}")
    if options.output is not None:
        notes = [f"mi2v_lite {__version__}", f"{options.clips} held-out clips from seed {options.seed}"]
        notes += evaluation.NOT_RUN
        # JSON knows no nan: a figure that no clip gave is null.
        plain = {
            name: {key: value if math.isfinite(value) else None for key, value in figure.items()}
            for name, figure in metrics.items()
        }
        with atomic(options.output) as beside:
            beside.write_text(json.dumps(evaluation.report(plain, notes), indent=1, allow_nan=False) + "\n")
        print(f"\nwrote {options.output}")


def _fusions(runs: Path | None) -> dict[str, VideoUNet]:
    """The Stage 2 UNets of the ablation, from `RUNS/ablation_NAME/final/ablation_unet`."""
    if runs is None:
        return {}
    from mi2v_lite.models.temporal import FUSIONS
    from mi2v_lite.models.unet import VideoUNet

    folders = {name: runs / f"ablation_{name}" / "final" / "ablation_unet" for name in reversed(FUSIONS)}
    for folder in folders.values():
        if not (folder / "config.json").is_file():
            raise ValueError(f"--ablation: {folder} does not exist; train the step {folder.parts[-3]} first.")
    return {name: VideoUNet.from_pretrained(folder).eval() for name, folder in folders.items()}


def train(options: argparse.Namespace) -> None:
    """`mi2v train`: one step of a curriculum."""
    from mi2v_lite.training.curriculum import load_config

    config = load_config(options.config)
    config.step(options.step)  # a wrong name is told before torch loads
    from mi2v_lite.training import trainer

    print(f"wrote {trainer.train(config, options.step, options.runs, options.resume)}")


def curves(options: argparse.Namespace) -> None:
    """`mi2v curves`: updates, minutes and losses of the training logs; Markdown on stdout, the curves in a picture."""
    if options.output is not None:
        common.check_writable([options.output])
    from mi2v_lite.evaluation import curves as drawn

    logs = drawn.read_logs(options.logs)
    print(drawn.markdown(logs))
    if options.output is not None:
        drawn.picture(logs).save(options.output)
        print(f"\nwrote {options.output}")


def export(options: argparse.Namespace) -> None:
    """`mi2v export`: the results of a curriculum as one pipeline folder."""
    from mi2v_lite.training.curriculum import load_config

    config = load_config(options.config)
    from mi2v_lite import export as exporter

    print(f"wrote {exporter.export(config, options.runs, options.output)}")
