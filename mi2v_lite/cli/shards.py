"""`mi2v shards`: videos to shards with their motion fields, for training at full scale (notebook 06)."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from . import common


def add(commands: argparse._SubParsersAction) -> None:
    """Register `shards`."""
    each = commands.add_parser(
        "shards",
        help="videos to training data",
        description="Turns a folder of videos (captions in NAME.txt beside them) or a WebVid csv into WebDataset "
        "shards with tracked motion fields. Run the same again to go on after an interruption. Videos that cannot be "
        "used are listed with the reason in skipped.csv.",
    )
    each.set_defaults(run=run)
    each.add_argument("source", type=Path, metavar="SOURCE", help="a folder of videos, or a WebVid csv")
    each.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the folder of the shards")
    each.add_argument(
        "--videos", type=Path, metavar="DIR", help="where the videos of a csv are: DIR/page_dir/videoid.mp4"
    )
    each.add_argument("--size", type=_size, default=(320, 512), metavar="HxW", help="of the frames (default: 320x512)")
    each.add_argument("--frames", type=common.whole(2), default=16, metavar="N", help="of a clip (default: 16)")
    each.add_argument(
        "--stride", type=common.whole(1), default=8, metavar="N", help="source frames from one to the next (default: 8)"
    )
    each.add_argument("--clips", type=common.whole(1), default=1, metavar="N", help="clips a video (default: 1)")
    each.add_argument(
        "--links", type=common.whole(1), default=1, metavar="N", help="tracked steps between two frames (default: 1)"
    )
    each.add_argument(
        "--per-shard", type=common.whole(1), default=100, metavar="N", help="videos a shard (default: 100)"
    )
    each.add_argument("--processes", type=common.whole(1), default=1, metavar="N", help="on this machine (default: 1)")
    each.add_argument("--node", type=common.whole(0), default=0, metavar="I", help="this machine's number (default: 0)")
    each.add_argument("--nodes", type=common.whole(1), default=1, metavar="N", help="machines (default: 1)")
    each.add_argument(
        "--tracker",
        default="dis",
        metavar="WHICH",
        help=common.TRACKER_HELP,
    )


def run(options: argparse.Namespace) -> None:
    """`mi2v shards`; prints what was made.

    Raises:
        ValueError: see `sharding.make_shards`; a tracker that cannot be made; a csv without --videos.
    """
    from mi2v_lite.data.sharding import SKIPPED, Recipe, make_shards
    from mi2v_lite.data.videos import list_folder, read_webvid
    from mi2v_lite.flow.trackers import TrackerMaker, load_tracker

    if options.tracker.startswith("fields:"):
        raise ValueError(f"--tracker {options.tracker}: one set of fields cannot be that of all videos; name another.")
    load_tracker(options.tracker)  # a mistake shows before the work begins
    if options.source.is_dir():
        videos = list_folder(options.source)
    elif options.videos is None:
        raise ValueError(f"{options.source} is no folder; for a WebVid csv give its folder of videos with --videos.")
    else:
        videos = read_webvid(options.source, options.videos)
    recipe = Recipe(
        *options.size, options.frames, options.stride, options.clips, links=options.links, per_shard=options.per_shard
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
    if not (found := re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write HEIGHTxWIDTH, e.g. 320x512")
    return int(found[1]), int(found[2])
