"""The command line: `mi2v animate | evaluate | train | doctor` (README, notebook 00).

Mistakes of the user end with one line on stderr and exit code 2, Ctrl-C with 130. torch and what needs it are imported
only inside the commands: `mi2v --help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mi2v_lite import __version__

if TYPE_CHECKING:
    from PIL import Image

    from mi2v_lite.control import MotionControl
    from mi2v_lite.pipelines import MotionI2VPipeline

LARGEST_ASPECT = 2.0  # longer side over shorter; the lite model saw squares
Point = tuple[float, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after `mi2v`; those of the process if None.

    Returns:
        the exit code: 0 done, 2 wrong use or files that cannot be read or written, 130 stopped by Ctrl-C.
    """
    with _one_line_warnings():
        try:
            options = _parser().parse_args(argv)
            options.run(options)
        except SystemExit as leaving:  # --help and --version
            return int(leaving.code or 0)
        except KeyboardInterrupt:
            _say("stopped")
            return 130
        except (ValueError, OSError) as error:  # what this project raises for wrong input, and what files raise
            _say(f"error: {_reason(error)}")
            return 2
        except MemoryError:
            _say("error: not enough memory; a smaller --size or fewer --frames help.")
            return 2
    return 0


def animate(options: argparse.Namespace) -> None:
    """`mi2v animate`: a photo becomes a clip.

    Raises:
        ValueError, OSError: for input that does not fit, before any sampling; see the messages.
    """
    start = time.perf_counter()
    if not (options.prompt.strip() or options.drag or options.brush):
        raise ValueError("nothing says what shall move: give --prompt, --drag or --brush (or several of them).")
    outputs = _outputs(options)
    from mi2v_lite.viz import media

    photo = media.read_image(options.photo)
    _check_aspect(photo.size)
    brush = None if options.brush is None else media.read_image(options.brush, background="black")
    control = _control(options, photo, brush)
    _check_writable(outputs.values(), (options.photo, options.brush))
    pipe = _load(options.weights)
    import torch

    from mi2v_lite.models.autoencoder import factor

    size = fitting_size(photo.size, options.size or pipe.vae.config.sample_size, factor(pipe.vae))
    small = photo if photo.size == size else photo.resize(size, _lanczos())
    print(
        f"photo {_by(photo.size)} px upright; the clip gets {_by(size)} px (short side {min(size)}, see --size)",
        flush=True,
    )
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    print(f"seed {seed}{' (drawn; give --seed to repeat this clip)' if options.seed is None else ''}", flush=True)
    loaded = time.perf_counter()

    made = pipe(
        small,
        options.prompt,
        control,
        control_scale=options.control_scale,
        num_frames=options.frames,
        stride=options.stride,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
        generator=torch.Generator().manual_seed(seed),
    )
    frames, flow = made.frames[0], made.flow[0]
    sampled = time.perf_counter()

    media.write_video(outputs["clip"], frames)
    if options.previews:
        from mi2v_lite.viz.pictures import flow_picture

        media.write_animated_png(outputs["preview"], frames)
        media.write_image(outputs["flow"], flow_picture(small, flow))
    if options.save_flow:
        from mi2v_lite.flow.files import write_flow

        write_flow(outputs["field"], flow)
        for number, field in enumerate(flow, start=1):
            write_flow(options.save_flow / f"flow_{number:02d}.flo", field)
    written = time.perf_counter()

    for path in outputs.values():
        print(f"wrote {path}")
    if options.save_flow:
        print(f"wrote {options.save_flow / 'flow_01.flo'} to flow_{len(flow):02d}.flo")
    print(f"loading {loaded - start:.1f} s, sampling {sampled - loaded:.1f} s, writing {written - sampled:.1f} s")


def evaluate(options: argparse.Namespace) -> None:
    """`mi2v evaluate`: the quality table on held-out worlds; Markdown on stdout, JSON in a file."""
    if options.output is not None:
        if options.output.suffix.lower() != ".json":
            raise ValueError(f"the report {options.output} must end in .json.")
        _check_writable([options.output])
    pipe = _load(options.weights)
    from mi2v_lite import evaluation
    from mi2v_lite.viz.media import atomic

    pipe.set_progress_bar_config(disable=True)  # the clips have a bar of their own
    metrics = evaluation.evaluate(pipe, evaluation.heldout_world(), clips=options.clips, seed=options.seed)
    print(evaluation.markdown(metrics))
    if options.output is not None:
        notes = [f"mi2v_lite {__version__}", f"{options.clips} held-out clips from seed {options.seed}"]
        # JSON knows no nan: a figure that no clip gave is null.
        plain = {
            name: {key: value if math.isfinite(value) else None for key, value in figure.items()}
            for name, figure in metrics.items()
        }
        with atomic(options.output) as beside:
            beside.write_text(json.dumps(evaluation.report(plain, notes), indent=1, allow_nan=False) + "\n")
        print(f"\nwrote {options.output}")


