"""The trainer: every step of a tiny curriculum runs, resumes to the bit, and trains only what it should."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file
from test_writing import Killed, killer  # noqa: F401 - a fixture

from mi2v_lite.data import store
from mi2v_lite.data.clips import open_clips
from mi2v_lite.data.store import ClipStore, write_store
from mi2v_lite.diffusion import predicted_clean
from mi2v_lite.io.files import locked
from mi2v_lite.io.videos import write_video
from mi2v_lite.models.autoencoder import encode
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.training import export as exporter
from mi2v_lite.training import latents, trainer
from mi2v_lite.training.batches import FlowFields, InTurn, PhotoCrops
from mi2v_lite.training.curriculum import Config, parse_config
from mi2v_lite.training.draws import Draws, generator_for
from mi2v_lite.training.export import export
from mi2v_lite.training.objectives import OBJECTIVES, Task, hole_weights, make_task, noised, object_weights
from mi2v_lite.training.schema import AnimationOptions
from mi2v_lite.training.step_models import build_models, make_scheduler

SIZE, FRAMES = 16, 4
VAE = {"kind": "autoencoder", "block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4}
UNET = {
    "kind": "video_unet",
    "block_out_channels": [32, 32],
    "layers_per_block": 1,
    "norm_num_groups": 8,  # a channel a group leaves biases before a norm no gradient but rounding, which Adam enlarges
    "attention_levels": [True, False],
    "num_attention_heads": 2,
    "motion_num_attention_heads": 2,
    "cross_attention_dim": 16,
}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
MODELS = {
    "image_vae": {**VAE, "latent_channels": 4},
    "flow_vae": {**VAE, "latent_channels": 2, "in_channels": 2, "out_channels": 2},
    "text_encoder": {"kind": "text_encoder", "tokenizer": "weights/tokenizer", **TEXT},
    "stage1_unet": {**UNET, "in_channels": 6, "out_channels": 2, "use_stride_embedding": True},
    "controlnet": {"kind": "controlnet", "trunk": "stage1_unet", "condition_channels": 3, "condition_hidden": 8},
    "start_unet": {**UNET, "in_channels": 4, "out_channels": 4},
    "stage2_unet": {**UNET, "in_channels": 4, "out_channels": 4, "fusion": "attention", "first_frame_timestep": 1}
    | {"detach_reference": False, "offset_code": True, "warp_pieces": 2},
}
NOISE = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
STORE = {"clips": "stores/train", "heldout": "stores/heldout"}
VAES = {"image_vae": "image_vae", "flow_vae": "flow_vae"}


def step(name: str, model: str, objective: str, **more: object) -> dict:
    common = {"steps": 4, "batch_size": 2, "learning_rate": 1e-2, "ema_decay": 0.9, "checkpoint_every": 2}
    return {"name": name, "model": model, "objective": objective, "log_every": 1, **common, **more}


def curriculum() -> Config:
    video = {"others": ["text_encoder", "image_vae", "flow_vae"], "data": STORE, "text_dropout": 0.5}
    photos = {"folder": "photos", "heldout": "photos", "size": SIZE}
    text = {"text_encoder": "stage1_single"}
    steps = [
        step("image_vae", "image_vae", "image_autoencoder", data=photos, precision="bf16", channels_last=True),
        step("flow_vae", "flow_vae", "flow_autoencoder", data=STORE, start_from={"flow_vae": "image_vae/image_vae"}),
        step(
            "stage1_single",
            "stage1_unet",
            "motion_field",
            **video,
            start_from=VAES,
            model_overrides={"motion_modules": False},
            trainable=["stage1_unet.*", "text_encoder.*"],
            options={"single": True},
            accumulation=2,
        ),
        step(
            "stage1_temporal",
            "stage1_unet",
            "motion_field",
            **video,
            start_from={**VAES, **text, "stage1_unet": "stage1_single"},
            trainable=["stage1_unet.*motion_modules*"],
            validate_every=2,
        ),
        step(
            "controlnet_single",
            "controlnet",
            "trajectory_control",
            **{**video, "others": ["stage1_unet", *video["others"]]},
            start_from={**VAES, **text, "stage1_unet": "stage1_single"},
            trainable=["controlnet.*"],
            options={"single": True, "told_share": 0.5, "shares": {"blocks": 1, "drags": 1, "brush": 1}},
        ),
        step(
            "controlnet",
            "controlnet",
            "trajectory_control",
            **{**video, "others": ["stage1_unet", *video["others"]]},
            start_from={**VAES, **text, "stage1_unet": "stage1_temporal", "controlnet": "controlnet_single"},
            trainable=["controlnet.*"],
            options={"shares": {"blocks": 1, "drags": 1, "things": 1, "brush": 1}},
        ),
        step(
            "stage2",
            "stage2_unet",
            "animation",
            **{**video, "others": ["text_encoder", "image_vae"]},
            start_from={**text, "image_vae": "image_vae"},
            trainable=["stage2_unet.*"],
            options={"start": "warped", "noise_emphasis": 2.0, "decoded_error": "log", "hole_weight": 2.5},
            gradient_checkpointing=True,
            precision="bf16",
        ),
    ]
    steps += [
        step(
            "start_image",
            "start_unet",
            "text_to_video",
            **{**video, "others": ["text_encoder", "image_vae"]},
            start_from={"image_vae": "image_vae"},
            model_overrides={"motion_modules": False},
            trainable=["start_unet.*", "text_encoder.*"],
            options={"single": True},
        ),
        step(
            "start_video",
            "start_unet",
            "text_to_video",
            **{**video, "others": ["text_encoder", "image_vae"]},
            start_from={"image_vae": "image_vae", "text_encoder": "start_image", "start_unet": "start_image"},
            trainable=["start_unet.*motion_modules*"],
        ),
    ]
    steps.append(
        step(
            "ablation",
            "stage2_unet",
            "animation",
            **{**video, "others": ["text_encoder", "image_vae"]},
            start_from={**text, "image_vae": "image_vae", "stage2_unet": "stage2"},
            fresh=["*motion_modules*"],
            model_overrides={"fusion": "addition"},
            trainable=["stage2_unet.*motion_modules*"],
        )
    )
    return parse_config({"models": MODELS, "noise": NOISE, "steps": steps})


def clips(count: int, seed: int) -> list[SimpleNamespace]:
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        frames = random.integers(0, 256, (FRAMES, SIZE, SIZE, 3), np.uint8)
        flow = random.normal(0, 2, (FRAMES - 1, 2, 1, 1)) * np.ones((1, 1, SIZE, SIZE))
        visible = np.ones((FRAMES - 1, SIZE, SIZE), bool)
        made.append(SimpleNamespace(frames=frames, flow=flow, visibility=visible, caption="a red ball rolls", stride=2))
    return made


def fill(folder: Path) -> Path:
    (folder / "photos").mkdir(parents=True)
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
    write_store(folder / "stores" / "train", clips(5, 0), 5)
    write_store(folder / "stores" / "heldout", clips(2, 1), 2)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole curriculum, trained without interruption."""
    folder = fill(tmp_path_factory.mktemp("runs"))
    config = curriculum()
    for one in config.steps:
        assert trainer.train(config, one.name, folder) == folder / one.name / "final"
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def test_all_steps_leave_logs_checkpoints_and_float32_results(runs):
    for one in curriculum().steps:
        folder = runs / one.name
        assert [path.name for path in sorted(folder.glob("checkpoint-*"))] == ["checkpoint-2", "checkpoint-4"]
        assert not list(folder.glob("partial*"))
        result = weights(folder / "final" / one.model)
        assert all(value.dtype == torch.float32 and value.isfinite().all() for value in result.values())
        rows = (folder / "log.csv").read_text().splitlines()
        assert rows[0].startswith("step,loss,lr,seconds") and rows[-1].startswith("4,")
        trained = {path.name for path in (folder / "final").iterdir()}
        with_text = one.name in ("stage1_single", "start_image")
        assert trained == {one.model, *(["text_encoder"] if with_text else [])}
    header, *rows = (runs / "stage1_temporal" / "log.csv").read_text().splitlines()
    assert "heldout_loss" in header and len(rows) == 6


