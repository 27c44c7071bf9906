"""`mi2v animate`: turns a photo into a clip."""

from __future__ import annotations

import argparse
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mi2v_lite.io.images import FPS, SECONDS, SHORT_SIDE

from . import common
from .common import by

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from mi2v_lite.control import MotionControl, Point

LARGEST_ASPECT = 2.0  # longer side over shorter, since the lite model was trained on squares
ORIGINAL = "original"
PREVIEW_SIZE, PREVIEW_FPS = 256, 8  # of the animated PNG, which is large for its exact pixels


def add(commands: argparse._SubParsersAction) -> None:
    """Registers `animate`."""
    parser = commands.add_parser("animate", help="turn a photo into a clip", description="Turns a photo into a clip.")
    parser.set_defaults(run=run)
    parser.add_argument(
        "photo", metavar="PHOTO", type=Path, help="a picture whose longer side is at most twice the shorter"
    )
    parser.add_argument("--prompt", default="", metavar="TEXT", help='what happens, e.g. "the camera pans left"')
    parser.add_argument(
        "--drag",
        action="append",
        default=[],
        type=common.drag_points,
        metavar='"x,y x,y ..."',
        help="move what is at the first point through the others; in pixels of PHOTO as viewers show it (with its "
        "EXIF orientation), x to the right, y down; may be given several times",
    )
    parser.add_argument(
        "--anchor",
        action="append",
        default=[],
        type=common.point,
        metavar="x,y",
        help="keep this point where it is; may be given several times",
    )
    parser.add_argument(
        "--thing",
        action="append",
        default=[],
        dest="things",
        type=common.points,
        metavar='"x,y ..."',
        help="take hold of the thing at this point, or at these: a drag that starts on it moves it whole, two or more "
        "also turn and scale it, and without one it stays; may be given several times, from the farthest thing to the "
        "nearest",
    )
    parser.add_argument(
        "--thing-mask",
        action="append",
        dest="things",
        type=Path,
        metavar="MASK.png",
        help="a thing as a picture of PHOTO's size, white on the thing; may be given several times and beside --thing",
    )
    parser.add_argument(
        "--anchor-background",
        action="store_true",
        help="hold everything but what is dragged, so that the camera rests",
    )
    parser.add_argument(
        "--brush", type=Path, metavar="MASK.png", help="a picture of PHOTO's size: white may move, black stays"
    )
    parser.add_argument(
        "--control",
        type=Path,
        metavar="control.json",
        help="what was drawn on PHOTO and saved, instead of the options above",
    )
    parser.add_argument(
        "--size",
        type=_size,
        metavar="PX",
        help=f"pixels of the clip's shorter side, at most, or original (default: {SHORT_SIDE}; plain: the model's)",
    )
    parser.add_argument("--fps", type=common.number(1, 1000), metavar="F", help=f"frames per second (default: {FPS:g})")
    parser.add_argument(
        "--seconds", type=common.number(0.1, 3600), metavar="S", help=f"length of the clip (default: {SECONDS:g})"
    )
    parser.add_argument(
        "--plain", action="store_true", help="keep what the networks paint, small, and carry no detail from PHOTO"
    )
    parser.add_argument(
        "--frames",
        type=common.whole(2, 1000),
        default=16,
        metavar="N",
        help="how many frames the networks make (default: 16)",
    )
    parser.add_argument(
        "--seed", type=common.whole(0), metavar="N", help="repeats a clip (default: a random seed, which is printed)"
    )
    parser.add_argument(
        "--steps", type=common.whole(1, 1000), metavar="N", help="sampling steps of each stage (default: the model's)"
    )
    parser.add_argument(
        "--guidance",
        type=common.number(0),
        metavar="G",
        help="guidance scale of the prompt; up to 1 there is no guidance (default: the model's)",
    )
    parser.add_argument(
        "--control-scale", type=common.number(0), default=1.0, metavar="S", help="how much drags count (default: 1)"
    )
    parser.add_argument(
        "--control-guidance",
        type=common.number(0),
        metavar="G",
        help="exaggerates what the drags change; 1 does not (default: the model's)",
    )
    parser.add_argument(
        "--stride", type=common.number(1), metavar="S", help="strength of the motion (default: the model's)"
    )
    common.add_weights(parser)
    common.add_device(parser)
    parser.add_argument(
        "--save-flow", type=Path, metavar="DIR", help="also write the motion there, as flow.npz and .flo files"
    )
    parser.add_argument(
        "--previews",
        action="store_true",
        help=f"also write clip.png (animated, at most {PREVIEW_SIZE} px) and clip_flow.png beside clip.mp4, and "
        "clip_drawn.png, where the things that were found are outlined, if anything is drawn",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="clip.mp4", help="the clip to write, MP4 (H.264)"
    )


