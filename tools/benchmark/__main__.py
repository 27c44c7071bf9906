"""`python -m tools.benchmark`: what sampling or training will cost (notebook 06)."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import mi2v_lite
from mi2v_lite.cli import common, guarded

CONFIGS = Path(mi2v_lite.__file__).parent / "configs"


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the options."""
    options = argparse.ArgumentParser(
        prog="python -m tools.benchmark",
        description="Prints parameters, operations, memory and time of sampling a clip or of a training update. "
        "Operations are counted; memory and time are measured on --device, or else estimated and marked with a star. "
        "For sampling it also prints what the memory-saving options save. --what all prints docs/COSTS.md. "
        "--what speed measures on this CPU what docs/performance.md says, in at most twelve minutes; it takes only "
        "the options --only, --quick and --output.",
    )
    options.add_argument("--scale", choices=("lite", "full"), default="full", help="which models (default: full)")
    options.add_argument("--config", type=Path, metavar="YAML", help="a curriculum of your own instead")
    options.add_argument(
        "--what", choices=("sample", "train", "all", "speed"), default="sample", help="what to print (default: sample)"
    )
    options.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="of --what speed: these parts, by the names that it prints",
    )
    options.add_argument("--quick", action="store_true", help="of --what speed: small sizes, to see that it runs")
    options.add_argument(
        "--height", type=common.whole(8), metavar="PX", help="height of the clip (default: 320 for full, 128 for lite)"
    )
    options.add_argument(
        "--width", type=common.whole(8), metavar="PX", help="width of the clip (default: 512 for full, 128 for lite)"
    )
    options.add_argument(
        "--frames", type=common.whole(2), default=16, metavar="N", help="frames of the clip (default: 16)"
    )
    options.add_argument("--device", metavar="NAME", help="measure on this device, for instance cuda or cpu")
    options.add_argument(
        "--tflops",
        type=common.number(0.001),
        metavar="T",
        help="estimate the time with T * 10^12 operations per second",
    )
    options.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="also write it to this file: figures if it ends in .json, else Markdown",
    )
    return options


def main(arguments: list[str] | None = None) -> None:
    """Prints a Markdown table.

    Args:
        arguments: the words of the command line, by default those of this process.

    Raises:
        ValueError: for a device that is not there, a config that cannot be read or an output that cannot be written.
    """
    options = parser().parse_args(arguments)
    try:
        _run(options)
    finally:
        common.release()


def _run(options: argparse.Namespace) -> None:
    if options.device is not None:
        common.device(options.device)
    if options.output is not None:
        common.check_writable([options.output], [options.config])
        if options.what == "all" and options.output.suffix == ".json":
            raise ValueError("--what all prints a document, not figures; give a name that ends in .md.")
    if options.what == "speed":
        _speed(options)
        return
    from mi2v_lite.training.curriculum import load_config

    config = load_config(options.config or CONFIGS / f"{options.scale}.yaml")
    from mi2v_lite.io.files import atomic
    from tools.benchmark import benchmark, costs, markdown, options_markdown, sampling_memory

    default = (320, 512) if options.scale == "full" else (128, 128)
    height, width = options.height or default[0], options.width or default[1]
    arguments = (height, width, options.frames, options.device, options.tflops)
    as_json = options.output is not None and options.output.suffix == ".json"
    if options.what == "all":
        text = figures = costs(config, *arguments)
    else:
        figures = benchmark(config, options.what, *arguments)
        text = markdown(figures)
        if options.what == "sample":
            figures["options"] = sampling_memory(config, height, width, options.frames)
            text += f"\n\n{options_markdown(figures['options'])}"
    print(text)
    if options.output is not None:
        with atomic(options.output) as beside:
            content = json.dumps(figures, indent=1) if as_json else text.rstrip()
            beside.write_text(content + "\n", encoding="utf-8")
        print(f"\nwrote {options.output}")


def _speed(options: argparse.Namespace) -> None:
    """Measures, and writes the document with a JSON file of the same name beside it."""
    from mi2v_lite.io.files import atomic
    from tools.benchmark import speed
    from tools.benchmark.speed_document import document
    from tools.gpu.tasks import run_tasks

    tasks = speed.tasks(speed.toy_size() if options.quick else speed.full_size(), options.only)
    with tempfile.TemporaryDirectory() as folder:
        output = options.output or Path(folder) / "performance.md"
        figures = output.with_suffix(".json")
        run_tasks(tasks, speed.LIMIT, figures, {**speed.about(), "toy": options.quick})
        text = document(json.loads(figures.read_text(encoding="utf-8")))
        print(text)
        if options.output is None or output == figures:
            return
        with atomic(output) as beside:
            beside.write_text(text + "\n", encoding="utf-8")
        print(f"\nwrote {output} and {figures}")


if __name__ == "__main__":
    sys.exit(guarded(main))