@pytest.mark.parametrize("name", ["image_vae", "stage1_single", "controlnet"])
def test_resume_repeats_an_uninterrupted_training_to_the_bit(runs, tmp_path, name):
    config = curriculum()
    for entry in ("photos", "stores", *(one.name for one in config.steps if one.name != name)):
        (tmp_path / entry).symlink_to(runs / entry)
    assert trainer.train(config, name, tmp_path, stop_at=2).name == "checkpoint-2"
    assert not (tmp_path / name / "final").exists()
    trainer.train(config, name, tmp_path, resume=True)
    for part in ("checkpoint-4", f"final/{config.step(name).model}"):
        for file in (runs / name / part).glob("*.safetensors"):
            again = load_file(tmp_path / name / part / file.name)
            for key, value in load_file(file).items():
                assert torch.equal(again[key], value), key

    def losses(folder: Path) -> list[str]:
        return [row.split(",")[1] for row in (folder / name / "log.csv").read_text().splitlines()]

    assert losses(tmp_path) == losses(runs)


def tree(folder: Path) -> dict[str, bytes]:
    """All that is in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def trained(runs, tmp_path) -> Path:
    """A folder with the photos and the results of the step `image_vae`; returns that of the step."""
    (tmp_path / "photos").symlink_to(runs / "photos")
    return shutil.copytree(runs / "image_vae", tmp_path / "image_vae")


def refuse_to_load(*_: object) -> None:
    raise AssertionError("this takes minutes")


@pytest.mark.parametrize(
    "left, told",
    [
        (("checkpoint-2", "checkpoint-4", "final"), "checkpoint-2, checkpoint-4, final"),
        (("checkpoint-4",), "checkpoint-4"),
        (("final",), "final"),
    ],
)
def test_a_training_beside_the_results_of_an_earlier_one_is_refused(trained, monkeypatch, left, told):
    """Before anything takes long: it would prune its own checkpoints at once, and overwrite the log."""
    for name in {"checkpoint-2", "checkpoint-4", "final"} - set(left):
        shutil.rmtree(trained / name)
    before = tree(trained)
    monkeypatch.setattr(trainer, "build_models", refuse_to_load)
    with pytest.raises(ValueError, match=rf"image_vae holds {told} of an earlier training: .*--resume.*--restart"):
        trainer.train(curriculum(), "image_vae", trained.parent)
    assert tree(trained) == before


def test_a_log_alone_is_no_result(trained):
    """Whoever was stopped before the first checkpoint may simply begin again."""
    for name in ("checkpoint-2", "checkpoint-4", "final"):
        shutil.rmtree(trained / name)
    (trained / "checkpoint-old").mkdir()  # what people call theirs is theirs
    trainer.train(curriculum(), "image_vae", trained.parent, stop_at=2)
    assert len((trained / "log.csv").read_text().splitlines()) == 3 and (trained / "checkpoint-old").is_dir()


def test_restart_removes_the_old_results_and_resume_goes_on_from_the_new(runs, trained, capsys):
    config, before = curriculum(), tree(trained)
    (trained / "checkpoint-4").rename(trained / "checkpoint-400")
    (trained / "validation").mkdir()
    (trained / "validation" / "0000400-0.png").write_bytes(b"old")
    (trained / "notes.txt").write_text("mine")
    capsys.readouterr()
    trainer.train(config, "image_vae", trained.parent, restart=True, stop_at=2)
    said = [line for line in capsys.readouterr().err.splitlines() if "removing" in line]
    names = "checkpoint-2, checkpoint-400, final, validation, log.csv"
    assert said == [f"{trained}: removing {names} of an earlier training"]
    assert sorted(path.name for path in trained.iterdir()) == ["checkpoint-2", "log.csv", "notes.txt"]
    assert len((trained / "log.csv").read_text().splitlines()) == 3
    trainer.train(config, "image_vae", trained.parent, resume=True)
    again = tree(trained)
    for name in before:
        if name.endswith(".safetensors"):
            assert again[name] == before[name], name
    assert (runs / "image_vae" / "final").is_dir() and (runs / "photos").is_dir(), "nothing of other folders"


def test_restart_where_nothing_is(runs, tmp_path, capsys):
    (tmp_path / "photos").symlink_to(runs / "photos")
    trainer.train(curriculum(), "image_vae", tmp_path, restart=True, stop_at=2)
    assert (tmp_path / "image_vae" / "checkpoint-2").is_dir() and "removing" not in capsys.readouterr().err


def test_restart_removes_nothing_before_models_and_data_are_loaded(runs, trained, tmp_path):
    before = tree(trained)
    (tmp_path / "photos").unlink()
    with pytest.raises((ValueError, OSError)):
        trainer.train(curriculum(), "image_vae", tmp_path, restart=True)
    assert tree(trained) == before
    shutil.copytree(runs / "flow_vae", tmp_path / "flow_vae")
    (tmp_path / "stores").symlink_to(runs / "stores")
    shutil.rmtree(trained)
    with pytest.raises(ValueError, match="train the step image_vae first"):
        trainer.train(curriculum(), "flow_vae", tmp_path, restart=True)
    assert tree(tmp_path / "flow_vae") == tree(runs / "flow_vae")


def test_resume_and_restart_exclude_each_other(trained, tmp_path):
    before = tree(trained)
    with pytest.raises(ValueError, match="ask for one of the two"):
        trainer.train(curriculum(), "image_vae", tmp_path, resume=True, restart=True)
    assert tree(trained) == before


def test_a_complete_step_may_be_resumed_and_writes_its_result_again(trained):
    before = tree(trained)
    (trained / "final" / "image_vae" / "config.json").unlink()
    assert trainer.train(curriculum(), "image_vae", trained.parent, resume=True) == trained / "final"
    assert tree(trained) == before


def test_resume_does_not_train_over_a_result_without_a_checkpoint(trained, monkeypatch):
    for name in ("checkpoint-2", "checkpoint-4"):
        shutil.rmtree(trained / name)
    before = tree(trained)
    monkeypatch.setattr(trainer, "build_models", refuse_to_load)
    with pytest.raises(ValueError, match="holds final, but no checkpoint.*--restart"):
        trainer.train(curriculum(), "image_vae", trained.parent, resume=True)
    assert tree(trained) == before


def test_a_training_killed_while_it_replaces_its_result_keeps_it(trained, killer):  # noqa: F811
    before, moved = tree(trained), False
    for changes in range(20):
        killer.after(changes)
        try:
            trainer.train(curriculum(), "image_vae", trained.parent, resume=True)
            break
        except Killed:
            killer.last = None
        asides = list(trained.glob(".final.*.old"))
        moved = moved or not (trained / "final").exists()
        assert tree(trained / "final" if (trained / "final").exists() else asides[0]) == {
            name.removeprefix("final/"): content for name, content in before.items() if name.startswith("final/")
        }
    assert moved, "one kill came between the two moves"
    assert tree(trained) == before


def test_a_checkpoint_that_a_kill_left_aside_is_found(runs, trained, monkeypatch):
    """It counts as a result, and `resume` goes on from it."""
    (trained / "checkpoint-4").rename(trained / ".checkpoint-4.0123abcd.old")
    for name in ("checkpoint-2", "final"):
        shutil.rmtree(trained / name)
    (trained / ".checkpoint-4.89abcdef.part").mkdir()
    before = sorted(path.name for path in trained.iterdir())
    with pytest.raises(ValueError, match="image_vae holds checkpoint-4 of"):
        trainer.train(curriculum(), "image_vae", trained.parent)
    assert sorted(path.name for path in trained.iterdir()) == before, "a refusal changes nothing"
    monkeypatch.setattr(trainer, "_update", refuse_to_load)
    trainer.train(curriculum(), "image_vae", trained.parent, resume=True)
    assert sorted(path.name for path in trained.iterdir()) == ["checkpoint-4", "final", "log.csv"]
    assert tree(trained / "final") == tree(runs / "image_vae" / "final")


def loss(models: torch.nn.ModuleDict, batch: dict[str, torch.Tensor], task: Task) -> torch.Tensor:
    """What the task's objective minimises, always with the same noise."""
    draws = Draws.of(1, count=len(batch["tokens"]))
    return OBJECTIVES[task.step.objective].loss(models, batch, draws, task)[0]


