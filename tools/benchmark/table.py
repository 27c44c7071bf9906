"""The table of costs: each figure with how it came about."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mi2v_lite.training.curriculum import Config
from tools.benchmark.calls import Call, Clip, parts, sampling_calls, training_call
from tools.benchmark.fitting import LEFT_FREE
from tools.benchmark.meter import Meter, Resident

GIB = 2**30
MODES = ("sample", "train")
WARM_UP = 5.0  # seconds: in a first call longer than this, the choice of kernels does not count


def benchmark(
    config: Config, what: str, height: int, width: int, frames: int = 16, device: str | None = None,
    tflops: float | None = None,
) -> dict:  # fmt: skip
    """What one clip or one update of each step of the curriculum costs.

    Args:
        config: the curriculum. what: "sample" or "train". height, width, frames: of the clip, pixels.
        device: where to measure time and memory, in bfloat16; None estimates all.
        tflops: 10^12 operations a second that a device sustains, to estimate time where none is measured.

    Returns:
        `{"what", "size", "device", "parameters": {part: n}, "rows": [...]}`; a row has `name`, `count`, `tflop` of one
        call (counted), `memory_gib` and `seconds` of one call, `memory`, `time`: "measured", "estimated", or "unknown",
        and `estimated_gib`.

    Raises:
        ValueError: for another `what`.
    """
    if what not in MODES:
        raise ValueError(f"what is {what!r}, expected one of {MODES}.")
    train = what == "train"
    makers = [lambda clip, index=index: sampling_calls(config, clip)[index]() for index in range(4)]
    if train:
        makers = [lambda clip, step=step: training_call(config, step, clip) for step in config.steps]
    rows = []
    for make in makers:
        row = _counted(make(Clip(height, width, frames, "meta", torch.bfloat16)), train)
        if device is not None:
            # The trainer keeps weights in float32 and computes in bfloat16.
            real = Clip(height, width, frames, device, torch.float32 if train else torch.bfloat16)
            row |= _measured(lambda make=make, real=real: make(real), device, train)
        elif tflops:
            row |= {"seconds": row["tflop"] / tflops, "time": "estimated"}
        rows.append(row)
    return {"what": what, "size": [width, height, frames], "device": device_name(device), "parameters": parts(config),
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
        if row["memory"] == "measured":
            memory += f" (estimated {row['estimated_gib']:.2f})"
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.3g}" + "*" * (row["time"] == "estimated")
        lines.append(f"| {row['name']} | {row['count']} | {row['tflop']:.3g} | {memory} | {seconds} |")
    if report["what"] == "sample":
        lines.append(_one_clip(report["rows"]))
    return "\n".join(lines)


def _one_clip(rows: list[dict]) -> str:
    """The last line of sampling's table: all calls together."""
    tflop = sum(row["count"] * row["tflop"] for row in rows)
    memory = max(row["memory_gib"] for row in rows)
    times = [row["seconds"] for row in rows]
    seconds = "-" if None in times else f"{sum(row['count'] * row['seconds'] for row in rows):.3g}*"
    return f"| one clip | | {tflop:.4g} | {memory:.2f}* | {seconds} |"


def options_markdown(rows: list[dict]) -> str:
    """The rows of `fitting.sampling_memory` as a Markdown table."""
    card = rows[0]["card_gib"]
    lines = [
        f"The most that sampling holds, by its options, all estimated; fits: {LEFT_FREE:g} GiB of {card:g} stay free.",
        "",
        f"| options | peak memory GiB | where | fits {card:g} GiB |",
        "|---|---|---|---|",
    ]
    for row in rows:
        fits = "yes" if row["fits"] else "no"
        lines.append(f"| {row['name']} | {row['memory_gib']:.2f}* | {row['at']} | {fits} |")
    return "\n".join(lines)


def _counted(call: Call, train: bool) -> dict:
    with Meter() as meter, torch.set_grad_enabled(train):
        call.run()
    held = sum(p.numel() for p in call.models.parameters()) * 2
    if train:
        # As the trainer holds them: float32 weights whose bfloat16 copies autocast makes; for what trains the
        # optimiser's moments, the average and float32 gradients, of which the meter saw half.
        held *= 3
        held += sum(p.numel() for p in call.models.parameters() if p.requires_grad) * (call.moments + 4 + 2)
    memory = (held + meter.cost.peak) / GIB
    row = {"name": call.name, "count": call.count, "tflop": meter.cost.flops / 1e12, "memory_gib": memory}
    return row | {"memory": "estimated", "estimated_gib": memory, "seconds": None, "time": "unknown"}


def _measured(make: Callable[[], Call], device: str, train: bool) -> dict:
    """Time and memory of one call; after a first one, unless that is so long that a warm-up does not matter.

    On a CPU the time is the process's own, by its threads: what else the machine does then counts little.
    """
    cuda = torch.device(device).type == "cuda"
    resident = Resident()
    call = make()
    with torch.set_grad_enabled(train):
        for _ in range(2):
            resident.restart()
            if cuda:
                torch.cuda.synchronize(device)
                torch.cuda.reset_peak_memory_stats(device)
            clock, threads = (time.perf_counter, 1) if cuda else (time.process_time, torch.get_num_threads())
            start = clock()
            call.run()
            if cuda:
                torch.cuda.synchronize(device)
            seconds = (clock() - start) / threads
            if seconds > WARM_UP and not train:  # the optimiser makes its moments in the first update
                break
    found = {"seconds": seconds, "time": "measured"}
    peak = torch.cuda.max_memory_allocated(device) if cuda else resident.peak
    return found if peak is None else found | {"memory_gib": peak / GIB, "memory": "measured"}


def device_name(device: str | None) -> str:
    """What a person calls the device; "none" for None."""
    if device is None:
        return "none"
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{device}, {names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"
