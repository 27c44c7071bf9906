"""The most memory that sampling holds at once, depending on the options that lower it (notebook 06).

    pipe = MotionI2VPipeline.from_pretrained(folder, dtype={"default": torch.bfloat16, "flow_vae": torch.float32})
    pipe.enable_model_cpu_offload()      # instead of .to("cuda"): one UNet at a time
    pipe.vae.enable_slicing()            # frames are decoded one by one
    pipe.flow_vae.enable_slicing()
    pipe.enable_attention_slicing()      # some pixels at a time

Everything here is counted and nothing is measured. The flow autoencoder stays in float32, since bfloat16 has steps of
1/256 in the range of unit flow, which are two pixels of 512.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from mi2v_lite.models.autoencoder import PatchAutoencoderKL
from mi2v_lite.training.curriculum import Config
from tools.benchmark.calls import Clip, parts, sampling_calls
from tools.benchmark.meter import Meter

# The models on the device during each call of `sampling_calls` when models are offloaded. Accelerate's hooks leave a
# model there until the next one of the pipeline's `model_cpu_offload_seq` is called or the stage ends.
OFFLOADED = (
    ("motion_unet", "controlnet"),
    ("animation_unet", "vae"),
    ("motion_unet", "controlnet", "flow_vae"),
    ("animation_unet", "vae"),
)
LEFT_FREE = 1.0  # GiB, a guess at what the driver, its context and the gaps of the allocator take


@dataclass(frozen=True)
class Options:
    """How to sample.

    Attributes:
        bf16: weights in bfloat16, except for the flow autoencoder's.
        offload: only the models of the present call on the device.
        vae_slicing: frames decoded one by one.
        vae_tiling: frames decoded in tiles.
        attention_slice: the `slice_size` of the attention.
    """

    bf16: bool = False
    offload: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    attention_slice: int | str | None = None


ON_TOP = (
    ("VAE slicing", {"vae_slicing": True}),
    ("VAE tiling", {"vae_tiling": True}),
    ("attention slicing", {"attention_slice": "auto"}),
)


def ladder() -> dict[str, Options]:
    """Returns the options by name, each added to those before, first with all models on the device, then offloaded."""
    rungs = {"float32": Options()}
    for start, options in {
        "bf16": Options(bf16=True),
        "bf16, model offload": Options(bf16=True, offload=True),
    }.items():
        rungs[start] = options
        for name, change in ON_TOP:
            options = replace(options, **change)
            start += f", {name}"
            rungs[start] = options
    return rungs


def sampling_memory(config: Config, height: int, width: int, frames: int = 16, card_gib: float = 8.0) -> list[dict]:
    """Counts the most memory that sampling holds, for each rung of the ladder.

    Args:
        config: the curriculum.
        height: of the clip in pixels.
        width: of the clip in pixels.
        frames: of the clip.
        card_gib: the memory of the device in GiB.

    Returns:
        rows with `name`, `memory_gib`, `at` (the call that needs most) and `fits` (whether `LEFT_FREE` stays free).
    """
    counts, peaks = parts(config), {}
    rows = []
    for name, options in ladder().items():
        needs = {}
        for index, resident in enumerate(OFFLOADED):
            key = (index, *_relevant(options, index))
            if key not in peaks:
                peaks[key] = _peak(config, Clip(height, width, frames, "meta", torch.bfloat16), index, options)
            call, peak = peaks[key]
            held = sum(counts[part] * _width(part, options) for part in (resident if options.offload else counts))
            needs[call] = (held + peak) / 2**30
        worst = max(needs, key=needs.get)
        fits = needs[worst] + LEFT_FREE <= card_gib
        rows.append({"name": name, "memory_gib": needs[worst], "at": worst, "card_gib": card_gib, "fits": fits})
    return rows


def _width(part: str, options: Options) -> int:
    return 2 if options.bf16 and part != "flow_vae" else 4


def _relevant(options: Options, index: int) -> tuple:
    """The options that change what a call of `sampling_calls` holds beside the weights."""
    unet = index < 2
    return (options.bf16, options.attention_slice) if unet else (options.bf16, options.vae_slicing, options.vae_tiling)


def _peak(config: Config, clip: Clip, index: int, options: Options) -> tuple[str, int]:
    """The name of a call and the bytes that it holds beside the weights."""
    precise = not options.bf16 or index == 2  # the third call decodes the motion
    call = sampling_calls(config, replace(clip, dtype=torch.float32 if precise else torch.bfloat16))[index]()
    for model in call.models.values():
        if index < 2:
            model.set_attention_slice(options.attention_slice)
            continue
        model.use_slicing = options.vae_slicing
        if options.vae_tiling and not isinstance(model, PatchAutoencoderKL):  # which has no tiling
            model.enable_tiling()
    with Meter() as meter, torch.no_grad():
        call.run()
    return call.name, meter.cost.peak
