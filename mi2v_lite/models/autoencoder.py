"""The two autoencoders: one for images (3 channels in [-1, 1]), one for flow (2 channels in [0, 1], 0.5 = no motion).

Both are diffusers' `AutoencoderKL` with the same topology (Motion-I2V, section 3.1; notebook 01). A `patch_size` in the
config makes a `PatchAutoencoderKL`, which small models need. Latents are the mean of the posterior times
`scaling_factor`, without a shift.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, ModelMixin  # noqa: F401  DiffusionPipeline looks for ModelMixin beside a class
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from mi2v_lite.models.strict import load_strict


def make_vae(config: dict) -> AutoencoderKL:
    """Build an autoencoder with random weights.

    Args:
        config: arguments of `diffusers.AutoencoderKL`, or, if there is a `patch_size`, of `PatchAutoencoderKL`.
            `block_out_channels` is required; the types of the blocks follow from it.

    Returns:
        The autoencoder.

    Raises:
        ValueError: if `block_out_channels` is missing or a key is unknown.
    """
    config = dict(config)
    channels = tuple(config.get("block_out_channels") or ())
    if not channels:
        raise ValueError("An autoencoder's config needs block_out_channels, for example [32, 64, 128, 128].")
    config["block_out_channels"] = channels
    config.setdefault("down_block_types", ("DownEncoderBlock2D",) * len(channels))
    config.setdefault("up_block_types", ("UpDecoderBlock2D",) * len(channels))
    try:
        return keep_ends_precise((PatchAutoencoderKL if "patch_size" in config else AutoencoderKL)(**config))
    except TypeError as error:
        raise ValueError(f"Unknown key in an autoencoder's config: {error}") from error


class _PreciseConv(nn.Conv2d):
    """A convolution that runs in the precision of its weights, even under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


def keep_ends_precise(vae: AutoencoderKL) -> AutoencoderKL:
    """Exempt the first and the last convolution from autocast; the names and values of the weights stay the same.

    Unit flow has values near 0.5, where neighbouring bfloat16 numbers are as far apart as half a pixel of a 128 px
    picture.

    Args:
        vae: the autoencoder, which is changed in place.

    Returns:
        The same autoencoder.
    """
    for part, name in ((vae.encoder, "conv_in"), (vae.decoder, "conv_out")):
        old = getattr(part, name)
        new = _PreciseConv(old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding)
        new.weight, new.bias = old.weight, old.bias
        setattr(part, name, new)
    return vae


class PatchAutoencoderKL(AutoencoderKL):
    """An `AutoencoderKL` of patches: the pixels of each square patch become the channels of one position.

    A decoder of nearest-neighbour upsampling and convolutions draws a constant picture from constant latents, so it
    takes very long to learn fine texture. If the picture is cut into patches, texture is a matter of channels. On both
    sides a linear map bypasses the network, as in Chen et al., "Deep Compression Autoencoder" (2024).
    `mi2v_lite.training.starts.start_pca` sets these maps to the principal components, and the network then only learns
    what they miss. Internally the values are `(picture - data_mean) / data_std`, so that both pictures and motion
    fields have the usual magnitude.

    Args:
        patch_size: side of a patch in pixels.
        data_mean: about the mean of the pictures.
        data_std: about their standard deviation.
        in_channels: channels of the picture at the input. This and all following arguments are as in `AutoencoderKL`.
        out_channels: channels of the picture at the output.
    """

    ignore_for_config = [
        *("act_fn", "shift_factor", "latents_mean", "latents_std", "force_upcast"),
        *("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention"),
    ]

    @register_to_config
    def __init__(
        self,
        patch_size: int = 8,
        data_mean: float = 0.0,
        data_std: float = 1.0,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",),
        up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",),
        block_out_channels: tuple[int, ...] = (64,),
        layers_per_block: int = 1,
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        sample_size: int = 128,
        scaling_factor: float = 1.0,
    ) -> None:
        area = patch_size**2
        super().__init__(
            in_channels=in_channels * area,
            out_channels=out_channels * area,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            latent_channels=latent_channels,
            norm_num_groups=norm_num_groups,
            sample_size=sample_size,
            scaling_factor=scaling_factor,
        )
        self.register_to_config(in_channels=in_channels, out_channels=out_channels)
        down = 2 ** (len(block_out_channels) - 1)
        self.shortcut_in = _PreciseConv(in_channels * area, latent_channels, down, down)
        self.shortcut_out = _PreciseConv(latent_channels, out_channels * area * down**2, 1)

    def enable_tiling(self, use_tiling: bool = True) -> None:
        """Tiling is not available, and not needed: with one position for each patch, the whole picture is small.

        Args:
            use_tiling: only False is accepted.

        Raises:
            ValueError: if `use_tiling` is True.
        """
        if use_tiling:
            raise ValueError("A PatchAutoencoderKL has no tiling; use enable_slicing to save memory.")

    def _encode(self, x: Tensor) -> Tensor:
        x = (x - self.config.data_mean) / self.config.data_std
        x = pixel_unshuffle(x, self.config.patch_size)  # (B, C p^2, H/p, W/p)
        mean, logvar = super()._encode(x).chunk(2, dim=1)
        return torch.cat([mean + self.shortcut_in(x), logvar], dim=1)

    def _decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        down = 2 ** (len(self.config.block_out_channels) - 1)
        x = super()._decode(z).sample + pixel_shuffle(self.shortcut_out(z), down)  # (B, C p^2, H/p, W/p)
        x = pixel_shuffle(x, self.config.patch_size) * self.config.data_std + self.config.data_mean
        return DecoderOutput(sample=x) if return_dict else (x,)


