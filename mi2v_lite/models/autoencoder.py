"""The two autoencoders: images (3 channels in [-1, 1]) and flow (2 channels in [0, 1], 0.5 = no motion).

Both are diffusers' `AutoencoderKL` of the same topology (paper section 3.1; notebook 01). A `patch_size` in the config
makes it a `PatchAutoencoderKL`, which small models need. The flow one may start from the image one's weights. All sizes
come from the config. Latents are the posterior's mean times `scaling_factor`; there is no shift.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ModelMixin  # noqa: F401  DiffusionPipeline looks for ModelMixin beside a class
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle


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


@torch.no_grad()
def start_pca(vae: PatchAutoencoderKL, pictures: Iterable[Tensor], whitening: float = 0.5) -> PatchAutoencoderKL:
    """Sets a fresh autoencoder to the principal components of its patches: the best linear one, in closed form.

    The network beside the linear maps begins at zero, the noise of the posterior at about 1 % of a latent.

    Args:
        vae: freshly built.
        pictures: batches `(B, C, H, W)` in the autoencoder's range; together at least as many patches as a patch has
            values.
        whitening: a component of standard deviation s becomes a latent of s ** (1 - whitening). At 0 an error of a
            latent weighs alike in pixels whichever it is, at 1 by how much it varies; halfway neither brightness nor
            detail drowns in a denoiser's errors.

    Raises:
        ValueError: if there are too few pictures.
    """
    side = factor(vae)
    total, square, count = 0.0, 0.0, 0
    for batch in pictures:
        x = (batch.double() - vae.config.data_mean) / vae.config.data_std
        rows = pixel_unshuffle(x, side).movedim(1, -1).flatten(0, -2)  # (patches, values)
        total, square, count = total + rows.sum(0), square + rows.T @ rows, count + len(rows)
    if count < vae.config.in_channels * side**2:
        raise ValueError(f"start_pca needs at least {vae.config.in_channels * side**2} patches, got {count}.")
    mean = total / count
    covariance = square / count - torch.outer(mean, mean)
    variance, vectors = torch.linalg.eigh(covariance)  # ascending
    k = vae.config.latent_channels
    vectors = vectors[:, -k:].flip(1)  # (values, k), the strongest first
    vectors = vectors * vectors.sum(0).sign().where(vectors.sum(0) != 0, 1.0)  # a repeatable sign
    spread = variance[-k:].flip(0).clamp(min=1e-12).sqrt() ** whitening
    into, out = (vectors / spread).T, vectors * spread  # (k, values), (values, k)
    # Values of a patch of `side` pixels are ordered (C, side, side); the convolutions see patches of `patch_size`.
    c, p, down = vae.config.in_channels, vae.config.patch_size, side // vae.config.patch_size
    vae.shortcut_in.weight.copy_(rearrange(into, "k (c i p j q) -> k (c p q) i j", c=c, i=down, j=down, p=p, q=p))
    vae.shortcut_in.bias.copy_(-into @ mean)
    order = "(c i p j q) ... -> (c p q i j) ..."
    vae.shortcut_out.weight.copy_(rearrange(out, order, c=c, i=down, j=down, p=p, q=p)[:, :, None, None])
    vae.shortcut_out.bias.copy_(rearrange(mean, order, c=c, i=down, j=down, p=p, q=p))
    for layer in (vae.encoder.conv_out, vae.decoder.conv_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.zeros_(vae.quant_conv.bias[:k])
    vae.quant_conv.bias[k:] = -9.0
    return vae


def load_vae(folder: str | Path) -> AutoencoderKL:
    """An autoencoder as it was saved, of whichever of the two classes its config names, in float32.

    Raises:
        OSError: if the folder holds none.
    """
    name = AutoencoderKL.load_config(folder)["_class_name"]
    kind = PatchAutoencoderKL if name == PatchAutoencoderKL.__name__ else AutoencoderKL
    return keep_ends_precise(kind.from_pretrained(folder).float())


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


@torch.no_grad()
def flow_vae_from_image_vae(image_vae: AutoencoderKL, config: dict, gain: float = 16.0) -> AutoencoderKL:
    """A flow autoencoder that starts from an image autoencoder (notebook 01 compares it with one from scratch).

    Equal shapes are copied. A field is shown to the image network as a picture with x in red, y in blue and their mean
    in green, and read from red and blue. Of the latents those are kept that the decoder's first layer weighs most.
    Unit flow hardly leaves 0.5 where pictures fill [-1, 1], so the first layer sees `gain * (unit - 0.5)` and the last
    gives `0.5 + picture / gain`; both are folded into the weights. With patches `data_mean` and `data_std` do that.

    Args:
        image_vae: the trained autoencoder, same `block_out_channels` and `layers_per_block`, at least as many latents.
        config: the flow autoencoder's config, see `make_vae`.
        gain: how much flow is spread before the image network sees it; 16 makes 1/8 of the image fill [-1, 1]. Not used
            with patches.

    Raises:
        ValueError: if the topologies differ.
    """
    vae = make_vae(config)
    source, target = image_vae.state_dict(), vae.state_dict()
    if source.keys() != target.keys():
        odd = sorted(source.keys() ^ target.keys())[:3]
        raise ValueError(f"The flow autoencoder must have the image autoencoder's blocks; only one has {odd}.")
    latents, wanted = image_vae.config.latent_channels, vae.config.latent_channels
    if wanted > latents:
        raise ValueError(f"The flow autoencoder has {wanted} latent channels, the image one only {latents}.")
    keep = _weightiest_latents(image_vae, wanted)
    both = torch.cat([keep, keep + latents])  # means and log-variances
    patches, area = isinstance(vae, PatchAutoencoderKL), getattr(vae.config, "patch_size", 1) ** 2
    gain, shift = (1.0, 0.0) if patches else (gain, 0.5)
    cuts = {
        "encoder.conv_out": (both, None),
        "quant_conv": (both, both),
        "post_quant_conv": (keep, keep),
        "decoder.conv_in": (None, keep),
        "shortcut_in": (keep, None),
        "shortcut_out": (None, keep),
    }
    for name, new in target.items():
        layer, _, kind = name.rpartition(".")
        old = source[name]
        rows, columns = cuts.get(layer, (None, None))
        old = old if rows is None else old[rows]
        old = old if columns is None or kind == "bias" else old[:, columns]
        if layer in ("encoder.conv_in", "shortcut_in") and kind == "weight":
            old = _flow_from_colours(old, area) * gain
        elif layer == "encoder.conv_in":
            old = old - shift * gain * _flow_from_colours(source["encoder.conv_in.weight"], area).sum((1, 2, 3))
        elif layer in ("decoder.conv_out", "shortcut_out"):
            red, _, blue = rearrange(old, "(c rest) ... -> c rest ...", c=3)
            old = torch.cat([red, blue]) / gain + (shift if kind == "bias" else 0.0)
        if old.shape != new.shape:
            raise ValueError(f"{name} is {tuple(old.shape)} in the image autoencoder, {tuple(new.shape)} in the other.")
        new.copy_(old)
    return vae


def _flow_from_colours(weight: Tensor, area: int) -> Tensor:
    """Weights `(O, 3 area, kh, kw)` that read colours, to `(O, 2 area, kh, kw)`: red to x, blue to y, green to both."""
    red, green, blue = weight.split(area, dim=1)
    return torch.cat([red + green / 2, blue + green / 2], 1)


def _weightiest_latents(vae: AutoencoderKL, count: int) -> Tensor:
    """Indices, in order, of the latents with the largest weights from there to the decoder's first layer's output."""
    weight = vae.decoder.conv_in.weight.flatten(2)
    if vae.post_quant_conv is not None:
        weight = torch.einsum("oik,ij->ojk", weight, vae.post_quant_conv.weight[:, :, 0, 0])
    return weight.square().sum((0, 2)).topk(count).indices.sort().values
