"""`mi2v shards`: videos to shards with their motion fields, for training at full scale (notebook 06)."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from . import common


def add(commands: argparse._SubParsersAction) -> None:
    """Register `shards`."""
    parser = commands.add_parser(
        "shards",
        help="videos to training data",
        description="Turns a folder of videos (captions in NAME.txt beside them) or a WebVid csv into WebDataset "
        "shards with tracked motion fields. Run the same again to go on after an interruption. Videos that cannot be "
        "used are listed with the reason in skipped.csv. Training on a folder of videos does this by itself, "
        "at the size that the step asks for, into FOLDER.shards.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a folder of videos, or a WebVid csv")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the folder of the shards")
    parser.add_argument(
        "--videos",
        type=Path,
        metavar="DIR",
        help="where the videos of a csv are, DIR/page_dir/videoid.mp4 (default: its own folder)",
    )
    parser.add_argument(
        "--size", type=_size, default=(320, 512), metavar="HxW", help="of the frames (default: 320x512)"
    )
    parser.add_argument("--frames", type=common.whole(2), default=16, metavar="N", help="of a clip (default: 16)")
    parser.add_argument(
        "--stride",
        type=common.whole(1),
        metavar="N",
        help="source frames from one to the next (default: for each video the largest of 8, 4, 2, 1 that fits)",
    )
    parser.add_argument("--clips", type=common.whole(1), default=1, metavar="N", help="clips a video (default: 1)")
    parser.add_argument(
        "--links", type=common.whole(1), default=1, metavar="N", help="tracked steps between two frames (default: 1)"
    )
    parser.add_argument(
        "--per-shard", type=common.whole(1), default=100, metavar="N", help="videos a shard (default: 100)"
    )
    parser.add_argument(
        "--one-take", action="store_true", help="the videos have no cuts, even where they look as if they had one"
    )
    parser.add_argument(
        "--processes", type=common.whole(1), default=1, metavar="N", help="on this machine (default: 1)"
    )
    parser.add_argument(
        "--node", type=common.whole(0), default=0, metavar="I", help="this machine's number (default: 0)"
    )
    parser.add_argument("--nodes", type=common.whole(1), default=1, metavar="N", help="machines (default: 1)")
    parser.add_argument(
        "--tracker",
        default="dis",
        metavar="WHICH",
        help=common.TRACKER_HELP,
    )


def run(options: argparse.Namespace) -> None:
    """`mi2v shards`; prints what was made.

    Raises:
        ValueError: the videos cannot be listed, the tracker cannot be made, or what `make_shards` raises.
    """
    from mi2v_lite.data.video_list import list_videos
    from mi2v_lite.data.videos_to_shards import SKIPPED, Recipe, make_shards
    from mi2v_lite.flow.trackers import TrackerMaker, load_tracker

    if options.tracker.startswith("fields:"):
        raise ValueError(
            f"--tracker {options.tracker}: one file of fields cannot be right for all videos; name another tracker."
        )
    if os.path.realpath(options.output) == os.path.realpath(options.source):
        raise ValueError(f"the output {options.output} is the folder of the videos; choose another.")
    common.check_folder(options.output)
    load_tracker(options.tracker)  # a mistake shows before the work begins
    videos = list_videos(options.source, options.videos)
    recipe = Recipe(
        *options.size,
        options.frames,
        options.stride,
        options.clips,
        links=options.links,
        per_shard=options.per_shard,
        one_take=options.one_take,
    )
    place = options.processes, options.node, options.nodes
    report = make_shards(videos, options.output, recipe, TrackerMaker(options.tracker), *place)
    silent = sum(not video.caption and not video.trouble for video in videos)
    print(f"{report.videos} of {len(videos)} videos: {report.clips} clips, {report.skipped} skipped")
    if silent:
        print(f"{silent} videos have no caption")
    if report.made:
        print(f"{report.made} videos now, {report.made / report.seconds:.2f} a second")
    if report.done < report.shards:
        print(f"{report.done} of {report.shards} shards are done; the set is finished when the other nodes are")
    else:
        print(f"wrote {options.output}: {report.shards} shards" + (f", see {SKIPPED}" if report.skipped else ""))


def _size(text: str) -> tuple[int, int]:
    """ "320x512" to (height, width); argparse's error for anything else."""
    if not (match := re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write HEIGHTxWIDTH, e.g. 320x512")
    return int(match[1]), int(match[2])
