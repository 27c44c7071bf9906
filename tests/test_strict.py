"""A saved network is loaded whole or not at all: no weight is left at its random start."""

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from mi2v_lite.models.autoencoder import load_vae, make_vae
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.strict import load_strict
from mi2v_lite.models.text import make_text_encoder
from mi2v_lite.models.unet import VideoUNet

UNET = {"cross_attention_dim": 8, "norm_num_groups": 8, "motion_num_attention_heads": 2}


def unet() -> VideoUNet:
    return VideoUNet(4, 4, (32,), 1, (True,), 2, **UNET)


MODELS = {
    "unet": (unet, VideoUNet.from_pretrained),
    "controlnet": (lambda: TrajectoryControlNet.from_unet(unet(), 5, 8), TrajectoryControlNet.from_pretrained),
    "vae": (lambda: make_vae({"block_out_channels": (32,)}), load_vae),
    "patches": (lambda: make_vae({"block_out_channels": (32,), "patch_size": 2}), load_vae),
    "strict": (lambda: make_vae({"block_out_channels": (32,)}), lambda f: load_strict(AutoencoderKL, f)),
    "text": (lambda: make_text_encoder({"vocab_size": 9}), lambda f: load_strict(CLIPTextModel, f)),
}


@pytest.mark.parametrize("name", MODELS)
def test_only_a_whole_file_is_loaded(name, tmp_path):
    make, load = MODELS[name]
    torch.manual_seed(0)
    model = make()
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path).state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in model.state_dict().items())
    (path,) = tmp_path.glob("*.safetensors")
    tensors = load_file(path)
    lost = sorted(tensors)[0]
    save_file({key: tensor for key, tensor in tensors.items() if key != lost}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"lacks 1 of the network's tensors.*{lost}"):
        load(tmp_path)
    save_file({**tensors, "strange.weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="holds 1 tensors that the network does not have.*strange.weight"):
        load(tmp_path)


def test_loading_info_is_still_given(tmp_path):
    unet().save_pretrained(tmp_path)
    loaded, info = VideoUNet.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(loaded, VideoUNet) and not info["missing_keys"]


def test_a_controlnet_s_config_of_an_earlier_version_is_read(tmp_path):
    """Its last five settings were those of the UNet's warp, which a ControlNet does not use."""
    net = TrajectoryControlNet.from_unet(unet(), 5, 8)
    net.register_to_config(
        fusion="none", first_frame_timestep=None, detach_reference=True, offset_code=False, warp_pieces=1
    )
    net.save_pretrained(tmp_path)
    loaded = TrajectoryControlNet.from_pretrained(tmp_path)
    inputs = (torch.randn(1, 4, 3, 8, 8), 5, torch.zeros(1, 2, 8), torch.zeros(1, 5, 3, 8, 8))
    with torch.no_grad():
        assert torch.equal(loaded.eval()(*inputs, stride=None)[1], net.eval()(*inputs, stride=None)[1])
