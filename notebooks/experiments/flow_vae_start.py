"""Question 2: is the flow autoencoder better started from the image autoencoder's weights than from nothing?

The lite autoencoders are a network with a linear shortcut beside it, so there are two things that can be copied. The
arms take them apart: with the shortcut and without, each with the copied network and with a fresh one. The controls are
the shortcut alone with the network silenced, and the closed-form start of principal components.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from mi2v_lite import MotionI2VPipeline
from mi2v_lite.data.samples import heldout_world, sample_world
from mi2v_lite.flow.fields import from_unit, to_unit
from mi2v_lite.flow.metrics import endpoint_error
from mi2v_lite.models.autoencoder import decode, encode, make_vae
from mi2v_lite.training.starts import flow_vae_from_image_vae, start_pca

QUESTION = "Is the flow autoencoder better started from the image autoencoder's weights than from nothing?"
SEEDS = (0, 1, 2, 3)
UPDATES, BATCH, CROP, RATE = 100, 4, 64, 4e-4
MEASURED = (0, 10, 30, 60, 100)  # updates after which the held-out error is taken
SETTINGS = {"updates": UPDATES, "batch": BATCH, "crop": CROP, "learning_rate": RATE, "measured_at": MEASURED}


def world_fields(world: object, seeds: range) -> Tensor:
    """Single fields of a world's clips in unit range, three of each clip: `(n, 2, H, W)`."""
    return to_unit(torch.cat([torch.from_numpy(world.clip(seed).flow[[4, 9, 14]]) for seed in seeds])).clamp(0, 1)


def silence(vae: AutoencoderKL) -> AutoencoderKL:
    """Sets the last layers of the network to zero, so that at first only the shortcut speaks."""
    for layer in (vae.encoder.conv_out, vae.decoder.conv_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.zeros_(vae.quant_conv.bias[: vae.config.latent_channels])  # it would shift the means
    return vae


def without_shortcut(vae: AutoencoderKL) -> AutoencoderKL:
    """Takes the shortcut away for good, which leaves the topology of the paper: a network alone."""
    for layer in (vae.shortcut_in, vae.shortcut_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        layer.requires_grad_(False)
    return vae


def shortcut_only(vae: AutoencoderKL) -> AutoencoderKL:
    """Silences the network for good; only the shortcut learns."""
    silence(vae).requires_grad_(False)
    for layer in (vae.shortcut_in, vae.shortcut_out):
        layer.requires_grad_(True)
    return vae


def starts(image_vae: AutoencoderKL, flow_config: dict, fields: Tensor) -> dict[str, Callable[[], AutoencoderKL]]:
    """The arms: name -> what makes its autoencoder. All have the image network's size and the flow one's latents."""
    like_image = ("patch_size", "layers_per_block", "block_out_channels", "norm_num_groups")
    like_flow = ("data_mean", "data_std", "in_channels", "out_channels", "latent_channels")
    config = {key: image_vae.config[key] for key in like_image} | {key: flow_config[key] for key in like_flow}

    def copied() -> AutoencoderKL:
        return flow_vae_from_image_vae(image_vae, config)

    def fresh_beside_copied_shortcut() -> AutoencoderKL:
        vae, source = silence(make_vae(config)), copied()
        vae.shortcut_in.load_state_dict(source.shortcut_in.state_dict())
        vae.shortcut_out.load_state_dict(source.shortcut_out.state_dict())
        return vae

    return {
        "image network, no shortcut": lambda: without_shortcut(copied()),
        "fresh network, no shortcut": lambda: without_shortcut(make_vae(config)),
        "image network and shortcut": copied,
        "image shortcut, fresh network": fresh_beside_copied_shortcut,
        "image shortcut alone": lambda: shortcut_only(copied()),
        "everything fresh": lambda: make_vae(config),
        "principal components": lambda: start_pca(make_vae(config), fields.split(16)),
    }


def train(vae: AutoencoderKL, fields: Tensor, held: Tensor, seed: int) -> list[float]:
    """Trains on crops of single fields; all arms see the same crops in the same order.

    Args:
        vae: is trained in place.
        fields: `(n, 2, H, W)` in unit range.
        held: the fields that are only measured.
        seed: of the crops.

    Returns:
        the held-out end-point error in pixels at MEASURED.
    """
    generator, errors = torch.Generator().manual_seed(seed), []
    optimiser = torch.optim.AdamW([p for p in vae.parameters() if p.requires_grad], lr=RATE)
    places = fields.shape[-1] // 8 - CROP // 8 + 1
    scale = 2.0 * fields.shape[-1]  # unit range to pixels
    for update in range(UPDATES + 1):
        if update in MEASURED:
            with torch.no_grad():
                errors.append(float(endpoint_error(from_unit(decode(vae, encode(vae, held))), from_unit(held))))
        rows = torch.randint(len(fields), (BATCH,), generator=generator)
        y, x = (8 * torch.randint(places, (2,), generator=generator)).tolist()
        batch = fields[rows, :, y : y + CROP, x : x + CROP]
        loss = scale * (vae(batch).sample - batch).abs().mean()
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (update + 1) / 20)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
    return errors


def run(seed: int) -> dict:
    """Trains every arm once, on fields and from random weights that depend on the seed.

    Args:
        seed: of the fields, their order and the fresh weights.

    Returns:
        arm -> `epe`, the held-out error in pixels at MEASURED; under "no motion" what the error of no field would be.
    """
    pipe = MotionI2VPipeline.from_lite()
    fields = world_fields(sample_world("train"), range(1000 + 40 * seed, 1040 + 40 * seed))
    held = world_fields(heldout_world(), range(2000, 2006))
    values = {}
    for name, start in starts(pipe.vae, dict(pipe.flow_vae.config), fields).items():
        torch.manual_seed(seed)
        values[name] = {"epe": train(start(), fields, held, seed)}
    values["no motion"] = {"epe": float(from_unit(held).norm(dim=1).mean())}
    return values
