"""The check: does the package work on this device, and what does full scale cost there?

Full scale means the networks of `configs/full.yaml` with random weights, 512x320 pixels and 16 frames; with `toy`
everything is small, so that the same lines run on a CPU within a minute.
"""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

import mi2v_lite
from mi2v_lite.flow.warp import SplatOperator, splat_average
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.training.curriculum import Config, load_config
from tools.benchmark.calls import Clip, build, training_call
from tools.benchmark.meter import Meter
from tools.gpu.tasks import Rows, Task

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = Path(mi2v_lite.__file__).parent / "configs"
GIB = 2**30
TOY = {"block_out_channels": [32, 64], "layers_per_block": 1, "attention_levels": [True, False]}


def toy_config() -> Config:
    """The lite curriculum with yet smaller UNets."""
    config = load_config(CONFIGS / "lite.yaml")
    unets = {name: config.models[name] | TOY for name in ("stage1_unet", "stage2_unet")}
    return replace(config, models=config.models | unets)


def tasks(device: str, toy: bool) -> list[Task]:
    """All tasks, the most important first.

    Args:
        device: "cuda" or "cpu".
        toy: small sizes, for a dry run.
    """
    config = toy_config() if toy else load_config(CONFIGS / "full.yaml")
    height, width, frames = (64, 64, 4) if toy else (320, 512, 16)
    clip = Clip(height, width, frames, device, torch.bfloat16)
    steps = 2 if toy else 25
    sample = partial(sampling, config, clip, steps)
    backend = "eager" if toy else "inductor"  # which takes minutes on a CPU
    return [
        Task("matrix products", 10, partial(matrix_products, device, toy)),
        Task("tests on the device", 75, partial(device_tests, toy)),
        Task("one clip, bf16", 40, partial(sample, "bf16")),
        Task("an update of each step", 60, partial(updates, config, clip, toy)),
        Task("splat: reused operator and scatter", 10, partial(splats, device, toy)),
        Task("one clip, float32", 60, partial(sample, "float32", dtype=torch.float32)),
        Task("one clip, bf16, sliced and offloaded", 60, partial(sample, "bf16, offload and slicing", offload=True)),
        Task("one clip, bf16, torch.compile", 120, partial(sample, "bf16, torch.compile", backend=backend)),
    ]


def about(device: str) -> dict:
    """What the machine is."""
    facts = {"python": platform.python_version(), "torch": torch.__version__, "device": device}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / GIB, 1),
            "cuda": torch.version.cuda,
        }
    else:
        facts |= {"device": f"cpu, {platform.machine()}, {torch.get_num_threads()} threads"}
    return facts


def timed(run: Callable[[], object], device: str, least: float = 0.5) -> tuple[float, float]:
    """(seconds of one call after a first one, the most GiB that were allocated on the device meanwhile)."""
    run()
    cuda = device == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < least:
        run()
        calls += 1
        if cuda:
            torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / calls
    return seconds, torch.cuda.max_memory_allocated() / GIB if cuda else 0.0


@contextmanager
def fresh_memory(device: str) -> Iterator[None]:
    """Frees what the block has allocated, so that the next task's peak is its own."""
    try:
        yield
    finally:
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()


