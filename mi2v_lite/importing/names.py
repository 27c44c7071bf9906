"""The layouts in which others publish these networks, and their names in ours.

Our names are those of Motion-I2V's release, which are diffusers' for the 2-D layers and AnimateDiff's for the motion
modules. So there are three translations: of Stable Diffusion's original single file (diffusers has the converters), of
diffusers' `MotionAdapter`, and of old spellings in the autoencoder and the text encoder.
"""

from __future__ import annotations

import re

from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor

from mi2v_lite.importing.files import Checkpoint

# Prefixes inside Stable Diffusion's single file.
LDM_UNET, LDM_VAE, LDM_TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
CONTROLNET_PREFIX = "controlnet."
OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
# The parts of a temporal block: MotionAdapter's names and ours.
ADAPTER = {
    "attn1": "attention_blocks.0",
    "attn2": "attention_blocks.1",
    "norm1": "norms.0",
    "norm2": "norms.1",
    "norm3": "ff_norm",
}
MOTION = ".motion_modules."
POSITIONS = ".pos_encoder.pe"


def is_single_file(checkpoint: Checkpoint) -> bool:
    """Tells whether a checkpoint is in the layout of Stable Diffusion's original single file."""
    return any(name.startswith((LDM_UNET, LDM_VAE)) for name in checkpoint.tensors)


def _taken_out(checkpoint: Checkpoint, names: tuple[str, ...]) -> bool:
    """Tells whether a checkpoint is one model of a single file, by its names there but without their prefix."""
    return any(name.startswith(names) for name in checkpoint.tensors)


def unet_state(checkpoint: Checkpoint, layers_per_block: int) -> dict[str, Tensor]:
    """Returns the UNet in a checkpoint of any layout, by our names; a ControlNet in it is left out.

    Args:
        checkpoint: the file; its names are counted as used.
        layers_per_block: of the UNet, which the names of a single file depend on.

    Raises:
        ValueError: for a single file with names that its layout does not have.
    """
    alone = _taken_out(checkpoint, ("input_blocks.", "output_blocks."))
    if alone or is_single_file(checkpoint):
        state = checkpoint.part("" if alone else LDM_UNET)
        return _converted(
            checkpoint, state, convert_ldm_unet_checkpoint, {"layers_per_block": layers_per_block}, LDM_UNET
        )
    own = {name: value for name, value in checkpoint.tensors.items() if not name.startswith(CONTROLNET_PREFIX)}
    checkpoint.used.update(own)
    return adapter_state(own)


def controlnet_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Returns the ControlNet in a checkpoint, whose names may have the prefix `controlnet.`."""
    return checkpoint.part(CONTROLNET_PREFIX) or checkpoint.part("")


def vae_state(checkpoint: Checkpoint, levels: int) -> dict[str, Tensor]:
    """Returns the autoencoder in a checkpoint of any layout, by diffusers' names of today.

    Args:
        checkpoint: the file; its names are counted as used.
        levels: the number of resolutions.

    Raises:
        ValueError: for a single file with names that its layout does not have.
    """
    alone = _taken_out(checkpoint, ("encoder.down.", "decoder.up."))
    if not alone and not is_single_file(checkpoint):
        return rename_vae_state(checkpoint.part(""))
    config = {"down_block_types": [""] * levels, "up_block_types": [""] * levels}
    return _converted(
        checkpoint, checkpoint.part("" if alone else LDM_VAE), convert_ldm_vae_checkpoint, config, LDM_VAE
    )


def text_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Returns the text encoder in a checkpoint, without the counter `position_ids` that old files store."""
    state = checkpoint.part(LDM_TEXT if is_single_file(checkpoint) else "")
    named = {name.removeprefix("text_model."): value for name, value in state.items()}
    named.pop("embeddings.position_ids", None)
    return named


def adapter_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames what comes from diffusers' `MotionAdapter` to our names; all other names stay as they are.

    The adapter has one position table for each block, our network one for each attention.
    """
    translated = {}
    for name, value in state.items():
        match = re.fullmatch(r"(.+\.motion_modules\.\d+)\.((?!temporal_transformer\.).+)", name)
        if not match:
            translated[name] = value
            continue
        words = [ADAPTER.get(word, word) for word in match[2].split(".")]
        inside = f"{match[1]}.temporal_transformer.{'.'.join(words)}"
        if inside.endswith(".pos_embed.pe"):
            block = inside.removesuffix(".pos_embed.pe")
            translated |= {f"{block}.attention_blocks.{i}{POSITIONS}": value for i in (0, 1)}
        else:
            translated[inside] = value
    return translated


def split_controlnet(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Splits an official Stage 1 state dict into the UNet's and the ControlNet's, without the prefix `controlnet.`."""
    unet = {k: v for k, v in state.items() if not k.startswith(CONTROLNET_PREFIX)}
    controlnet = {k.removeprefix(CONTROLNET_PREFIX): v for k, v in state.items() if k.startswith(CONTROLNET_PREFIX)}
    return unet, controlnet


def rename_vae_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the attention of an autoencoder from diffusers' old names to today's; other names stay."""
    renamed = {}
    for name, value in state.items():
        parts = name.split(".")
        if "attentions" in parts and parts[-2] in OLD_VAE_ATTENTION:
            parts[-2] = OLD_VAE_ATTENTION[parts[-2]]
            if value.ndim == 4:  # the oldest files store these linear layers as 1x1 convolutions
                value = value[..., 0, 0]
        renamed[".".join(parts)] = value
    return renamed


def _converted(
    checkpoint: Checkpoint, state: dict[str, Tensor], convert, config: dict, prefix: str
) -> dict[str, Tensor]:
    """Runs one of diffusers' converters and checks that nothing was lost on the way."""
    if not state:
        raise ValueError(f"{checkpoint.path} has no {prefix}* names; expected a single file of Stable Diffusion 1.5.")
    where = f"{checkpoint.path}: {prefix}*"
    try:
        converted = convert({prefix + name: value for name, value in state.items()}, config)
    except (KeyError, AttributeError, IndexError) as error:
        raise ValueError(f"{where} does not have the names of Stable Diffusion 1.5 ({error!r}).") from error
    if len(converted) != len(state):
        raise ValueError(f"{where} has {len(state)} names, but Stable Diffusion 1.5 has only {len(converted)} of them.")
    return converted
