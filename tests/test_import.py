"""`mi2v import`: published files become a pipeline that computes what they say, or nothing is written."""

import json
from pathlib import Path

import published
import pytest
import torch
import yaml
from diffusers import MotionAdapter, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers
from published import (
    LAYERS,
    NOISE,
    TEXT,
    UNET,
    UNET_JSON,
    VAE,
    motion,
    random_state,
    spatial,
    write_diffusers,
    write_release,
    write_single_file,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from mi2v_lite import cli
from mi2v_lite.importing import Sources, import_pipeline, make_plan, plan, report_text
from mi2v_lite.importing.files import Shelf
from mi2v_lite.importing.folder import REPORT
from mi2v_lite.importing.parts import shell
from mi2v_lite.models.autoencoder import decode, encode
from mi2v_lite.models.text import build_tokenizer
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.training.curriculum import Config, parse_config


@pytest.fixture(scope="module", autouse=True)
def shells_built_once():
    """Building even an empty UNet takes a while, and every import here needs the same ones."""
    built: dict[tuple[int, str], torch.nn.Module] = {}

    def cached(config: Config, name: str) -> torch.nn.Module:
        key = (id(config), name)
        if key not in built:
            built[key] = shell(config, name)
        return built[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "shell", cached)
        yield


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder, ["red", "balloon"])
    return folder


@pytest.fixture(scope="module")
def config(tokenizer) -> Config:
    vocabulary = len(json.loads((tokenizer / "vocab.json").read_text()))
    models = {
        "image_vae": VAE | {"in_channels": 3, "out_channels": 3},
        "flow_vae": VAE | {"in_channels": 2, "out_channels": 2},
        "text_encoder": {"kind": "text_encoder", "vocab_size": vocabulary, "tokenizer": str(tokenizer)} | TEXT,
        "stage1_unet": UNET | {"in_channels": 8, "out_channels": 4, "use_stride_embedding": True},
        "controlnet": {"kind": "controlnet", "trunk": "stage1_unet", "condition_hidden": 16},
        "stage2_unet": UNET | {"fusion": "attention", "first_frame_timestep": 1},
    }
    step = {"name": "x", "model": "flow_vae", "objective": "flow_autoencoder", "data": {"clips": "x"}}
    step |= {"steps": 1, "batch_size": 1}
    return parse_config({"models": models, "noise": NOISE, "steps": [step | {"learning_rate": 1e-3}]})


@pytest.fixture(scope="module")
def states(config) -> dict[str, dict[str, Tensor]]:
    """A random state for each model, by our names."""
    return {name: random_state(shell(config, name), seed) for seed, name in enumerate(sorted(config.models))}


def written(folder: Path, part: str) -> dict[str, Tensor]:
    return load_file(next((folder / part).glob("*.safetensors")))


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name].float(), value), name


def test_release(config, states, tokenizer, tmp_path):
    release = write_release(tmp_path / "release", states, tokenizer)
    report = import_pipeline(config, Sources(release=release), tmp_path / "out")
    out = tmp_path / "out"
    assert_same(written(out, "motion_unet"), states["stage1_unet"])
    assert_same(written(out, "controlnet"), states["controlnet"])
    assert_same(written(out, "flow_vae"), states["flow_vae"])
    assert_same(written(out, "vae"), states["image_vae"])
    assert_same(written(out, "text_encoder"), states["text_encoder"])
    # The fine-tuned UNet comes last and replaces Stable Diffusion's layers, not the motion modules.
    personal = {name: value.flip(0) for name, value in spatial(states["stage2_unet"]).items()}
    assert_same(written(out, "animation_unet"), personal | motion(states["stage2_unet"]))
    assert report["notes"] == []
    pipe = MotionI2VPipeline.from_lite(out)
    assert pipe.config.stage1_image_range == "unit" and pipe.scheduler.config.steps_offset == 1
    assert pipe.animation_unet.config.fusion == "attention" and pipe.motion_unet.config.use_stride_embedding


