"""`mi2v import` against the release: its golden numbers, and the full-size layouts on the meta device."""

import json
from pathlib import Path

import published
import pytest
import torch
import yaml
from diffusers import MotionAdapter, UNet2DConditionModel
from golden_io import Golden, read_info, read_tensors
from published import NOISE, TEXT, motion, random_state, spatial
from torch import Tensor

from mi2v_lite import cli, control
from mi2v_lite.importing import Sources, files, make_plan, plan
from mi2v_lite.importing.official import unet_config_from_official
from mi2v_lite.importing.parts import shell
from mi2v_lite.models.text import build_tokenizer
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.training import export
from mi2v_lite.training.curriculum import Config, load_config, parse_config


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder, ["red", "balloon"])
    return folder


def golden_config(folder: Path, tokenizer: Path) -> dict:
    """The golden set's sizes as a curriculum; its text width belongs to a small text encoder."""
    unets = {name: read_info(folder, f"weights_{name}")["config"] for name in ("stage1_unet", "stage2_unet")}
    models = {
        name: {"kind": "video_unet"} | unet_config_from_official(config, stage=1 + (name == "stage2_unet"))
        for name, config in unets.items()
    }
    for name in ("image_vae", "flow_vae"):
        models[name] = {"kind": "autoencoder"} | read_info(folder, f"weights_{name}")["config"]
    models["controlnet"] = {"kind": "controlnet", "trunk": "stage1_unet", "condition_channels": 5}
    width = models["stage1_unet"]["cross_attention_dim"]
    vocabulary = len(json.loads((tokenizer / "vocab.json").read_text()))
    models["text_encoder"] = {"kind": "text_encoder", "vocab_size": vocabulary} | TEXT | {"hidden_size": width}
    step = {"name": "x", "model": "flow_vae", "objective": "flow_autoencoder", "data": {"clips": "x"}}
    step |= {"steps": 1, "batch_size": 1}
    return json.loads(json.dumps({"models": models, "noise": NOISE, "steps": [step | {"learning_rate": 1e-3}]}))


@pytest.fixture(scope="module")
def golden_pipeline(golden_dir, tokenizer, tmp_path_factory) -> MotionI2VPipeline:
    """The golden weights through files in the release's layout and the command line."""
    folder = tmp_path_factory.mktemp("golden")
    content = golden_config(golden_dir, tokenizer)
    (folder / "golden.yaml").write_text(yaml.safe_dump(content))
    weights = {name: read_tensors(golden_dir, f"weights_{name}") for name in ("stage1_unet", "stage2_unet")}
    text = random_state(shell(parse_config(content), "text_encoder"), 0)
    # The VAEs' tensors have the old names in the golden files: these are the release's own.
    stage1, stage2 = folder / "models/stage1/StableDiffusion-FlowGen", folder / "models/stage2"
    base, name = stage2 / "StableDiffusion", "diffusion_pytorch_model.bin"
    published.save(stage1 / "unet" / name, weights["stage1_unet"])
    published.save(stage1 / "controlnet/controlnet.bin", read_tensors(golden_dir, "weights_stage1_controlnet"))
    published.save(stage1 / "vae_flow" / name, read_tensors(golden_dir, "weights_flow_vae"))
    published.save(base / "unet" / name, {key: value + 1 for key, value in spatial(weights["stage2_unet"]).items()})
    published.save(base / "text_encoder/pytorch_model.bin", published.old_text(text))
    (base / "tokenizer").symlink_to(tokenizer)
    published.save(stage2 / "Motion_Module/motion_block.bin", motion(weights["stage2_unet"]))
    published.save(stage2 / "DreamBooth_LoRA/realistic_unet.ckpt", spatial(weights["stage2_unet"]))
    vae = published.save(folder / "vae.ckpt", read_tensors(golden_dir, "weights_image_vae"))
    words = ["import", "--release", str(folder), "--vae", str(vae), "--config", str(folder / "golden.yaml")]
    assert cli.main([*words, "-o", str(folder / "out")]) == 0
    pipe = MotionI2VPipeline.from_lite(folder / "out")  # float16 on the disk holds these weights exactly
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def test_golden_numbers_of_stage_1_with_its_controlnet(golden_pipeline, golden_dir):
    golden, pipe = Golden(golden_dir, "stage1_unet_controlnet"), golden_pipeline
    for case in golden.info["cases"]:
        inputs = [golden[f"{case}.{name}"] for name in ("sample", "timestep", "encoder_hidden_states")]
        stride, scale = golden[f"{case}.stride"], golden[f"{case}.control_scale"].item()
        down, mid = pipe.controlnet(*inputs, golden[f"{case}.control"], stride=stride, control_scale=scale)
        output = pipe.motion_unet(*inputs, stride=stride, down_residuals=down, mid_residual=mid)
        golden.close(f"{case}.output", output)


