"""The table of costs, which says of every figure whether it was measured or estimated."""

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
WARM_UP = 5.0  # seconds; a first call that takes longer needs no warm-up before it is timed


def benchmark(
    config: Config, what: str, height: int, width: int, frames: int = 16, device: str | None = None,
    tflops: float | None = None,
) -> dict:  # fmt: skip
    """Returns what one clip costs, or one update of each step of the curriculum.

    Args:
        config: the curriculum.
        what: "sample" or "train".
        height: of the clip in pixels.
        width: of the clip in pixels.
        frames: of the clip.
        device: where to measure time and memory, in bfloat16; None estimates everything.
        tflops: the 10^12 operations per second that a device sustains, to estimate the time where it is not measured.

    Returns:
        `{"what", "size", "device", "parameters": {part: n}, "rows": [...]}`. A row has the `name` and `count` of a
        call; for one call its `tflop` (counted), `memory_gib`, `estimated_gib` and `seconds`; in `memory` and `time`
        whether these are "measured", "estimated" or "unknown".

    Raises:
        ValueError: if `what` is anything else.
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
    """Writes the report as a Markdown table, with a star at what is estimated."""
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
    """Writes the last line of the table of sampling, for all calls together."""
    tflop = sum(row["count"] * row["tflop"] for row in rows)
    memory = max(row["memory_gib"] for row in rows)
    times = [row["seconds"] for row in rows]
    seconds = "-" if None in times else f"{sum(row['count'] * row['seconds'] for row in rows):.3g}*"
    return f"| one clip | | {tflop:.4g} | {memory:.2f}* | {seconds} |"


def options_markdown(rows: list[dict]) -> str:
    """Writes the rows of `fitting.sampling_memory` as a Markdown table."""
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
        # The trainer holds float32 weights, of which autocast makes bfloat16 copies, and for what trains also the
        # optimiser's moments, the average and float32 gradients, of which the meter saw half.
        held *= 3
        held += sum(p.numel() for p in call.models.parameters() if p.requires_grad) * (call.moments + 4 + 2)
    memory = (held + meter.cost.peak) / GIB
    row = {"name": call.name, "count": call.count, "tflop": meter.cost.flops / 1e12, "memory_gib": memory}
    return row | {"memory": "estimated", "estimated_gib": memory, "seconds": None, "time": "unknown"}


def _measured(make: Callable[[], Call], device: str, train: bool) -> dict:
    """Measures time and memory of one call, after a first one unless that took so long that a warm-up does not matter.

    On a CPU the time is the process's own, divided by its threads, so what else the machine does counts little.
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
            if seconds > WARM_UP and not train:  # the first update creates the optimiser's moments
                break
    measured = {"seconds": seconds, "time": "measured"}
    peak = torch.cuda.max_memory_allocated(device) if cuda else resident.peak
    return measured if peak is None else measured | {"memory_gib": peak / GIB, "memory": "measured"}


def device_name(device: str | None) -> str:
    """Returns the name of a device as people know it, or "none" for None."""
    if device is None:
        return "none"
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{device}, {names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"
