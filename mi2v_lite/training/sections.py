"""What a config may say of its models, its noise and its pipeline: the arguments of the classes that take them.

Those classes need torch; these declarations do not, so that a wrong config is refused at once. What is left out has the
default of the class. `tests/test_curriculum.py` compares the names with the signatures.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from mi2v_lite.training.settings import Amount, Count, Positive, Rule, Share, Whole

_Widths = Annotated[list[Count], Rule(len, "that is not empty")]
_Beta = Annotated[float, Rule(lambda x: 0 < x < 1, "above 0 and below 1")]


class Autoencoder(TypedDict, total=False):
    """diffusers' `AutoencoderKL`; with `patch_size` it is a `PatchAutoencoder`."""

    in_channels: Count
    out_channels: Count
    down_block_types: list[str]
    up_block_types: list[str]
    block_out_channels: _Widths
    layers_per_block: Count
    act_fn: str
    latent_channels: Count
    norm_num_groups: Count
    sample_size: Count
    scaling_factor: Positive
    shift_factor: float | None
    latents_mean: list[float] | None
    latents_std: list[float] | None
    force_upcast: bool
    use_quant_conv: bool
    use_post_quant_conv: bool
    mid_block_add_attention: bool
    patch_size: Count


class PatchAutoencoder(TypedDict, total=False):
    """`models.autoencoder.PatchAutoencoderKL`."""

    patch_size: Count
    data_mean: float
    data_std: Positive
    in_channels: Count
    out_channels: Count
    down_block_types: list[str]
    up_block_types: list[str]
    block_out_channels: _Widths
    layers_per_block: Count
    latent_channels: Count
    norm_num_groups: Count
    sample_size: Count
    scaling_factor: Positive


class TextEncoder(TypedDict, total=False):
    """transformers' `CLIPTextConfig`; `tokenizer` is a folder with vocab.json and merges.txt, in the package or not."""

    tokenizer: str
    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    projection_dim: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    max_position_embeddings: Count
    hidden_act: str
    layer_norm_eps: Positive
    attention_dropout: Share
    initializer_range: Positive
    initializer_factor: Positive
    pad_token_id: Whole
    bos_token_id: Whole
    eos_token_id: Whole


class VideoUNet(TypedDict, total=False):
    """`models.unet.VideoUNet`."""

    in_channels: Count
    out_channels: Count
    block_out_channels: _Widths
    layers_per_block: Count
    attention_levels: list[bool]
    num_attention_heads: Count
    norm_num_groups: Count
    norm_eps: Positive
    cross_attention_dim: Count
    motion_modules: bool
    motion_num_attention_heads: Count
    motion_max_length: Count
    motion_num_blocks: Count
    motion_num_attentions: Count
    use_stride_embedding: bool
    fusion: Literal["attention", "addition", "none"]
    first_frame_timestep: Whole | None
    detach_reference: bool
    offset_code: bool
    warp_pieces: Count
    official_batch_quirk: bool


class ControlNet(TypedDict, total=False):
    """`models.controlnet.TrajectoryControlNet.from_unet`; `trunk` names the UNet that it copies."""

    trunk: str
    condition_channels: Count
    condition_hidden: Count


class Noise(TypedDict, total=False):
    """diffusers' `DDIMScheduler`, with the two kinds of prediction that are trained here."""

    num_train_timesteps: Count
    beta_start: _Beta
    beta_end: _Beta
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
    trained_betas: list[_Beta] | None
    clip_sample: bool
    set_alpha_to_one: bool
    steps_offset: Whole
    prediction_type: Literal["epsilon", "v_prediction"]
    thresholding: bool
    dynamic_thresholding_ratio: Share
    clip_sample_range: Positive
    sample_max_value: Positive
    timestep_spacing: Literal["leading", "trailing", "linspace"]
    rescale_betas_zero_snr: bool


class Pipeline(TypedDict, total=False):
    """The settings of `pipelines.MotionI2VPipeline`, beside its models."""

    stage1_image_range: Literal["signed", "unit"]
    stride: Count
    motion_steps: Count
    motion_guidance_scale: Amount
    animation_steps: Count
    animation_guidance_scale: Amount
    control_guidance_scale: Amount
    hold_control: bool
    working_size: Count | None
    detail: Literal["carry", "none"]


KINDS: dict[str, type] = {
    "autoencoder": Autoencoder,
    "text_encoder": TextEncoder,
    "video_unet": VideoUNet,
    "controlnet": ControlNet,
}
