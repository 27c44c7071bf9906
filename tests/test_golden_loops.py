"""Parity with the release of what the pipelines do: sampling loops, first frame, brush, guidance, the whole chain.

Configs, scheduler, sizes, steps, names of runs and weights come from the sidecars, so any such folder does.
Bound: 10 times the tensor's `backend_noise` (what two legitimate float32 runs of the release differ by), at least 1e-5.
"""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from golden_io import Golden, read_info, read_tensors

from mi2v_lite import control
from mi2v_lite.importing.official import controlnet_from_official, unet_from_official, vae_from_official
from mi2v_lite.models import autoencoder
from mi2v_lite.pipelines import AnimationPipeline, MotionFieldPipeline

QUIRK = "_official_batch_quirk"
# The release's sampler, for sidecars that do not repeat it; those of the loops do.
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "set_alpha_to_one": True,
    "steps_offset": 1,
    "clip_sample": False,
}


@cache
def model(folder: Path, name: str, role: str, quirk: bool = False):
    """One model of a weights file, built from the config in the weights' sidecar."""
    config, state = read_info(folder, name)["config"], read_tensors(folder, name)
    if role.endswith("vae"):
        return vae_from_official(config, state).eval()
    if role == "controlnet":
        return controlnet_from_official(config, state).eval()
    stage = 1 if role == "stage1_unet" else 2
    return unet_from_official(config, state, stage=stage, official_batch_quirk=quirk).eval()