def test_only_what_the_patterns_name_changes(runs):
    before = weights(runs / "stage1_single" / "final" / "stage1_unet")
    after = weights(runs / "stage1_temporal" / "final" / "stage1_unet")
    assert not any("motion_modules" in name for name in before)
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    moved = [name for name in after.keys() - before.keys() if name.endswith("proj_out.weight")]
    assert moved and all(after[name].abs().max() > 0 for name in moved), "motion modules start at zero and leave it"


def test_fresh_parameters_forget_what_the_model_starts_from(runs):
    config = curriculum()
    trained = weights(runs / "stage2" / "final" / "stage2_unet")
    built = build_models(config, config.step("ablation"), runs)["stage2_unet"]
    assert built.config.fusion == "addition"
    for name, value in built.state_dict().items():
        if "motion_modules" not in name:
            assert torch.equal(value, trained[name]), name
        elif "temporal_transformer.proj_out" in name:
            assert not value.any() and trained[name].any(), name
    with pytest.raises(ValueError, match="fresh: the pattern 'nothing'"):
        build_models(config, replace(config.step("ablation"), fresh=("nothing",)), runs)


def test_both_stages_can_start_from_models_that_make_frames_from_text(runs):
    """As the paper's start from Stable Diffusion and AnimateDiff: what fits is taken, what the task adds is new."""
    config = curriculum()
    image, video = (weights(runs / name / "final" / "start_unet") for name in ("start_image", "start_video"))
    assert image.keys() == {name for name in video if "motion_modules" not in name}
    assert all(torch.equal(video[name], value) for name, value in image.items()), "only the motion modules moved"
    assert any(video[name].any() for name in video if name.endswith("temporal_transformer.proj_out.weight"))
    begun = {**VAES, "text_encoder": "start_image", "stage1_unet": "start_video/start_unet"}
    fresh = ("conv_in.*", "conv_out.*", "stride_embedding.*")
    single = replace(config.step("stage1_single"), start_from=begun, fresh=fresh)
    built = build_models(config, single, runs)["stage1_unet"].state_dict()
    anew = tuple(pattern.removesuffix("*") for pattern in fresh)
    assert all(name.startswith(anew) or torch.equal(value, image[name]) for name, value in built.items())
    assert built["conv_in.weight"].shape[1] == 6 and not any("motion_modules" in name for name in built)
    begun = {**config.step("stage2").start_from, "stage2_unet": "start_video/start_unet"}
    built = build_models(config, replace(config.step("stage2"), start_from=begun), runs)["stage2_unet"]
    assert built.config.fusion == "attention"
    assert all(torch.equal(built.state_dict()[name], value) for name, value in video.items())
    with pytest.raises(ValueError, match="missing \\['stride_embedding"):
        build_models(config, replace(single, fresh=fresh[:2]), runs)