@torch.no_grad()
def test_golden_numbers_of_stage_2(golden_pipeline, golden_dir):
    golden = Golden(golden_dir, "stage2_unet")
    for case in golden.info["cases"]:
        inputs = [golden[f"{case}.{name}"] for name in ("sample", "timestep", "encoder_hidden_states")]
        golden.close(f"{case}.output", golden_pipeline.animation_unet(*inputs, flow=golden[f"{case}.flow_pre"][:, 1:]))


def test_golden_numbers_of_the_whole_chain(golden_pipeline, golden_dir):
    """All models and the scheduler of the imported folder, chained as in the release's app."""
    golden, pipe = Golden(golden_dir, "end_to_end"), golden_pipeline
    info = golden.info
    width, height, futures = info["width"], info["height"], info["model_length"] - 1
    painted = golden["painted"].numpy()
    flow, mask, brush = control.official_field(info["tracks"], painted, width, height, info["flow_unit_id"], futures)
    with torch.no_grad():
        condition = control.condition(flow, mask, pipe.flow_vae, tuple(golden["noise_stage1"].shape[-2:]))
    prompts = {
        "prompt_embeds": golden["positive_embedding"],
        "negative_prompt_embeds": golden["negative_embedding"],
        "num_inference_steps": info["num_inference_steps"],
        "guidance_scale": info["guidance_scale"],
    }
    image = golden["first_frame_u8"].numpy()
    noise = golden["noise_stage1"][:, : pipe.motion_unet.config.out_channels]
    moved = pipe.predict_motion(
        image, condition=condition, control_scale=info["control_scale"], brush=brush, stride=info["stride"],
        num_frames=info["model_length"], latents=noise, **prompts
    )  # fmt: skip
    with_first = torch.cat([torch.zeros_like(moved.flow[:, :1]), moved.flow], dim=1)[0]
    for key in (name for name in golden.tensors if name.startswith("flow_pre_every")):
        every = int(key.removeprefix("flow_pre_every"))
        golden.close(key, with_first[..., ::every, ::every])
    latents = pipe.render(image, moved, latents=golden["noise_stage2"], output_type="latent", **prompts).frames
    golden.close("latents_stage2", latents)


FULL = Path(cli.__file__).parents[1] / "configs" / "full.yaml"
# Parameters of the models at full size, as their authors' files have them.
PUBLISHED = {
    "vae": 83_653_863,
    "flow_vae": 83_651_558,
    "text_encoder": 123_060_480,
    "motion_unet": 1_314_792_324,
    "controlnet": 566_679_872,
    "animation_unet": 1_312_730_244,
}


@pytest.fixture(scope="module")
def full() -> Config:
    return load_config(FULL)


def on_meta(folder: Path, golden_dir: Path, full: Config, monkeypatch) -> dict[str, dict[str, Tensor]]:
    """The full layouts as states on the meta device, and a reader that gives them for empty files of those names."""

    def layout(name: str) -> dict[str, Tensor]:
        entries = read_info(golden_dir, f"layout_{name}")["entries"]
        return {key: torch.empty(shape, device="meta") for key, shape in entries}

    states = {
        name: layout(name) for name in ("stage1_unet", "stage1_controlnet", "stage2_unet", "flow_vae", "image_vae")
    }
    states["text_encoder"] = shell(full, "text_encoder").state_dict()
    shelf: dict[Path, dict[str, Tensor]] = {}

    def put(path: str, state: dict[str, Tensor]) -> Path:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
        shelf[folder / path] = state
        return folder / path

    monkeypatch.setattr(files, "_read", shelf.__getitem__)
    monkeypatch.setattr(plan, "_tokenizer", lambda *_: None)
    states["put"] = put
    return states


def check_against_layouts(made: plan.Plan, golden_dir: Path) -> None:
    names = {"motion_unet": "stage1_unet", "animation_unet": "stage2_unet", "controlnet": "stage1_controlnet_bare"}
    for part, layout in names.items():
        if part in made.parts:
            entries = {name: tuple(shape) for name, shape in read_info(golden_dir, f"layout_{layout}")["entries"]}
            assert {name: tuple(value.shape) for name, value in made.parts[part].tensors.items()} == entries
    for name, part in made.parts.items():
        tables = sum(value.numel() for key, value in part.tensors.items() if key.endswith(".pe"))
        assert sum(value.numel() for value in part.tensors.values()) - tables == PUBLISHED[name], name