STARTS = {
    "folder of pickles, training checkpoint": (".bin", "ckpt"),
    "folder of safetensors, MotionAdapter": (".safetensors", "adapter"),
    "single pickle, plain motion file": (".ckpt", "plain"),
    "single safetensors, MotionAdapter": ("single", "adapter"),
}


# Equation: zero-channels
@pytest.mark.parametrize("form", STARTS)
def test_start_of_training(config, states, tokenizer, tmp_path, form):
    """Every layout of Stable Diffusion and of AnimateDiff gives the same pipeline."""
    base, module = STARTS[form]
    if base in (".bin", ".safetensors"):
        base = write_diffusers(tmp_path / "sd", states, tokenizer, base)
    else:
        base = write_single_file(tmp_path / ("sd.ckpt" if base == ".ckpt" else "sd.safetensors"), states)
    modules = motion(states["stage2_unet"])
    if module == "ckpt":
        nested = {f"module.{name}": value for name, value in modules.items()}
        path = tmp_path / "mm_sd_v15_v2.ckpt"
        torch.save({"epoch": 1, "global_step": 2, "state_dict": nested}, path)
    elif module == "plain":
        path = published.save(tmp_path / "mm_sd_v15_v2.ckpt", modules)
    else:
        settings = {"motion_num_attention_heads": 8, "motion_max_seq_length": 32, "motion_norm_num_groups": 32}
        path = tmp_path / "adapter"
        published.save(path / "diffusion_pytorch_model.safetensors", published.adapter(modules), settings)
    sources = Sources(stable_diffusion=base, motion_module=path, tokenizer=tokenizer)
    report = import_pipeline(config, sources, tmp_path / "out", dtype="float32")

    out = tmp_path / "out"
    assert_same(written(out, "vae"), states["image_vae"])
    assert_same(written(out, "text_encoder"), states["text_encoder"])
    assert_same(written(out, "animation_unet"), states["stage2_unet"])
    stage1, old = written(out, "motion_unet"), states["stage2_unet"]
    assert not stage1["conv_in.weight"][:, :4].any() and torch.equal(
        stage1["conv_in.weight"][:, 4:], old["conv_in.weight"]
    )
    assert not stage1["stride_embedding.linear_2.weight"].any() and stage1["stride_embedding.linear_1.weight"].any()
    shared = {name: value for name, value in stage1.items() if name in old and name != "conv_in.weight"}
    assert_same(shared, {name: value for name, value in old.items() if name != "conv_in.weight"})
    assert any("no ControlNet" in note for note in report["notes"])
    pipe = MotionI2VPipeline.from_lite(out)
    assert pipe.controlnet is None and pipe.config.stage1_image_range == "signed"
    # Stage 1 starts as the image model: whatever the photo and the stride, it says the same of the noisy latent.
    noisy, text = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 5, 32)
    with torch.no_grad():
        one, other = (
            pipe.motion_unet(
                torch.cat([torch.randn_like(noisy), noisy], 1), 7, text, stride=torch.tensor([[8, stride]])
            )
            for stride in (16, 99)
        )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    flow = 0.5 + 0.01 * torch.randn(1, 2, 16, 16)
    with torch.no_grad():
        assert decode(pipe.flow_vae, encode(pipe.flow_vae, flow)).shape == flow.shape


