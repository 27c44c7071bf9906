"""What a config may say: of its models, its noise, its pipeline, and of the data and the options of each objective.

All of it is declared without torch, so that a wrong config is refused at once. What a config leaves out has the default
of the class that takes it; `tests/test_settings.py` compares the names with the signatures of those classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, TypedDict

from mi2v_lite.training.settings import (
    Amount,
    Count,
    Frames,
    PartialShare,
    Positive,
    Rule,
    SettingError,
    Settings,
    Share,
    Side,
    Whole,
)

Measure = Literal["log", "root"]
ControlKind = Literal["blocks", "drags", "anchors", "things", "parts", "brush"]
# Where the name of clips is expected, these stand for the world of the config, and for some of its scenes alone.
KINDS_OF_SCENES = ("resting", "pans", "cameras", "drifts", "solos", "choices")
WORLD = {"world": "all"} | {f"world/{scenes}": scenes for scenes in KINDS_OF_SCENES}
_ASCENDING = Rule(lambda pair: pair[0] <= pair[1], "with the smaller one first")
_OF_THE_SHORT_SIDE = Annotated[float, Rule(lambda x: 0 < x <= 1, "above 0 and at most 1")]
_Widths = Annotated[list[Count], Rule(len, "that is not empty")]
_Beta = Annotated[float, Rule(lambda x: 0 < x < 1, "above 0 and below 1")]


class _Autoencoder(TypedDict, total=False):
    patch_size: Count
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


class Autoencoder(_Autoencoder, total=False):
    """diffusers' `AutoencoderKL`; one with `patch_size` is a `PatchAutoencoder` instead."""

    act_fn: str
    shift_factor: float | None
    latents_mean: list[float] | None
    latents_std: list[float] | None
    force_upcast: bool
    use_quant_conv: bool
    use_post_quant_conv: bool
    mid_block_add_attention: bool


class PatchAutoencoder(_Autoencoder, total=False):
    """`models.autoencoder.PatchAutoencoderKL`."""

    data_mean: float
    data_std: Positive


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
    working_size: Side | None
    detail: Literal["carry", "none"]


@dataclass(frozen=True, kw_only=True)
class World(Settings):
    """The world that is drawn anew for every update, see `data.lite_world.LiteWorld`. A config has one or none.

    The data of a step name it by the word "world", where the name of clips is expected. "world/resting", "world/pans",
    "world/cameras", "world/drifts", "world/solos" and "world/choices" are those of its scenes alone, see `LiteWorld`.
    All paths here and below are relative to the folder of the runs, or absolute.

    Attributes:
        photos: a folder with the photos of both splits, in train/ and heldout/.
        things: the folder of the masks of things in these photos; None leaves out the things of the photos themselves.
        sprites: a folder with the sprites of both splits, in train/ and heldout/; by default those that come with
            mi2v_lite.
        size: side of the frames in pixels.
        num_frames: of a clip.
    """

    photos: str = "photos"
    things: str | None = "things"
    sprites: str | None = None
    size: Side = 128
    num_frames: Frames = 16


KINDS: dict[str, type] = {
    "autoencoder": Autoencoder,
    "text_encoder": TextEncoder,
    "video_unet": VideoUNet,
    "controlnet": ControlNet,
}


