"""The two autoencoders: images (3 channels in [-1, 1]) and flow (2 channels in [0, 1], 0.5 = no motion).

Both are diffusers' `AutoencoderKL` of the same topology (REFERENCE, "Flow autoencoder"; paper section 3.1;
notebook 01). The flow one may start from the image one's weights or as an average pool. All sizes come from the config.
Latents are the posterior's mean times `scaling_factor`; there is no shift.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn


def make_vae(config: dict) -> AutoencoderKL:
    """Builds an autoencoder from the arguments of `AutoencoderKL`; the block types follow `block_out_channels`.

    Args:
        config: any arguments of `diffusers.AutoencoderKL`, at least `block_out_channels`.

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
        return keep_ends_precise(AutoencoderKL(**config))
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


@torch.no_grad()
def start_linear(vae: AutoencoderKL, gain: float = 16.0) -> AutoencoderKL:
    """Sets a flow autoencoder's fresh weights so that it begins as an average pool and a nearest upsampling.

    A motion field is mostly smooth, so this is already close, and training has only the rest to learn; from random
    weights the same error takes many times the steps. Channels (x, -x, R, -R, y, -y, R, -R) are carried through all
    layers: silu(x) - silu(-x) = x takes them through the activation, and the constant R, large beside x, makes the
    group norms nearly linear. All residual branches begin at zero; all other channels are free.

    Args:
        vae: 2 channels in and out, at least 8 channels in every block and at least 4 in every group norm's group.
        gain: x = gain * (unit flow - 0.5): motion of 1/8 of the picture becomes 1.

    Raises:
        ValueError: if it is no flow autoencoder or too narrow.
    """
    widths, groups = vae.config.block_out_channels, vae.config.norm_num_groups
    if vae.config.in_channels != 2 or min(widths) < 8 or min(widths) < 4 * groups:
        raise ValueError(
            f"start_linear needs 2 channels, blocks of at least 8 and groups of at least 4 channels, not "
            f"{vae.config.in_channels} channels, blocks {list(widths)}, {groups} groups."
        )
    constant = gain / 2  # R: larger is more linear, but makes every weight that touches it more delicate to train
    for name, module in vae.named_modules():
        if name.endswith((".conv2", ".to_out.0")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif name.endswith((".conv_shortcut", "samplers.0.conv")):
            taps = [(0, 0), (0, 1), (1, 0), (1, 1)] if "downsamplers" in name else [module.weight.shape[-1] // 2] * 2
            _carry(module, [taps] if isinstance(taps[0], int) else taps)
    for conv in (vae.quant_conv, vae.post_quant_conv):
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)

    def enter(conv: nn.Conv2d, scale: float, shift: float) -> None:
        conv.weight[:8], conv.bias[:8] = 0, constant * torch.tensor([0, 0, 1, -1, 0, 0, 1, -1.0])
        for row, source, sign in ((0, 0, 1), (1, 0, -1), (4, 1, 1), (5, 1, -1)):
            conv.weight[row, source, 1, 1], conv.bias[row] = sign * scale, -sign * scale * shift

    def leave(conv: nn.Conv2d, norm: nn.GroupNorm, scale: float, shift: float) -> None:
        carried = min(8, norm.num_channels // norm.num_groups) // 4  # how many of x and y share a group
        spread = constant * (2 * carried * norm.num_groups / norm.num_channels) ** 0.5  # std of a group, from R alone
        conv.weight[:2], conv.bias[:2] = 0, shift
        for row, source in ((0, 0), (1, 4)):
            conv.weight[row, source, 1, 1], conv.weight[row, source + 1, 1, 1] = scale * spread, -scale * spread

    enter(vae.encoder.conv_in, gain, 0.5)
    leave(vae.encoder.conv_out, vae.encoder.conv_norm_out, 1.0, 0.0)
    half = vae.config.latent_channels
    nn.init.zeros_(vae.encoder.conv_out.weight[half:])
    vae.encoder.conv_out.bias[half:] = -9.0  # log-variance: noise well below a pixel
    enter(vae.decoder.conv_in, 1.0, 0.0)
    leave(vae.decoder.conv_out, vae.decoder.conv_norm_out, 1 / gain, 0.5)
    return vae


def _carry(conv: nn.Conv2d, taps: list) -> None:
    """Makes the first 8 channels of a convolution the mean of the same input channels at these kernel positions."""
    conv.weight[:8], conv.bias[:8] = 0, 0
    for channel in range(8):
        for y, x in taps:
            conv.weight[channel, channel, y, x] = 1 / len(taps)


def factor(vae: AutoencoderKL) -> int:
    """How many pixels a latent is wide: 2 per downsampling, 8 for four blocks."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def encode(vae: AutoencoderKL, x: Tensor, batch: int | None = None, scaled: bool = True) -> Tensor:
    """Latents of images or unit flow: the posterior's mean, times `scaling_factor` unless `scaled` is False.

    Args:
        vae: the autoencoder.
        x: `(..., C, H, W)`, images in [-1, 1] or unit flow in [0, 1]; H and W divisible by `factor(vae)`.
        batch: at most this many pictures at a time, all at once if None.
        scaled: False for the ControlNet's condition, which takes the raw latent (REFERENCE, ControlNet).

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
    gives `0.5 + picture / gain`; both are folded into the weights.

    Args:
        image_vae: the trained autoencoder, same `block_out_channels` and `layers_per_block`, at least as many latents.
        config: the flow autoencoder's config, see `make_vae`.
        gain: how much flow is spread before the image network sees it; 16 makes 1/8 of the image fill [-1, 1].

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
    cuts = {
        "encoder.conv_out": (both, None),
        "quant_conv": (both, both),
        "post_quant_conv": (keep, keep),
        "decoder.conv_in": (None, keep),
    }
    for name, new in target.items():
        layer, _, kind = name.rpartition(".")
        old = source[name]
        rows, columns = cuts.get(layer, (None, None))
        old = old if rows is None else old[rows]
        old = old if columns is None or kind == "bias" else old[:, columns]
        if layer == "encoder.conv_in":
            red, green, blue = source["encoder.conv_in.weight"].unbind(1)
            weight = torch.stack([red + green / 2, blue + green / 2], 1) * gain
            old = weight if kind == "weight" else old - 0.5 * weight.sum((1, 2, 3))
        elif layer == "decoder.conv_out":
            old = old[[0, 2]] / gain + (0.5 if kind == "bias" else 0.0)
        if old.shape != new.shape:
            raise ValueError(f"{name} is {tuple(old.shape)} in the image autoencoder, {tuple(new.shape)} in the other.")
        new.copy_(old)
    return vae


def _weightiest_latents(vae: AutoencoderKL, count: int) -> Tensor:
    """Indices, in order, of the latents with the largest weights from there to the decoder's first layer's output."""
    weight = vae.decoder.conv_in.weight.flatten(2)
    if vae.post_quant_conv is not None:
        weight = torch.einsum("oik,ij->ojk", weight, vae.post_quant_conv.weight[:, :, 0, 0])
    return weight.square().sum((0, 2)).topk(count).indices.sort().values