def test_full_size_release(full, golden_dir, tmp_path, monkeypatch):
    states = on_meta(tmp_path, golden_dir, full, monkeypatch)
    put = states["put"]
    stage1, stage2 = "models/stage1/StableDiffusion-FlowGen", "models/stage2"
    put(f"{stage1}/unet/diffusion_pytorch_model.bin", states["stage1_unet"])
    put(f"{stage1}/controlnet/controlnet.bin", states["stage1_controlnet"])
    put(f"{stage1}/vae_flow/diffusion_pytorch_model.bin", states["flow_vae"])
    layers = spatial(states["stage2_unet"])
    put(f"{stage2}/StableDiffusion/unet/diffusion_pytorch_model.bin", layers)
    put(f"{stage2}/StableDiffusion/text_encoder/pytorch_model.bin", published.old_text(states["text_encoder"]))
    put(f"{stage2}/Motion_Module/motion_block.bin", motion(states["stage2_unet"]))
    put(f"{stage2}/DreamBooth_LoRA/realistic_unet.ckpt", layers)
    image = published.ldm_vae(shell(full, "image_vae").state_dict(), 4)
    put(f"{stage2}/DreamBooth_LoRA/realisticVisionV51_v20Novae.safetensors", image)
    made = make_plan(full, Sources(release=tmp_path))
    assert made.parts.keys() == PUBLISHED.keys()
    check_against_layouts(made, golden_dir)


@pytest.mark.parametrize("module", ["ckpt", "adapter"])
def test_full_size_stable_diffusion_and_animatediff(full, golden_dir, tmp_path, monkeypatch, module):
    states = on_meta(tmp_path, golden_dir, full, monkeypatch)
    with torch.device("meta"):
        flat = UNet2DConditionModel(cross_attention_dim=768).state_dict()
        real = MotionAdapter(motion_max_seq_length=32).state_dict()
    assert len(flat) == 686 and sum(value.numel() for value in flat.values()) == 859_520_964
    state = published.ldm_unet(flat, 2) | published.ldm_vae(shell(full, "image_vae").state_dict(), 4)
    state |= published.ldm_text(states["text_encoder"])
    assert len(state) == 686 + 248 + 197
    base = states["put"]("v1-5-pruned.safetensors", state)
    modules = motion(states["stage2_unet"])
    assert sum(value.numel() for name, value in modules.items() if not name.endswith(".pe")) == 453_209_280
    assert published.adapter(modules).keys() == real.keys()
    path = states["put"]("mm_sd_v15_v2.ckpt", modules if module == "ckpt" else real)
    flow_vae = states["put"]("flow_vae.bin", states["flow_vae"])
    made = make_plan(full, Sources(stable_diffusion=base, motion_module=path, flow_vae=flow_vae))
    check_against_layouts(made, golden_dir)


def test_full_config_is_the_papers_curriculum(full):
    steps = {step.name: step for step in full.steps}
    assert list(steps) == ["flow_vae", "stage1_single", "stage1_temporal", "stage1_full", "controlnet", "stage2"]
    assert {step.learning_rate for step in full.steps[1:]} == {3e-5} and steps["flow_vae"].learning_rate == 1e-5
    assert {name: step.batch_size * step.accumulation for name, step in steps.items()} == {
        "flow_vae": 16,
        "stage1_single": 8,
        "stage1_temporal": 2,
        "stage1_full": 2,
        "controlnet": 3,
        "stage2": 4,
    }
    assert all(step.precision == "bf16" for step in full.steps)
    clips = ("stage1_temporal", "stage1_full", "controlnet", "stage2")
    assert all(steps[name].gradient_checkpointing for name in clips)
    for name in ("stage1_temporal", "stage2"):
        assert all("motion_modules" in pattern for pattern in steps[name].trainable)
    assert steps["stage1_single"].model_overrides == {"motion_modules": False}
    assert {
        model: sum(p.numel() for p in shell(full, name).parameters()) for model, name in export.PARTS.items()
    } == PUBLISHED
    MotionI2VPipeline(**dict.fromkeys([*export.PARTS, "tokenizer", "scheduler"]), **full.pipeline)
