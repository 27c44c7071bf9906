"""`mi2v track` and `mi2v restyle`: the motion of a video, and the video in another style with the same motion."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mi2v_lite.io.images import SHORT_SIDE

from . import common

if TYPE_CHECKING:
    from PIL import Image

    from mi2v_lite.flow.tracking import Tracks
    from mi2v_lite.io.videos import Video

STYLES = ("posterise", "sketch", "oil", "strokes", "colours")  # those of pipelines/restyle.py, which loads cv2
TRACK_SIZE = 256  # pixels of the shorter side, for tracking
TRACKER_HELP = common.TRACKER_HELP + ", or fields:PATH for motion that was computed elsewhere"


def add(commands: argparse._SubParsersAction) -> None:
    """Registers `track` and `restyle`."""
    parser = commands.add_parser(
        "track",
        help="find the motion of a video",
        description="Finds where every pixel of a video's first frame goes, and whether it is still visible there.",
    )
    parser.set_defaults(run=track)
    _add_clip(parser)
    parser.add_argument(
        "--size",
        type=common.whole(16, 16384),
        default=TRACK_SIZE,
        metavar="PX",
        help=f"pixels of the shorter side (default: {TRACK_SIZE})",
    )
    parser.add_argument(
        "--previews", action="store_true", help="also write a picture of the motion, fields.png, beside it"
    )
    common.add_device(parser, dtype=False)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="fields.npz", help="the file for motion and visibility"
    )

    parser = commands.add_parser(
        "restyle",
        help="show a video in another style",
        description="Drives the first frame, in another style, with the motion of the video; the sound is kept.",
    )
    parser.set_defaults(run=restyle)
    _add_clip(parser)
    first = parser.add_mutually_exclusive_group(required=True)
    first.add_argument("--first-frame", type=Path, metavar="styled.png", help="the first frame as you want it to look")
    first.add_argument("--style", metavar="NAME", help=f"one of {', '.join(STYLES)}")
    first.add_argument(
        "--sd",
        type=Path,
        metavar="FOLDER",
        help="let the Stable Diffusion in this diffusers folder restyle the first frame by --prompt",
    )
    parser.add_argument(
        "--style-image", type=Path, metavar="PICTURE", help="the picture whose colours --style colours takes"
    )
    parser.add_argument(
        "--strength",
        type=common.number(0, 1),
        default=0.5,
        metavar="S",
        help="how much --sd changes, from 0 to 1 (default: 0.5)",
    )
    parser.add_argument(
        "--prompt", default="", metavar="TEXT", help="what the video shows, and for --sd also the style"
    )
    parser.add_argument("--seed", type=common.whole(0), default=0, metavar="N", help="of style and noise (default: 0)")
    parser.add_argument(
        "--steps", type=common.whole(1, 1000), metavar="N", help="sampling steps (default: the model's)"
    )
    parser.add_argument(
        "--guidance", type=common.number(0), metavar="G", help="guidance scale of the prompt (default: the model's)"
    )
    parser.add_argument(
        "--size",
        type=common.whole(8, 16384),
        metavar="PX",
        help=f"pixels of the clip's shorter side at most (default: {SHORT_SIDE}; with --plain the model's)",
    )
    parser.add_argument("--plain", action="store_true", help="keep what the networks paint, small, and carry no detail")
    common.add_weights(parser)
    common.add_device(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="out.mp4", help="the clip to write, MP4 (H.264)"
    )


def _add_clip(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clip", metavar="CLIP", type=Path, help="a video file without cuts")
    parser.add_argument(
        "--frames", type=common.whole(2, 100_000), default=16, metavar="N", help="how many frames (default: 16)"
    )
    parser.add_argument(
        "--start", type=common.number(0, 1e7), default=0.0, metavar="S", help="seconds to skip (default: 0)"
    )
    parser.add_argument(
        "--step",
        type=common.whole(1, 100_000),
        default=1,
        metavar="K",
        help="take every K-th frame, for more motion (default: 1)",
    )
    parser.add_argument("--tracker", default="dis", metavar="WHICH", help=TRACKER_HELP)
    parser.add_argument(
        "--one-take", action="store_true", help="the clip has no cut, even where it looks as if it had one"
    )


def _read(options: argparse.Namespace, size: int, multiple: int = 1, enlarge: bool = True) -> Video:
    """Reads the part of the clip that is asked for, and says what was read."""
    from mi2v_lite.flow.tracking import check_clip
    from mi2v_lite.io.videos import read_video

    video = read_video(options.clip, options.frames, options.start, options.step, size, multiple, enlarge)
    check_clip(video.frames)
    if not options.one_take:
        _check_one_take(video, options)
    count, height, width = video.frames.shape[:3]
    if count < options.frames:
        common.say(f"warning: the clip ends after {count} of {options.frames} frames.")
    print(f"{options.clip}: {count} frames of {width}x{height} px, {float(video.fps):g} a second", flush=True)
    return video


def _check_one_take(video: Video, options: argparse.Namespace) -> None:
    """As `check_one_take`, in seconds and in the words of the command line."""
    from mi2v_lite.flow.tracking import blank_start, find_cuts

    def seconds(frame: int) -> str:
        return f"{video.start + frame / video.fps:.3f}".rstrip("0").rstrip(".")

    blank, cuts = blank_start(video.frames), find_cuts(video.frames)
    if not cuts:
        return
    if cuts[0] == blank:
        raise ValueError(
            f"{options.clip} is of one colour until {seconds(blank)} s, and nothing can be tracked from there: give "
            f"--start {seconds(blank)}."
        )
    shorter = f"take --frames {cuts[0]}, or " if cuts[0] > 1 else ""
    raise ValueError(
        f"{options.clip} cuts to another scene at frame {', '.join(map(str, cuts))} of those read, which is at "
        f"{', '.join(map(seconds, cuts))} s, and nothing can be tracked across a cut: {shorter}begin after it with "
        f"--start {seconds(cuts[0])}; or say with --one-take that it has no cut."
    )


def track(options: argparse.Namespace) -> None:
    """Runs `mi2v track`.

    Raises:
        ValueError: for a clip that cannot be tracked.
        OSError: for a file that cannot be read or written.
    """
    if options.output.suffix.lower() != ".npz":
        raise ValueError(f"the output {options.output} must end in .npz.")
    outputs = [options.output, *([options.output.with_suffix(".png")] if options.previews else [])]
    common.check_writable(outputs, (options.clip, Path(options.tracker.partition(":")[2])))  # it may be a file
    from mi2v_lite.flow.files import write_npz
    from mi2v_lite.flow.trackers import load_tracker

    tracker = load_tracker(options.tracker, common.device(options.device))
    video = _read(options, options.size)
    began = time.perf_counter()
    tracks: Tracks = tracker(video.frames)
    took = time.perf_counter() - began
    write_npz(options.output, *tracks)
    if options.previews:
        from PIL import Image

        from mi2v_lite.io.images import write_image
        from mi2v_lite.viz.flow import flow_picture

        write_image(outputs[1], flow_picture(Image.fromarray(video.frames[0]), tracks.flow))
    for path in outputs:
        print(f"wrote {path}")
    length = tracks.flow.norm(dim=1)
    print(
        f"displacement {length.mean():.2f} px on average, {length[-1].mean():.2f} in the last frame; "
        f"{tracks.visibility[-1].float().mean():.0%} of the first frame still visible there; tracked in {took:.1f} s"
    )


def restyle(options: argparse.Namespace) -> None:
    """Runs `mi2v restyle`.

    Raises:
        ValueError: for input that does not fit, before any sampling.
        OSError: for a file that cannot be read or written.
    """
    if options.output.suffix.lower() != ".mp4":
        raise ValueError(f"the output {options.output} must end in .mp4.")
    if options.style is not None and options.style not in STYLES:
        raise ValueError(f"style {options.style!r} is unknown; there are {', '.join(STYLES)}.")
    if (options.style == "colours") != (options.style_image is not None):
        raise ValueError("--style colours and --style-image go together.")
    if options.sd and not options.prompt.strip():
        raise ValueError("--sd needs --prompt, which describes the style.")
    if options.sd and not (options.sd / "model_index.json").is_file():
        raise ValueError(
            f"--sd {options.sd} is not a diffusers folder of Stable Diffusion: it has no model_index.json."
        )
    from mi2v_lite.io.images import read_image

    pictures = [path and read_image(path) for path in (options.first_frame, options.style_image)]
    common.check_writable([options.output], (options.clip, options.first_frame, options.style_image))
    from mi2v_lite.flow.trackers import load_tracker

    tracker = load_tracker(options.tracker, common.device(options.device))
    pipe = common.load(options.weights, options.device, options.dtype)
    import torch

    from mi2v_lite.io.files import atomic
    from mi2v_lite.io.videos import add_sound, read_sound, write_video
    from mi2v_lite.models.autoencoder import factor

    carried = pipe.config.detail == "carry" and not options.plain
    if carried:
        video = _read(options, options.size or SHORT_SIDE, enlarge=False)
    else:
        short = options.size or pipe.config.working_size or pipe.vae.config.sample_size
        video = _read(options, short, factor(pipe.vae))
    sound = read_sound(options.clip, video.start, len(video.frames) / video.fps)
    first = _first_frame(options, video, *pictures)
    began = time.perf_counter()
    made = pipe.video_to_video(
        video.frames,
        first,
        options.prompt,
        tracker,
        generator=torch.Generator().manual_seed(options.seed),
        output_type="np",
        detail="carry" if carried else "none",
        one_take=True,  # as far as it was checked above
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
    )
    took = time.perf_counter() - began
    with atomic(options.output) as beside:
        write_video(beside, made.frames[0], video.fps)
        if sound is not None:
            with atomic(beside) as loud:
                add_sound(beside, sound, loud)
    print(f"wrote {options.output}")
    if len(made.starts) > 1:
        print(f"{len(made.starts)} windows, from frames {', '.join(map(str, made.starts))}; their errors add up")
    length = torch.cat([tracks.flow for tracks in made.tracks]).norm(dim=1).mean()
    print(f"displacement {length:.2f} px on average; tracking and rendering {took:.1f} s")


def _first_frame(
    options: argparse.Namespace, video: Video, own: Image.Image | None, style_image: Image.Image | None
) -> Image.Image:
    """Returns frame 0 in the new style: the user's own, or the source's restyled."""
    from PIL import Image

    from mi2v_lite.pipelines import restyle as styles

    if own is not None:
        return own
    source = Image.fromarray(video.frames[0])
    if options.sd:
        return styles.diffuse(source, options.prompt, options.sd, options.strength, options.seed)
    return styles.restyle(source, options.style, style_image, options.seed)
