"""Training at full scale, tried at toy size: from imported models, on shards, in two processes, killed and sharded."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from PIL import Image
from safetensors.torch import load_file
from test_shards import smooth_clip, write_set
from test_trainer import MODELS, NOISE, SIZE, VAES, step

from mi2v_lite.data.shards import Order, ShardSet
from mi2v_lite.data.store import ClipStore, write_store
from mi2v_lite.models.autoencoder import make_vae
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.text import make_text_encoder
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.training import latents, trainer
from mi2v_lite.training.batches import ClipBatches, FlowFields
from mi2v_lite.training.curriculum import Config, load_config, parse_config
from mi2v_lite.training.draws import Draws
from mi2v_lite.training.export import export
from mi2v_lite.training.step_models import build_models, load_model, load_tokenizer, newest
from mi2v_lite.training.trainer import make_optimizer

CONFIGS = Path(trainer.__file__).parents[1] / "configs"
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    """Models as `mi2v import` leaves them, with motion modules that are not zero."""
    folder = tmp_path_factory.mktemp("imported")
    torch.manual_seed(7)
    plain = {name: {key: value for key, value in entry.items() if key != "kind"} for name, entry in MODELS.items()}
    make_vae(plain["image_vae"]).save_pretrained(folder / "vae")
    make_vae(plain["flow_vae"]).save_pretrained(folder / "flow_vae")
    words = {key: value for key, value in plain["text_encoder"].items() if key != "tokenizer"}
    config = parse_config(
        {"models": MODELS, "steps": [step("x", "image_vae", "image_autoencoder", data={"folder": "x"})]}
    )
    make_text_encoder({"vocab_size": len(load_tokenizer(config)), **words}).save_pretrained(folder / "text_encoder")
    for name, model in (("motion_unet", "stage1_unet"), ("animation_unet", "stage2_unet")):
        unet = VideoUNet(**plain[model])
        for parameter in unet.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        unet.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with shards and a held-out store."""
    folder = tmp_path_factory.mktemp("runs")
    write_set(folder / "shards", [smooth_clip(seed, SIZE) for seed in range(7)], per_shard=2)
    write_store(folder / "heldout", (smooth_clip(seed, SIZE) for seed in range(90, 93)), 3)
    return folder