def train(options: argparse.Namespace) -> None:
    """`mi2v train`: one step of a curriculum."""
    from mi2v_lite.training.curriculum import load_config

    config = load_config(options.config)
    config.step(options.step)  # a wrong name is told before torch loads
    from mi2v_lite.training import trainer

    print(f"wrote {trainer.train(config, options.step, options.runs, options.resume)}")


def export(options: argparse.Namespace) -> None:
    """`mi2v export`: the results of a curriculum as one pipeline folder."""
    from mi2v_lite.training.curriculum import load_config

    config = load_config(options.config)
    from mi2v_lite import export as exporter

    print(f"wrote {exporter.export(config, options.runs, options.output)}")


def doctor(options: argparse.Namespace) -> None:
    """`mi2v doctor`: facts for a bug report."""
    from mi2v_lite.doctor import as_text, examine

    findings = examine()
    print(json.dumps(findings, indent=1) if options.json else as_text(findings))


def fitting_size(size: tuple[int, int], short: int, multiple: int) -> tuple[int, int]:
    """The size at which the model sees a photo.

    Args:
        size: (width, height) of the photo. short: what its shorter side becomes. multiple: of which both must be.

    Returns:
        (width, height): the aspect ratio as far as `multiple` allows.

    Raises:
        ValueError: `short` is no multiple.
    """
    if short % multiple:
        raise ValueError(f"--size {short} must be a multiple of {multiple}, the autoencoder's factor.")
    width, height = (max(short, round(side * short / min(size) / multiple) * multiple) for side in size)
    return width, height


def _check_aspect(size: tuple[int, int]) -> None:
    if max(size) > LARGEST_ASPECT * min(size):
        raise ValueError(
            f"the photo is {_by(size)} px, {max(size) / min(size):.2f} times as long as short; crop it to at most "
            f"{LARGEST_ASPECT:g}: the model saw no such shapes."
        )


def _control(options: argparse.Namespace, photo: Image.Image, brush: Image.Image | None) -> MotionControl | None:
    """What was drawn, in the photo's pixels; None for a prompt alone."""
    if not (options.drag or options.anchor or brush):
        return None
    if brush is not None and brush.size != photo.size:
        raise ValueError(
            f"the brush {options.brush} is {_by(brush.size)} px but the photo {_by(photo.size)}; they must be equal."
        )
    import numpy as np

    from mi2v_lite.control import Anchor, Drag, MotionControl

    return MotionControl(
        photo.size,
        [Drag(points) for points in options.drag],
        [Anchor(point) for point in options.anchor],
        None if brush is None else np.asarray(brush.convert("L")) > 127,
    )


def _outputs(options: argparse.Namespace) -> dict[str, Path]:
    """What -> file, of what `animate` will write; of the .flo files, which go beside "field", none."""
    clip: Path = options.output
    if clip.suffix.lower() != ".mp4":
        raise ValueError(f"the output {clip} must end in .mp4.")
    outputs = {"clip": clip}
    if options.previews:
        outputs |= {"preview": clip.with_suffix(".png"), "flow": clip.with_name("flow.png")}
    if options.save_flow:
        outputs["field"] = options.save_flow / "flow.npz"
    names = list(outputs.values())
    if len(set(names)) < len(names):
        raise ValueError(f"with --previews the clip must not be called {clip.name}: its picture would be flow.png too.")
    return outputs


def _check_writable(outputs: Iterable[Path], inputs: Iterable[Path | None] = ()) -> None:
    """Makes the folders and tries them: better now than after the sampling."""
    outputs = list(outputs)
    read = {path.resolve() for path in inputs if path is not None}
    for path in outputs:
        if path.resolve() in read:
            raise ValueError(f"{path} would be written over, but it is an input; choose another output.")
        if path.is_dir():
            raise ValueError(f"the output {path} is a folder; give a file name.")
    for folder in {path.parent: None for path in outputs}:
        trial = folder / f".mi2v.{secrets.token_hex(4)}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise ValueError(f"the output folder {folder} cannot be written: {error.strerror}.") from error


def _load(folder: Path | None) -> MotionI2VPipeline:
    """The pipeline, with quiet loading and a progress bar only where somebody looks."""
    import diffusers.utils.logging
    import transformers.utils.logging

    from mi2v_lite.pipelines import MotionI2VPipeline

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    for library in libraries:
        library.disable_progress_bar()
        for handler in library.get_logger().handlers:
            handler.setFormatter(_OneLine())
    try:
        pipe = MotionI2VPipeline.from_lite(folder)
    except FileNotFoundError:
        raise
    except Exception as error:  # every library below has errors of its own for damaged files
        where = "the weights" if folder is None else f"the weights in {folder}"
        raise ValueError(f"{where} cannot be loaded ({type(error).__name__}: {_reason(error)})") from error
    finally:
        for library in libraries:
            library.enable_progress_bar()
    pipe.set_progress_bar_config(disable=None)  # tqdm: shown on a terminal, not in a log
    return pipe


class _OneLine(logging.Formatter):
    """A library's log message as one line of ours."""

    def format(self, record: logging.LogRecord) -> str:
        return f"mi2v: {record.levelname.lower()}: {_joined(record.getMessage())}"


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Inside, each Python warning is one line without the place in the code it came from."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _say(f"warning: {_joined(str(message))}")
        yield


