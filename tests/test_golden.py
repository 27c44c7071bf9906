"""Parity with the released code, model by model: strict loading, outputs within 10 times the release's own noise.

The folder is $MI2V_GOLDEN or tests/golden; configs, sizes and names come from the sidecars. The sampling loops are in
test_golden_loops.py, the control assembly in test_control.py.
"""

import hashlib
from pathlib import Path

import pytest
import torch
from einops import rearrange
from golden_io import Golden, read_info, read_tensors
from mi2v_checks.released import draw, leaves, position_table

from mi2v_lite.control import condition, official_field
from mi2v_lite.flow.fields import resize
from mi2v_lite.flow.splat_cache import SplatCache
from mi2v_lite.flow.warp import SplatOperator, splat_average
from mi2v_lite.importing.official import (
    controlnet_config_from_official,
    controlnet_from_official,
    rename_vae_state,
    split_controlnet,
    unet_config_from_official,
    unet_from_official,
    vae_from_official,
)
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.temporal import TemporalAttention, TemporalTransformer, fold_frames, unfold_frames
from mi2v_lite.models.unet import VideoUNet


@pytest.fixture
def golden(golden_dir):
    return lambda name: Golden(golden_dir, name)


def cases(info: dict) -> list[str]:
    return list(info["cases"])


def test_files_are_those_of_the_manifest(golden_dir):
    manifest = read_info(golden_dir, "manifest")
    files = {path.name: path.read_bytes() for path in golden_dir.iterdir() if path.suffix != ".md"}
    del files["manifest.json"]
    assert files.keys() == {name for name in manifest if not name.endswith(".md")}
    for name, content in files.items():
        assert len(content) == manifest[name]["bytes"], name
        assert hashlib.sha256(content).hexdigest() == manifest[name]["sha256"], name


@pytest.mark.parametrize("name", ["stage1_unet", "stage1_controlnet", "stage2_unet", "flow_vae", "image_vae"])
def test_weights_have_the_names_and_shapes_of_the_sidecar(golden_dir, name):
    info, state = read_info(golden_dir, f"weights_{name}"), read_tensors(golden_dir, f"weights_{name}")
    order = leaves(info["fill"]["shapes"]) if "fill" in info else info["state_dict_order"]
    assert shapes_of(state) == {key: tuple(shape) for key, shape in order}
    assert sum(v.numel() for k, v in state.items() if not k.endswith(".pe")) == info["num_parameters"]


@pytest.mark.parametrize(
    "name,key,first",
    [
        ("stage1_unet", "conv_in.weight", [0.0036468505859375, -0.004047393798828125, -0.00235748291015625]),
        ("flow_vae", "decoder.conv_out.bias", [0.5478515625, 0.548828125]),
        ("image_vae", "encoder.conv_norm_out.weight", [0.94970703125, 1.103515625, 1.4150390625]),
    ],
)
def test_weights_by_formula_begin_as_the_readme_says(name, key, first):
    fill = read_info(Path(__file__).parent / "golden", f"weights_{name}")["fill"]
    assert draw(fill)[key].flatten()[: len(first)].tolist() == first
    with pytest.raises(ValueError, match=f"open/{name}: numpy draws other numbers"):
        draw(fill | {"sha256": "0" * 64})


def test_position_table_is_the_models():
    assert torch.equal(TemporalAttention(32, 4, 24).pos_encoder.pe, position_table(24, 32))


def run_with_intermediates(unet: VideoUNet, frames: int, call) -> dict[str, torch.Tensor]:
    """Outputs of the modules that the golden files name, with frames unfolded."""
    found, hooks = {}, []

    def keep(name):
        def hook(_module, _inputs, output):
            found[name] = rearrange(output, "(b f) c h w -> b c f h w", f=frames)

        return hook

    hooks.append(unet.conv_in.register_forward_hook(keep("conv_in")))
    hooks.append(unet.mid_block.register_forward_hook(keep("mid_block")))
    for index, block in enumerate(unet.up_blocks):
        last = block.upsamplers[0] if hasattr(block, "upsamplers") else block.motion_modules[-1]
        hooks.append(last.register_forward_hook(keep(f"up_blocks.{index}")))
    for index, block in enumerate(unet.down_blocks):
        last = block.downsamplers[0] if hasattr(block, "downsamplers") else block.motion_modules[-1]
        hooks.append(last.register_forward_hook(keep(f"down_blocks.{index}")))
    found["output"] = call()
    for hook in hooks:
        hook.remove()
    return found


