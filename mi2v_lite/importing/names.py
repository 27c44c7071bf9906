"""The layouts in which others publish these networks, and their names in ours.

Our names are those of Motion-I2V's release, which for the 2-D layers are diffusers' (models/checkpoints.py), and
AnimateDiff's for the motion modules. So there are three translations: Stable Diffusion's original single file
(diffusers has the converters), diffusers' `MotionAdapter`, and old spellings of the autoencoder and the text encoder.
"""

from __future__ import annotations

import re

from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor

from mi2v_lite.importing.files import Checkpoint
from mi2v_lite.importing.official import CONTROLNET_PREFIX, rename_vae_state

# Prefixes inside Stable Diffusion's single file.
LDM_UNET, LDM_VAE, LDM_TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
# MotionAdapter's names of the parts of a temporal block, and ours.
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
    """Whether a checkpoint is in the layout of Stable Diffusion's original single file."""
    return any(name.startswith((LDM_UNET, LDM_VAE)) for name in checkpoint.tensors)


def unet_state(checkpoint: Checkpoint, layers_per_block: int) -> dict[str, Tensor]:
    """The UNet in a checkpoint of any layout, by our names; a ControlNet inside (prefix `controlnet.`) is left out.

    Raises:
        ValueError: for a single file with names that its layout does not have.
    """
    if is_single_file(checkpoint):
        state = checkpoint.part(LDM_UNET)
        return _converted(
            checkpoint, state, convert_ldm_unet_checkpoint, {"layers_per_block": layers_per_block}, LDM_UNET
        )
    own = {name: value for name, value in checkpoint.tensors.items() if not name.startswith(CONTROLNET_PREFIX)}
    checkpoint.used.update(own)
    return adapter_state(own)


def controlnet_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The ControlNet in a checkpoint, its names with or without the prefix `controlnet.`."""
    return checkpoint.part(CONTROLNET_PREFIX) or checkpoint.part("")


def vae_state(checkpoint: Checkpoint, levels: int) -> dict[str, Tensor]:
    """The autoencoder in a checkpoint of any layout, by today's diffusers names.

    Raises:
        ValueError: as `unet_state`.
    """
    if not is_single_file(checkpoint):
        return rename_vae_state(checkpoint.part(""))
    config = {"down_block_types": [""] * levels, "up_block_types": [""] * levels}
    return _converted(checkpoint, checkpoint.part(LDM_VAE), convert_ldm_vae_checkpoint, config, LDM_VAE)


def text_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The text encoder in a checkpoint, without the counter `position_ids` that old files store."""
    state = checkpoint.part(LDM_TEXT if is_single_file(checkpoint) else "")
    named = {name.removeprefix("text_model."): value for name, value in state.items()}
    named.pop("embeddings.position_ids", None)
    return named


def adapter_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of diffusers' `MotionAdapter` to ours; all others, ours among them, stay as they are.

    The adapter has one position table a block, ours has one an attention.
    """
    translated = {}
    for name, value in state.items():
        found = re.fullmatch(r"(.+\.motion_modules\.\d+)\.((?!temporal_transformer\.).+)", name)
        if not found:
            translated[name] = value
            continue
        words = [ADAPTER.get(word, word) for word in found[2].split(".")]
        inside = f"{found[1]}.temporal_transformer.{'.'.join(words)}"
        if inside.endswith(".pos_embed.pe"):
            block = inside.removesuffix(".pos_embed.pe")
            translated |= {f"{block}.attention_blocks.{i}{POSITIONS}": value for i in (0, 1)}
        else:
            translated[inside] = value
    return translated


def _converted(
    checkpoint: Checkpoint, state: dict[str, Tensor], convert, config: dict, prefix: str
) -> dict[str, Tensor]:
    """What diffusers' converter makes of `state`, nothing lost on the way."""
    if not state:
        raise ValueError(f"{checkpoint.path} has no {prefix}* names; expected a single file of Stable Diffusion 1.5.")
    where = f"{checkpoint.path}: {prefix}*"
    try:
        converted = convert({prefix + name: value for name, value in state.items()}, config)
    except (KeyError, AttributeError, IndexError) as error:
        raise ValueError(f"{where} has not the names of Stable Diffusion 1.5 ({error!r}).") from error
    if len(converted) != len(state):
        raise ValueError(
            f"{where} has {len(state)} names; Stable Diffusion 1.5 explains only {len(converted)} of them."
        )
    return converted