def load_vae(folder: str | Path) -> AutoencoderKL:
    """Load a saved autoencoder, of whichever of the two classes its config names, in float32.

    Args:
        folder: what `save_pretrained` wrote.

    Returns:
        The autoencoder.

    Raises:
        OSError: if there is no autoencoder in the folder.
        ValueError: if the file does not have exactly the autoencoder's tensors.
    """
    name = AutoencoderKL.load_config(folder)["_class_name"]
    kind = PatchAutoencoderKL if name == PatchAutoencoderKL.__name__ else AutoencoderKL
    return keep_ends_precise(load_strict(kind, folder).float())


def factor(vae: AutoencoderKL) -> int:
    """How many pixels wide a latent is: a factor of 2 for each downsampling, times the patch size if there is one."""
    return 2 ** (len(vae.config.block_out_channels) - 1) * getattr(vae.config, "patch_size", 1)


def encode(vae: AutoencoderKL, x: Tensor, batch: int | None = None, scaled: bool = True) -> Tensor:
    """The latents of images or of unit flow: the mean of the posterior, times `scaling_factor`.

    Args:
        vae: the autoencoder.
        x: `(..., C, H, W)`, images in [-1, 1] or unit flow in [0, 1]; H and W must be divisible by `factor(vae)`.
        batch: how many pictures are encoded at a time; all at once if None.
        scaled: False leaves `scaling_factor` out, as the condition of the ControlNet does in the released code.

    Returns:
        `(..., latent_channels, H/f, W/f)`.

    Raises:
        ValueError: if the channels or the size do not fit the autoencoder.
    """
    f = factor(vae)
    if x.shape[-3] != vae.config.in_channels or x.shape[-1] % f or x.shape[-2] % f:
        raise ValueError(
            f"The autoencoder takes (..., {vae.config.in_channels}, H, W) with H and W divisible by {f}, "
            f"not {tuple(x.shape)}: resize or pad first."
        )
    flat = x.reshape(-1, *x.shape[-3:])
    parts = [vae.encode(part).latent_dist.mode() for part in flat.split(batch or max(len(flat), 1))]
    latents = torch.cat(parts).reshape(*x.shape[:-3], *parts[0].shape[1:])
    return latents * vae.config.scaling_factor if scaled else latents


def decode(vae: AutoencoderKL, z: Tensor, batch: int | None = None, scaled: bool = True) -> Tensor:
    """The pictures of latents, which is the reverse of `encode`.

    Args:
        vae: the autoencoder.
        z: `(..., latent_channels, h, w)`.
        batch: how many pictures are decoded at a time; all at once if None.
        scaled: whether `z` has been multiplied by `scaling_factor`.

    Returns:
        `(..., C, h*f, w*f)`, images in about [-1, 1] or unit flow in about [0, 1]; values are not clamped.

    Raises:
        ValueError: if the channels do not fit the autoencoder.
    """
    if z.shape[-3] != vae.config.latent_channels:
        raise ValueError(
            f"The autoencoder takes latents of {vae.config.latent_channels} channels in dimension -3, "
            f"not {tuple(z.shape)}: (B, C, F, h, w) latents must be permuted to (B, F, C, h, w) first."
        )
    flat = z.reshape(-1, *z.shape[-3:])
    if scaled:
        flat = flat / vae.config.scaling_factor
    parts = [vae.decode(part).sample for part in flat.split(batch or max(len(flat), 1))]
    return torch.cat(parts).reshape(*z.shape[:-3], *parts[0].shape[1:])
