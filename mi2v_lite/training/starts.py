"""Starts for models that are trained from nothing, in closed form or from another model (notebooks 01 and 03)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from mi2v_lite.models.autoencoder import PatchAutoencoderKL, factor, make_vae
from mi2v_lite.models.temporal import TemporalAttention, TemporalTransformer

SHARPNESS = 4.0  # by how much the wanted key's score begins above its neighbours'


@torch.no_grad()
def start_warped(model: nn.Module) -> None:
    """Sets every motion module of a Stage 2 UNet so that frame i begins by copying its warped feature z'[i]. In place.

    The paper's motion modules start from AnimateDiff's, which have learned to look along time. Fresh ones would first
    have to find, among 2F - 1 keys, the one that matters. Here the query of frame i begins by looking for the position
    code of z'[i], which is one step before its own, and the values pass through unchanged. This is a start and not a
    constraint: all of it is trained on.

    Args:
        model: holds temporal transformers with `fusion="attention"`; their other parts keep their random start.

    Raises:
        ValueError: If it holds none, or others beside them.
    """
    modules = [module for module in model.modules() if isinstance(module, TemporalTransformer)]
    blocks = [block for module in modules for block in module.transformer_blocks]
    if not blocks or any(block.attention_blocks[0].fusion != "attention" for block in blocks):
        raise ValueError("start 'warped' needs motion modules with fusion 'attention': set it, or another start.")
    for module in modules:
        nn.init.eye_(module.proj_in.weight)
        nn.init.zeros_(module.proj_in.bias)
        nn.init.eye_(module.proj_out.weight)
        for block in module.transformer_blocks:
            first, *others = block.attention_blocks
            _look_one_step_back(first, block.norms[0])
            for attention in others:  # at first they must not blur what the first one brings
                attention.to_out[0].weight.mul_(0.1)


def _look_one_step_back(attention: TemporalAttention, norm: nn.LayerNorm) -> None:
    channels, heads = attention.to_q.in_features, attention.heads
    width = channels // heads
    angles = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / channels))  # of the fastest position codes
    contrast = float((1 - angles.cos()).sum())  # of the scores of neighbouring positions, at scale 1
    scale = math.sqrt(SHARPNESS * math.sqrt(width) / contrast)
    norm.weight[:width] = 0  # these channels begin with nothing but the position in them
    query, key = torch.zeros(width, channels), torch.zeros(width, channels)
    key[:, :width] = torch.eye(width) * scale
    query[:, :width] = torch.block_diag(*(_turn(float(angle)) for angle in angles)) * scale
    attention.to_q.weight.copy_(query.repeat(heads, 1))
    attention.to_k.weight.copy_(key.repeat(heads, 1))
    nn.init.eye_(attention.to_v.weight)
    nn.init.eye_(attention.to_out[0].weight)


def _turn(angle: float) -> Tensor:
    """The matrix that takes (sin wp, cos wp) to (sin w(p - 1), cos w(p - 1)), where w is the angle."""
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


@torch.no_grad()
def start_pca(vae: PatchAutoencoderKL, pictures: Iterable[Tensor], whitening: float = 0.5) -> PatchAutoencoderKL:
    """Sets a fresh autoencoder to the principal components of patches: the best linear one, in closed form.

    The network beside the linear maps begins at zero, and the noise of the posterior at about 1 % of a latent.

    Args:
        vae: a freshly built autoencoder. It is changed in place.
        pictures: batches `(B, C, H, W)` in the autoencoder's range, which together have at least as many patches as a
            patch has values.
        whitening: a component with standard deviation s becomes a latent with s ** (1 - whitening). At 0 the same error
            in any latent costs the same in pixels, at 1 it costs as much as this latent varies; halfway, neither
            brightness nor detail drowns in the errors of a denoiser.

    Returns:
        `vae`.

    Raises:
        ValueError: If there are too few pictures.
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


@torch.no_grad()
def flow_vae_from_image_vae(image_vae: AutoencoderKL, config: dict, gain: float = 16.0) -> AutoencoderKL:
    """Makes a flow autoencoder that starts from an image autoencoder (notebook 01 compares it with one from scratch).

    Weights of equal shape are copied. The image network sees a field as a picture with x in red, y in blue and their
    mean in green, and the field is read from red and blue. Those latents are kept that the first layer of the decoder
    weighs most. Unit flow stays near 0.5 while pictures fill [-1, 1], so the first layer sees `gain * (unit - 0.5)` and
    the last one gives `0.5 + picture / gain`; both are folded into the weights. With patches, `data_mean` and
    `data_std` do that.

    Args:
        image_vae: the trained autoencoder, with the same `block_out_channels` and `layers_per_block` and at least as
            many latents.
        config: the config of the flow autoencoder, see `make_vae`.
        gain: by how much flow is spread before the image network sees it; with 16, a displacement of 1/8 of the image
            fills [-1, 1]. Not used with patches.

    Returns:
        The flow autoencoder.

    Raises:
        ValueError: If the two networks are not built alike.
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
    """Weights `(O, 3 area, kh, kw)` that read colours, made to read flow `(O, 2 area, kh, kw)`; green goes to both."""
    red, green, blue = weight.split(area, dim=1)
    return torch.cat([red + green / 2, blue + green / 2], 1)


def _weightiest_latents(vae: AutoencoderKL, count: int) -> Tensor:
    """The numbers, in order, of the latents with the largest weights in the first layer of the decoder."""
    weight = vae.decoder.conv_in.weight.flatten(2)
    if vae.post_quant_conv is not None:
        weight = torch.einsum("oik,ij->ojk", weight, vae.post_quant_conv.weight[:, :, 0, 0])
    return weight.square().sum((0, 2)).topk(count).indices.sort().values
