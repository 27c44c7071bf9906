"""`mi2v evaluate`: how good the model is, as a table, and as clips to look at."""

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

LARGE = 512  # pixels a side of the clips on which carried detail is measured
DETAIL_CLIPS, DETAIL_WIDTH = (3, 11), 640  # of the picture of clips: which, from the seed on, and its pixels


def add(commands: argparse._SubParsersAction) -> None:
    """Registers `evaluate`."""
    parser = commands.add_parser(
        "evaluate",
        help="measure how good the model is",
        description="Measures the model on clips whose true motion is known, and prints a Markdown table.",
    )
    parser.set_defaults(run=evaluate)
    parser.add_argument("-o", "--output", type=Path, metavar="report.json", help="also write the figures to this file")
    parser.add_argument(
        "--clips", type=common.whole(1), default=96, metavar="N", help="how many held-out clips (default: 96)"
    )
    parser.add_argument("--seed", type=common.whole(0), default=0, metavar="N", help="of clips and noise (default: 0)")
    parser.add_argument("--only", nargs="+", metavar="MEASURE", help="take only these measures, e.g. stage1 drags")
    parser.add_argument(
        "--photos", type=Path, metavar="FOLDER", help="held-out photos for the scenes in which things move, in heldout/"
    )
    parser.add_argument("--things", type=Path, metavar="FOLDER", help="with --photos: the masks of the things in them")
    parser.add_argument("--clip", type=Path, metavar="FOLDER", help="also judge whole clips by the CLIP model there")
    parser.add_argument("--ablation", type=Path, metavar="RUNS", help="also compare the fusions trained in this folder")
    parser.add_argument(
        "--ablation-clips",
        type=Path,
        metavar="clips.png",
        help="with --ablation: also draw two clips, animated, each fusion beside the truth",
    )
    parser.add_argument(
        "--detail-clips",
        type=Path,
        metavar="clips.png",
        help="print no table, but draw two clips, animated: the network alone, carried detail, the truth",
    )
    parser.add_argument(
        "--sheets", type=Path, metavar="FOLDER", help="print no table, but draw prompts.png and drags.png to look at"
    )
    common.add_weights(parser)


def evaluate(options: argparse.Namespace) -> None:
    """Runs `mi2v evaluate`."""
    outputs = [path for path in (options.output, options.ablation_clips, options.detail_clips) if path is not None]
    if options.output is not None and options.output.suffix.lower() != ".json":
        raise ValueError(f"the report {options.output} must end in .json.")
    for picture in (options.ablation_clips, options.detail_clips):
        if picture is not None and picture.suffix.lower() != ".png":
            raise ValueError(f"the picture {picture} must end in .png.")
    if options.ablation_clips is not None and options.ablation is None:
        raise ValueError("--ablation-clips shows the UNets of --ablation RUNS; give both.")
    if (options.photos is None) != (options.things is None):
        raise ValueError("--photos and --things belong together: give both, or none for the photos of mi2v_lite.")
    if options.sheets is not None:
        outputs += [options.sheets / "prompts.png", options.sheets / "drags.png"]
    common.check_writable(outputs)
    pipe = common.load(options.weights)
    pipe.set_progress_bar_config(disable=True)  # the clips have a bar of their own
    if options.sheets is not None or options.detail_clips is not None:
        _draw(pipe, options)
        return
    from mi2v_lite import evaluation
    from mi2v_lite.data.samples import heldout_scenes, heldout_world, sample_film
    from mi2v_lite.io.files import atomic
    from mi2v_lite.viz.pictures import animation

    fusions = _fusions(options.ablation)
    metrics = evaluation.evaluate(
        pipe,
        heldout_world(),
        clips=options.clips,
        seed=options.seed,
        measures=options.only or evaluation.ALL_MEASURES,
        things=heldout_scenes(options.photos, options.things),
        large=heldout_world(size=LARGE),
        large_objects=heldout_world(size=LARGE, objects_only=True),
        objects=heldout_world(objects_only=True),
        film=sample_film(),
        fusions=fusions,
        judge=evaluation.ClipJudge(options.clip) if options.clip else None,
    )
    print(evaluation.markdown(metrics))
    if options.ablation_clips is not None:
        clips = evaluation.fusion_clips(pipe, heldout_world(), fusions, options.clips, options.seed)
        alt = "Clips that move far, in rows: the truth, then Stage 2 with each fusion."
        animation(clips[::3], fps=3, width=clips.shape[2] * 3 // 4, alt=alt).save(options.ablation_clips)
        print(f"\nwrote {options.ablation_clips}: truth, {', '.join(fusions)}")
    if options.output is not None:
        notes = [f"mi2v_lite {__version__}", f"{options.clips} held-out clips from seed {options.seed}"]
        notes += [f"only {' '.join(options.only)}"] if options.only else []
        finite = {
            name: {key: value if math.isfinite(value) else None for key, value in figure.items()}
            for name, figure in metrics.items()
        }
        with atomic(options.output) as beside:
            beside.write_text(json.dumps({"metrics": finite, "notes": notes}, indent=1, allow_nan=False) + "\n")
        print(f"\nwrote {options.output}")


def _draw(pipe: object, options: argparse.Namespace) -> None:
    """Draws what --sheets and --detail-clips ask for."""
    from mi2v_lite import evaluation
    from mi2v_lite.data.samples import heldout_world
    from mi2v_lite.io.images import write_image
    from mi2v_lite.viz.pictures import animation

    if options.sheets is not None:
        for name, page in {
            "prompts": evaluation.prompt_sheet(pipe, heldout_world(), options.seed),
            "drags": evaluation.drag_sheet(pipe, options.seed),
        }.items():
            write_image(options.sheets / f"{name}.png", page)
            print(f"wrote {options.sheets / name}.png")
    if options.detail_clips is not None:
        numbers = [options.seed + number for number in DETAIL_CLIPS]
        clips = evaluation.detail_clips(pipe, heldout_world(size=LARGE), numbers)
        alt = "Two clips in rows: Stage 2 alone, enlarged; the photo's detail carried along the motion; the truth."
        animation(clips, fps=8, width=DETAIL_WIDTH, alt=alt).save(options.detail_clips)
        print(f"wrote {options.detail_clips}: the network alone, carried, the truth")


def _fusions(runs: Path | None) -> dict[str, VideoUNet]:
    """Loads the Stage 2 UNets of the ablation from `RUNS/ablation_NAME/final/ablation_unet`."""
    if runs is None:
        return {}
    from mi2v_lite.models.fusion import FUSIONS
    from mi2v_lite.models.unet import VideoUNet

    folders = {name: runs / f"ablation_{name}" / "final" / "ablation_unet" for name in reversed(FUSIONS)}
    for folder in folders.values():
        if not (folder / "config.json").is_file():
            raise ValueError(f"--ablation: {folder} does not exist; train the step {folder.parts[-3]} first.")
    return {name: VideoUNet.from_pretrained(folder).eval() for name, folder in folders.items()}
