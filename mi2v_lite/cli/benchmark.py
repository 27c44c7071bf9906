"""`mi2v benchmark`: what sampling or training costs, before it is paid for (notebook 06)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from . import common

CONFIGS = Path(__file__).parents[1] / "configs"


def add(commands: argparse._SubParsersAction) -> None:
    """Register `benchmark`."""
    each = commands.add_parser(
        "benchmark",
        help="what it costs",
        description="Parameters, operations, memory and time of sampling a clip or of a training update. Operations "
        "are counted; memory and time are measured on --device, otherwise estimated and marked so.",
    )
    each.set_defaults(run=run)
    each.add_argument("--scale", choices=("lite", "full"), default="full", help="which models (default: full)")
    each.add_argument("--config", type=Path, metavar="YAML", help="a curriculum of your own instead")
    each.add_argument("--what", choices=("sample", "train"), default="sample", help="(default: sample)")
    each.add_argument("--height", type=common.whole(8), metavar="PX", help="(default: 320 full, 128 lite)")
    each.add_argument("--width", type=common.whole(8), metavar="PX", help="(default: 512 full, 128 lite)")
    each.add_argument("--frames", type=common.whole(2), default=16, metavar="N", help="of the clip (default: 16)")
    each.add_argument("--device", metavar="NAME", help="measure there, e.g. cuda or cpu")
    each.add_argument(
        "--tflops", type=common.number(0.001), metavar="T", help="10^12 operations a second to estimate the time with"
    )
    each.add_argument("-o", "--output", type=Path, metavar="report.json", help="write the figures there too")


def run(options: argparse.Namespace) -> None:
    """`mi2v benchmark`; prints a Markdown table.

    Raises:
        ValueError: for a config that cannot be read or an output that cannot be written.
    """
    if options.output is not None:
        common.check_writable([options.output])
    from mi2v_lite.training.curriculum import load_config

    config = load_config(options.config or CONFIGS / f"{options.scale}.yaml")
    from mi2v_lite.benchmark import benchmark, markdown
    from mi2v_lite.viz.media import atomic

    default = (320, 512) if options.scale == "full" else (128, 128)
    height, width = options.height or default[0], options.width or default[1]
    report = benchmark(config, options.what, height, width, options.frames, options.device, options.tflops)
    print(markdown(report))
    if options.output is not None:
        with atomic(options.output) as beside:
            beside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"\nwrote {options.output}")
