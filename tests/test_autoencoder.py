"""The autoencoders: shapes, batches, scale, and the flow one that starts from the image one."""

import pytest
import torch

from mi2v_lite.flow.fields import from_unit, to_unit
from mi2v_lite.models.autoencoder import decode, encode, factor, flow_vae_from_image_vae, make_vae, start_linear

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


def test_linear_start_is_an_average_pool():
    torch.manual_seed(0)
    config = {"in_channels": 2, "out_channels": 2, "latent_channels": 4, "block_out_channels": [8, 16, 16]}
    vae = start_linear(make_vae({**config, "layers_per_block": 1, "norm_num_groups": 2}))
    flow = torch.zeros(1, 2, 32, 32)
    flow[:, 0, 8:16, 4:12], flow[:, 1] = 3.0, -2.0  # whole 4x4 blocks, so that averaging loses nothing
    unit = to_unit(flow)
    with torch.no_grad():
        mean = vae.encode(unit).latent_dist.mode()
        out = from_unit(vae.decode(mean).sample)
    blocks = torch.nn.functional.avg_pool2d(unit, 4)
    torch.testing.assert_close(mean[:, :2] / 16, blocks - 0.5, atol=2e-4, rtol=0.01)
    torch.testing.assert_close(out, flow, atol=0.05, rtol=0)


def test_linear_start_refuses_what_it_cannot_carry():
    with pytest.raises(ValueError, match="start_linear needs 2 channels"):
        start_linear(make_vae({"block_out_channels": [32, 32]}))


def test_ends_stay_precise_under_autocast():
    torch.manual_seed(0)
    vae = make_vae({"in_channels": 2, "out_channels": 2, "block_out_channels": [32, 32]})
    unit = torch.rand(1, 2, 16, 16) * 0.01 + 0.5
    exact = vae.encoder.conv_in(unit)
    with torch.autocast("cpu", torch.bfloat16):
        assert vae.encoder.conv_in(unit).dtype == torch.float32
        torch.testing.assert_close(vae.encoder.conv_in(unit), exact)