# Equation: stride-embedding
@torch.no_grad()
def test_stage1_unet(golden):
    g = golden("stage1_unet")
    unet = unet_from_official(g.info["config"], g.weights(), stage=1)
    for case in cases(g.info):
        sample = g[f"{case}.sample"]
        batch, frames = sample.shape[0], sample.shape[2]
        stride, timestep = g[f"{case}.stride"], g[f"{case}.timestep"]
        out = run_with_intermediates(
            unet,
            frames,
            lambda s=sample, t=timestep, c=case, n=stride: unet(s, t, g[f"{c}.encoder_hidden_states"], stride=n),
        )
        g.close(f"{case}.output", out["output"])
        if f"{case}.mid.emb" in g:
            emb = unet.embed(timestep, stride, batch, frames)
            g.close(f"{case}.mid.emb", rearrange(emb, "(b f) d -> b f d", f=frames))
            for name in g.names(f"{case}.mid."):
                if name != f"{case}.mid.emb":
                    g.close(name, out[name.removeprefix(f"{case}.mid.")])


# Equation: zero-convolution
@torch.no_grad()
def test_stage1_unet_with_controlnet(golden):
    g = golden("stage1_unet_controlnet")
    unet = unet_from_official(g.info["config"], g.weights("stage1_unet"), stage=1)
    net = controlnet_from_official(g.info["config"], g.weights("controlnet"))
    for case in cases(g.info):
        args = (g[f"{case}.sample"], g[f"{case}.timestep"], g[f"{case}.encoder_hidden_states"])
        stride, condition = g[f"{case}.stride"], g[f"{case}.control"]
        down, mid = net(*args, condition, stride=stride, control_scale=g[f"{case}.control_scale"].item())
        out = unet(*args, stride=stride, down_residuals=down, mid_residual=mid)
        g.close(f"{case}.output", out)
        g.close(f"{case}.output_without_control", unet(*args, stride=stride))
        if f"{case}.cond_embedding" in g:
            g.close(f"{case}.cond_embedding", net.controlnet_cond_embedding(condition))
            frames = condition.shape[2]
            for index, residual in enumerate([*down, mid]):
                name = f"down.{index}" if index < len(down) else "mid"
                g.close(f"{case}.residual.{name}", rearrange(residual, "(b f) c h w -> b c f h w", f=frames))


@torch.no_grad()
def test_stage2_unet(golden):
    g = golden("stage2_unet")
    unet = unet_from_official(g.info["config"], g.weights(), stage=2)
    for case in cases(g.info):
        sample = g[f"{case}.sample"]
        frames = sample.shape[2]
        flow = g[f"{case}.flow_pre"][:, 1:]  # the release carries a zero field for frame 0
        text, timestep = g[f"{case}.encoder_hidden_states"], g[f"{case}.timestep"]
        out = run_with_intermediates(unet, frames, lambda s=sample, t=timestep, e=text, f=flow: unet(s, t, e, flow=f))
        g.close(f"{case}.output", out["output"])
        if f"{case}.mid.emb" in g:
            g.close(f"{case}.mid.emb", rearrange(unet.embed(timestep, None, 1, frames), "(b f) d -> b f d", f=frames))
            for name in g.names(f"{case}.mid."):
                if name != f"{case}.mid.emb":
                    g.close(name, out[name.removeprefix(f"{case}.mid.")])