def curriculum(imported: Path, **more: object) -> dict:
    """Steps that start as those of full.yaml do."""
    given = {
        name: f"folder:{imported / name.replace('image_', '')}" for name in ("image_vae", "flow_vae", "text_encoder")
    }
    data = {"clips": "shards", "heldout": "heldout"}
    video = {"others": ["text_encoder", *VAES], "text_dropout": 0.5, "learning_rate": 1e-3, "data": data}
    unet = f"folder:{imported / 'motion_unet'}"
    steps = [
        step(
            "flow_vae",
            "flow_vae",
            "flow_autoencoder",
            start_from={"flow_vae": given["flow_vae"]},
            data=data,
            steps=2,
            options={"keep_scale": True},
        ),
        step(
            "stage1_single",
            "stage1_unet",
            "motion_field",
            **video,
            model_overrides={"motion_modules": False},
            start_from={**given, "stage1_unet": unet},
            options={"single": True},
        ),
        step(
            "stage1_temporal",
            "stage1_unet",
            "motion_field",
            **video,
            start_from={**given, "stage1_unet": [unet, "stage1_single"]},
            trainable=["stage1_unet.*motion_modules*"],
            gradient_checkpointing=True,
            validate_every=2,
        ),
    ]
    steps[-1] |= more
    return {
        "models": MODELS,
        "noise": NOISE,
        "steps": steps,
        "pipeline": {"motion_steps": 2, "motion_guidance_scale": 3.0},
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def logged(folder: Path, column: str = "loss") -> list[str]:
    with (folder / "log.csv").open() as file:
        return [row[column] for row in csv.DictReader(file) if row[column]]


def test_full_scale_starts_from_what_import_makes(imported, runs, tmp_path):
    """Step 1 takes the 2-D part, step 2 adds the imported motion modules to what step 1 trained."""
    config = parse_config(curriculum(imported))
    for name in ("shards", "heldout"):
        (tmp_path / name).symlink_to(runs / name)
    given = weights(imported / "motion_unet")
    single = build_models(config, config.step("stage1_single"), tmp_path)["stage1_unet"].state_dict()
    assert not any("motion_modules" in name for name in single) and single
    assert all(torch.equal(value, given[name]) for name, value in single.items())
    trainer.train(config, "stage1_single", tmp_path)
    trained = weights(tmp_path / "stage1_single" / "final" / "stage1_unet")
    temporal = build_models(config, config.step("stage1_temporal"), tmp_path)["stage1_unet"].state_dict()
    assert temporal.keys() == given.keys()
    for name, value in temporal.items():
        assert torch.equal(value, given[name] if "motion_modules" in name else trained[name]), name
    assert any(not torch.equal(trained[name], given[name]) for name in trained)


def test_a_folder_that_was_not_imported_is_named(imported, runs, tmp_path):
    content = curriculum(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="nowhere.*does not exist: make it with `mi2v import`"):
        build_models(parse_config(content), parse_config(content).step("stage1_single"), runs)
    content["steps"][-1]["start_from"]["stage1_unet"] = ["folder:a", "later"]
    with pytest.raises(ValueError, match="starts from 'later'"):
        parse_config(content)


def test_shards_give_each_clip_once_an_epoch_whatever_the_processes(imported, runs):
    config = parse_config(curriculum(imported))
    models = build_models(config, config.step("stage1_single"), runs)
    arrays = [latents.cached_latents(runs / "shards", models[f"{kind}_vae"], kind) for kind in ("image", "flow")]
    assert arrays[0].shape == (7, 4, 4, SIZE // 2, SIZE // 2)
    assert len(list((runs / "shards").glob("shard-*.latents_image_*.npy"))) == 4 and not list(runs.rglob("*.partial"))
    batches = ClipBatches(runs / "shards", load_tokenizer(config), 16, *arrays, with_flow=True, seed=5)
    order = Order([2, 2, 2, 1], seed=5)
    for processes in (1, 2):
        seen = []
        for batch in range(7 // 2 * 2 // processes):
            for rank in range(processes):
                draws = Draws.of(0, batch, count=1, rank=rank, processes=processes, batch=batch)
                seen.append(batches.draw(draws))
        strides = [int(entry["stride"][0, 0]) for entry in seen]
        assert strides == [order[i] + 2 for i in range(6)] and len(set(strides)) == 6
        index = strides[3] - 2
        torch.testing.assert_close(
            seen[3]["image_latents"][0], torch.from_numpy(np.array(arrays[0][index])).float().transpose(0, 1)
        )
    fields = FlowFields(runs / "shards", (1.0, 1.0), seed=5)
    draws = Draws.of(0, 1, count=2, batch=1)
    chosen = fields.in_order(draws)
    assert chosen == [order[2], order[3]]
    for index, field in zip(chosen, fields.batch(draws.generators, chosen)["flow"], strict=True):
        frames = torch.from_numpy(ShardSet(runs / "shards").flow[index]).float().abs()
        lengths = [frame.flatten().sort().values for frame in frames]  # what mirroring leaves as it was
        assert any(torch.equal(field.abs().flatten().sort().values, each) for each in lengths)


def test_the_flow_autoencoder_trains_on_shards_and_what_is_imported_stays(imported, runs, tmp_path):
    config = parse_config(curriculum(imported))
    for name in ("shards", "heldout"):
        (tmp_path / name).symlink_to(runs / name)
    trained, before = (
        load_model("autoencoder", folder)
        for folder in (trainer.train(config, "flow_vae", tmp_path) / "flow_vae", imported / "flow_vae")
    )
    assert trained.config.scaling_factor == before.config.scaling_factor, "keep_scale"
    assert not torch.equal(trained.encoder.conv_in.weight, before.encoder.conv_in.weight)
    with pytest.raises(ValueError, match="no result of the model controlnet"):
        export(config, tmp_path, tmp_path / "pipe")
    assert newest(config, tmp_path, "image_vae") == imported / "vae"
    assert newest(config, tmp_path, "flow_vae") == tmp_path / "flow_vae" / "final" / "flow_vae"


def launch(script: list[str], content: dict, folder: Path, *words: str, **environment: str) -> subprocess.Popen:
    """Two CPU processes through `accelerate launch`; --multi_gpu is its word for torchrun."""
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += [*script, str(folder / "config.yaml"), "--step", "stage1_temporal", "--runs", str(folder), *words]
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    given = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": paths, **environment}
    return subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen) -> str:
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    return said


TRAINER = ["-m", "mi2v_lite.cli", "train"]


@pytest.fixture(scope="module")
def uninterrupted(imported, runs, tmp_path_factory) -> tuple[dict, Path]:
    """Two processes, six updates, a checkpoint at every second; step 1 is there already."""
    content = curriculum(imported, steps=6, validation_clips=1)
    folder = tmp_path_factory.mktemp("uninterrupted")
    for name in ("shards", "heldout"):
        shutil.copytree(runs / name, folder / name, ignore=shutil.ignore_patterns("*latents*"))
    trainer.train(parse_config(content), "stage1_single", folder)
    ended(launch(TRAINER, content, folder))
    return content, folder


def started(uninterrupted: tuple[dict, Path], folder: Path) -> dict:
    content, whole = uninterrupted
    for name in ("shards", "heldout", "stage1_single"):
        (folder / name).symlink_to(whole / name)
    return content


def test_killed_on_shards_and_resumed_with_the_same_numbers(uninterrupted, tmp_path):
    content, whole = started(uninterrupted, tmp_path), uninterrupted[1] / "stage1_temporal"
    process = launch(TRAINER, content, tmp_path)
    deadline = time.monotonic() + 300
    while not (tmp_path / "stage1_temporal" / "checkpoint-2").is_dir() and time.monotonic() < deadline:
        time.sleep(0.01)
    for each in (process, *psutil.Process(process.pid).children(recursive=True)):  # torchrun's have groups of their own
        each.kill()
    process.communicate()
    folder = tmp_path / "stage1_temporal"
    assert process.returncode == -signal.SIGKILL and not (folder / "final").exists()
    ended(launch(TRAINER, content, tmp_path, "--resume"))
    assert logged(folder) == logged(whole) and len(logged(folder)) == 6
    assert logged(folder, "heldout_loss") == logged(whole, "heldout_loss")
    once, twice = weights(whole / "final" / "stage1_unet"), weights(folder / "final" / "stage1_unet")
    assert all(torch.equal(twice[name], value) for name, value in once.items())


@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="this torch shards on GPUs alone")
def test_sharded_parameters_train_as_whole_ones_and_share_checkpoints(uninterrupted, tmp_path):
    """FSDP goes on from the checkpoint that two unsharded processes left."""
    content, whole = started(uninterrupted, tmp_path), uninterrupted[1] / "stage1_temporal"
    folder = tmp_path / "stage1_temporal"
    folder.mkdir()
    shutil.copytree(whole / "checkpoint-4", folder / "checkpoint-4")
    shutil.copy(whole / "log.csv", folder)
    settings = yaml.safe_load((CONFIGS / "fsdp.yaml").read_text())["fsdp_config"]
    names = {"FSDP_TRANSFORMER_LAYER_CLS_TO_WRAP": "FSDP_TRANSFORMER_CLS_TO_WRAP"}
    given = {names.get(key.upper(), key.upper()): str(value) for key, value in settings.items()}
    script = [str(TESTS / "fsdp_on_cpu.py")]
    said = ended(launch(script, content, tmp_path, "--resume", ACCELERATE_USE_FSDP="true", **given))
    kept = {
        rank: (int(part), int(total)) for rank, part, total in re.findall(r"process (\d) keeps (\d+) of (\d+)", said)
    }
    assert kept.keys() == {"0", "1"} and all(0 < part < total for part, total in kept.values())
    assert sum(part for part, _ in kept.values()) == kept["0"][1], "each keeps its own part, together they have all"
    for column in ("loss", "grad_norm", "heldout_loss"):
        assert [float(v) for v in logged(folder, column)] == pytest.approx(
            [float(v) for v in logged(whole, column)], rel=1e-4
        )
    once, twice = weights(whole / "final" / "stage1_unet"), weights(folder / "final" / "stage1_unet")
    assert once.keys() == twice.keys()
    assert max(float((twice[name] - value).abs().max()) for name, value in once.items()) < 1e-4
    saved = torch.load(folder / "checkpoint-6" / "optimizer.pt", weights_only=True)
    before = torch.load(whole / "checkpoint-6" / "optimizer.pt", weights_only=True)
    assert saved["state"].keys() == before["state"].keys()
    for index, entry in before["state"].items():
        torch.testing.assert_close(saved["state"][index]["exp_avg"], entry["exp_avg"], atol=1e-5, rtol=1e-2)


def test_validation_writes_clips_beside_the_log(uninterrupted):
    """Truth and result side by side, for as many clips as asked, at each validation."""
    folder = uninterrupted[1] / "stage1_temporal" / "validation"
    assert sorted(path.name for path in folder.iterdir()) == [f"000000{k}-0.png" for k in (2, 4, 6)]
    with Image.open(folder / "0000006-0.png") as image:
        assert image.size == (2 * SIZE, SIZE) and image.n_frames == 3


PICTURES = {
    "image_autoencoder": ("image_vae", {"folder": "photos", "heldout": "photos", "size": SIZE}, (1, SIZE)),
    "flow_autoencoder": ("flow_vae", {"clips": "heldout", "heldout": "heldout"}, (1, SIZE)),
    "text_to_video": ("start_unet", {"clips": "heldout", "heldout": "heldout"}, (4, SIZE)),
    "trajectory_control": ("controlnet", {"clips": "heldout", "heldout": "heldout"}, (3, SIZE)),
    "animation": ("stage2_unet", {"clips": "heldout", "heldout": "heldout"}, (4, SIZE)),
}


@pytest.mark.parametrize("objective", list(PICTURES))
def test_every_objective_draws_held_out_samples(imported, runs, tmp_path, objective):
    model, data, (frames, side) = PICTURES[objective]
    shutil.copytree(runs / "heldout", tmp_path / "heldout")
    (tmp_path / "photos").mkdir()
    Image.fromarray(smooth_clip(0, 32).frames[0]).save(tmp_path / "photos" / "a.png")
    given = {"image_vae": "vae", "flow_vae": "flow_vae", "text_encoder": "text_encoder", "stage1_unet": "motion_unet"}
    start = {name: f"folder:{imported / folder}" for name, folder in given.items()}
    others = [] if "autoencoder" in objective else ["stage1_unet", "text_encoder", *VAES]
    made = step(
        "a", model, objective, steps=1, others=others, data=data, validate_every=1, validation_clips=2,
        start_from={name: start[name] for name in (*others, *({model} & start.keys()))},
        options={"shares": {"drags": 1}} if model == "controlnet" else {},
    )  # fmt: skip
    pipeline = {"motion_steps": 2, "animation_steps": 2}
    config = parse_config({"models": MODELS, "noise": NOISE, "steps": [made], "pipeline": pipeline})
    trainer.train(config, "a", tmp_path)
    paths = sorted((tmp_path / "a" / "validation").iterdir())
    assert len(paths) == 2
    with Image.open(paths[0]) as image:
        assert image.size == (2 * side, side) and image.n_frames == frames
        left = np.asarray(image.convert("RGB"))[:, :side]
    if objective in ("animation", "text_to_video"):
        assert np.array_equal(left, ClipStore(tmp_path / "heldout").frames[0][0])


@pytest.mark.parametrize("stage", [1, 2])
def test_checkpointing_changes_no_gradient(stage):
    """The whole of each layer, motion modules included, is computed again in the backward pass."""
    torch.manual_seed(0)
    entry = {key: value for key, value in MODELS[f"stage{stage}_unet"].items() if key != "kind"}
    unet = VideoUNet(**entry)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    sample = torch.randn(2, entry["in_channels"], 4, 8, 8)
    text = torch.randn(2, 5, 16)
    more = {"stride": torch.tensor([[1, 2, 3, 4]])} if stage == 1 else {"flow": 8 * torch.randn(2, 3, 2, 16, 16)}
    calls = []
    module = unet.down_blocks[0].motion_modules[0]
    module.register_forward_pre_hook(lambda *_: calls.append(1))  # before: the second time stops at its last layer
    networks, gradients = [unet], []
    if stage == 1:
        networks.append(TrajectoryControlNet.from_unet(unet, condition_channels=3, condition_hidden=8))
        for parameter in networks[1].parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    for enable in (False, True):
        calls.clear()
        residuals = {}
        for network in networks:
            network.zero_grad()
            if enable:
                network.enable_gradient_checkpointing()
        if stage == 1:
            down, mid = networks[1](sample, 500, text, torch.ones(2, 3, 4, 8, 8), **more)
            residuals = {"down_residuals": down, "mid_residual": mid}
        unet(sample, 500, text, **more, **residuals).square().mean().backward()
        assert len(calls) == 1 + enable
        gradients.append({(i, n): p.grad.clone() for i, net in enumerate(networks) for n, p in net.named_parameters()})
    for key, value in gradients[0].items():
        assert value.any(), key
        torch.testing.assert_close(gradients[1][key], value, msg=str(key))


def test_fused_adamw_goes_the_same_way():
    made = []
    for form in ("adamw", "fused"):
        torch.manual_seed(0)
        layer = torch.nn.Linear(8, 8)
        (one,) = parse_config(
            {
                "models": {"a": {"kind": "autoencoder"}},
                "steps": [step("a", "a", "image_autoencoder", data={"folder": "x"}, optimizer=form)],
            }
        ).steps
        optimizer = make_optimizer(one, layer.parameters())
        assert bool(optimizer.defaults["fused"]) == (form == "fused")
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(2, 8)).square().sum().backward()
            optimizer.step()
        made.append(layer.weight.detach())
    torch.testing.assert_close(*made)