def test_spatial_layers_compute_what_diffusers_unet_does(config, states, tokenizer, tmp_path):
    """A frame through the imported UNet, its motion modules silent, is the 2-D UNet's own output."""
    base = write_diffusers(tmp_path / "sd", states, tokenizer)
    silent = {name: value * ("proj_out" not in name) for name, value in motion(states["stage2_unet"]).items()}
    module = published.save(
        tmp_path / "mm.ckpt", {name: value for name, value in silent.items() if ".attn" not in name}
    )
    sources = Sources(stable_diffusion=base, motion_module=module)
    import_pipeline(config, sources, tmp_path / "out", dtype="float32")
    unet = MotionI2VPipeline.from_lite(tmp_path / "out").animation_unet
    flat = UNet2DConditionModel(**UNET_JSON)
    flat.load_state_dict(spatial(states["stage2_unet"]))
    sample, text = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 32)
    with torch.no_grad():
        expected = flat(sample, 1, text).sample  # Stage 2's frame 0 has timestep 1
        clip = torch.stack([sample, torch.randn_like(sample)], dim=2)
        actual = unet(clip, 500, text, flow=torch.zeros(1, 1, 2, 8, 8))[:, :, 0]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_adapter_writer_writes_what_diffusers_reads(states):
    """The tests' writer against diffusers' own class and its own converter."""
    modules = motion(states["stage2_unet"])
    named = published.adapter(modules)
    real = MotionAdapter(
        block_out_channels=(32, 64),
        motion_layers_per_block=LAYERS,
        motion_num_attention_heads=8,
        motion_max_seq_length=32,
    )
    real.load_state_dict(named)
    converted = convert_animatediff_checkpoint_to_diffusers(modules)
    assert converted.keys() == {name for name in named if not name.endswith("pos_embed.pe")}
    for name, value in converted.items():
        assert value is named[name]


@pytest.mark.parametrize("form", ["single file", "UNet file", "diffusers folder"])
def test_fine_tuned_unet_replaces_stage_2_alone(config, states, tokenizer, tmp_path, form):
    base = write_diffusers(tmp_path / "sd", states, tokenizer)
    module = published.save(tmp_path / "mm.ckpt", motion(states["stage2_unet"]))
    other = {name: random_state(shell(config, name), 99) for name in ("image_vae", "text_encoder", "stage2_unet")}
    if form == "single file":
        personal = write_single_file(tmp_path / "toon.safetensors", other)
    elif form == "UNet file":
        personal = published.save(tmp_path / "toon.ckpt", spatial(other["stage2_unet"]))
    else:
        personal = write_diffusers(tmp_path / "toon", other, tokenizer, ".safetensors")
    sources = Sources(stable_diffusion=base, motion_module=module, dreambooth=personal)
    report = import_pipeline(config, sources, tmp_path / "out")
    animation = written(tmp_path / "out", "animation_unet")
    assert_same(spatial(animation), spatial(other["stage2_unet"]))
    assert_same(motion(animation), motion(states["stage2_unet"]))
    assert_same(written(tmp_path / "out", "vae"), states["image_vae"])
    assert torch.equal(
        written(tmp_path / "out", "motion_unet")["conv_out.weight"].float(), states["stage2_unet"]["conv_out.weight"]
    )
    if form == "single file":
        unused = report["files"][str(personal)]["not_used"]
        assert unused["betas"] == 1 and unused["model_ema"] == 1
        assert unused["first_stage_model"] == len(states["image_vae"])
        assert "not used of" in report_text(report)


