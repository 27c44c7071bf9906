"""Recording changes nothing, weights are the layer's own, and colours of features are on one basis."""

import numpy as np
import pytest
import torch

from mi2v_lite.flow.splat_cache import SplatCache
from mi2v_lite.models.temporal import TemporalAttention
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.viz.attention import pca_rgb, record


@pytest.fixture(scope="module")
def unet() -> VideoUNet:
    torch.manual_seed(0)
    model = VideoUNet(
        4, 4, (32, 32), 1, (True, False), 2, cross_attention_dim=8, motion_num_attention_heads=2, fusion="attention"
    )
    for name, parameter in model.named_parameters():
        if "proj_out" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


@pytest.fixture(scope="module")
def inputs() -> dict:
    generator = torch.Generator().manual_seed(1)
    flow = torch.randn(1, 3, 2, 16, 16, generator=generator) * 3
    sample = torch.randn(1, 4, 4, 8, 8, generator=generator)
    return {"sample": sample, "timestep": 5, "encoder_hidden_states": torch.zeros(1, 2, 8), "flow": flow}


@torch.no_grad()
def test_recording_changes_nothing_and_stops(unet, inputs):
    plain = unet(**inputs)
    with record(unet, steps=(1,)) as seen:
        first = unet(**inputs)
        assert not seen.calls, "step 0 was not asked for"
        unet(**inputs)
    assert torch.equal(first, plain)
    found = [name for name, module in unet.named_modules() if isinstance(module, TemporalAttention)]
    assert sorted(seen.names) == sorted(found) and {step for _, step in seen.calls} == {1}
    count = len(seen.calls)
    unet(**inputs)
    assert len(seen.calls) == count and not unet._forward_pre_hooks


# Equation: attention
@torch.no_grad()
def test_weights_are_those_of_the_layer(unet, inputs):
    with record(unet, steps=(0,)) as seen:
        unet(**inputs)
    call = seen.call(seen.names[0], 0)
    weights = call.weights()  # (F, heads, h, w, M)
    assert weights.shape == (4, 2, *call.size, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    layer = call.layer
    _, context = layer.entries(call.z, 4, call.size, call.motion)
    values = layer.to_v(context).unflatten(-1, (2, -1)).unflatten(0, call.size)  # (h, w, M, heads, c)
    mixed = torch.einsum("fnhwm,hwmnc->fhwnc", weights, values).flatten(3)
    wanted = layer(call.z, 4, call.size, call.motion).unflatten(1, call.size)
    torch.testing.assert_close(layer.to_out[0](mixed), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_features_are_warped_by_the_field(unet, inputs):
    flow = torch.zeros(1, 3, 2, 16, 16)
    flow[:, :, 0] = 4.0  # two feature pixels to the right
    with record(unet, steps=(0,)) as seen:
        unet(**{**inputs, "flow": SplatCache(flow)})
    z0, warped, true = seen.call(seen.names[0], 0).features()
    torch.testing.assert_close(warped[1][..., 2:], z0[..., :-2], atol=1e-5, rtol=1e-5)
    assert (warped[1][..., :2] == 0).all() and true.shape == warped.shape


def test_refusals(unet):
    with pytest.raises(ValueError, match="No such temporal attention"), record(unet, layers=("nowhere",)):
        pass
    with record(unet) as seen, pytest.raises(KeyError, match="was not recorded at step 3"):
        seen.call("x", 3)
    with pytest.raises(ValueError, match="same C"):
        pca_rgb([torch.zeros(4, 2, 2), torch.zeros(5, 2, 2)])


def test_equal_features_have_equal_colours():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(6, 5, 5, generator=generator)
    moved = a.roll(2, dims=2)
    one, two = pca_rgb([a, moved])
    assert np.array_equal(np.roll(one, 2, axis=1), two) and one.std() > 20
    known = torch.ones(5, 5, dtype=torch.bool)
    known[:, :2] = False
    hidden = pca_rgb([a, moved], [~known | known, known])[1]
    assert (hidden[:, :2] == 0).all() and hidden[:, 2:].any()