class Case(Golden):
    """One golden file with the pipelines of the models it names."""

    def model(self, role: str, quirk: bool = False):
        return model(self.folder, self.weights_name(role), role, quirk)

    def scheduler(self) -> DDIMScheduler:
        given = {key.removeprefix("effective_"): value for key, value in self.info.get("scheduler", {}).items()}
        assert given.pop("type", "DDIM") == "DDIM" and given.pop("eta", 0.0) == 0.0
        return DDIMScheduler(**SCHEDULER | given)

    def motion_field(self) -> MotionFieldPipeline:
        pipe = MotionFieldPipeline(
            vae=self.model("image_vae"),
            flow_vae=self.model("flow_vae"),
            text_encoder=None,
            tokenizer=None,
            unet=self.model("stage1_unet"),
            controlnet=self.model("controlnet"),
            scheduler=self.scheduler(),
            stage1_image_range="unit",
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def animation(self, quirk: bool) -> AnimationPipeline:
        pipe = AnimationPipeline(
            vae=self.model("image_vae"),
            text_encoder=None,
            tokenizer=None,
            unet=self.model("stage2_unet", quirk),
            scheduler=self.scheduler(),
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def prompts(self) -> dict[str, torch.Tensor]:
        return {
            "prompt_embeds": self["positive_embedding"],
            "negative_prompt_embeds": self["negative_embedding"],
            "num_inference_steps": self.info["num_inference_steps"],
        }

    def runs(self) -> list[str]:
        suffix = ".latents_per_step"
        found = [key.removesuffix(suffix) for key in self.tensors if key.endswith(suffix)]
        return found or pytest.skip("no run of this loop is in this golden folder")

    def kept_of_video(self) -> tuple[list[int], int]:
        """Which frames and which rows and columns (every how many) of a video `video_part` has."""
        frames = re.search(r"\[(\d+(?:,\s*\d+)+)\]", self.info["tensors"]["video_part"]["meaning"])[1]
        return [int(i) for i in frames.split(",")], self.info["height"] // self["video_part"].shape[-2]


class Recorder:
    """`callback_on_step_end` that keeps the latents after every step."""

    def __init__(self):
        self.latents: list[torch.Tensor] = []

    def __call__(self, _pipe, _step, _timestep, tensors: dict) -> dict:
        self.latents.append(tensors["latents"].clone())
        return {}

    def stacked(self) -> torch.Tensor:
        """(steps, C, F, h, w)."""
        return torch.cat(self.latents)


@pytest.fixture
def case(golden_dir):
    return lambda name: Case(golden_dir, name)


@pytest.mark.parametrize("name", ["pipeline_stage1", "pipeline_stage2"])
def test_schedule(case, name):
    golden = case(name)
    scheduler = golden.scheduler()
    scheduler.set_timesteps(golden.info["num_inference_steps"])
    assert scheduler.timesteps.tolist() == golden["timesteps"].tolist()
    for key in golden.tensors:
        if found := re.fullmatch(r"timesteps_(\d+)", key):
            scheduler.set_timesteps(int(found[1]))
            assert scheduler.timesteps.tolist() == golden[key].tolist()
    if "alphas_cumprod" in golden:
        golden.close("alphas_cumprod", scheduler.alphas_cumprod)


# Equation: sampling
def test_stage1_loop(case):
    golden = case("pipeline_stage1")
    runs, pipe = golden.runs(), golden.motion_field()
    image = 2 * golden["first_frame"] - 1  # the release gives Stage 1 pixels in [0, 1]
    golden.close("image_latent", pipe.encode_image(image[None]))
    for run in runs:
        steps = Recorder()
        latents = pipe(
            image,
            **golden.prompts(),
            condition=golden["control"] if run.startswith("control") else None,
            num_frames=golden["initial_latents"].shape[2] + 1,
            stride=golden["stride"],
            guidance_scale=golden.info["runs"][run]["guidance_scale"],
            latents=golden["initial_latents"][:, : pipe.unet.config.out_channels],
            callback_on_step_end=steps,
            output_type="latent",
        ).flow
        golden.close(f"{run}.latents_per_step", steps.stacked())
        assert torch.equal(latents[0], steps.latents[-1][0])
        if f"{run}.videos" in golden:
            with torch.no_grad():
                golden.close(f"{run}.videos", pipe.decode_flow(latents).transpose(1, 2))


# Equation: brush, guidance
def test_stage2_loop(case):
    golden = case("pipeline_stage2")
    noise = golden["initial_latents"]
    with torch.no_grad():
        golden.close("image_latent", autoencoder.encode(golden.model("image_vae"), golden["first_frame"][None]))
    for run in golden.runs():
        pipe = golden.animation(quirk=run.endswith(QUIRK))
        steps = Recorder()
        frames = pipe(
            golden["first_frame"],
            golden["flow_pre"][1:],  # the release puts a zero field for frame 0 in front
            **golden.prompts(),
            brush=golden["brush_mask"][0] == 0 if run.startswith("brush") else None,
            guidance_scale=golden.info["guidance_scale"],
            latents=noise,
            callback_on_step_end=steps,
            output_type="pt",
        ).frames
        golden.close(f"{run}.latents_per_step", steps.stacked())
        if run.startswith("brush"):  # where nothing was painted, the photo, as noisy as the next step expects it
            photos = golden["image_latent"][:, :, None].expand_as(noise)
            still = golden["brush_mask_latent"].bool().expand_as(noise[:, :, 1:])
            for latents, timestep in zip(steps.latents[:-1], golden["timesteps"][1:], strict=True):
                expected = pipe.scheduler.add_noise(photos, noise, timestep[None])
                torch.testing.assert_close(latents[:, :, 1:][still], expected[:, :, 1:][still], rtol=0, atol=1e-5)
        if f"{run}.videos" in golden:
            golden.close(f"{run}.videos", (frames / 2 + 0.5).transpose(1, 2))


def test_end_to_end(case):
    """Tracks and paint -> control -> Stage 1 -> flow -> Stage 2 -> video, as the release's app chains them."""
    golden = case("end_to_end")
    info, width, height = golden.info, golden.info["width"], golden.info["height"]
    futures = info["model_length"] - 1
    flow, mask, brush = control.official_field(
        info["tracks"], golden["painted"].numpy(), width, height, info["flow_unit_id"], futures
    )
    stage1 = golden.motion_field()
    image = golden["first_frame_u8"].numpy()
    with torch.no_grad():
        condition = control.condition(flow, mask, stage1.flow_vae, tuple(golden["noise_stage1"].shape[-2:]))
    motion = stage1(
        image,
        **golden.prompts(),
        condition=condition,
        control_scale=info["control_scale"],
        brush=brush,
        num_frames=info["model_length"],
        stride=info["stride"],
        guidance_scale=info["guidance_scale"],
        latents=golden["noise_stage1"][:, : stage1.unet.config.out_channels],
    )
    with_first = torch.cat([torch.zeros_like(motion.flow[:, :1]), motion.flow], dim=1)[0]
    golden.close("flow_pre", with_first)

    suffixes = [suffix for suffix in ("", QUIRK) if f"latents_stage2{suffix}" in golden.tensors]
    assert suffixes
    for suffix in suffixes:
        stage2 = golden.animation(quirk=bool(suffix))
        latents = stage2(
            image,
            motion.flow,
            **golden.prompts(),
            brush=motion.brush,
            guidance_scale=info["guidance_scale"],
            latents=golden["noise_stage2"],
            output_type="latent",
        ).frames
        golden.close(f"latents_stage2{suffix}", latents)
        if f"video{suffix}_part" in golden.tensors:
            kept, every = golden.kept_of_video()
            with torch.no_grad():
                video = stage2.decode_frames(latents).transpose(1, 2) / 2 + 0.5
            golden.close(f"video{suffix}_part", video[:, :, kept, ::every, ::every])