def test_eight_bits_where_there_are_none(monkeypatch):
    one = SimpleNamespace(name="a", optimizer="8bit", learning_rate=1e-3, weight_decay=0.0)
    with pytest.raises(ValueError, match="Step a: optimizer 8bit needs a GPU; set optimizer: fused, or adamw"):
        make_optimizer(one, [], "cpu")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match="needs bitsandbytes, which is not installed.*pip install bitsandbytes"):
        make_optimizer(one, [], "cuda")
    stub = SimpleNamespace(optim=SimpleNamespace(AdamW8bit=lambda parameters, **settings: ("8bit", settings)))
    monkeypatch.setitem(sys.modules, "bitsandbytes", stub)
    assert make_optimizer(one, [], "cuda") == (
        "8bit",
        {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
    )
    with pytest.raises(ValueError, match="optimizer is 'sgd', expected one of"):
        parse_config({"models": MODELS, "steps": [step("a", "image_vae", "image_autoencoder", optimizer="sgd")]})


def test_the_sharding_settings_are_what_accelerate_takes():
    settings = load_config_from_file(str(CONFIGS / "fsdp.yaml"))
    assert settings.distributed_type == "FSDP" and settings.num_processes == 8 and settings.mixed_precision == "no"
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import get_module_class_from_name

    names = settings.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
    unet = VideoUNet(**{key: value for key, value in MODELS["stage2_unet"].items() if key != "kind"})
    assert all(get_module_class_from_name(unet, name) is not None for name in names)
    assert FullyShardedDataParallelPlugin(fsdp_version=2, transformer_cls_names_to_wrap=names).fsdp_version == 2


def full() -> Config:
    return load_config(CONFIGS / "full.yaml")


def test_full_scale_loads_all_that_it_does_not_train():
    """Nothing starts from random numbers but the ControlNet's own."""
    for one in full().steps:
        for name in (one.model, *one.others):
            assert one.sources(name) or (name == one.model == "controlnet"), f"{one.name}: {name} starts from nothing"
    temporal = full().step("stage1_temporal").sources("stage1_unet")
    assert temporal == ("folder:imported/motion_unet", "stage1_single"), (
        "AnimateDiff's modules under the trained 2-D part"
    )


def test_full_scale_trains_on_shards_with_checkpointing():
    assert full().step("flow_vae").options.keep_scale and full().models["flow_vae"]["scaling_factor"] == 0.18215
    for one in full().steps:
        assert (
            one.data.clips.startswith("shards/")
            and one.data.heldout
            and one.optimizer == "fused"
            and one.ema_decay == 0.9999
        )
        assert one.validate_every and one.validation_clips
        video = one.objective in ("motion_field", "trajectory_control", "animation") and not getattr(
            one.options, "single", False
        )
        assert one.gradient_checkpointing == video