def test_frames_from_text_are_made_all_alike(runs):
    """The first frame, too, and none of them from anything but the text."""
    config = curriculum()
    step = config.step("start_video")
    models = build_models(config, step, runs)
    task = make_task(config, step, runs, models)
    seen = []
    unet = models["start_unet"].forward

    def watched(noisy, timesteps, text, **conditions):
        seen.append((tuple(noisy.shape), conditions))
        return unet(noisy, timesteps, text, **conditions)

    models["start_unet"].forward = watched
    batch = task.train.draw(Draws.of(0, count=2))
    whole = loss(models, batch, task)
    loss(models, batch, replace(task, step=replace(step, options={"single": True})))
    channels, side = batch["image_latents"].shape[1], batch["image_latents"].shape[-1]
    assert seen == [((2, channels, FRAMES, side, side), {}), ((2, channels, 1, side, side), {})]
    batch["image_latents"][:, :, 0] += 5
    assert loss(models, batch, task) != whole, "the first frame counts"


def test_a_controlnet_of_single_frames_grows_the_trunks_motion_modules(runs):
    config = curriculum()
    single = weights(runs / "controlnet_single" / "final" / "controlnet")
    trunk = weights(runs / "stage1_temporal" / "final" / "stage1_unet")
    assert not any("motion_modules" in name for name in single)
    grown = trainer.build_models(config, config.step("controlnet"), runs)["controlnet"].state_dict()
    gained = grown.keys() - single.keys()
    assert gained and all("motion_modules" in name for name in gained)
    assert all(torch.equal(grown[name], single[name]) for name in single)
    assert all(torch.equal(grown[name], trunk[name]) for name in gained & trunk.keys())