def matrix_products(device: str, toy: bool) -> Rows:
    """The rate of square matrix products: what the device sustains at best."""
    side, rows = 256 if toy else 8192, []
    for name, dtype, tf32 in (
        ("bf16", torch.bfloat16, False),
        ("float32", torch.float32, False),
        ("tf32", torch.float32, True),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        seconds, _ = timed(lambda a=a, b=b: a @ b, device)
        rows.append({"what": f"{side} x {side}, {name}", "seconds": seconds, "tflops": 2 * side**3 / seconds / 1e12})
    torch.backends.cuda.matmul.allow_tf32 = False
    return rows


def device_tests(toy: bool) -> Rows:
    """The tests marked `device`, in a process of their own.

    Raises:
        RuntimeError: if one of them fails; with the end of what pytest said.
    """
    words = [sys.executable, "-m", "pytest", "-q", "-m", "device", "tests/test_device.py"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    said = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()
    if done.returncode:
        raise RuntimeError("\n".join(said[-25:]))
    return [{"what": said[-1]}]


def pipeline(config: Config, clip: Clip) -> MotionI2VPipeline:
    """Both stages with random weights on the device; the text comes as embeddings."""
    models = {
        "vae": "image_vae",
        "flow_vae": "flow_vae",
        "motion_unet": "stage1_unet",
        "controlnet": "controlnet",
        "animation_unet": "stage2_unet",
    }
    parts: dict[str, nn.Module] = {}
    for part, name in models.items():
        # Unit flow needs more than the 8 bits of bfloat16: its autoencoder stays in float32.
        dtype = torch.float32 if part == "flow_vae" else clip.dtype
        parts[part] = build(config, name, replace(clip, dtype=dtype)).eval()
    settings = {key: value for key, value in config.pipeline.items() if key not in ("working_size", "detail")}
    pipe = MotionI2VPipeline(
        **parts, text_encoder=None, tokenizer=None, scheduler=DDIMScheduler(**config.noise), **settings
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sampling(
    config: Config,
    clip: Clip,
    steps: int,
    name: str,
    dtype: torch.dtype = torch.bfloat16,
    offload: bool = False,
    backend: str | None = None,
) -> Rows:
    """Seconds and memory of one clip: both stages with guidance and the decoders.

    Args:
        config: the curriculum, of which the networks are.
        clip: size and device.
        steps: of denoising, in each stage.
        name: what the row is called.
        dtype: of the weights.
        offload: one model at a time on the device, attention in slices, frames decoded one by one.
        backend: with which `torch.compile` compiles both UNets, each as one graph; None leaves them as they are.
    """
    clip = replace(clip, dtype=dtype)
    with fresh_memory(clip.device):
        pipe = pipeline(config, clip)
        if offload:
            pipe.enable_attention_slicing()
            pipe.vae.enable_slicing()
            pipe.flow_vae.enable_slicing()
            if clip.device == "cuda":
                pipe.enable_model_cpu_offload()
        if backend:
            for unet in (pipe.motion_unet, pipe.animation_unet):
                unet.compile(backend=backend, fullgraph=True)
        width = pipe.motion_unet.config.cross_attention_dim
        text = torch.zeros(1, 77, width, device=clip.device, dtype=dtype)
        image = torch.zeros(3, clip.height, clip.width)
        options = {
            "prompt_embeds": text,
            "negative_prompt_embeds": text,
            "num_inference_steps": steps,
            "guidance_scale": 7.0,
        }

        def stage1() -> Tensor:
            generator = torch.Generator(clip.device).manual_seed(0)
            return pipe.predict_motion(image, num_frames=clip.frames, generator=generator, **options).flow

        flow = torch.zeros(1, clip.frames - 1, 2, clip.height, clip.width)
        flow[:, :, 0] = torch.arange(1, clip.frames).view(1, -1, 1, 1)

        def stage2() -> Tensor:
            generator = torch.Generator(clip.device).manual_seed(0)
            return pipe.render(image, flow, generator=generator, detail="none", output_type="pt", **options).frames

        rows = []
        for stage, run in (("Stage 1", stage1), ("Stage 2", stage2)):
            seconds, memory = timed(run, clip.device, least=0.0)
            rows.append({"what": f"{stage}, {steps} steps, {name}", "seconds": seconds, "memory_gib": memory})
        return rows


def updates(config: Config, clip: Clip, toy: bool) -> Rows:
    """Seconds and memory of one update of each step of the curriculum, at the batch that the config says."""
    rows = []
    chosen = [step for step in config.steps if step.name in ("flow_vae", "stage1_single")] if toy else config.steps
    for step in chosen:
        if toy:
            step = replace(step, batch_size=1)
        with fresh_memory(clip.device), torch.enable_grad():
            call = training_call(config, step, replace(clip, dtype=torch.float32))
            seconds, memory = timed(call.run, clip.device)
            counted = training_call(config, step, replace(clip, device="meta"))
            with Meter() as meter:
                counted.run()
            tflop = meter.cost.flops / 1e12
            del call, counted
        rows.append({
            "what": f"{step.name}, batch {step.batch_size}", "seconds": seconds, "memory_gib": memory,
            "tflops": tflop / seconds,
        })  # fmt: skip
    return rows


def splats(device: str, toy: bool) -> Rows:
    """The warp of Stage 2's features by an operator that is built once, and by scattering in each call, as released."""
    shape = (4, 8, 8, 16) if toy else (15, 320, 40, 64)
    frames, channels, height, width = shape
    flow = 4 * torch.randn(1, frames, 2, height, width, device=device)
    features = torch.randn(1, channels, height, width, device=device)
    operator = SplatOperator(flow)
    spread = features.expand(frames, -1, -1, -1).contiguous()
    error = (operator(features)[0] - splat_average(spread, flow[0])[0]).abs().max().item()
    if error > 1e-3:
        raise RuntimeError(f"the operator and the scatter differ by {error:.2g}, expected at most 0.001")
    rows = []
    for name, run in {
        "operator, reused": lambda: operator(features),
        "operator, built and used": lambda: SplatOperator(flow)(features),
        "scatter in each call": lambda: splat_average(spread, flow[0]),
    }.items():
        seconds, memory = timed(run, device)
        rows.append(
            {"what": f"splat {frames}x{channels}x{height}x{width}, {name}", "seconds": seconds, "memory_gib": memory}
        )
    return rows
