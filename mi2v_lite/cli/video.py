"""`mi2v track` and `mi2v restyle`: the motion of a video, and a video in another style that keeps it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import common

if TYPE_CHECKING:
    from mi2v_lite.data.video import Video
    from mi2v_lite.flow.tracking import Tracks

TRACK_SIZE = 256  # short side, pixels
TRACKER_HELP = "dis (default), raft:FILE, cotracker:FILE, dot:FILE, or fields:PATH for motion computed elsewhere"


def add(commands: argparse._SubParsersAction) -> None:
    """Register `track` and `restyle`."""
    each = commands.add_parser(
        "track",
        help="video to motion field",
        description="Finds where every pixel of a video's first frame goes, and whether it is still seen there.",
    )
    each.set_defaults(run=track)
    _add_clip(each)
    each.add_argument(
        "--size", type=common.whole(16), default=TRACK_SIZE, metavar="PX", help=f"short side (default: {TRACK_SIZE})"
    )
    each.add_argument("--previews", action="store_true", help="also write, beside fields.npz, fields.png")
    each.add_argument("-o", "--output", type=Path, required=True, metavar="fields.npz", help="flow and visibility")


def _add_clip(each: argparse.ArgumentParser) -> None:
    each.add_argument("clip", metavar="CLIP", type=Path, help="a video file, one take without a cut")
    each.add_argument("--frames", type=common.whole(2), default=16, metavar="N", help="how many (default: 16)")
    each.add_argument("--start", type=common.number(0), default=0.0, metavar="S", help="seconds to leave out (0)")
    each.add_argument("--step", type=common.whole(1), default=1, metavar="K", help="every K-th frame: more motion (1)")
    each.add_argument("--tracker", default="dis", metavar="WHICH", help=TRACKER_HELP)


def _read(options: argparse.Namespace, size: int, multiple: int = 1) -> Video:
    """The part of the clip asked for; a line says what was read."""
    from mi2v_lite.data.video import read_video
    from mi2v_lite.flow.tracking import check_clip, check_one_take

    video = read_video(options.clip, options.frames, options.start, options.step, size, multiple)
    check_clip(video.frames)
    check_one_take(video.frames)
    count, height, width = video.frames.shape[:3]
    if count < options.frames:
        common.say(f"warning: the clip ends after {count} of {options.frames} frames.")
    print(f"{options.clip}: {count} frames of {width}x{height} px, {float(video.fps):g} a second", flush=True)
    return video


def track(options: argparse.Namespace) -> None:
    """`mi2v track`: the motion of a video.

    Raises:
        ValueError, OSError: for a clip that cannot be read or tracked; see the messages.
    """
    if options.output.suffix.lower() != ".npz":
        raise ValueError(f"the output {options.output} must end in .npz.")
    outputs = [options.output, *([options.output.with_suffix(".png")] if options.previews else [])]
    common.check_writable(outputs, (options.clip,))
    from mi2v_lite.flow.files import write_npz
    from mi2v_lite.flow.trackers import load_tracker

    tracker = load_tracker(options.tracker)
    video = _read(options, options.size)
    began = time.perf_counter()
    tracks: Tracks = tracker(video.frames)
    took = time.perf_counter() - began
    write_npz(options.output, *tracks)
    if options.previews:
        from PIL import Image

        from mi2v_lite.viz.media import write_image
        from mi2v_lite.viz.pictures import flow_picture

        write_image(outputs[1], flow_picture(Image.fromarray(video.frames[0]), tracks.flow))
    for path in outputs:
        print(f"wrote {path}")
    length = tracks.flow.norm(dim=1)
    print(
        f"displacement {length.mean():.2f} px on average, {length[-1].mean():.2f} in the last frame; "
        f"{tracks.visibility[-1].float().mean():.0%} of the first frame still seen there; tracked in {took:.1f} s"
    )