@dataclass(frozen=True, kw_only=True)
class PhotoData(Settings):
    """Where photos come from and how crops are cut out of them, see `batches.PhotoCrops`.

    Attributes:
        folder: the folder of the photos; its subfolders count, too.
        heldout: the folder of the photos to validate with; without it nothing is validated.
        size: side of the crops in pixels.
        scale: smallest and largest side of a crop as a share of the photo's shorter side, above 0 and at most 1.
        jitter: brightness, contrast and saturation vary by up to this share, 0 to 1.
        frames_from: clips whose frames are mixed in, or "world".
        frames_share: the share of the crops that are whole frames of these clips, 0 to 1.
    """

    folder: str
    heldout: str | None = None
    size: Side = 128
    scale: Annotated[tuple[_OF_THE_SHORT_SIDE, _OF_THE_SHORT_SIDE], _ASCENDING] = (0.25, 1.0)
    jitter: Share = 0.1
    frames_from: str | None = None
    frames_share: Share = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """All photos and clips that are named."""
        return tuple(name for name in (self.folder, self.heldout, self.frames_from) if name)

    def check(self) -> None:
        """A share of frames needs clips to take them from."""
        if self.frames_share and not self.frames_from:
            raise SettingError(f"frames_share is {self.frames_share}, but frames_from names no clips.")


