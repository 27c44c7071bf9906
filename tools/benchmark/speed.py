"""How fast the package is on this machine, beside plain forms of the same computations and beside diffusers.

python -m tools.benchmark --what speed -o docs/performance.md

Every comparison is made by turns, ours and the other in each round (`tools.benchmark.turns`). The networks are those of
configs/full.yaml with random weights, on which the time does not depend.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import diffusers
import numpy as np
import torch
from diffusers import UNetMotionModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F

import mi2v_lite
from mi2v_lite.flow.splat_cache import SplatCache
from mi2v_lite.flow.warp import SplatOperator, splat_average
from mi2v_lite.importing.parts import shell
from mi2v_lite.models import cpu
from mi2v_lite.models.cpu import attend
from mi2v_lite.models.temporal import MotionModule
from mi2v_lite.models.unet import Block, Layer, VideoUNet
from mi2v_lite.training.curriculum import Config, load_config
from tools.benchmark.table import device_name
from tools.benchmark.turns import Pace, Worker, columns, in_turn, other_programs
from tools.gpu.tasks import Rows, Task

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = Path(mi2v_lite.__file__).parent / "configs"
LIMIT = 720.0  # seconds for all tasks
TOKENS = 77  # of the text
CLASSES = "AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNetMotionModel"
IMPORT = f"""
import time, torch, diffusers
from diffusers import {CLASSES}
start = time.perf_counter()
import mi2v_lite
mi2v_lite.MotionI2VPipeline, mi2v_lite.MotionControl
print(time.perf_counter() - start)
"""
TOY = {
    "block_out_channels": [32, 64], "layers_per_block": 1, "attention_levels": [True, False], "num_attention_heads": 2,
    "motion_num_attention_heads": 2, "cross_attention_dim": 32,
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """What is measured.

    Attributes:
        config: the curriculum, of which the UNets are.
        frames: of a clip, with the reference.
        side: height and width of the latents.
        splat: frames, channels, height and width of the splat that is measured alone.
        numbers: of frames, over which the cost is measured.
        sides: heights and widths of the latents, over which the cost is measured.
        matrix: side of the matrices whose product tells the machine's limit.
        words: of `mi2v animate`.
        pace: how long comparisons take.
    """

    config: Config
    frames: int
    side: int
    splat: tuple[int, int, int, int]
    numbers: tuple[int, ...]
    sides: tuple[tuple[int, int], ...]
    matrix: int
    words: tuple[str, ...]
    pace: Pace


def full_size() -> Size:
    """What the document measures."""
    sides = ((16, 16), (24, 24), (32, 32), (32, 48), (40, 64))
    config, numbers = load_config(CONFIGS / "full.yaml"), (4, 8, 12, 16)
    return Size(config, 16, 32, (15, 320, 40, 64), numbers, sides, 2048, ("--size", "512"), Pace())


def toy_size() -> Size:
    """The same at a small size, to see that every line runs."""
    config = load_config(CONFIGS / "full.yaml")
    models = config.models | {name: config.models[name] | TOY for name in ("stage1_unet", "stage2_unet")}
    words = ("--size", "64", "--frames", "3", "--steps", "1", "--seconds", "0.2")
    pace = Pace(rounds=2, seconds=0.0, call=0.0)
    return Size(replace(config, models=models), 4, 8, (3, 8, 8, 16), (2, 4), ((4, 4), (4, 8)), 64, words, pace)


def tasks(size: Size, only: Sequence[str] = ()) -> list[Task]:
    """Everything that is measured.

    Args:
        size: what `full_size` or `toy_size` returns.
        only: the names of some; by default all.

    Raises:
        ValueError: for a name that is none of them.
    """
    # The seconds are those of two quiet cores.
    measures = {
        "splat": (15, splat),
        "plain": (180, plain),
        "module": (20, module),
        "diffusers": (150, beside_diffusers),
        "animate": (40, animate),
        "import": (40, importing),
        "linear": (120, linear),
        "roofline": (30, roofline),
        "tried": (60, tried),
    }
    unknown = [name for name in only if name not in measures]
    if unknown:
        raise ValueError(f"--only {', '.join(unknown)}: expected some of {', '.join(measures)}.")
    return [
        Task(name, expected, partial(watched, partial(measure, size)))
        for name, (expected, measure) in measures.items()
        if not only or name in only
    ]


def about() -> dict[str, Any]:
    """What the machine is, and what it does when the measurement begins."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "cpu": device_name("cpu").split(", ")[1],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "environment": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "commit": commit.stdout.strip() or None,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def watched(measure: Callable[[], Rows]) -> Rows:
    """Adds to each row what other programs did meanwhile."""
    with other_programs() as told, torch.no_grad():
        torch.manual_seed(0)
        rows = measure()
    return [{**row, "load": told["load"], "others": told["others"]} for row in rows]


