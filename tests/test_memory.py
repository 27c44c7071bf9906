"""Options that fit sampling into less memory: slices change no number and hold less; bf16 where it is harmless.

Offloading and slices of whole pipelines: tests/test_pipelines.py.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import mi2v_lite
from mi2v_lite.flow.splat_cache import SplatCache
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.training.curriculum import load_config
from tools.benchmark import Meter
from tools.benchmark.calls import Clip, sampling_calls

LITE = Path(mi2v_lite.__file__).parent / "configs" / "lite.yaml"


def widened(fusion: str) -> tuple[VideoUNet, dict]:
    """A small UNet with no layer at zero, and inputs of an odd size."""
    torch.manual_seed(0)
    unet = VideoUNet(4, 4, (32, 32), 1, (True, False), 2, cross_attention_dim=8, fusion=fusion)
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    flow = SplatCache(3 * torch.randn(2, 3, 2, 14, 10))
    given = {"sample": torch.randn(2, 4, 4, 7, 5), "timestep": 9, "encoder_hidden_states": torch.randn(2, 3, 8)}
    return unet.eval(), {**given, "flow": None if fusion == "none" else flow}


@pytest.mark.parametrize("fusion", ["attention", "addition", "none"])
@pytest.mark.parametrize("slice_size", [1, 4, 35, 1000, "auto", "max"])
@torch.no_grad()
def test_slices_change_nothing(fusion, slice_size):
    unet, given = widened(fusion)
    whole = unet(**given)
    unet.set_attention_slice(slice_size)
    torch.testing.assert_close(unet(**given), whole, rtol=0, atol=2e-6)
    unet.set_attention_slice(None)
    assert torch.equal(unet(**given), whole)


def test_slices_have_the_same_gradients():
    unet, given = widened("attention")
    gradients = []
    for size in (None, 3):
        unet.set_attention_slice(size)
        unet.zero_grad()
        unet(**given).square().mean().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in unet.named_parameters()})
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("wrong", [0, -2, 1.5, "half", True])
def test_a_wrong_slice_is_refused(wrong):
    unet, _ = widened("none")
    with pytest.raises(ValueError, match="slice_size is"):
        unet.set_attention_slice(wrong)


def test_slices_hold_less():
    config = load_config(LITE)
    peaks = []
    for size in (None, 64, 32):
        call = sampling_calls(config, Clip(128, 128, 16, "meta", torch.bfloat16))[1]()
        call.models["stage2_unet"].set_attention_slice(size)
        with Meter() as meter, torch.no_grad():
            call.run()
        peaks.append(meter.cost.peak)
    assert peaks[1] < 0.75 * peaks[0] and peaks[2] < peaks[1]


def test_bf16_keeps_the_motion_where_its_autoencoder_stays_in_float32():
    """Near 0.5 bfloat16 has steps of 1/256, half a pixel of 128."""
    photo = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    flows = {}
    for name, dtype in {
        "float32": torch.float32,
        "bf16": {"default": torch.bfloat16, "flow_vae": torch.float32},
        "all bf16": torch.bfloat16,
    }.items():
        pipe = MotionI2VPipeline.from_lite(dtype=dtype)
        pipe.set_progress_bar_config(disable=True)
        shape = (1, pipe.motion_unet.config.out_channels, 15, 16, 16)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        flows[name] = pipe.predict_motion(photo, "the camera pans left", latents=noise, num_inference_steps=2).flow
    off = {name: (flow - flows["float32"]).norm(dim=2).mean().item() for name, flow in flows.items()}
    assert off["bf16"] < 0.1 < 0.15 < off["all bf16"]
    assert len(flows["all bf16"].unique()) < 300 < 10_000 < len(flows["bf16"].unique())