def test_a_warped_start_is_for_fresh_models_and_has_a_known_name(runs):
    made = curriculum()
    fresh = build_models(made, made.step("stage2"), runs)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    make_task(made, made.step("stage2"), runs, fresh)
    changed = {name for name, value in fresh.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("motion_modules" in name for name in changed)
    going_on = replace(made.step("ablation"), options={"start": "warped"}, model_overrides={}, fresh=())
    models = build_models(made, going_on, runs)
    before = {name: value.clone() for name, value in models.state_dict().items()}
    make_task(made, going_on, runs, models)
    assert all(torch.equal(value, before[name]) for name, value in models.state_dict().items())
    with pytest.raises(ValueError, match="start is 'hot', expected one of 'zero', 'warped'"):
        replace(going_on, options={"start": "hot"})


@pytest.mark.parametrize(("options", "share"), [({}, 0.5), ({"noise_emphasis": 2.0}, 0.75), ({"noise_from": 0.5}, 1.0)])
def test_where_the_noise_is_drawn(options, share):
    clean, draws = torch.zeros(400, 1, 1, 1, 1), Draws.of(0, count=400)
    _, timesteps, _ = noised(clean, draws, None, make_scheduler(NOISE), AnimationOptions(**options))
    assert (timesteps >= 500).float().mean() == pytest.approx(share, abs=0.02)


class DrawsOfTheMiddle(Draws):
    """Draws that put every sample at the second timestep of a sampling in two steps."""

    def strata(self) -> torch.Tensor:
        return torch.full((len(self.generators),), 0.4999)


# Equation: velocity, noising
@pytest.mark.parametrize("kind", ["v_prediction", "epsilon"])
def test_with_own_guess_a_network_learns_from_where_its_sampling_leads(kind):
    zero_snr = {"rescale_betas_zero_snr": kind != "epsilon"}
    scheduler = make_scheduler({**NOISE, **zero_snr, "prediction_type": kind, "clip_sample": False})
    clean, draws = torch.randn(16, 2, 3, 4, 4), DrawsOfTheMiddle.of(0, count=16)
    options = AnimationOptions(own_guess=0.5)
    noisy, timesteps, target = noised(clean, draws, lambda x, t: x.flip(-1) * 0.5 + 0.1, scheduler, options)
    noise = Draws.of(0, count=16).randn(2, 3, 4, 4)
    assert torch.allclose(predicted_clean(scheduler, target, noisy, timesteps), clean, atol=1e-4)

    scheduler.set_timesteps(2)
    first, second = scheduler.timesteps
    assert (timesteps == second).all()
    start = scheduler.add_noise(clean, noise, first.expand(16))
    sampled = scheduler.step(start.flip(-1) * 0.5 + 0.1, first, start).prev_sample
    told = scheduler.add_noise(clean, noise, timesteps)
    from_guess = (noisy - sampled).abs().amax((1, 2, 3, 4)) < 1e-2
    from_truth = (noisy - told).abs().amax((1, 2, 3, 4)) < 1e-2
    assert (from_guess ^ from_truth).all() and 3 < from_guess.sum() < 13

    with pytest.raises(ValueError, match="own_guess is 2, expected a number from 0 to 1"):
        AnimationOptions(own_guess=2)


@pytest.mark.parametrize("name", ["stage1_temporal", "controlnet", "stage2"])
def test_every_objective_can_learn_from_its_own_guess(runs, name):
    made = curriculum()
    plain = made.step(name)
    models = build_models(made, plain, runs)
    task = make_task(made, plain, runs, models)
    batch = task.train.draw(Draws.of(0, count=2))
    before = loss(models, batch, task)
    guessing = replace(task, step=replace(plain, options=replace(plain.options, own_guess=1.0)))
    after = loss(models, batch, guessing)
    assert after == loss(models, batch, guessing) and after.isfinite() and after != before
    after.backward()


def test_told_share_moves_the_loss_to_where_the_control_tells_the_flow(runs):
    made = curriculum()
    chosen = made.step("controlnet_single")

    def losses(share: float) -> tuple[float, float]:
        torch.manual_seed(0)
        step = replace(chosen, start_from={}, options=replace(chosen.options, told_share=share))
        models = build_models(made, step, runs)
        task = make_task(made, step, runs, models)
        batch = task.train.draw(Draws.of(0, count=4))
        value, logs = OBJECTIVES["trajectory_control"].loss(models, batch, Draws.of(1, count=4), task)
        return float(value.detach()), float(logs["inside"])

    (everywhere, inside), (half, _), (there, _) = losses(0), losses(0.5), losses(1)
    assert there == pytest.approx(inside) and there != pytest.approx(everywhere, rel=0.01)
    assert half == pytest.approx((everywhere + there) / 2)
    with pytest.raises(ValueError, match="told_share is 5, expected a number from 0 to 1"):
        losses(5)


@pytest.mark.parametrize(("measure", "of"), [("log", np.log), ("root", np.sqrt)])
@pytest.mark.parametrize("name", ["start_video", "stage1_temporal", "controlnet", "stage2"])
def test_every_objective_can_look_at_what_its_latents_decode_to(runs, name, measure, of):
    made = curriculum()
    chosen = replace(made.step(name), options=replace(made.step(name).options, decoded_error=measure))
    models = build_models(made, chosen, runs)
    task = make_task(made, chosen, runs, models)
    vae = models["flow_vae" if "stage1" in name or "controlnet" in name else "image_vae"]
    assert len(task.decoded.channels) == vae.config.latent_channels
    batch = task.train.draw(Draws.of(0, count=2))
    whole = loss(models, batch, task)
    whole.backward()
    task.decoded.channels *= 0  # nothing but the autoencoder's own error is left
    floor, unit = loss(models, batch, task), task.decoded.unit if measure == "root" else 1.0
    assert float(floor.detach()) == pytest.approx(of(task.decoded.floor / unit), rel=1e-5) and whole > floor


def test_where_frame_0_shows_nothing_counts_as_it_is_told():
    flow = torch.zeros(1, 2, 2, 32, 32)
    flow[:, 1, 0, :, 8:] = 8.0  # all but the left quarter goes away from it
    weights = hole_weights(flow, 5.0, 0, (8, 8))
    assert weights.shape == (1, 1, 2, 8, 8) and (weights[:, :, 0] == 1).all()
    assert (weights[0, 0, 1, 0] == torch.tensor([1, 1, 5, 5, 1, 1, 1, 1])).all()
    assert (hole_weights(flow, 0.0, 1, (8, 8))[0, 0, 1, 0] == torch.tensor([1, 0, 0, 0, 0, 1, 1, 1])).all()


def test_stores_are_drawn_from_in_turn(runs, tmp_path):
    made = curriculum()
    others = clips(3, 9)
    for clip in others:
        clip.stride = 8
    write_store(runs / "stores" / "others", others, 3)
    chosen = made.step("stage1_single")
    chosen = replace(chosen, data=replace(chosen.data, mixed_with="stores/others"))
    source = make_task(made, chosen, runs, build_models(made, chosen, runs)).train
    assert isinstance(source, InTurn)
    whole = source.draw(Draws.of(3, 1, count=4))
    assert whole["stride"][:, 0].tolist() == [2, 8, 2, 8]
    halves = [source.draw(Draws.of(3, 1, count=2, rank=rank, processes=2)) for rank in (0, 1)]
    for name, value in whole.items():
        assert torch.equal(value, torch.cat([half[name] for half in halves])), name

    # Three in turn, one of them twice: small batches get to all of them.
    three = replace(chosen, data=replace(chosen.data, mixed_with=["stores/others", "stores/train"]))
    source = make_task(made, three, runs, build_models(made, three, runs)).train
    drawn = [source.draw(Draws.of(3, 1, i, count=2, batch=i))["stride"][:, 0].tolist() for i in range(3)]
    assert drawn == [[2, 8], [2, 2], [8, 2]]
    with pytest.raises(ValueError, match="from stores, not from shards"):
        InTurn([SimpleNamespace(order=None), SimpleNamespace(order=[0, 1])])


# Equation: training-loss
def test_single_displacements_are_learnt_from_pairs_of_frames(runs):
    made = curriculum()
    source = SimpleNamespace(clip=clips(2, 9).__getitem__)
    pairs = [pair for seed in range(2) for pair in store.pairs(source, seed, 2)]
    write_store(runs / "stores" / "pairs", pairs, 4)
    chosen = made.step("stage1_single")
    chosen = replace(chosen, data=replace(chosen.data, clips="stores/pairs", mixed_with="stores/pairs"))
    models = build_models(made, chosen, runs)
    task = make_task(made, chosen, runs, models)
    batch = task.train.draw(Draws.of(3, 1, count=8))
    assert batch["flow_latents"].shape[2] == 1 and set(batch["stride"].flatten().tolist()) <= {p.stride for p in pairs}
    assert loss(models, batch, task).isfinite()
    mixed = replace(chosen, data=replace(chosen.data, mixed_with="stores/train"))
    with pytest.raises(ValueError, match=f"same frames.*pairs has 2 x {SIZE} x {SIZE}.*train has {FRAMES} x {SIZE}"):
        make_task(made, mixed, runs, models)


def test_stage2_learns_from_frame_0_and_one_other(runs):
    made = curriculum()
    step = next(step for step in made.steps if step.objective == "animation")
    chosen = replace(step, options=replace(step.options, single=True))
    models = build_models(made, chosen, runs)
    seen = []
    models[chosen.model].register_forward_pre_hook(
        lambda _, given, named: seen.append((given[0].shape, named["flow"].shape)), with_kwargs=True
    )
    task = make_task(made, chosen, runs, models)
    batch = task.train.draw(Draws.of(1, count=3))
    assert loss(models, batch, task).isfinite()
    assert all(sample[2] == 2 and flow[1] == 1 for sample, flow in seen) and seen


def test_what_moves_by_itself_counts_more(runs):
    flow = torch.zeros(2, 3, 2, 16, 16)
    flow[0, :, 0] = 5.0  # all moves alike
    flow[1, 2, 0, :4, :4] = 9.0  # a corner moves
    weight = object_weights(flow, 4.0, (8, 8))
    assert weight.shape == (2, 1, 3, 8, 8)
    assert (weight[0] == 1).all() and (weight[1, :, :2] == 1).all()
    assert (weight[1, 0, 2, :2, :2] == 5).all() and weight[1, 0, 2].sum() == 64 + 4 * 4
    made = curriculum()
    losses = []
    for options in ({"single": True}, {"single": True, "object_weight": 1e-9}, {"single": True, "object_weight": 4.0}):
        chosen = replace(made.step("stage1_single"), options=options)
        torch.manual_seed(0)
        models = build_models(made, chosen, runs)
        task = make_task(made, chosen, runs, models)
        batch = task.train.draw(Draws.of(1, count=3))
        assert ("flow" in batch) == (chosen.options.object_weight > 0)
        if "flow" in batch:
            batch["flow"][:, :, 0, :4, :4] += 20
        losses.append(float(loss(models, batch, task).detach()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5) and losses[2] != pytest.approx(losses[0], rel=1e-3)


def test_pattern_without_a_parameter():
    with pytest.raises(ValueError, match="'net.none' matches no parameter"):
        trainer.trainable_parameters(torch.nn.ModuleDict({"net": torch.nn.Linear(1, 1)}), ("net.*", "net.none"))


def test_a_missing_result_is_named(tmp_path):
    fill(tmp_path)
    with pytest.raises(ValueError, match="train the step image_vae first"):
        trainer.train(curriculum(), "flow_vae", tmp_path)


def test_resume_refuses_another_config(runs, tmp_path):
    config = curriculum()
    (tmp_path / "photos").symlink_to(runs / "photos")
    trainer.train(config, "image_vae", tmp_path, stop_at=2)
    changed = parse_config({"models": MODELS, "steps": [{**vars(config.step("image_vae")), "seed": 9}]})
    with pytest.raises(ValueError, match="belongs to another config"):
        trainer.train(changed, "image_vae", tmp_path, resume=True)


def test_the_scale_gives_unit_variance(runs):
    vae = AutoencoderKL.from_pretrained(runs / "flow_vae" / "final" / "flow_vae")
    assert vae.config.scaling_factor not in (1.0, 0.18215)
    flow = torch.randn(16, 2, SIZE, SIZE) * 0.02 + 0.5
    scale = latents.estimate_scale(vae, flow.split(4))
    with torch.no_grad():
        assert float((encode(vae, flow, scaled=False) * scale).std()) == pytest.approx(1, rel=1e-2)


def test_latents_are_cached_by_weights(runs, tmp_path):
    folder = tmp_path / "store"
    write_store(folder, clips(2, 5), 2)
    vae = AutoencoderKL.from_pretrained(runs / "image_vae" / "final" / "image_vae")
    cached = latents.cached_latents(folder, vae, "image")
    with torch.no_grad():
        direct = encode(vae, latents.clip_frames(ClipStore(folder), 1), scaled=False)
    assert cached.shape == (2, FRAMES, 4, SIZE // 2, SIZE // 2) and cached.dtype == np.float16
    np.testing.assert_allclose(cached[1], direct.numpy(), atol=2e-3, rtol=2e-3)
    files = list(folder.glob("latents_*"))
    latents.cached_latents(folder, vae, "image")
    assert list(folder.glob("latents_*")) == files
    vae.encoder.conv_in.bias.data[0] += 0.1
    other = latents.cached_latents(folder, vae, "image")
    assert len(list(folder.glob("latents_*"))) == 2 and not np.array_equal(other, cached)
    with pytest.raises(ValueError, match="kind is 'video'"):
        latents.cached_latents(folder, vae, "video")


def test_batches_depend_on_their_key_alone(runs):
    photos = PhotoCrops(runs / "photos", SIZE)
    first = photos.batch([generator_for(1, 2)] * 2)["images"]
    photos.batch([generator_for(1, 3)] * 2)
    assert torch.equal(photos.batch([generator_for(1, 2)] * 2)["images"], first)
    assert not torch.equal(photos.batch([generator_for(1, 3)] * 2)["images"], first)
    assert first.shape == (2, 3, SIZE, SIZE) and first.abs().max() <= 1
    with pytest.raises(ValueError, match="No pictures"):
        PhotoCrops(runs / "stores", SIZE)


def test_flipped_flow_is_the_flow_of_the_flipped_clip(tmp_path):
    """A field that points away from the middle looks the same when it is mirrored with its signs."""
    x, y = np.meshgrid(np.arange(SIZE) - 7.5, np.arange(SIZE) - 7.5)
    clip = clips(1, 0)[0]
    clip.flow = np.stack([x, y])[None].repeat(FRAMES - 1, 0)
    write_store(tmp_path, [clip], 1)
    fields = FlowFields(tmp_path, amplitude=(1.0, 1.0)).batch([generator_for(0)] * 8)["flow"]
    torch.testing.assert_close(fields, torch.from_numpy(clip.flow[:1]).float().expand(8, -1, -1, -1))


def test_the_results_become_a_pipeline_that_samples(runs, tmp_path):
    config = replace(curriculum(), pipeline={"motion_steps": 2, "animation_steps": 2})
    folder = export(config, runs, tmp_path / "lite")
    saved = weights(folder / "animation_unet")
    assert {value.dtype for name, value in saved.items() if name.endswith("pos_encoder.pe")} == {torch.float32}
    assert {value.dtype for name, value in saved.items() if not name.endswith("pos_encoder.pe")} == {torch.float16}
    assert [path.name for path in tmp_path.iterdir()] == ["lite"]  # nothing half-written stays
    pipe = MotionI2VPipeline.from_lite(folder)
    trained = load_file(runs / "stage1_temporal" / "final" / "stage1_unet" / "diffusion_pytorch_model.safetensors")
    for name, value in pipe.motion_unet.state_dict().items():
        kept = trained[name] if name.endswith("pos_encoder.pe") else trained[name].half().float()
        torch.testing.assert_close(value, kept, msg=name)
    photo = np.zeros((SIZE, SIZE, 3), np.uint8)
    output = pipe(photo, "a red ball rolls", num_frames=FRAMES, generator=torch.Generator().manual_seed(0))
    assert output.flow.shape == (1, FRAMES - 1, 2, SIZE, SIZE) and len(output.frames[0]) == FRAMES


def test_export_names_a_model_that_was_not_trained(runs, tmp_path):
    with pytest.raises(ValueError, match="model image_vae"):
        export(curriculum(), tmp_path, tmp_path / "lite")
    assert not list(tmp_path.iterdir())


def saved_as(folder: Path, name: str) -> Path:
    """A folder as diffusers saves a pipeline of that class, with one file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))
    (folder / "weights.txt").write_text("old")
    return folder


def test_export_replaces_an_earlier_pipeline_and_nothing_beside_it(runs, tmp_path):
    config = curriculum()
    output = saved_as(tmp_path / "lite", "MotionI2VPipeline")
    (tmp_path / "lite.partial").mkdir()
    (tmp_path / "lite.partial" / "mine.txt").write_text("mine")
    assert export(config, runs, output) == output
    assert not (output / "weights.txt").exists() and (output / "animation_unet").is_dir()
    (tmp_path / "new" / "empty").mkdir(parents=True)
    for name in ("new/empty", "new/below/lite"):
        assert tree(export(config, runs, tmp_path / name)).keys() == tree(output).keys()
    assert (tmp_path / "lite.partial" / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lite", "lite.partial", "new"]


def test_export_refuses_what_it_must_not_replace(tmp_path, monkeypatch):
    """All of it before a model is loaded, and all that was there stays."""
    content = {"models": MODELS, "noise": NOISE, "steps": [asdict(each) for each in curriculum().steps]}
    content["steps"][0]["start_from"] = {"image_vae": f"folder:{tmp_path / 'imported' / 'vae'}"}
    config = parse_config(json.loads(json.dumps(content)))
    for name in ("runs/stage2/final/stage2_unet", "runs/stores", "docs", "broken", "list"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "kept.txt").write_text("kept")
    (tmp_path / "broken" / "model_index.json").write_text("{")
    (tmp_path / "list" / "model_index.json").write_text("[]")
    saved_as(tmp_path / "other", "StableDiffusionPipeline")
    saved_as(tmp_path / "imported", "MotionI2VPipeline")
    (tmp_path / "imported" / "vae").mkdir()
    saved_as(tmp_path, "MotionI2VPipeline")
    saved_as(tmp_path / "runs" / "stage2", "MotionI2VPipeline")
    saved_as(tmp_path / "good", "MotionI2VPipeline")
    (tmp_path / "link").symlink_to("good")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "file.txt").write_text("kept")
    monkeypatch.setattr(exporter, "newest", refuse_to_load)
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    for told, names in {
        "holds something other than a pipeline.*choose another": ["docs", "broken", "list", "other", "runs/stores"],
        "is a file, expected a folder": ["file.txt"],
        "is a symbolic link to": ["link", "nowhere"],
        "would replace .*runs": ["runs", ".", "docs/..", tmp_path],
        "is inside .*stage2, where the trainer keeps": ["runs/stage2", "runs/stage2/final/new", "docs/../runs/stage2"],
        "is inside .*controlnet, where": ["runs/controlnet"],
        "would replace .*imported.vae": ["imported"],
    }.items():
        for name in names:
            with pytest.raises(ValueError, match=f"^The output {name} {told}"):
                export(config, "runs", name)
    assert tree(tmp_path) == before and (tmp_path / "link").is_symlink() and (tmp_path / "nowhere").is_symlink()
    with pytest.raises(AssertionError, match="minutes"):
        export(config, "runs", "good")  # it comes as far as the models
    assert tree(tmp_path) == before


def test_a_killed_export_leaves_the_old_pipeline_to_the_next(runs, tmp_path, monkeypatch):
    config, rename = curriculum(), os.rename
    output = saved_as(tmp_path / "lite", "MotionI2VPipeline")
    before = tree(output)

    def killed(source, target):
        if moved:
            raise Killed
        moved.append(target)
        rename(source, target)

    moved: list[Path] = []
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(os, "rename", killed)
        export(config, runs, output)
    (aside,) = tmp_path.glob(".lite.*.old")
    assert tree(aside) == before and not output.exists()
    with monkeypatch.context() as patched, pytest.raises(AssertionError, match="minutes"):
        patched.setattr(exporter, "load_model", refuse_to_load)
        export(config, runs, output)
    assert tree(output) == before and [path.name for path in tmp_path.iterdir()] == ["lite"]
    export(config, runs, output)
    assert not (output / "weights.txt").exists() and [path.name for path in tmp_path.iterdir()] == ["lite"]


def test_the_flow_decoder_may_train_on_without_new_latents(runs):
    vae = AutoencoderKL.from_pretrained(runs / "flow_vae" / "final" / "flow_vae")
    before = latents.encoder_hash(vae)
    with torch.no_grad():
        vae.decoder.conv_out.bias += 1
        assert latents.encoder_hash(vae) == before
        vae.encoder.conv_in.bias += 1
    assert latents.encoder_hash(vae) != before


def test_two_processes_train_as_one_with_the_double_batch(runs, tmp_path):
    """Through `accelerate launch`, as a user would; same losses, same weights. One of them removes old results."""
    double, halves = tmp_path / "double", tmp_path / "halves"
    for folder in (double, halves):
        shutil.copytree(runs, folder, ignore=shutil.ignore_patterns("stage1_temporal", "stage2", "controlnet*"))
    shutil.rmtree(double / "stage1_single")
    (halves / "stage1_single" / "checkpoint-4").rename(halves / "stage1_single" / "checkpoint-400")
    config = curriculum()
    one = config.step("stage1_single")
    step = {**asdict(one), "batch_size": 2, "accumulation": 1, "learning_rate": 1e-4}
    written = tmp_path / "config.yaml"
    others = [asdict(other) for other in config.steps[: config.steps.index(one)]]
    plain = json.loads(json.dumps({"models": MODELS, "noise": NOISE, "steps": [*others, step]}))
    written.write_text(yaml.safe_dump(plain))
    # --multi_gpu is Accelerate's word for torchrun; without a GPU the two processes meet through gloo.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [*launch, "-m", "mi2v_lite.cli", "train", str(written), "--step", one.name, "--runs", str(halves)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    settings = {"capture_output": True, "text": True, "timeout": 600, "env": environment}
    done = subprocess.run([*command, "--restart"], **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("removing checkpoint-2, checkpoint-400, final, log.csv of an earlier training") == 1
    kept = sorted(path.name for path in (halves / one.name).iterdir())
    assert kept == ["checkpoint-2", "checkpoint-4", "final", "log.csv"]
    plain["steps"][-1]["batch_size"] = 4
    trainer.train(parse_config(plain), one.name, double)

    def losses(folder):
        with (folder / one.name / "log.csv").open() as file:
            return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]

    assert len(losses(double)) >= 2 and losses(halves) == pytest.approx(losses(double), rel=1e-4)
    once, twice = (weights(folder / one.name / "final" / "stage1_unet") for folder in (double, halves))
    apart = torch.cat([(twice[name] - value).abs().flatten() for name, value in once.items()])
    # Single weights may differ: Adam makes a whole step even of a gradient that is zero but for rounding.
    assert apart.mean() < 0.01 * 4 * step["learning_rate"], "over all weights, far less than four updates move them"


def test_a_folder_of_videos_needs_nothing_but_its_name(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        frames = np.kron(random.integers(0, 256, (16, 8, 8, 3), dtype=np.uint8), np.ones((1, 8, 8, 1), np.uint8))
        frames[:] = frames[:1]
        for i in range(16):
            frames[i] = np.roll(frames[0], i, axis=1)  # a pixel to the right a frame
        (tmp_path / "my_videos").mkdir(exist_ok=True)
        write_video(tmp_path / "my_videos" / f"{name}.mp4", frames)
    entry = step("flow_vae", "flow_vae", "flow_autoencoder", data={"clips": "my_videos"}, steps=2)
    config = parse_config({"models": MODELS, "steps": [entry]})
    assert trainer.train(config, "flow_vae", tmp_path).is_dir()
    clips = open_clips(tmp_path / "my_videos.shards")
    assert clips.frames.shape == (3, 16, 128, 128, 3) and list(clips.strides) == [1, 1, 1]
    asked = {"clips": "my_videos.shards", "size": [96, 128], "num_frames": 8}
    other = parse_config({"models": MODELS, "steps": [entry | {"data": asked, "name": "other"}]})
    with pytest.raises(ValueError, match="16 frames of 128x128 .* ask for 8 of 128x96"):
        trainer.train(other, "other", tmp_path)
    shutil.rmtree(tmp_path / "my_videos.shards")
    small = parse_config(
        {"models": MODELS, "steps": [entry | {"data": asked | {"clips": "my_videos"}, "name": "small"}]}
    )
    assert trainer.train(small, "small", tmp_path).is_dir()
    assert open_clips(tmp_path / "my_videos.shards").frames.shape == (3, 8, 96, 128, 3)
    found = latents.cached_latents(
        tmp_path / "my_videos.shards", build_models(config, config.steps[0], tmp_path)["flow_vae"], "flow"
    )
    assert found.shape == (3, 7, 2, 48, 64) and list((tmp_path / "my_videos.shards").glob("shard-000000.latents_*"))


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "lost":
        path.unlink()
    else:
        changed = bytes([content[len(content) // 2] ^ 1])
        half = len(content) // 2
        path.write_bytes(
            {"empty": b"", "cut": content[:half], "bit": content[:half] + changed + content[half + 1 :]}[how]
        )


@pytest.mark.parametrize("how", ["empty", "cut", "bit", "lost"])
@pytest.mark.parametrize("file", ["weights.safetensors", "ema.safetensors", "optimizer.pt", "step.json"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(runs, tmp_path, capsys, file, how):
    config, name = curriculum(), "flow_vae"
    fill(tmp_path)
    (tmp_path / "image_vae").symlink_to(runs / "image_vae")
    folder = tmp_path / name
    shutil.copytree(runs / name, folder)
    shutil.rmtree(folder / "final")
    damage(folder / "checkpoint-4" / file, how)
    trainer.train(config, name, tmp_path, resume=True)
    assert "checkpoint-4 is damaged" in capsys.readouterr().err
    once, twice = (weights(place / name / "final" / name) for place in (runs, tmp_path))
    assert all(torch.equal(twice[key], value) for key, value in once.items())
    for number in (2, 4):
        damage(folder / f"checkpoint-{number}" / file, how)
    with pytest.raises(ValueError, match=r"All checkpoints .* are damaged .* --restart"):
        trainer.train(config, name, tmp_path, resume=True)


def test_a_second_training_of_a_step_is_refused(trained):
    with locked(trained), pytest.raises(BlockingIOError, match="another program"):
        trainer.train(curriculum(), trained.name, trained.parent, resume=True)


def test_a_training_that_cannot_begin_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError):
        trainer.train(curriculum(), "flow_vae", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_is_an_error_of_the_system_and_leaves_the_old_checkpoints(runs, tmp_path, monkeypatch):
    config, name = curriculum(), "image_vae"
    fill(tmp_path)
    trainer.train(config, name, tmp_path, stop_at=2)

    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="checkpoint-4 cannot be written: .* Is the disk full"):
        trainer.train(config, name, tmp_path, resume=True)
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["checkpoint-2", "log.csv"]