@torch.no_grad()
def test_stage2_batch_is_its_items_and_the_release_fault_is_an_option(golden):
    g = golden("stage2_unet_official_batch_quirk")
    state = g.weights()
    right = unet_from_official(g.info["config"], state, stage=2)
    faulty = unet_from_official(g.info["config"], state, stage=2, official_batch_quirk=True)
    sample, timestep, text = g["sample"], g["timestep"], g["encoder_hidden_states"]
    flow = g["flow_pre"][:, 1:]
    g.close("output_two_batch1_runs", right(sample, timestep, text, flow=flow))
    g.close("output_official_batch2", faulty(sample, timestep, text, flow=flow))
    alike = sample[:1].repeat(2, 1, 1, 1, 1)
    g.close("cfg.output_two_batch1_runs", right(alike, timestep, text, flow=flow[:1]))
    g.close("cfg.output_official_batch2", faulty(alike, timestep, text, flow=flow[:1]))
    alone = [right(sample[i : i + 1], timestep, text[i : i + 1], flow=flow[i : i + 1]) for i in range(len(sample))]
    torch.testing.assert_close(right(sample, timestep, text, flow=flow), torch.cat(alone), rtol=0, atol=1e-5)


def temporal_from(g: Golden, part: str, fusion: str) -> torch.nn.Module:
    config = g.info["config"]
    length = config.get("position_encoding_max_len", 32)
    if part.endswith("attn"):
        module = TemporalAttention(config["channels"], config["heads"], length, fusion=fusion)
    else:
        attentions = len(config["attention_block_types"])
        module = TemporalTransformer(
            config["channels"], config["heads"], length, config["num_layers"], attentions, fusion=fusion
        )
    module.load_state_dict(g.part(f"weights.{part}."), strict=True)
    return module


# Equation: augmented-sequence
@torch.no_grad()
def test_motion_attention(golden):
    g = golden("motion_attention")
    attn, transformer = temporal_from(g, "attn", "attention"), temporal_from(g, "transformer", "attention")
    plain, plain_transformer = temporal_from(g, "plain_attn", "none"), temporal_from(g, "plain_transformer", "none")
    for case, info in g.info["cases"].items():
        frames, size = info["F"], (info["h"], info["w"])
        motion = SplatCache(g[f"{case}.flow_pre"][:, 1:])
        z = g[f"{case}.attn.hidden_states"]
        g.close(f"{case}.attn.output", attn(z, frames, size, motion))
        g.close(f"{case}.plain_attn.output", plain(z, frames, size))
        g.close(f"{case}.attn.flow_scaled", resize(g[f"{case}.flow_pre"], size))
        warped = attn.warp(z, frames, size, motion)
        g.close(f"{case}.attn.warped", rearrange(warped, "b n (h w) c -> (b n) c h w", h=size[0]))
        x = fold_frames(g[f"{case}.transformer.input"])
        g.close(f"{case}.transformer.output", unfold_frames(transformer(x, frames, motion), frames))
        g.close(f"{case}.plain_transformer.output", unfold_frames(plain_transformer(x, frames), frames))


@torch.no_grad()
def test_motion_attention_batch_fault(golden):
    g, single = golden("motion_attention_official_batch_quirk"), golden("motion_attention")
    attn = temporal_from(single, "attn", "attention")
    frames, size = g.info["config"]["F"], (g.info["config"]["h"], g.info["config"]["w"])
    z, flow = g["hidden_states"], g["flow_pre"][:, 1:]
    right, faulty = SplatCache(flow), SplatCache(flow, official_batch_quirk=True)
    g.close("output_two_batch1_runs", attn(z, frames, size, right))
    g.close("output_official_batch2", attn(z, frames, size, faulty))
    for name, motion in (("warped_per_item", right), ("warped_official", faulty)):
        warped = attn.warp(z, frames, size, motion)
        g.close(name, rearrange(warped, "b n (h w) c -> (b n) c h w", h=size[0]))


# Equation: splatting
def test_splat(golden):
    g = golden("softsplat_avg")
    for case in g.info["cases"]:
        features, flow, expected = g[f"{case}.input"], g[f"{case}.flow"].clone(), f"{case}.output"
        codes = g.tensors.get(
            f"{case}.flow_nonfinite_code", torch.zeros(1)
        )  # a file cannot hold nan: they come as codes
        for code, value in enumerate((torch.nan, torch.inf, -torch.inf), start=1):
            flow[(codes == code).expand_as(flow)] = value
        g.close(expected, splat_average(features, flow)[0])
        g.close(expected, SplatOperator(flow.unsqueeze(1))(features)[:, 0])