def _say(message: str) -> None:
    print(f"mi2v: {message}", file=sys.stderr)


def _joined(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _reason(error: Exception) -> str:
    """One line: what was wrong, for the system's errors with the file's name."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return _joined(f"{error.filename}: {error.strerror}")
    return _joined(str(error)) or type(error).__name__


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _lanczos() -> int:
    from PIL import Image

    return Image.Resampling.LANCZOS


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is an error like any other: one line, no usage before it."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mi2v", description="A photo becomes a clip through an explicit motion field.")
    parser.add_argument("--version", action="version", version=f"mi2v_lite {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")

    each = commands.add_parser("animate", help="photo to clip", description="A photo becomes a clip.")
    each.set_defaults(run=animate)
    each.add_argument("photo", metavar="PHOTO", type=Path, help="any picture, at most 2:1")
    each.add_argument("--prompt", default="", metavar="TEXT", help='what happens, e.g. "the balloon floats up"')
    each.add_argument(
        "--drag",
        action="append",
        default=[],
        type=drag_points,
        metavar='"x,y x,y ..."',
        help="the thing at the first point goes through the others. Pixels of PHOTO as viewers show it (its EXIF "
        "orientation applied), x to the right, y down. May be given several times",
    )
    each.add_argument(
        "--anchor", action="append", default=[], type=point, metavar="x,y", help="this point stays; several times"
    )
    each.add_argument("--brush", type=Path, metavar="MASK.png", help="as large as PHOTO; white may move, black stays")
    each.add_argument("--frames", type=_whole(2), default=16, metavar="N", help="of the clip (default: 16)")
    each.add_argument("--seed", type=_whole(0), metavar="N", help="for repeats; drawn and told if left out")
    each.add_argument("--steps", type=_whole(1), metavar="N", help="of each sampling (default: the model's)")
    each.add_argument("--guidance", type=_number(0), metavar="G", help="how much the prompt counts; 1 or less: plainly")
    each.add_argument("--control-scale", type=_number(0), default=1.0, metavar="S", help="how much drags count (1)")
    each.add_argument("--stride", type=_number(1), metavar="S", help="larger = more motion (default: the model's)")
    each.add_argument("--size", type=_whole(8), metavar="PX", help="short side of the clip (default: the model's, 128)")
    _add_weights(each)
    each.add_argument("--save-flow", type=Path, metavar="DIR", help="write the motion: flow.npz and .flo files")
    each.add_argument("--previews", action="store_true", help="also write, beside clip.mp4, clip.png and flow.png")
    each.add_argument("-o", "--output", type=Path, required=True, metavar="clip.mp4", help="the clip, MP4 (H.264)")

    each = commands.add_parser("evaluate", help="measure the model", description="The quality table, in Markdown.")
    each.set_defaults(run=evaluate)
    each.add_argument("-o", "--output", type=Path, metavar="report.json", help="write the figures there")
    each.add_argument("--clips", type=_whole(1), default=24, metavar="N", help="held-out clips (default: 24)")
    each.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="of clips and noise (default: 0)")
    _add_weights(each)

    each = commands.add_parser("train", help="train one step", description="Trains one step of a curriculum.")
    each.set_defaults(run=train)
    each.add_argument("config", metavar="CONFIG", type=Path, help="a YAML file, e.g. mi2v_lite/configs/lite.yaml")
    each.add_argument("--step", required=True, metavar="NAME", help="the step's name in CONFIG")
    each.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="data and results (default: runs)")
    each.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")

    each = commands.add_parser(
        "export", help="results to a pipeline", description="The results of a curriculum become one pipeline folder."
    )
    each.set_defaults(run=export)
    each.add_argument("config", metavar="CONFIG", type=Path, help="a YAML file, e.g. mi2v_lite/configs/lite.yaml")
    each.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="data and results (default: runs)")
    each.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="the pipeline's folder")

    each = commands.add_parser("doctor", help="facts for a bug report", description="Facts for a bug report.")
    each.set_defaults(run=doctor)
    each.add_argument("--json", action="store_true", help="as JSON")
    return parser


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="a saved pipeline (default: the lite model)")


def point(text: str) -> Point:
    """ "x,y" to numbers; argparse's error for anything else."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise argparse.ArgumentTypeError(f'{text!r} is no point; write "x,y" in pixels, e.g. 120,80')
    return x, y


def drag_points(text: str) -> list[Point]:
    """ "x,y x,y ..." to two or more points; argparse's error for anything else."""
    points = [point(part) for part in text.split()]
    if len(points) < 2:
        raise argparse.ArgumentTypeError(f'{text!r} is no drag; write two or more points, "x,y x,y ...", in quotes')
    return points


def _whole(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from `least` to what a seed may be."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text[:20]) < 2**63):
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
        return int(text)

    return read


def _number(least: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            raise argparse.ArgumentTypeError(f"{text!r} must be a number of at least {least:g}")
        return value

    return read


if __name__ == "__main__":
    sys.exit(main())
