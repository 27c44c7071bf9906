"""All costs as one document, which says what is estimated and what was measured on which device (notebook 06).

python -m tools.benchmark --what all --device cpu -o docs/COSTS.md
"""

from __future__ import annotations

import torch

from mi2v_lite.training.curriculum import Config
from tools.benchmark.fitting import sampling_memory
from tools.benchmark.table import benchmark, device_name, markdown, options_markdown

CPU_SIDE = 256  # pixels; at full size a call would take minutes on a CPU


def costs(config: Config, height: int, width: int, frames: int = 16, device: str | None = None,
          tflops: float | None = None) -> str:  # fmt: skip
    """Writes the document in Markdown.

    Args:
        config: the curriculum.
        height: of the clip in pixels.
        width: of the clip in pixels.
        frames: of the clip.
        device: where to measure; a CPU measures only sampling, at `CPU_SIDE`, a GPU both at the given size.
        tflops: see `benchmark`.
    """
    cuda = device is not None and torch.device(device).type == "cuda"
    lines = ["# What it costs", "", *_preface(device, cuda, tflops), ""]
    for title, what in (("Sampling", "sample"), ("An update of each training step", "train")):
        report = benchmark(config, what, height, width, frames, tflops=tflops)
        lines += [f"## {title}", "", markdown(report), ""]
        if what == "sample":
            lines += [options_markdown(sampling_memory(config, height, width, frames)), ""]
    if cuda:
        for title, what in (("Sampling, measured", "sample"), ("Training, measured", "train")):
            lines += [f"## {title}", "", markdown(benchmark(config, what, height, width, frames, device)), ""]
    elif device is not None:
        report = benchmark(config, "sample", CPU_SIDE, CPU_SIDE, frames, device)
        lines += [
            f"## Measured at {CPU_SIDE}x{CPU_SIDE}",
            "",
            "The full-size networks with random weights, once. Seconds are the process's CPU time by its threads; "
            "memory is what the process held more than before, with the work space of the CPU's kernels.",
            "",
            markdown(report),
            "",
        ]
    return "\n".join(lines)


def _preface(device: str | None, cuda: bool, tflops: float | None) -> list[str]:
    ran = "nothing was run" if device is None else f"run on: {device_name(device)}"
    time = f"; time at {tflops:g} TFLOP/s sustained, an assumption: put in your device's." if tflops else "."
    return [
        "Printed by `python -m tools.benchmark --what all`. Parameters and operations are counted on tensors without "
        "numbers. A star marks an estimate: memory from the sizes of all tensors alive at the worst moment, without "
        f"the driver's own share and the allocator's gaps{time}",
        "",
        f"Measured, {ran}." + ("" if cuda else " Not run: anything on a GPU, and no training update at full size."),
    ]
