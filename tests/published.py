"""Writes checkpoints in the layouts in which others publish them, from tensors by our names.

The inverse of mi2v_lite/importing/names.py, written from the layouts and not from it: single files as CompVis's Stable
Diffusion code names its parts, `MotionAdapter` as diffusers does, folders as the release has them.
"""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mi2v_lite.importing.parts import Part

State = dict[str, Tensor]

# Tiny models in all their layouts.
LAYERS, LEVELS = 1, 2  # full size has what two levels lack, and is read on the meta device
UNET = {
    "kind": "video_unet",
    "block_out_channels": [32, 64],
    "layers_per_block": LAYERS,
    "attention_levels": [True, False],
    "num_attention_heads": 4,
    "cross_attention_dim": 32,
    "motion_num_attention_heads": 8,
    "motion_max_length": 32,
}
VAE = {
    "kind": "autoencoder",
    "latent_channels": 4,
    "block_out_channels": [8] * LEVELS,
    "layers_per_block": LAYERS,
    "norm_num_groups": 4,
    "scaling_factor": 0.18215,
}
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
NOISE = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1, "clip_sample": False}
# What diffusers writes beside the tiny 2-D UNet and what the release's file says.
UNET_JSON = {
    "act_fn": "silu",
    "attention_head_dim": 4,
    "block_out_channels": [32, 64],
    "center_input_sample": False,
    "cross_attention_dim": 32,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": LAYERS,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "conv_in.": "input_blocks.0.0.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OLD_VAE_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
ADAPTER = {"attention_blocks.0": "attn1", "attention_blocks.1": "attn2", "norms.0": "norm1", "norms.1": "norm2"}


def ldm_unet(state: State, layers: int) -> State:
    """Spatial names to those below `model.diffusion_model.`; `layers` a resolution."""
    return {f"model.diffusion_model.{_ldm_unet_name(name, layers, state)}": value for name, value in state.items()}


def _ldm_unet_name(name: str, layers: int, state: State) -> str:
    for ours, theirs in UNET_ENDS.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    block, level, kind, index, rest = re.fullmatch(r"(\w+_block)s?(?:\.(\d+))?\.(\w+)\.(\d+)\.(.+)", name).groups()
    level, index = int(level or 0), int(index)
    if kind == "resnets":
        first, _, last = rest.rpartition(".")
        rest = f"{RESNET[first]}.{last}"
    if block == "mid_block":
        place = 1 if kind == "attentions" else 2 * index
        return f"middle_block.{place}.{rest}"
    if block == "down_block":
        place = 1 + level * (layers + 1) + (layers if kind == "downsamplers" else index)
        rest = rest.replace("conv.", "op.") if kind == "downsamplers" else rest
        return f"input_blocks.{place}.{int(kind == 'attentions')}.{rest}"
    if kind == "upsamplers":
        has_attention = any(other.startswith(f"up_blocks.{level}.attentions") for other in state)
        return f"output_blocks.{level * (layers + 1) + layers}.{1 + has_attention}.{rest}"
    return f"output_blocks.{level * (layers + 1) + index}.{int(kind == 'attentions')}.{rest}"


def ldm_vae(state: State, levels: int) -> State:
    """Today's diffusers names to those below `first_stage_model.`; attention as 1x1 convolutions."""
    renamed = {}
    for name, value in state.items():
        if ".attentions.0." in name:
            before, after = name.split(".mid_block.attentions.0.")
            layer, _, last = after.rpartition(".")
            name = f"{before}.mid.attn_1.{VAE_ATTENTION[layer]}.{last}"
            value = value[..., None, None] if value.ndim == 2 else value
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        renamed[f"first_stage_model.{name}"] = value
    return renamed


def old_text(state: State) -> State:
    """Names of the text encoder as transformers 4 saved it."""
    length = state["embeddings.position_embedding.weight"].shape[0]
    named = {f"text_model.{name}": value for name, value in state.items()}
    return named | {"text_model.embeddings.position_ids": torch.arange(length)[None]}


def ldm_text(state: State) -> State:
    """Names below `cond_stage_model.transformer.`."""
    return {f"cond_stage_model.transformer.{name}": value for name, value in old_text(state).items()}


def old_vae(state: State) -> State:
    """Names of the middle attention as diffusers had them when the release came out."""
    renamed = {}
    for name, value in state.items():
        if ".attentions." in name:
            for new, old in OLD_VAE_ATTENTION.items():
                name = name.replace(f".{new}.", f".{old}.")
        renamed[name] = value
    return renamed


def adapter(motion: State) -> State:
    """Motion modules as diffusers' `MotionAdapter` names them: one position table a block."""
    renamed = {}
    for name, value in motion.items():
        name = name.replace(".temporal_transformer", "").replace(".ff_norm.", ".norm3.")
        for ours, theirs in ADAPTER.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        renamed[name.replace(".attn1.pos_encoder.pe", ".pos_embed.pe")] = value
    return {name: value for name, value in renamed.items() if not name.endswith(".pos_encoder.pe")}


def save(path: Path, state: State, config: dict | None = None) -> Path:
    """A safetensors file or a pickle, by the suffix; with a config.json beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: value.clone() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    if config is not None:
        (path.parent / "config.json").write_text(json.dumps(config))
    return path


def random_state(model: torch.nn.Module, seed: int) -> State:
    """Numbers that float16 holds exactly, no layer zero; the position tables as they are."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in model.state_dict().items():
        if name.endswith("pos_encoder.pe"):
            part = Part("x", model)
            part.take({}, "x", [name])
            state[name] = part.tensors[name]
        else:
            state[name] = (0.1 * torch.randn(value.shape, generator=generator)).half().float()
    return state


def spatial(state: State) -> State:
    return {name: value for name, value in state.items() if ".motion_modules." not in name}


def motion(state: State) -> State:
    return {name: value for name, value in state.items() if ".motion_modules." in name}


def write_diffusers(folder: Path, states: dict[str, State], tokenizer: Path, suffix: str = ".bin") -> Path:
    """Stable Diffusion as a diffusers folder, with the old names that go with pickles or today's."""
    old = suffix == ".bin"
    vae = {key: value for key, value in VAE.items() if key not in ("kind", "scaling_factor")}
    text = old_text(states["text_encoder"]) if old else states["text_encoder"]
    image = old_vae(states["image_vae"]) if old else states["image_vae"]
    weights = f"diffusion_pytorch_model{suffix}"
    save(folder / "unet" / weights, spatial(states["stage2_unet"]), UNET_JSON)
    save(folder / "vae" / weights, image, vae)
    save(folder / "text_encoder" / ("pytorch_model.bin" if old else "model.safetensors"), text, TEXT)
    (folder / "tokenizer").symlink_to(tokenizer)
    return folder


def write_single_file(path: Path, states: dict[str, State]) -> Path:
    """Stable Diffusion as its authors publish it: all in one, with averages and the noise schedule beside it."""
    state = ldm_unet(spatial(states["stage2_unet"]), LAYERS)
    state |= ldm_vae(states["image_vae"], LEVELS) | ldm_text(states["text_encoder"])
    state |= {"betas": torch.zeros(1000), "model_ema.decay": torch.tensor(0.9999)}
    return save(path, state)


def write_release(folder: Path, states: dict[str, State], tokenizer: Path) -> Path:
    """Motion-I2V's release as its authors publish it."""
    stage1, stage2 = folder / "models/stage1/StableDiffusion-FlowGen", folder / "models/stage2"
    write_diffusers(stage2 / "StableDiffusion", states, tokenizer)
    flow_vae = old_vae(states["flow_vae"])
    controlnet = {f"controlnet.{name}": value for name, value in states["controlnet"].items()}
    save(stage1 / "unet/diffusion_pytorch_model.bin", states["stage1_unet"], UNET_JSON | {"in_channels": 8})
    save(stage1 / "controlnet/controlnet.bin", controlnet)
    save(stage1 / "vae_flow/diffusion_pytorch_model.bin", flow_vae)
    save(stage2 / "Motion_Module/motion_block.bin", motion(states["stage2_unet"]))
    personal = {name: value.flip(0) for name, value in spatial(states["stage2_unet"]).items()}
    save(stage2 / "DreamBooth_LoRA/realistic_unet.ckpt", personal)
    write_single_file(stage2 / "DreamBooth_LoRA/realisticVisionV51_v20Novae.safetensors", states)
    return folder
