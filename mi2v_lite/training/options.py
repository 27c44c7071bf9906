"""What a step of each objective may say in its `data` and its `options`; free of torch, so that a config is read fast.

`objectives.py` says what an objective does with them. Names of folders are below the folder of the runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from mi2v_lite.training.settings import (
    Amount,
    Count,
    PartialShare,
    Positive,
    Rule,
    SettingError,
    Settings,
    Share,
)

Measure = Literal["log", "root"]
ControlKind = Literal["blocks", "drags", "brush"]
_ASCENDING = Rule(lambda pair: pair[0] <= pair[1], "with the smaller one first")
_OF_THE_SHORT_SIDE = Annotated[float, Rule(lambda x: 0 < x <= 1, "above 0 and at most 1")]


@dataclass(frozen=True, kw_only=True)
class PhotoData(Settings):
    """Where photos come from and how crops are cut out of them, see `batches.PhotoCrops`.

    Attributes:
        folder: holds the photos, also in its subfolders.
        heldout: holds the photos to validate with; without it nothing is validated.
        size: side of the crops in pixels.
        scale: smallest and largest side of a crop as a share of the photo's short side, each above 0 and at most 1.
        jitter: brightness, contrast and saturation vary by up to this share, 0 to 1.
        frames_from: clips whose frames are mixed in.
        frames_share: the share of the crops that are whole frames of these clips, 0 to 1.
    """

    folder: str
    heldout: str | None = None
    size: Count = 128
    scale: Annotated[tuple[_OF_THE_SHORT_SIDE, _OF_THE_SHORT_SIDE], _ASCENDING] = (0.25, 1.0)
    jitter: Share = 0.1
    frames_from: str | None = None
    frames_share: Share = 0.0

    def check(self) -> None:
        """A share of frames needs clips to take them from."""
        if self.frames_share and not self.frames_from:
            raise SettingError(f"frames_share is {self.frames_share}, but frames_from names no clips.")


@dataclass(frozen=True, kw_only=True)
class FieldData(Settings):
    """Where single motion fields come from, see `batches.FlowFields`.

    Attributes:
        clips: the clips, anything that `open_clips` opens. Of shards each clip comes once an epoch; of anything else a
            random one is drawn each time.
        heldout: clips to validate with; without them nothing is validated.
        amplitude: each field is multiplied by a random number between these two, both above 0.
    """

    clips: str
    heldout: str | None = None
    amplitude: Annotated[tuple[Positive, Positive], _ASCENDING] = (0.5, 1.3)


@dataclass(frozen=True, kw_only=True)
class ClipData(Settings):
    """Where whole clips come from, see `batches.ClipBatches`.

    Attributes:
        clips: the clips, as in `FieldData`.
        heldout: clips to validate with; without them nothing is validated.
        mixed_with: further clips. Samples come from `clips` and from these in turn; the same may be named twice. None
            of them may be shards, of which some clips would then miss their turn.
    """

    clips: str
    heldout: str | None = None
    mixed_with: str | tuple[str, ...] = ()

    @property
    def mixed(self) -> tuple[str, ...]:
        """The further clips as a tuple, also where only one name is given."""
        return (self.mixed_with,) if isinstance(self.mixed_with, str) else self.mixed_with


@dataclass(frozen=True, kw_only=True)
class AutoencoderOptions(Settings):
    """Of both autoencoders, `image_autoencoder` and `flow_autoencoder`.

    Attributes:
        start: "pca" sets a fresh model that cuts patches to the principal components of training patches.
        edge_weight: weight of the L1 error of differences between neighbouring pixels, 0 or more.
        kl_weight: weight of the divergence of the posterior from N(0, 1), 0 or more.
        keep_scale: leave the latents' `scaling_factor` as it is instead of estimating it at the end.
    """

    start: Literal["random", "pca"] = "random"
    edge_weight: Amount = 0.5
    kl_weight: Amount = 1e-6
    keep_scale: bool = False


@dataclass(frozen=True, kw_only=True)
class DenoisingOptions(Settings):
    """What all denoising objectives share.

    Attributes:
        noise_from: least share of the noise schedule to train on, 0 to below 1. The noisier, the more a prediction must
            rest on its conditions.
        noise_emphasis: above 1, the density of the drawn timesteps t grows as t ** (noise_emphasis - 1): 2 doubles it
            at the end. Above 0.
        own_guess: how often the noise hides the network's own first guess instead of the truth, as it does in sampling,
            0 to 1.
        decoded_error: measure the error after decoding, "log" or "root", see `decoded_error.DecodedError`; None leaves
            the mean over latents.
    """

    noise_from: PartialShare = 0.0
    noise_emphasis: Positive = 1.0
    own_guess: Share = 0.0
    decoded_error: Measure | None = None


@dataclass(frozen=True, kw_only=True)
class TextToVideoOptions(DenoisingOptions):
    """Of `text_to_video`; the others as in `DenoisingOptions`.

    Attributes:
        single: train on one random frame of each clip, a text-to-image model.
    """

    single: bool = False


@dataclass(frozen=True, kw_only=True)
class MotionFieldOptions(DenoisingOptions):
    """Of `motion_field`; the others as in `DenoisingOptions`.

    Attributes:
        single: train on one random future frame (curriculum step 1), otherwise on all N.
        object_weight: the error counts up to this many times more where something moves otherwise than most of the
            picture, 0 or more.
    """

    single: bool = False
    object_weight: Amount = 0.0


@dataclass(frozen=True, kw_only=True)
class TrajectoryControlOptions(DenoisingOptions):
    """Of `trajectory_control`; the others as in `DenoisingOptions`.

    Attributes:
        shares: how often each kind of control is drawn, see `masks.draw`: of "blocks", "drags" and "brush" those that
            are wanted, with weights of 0 or more in any unit.
        single: train on one random future frame, as curriculum step 1 does.
        told_share: what part of the loss is the error where the control tells the true flow, 0 (the paper) to 1.
    """

    shares: Annotated[dict[ControlKind, Amount], Rule(lambda shares: sum(shares.values()) > 0, "that are not all 0")]
    single: bool = False
    told_share: Share = 0.0


@dataclass(frozen=True, kw_only=True)
class AnimationOptions(DenoisingOptions):
    """Of `animation`; the others as in `DenoisingOptions`.

    Attributes:
        start: how fresh motion modules begin: "zero", or "warped", looking at the warped feature
            (`models.motion_start`).
        hole_weight: what an error counts where frame 0 shows nothing, 0 to 1.
    """

    start: Literal["zero", "warped"] = "zero"
    hole_weight: Share = 1.0


OPTIONS: dict[str, type[Settings]] = {
    "image_autoencoder": AutoencoderOptions,
    "flow_autoencoder": AutoencoderOptions,
    "text_to_video": TextToVideoOptions,
    "motion_field": MotionFieldOptions,
    "trajectory_control": TrajectoryControlOptions,
    "animation": AnimationOptions,
}
DATA: dict[str, type[Settings]] = {
    "image_autoencoder": PhotoData,
    "flow_autoencoder": FieldData,
    "text_to_video": ClipData,
    "motion_field": ClipData,
    "trajectory_control": ClipData,
    "animation": ClipData,
}
