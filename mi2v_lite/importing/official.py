"""Models from the release's own configs and state dicts, every name, shape and setting checked (notebook 06).

Our parameter names are the release's, so UNet and ControlNet need no renaming.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from mi2v_lite.importing.names import rename_vae_state, split_controlnet
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.unet import VideoUNet

# What our UNet builds. Any other value in an official config would silently give another network.
REQUIRED = {
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_type": "UNetMidBlock3DCrossAttn",
    "only_cross_attention": False,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "use_linear_projection": False,
    "resnet_time_scale_shift": "default",
    "use_inflated_groupnorm": True,
    "unet_use_cross_frame_attention": False,
    "unet_use_temporal_attention": False,
    "use_motion_module": True,
    "motion_module_mid_block": True,
    "motion_module_decoder_only": False,
    "motion_module_type": "Vanilla",
}
REQUIRED_MOTION = {"temporal_position_encoding": True, "temporal_attention_dim_div": 1}


def unet_config_from_official(config: dict, stage: int) -> dict:
    """Translates an official UNet config (`block_out_channels`, `motion_module_kwargs` and so on) to ours.

    Args:
        config: the YAML's `unet_additional_kwargs` merged into Stable Diffusion's UNet config.
        stage: 1 for the motion field predictor, 2 for the renderer.

    Returns:
        the keyword arguments of `VideoUNet`.

    Raises:
        ValueError: if the config asks for something that this UNet does not build.
    """
    if stage not in (1, 2):
        raise ValueError(f"stage is {stage!r}; expected 1 (motion fields) or 2 (rendering)")
    motion = config.get("motion_module_kwargs", {})
    for given, required in ((config, REQUIRED), (motion, REQUIRED_MOTION)):
        for key, value in required.items():
            if given.get(key, value) != value:
                raise ValueError(f"the official config has {key}={given[key]!r}; only {value!r} is supported")
    kinds = set(motion.get("attention_block_types", ["Temporal_Self"]))
    if kinds != {"Temporal_Self"}:
        raise ValueError(f"attention_block_types is {sorted(kinds)}; only Temporal_Self is supported")
    levels = len(config["block_out_channels"])
    if sorted(config.get("motion_module_resolutions", [])) not in ([], [2**i for i in range(levels)]):
        raise ValueError("motion_module_resolutions must name every resolution: motion modules stand at every level")
    attention = [kind.startswith("CrossAttn") for kind in config["down_block_types"]]
    if attention != [kind.startswith("CrossAttn") for kind in reversed(config["up_block_types"])]:
        raise ValueError("down_block_types and up_block_types differ in where attention stands; expected mirror images")
    return {
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "block_out_channels": tuple(config["block_out_channels"]),
        "layers_per_block": config["layers_per_block"],
        "attention_levels": tuple(attention),
        "num_attention_heads": config["attention_head_dim"],  # diffusers 0.11 named the number of heads so
        "norm_num_groups": config["norm_num_groups"],
        "norm_eps": config["norm_eps"],
        "cross_attention_dim": config["cross_attention_dim"],
        "motion_num_attention_heads": motion.get("num_attention_heads", 8),
        "motion_max_length": motion.get("temporal_position_encoding_max_len", 24),
        "motion_num_blocks": motion.get("num_transformer_block", 1),
        "motion_num_attentions": len(motion.get("attention_block_types", ["Temporal_Self"] * 2)),
        **({"use_stride_embedding": True} if stage == 1 else {"fusion": "attention", "first_frame_timestep": 1}),
    }


def controlnet_config_from_official(config: dict, condition_channels: int = 5, condition_hidden: int = 512) -> dict:
    """Translates an official Stage 1 config to the keyword arguments of `TrajectoryControlNet`.

    Args:
        config: see `unet_config_from_official`.
        condition_channels: the channels of the condition, flow latent and mask.
        condition_hidden: the channels between the two convolutions that read it.
    """
    shared = unet_config_from_official(config, stage=1)
    del shared["out_channels"]
    return shared | {"condition_channels": condition_channels, "condition_hidden": condition_hidden}


def unet_from_official(config: dict, state: dict[str, Tensor], stage: int, **overrides: object) -> VideoUNet:
    """Builds the UNet of a stage and loads an official state dict into it.

    Args:
        config: see `unet_config_from_official`.
        state: by official names; a ControlNet in it is left out.
        stage: 1 or 2.
        overrides: other arguments of `VideoUNet`, for instance `official_batch_quirk=True`.

    Raises:
        ValueError: if a name is missing, left over or of another shape.
    """
    unet = VideoUNet(**unet_config_from_official(config, stage) | overrides)
    _load_strict(unet, split_controlnet(state)[0], f"the Stage {stage} UNet")
    return unet


def controlnet_from_official(config: dict, state: dict[str, Tensor]) -> TrajectoryControlNet:
    """Builds the ControlNet and loads an official state dict into it.

    Args:
        config: an official Stage 1 config.
        state: by official names, with or without the prefix `controlnet.`.

    Raises:
        ValueError: if a name is missing, left over or of another shape.
    """
    _, inside = split_controlnet(state)
    state = inside or state
    first = state.get("controlnet_cond_embedding.layers.0.weight")
    if first is None:
        raise ValueError("no ControlNet in this state dict: controlnet_cond_embedding.layers.0.weight is missing")
    net = TrajectoryControlNet(**controlnet_config_from_official(config, first.shape[1], first.shape[0]))
    _load_strict(net, state, "the ControlNet")
    return net


def vae_from_official(config: dict, state: dict[str, Tensor]) -> AutoencoderKL:
    """Builds an image or flow autoencoder and loads a state dict into it.

    Args:
        config: of diffusers' `AutoencoderKL`.
        state: by the names of today or of older versions of diffusers.

    Raises:
        ValueError: if a name is missing, left over or of another shape.
    """
    known = AutoencoderKL._get_init_keys(AutoencoderKL)
    vae = AutoencoderKL(**{k: v for k, v in config.items() if k in known})
    _load_strict(vae, rename_vae_state(state), "the VAE")
    return vae


def _load_strict(model: torch.nn.Module, state: dict[str, Tensor], what: str) -> None:
    own = model.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or extra or shapes:
        raise ValueError(
            f"this checkpoint is not that of {what} with this config: {len(missing)} names missing {missing[:2]}, "
            f"{len(extra)} left over {extra[:2]}, {len(shapes)} of another shape {sorted(shapes)[:2]}"
        )
    model.load_state_dict(state, strict=True)
