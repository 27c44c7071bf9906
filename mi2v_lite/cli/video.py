"""`mi2v track` and `mi2v restyle`: the motion of a video, and a video in another style that keeps it."""

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

STYLES = (
    "posterise",
    "sketch",
    "oil",
    "strokes",
    "colours",
)  # those of pipelines/restyle.py, known without cv2
TRACK_SIZE = 256  # short side, pixels
TRACKER_HELP = common.TRACKER_HELP + ", or fields:PATH for motion computed elsewhere"


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
    common.add_device(each, dtype=False)
    each.add_argument("-o", "--output", type=Path, required=True, metavar="fields.npz", help="flow and visibility")

    each = commands.add_parser(
        "restyle",
        help="video in another style",
        description="The video's motion drives its first frame in another style; the sound is kept.",
    )
    each.set_defaults(run=restyle)
    _add_clip(each)
    first = each.add_mutually_exclusive_group(required=True)
    first.add_argument("--first-frame", type=Path, metavar="styled.png", help="the first frame as it shall look")
    first.add_argument("--style", metavar="NAME", help=f"one of {', '.join(STYLES)}")
    first.add_argument(
        "--sd", type=Path, metavar="FOLDER", help="Stable Diffusion in diffusers' form restyles it by --prompt"
    )
    each.add_argument("--style-image", type=Path, metavar="PICTURE", help="whose colours to take, for --style colours")
    each.add_argument("--strength", type=common.number(0), default=0.5, metavar="S", help="of --sd, 0 to 1 (0.5)")
    each.add_argument("--prompt", default="", metavar="TEXT", help="what is seen, and for --sd how")
    each.add_argument("--seed", type=common.whole(0), default=0, metavar="N", help="of style and noise (0)")
    each.add_argument("--steps", type=common.whole(1), metavar="N", help="of the sampling (default: the model's)")
    each.add_argument("--guidance", type=common.number(0), metavar="G", help="how much the prompt counts")
    each.add_argument(
        "--size",
        type=common.whole(8),
        metavar="PX",
        help=f"bounds the shorter side of the clip (default: {SHORT_SIDE}; with --plain the model's)",
    )
    each.add_argument(
        "--plain", action="store_true", help="what the networks alone paint, small: no detail carried along"
    )
    common.add_weights(each)
    common.add_device(each)
    each.add_argument("-o", "--output", type=Path, required=True, metavar="out.mp4", help="the clip, MP4 (H.264)")


def _add_clip(each: argparse.ArgumentParser) -> None:
    each.add_argument("clip", metavar="CLIP", type=Path, help="a video file, one take without a cut")
    each.add_argument("--frames", type=common.whole(2), default=16, metavar="N", help="how many (default: 16)")
    each.add_argument("--start", type=common.number(0), default=0.0, metavar="S", help="seconds to leave out (0)")
    each.add_argument("--step", type=common.whole(1), default=1, metavar="K", help="every K-th frame: more motion (1)")
    each.add_argument("--tracker", default="dis", metavar="WHICH", help=TRACKER_HELP)


def _read(options: argparse.Namespace, size: int, multiple: int = 1, enlarge: bool = True) -> Video:
    """The part of the clip asked for; a line says what was read."""
    from mi2v_lite.flow.tracking import check_clip, check_one_take
    from mi2v_lite.io.videos import read_video

    video = read_video(options.clip, options.frames, options.start, options.step, size, multiple, enlarge)
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
        f"{tracks.visibility[-1].float().mean():.0%} of the first frame still seen there; tracked in {took:.1f} s"
    )


def restyle(options: argparse.Namespace) -> None:
    """`mi2v restyle`: a video in another style.

    Raises:
        ValueError, OSError: for input that does not fit, before any sampling; see the messages.
    """
    if options.output.suffix.lower() != ".mp4":
        raise ValueError(f"the output {options.output} must end in .mp4.")
    if options.style is not None and options.style not in STYLES:
        raise ValueError(f"style {options.style!r} is unknown; there are {', '.join(STYLES)}.")
    if (options.style == "colours") != (options.style_image is not None):
        raise ValueError("--style colours and --style-image go together.")
    if options.sd and not options.prompt.strip():
        raise ValueError("--sd needs --prompt: the style in words.")
    common.check_writable([options.output], (options.clip, options.first_frame, options.style_image))
    from mi2v_lite.flow.trackers import load_tracker

    tracker = load_tracker(options.tracker, common.device(options.device))
    pipe = common.load(options.weights, options.device, options.dtype)
    import torch

    from mi2v_lite.io.files import atomic
    from mi2v_lite.io.videos import copy_with_sound, write_video
    from mi2v_lite.models.autoencoder import factor

    carried = pipe.config.detail == "carry" and not options.plain
    if carried:
        video = _read(options, options.size or SHORT_SIDE, enlarge=False)
    else:
        short = options.size or pipe.config.working_size or pipe.vae.config.sample_size
        video = _read(options, short, factor(pipe.vae))
    first = _first_frame(options, video)
    began = time.perf_counter()
    made = pipe.video_to_video(
        video.frames,
        first,
        options.prompt,
        tracker,
        generator=torch.Generator().manual_seed(options.seed),
        output_type="np",
        detail="carry" if carried else "none",
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
    )
    took = time.perf_counter() - began
    with atomic(options.output) as beside:
        silent = beside.with_suffix(".silent")
        try:
            write_video(silent, made.frames[0], video.fps)
            if not copy_with_sound(silent, options.clip, beside, video.start):
                silent.replace(beside)
        finally:
            silent.unlink(missing_ok=True)
    print(f"wrote {options.output}")
    if len(made.starts) > 1:
        print(f"{len(made.starts)} windows, from frames {', '.join(map(str, made.starts))}: their errors add up")
    length = torch.cat([tracks.flow for tracks in made.tracks]).norm(dim=1).mean()
    print(f"displacement {length:.2f} px on average; tracking and rendering {took:.1f} s")


def _first_frame(options: argparse.Namespace, video: Video) -> Image.Image:
    """Frame 0 as it shall look: the user's, or the source's in a style."""
    from PIL import Image

    from mi2v_lite.io.images import read_image
    from mi2v_lite.pipelines import restyle as styles

    if options.first_frame is not None:
        return read_image(options.first_frame)
    source = Image.fromarray(video.frames[0])
    if options.sd:
        return styles.diffuse(source, options.prompt, options.sd, options.strength, options.seed)
    style_image = None if options.style_image is None else read_image(options.style_image)
    return styles.restyle(source, options.style, style_image, options.seed)