def test_report_says_what_came_from_where(config, states, tokenizer, tmp_path):
    release = write_release(tmp_path / "release", states, tokenizer)
    vae = random_state(shell(config, "image_vae"), 5)
    other = published.save(tmp_path / "other_vae.safetensors", vae)
    report = import_pipeline(config, Sources(release=release, vae=other), tmp_path / "out")
    assert json.loads((tmp_path / "out" / REPORT).read_text()) == report
    stage2 = report["parts"]["animation_unet"]
    motions, spatials = len(motion(states["stage2_unet"])), len(spatial(states["stage2_unet"]))
    counts = {Path(origin).name: entry["tensors"] for origin, entry in stage2["from"].items()}
    assert counts == {"motion_block.bin": motions, "realistic_unet.ckpt": spatials}
    assert stage2["parameters"] == sum(
        value.numel() for name, value in states["stage2_unet"].items() if not name.endswith(".pe")
    )
    assert (
        report["files"][str(other)]["bytes"] == other.stat().st_size
        and len(report["files"][str(other)]["sha256"]) == 64
    )
    assert len(report["notes"]) == 1 and "one vae for both stages" in report["notes"][0]
    text = report_text(report)
    assert f"{motions:5d} tensors  {release / 'models/stage2/Motion_Module/motion_block.bin'}" in text


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize("name, zipped", [("x.safetensors", None), ("x.bin", True), ("x.ckpt", False)])
def test_a_file_cut_anywhere_is_named(tmp_path, name, zipped):
    """Also pickles of the format before torch 1.6, in which older checkpoints are published."""
    state, path = {f"layer.{i}": torch.full((7, 5), float(i)) for i in range(20)}, tmp_path / name
    if zipped is None:
        published.save(path, state)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert torch.equal(Shelf().open(path).tensors["layer.3"], state["layer.3"])
    whole = path.read_bytes()
    for percent in range(0, 100, 2):
        path.write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(ValueError, match=f"{name} (cannot be read|ends too early|is damaged)"):
            Shelf().open(path)


class NoTensor:
    """What a pickle must not bring in."""


def break_release(models: Path, how: str, states: dict) -> None:
    """Damages one file of a release in a way that happens."""
    stage1, stage2 = models / "stage1/StableDiffusion-FlowGen", models / "stage2"
    block, personal = stage2 / "Motion_Module/motion_block.bin", stage2 / "DreamBooth_LoRA/realistic_unet.ckpt"
    modules, layers = motion(states["stage2_unet"]), spatial(states["stage2_unet"])
    match how:
        case "cut safetensors":
            cut(stage2 / "DreamBooth_LoRA/realisticVisionV51_v20Novae.safetensors")
        case "cut pickle":
            cut(block)
        case "empty":
            block.write_bytes(b"")
        case "pointer":
            block.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        case "objects":
            torch.save({"state_dict": modules, "callback": NoTensor()}, block)
        case "no state dict":
            torch.save([1, 2], block)
        case "v1":
            published.save(block, {name: value for name, value in modules.items() if "mid_block" not in name})
        case "missing":
            (stage1 / "controlnet/controlnet.bin").unlink()
        case "lacks a name":
            published.save(personal, {name: value for name, value in layers.items() if name != "conv_out.bias"})
        case "shape":
            published.save(personal, layers | {"conv_out.bias": torch.zeros(5)})
        case "unknown name":
            published.save(personal, layers | {"conv_out.extra": torch.zeros(5)})
        case "not finite":
            published.save(personal, layers | {"conv_out.bias": torch.full((4,), torch.nan)})
        case "too large":
            published.save(personal, layers | {"conv_out.bias": torch.full((4,), 1e6)})
        case "heads":
            (stage1 / "unet/config.json").write_text(json.dumps(UNET_JSON | {"attention_head_dim": 8}))
        case "json":
            cut(stage1 / "unet/config.json")
        case "single file":
            state = load_file(stage2 / "DreamBooth_LoRA/realisticVisionV51_v20Novae.safetensors")
            state.pop("first_stage_model.decoder.conv_out.bias")
            published.save(stage2 / "DreamBooth_LoRA/realisticVisionV51_v20Novae.safetensors", state)
        case "tokenizer":
            (stage2 / "StableDiffusion/tokenizer").unlink()
        case "layout":
            models.rename(models.with_name("other"))


