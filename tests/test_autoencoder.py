"""The autoencoders: shapes, batches, scale, and the flow one that starts from the image one."""

import pytest
import torch
from diffusers import AutoencoderKL

from mi2v_lite.models.autoencoder import PatchAutoencoderKL, decode, encode, factor, load_vae, make_vae
from mi2v_lite.training.starts import flow_vae_from_image_vae, start_pca

IMAGE = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 6}
FLOW = {**IMAGE, "in_channels": 2, "out_channels": 2, "latent_channels": 4}


def test_encode_and_decode_fold_leading_dimensions():
    torch.manual_seed(0)
    vae = make_vae({**IMAGE, "scaling_factor": 0.5}).eval()
    assert factor(vae) == 2
    x = torch.rand(2, 3, 3, 16, 12)
    with torch.no_grad():
        z = encode(vae, x)
        assert z.shape == (2, 3, 6, 8, 6)
        torch.testing.assert_close(z, 0.5 * vae.encode(x.flatten(0, 1)).latent_dist.mean.unflatten(0, (2, 3)))
        torch.testing.assert_close(encode(vae, x, scaled=False), z * 2)
        torch.testing.assert_close(encode(vae, x, batch=4), z, atol=1e-5, rtol=1e-5)
        y = decode(vae, z)
        assert y.shape == x.shape
        torch.testing.assert_close(decode(vae, z, batch=1), y, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(decode(vae, 2 * z, scaled=False), y, atol=1e-5, rtol=1e-5)


def test_errors_name_what_is_wrong():
    vae = make_vae(IMAGE)
    with pytest.raises(ValueError, match="divisible by 2"):
        encode(vae, torch.rand(1, 3, 15, 16))
    with pytest.raises(ValueError, match="latents of 6 channels"):
        decode(vae, torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="block_out_channels"):
        make_vae({"latent_channels": 4})
    with pytest.raises(ValueError, match="widths"):
        make_vae({**IMAGE, "widths": 3})


def test_flow_vae_sees_flow_as_the_image_vae_sees_colours():
    """With equal latents: x is red, y is blue, green their mean, at `gain` times the contrast."""
    torch.manual_seed(0)
    image_vae = make_vae(IMAGE).eval()
    vae = flow_vae_from_image_vae(image_vae, {**FLOW, "latent_channels": 6}, gain=8.0).eval()
    x, y = torch.rand(2, 2, 16, 16).mul(0.5).sub(0.25).unbind(1)
    picture = torch.stack([x, (x + y) / 2, y], 1)
    unit = 0.5 + torch.stack([x, y], 1) / 8
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # the border pads with 0, another value in each
    with torch.no_grad():
        first = vae.encoder.conv_in(unit), image_vae.encoder.conv_in(picture)
        torch.testing.assert_close(first[0][inside], first[1][inside], atol=1e-5, rtol=1e-4)
        z = torch.randn(2, 6, 8, 8)
        expected = 0.5 + decode(image_vae, z, scaled=False)[:, [0, 2]] / 8
        torch.testing.assert_close(decode(vae, z, scaled=False), expected, atol=1e-5, rtol=1e-4)


def test_flow_vae_keeps_the_latents_that_weigh_most():
    torch.manual_seed(0)
    image_vae = make_vae(IMAGE).eval()
    keep, drop = [0, 2, 3, 5], [1, 4]
    with torch.no_grad():
        image_vae.post_quant_conv.weight[:, drop] = 0
        for row in drop:  # nor does anything else read the two
            image_vae.post_quant_conv.weight[row] = 0
            image_vae.post_quant_conv.bias[row] = 0
    vae = flow_vae_from_image_vae(image_vae, FLOW, gain=1.0)
    assert torch.equal(vae.post_quant_conv.weight, image_vae.post_quant_conv.weight[keep][:, keep])
    both = [*keep, *(i + 6 for i in keep)]  # means, then log-variances
    assert torch.equal(vae.encoder.conv_out.weight, image_vae.encoder.conv_out.weight[both])
    assert torch.equal(vae.quant_conv.weight, image_vae.quant_conv.weight[both][:, both])
    z = torch.randn(1, 6, 4, 4)
    with torch.no_grad():
        expected = 0.5 + decode(image_vae, z, scaled=False)[:, [0, 2]]
        torch.testing.assert_close(decode(vae, z[:, keep], scaled=False), expected, atol=1e-5, rtol=1e-4)


def test_flow_vae_refuses_other_topologies():
    image_vae = make_vae(IMAGE)
    with pytest.raises(ValueError, match="must have the image autoencoder's blocks"):
        flow_vae_from_image_vae(image_vae, {**FLOW, "layers_per_block": 2})
    with pytest.raises(ValueError, match="has 8 latent channels, the image one only 6"):
        flow_vae_from_image_vae(image_vae, {**FLOW, "latent_channels": 8})
    with pytest.raises(ValueError, match="in the other"):
        flow_vae_from_image_vae(image_vae, {**FLOW, "block_out_channels": [8, 32]})


PATCHES = {
    "patch_size": 4,
    "data_std": 0.5,
    "block_out_channels": [16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 6,
}


def flat_pictures(rank: int, count: int = 8, side: int = 4) -> torch.Tensor:
    """Pictures `(count, 3, 32, 32)` whose patches of `side` pixels are mixtures of `rank` patches."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(rank, 3 * side * side, generator=generator)
    grid = 32 // side
    mixed = torch.randn(count, grid, grid, rank, generator=generator) @ basis
    return torch.nn.functional.pixel_shuffle(mixed.movedim(-1, 1), side)


@pytest.mark.parametrize("blocks", [[16], [16, 16]], ids=["one block", "with downsampling"])
def test_pca_start_is_exact_where_patches_have_few_components(blocks):
    torch.manual_seed(0)
    vae = make_vae({**PATCHES, "block_out_channels": blocks}).eval()
    assert factor(vae) == 4 * 2 ** (len(blocks) - 1)
    pictures = flat_pictures(rank=5, count=24, side=factor(vae))
    start_pca(vae, pictures.split(4))
    with torch.no_grad():
        z = encode(vae, pictures)
        assert z.shape == (24, 6, 32 // factor(vae), 32 // factor(vae))
        torch.testing.assert_close(decode(vae, z), pictures, atol=1e-3, rtol=1e-3)
        spread = z.std((0, 2, 3))
        assert (spread[:4] >= spread[1:5]).all() and spread[5] < 1e-2 * spread[0], "strongest first, the sixth is empty"
        worse = flat_pictures(rank=12, side=factor(vae))
        error = (decode(vae, encode(vae, worse)) - worse).square().mean()
    assert error > 0.05 * worse.square().mean(), "six components cannot hold twelve"


def test_pca_start_needs_enough_patches():
    with pytest.raises(ValueError, match="at least 48 patches, got 16"):
        start_pca(make_vae(PATCHES), [torch.rand(1, 3, 16, 16)])


def test_patches_survive_saving(tmp_path):
    torch.manual_seed(0)
    vae = start_pca(make_vae(PATCHES).eval(), [flat_pictures(12)])
    torch.nn.init.normal_(vae.decoder.conv_out.weight, std=0.1)  # so that the network counts as well
    vae.save_pretrained(tmp_path)
    again = load_vae(tmp_path).eval()
    assert type(again) is PatchAutoencoderKL and dict(again.config)["in_channels"] == 3
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(again(x).sample, vae(x).sample)
        vae.enable_slicing()
        torch.testing.assert_close(again(x).sample, vae(x).sample)
    with pytest.raises(ValueError, match="no tiling"):
        vae.enable_tiling()
    make_vae(IMAGE).save_pretrained(tmp_path / "plain")
    assert type(load_vae(tmp_path / "plain")) is AutoencoderKL


def test_flow_vae_with_patches_sees_flow_as_the_image_vae_sees_colours():
    torch.manual_seed(0)
    image_vae = start_pca(make_vae(PATCHES).eval(), [flat_pictures(12)])
    torch.nn.init.normal_(image_vae.decoder.conv_out.weight, std=0.1)
    config = {**PATCHES, "in_channels": 2, "out_channels": 2, "data_mean": 0.5, "data_std": 0.02}
    vae = flow_vae_from_image_vae(image_vae, config).eval()
    x, y = torch.randn(2, 2, 16, 16).mul(0.3).unbind(1)
    picture = torch.stack([x, (x + y) / 2, y], 1)
    unit = 0.5 + torch.stack([x, y], 1) * 0.02 / 0.5
    with torch.no_grad():
        torch.testing.assert_close(
            encode(vae, unit, scaled=False), encode(image_vae, picture, scaled=False), atol=1e-3, rtol=1e-3
        )
        z = torch.randn(2, 6, 4, 4)
        expected = 0.5 + decode(image_vae, z, scaled=False)[:, [0, 2]] * 0.02 / 0.5
        torch.testing.assert_close(decode(vae, z, scaled=False), expected, atol=1e-5, rtol=1e-4)


def test_ends_stay_precise_under_autocast():
    torch.manual_seed(0)
    vae = make_vae({"in_channels": 2, "out_channels": 2, "block_out_channels": [32, 32]})
    unit = torch.rand(1, 2, 16, 16) * 0.01 + 0.5
    exact = vae.encoder.conv_in(unit)
    with torch.autocast("cpu", torch.bfloat16):
        assert vae.encoder.conv_in(unit).dtype == torch.float32
        torch.testing.assert_close(vae.encoder.conv_in(unit), exact)