def run(options: argparse.Namespace) -> None:
    """Runs `mi2v animate`.

    Raises:
        ValueError: for input that does not fit, before any sampling.
        OSError: for a file that cannot be read or written.
    """
    start = time.perf_counter()
    if not (options.prompt.strip() or options.drag or options.brush or options.control):
        raise ValueError(
            "nothing says what is to move; give --prompt, --drag or --brush (or several of them), or --control."
        )
    if options.control and (options.drag or options.anchor or options.brush or options.things):
        raise ValueError(
            "--control holds all that was drawn; leave out --drag, --anchor, --brush, --thing and --thing-mask."
        )
    if options.plain and (options.fps or options.seconds or options.size == ORIGINAL):
        raise ValueError("--plain shows the networks' own frames: leave out --fps, --seconds and --size original.")
    outputs = _outputs(options)
    from mi2v_lite.io import images, videos

    photo = images.read_image(options.photo)
    _check_aspect(photo.size)
    control = _saved(options, photo) if options.control else _control(options, photo)
    if options.anchor_background:
        if control is None:
            raise ValueError(
                "--anchor-background holds all but what is dragged; give --drag, or --control with a drag."
            )
        control = control.anchor_background()
    if control is None:  # nothing is drawn in the file either
        outputs.pop("drawn", None)
    masks = [thing for thing in options.things if isinstance(thing, Path)]
    common.check_writable(outputs.values(), (options.photo, options.brush, options.control, *masks))
    pipe = common.load(options.weights, options.device, options.dtype)
    import torch
    from tqdm.auto import tqdm

    from mi2v_lite.data.prompts import advice
    from mi2v_lite.models.autoencoder import factor
    from mi2v_lite.pipelines.detail import frame_times

    carried = pipe.config.detail == "carry" and not options.plain
    if not carried and (options.fps or options.seconds or options.size == ORIGINAL):
        raise ValueError("these weights carry no detail: leave out --fps, --seconds and --size original.")
    how: dict[str, object] = {"detail": "carry", "fps": options.fps or FPS, "seconds": options.seconds or SECONDS}
    if carried:
        shown = photo if options.size == ORIGINAL else images.bounded(photo, options.size or SHORT_SIDE)
        count, fps = len(frame_times(options.frames - 1, how["fps"], how["seconds"])), how["fps"]
    else:
        short = options.size or pipe.config.working_size or pipe.vae.config.sample_size
        shown = images.fitted(photo, short, factor(pipe.vae))
        how = {"detail": "none", "height": shown.height, "width": shown.width}
        count, fps = options.frames, images.NETWORK_FPS
    written = by(tuple(side + side % 2 for side in shown.size))  # H.264 wants even sides
    print(
        f"photo {by(photo.size)} px upright; the clip gets {written} px, {count} frames, {fps:g} a second",
        flush=True,
    )
    if control is not None:
        _print_things(control)
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    print(f"seed {seed}{' (drawn; give --seed to repeat this clip)' if options.seed is None else ''}", flush=True)
    if pipe.config.detail == "carry" and (unknown := advice(options.prompt)):
        print(unknown, flush=True)
    loaded = time.perf_counter()

    made = pipe(
        shown,
        options.prompt,
        control,
        control_scale=options.control_scale,
        control_guidance_scale=options.control_guidance,
        num_frames=options.frames,
        stride=options.stride,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="stream" if carried else "np",
        **how,
    )
    frames, flow = made.frames[0], made.flow[0]
    sampled = time.perf_counter()

    # One frame at a time: a large clip does not fit into memory.
    every = max(1, round(fps / PREVIEW_FPS))
    small: list[Image.Image] = []
    bar = tqdm(frames, "detail", count, disable=None if carried else True)
    videos.write_video(outputs["clip"], _kept(bar, small if options.previews else None, every), fps)
    if options.previews:
        from mi2v_lite.viz.flow import flow_picture

        images.write_animated_png(outputs["preview"], small, fps / every)
        images.write_image(outputs["flow"], flow_picture(shown, flow))
    if "drawn" in outputs:
        from mi2v_lite.viz.drawing import still

        still(photo, control, options.frames - 1).save(outputs["drawn"])
    if options.save_flow:
        from mi2v_lite.flow.files import write_flow

        write_flow(outputs["field"], flow)
        for number, field in enumerate(flow, start=1):
            write_flow(options.save_flow / f"flow_{number:02d}.flo", field)
        _remove_longer(options.save_flow, len(flow))
    done = time.perf_counter()

    for path in outputs.values():
        print(f"wrote {path}")
    if options.save_flow:
        print(f"wrote {options.save_flow / 'flow_01.flo'} to flow_{len(flow):02d}.flo")
    last = "detail and writing" if carried else "writing"
    print(f"loading {loaded - start:.1f} s, sampling {sampled - loaded:.1f} s, {last} {done - sampled:.1f} s")


def _print_things(control: MotionControl) -> None:
    """Prints how much of the photo each thing is, and the background, if it is held."""
    from mi2v_lite.viz.drawing import is_ground

    number = 0
    for thing in control.things:
        if is_ground(thing):
            print(f"background: {thing.mask.mean():.1%} of the photo, held")
            continue
        number += 1
        count = len(thing.drags)
        print(f"thing {number}: {thing.mask.mean():.1%} of the photo, {count} drag{'' if count == 1 else 's'}")