@pytest.mark.parametrize("name", ["flow_vae", "image_vae"])
@torch.no_grad()
def test_vae(golden, name):
    g = golden(name)
    vae = vae_from_official(g.info["config"], g.weights())
    for case in sorted({k.split(".")[0] for k in g.tensors}):
        posterior = vae.encode(g[f"{case}.image"]).latent_dist
        g.close(f"{case}.mean", posterior.mean)
        g.close(f"{case}.logvar", posterior.logvar)
        g.close(f"{case}.decoded", vae.decode(g[f"{case}.latent"]).sample)


def layout(golden_dir, name: str) -> tuple[dict, dict[str, tuple]]:
    info = read_info(golden_dir, f"layout_{name}")
    return info, {key: tuple(shape) for key, shape in info["entries"]}


def shapes_of(state: dict) -> dict[str, tuple]:
    return {k: tuple(v.shape) for k, v in state.items()}


@pytest.mark.parametrize("name,stage", [("stage1_unet", 1), ("stage2_unet", 2)])
def test_full_size_unet_layout(golden_dir, name, stage):
    info, entries = layout(golden_dir, name)
    with torch.device("meta"):
        unet = VideoUNet(**unet_config_from_official(info["config"], stage))
    assert shapes_of(unet.state_dict()) == entries
    assert sum(p.numel() for p in unet.parameters()) == info["num_parameters"]


@pytest.mark.parametrize("name", ["stage1_controlnet_bare", "stage1_controlnet", "stage1_unet_with_controlnet"])
def test_full_size_controlnet_layout(golden_dir, name):
    info, entries = layout(golden_dir, name)
    with torch.device("meta"):
        net = TrajectoryControlNet(**controlnet_config_from_official(info["config"]))
    own = shapes_of(net.state_dict())
    if name == "stage1_unet_with_controlnet":
        with torch.device("meta"):
            unet = VideoUNet(**unet_config_from_official(info["config"], stage=1))
        unet_part, entries = split_controlnet(entries)
        assert shapes_of(unet.state_dict()) == unet_part
    assert own == {k.removeprefix("controlnet."): v for k, v in entries.items()}


@pytest.mark.parametrize("name", ["flow_vae", "image_vae"])
def test_full_size_vae_layout(golden_dir, name):
    info, entries = layout(golden_dir, name)
    with torch.device("meta"):
        state = {k: torch.empty(shape) for k, shape in entries.items()}
        vae = vae_from_official(info["config"], state)
    assert shapes_of(vae.state_dict()) == shapes_of(rename_vae_state(state))
    assert sum(p.numel() for p in vae.parameters()) == info["num_parameters"]


def test_a_wrong_checkpoint_is_named(golden_dir):
    config = read_info(golden_dir, "weights_stage1_unet")["config"]
    state = read_tensors(golden_dir, "weights_stage1_unet")
    del state["conv_in.weight"]
    with pytest.raises(ValueError, match="1 names missing.*conv_in.weight"):
        unet_from_official(config, state, stage=1)
    with pytest.raises(ValueError, match="motion_module_mid_block"):
        unet_config_from_official(config | {"motion_module_mid_block": False}, stage=1)


@torch.no_grad()
def test_drawn_control_becomes_the_condition(golden):
    g = golden("drag_control")
    vae = vae_from_official(read_info(g.folder, g.weights_name())["config"], g.weights())
    compared = 0
    for name, info in g.info["examples"].items():
        if f"{name}.control" not in g.tensors:
            continue
        tracks = [[tuple(point) for point in track] for track in info["tracks"]]
        width, height, length = info["width"], info["height"], info["model_length"]
        flow, mask, _ = official_field(
            tracks, g[f"{name}.painted"].numpy(), width, height, info["flow_unit_id"], length - 1
        )
        g.close(f"{name}.control", condition(flow[None], mask[None], vae, (height // 8, width // 8)))
        compared += 1
    assert compared > 0
