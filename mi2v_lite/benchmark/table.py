"""The table of costs: each figure with how it came about."""

from __future__ import annotations

import time

import torch

from mi2v_lite.benchmark.calls import Call, Clip, parts, sampling_calls, training_call
from mi2v_lite.benchmark.meter import Meter
from mi2v_lite.training.curriculum import NEEDS, Config

GIB = 2**30
MODES = ("sample", "train")


def benchmark(
    config: Config, what: str, height: int, width: int, frames: int = 16, device: str | None = None,
    tflops: float | None = None,
) -> dict:  # fmt: skip
    """What one clip or one update of each diffusion step of the curriculum costs.

    Args:
        config: the curriculum. what: "sample" or "train". height, width, frames: of the clip, pixels.
        device: where to measure time (on CUDA also memory), in bfloat16; None estimates all.
        tflops: 10^12 operations a second that a device sustains, to estimate time where none is measured.

    Returns:
        `{"parameters": {part: n}, "device", "rows": [...]}`; a row has `name`, `count`, `tflop` of one call (counted),
        `memory_gib` and `seconds` of one call, and `memory`, `time`: "measured", "estimated", or "unknown".

    Raises:
        ValueError: for another `what`.
    """
    if what not in MODES:
        raise ValueError(f"what is {what!r}, expected one of {MODES}.")
    meta = Clip(height, width, frames, "meta", torch.bfloat16)
    makers = [lambda clip, index=index: sampling_calls(config, clip)[index]() for index in range(4)]
    if what == "train":
        steps = [step for step in config.steps if "text_encoder" in NEEDS[step.objective]]
        makers = [lambda clip, step=step: training_call(config, step, clip) for step in steps]
    rows = []
    for make in makers:
        row = _counted(make(meta), what)
        if device is not None:
            row |= _measured(make(Clip(height, width, frames, device, torch.bfloat16)), what)
        elif tflops:
            row |= {"seconds": row["tflop"] / tflops, "time": "estimated"}
        rows.append(row)
    return {"what": what, "size": [width, height, frames], "device": _device_name(device), "parameters": parts(config),
            "rows": rows}  # fmt: skip


def markdown(report: dict) -> str:
    """The report as a Markdown table, a star at what is estimated."""
    width, height, frames = report["size"]
    total = sum(report["parameters"].values())
    listed = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in report["parameters"].items())
    lines = [
        f"{width}x{height}, {frames} frames, bfloat16; device: {report['device']}; * estimated. Memory is with only "
        "the models of that line on the device.",
        f"{total / 1e6:.1f} M parameters: {listed}",
        "",
        "| what | times | TFLOP each | peak memory GiB | seconds each |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        memory = f"{row['memory_gib']:.2f}" + "*" * (row["memory"] == "estimated")
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.3g}" + "*" * (row["time"] == "estimated")
        lines.append(f"| {row['name']} | {row['count']} | {row['tflop']:.3g} | {memory} | {seconds} |")
    return "\n".join(lines)


def _counted(call: Call, what: str) -> dict:
    with Meter() as meter, torch.set_grad_enabled(what == "train"):
        call.run()
    held = sum(p.numel() for p in call.models.parameters()) * 2
    if what == "train":
        # As the trainer holds them: float32 weights whose bfloat16 copies autocast makes; for what trains two moments,
        # the average and float32 gradients, of which the meter saw half.
        held *= 3
        held += sum(p.numel() for p in call.models.parameters() if p.requires_grad) * (4 * 3 + 2)
    return {
        "name": call.name,
        "count": call.count,
        "tflop": meter.cost.flops / 1e12,
        "memory_gib": (held + meter.cost.peak) / GIB,
        "memory": "estimated",
        "seconds": None,
        "time": "unknown",
    }


def _measured(call: Call, what: str) -> dict:
    device = next(call.models.parameters()).device
    cuda = device.type == "cuda"
    with torch.set_grad_enabled(what == "train"):
        call.run()  # kernels are chosen and the splat is built in the first
        if cuda:
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
        start = time.perf_counter()
        call.run()
        if cuda:
            torch.cuda.synchronize(device)
    found = {"seconds": time.perf_counter() - start, "time": "measured"}
    if cuda and what == "sample":  # in training the optimiser's share is not there to be measured
        found |= {"memory_gib": torch.cuda.max_memory_allocated(device) / GIB, "memory": "measured"}
    return found


def _device_name(device: str | None) -> str:
    if device is None:
        return "none"
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device}, {torch.get_num_threads()} threads"