def row(what: str, against: str, asked: tuple[str, float] | None, values: list[float], unit: str, **more: Any) -> dict:
    """A row of the table.

    Args:
        what: is measured.
        against: what it is compared with.
        asked: "at least" or "at most", and the bound; None where nothing was asked for.
        values: one for each round.
        unit: of the values and the bound.
        more: columns that the JSON keeps.
    """
    middle = median(values)
    met = None if asked is None else middle >= asked[1] if asked[0] == "at least" else middle <= asked[1]
    bound = "" if asked is None else f"{asked[0]} {asked[1]:g}{unit}"
    told = {"kind": "asked", "what": what, "against": against, "asked": bound, "unit": unit, "met": met}
    spread = {"measured": middle, "lowest": min(values), "highest": max(values), "rounds": len(values)}
    return told | spread | more


def compared(what: str, against: str, asked: tuple[str, float], rounds: list[list[float]]) -> dict:
    """A row from rounds of (ours, the other): how often ours fits into the other, or "at most" the other way round."""
    values = [other / ours if asked[0] == "at least" else ours / other for ours, other in rounds]
    ours, other = columns(rounds)
    return row(what, against, asked, values, "x", ours=ours, other=other, seconds=rounds)


def with_numbers(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Gives a model from the meta device random numbers, a million of them again and again, which is quick."""
    model = nn.Module.to_empty(nn.Module.to(model, dtype), device="cpu").eval()
    some = 0.02 * torch.randn(2**20)
    for tensor in (*model.parameters(), *model.buffers()):
        for part in tensor.data.view(-1).split(len(some)):
            part.copy_(some[: len(part)])
    return model


def smooth_field(frames: int, height: int, width: int) -> Tensor:
    """A motion field of a few pixels that grows with time and is smooth, as those of photos are, `(1, N, 2, H, W)`."""
    coarse = 0.1 * min(height, width) * torch.randn(1, 2, 4, 5)
    field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    return field[:, None] * torch.linspace(1 / frames, 1, frames).view(1, -1, 1, 1, 1)


def network(size: Size, name: str, dtype: torch.dtype, plainly: bool = False) -> Callable[..., Tensor]:
    """A UNet with what it needs for one call.

    Args:
        size: of the UNet and of the latents.
        name: "stage1_unet", "stage2_unet" or "diffusers", which is `UNetMotionModel` of the same size.
        dtype: of the weights.
        plainly: without fused attention, and with the warp as scattering in each call.

    Returns:
        a function of the frames and the latents' height and width, by default those of `size`; the motion field and its
        operators are made in its first call and then kept.
    """
    unet, kept = with_numbers(_shell(size.config, name), dtype), {}
    if plainly:
        for attention in unet.modules():
            if isinstance(attention, Attention):
                attention.set_processor(AttnProcessor())

    def call(frames: int = size.frames, height: int = size.side, width: int = size.side) -> Tensor:
        if (frames, height, width) not in kept:
            sample = torch.randn(1, unet.config.in_channels, frames, height, width).to(dtype)
            more: dict[str, Any] = {
                "encoder_hidden_states": torch.randn(1, TOKENS, unet.config.cross_attention_dim).to(dtype)
            }
            if name == "stage1_unet":
                more["stride"] = 8 * torch.arange(frames)[None]
            elif name == "stage2_unet":
                field = smooth_field(frames - 1, 8 * height, 8 * width)
                # The release pairs the items of a batch in its own way; with a single one that is its plain warp.
                more["flow"] = SplatCache(field, official_batch_quirk=plainly)
            else:
                # It wants the text of each frame.
                text = more["encoder_hidden_states"].expand(frames, -1, -1)
                more |= {"encoder_hidden_states": text, "return_dict": False}
            kept[frames, height, width] = sample, more
        sample, more = kept[frames, height, width]
        output = unet(sample, 500, **more)
        return output[0] if name == "diffusers" else output

    call.parameters = sum(parameter.numel() for parameter in unet.parameters())
    return call


def _shell(config: Config, name: str) -> nn.Module:
    """A UNet on the meta device."""
    if name != "diffusers":
        return shell(config, name)
    entry = config.models["stage2_unet"]
    spatial = entry["attention_levels"]
    down = ["CrossAttnDownBlockMotion" if level else "DownBlockMotion" for level in spatial]
    up = ["CrossAttnUpBlockMotion" if level else "UpBlockMotion" for level in reversed(spatial)]
    shared = ("block_out_channels", "layers_per_block", "norm_num_groups", "cross_attention_dim", "num_attention_heads",
              "motion_num_attention_heads")  # fmt: skip
    with torch.device("meta"):
        return UNetMotionModel(
            in_channels=entry["in_channels"],
            out_channels=entry["out_channels"],
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            motion_max_seq_length=entry["motion_max_length"],
            **{key: entry[key] for key in shared},
        )


def splat(size: Size) -> Rows:
    """The operator, built once, beside scattering in each call."""
    frames, channels, height, width = size.splat
    flow, features = smooth_field(frames, height, width), torch.randn(1, channels, height, width)
    operator = SplatOperator(flow)

    def scatter() -> Tensor:
        return splat_average(features.repeat(frames, 1, 1, 1), flow[0])[0]

    error = (operator(features)[0] - scatter()).abs().max().item()
    if error > 1e-3:
        raise RuntimeError(f"the operator and the scatter differ by {error:.2g}, expected at most 0.001")
    rounds = in_turn(size.pace, lambda: operator(features), scatter)
    what = f"splat of {frames}x{channels}x{height}x{width}, operator reused"
    return [compared(what, "scatter in each call, as the release does", ("at least", 8.0), rounds)]


def plain(size: Size) -> Rows:
    """Stage 2 as the package runs it and in its plain form, each in a process of its own."""
    ours = Worker(partial(network, size, "stage2_unet", torch.bfloat16))
    other = Worker(partial(network, size, "stage2_unet", torch.float32, plainly=True))
    rounds = in_turn(size.pace, ours, other)
    peaks = ours.close(), other.close()
    what = f"Stage 2 UNet, a forward, {size.frames} frames, {size.side}x{size.side} latents, bf16"
    against = "float32, unfused attention, scatter in each call"
    rows = [compared(what, against, ("at least", 3.5), rounds)]
    if None not in peaks:
        share = [peaks[0] / peaks[1]]
        memory = f"{what}, the most memory of its process"
        rows.append(row(memory, against, ("at most", 0.6), share, "x", ours_gib=peaks[0], other_gib=peaks[1]))
    return rows


def module(size: Size) -> Rows:
    """A motion module of the highest resolution, with and without the warped features."""
    entry = size.config.models["stage2_unet"]
    channels, side, frames = entry["block_out_channels"][0], size.side, size.frames
    with torch.device("meta"):
        made = MotionModule(
            channels,
            heads=entry["motion_num_attention_heads"],
            max_length=entry["motion_max_length"],
            fusion="attention",
        )
    layer = with_numbers(made, torch.bfloat16)
    x = torch.randn(frames, channels, side, side).bfloat16()
    motion = SplatCache(smooth_field(frames - 1, 8 * side, 8 * side))
    rounds = in_turn(size.pace, lambda: layer(x, frames, motion), lambda: layer(x, frames))
    what = f"motion-augmented module, {channels} channels, {frames} frames, {side}x{side}, bf16"
    return [compared(what, "the same without warping", ("at most", 1.3), rounds)]


def beside_diffusers(size: Size) -> Rows:
    """Both UNets beside diffusers' of the same size."""
    names = ("stage1_unet", "stage2_unet", "diffusers")
    runs = {name: network(size, name, torch.bfloat16) for name in names}
    rounds = in_turn(size.pace, *runs.values())
    rows = []
    for index, (name, most) in enumerate((("stage1_unet", 1.1), ("stage2_unet", 1.3))):
        counts = [f"{runs[each].parameters / 1e6:.1f} M" for each in (name, "diffusers")]
        what = f"Stage {index + 1} UNet, {counts[0]} parameters, a forward, {size.frames} frames, "
        what += f"{size.side}x{size.side} latents, bf16"
        pairs = [[seconds[index], seconds[2]] for seconds in rounds]
        rows.append(compared(what, f"diffusers' UNetMotionModel, {counts[1]}, bf16", ("at most", most), pairs))
    return rows


def animate(size: Size) -> Rows:
    """A photo becomes a clip, each time in a new process."""
    photo, prompt = ROOT / "data_samples" / "photos" / "astronaut.jpg", "the camera pans left quickly"
    whole, sampling = [], []
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "mi2v_lite.cli", "animate", str(photo), "--prompt", prompt, "--seed", "0", *size.words]
        for number in range(size.pace.rounds):
            with other_programs() as told:
                said = _python(*words, "-o", f"{folder}/{number}.mp4")
            whole.append(told["seconds"])
            sampling.append(float(re.search(r"sampling ([\d.]+) s", said)[1]))
    what = f"`mi2v animate`, a new process, photo of 512 px to clip ({' '.join(size.words)})"
    return [
        row(what, "-", ("at most", 12.0), whole, " s"),
        row("of it sampling, with the decoding", "-", ("at most", 4.0), sampling, " s"),
    ]


