"""The two autoencoders: images (3 channels in [-1, 1]) and flow (2 channels in [0, 1], 0.5 = no motion).

Both are diffusers' `AutoencoderKL` of the same topology (paper section 3.1; notebook 01). A `patch_size` in the config
makes it a `PatchAutoencoderKL`, which small models need. The flow one may start from the image one's weights. All sizes
come from the config. Latents are the posterior's mean times `scaling_factor`; there is no shift.
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
    """Builds an autoencoder; the block types follow `block_out_channels`.

    Args:
        config: any arguments of `diffusers.AutoencoderKL`, at least `block_out_channels`. With `patch_size` those of
            `PatchAutoencoderKL`.

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
    """A convolution that autocast leaves in the precision of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


def keep_ends_precise(vae: AutoencoderKL) -> AutoencoderKL:
    """Keeps the first and the last convolution out of autocast; names and values stay.

    Near 0.5, where unit flow lives, neighbouring bfloat16 numbers are half a pixel of a 128 px picture apart.
    """
    for part, name in ((vae.encoder, "conv_in"), (vae.decoder, "conv_out")):
        old = getattr(part, name)
        new = _PreciseConv(old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding)
        new.weight, new.bias = old.weight, old.bias
        setattr(part, name, new)
    return vae


class PatchAutoencoderKL(AutoencoderKL):
    """An `AutoencoderKL` over patches: every `patch_size` x `patch_size` pixels become the channels of one position.

    A decoder of nearest upsampling and convolutions draws a constant picture from constant latents, so fine texture is
    hard for it and takes very long to learn. Cut into patches, texture is a matter of channels. A linear map goes past
    the network on both sides (as in Chen et al. 2024, "Deep Compression Autoencoder"): `start_pca` sets it to the
    principal components, and the network learns only what they miss. Everything works on
    `(picture - data_mean) / data_std`, in which both pictures and motion fields are of usual size.

    Args:
        patch_size: side of a patch in pixels.
        data_mean, data_std: about the mean and the standard deviation of the pictures.
        others: as in `AutoencoderKL`; `in_channels` and `out_channels` are those of the picture.
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
        """Not offered: at one position a patch, the whole picture is small.

        Raises:
            ValueError: always, unless `use_tiling` is False.
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
    """An autoencoder as it was saved, of whichever of the two classes its config names, in float32.

    Raises:
        OSError: if the folder holds none.
    """
    name = AutoencoderKL.load_config(folder)["_class_name"]
    kind = PatchAutoencoderKL if name == PatchAutoencoderKL.__name__ else AutoencoderKL
    return keep_ends_precise(load_strict(kind, folder).float())


def factor(vae: AutoencoderKL) -> int:
    """How many pixels a latent is wide: 2 per downsampling, times the patch size if there is one."""
    return 2 ** (len(vae.config.block_out_channels) - 1) * getattr(vae.config, "patch_size", 1)


def encode(vae: AutoencoderKL, x: Tensor, batch: int | None = None, scaled: bool = True) -> Tensor:
    """Latents of images or unit flow: the posterior's mean, times `scaling_factor` unless `scaled` is False.

    Args:
        vae: the autoencoder.
        x: `(..., C, H, W)`, images in [-1, 1] or unit flow in [0, 1]; H and W divisible by `factor(vae)`.
        batch: at most this many pictures at a time, all at once if None.
        scaled: False for the ControlNet's condition, which takes the raw latent in the released code.

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
    """Pictures of latents: the reverse of `encode`, not clamped.

    Args:
        vae: the autoencoder.
        z: `(..., latent_channels, h, w)`.
        batch: at most this many pictures at a time, all at once if None.
        scaled: whether `z` carries `scaling_factor`.

    Returns:
        `(..., C, h*f, w*f)`, images about [-1, 1] or unit flow about [0, 1].

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
