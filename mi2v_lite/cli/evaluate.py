"""`mi2v evaluate`: how good the model is, as a table, and as sheets of clips to look at."""

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

LARGE = 512  # pixels a side of the worlds on which carried detail is measured
DETAIL_CLIPS, DETAIL_WIDTH = (3, 11), 780  # of the picture of clips: which, from the seed on, and pixels


def add(commands: argparse._SubParsersAction) -> None:
    """Register `evaluate`."""
    each = commands.add_parser("evaluate", help="measure the model", description="The quality table, in Markdown.")
    each.set_defaults(run=evaluate)
    each.add_argument("-o", "--output", type=Path, metavar="report.json", help="write the figures there")
    each.add_argument("--clips", type=common.whole(1), default=96, metavar="N", help="held-out clips (default: 96)")
    each.add_argument(
        "--only", nargs="+", metavar="MEASURE", help="these measures alone, e.g. stage1 drags; `whole` is the judges"
    )
    each.add_argument("--ablation", type=Path, metavar="RUNS", help="also compare the fusions trained in that folder")
    each.add_argument(
        "--ablation-clips",
        type=Path,
        metavar="clips.png",
        help="with --ablation: two clips, each fusion beside the truth, animated",
    )
    each.add_argument(
        "--detail-clips",
        type=Path,
        metavar="clips.png",
        help="draw two clips there and no table: the network alone, carried, the truth, animated",
    )
    each.add_argument("--seed", type=common.whole(0), default=0, metavar="N", help="of clips and noise (default: 0)")
    each.add_argument(
        "--sheets", type=Path, metavar="FOLDER", help="draw prompts.png and drags.png there, to look at, and no table"
    )
    for name, what in (("clip", "CLIP"), ("dino", "DINO ViT"), ("lpips", "AlexNet with LPIPS' layers")):
        each.add_argument(f"--{name}", type=Path, metavar="FOLDER", help=f"also judge whole clips by this {what}")
    common.add_weights(each)


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
    if options.sheets is not None:
        _sheets(options)
        return
    if options.detail_clips is not None:
        _detail_clips(options)
        return
    pipe = common.load(options.weights)
    from mi2v_lite import evaluation
    from mi2v_lite.io.files import atomic
    from mi2v_lite.viz.pictures import animation

    pipe.set_progress_bar_config(disable=True)  # the clips have a bar of their own
    fusions = _fusions(options.ablation)
    judges, not_run = evaluation.find_judges({"clip": options.clip, "dino": options.dino, "lpips": options.lpips})
    measures = [*evaluation.MEASURES, *evaluation.LARGE_MEASURES]
    if options.only is not None:
        measures = [name for name in options.only if name != "whole"]
        judges = judges if "whole" in options.only else []
    metrics = evaluation.evaluate(
        pipe,
        evaluation.heldout_world(),
        clips=options.clips,
        seed=options.seed,
        measures=measures,
        fusions=fusions,
        film=evaluation.sample_film(),
        objects=evaluation.heldout_world(objects_only=True),
        large=evaluation.heldout_world(size=LARGE),
        judges=judges,
    )
    print(evaluation.markdown(metrics))
    print("", *(f"Not run: {line}." for line in not_run), sep="\n")
    if options.ablation_clips is not None:
        clips = evaluation.fusion_clips(pipe, evaluation.heldout_world(), fusions, options.clips, options.seed)
        alt = "Clips that move far, in rows: the truth, then Stage 2 with each fusion."
        animation(clips[::3], fps=3, width=clips.shape[2] * 3 // 4, alt=alt).save(options.ablation_clips)
        print(f"\nwrote {options.ablation_clips}: truth, {', '.join(fusions)}")
    if options.output is not None:
        notes = [f"mi2v_lite {__version__}", f"{options.clips} held-out clips from seed {options.seed}"]
        notes += [f"only {' '.join(options.only)}"] if options.only else []
        notes += [f"not run: {line}" for line in not_run]
        # JSON knows no nan: a figure that no clip gave is null.
        plain = {
            name: {key: value if math.isfinite(value) else None for key, value in figure.items()}
            for name, figure in metrics.items()
        }
        with atomic(options.output) as beside:
            beside.write_text(json.dumps(evaluation.report(plain, notes), indent=1, allow_nan=False) + "\n")
        print(f"\nwrote {options.output}")


def _detail_clips(options: argparse.Namespace) -> None:
    """Draw clips with carried detail beside the network's own and the truth."""
    common.check_writable([options.detail_clips])
    pipe = common.load(options.weights)
    from mi2v_lite import evaluation
    from mi2v_lite.viz.pictures import animation

    pipe.set_progress_bar_config(disable=True)
    world = evaluation.heldout_world(size=LARGE)
    clips = evaluation.detail_clips(pipe, world, [options.seed + number for number in DETAIL_CLIPS])
    alt = "Two clips in rows: Stage 2 alone, enlarged; the photo's detail carried along the motion; the truth."
    animation(clips, fps=8, width=DETAIL_WIDTH, alt=alt).save(options.detail_clips)
    print(f"wrote {options.detail_clips}: the network alone, carried, the truth")


def _sheets(options: argparse.Namespace) -> None:
    """Draw the two contact sheets."""
    outputs = {name: options.sheets / f"{name}.png" for name in ("prompts", "drags")}
    common.check_writable(outputs.values())
    pipe = common.load(options.weights)
    from mi2v_lite import evaluation
    from mi2v_lite.io.files import atomic

    pipe.set_progress_bar_config(disable=True)
    pages = {
        "prompts": evaluation.prompt_sheet(pipe, evaluation.heldout_world(), options.seed),
        "drags": evaluation.drag_sheet(pipe, options.seed),
    }
    for name, page in pages.items():
        with atomic(outputs[name]) as beside:
            page.save(beside, format="PNG")
        print(f"wrote {outputs[name]}")


def _fusions(runs: Path | None) -> dict[str, VideoUNet]:
    """The Stage 2 UNets of the ablation, from `RUNS/ablation_NAME/final/ablation_unet`."""
    if runs is None:
        return {}
    from mi2v_lite.models.fusion import FUSIONS
    from mi2v_lite.models.unet import VideoUNet

    folders = {name: runs / f"ablation_{name}" / "final" / "ablation_unet" for name in reversed(FUSIONS)}
    for folder in folders.values():
        if not (folder / "config.json").is_file():
            raise ValueError(f"--ablation: {folder} does not exist; train the step {folder.parts[-3]} first.")
    return {name: VideoUNet.from_pretrained(folder).eval() for name, folder in folders.items()}