def importing(size: Size) -> Rows:
    """What `import mi2v_lite` takes after torch and diffusers."""
    values = [float(_python("-c", IMPORT)) for _ in range(size.pace.rounds)]
    what = "`import mi2v_lite` with MotionI2VPipeline and MotionControl"
    return [row(what, f"after torch and diffusers ({CLASSES})", ("at most", 0.3), values, " s")]


def _python(*words: str) -> str:
    """Runs Python in a new process and returns what it printed.

    Raises:
        RuntimeError: if it failed, with the end of its errors.
    """
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


def linear(size: Size) -> Rows:
    """The cost of Stage 2 against frames, pixels and steps, beside a straight line."""
    unet = network(size, "stage2_unet", torch.bfloat16)
    short, few, side = size.frames // 2, size.numbers[0], size.sides[0]
    pipe = mi2v_lite.MotionI2VPipeline.from_lite(detail="none")
    pipe.set_progress_bar_config(disable=True)
    photo, flow = torch.zeros(3, 128, 128), smooth_field(15, 128, 128)

    def steps(count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        pipe.render(photo, flow, output_type="latent", num_inference_steps=count, generator=generator)

    height, width = side
    cases: list[tuple[str, str, dict[int, Callable[[], object]]]] = [
        ("frames", f"full-size Stage 2 UNet, {height}x{width} latents, bf16",
         {number: partial(unet, number, height, width) for number in size.numbers}),
        ("positions of the latents", f"full-size Stage 2 UNet, {few} frames, bf16",
         {h * w: partial(unet, few, h, w) for h, w in size.sides}),
        ("steps", "the lite Stage 2's sampling loop, 16 frames of 128x128 pixels, float32",
         {count: partial(steps, count) for count in (1, 2, 4, 8)[:short]}),
    ]  # fmt: skip
    rows = []
    for name, where, runs in cases:
        rounds = in_turn(replace(size.pace, call=0.0), *runs.values())
        numbers, times = np.array(list(runs), dtype=float), np.array(columns(rounds))
        slope, fixed = fitted(numbers, times)
        off = 100 * np.abs(times / (fixed + slope * numbers) - 1)
        more = {
            "numbers": list(runs), "times": times.tolist(), "slope": slope, "fixed": fixed, "of": name,
            "seconds": rounds,
        }  # fmt: skip
        made = row(f"cost against {name}: {where}", "a straight line", ("at most", 10.0), [float(off.max())], " %")
        rows.append({**made, "rounds": len(rounds), **more})
    return rows


def fitted(numbers: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """The straight line of the smallest relative errors: seconds for one more, and seconds that are always there."""
    matrix = np.stack([numbers, np.ones_like(numbers)], axis=1) / times[:, None]
    slope, fixed = np.linalg.lstsq(matrix, np.ones_like(times), rcond=None)[0]
    return float(slope), float(fixed)


def roofline(size: Size) -> Rows:
    """What the main parts of the Stage 2 UNet reach, beside what the machine's cores and its memory allow."""
    entry = size.config.models["stage2_unet"]
    frames, side, heads = size.frames, size.side, entry["num_attention_heads"]
    narrow, wide = entry["block_out_channels"][0], entry["block_out_channels"][-1]
    low = max(1, side // 2 ** (len(entry["block_out_channels"]) - 1))
    pixels, bf16 = side * side, torch.bfloat16

    def noise(*shape: int, dtype: torch.dtype = bf16) -> Tensor:
        return torch.randn(shape).to(dtype)

    square = {
        dtype: [noise(size.matrix, size.matrix, dtype=dtype) for _ in range(2)] for dtype in (bf16, torch.float32)
    }
    source = torch.ones(32 * size.matrix**2 // 2)  # 256 MiB at full size, which no cache holds
    target = torch.empty_like(source)
    # (name, its operations, the bytes that must be read and written at least, the computation)
    parts: list[tuple[str, float, float, Callable[[], object]]] = []
    for dtype, (a, b) in square.items():
        name = f"matrix product, {size.matrix}x{size.matrix}, {'bf16' if dtype == bf16 else 'float32'}"
        parts.append((name, 2.0 * size.matrix**3, 3.0 * a.nbytes, partial(torch.matmul, a, b)))
    parts.append(("copy in memory, float32", 0.0, 2.0 * source.nbytes, lambda: target.copy_(source)))
    for channels, edge in ((narrow, side), (wide, low)):
        layer, x = nn.Conv2d(channels, channels, 3, padding=1).to(bf16), noise(frames, channels, edge, edge)
        flops = 2.0 * 9 * channels**2 * frames * edge**2
        moved = 2.0 * x.nbytes + layer.weight.nbytes
        parts.append((f"convolution 3x3, {channels} channels, {edge}x{edge}, bf16", flops, moved, partial(layer, x)))
    for name, batch, queries, entries in (
        (f"attention in space, {pixels} positions, bf16", frames, pixels, pixels),
        (f"attention over time, {frames} frames beside {2 * frames - 1} entries, bf16", pixels, frames, 2 * frames - 1),
    ):
        q = noise(batch * heads, queries, narrow // heads)
        k, v = (noise(batch * heads, entries, narrow // heads) for _ in range(2))
        flops = 4.0 * batch * queries * entries * narrow
        run = partial(attend, q, k, v)
        parts.append((name, flops, 2.0 * (q.nbytes + k.nbytes), run))
    linear, z = nn.Linear(narrow, 8 * narrow).to(bf16), noise(frames * pixels, narrow)
    name = f"feed-forward's matrix product, {frames * pixels}x{narrow}x{8 * narrow}, bf16"
    moved = 9.0 * z.nbytes + linear.weight.nbytes
    parts.append((name, 2.0 * z.numel() * 8 * narrow, moved, partial(linear, z)))
    norm, x = nn.GroupNorm(entry["norm_num_groups"], narrow).to(bf16), noise(frames, narrow, side, side)
    parts.append(("group norm and SiLU, bf16", 10.0 * x.numel(), 2.0 * x.nbytes, lambda: F.silu(norm(x))))
    operator = SplatOperator(smooth_field(frames - 1, side, side))
    features = noise(1, narrow, side, side, dtype=torch.float32)
    entries = len(operator._rows.values)
    moved = frames * features.nbytes + 12.0 * entries
    name = f"splat to {frames - 1} frames, {narrow} channels, {side}x{side}, float32"
    parts.append((name, 2.0 * entries * narrow, moved, lambda: operator(features)))

    rounds = in_turn(size.pace, *(run for *_, run in parts))
    times = columns(rounds)
    rates = [flops / time for (_, flops, _, _), time in zip(parts, times, strict=True)]
    peaks: dict[str, float] = {}
    for (name, *_), rate in zip(parts, rates, strict=True):
        precision = name.rsplit(", ", 1)[1]
        peaks[precision] = max(rate, peaks.get(precision, 0.0))
    bandwidth = parts[2][2] / times[2]
    rows = []
    for (name, flops, moved, _), time, rate in zip(parts, times, rates, strict=True):
        compute, memory = flops / peaks[name.rsplit(", ", 1)[1]], moved / bandwidth  # seconds that the limits allow
        rows.append({
            "kind": "roofline", "what": name, "time": time, "gflops": rate / 1e9, "gbytes": moved / time / 1e9,
            "operations_a_byte": flops / moved, "limit": "cores" if compute > memory else "memory",
            "share": max(compute, memory) / time, "rounds": len(rounds),
        })  # fmt: skip
    return rows


def tried(size: Size) -> Rows:
    """What could be faster than what the package does, each beside it."""
    rows = [*_tried_splats(size), *_tried_forward(size), *_tried_layers(size), *_tried_attention(size),
            *_tried_convolution(size), *_tried_lite(size)]  # fmt: skip
    return [{"kind": "tried", **made} for made in rows]


def _tried(what: str, instead: str, rounds: list[list[float]]) -> dict:
    """A row from rounds of (what the package does, what was tried)."""
    values = [other / ours for ours, other in rounds]
    ours, other = columns(rounds)
    return {"what": what, "against": instead, "measured": median(values), "lowest": min(values), "highest": max(values),
            "rounds": len(rounds), "ours": ours, "other": other}  # fmt: skip


def _tried_splats(size: Size) -> Rows:
    frames, channels, height, width = size.splat
    flow, features = smooth_field(frames, height, width), torch.randn(1, channels, height, width)
    operator, spread = SplatOperator(flow), features.repeat(frames, 1, 1, 1)
    starts, columns_, values = operator._rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sparse tensors are in beta
        matrix = torch.sparse_csr_tensor(starts, columns_, values, (frames * height * width, height * width))

    def sparse() -> Tensor:
        dense = features.permute(0, 2, 3, 1).reshape(height * width, channels)
        return (matrix @ dense).view(1, frames, height, width, -1).permute(0, 1, 4, 2, 3)

    torch.testing.assert_close(sparse(), operator(features), rtol=1e-4, atol=1e-4)
    rounds = in_turn(size.pace, lambda: operator(features), sparse, lambda: SplatOperator(flow)(features),
                     lambda: splat_average(spread, flow[0]))  # fmt: skip
    product = f"splat of {frames}x{channels}x{height}x{width}, the product with a kept matrix as an embedding bag"
    names = (
        "the product by torch.sparse (CSR)",
        "the matrix built anew for each product",
        "scattering, features repeated beforehand",
    )
    return [_tried(name, product, [[s[0], s[index]] for s in rounds]) for index, name in enumerate(names, start=1)]


def _tried_forward(size: Size) -> Rows:
    """The Stage 2 UNet with all its features at once, where it works on slices of them that fit into the cache."""
    forward = network(size, "stage2_unet", torch.bfloat16)

    def whole() -> Tensor:
        with patch.object(cpu, "FEATURES", 2**62):
            return forward()

    rounds = in_turn(size.pace, forward, whole)
    used = f"Stage 2 UNet, a forward, {size.frames} frames, {size.side}x{size.side} latents, bf16, features in slices"
    return [_tried("all features at once", used, rounds)]


def _tried_layers(size: Size) -> Rows:
    """Other forms of the first layer of the Stage 2 UNet."""
    entry = {key: value for key, value in size.config.models["stage2_unet"].items() if key != "kind"}
    channels, frames, side = entry["block_out_channels"][0], size.frames, size.side
    with torch.device("meta"):
        settings = dict(VideoUNet(**entry).config)
    motion = SplatCache(smooth_field(frames - 1, 8 * side, 8 * side))

    def layer(
        change: Callable[[Block], object], dtype: torch.dtype = torch.bfloat16, last: bool = False
    ) -> Callable[[], Tensor]:
        with torch.device("meta"):
            made = Block(Layer(settings), [(channels, channels)], attention=True, motion_modules=True)
        block = with_numbers(made, dtype)
        change(block)
        x = torch.randn(frames, channels, side, side).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last) if last else x
        emb, text = (
            torch.randn(frames, 4 * channels).to(dtype),
            torch.randn(frames, TOKENS, entry["cross_attention_dim"]),
        )
        return partial(block.layer, 0, x, emb, text.to(dtype), frames, motion)

    def fused(block: Block) -> None:
        for attention in block.modules():
            if isinstance(attention, Attention):
                attention.set_processor(AttnProcessor2_0())

    def sliced(block: Block) -> None:
        for part in block.modules():
            if hasattr(part, "slice_size"):
                part.slice_size = 512

    as_it_is = layer(lambda block: None)
    last = layer(lambda block: block.to(memory_format=torch.channels_last), last=True)
    cast = layer(lambda block: None, torch.float32)

    def autocast() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return cast()

    forms = {
        "channels-last convolutions": last,
        "float32 weights under autocast to bf16": autocast,
        "the fused kernel for attention in space and over time": layer(fused),
        "512 feature pixels at a time (attention slicing, which saves memory)": layer(sliced),
    }
    rounds = in_turn(size.pace, as_it_is, *forms.values())
    used = f"first layer of the Stage 2 UNet, {frames} frames, {side}x{side}, bf16 weights"
    return [_tried(name, used, [[s[0], s[index]] for s in rounds]) for index, name in enumerate(forms, start=1)]


def _tried_attention(size: Size) -> Rows:
    """Other forms of the attention in space of the Stage 2 UNet at its highest resolution, for two frames."""
    entry, positions = size.config.models["stage2_unet"], size.side**2
    heads, width = entry["num_attention_heads"], entry["block_out_channels"][0] // entry["num_attention_heads"]
    q, k, v = (torch.randn(2, heads, positions, width).bfloat16() for _ in range(3))
    wide, flat = [F.pad(x, (0, -width % 64)) for x in (q, k, v)], [x.flatten(0, 1) for x in (q, k, v)]
    forms = {
        "the fused kernel": partial(F.scaled_dot_product_attention, q, k, v),
        "the fused kernel, heads padded to a multiple of 64 numbers": partial(
            F.scaled_dot_product_attention, *wide, scale=width**-0.5
        ),
        "the scores of all heads at once": lambda: torch.bmm((flat[0] @ flat[1].mT * width**-0.5).softmax(-1), flat[2]),
    }
    rounds = in_turn(size.pace, lambda: attend(*flat), *forms.values())
    used = f"attention in space, 2 frames, {positions} positions, bf16, some heads at a time"
    return [_tried(name, used, [[s[0], s[index]] for s in rounds]) for index, name in enumerate(forms, start=1)]


def _tried_convolution(size: Size) -> Rows:
    """The convolutions of the Stage 2 UNet at its second lowest resolution as one matrix product."""
    channels, side = size.config.models["stage2_unet"]["block_out_channels"][-1], max(1, size.side // 4)
    layer, x = nn.Conv2d(channels, channels, 3, padding=1).bfloat16(), torch.randn(size.frames, channels, side, side)
    x, weight = x.bfloat16(), layer.weight.flatten(1)

    def product() -> Tensor:
        rows = F.unfold(x, 3, padding=1).mT.reshape(-1, weight.shape[1])  # (frames * side * side, 9 * channels)
        return F.linear(rows, weight, layer.bias).view(len(x), -1, channels).mT.reshape(x.shape)

    rounds = in_turn(size.pace, partial(layer, x), product)
    return [_tried("one matrix product over unfolded patches", f"convolution 3x3, {channels} channels, {side}x{side}, "
                   "bf16", rounds)]  # fmt: skip


def _tried_lite(size: Size) -> Rows:
    """The lite networks in bf16."""
    lite = replace(size, config=load_config(CONFIGS / "lite.yaml"), side=size.side // 2)
    runs = [network(lite, "stage2_unet", dtype) for dtype in (torch.float32, torch.bfloat16)]
    rounds = in_turn(size.pace, *runs)
    used = f"the lite Stage 2 UNet, a forward, {lite.frames} frames, {lite.side}x{lite.side} latents, float32"
    return [_tried("bf16 weights", used, rounds)]