def _remove_longer(folder: Path, count: int) -> None:
    """Removes the fields that a longer clip left in the folder, which would pass for fields of this one."""
    for path in sorted(folder.glob("flow_*.flo")):
        number = path.stem.removeprefix("flow_")
        if number.isdecimal() and int(number) > count:
            path.unlink()
            print(f"removed {path}, of a clip with more frames")


def _kept(frames: Iterable[np.ndarray], small: list[Image.Image] | None, every: int) -> Iterator[np.ndarray]:
    """Yields the frames, and puts every so many of them, reduced, into `small` if there is such a list."""
    from PIL import Image

    from mi2v_lite.io import images

    for number, frame in enumerate(frames):
        if small is not None and number % every == 0:
            small.append(images.bounded(Image.fromarray(frame), PREVIEW_SIZE))
        yield frame


def _size(text: str) -> int | str:
    """Reads a number of pixels, or ORIGINAL."""
    return ORIGINAL if text == ORIGINAL else common.whole(8, 16384)(text)


def _check_aspect(size: tuple[int, int]) -> None:
    if min(size) < 2:
        raise ValueError(f"the photo is {by(size)} px; it must have at least two pixels a side.")
    if max(size) > LARGEST_ASPECT * min(size):
        raise ValueError(
            f"the photo is {by(size)} px, {max(size) / min(size):.2f} times as long as wide; crop it to at most "
            f"{LARGEST_ASPECT:g}, since the model was not trained on such shapes."
        )


def _control(options: argparse.Namespace, photo: Image.Image) -> MotionControl | None:
    """Returns what was drawn, in pixels of the photo, or None for a prompt alone."""
    if not (options.drag or options.anchor or options.brush or options.things):
        return None
    from mi2v_lite.control import Anchor, Drag, MotionControl

    control = MotionControl(
        photo.size,
        [Drag(points) for points in options.drag],
        [Anchor(point) for point in options.anchor],
        None if options.brush is None else _white(options.brush, f"the brush {options.brush}", photo),
    )
    return control.with_things(*(_mask(thing, photo) for thing in options.things))


def _mask(thing: Path | list[Point], photo: Image.Image) -> np.ndarray:
    """Returns the pixels of a thing that was given as points on it or as a file."""
    from mi2v_lite.control import select_thing

    if isinstance(thing, Path):
        name = f"the mask {thing}"
        mask = _white(thing, name, photo)
    else:
        name = f"the thing at {' '.join(f'{x:g},{y:g}' for x, y in thing)}"
        mask = select_thing(photo, thing)
    if mask.all():
        raise ValueError(
            f"{name} covers the whole photo, so nothing would be left to move it against; give other points on the "
            "thing, or a mask that leaves something out."
        )
    return mask


def _white(path: Path, name: str, photo: Image.Image) -> np.ndarray:
    """Returns where a mask of the photo's size is white, bool (H, W)."""
    from mi2v_lite.io.images import as_mask, read_image

    picture = read_image(path, background="black")
    if picture.size != photo.size:
        raise ValueError(f"{name} is {by(picture.size)} px but the photo {by(photo.size)}; make them equal.")
    return as_mask(picture, name)


def _saved(options: argparse.Namespace, photo: Image.Image) -> MotionControl | None:
    """Returns what was drawn and saved, for instance by DragCanvas, or None where nothing was drawn."""
    from mi2v_lite.control import MotionControl

    control = MotionControl.load(options.control)
    if control.size != photo.size:
        raise ValueError(
            f"{options.control} was drawn on {common.by(control.size)} px but the photo {options.photo} has "
            f"{common.by(photo.size)}; give the photo that it was drawn on."
        )
    moves = control.drags or control.brush is not None or any(thing.drags for thing in control.things)
    if not (options.prompt.strip() or moves):
        raise ValueError(f"nothing says what is to move: {options.control} has no drag and no brush; give --prompt.")
    return control if moves or control.anchors or control.things else None


def _outputs(options: argparse.Namespace) -> dict[str, Path]:
    """Returns the files that `animate` will write; the .flo files, beside `field`, are left out."""
    clip: Path = options.output
    if clip.suffix.lower() != ".mp4":
        raise ValueError(f"the output {clip} must end in .mp4.")
    outputs = {"clip": clip}
    if options.previews:
        outputs |= {"preview": clip.with_suffix(".png"), "flow": clip.with_name(f"{clip.stem}_flow.png")}
        if options.drag or options.anchor or options.brush or options.things or options.control:
            outputs["drawn"] = clip.with_name(f"{clip.stem}_drawn.png")
    if options.save_flow:
        outputs["field"] = options.save_flow / "flow.npz"
        for path in options.save_flow.glob("flow_*.flo"):
            if path.is_dir():
                raise ValueError(f"the output {path} is a folder; choose another for --save-flow.")
    return outputs