@pytest.mark.parametrize(
    "how, message",
    {
        "cut safetensors": "realisticVisionV51_v20Novae.safetensors cannot be read .*download complete",
        "cut pickle": "motion_block.bin ends too early",
        "empty": "motion_block.bin .*download complete",
        "pointer": "motion_block.bin is only a Git LFS pointer",
        "objects": "motion_block.bin is damaged or holds more than tensors .*NoTensor",
        "no state dict": "motion_block.bin does not hold a state dict",
        "v1": "motion_block.bin does not fit the animation_unet: .*v2 is needed",
        "missing": "controlnet.bin does not exist",
        "lacks a name": "realistic_unet.ckpt does not fit .*1 names are missing, e.g. conv_out.bias",
        "shape": r"realistic_unet.ckpt does not fit .*conv_out.bias \(5,\) for \(4,\)",
        "unknown name": "realistic_unet.ckpt does not fit .*1 are unknown, e.g. conv_out.extra",
        "not finite": "realistic_unet.ckpt: conv_out.bias of the animation_unet has values that are not finite",
        "too large": "realistic_unet.ckpt: conv_out.bias of the animation_unet has values that are too large",
        "heads": "config.json says num_attention_heads = 8, but the config wants 4",
        "json": "config.json cannot be read as JSON",
        "single file": "Novae.safetensors does not fit the vae: 1 names are missing, e.g. decoder.conv_out.bias",
        "tokenizer": "no tokenizer at .*tokenizer",
        "layout": "release is not Motion-I2V's release",
    }.items(),
)
def test_a_wrong_file_is_named_and_nothing_is_written(config, states, tokenizer, tmp_path, how, message):
    release = write_release(tmp_path / "release", states, tokenizer)
    break_release(release / "models", how, states)
    (tmp_path / "place").mkdir()
    with pytest.raises(ValueError, match=message):
        import_pipeline(config, Sources(release=release), tmp_path / "place" / "out")
    assert not list((tmp_path / "place").iterdir())


def test_what_else_is_refused(config, states, tokenizer, tmp_path):
    release = write_release(tmp_path / "release", states, tokenizer)
    single = write_single_file(tmp_path / "sd.ckpt", states)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="out exists already"):
        import_pipeline(config, Sources(release=release), tmp_path / "out")
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        import_pipeline(config, Sources(release=release), tmp_path / "new", dtype="int8")
    with pytest.raises(ValueError, match="motion module is needed"):
        make_plan(config, Sources(stable_diffusion=single))
    with pytest.raises(ValueError, match="single file has none"):
        make_plan(
            config,
            Sources(stable_diffusion=single, motion_module=release / "models/stage2/Motion_Module/motion_block.bin"),
        )
    odd = published.save(tmp_path / "odd.ckpt", torch.load(single) | {"model.diffusion_model.odd.0": torch.zeros(3)})
    module = release / "models/stage2/Motion_Module/motion_block.bin"
    with pytest.raises(ValueError, match=r"odd.ckpt: model.diffusion_model.\* has .* has only"):
        make_plan(config, Sources(stable_diffusion=odd, motion_module=module, tokenizer=tokenizer))
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="split into several files"):
        make_plan(config, Sources(release=release, stage1_unet=shards))