@dataclass(frozen=True, kw_only=True)
class _AnyClips(Settings):
    clips: str
    heldout: str | None = None
    size: tuple[Side, Side] | None = None
    num_frames: Frames | None = None
    stride: Count | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All clips that are named."""
        return tuple(name for name in (self.clips, self.heldout) if name)


@dataclass(frozen=True, kw_only=True)
class FieldData(_AnyClips):
    """Where single motion fields come from, see `batches.FlowFields`.

    Attributes:
        clips: a store, shards, a folder of videos or a table of them: whatever `open_clips` opens. Of a store a random
            clip is drawn each time; of anything else each clip comes once an epoch. Or "world": each is a new one.
        heldout: clips to validate with, or "world", its other split; without them nothing is validated.
        size: height and width of the clips; made of videos they get it, otherwise they must have it.
        num_frames: frames of a clip, likewise.
        stride: source frames between two frames of clips that are made of videos. For what is left out of these three,
            `open_clips` has defaults.
        amplitude: each field is multiplied by a random number between these two, both above 0.
    """

    amplitude: Annotated[tuple[Positive, Positive], _ASCENDING] = (0.5, 1.3)


@dataclass(frozen=True, kw_only=True)
class ClipData(_AnyClips):
    """Where whole clips come from, see `batches.ClipBatches`; what `FieldData` has too means the same here.

    Attributes:
        mixed_with: further clips. Samples come from `clips` and from these in turn; the same may be named twice. All
            must be stores or "world" then, since some clips of shards would miss their turn.
    """

    mixed_with: str | tuple[str, ...] = ()

    @property
    def mixed(self) -> tuple[str, ...]:
        """The further clips as a tuple, also where only one name is given."""
        return (self.mixed_with,) if isinstance(self.mixed_with, str) else self.mixed_with

    @property
    def names(self) -> tuple[str, ...]:
        """All clips that are named."""
        return (*super().names, *self.mixed)


@dataclass(frozen=True, kw_only=True)
class AutoencoderOptions(Settings):
    """The options of `image_autoencoder` and `flow_autoencoder`.

    Attributes:
        start: "pca" sets a fresh model that cuts patches to the principal components of training patches.
        edge_weight: the weight of the absolute error of differences between neighbouring pixels, 0 or more.
        kl_weight: the weight of the divergence of the posterior from N(0, 1), 0 or more.
        keep_scale: leaves the `scaling_factor` of the latents as it is, instead of estimating it at the end.
    """

    start: Literal["random", "pca"] = "random"
    edge_weight: Amount = 0.5
    kl_weight: Amount = 1e-6
    keep_scale: bool = False


@dataclass(frozen=True, kw_only=True)
class DenoisingOptions(Settings):
    """The options that all denoising objectives share.

    Attributes:
        noise_from: the training uses the noise schedule from this share on, 0 to below 1. The more noise there is, the
            more a prediction must rest on its conditions.
        noise_emphasis: the density of the drawn timesteps t grows as t ** (noise_emphasis - 1). 1 draws all alike; 2
            doubles the density at the end. Above 0.
        own_guess: how often the noise hides the network's own first guess instead of the truth, as it does in sampling,
            0 to 1; see `objectives.noised`.
        decoded_error: measures the error after decoding, "log" or "root", see `decoded_error.DecodedError`; None leaves
            the mean over the latents.
    """

    noise_from: PartialShare = 0.0
    noise_emphasis: Positive = 1.0
    own_guess: Share = 0.0
    decoded_error: Measure | None = None


@dataclass(frozen=True, kw_only=True)
class TextToVideoOptions(DenoisingOptions):
    """The options of `text_to_video`; more are in `DenoisingOptions`.

    Attributes:
        single: trains a text-to-image model, on one random frame of each clip.
    """

    single: bool = False


@dataclass(frozen=True, kw_only=True)
class MotionFieldOptions(DenoisingOptions):
    """The options of `motion_field`; more are in `DenoisingOptions`.

    Attributes:
        single: trains on one random future frame (step 1 of the curriculum), otherwise on all N.
        object_weight: up to how many times more the error counts where something moves otherwise than most of the
            picture does, 0 or more.
    """

    single: bool = False
    object_weight: Amount = 0.0


@dataclass(frozen=True, kw_only=True)
class TrajectoryControlOptions(DenoisingOptions):
    """The options of `trajectory_control`; more are in `DenoisingOptions`.

    Attributes:
        shares: how often each kind of control is drawn, see `masks.draw`: those of `masks.KINDS` that are wanted, with
            weights of 0 or more in any unit.
        single: trains on one random future frame, as step 1 of the curriculum does.
        told_share: the part of the loss that is the error where the control tells the true flow, 0 (the paper) to 1.
    """

    shares: Annotated[dict[ControlKind, Amount], Rule(lambda shares: sum(shares.values()) > 0, "that are not all 0")]
    single: bool = False
    told_share: Share = 0.0


@dataclass(frozen=True, kw_only=True)
class AnimationOptions(DenoisingOptions):
    """The options of `animation`; more are in `DenoisingOptions`.

    Attributes:
        start: how fresh motion modules begin: "zero" changes nothing at first, "warped" copies the warped features
            (`starts.start_warped`).
        single: trains on frame 0 and one random later frame, otherwise on whole clips.
        hole_weight: how much an error counts where frame 0 shows nothing, 0 or more; elsewhere it counts 1.
        hole_margin: how many latents around such a place count as much as the place itself.
    """

    start: Literal["zero", "warped"] = "zero"
    single: bool = False
    hole_weight: Amount = 1.0
    hole_margin: Whole = 0


class Declaration(NamedTuple):
    """What an objective trains and needs, and what its steps may say.

    Attributes:
        trains: the kind of the model that it trains, one of `KINDS`.
        needs: the names of the models that it needs beside; their kinds are in `NEEDED`.
        data: the class of a step's `data`.
        options: the class of a step's `options`.
    """

    trains: str
    needs: tuple[str, ...]
    data: type[Settings]
    options: type[Settings]


NEEDED = {
    "text_encoder": "text_encoder",
    "image_vae": "autoencoder",
    "flow_vae": "autoencoder",
    "stage1_unet": "video_unet",
}
DECLARED: dict[str, Declaration] = {
    "image_autoencoder": Declaration("autoencoder", (), PhotoData, AutoencoderOptions),
    "flow_autoencoder": Declaration("autoencoder", (), FieldData, AutoencoderOptions),
    "text_to_video": Declaration("video_unet", ("text_encoder", "image_vae"), ClipData, TextToVideoOptions),
    "motion_field": Declaration("video_unet", ("text_encoder", "image_vae", "flow_vae"), ClipData, MotionFieldOptions),
    "trajectory_control": Declaration(
        "controlnet", ("text_encoder", "image_vae", "flow_vae", "stage1_unet"), ClipData, TrajectoryControlOptions
    ),
    "animation": Declaration("video_unet", ("text_encoder", "image_vae"), ClipData, AnimationOptions),
}