def test_command_line(config, states, tokenizer, tmp_path, capsys):
    release = write_release(tmp_path / "release", states, tokenizer)
    step = {"name": "x", "model": "flow_vae", "objective": "flow_autoencoder", "data": {"clips": "x"}}
    step |= {"steps": 1, "batch_size": 1}
    content = {"models": config.models, "noise": NOISE, "steps": [step | {"learning_rate": 0.1}]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    words = ["import", "--config", str(tmp_path / "tiny.yaml"), "-o", str(tmp_path / "out")]
    assert cli.main(words) == 2
    assert "stable diffusion is needed" in capsys.readouterr().err
    cut(release / "models/stage2/Motion_Module/motion_block.bin")
    assert cli.main([*words, "--release", str(release)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "motion_block.bin ends too early" in error
    module = published.save(tmp_path / "mm.ckpt", motion(states["stage2_unet"]))
    assert cli.main([*words, "--release", str(release), "--motion-module", str(module), "--dtype", "bfloat16"]) == 0
    said = capsys.readouterr().out
    assert f"tensors  {module}" in said and said.endswith(f"wrote {tmp_path / 'out'}\n")
    assert written(tmp_path / "out", "flow_vae")["quant_conv.weight"].dtype == torch.bfloat16


@pytest.fixture(scope="module")
def layouts(states, tokenizer, tmp_path_factory):
    """Stable Diffusion as a folder, as the state of a single file, and a motion module."""
    folder = tmp_path_factory.mktemp("layouts")
    diffusers = write_diffusers(folder / "sd", states, tokenizer, ".safetensors")
    single = load_file(write_single_file(folder / "single.safetensors", states))
    torch.save(motion(states["stage2_unet"]), folder / "mm.ckpt")
    return {"stable_diffusion": diffusers, "motion_module": folder / "mm.ckpt"}, single


def without(single, prefix):
    return {name.removeprefix(prefix): value.clone() for name, value in single.items() if name.startswith(prefix)}


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_parts_are_read_without_their_prefix_and_inside_wrappers(config, states, layouts, tmp_path, wrapper):
    given, single = layouts
    vae = {wrapper + name: value for name, value in without(single, "first_stage_model.").items()}
    torch.save(vae, tmp_path / "vae.bin")
    unet = {wrapper + name: value for name, value in without(single, "model.diffusion_model.").items()}
    save_file(unet, tmp_path / "unet.ckpt")  # safetensors, whatever the suffix says
    whole = {wrapper + name: value for name, value in states["stage2_unet"].items() if "stride" not in name}
    torch.save({"epoch": 1, "state_dict": whole}, tmp_path / "train.ckpt")  # as AnimateDiff's training saves it
    given = given | {"motion_module": tmp_path / "train.ckpt"}
    sources = Sources(**given, vae=tmp_path / "vae.bin", dreambooth=tmp_path / "unet.ckpt")
    import_pipeline(config, sources, tmp_path / "out")
    assert_same(written(tmp_path / "out", "vae"), states["image_vae"])
    assert_same(written(tmp_path / "out", "animation_unet"), states["stage2_unet"])


def low_rank(states, name):
    return {name.format(key.removesuffix(".weight")): torch.zeros(2, 3) for key in states if "to_q.weight" in key}


@pytest.mark.parametrize(
    "kind, said",
    [
        ("MotionLoRA", "is a MotionLoRA, a small change"),
        ("kohya", "is a LoRA, a small change"),
        ("peft", "is a LoRA, a small change"),
        ("SDXL", "is SDXL; give Stable Diffusion 1.5"),
        ("SD2", "is of Stable Diffusion 2"),
        ("OpenCLIP", "is Stable Diffusion 2"),
        ("SparseCtrl", "is SparseCtrl or a ControlNet"),
        ("web page", "is a web page"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(config, states, layouts, tmp_path, kind, said):
    given, single = layouts
    file, flat = tmp_path / "given.safetensors", {key.replace(".", "_"): key for key in states["stage2_unet"]}
    content = {
        "MotionLoRA": low_rank(motion(states["stage2_unet"]), "{}_lora.down.weight"),
        "kohya": low_rank(
            dict.fromkeys(f"{key}.to_q.weight" for key in list(flat)[:3]), "lora_unet_{}.lora_down.weight"
        ),
        "peft": low_rank(spatial(states["stage2_unet"]), "base_model.{}.lora_A.weight"),
        "SDXL": single | {"conditioner.embedders.0.x": torch.zeros(2)},
        "SD2": {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": torch.zeros(32, 1024)},
        "OpenCLIP": single | {"cond_stage_model.model.x": torch.zeros(2)},
        "SparseCtrl": {"controlnet_cond_embedding.conv_in.weight": torch.zeros(2)},
    }.get(kind)
    if content is None:
        file.write_text("\n<!DOCTYPE html><html>log in first</html>")
    else:
        save_file({name: value.clone() for name, value in content.items()}, file)
    with pytest.raises(ValueError, match=f"given.safetensors {said}"):
        import_pipeline(config, Sources(**given, dreambooth=file), tmp_path / "out")
    assert not (tmp_path / "out").exists()
