"""The recipe of the lite weights at toy size: drawn from the world, from nothing to a pipeline."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from mi2v_lite.data.clips import Clip
from mi2v_lite.data.store import write_store
from mi2v_lite.data.things import Thing, write_things
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.training import trainer
from mi2v_lite.training.curriculum import Config, load_config, parse_config
from mi2v_lite.training.draws import Draws
from mi2v_lite.training.export import export
from mi2v_lite.training.objectives import OBJECTIVES, latents, make_task
from mi2v_lite.training.step_models import build_models, load_model
from tools.gpu.train import lite_content

LITE = Path(__file__).resolve().parents[1] / "mi2v_lite" / "configs" / "lite.yaml"
SIZE, FRAMES, PHOTO = 32, 4, 64


def toy() -> Config:
    """The lite recipe as it is written, with small models and few updates."""
    content = lite_content(toy=True)
    for step in content["steps"]:
        step |= {"steps": 4, "checkpoint_every": 2, "validate_every": 4, "log_every": 1, "ema_decay": 0.5}
    return parse_config(content)


def fill(runs: Path) -> Path:
    """Photos, the mask of a thing in each of them, and a store of clips in the place of the film's."""
    rng, things = np.random.default_rng(0), []
    for split, count in (("train", 3), ("heldout", 2)):
        (runs / "photos" / split).mkdir(parents=True)
        (runs / "things" / split).mkdir(parents=True)
        for i in range(count):
            name, pixels = f"{split}{i}.jpg", rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).resize((PHOTO, PHOTO)).save(runs / "photos" / split / name)
            mask, box = f"{split}/{i}.png", (20, 20, 44, 44)
            Image.fromarray(np.ones((24, 24), bool)).save(runs / "things" / mask)
            things.append(Thing("cup", name, split, mask, box, (PHOTO, PHOTO)))
    write_things(runs / "things", things)
    frames = rng.integers(0, 256, (FRAMES, SIZE, SIZE, 3), np.uint8)
    flow, seen = np.ones((FRAMES - 1, 2, SIZE, SIZE), np.float32), np.ones((FRAMES - 1, SIZE, SIZE), bool)
    write_store(runs / "stores" / "film", [Clip(frames, flow, seen, "a rabbit, it moves", 2)] * 3, 3)
    return runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All steps of the recipe, trained."""
    folder = fill(tmp_path_factory.mktemp("runs"))
    config = toy()
    assert trainer.train_all(config, folder) == [folder / step.name / "final" for step in config.steps]
    return folder


def test_the_recipe_goes_from_nothing_to_a_pipeline(runs, tmp_path, monkeypatch):
    config = toy()
    assert [step.name for step in config.steps] == [step.name for step in load_config(LITE).steps]
    for step in config.steps:
        rows = (runs / step.name / "log.csv").read_text().splitlines()
        assert "heldout" in rows[0] and len(rows) == 1 + 4 + 1
    assert not list((runs / "stores" / "film").glob("latents*")), "what is drawn is encoded where it trains"
    monkeypatch.setattr(trainer, "train", None)
    assert trainer.train_all(config, runs) == [], "what is done is not done again"
    pipe = MotionI2VPipeline.from_lite(export(config, runs, tmp_path / "lite"))
    photo = np.zeros((SIZE, SIZE, 3), np.uint8)
    clip = pipe(photo, "the cup moves left", num_frames=FRAMES, detail="none", height=SIZE, width=SIZE).frames[0]
    assert len(clip) == FRAMES


def test_a_deadline_leaves_a_checkpoint_and_the_next_call_goes_on_to_the_bit(runs, tmp_path):
    config = toy()
    for name in ("photos", "things", "stores"):
        (tmp_path / name).symlink_to(runs / name)
    assert trainer.train_all(config, tmp_path, deadline=0.0) == []
    assert trainer.train(config, "image_vae", tmp_path, deadline=0.0) == tmp_path / "image_vae" / "checkpoint-1"
    assert not (tmp_path / "image_vae" / "final").exists()
    cut = replace(config, steps=config.steps[:2])
    assert trainer.train_all(cut, tmp_path) == [tmp_path / name / "final" for name in ("image_vae", "flow_vae")]
    for name in ("image_vae", "flow_vae"):
        (first,), (second,) = (list((folder / name / "final").rglob("*.safetensors")) for folder in (runs, tmp_path))
        expected = load_file(first)
        for key, value in load_file(second).items():
            assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("name", ["stage1_single", "controlnet", "stage2"])
def test_resume_repeats_an_uninterrupted_training_to_the_bit(runs, tmp_path, name):
    config = toy()
    for entry in ("photos", "things", "stores", *(step.name for step in config.steps if step.name != name)):
        (tmp_path / entry).symlink_to(runs / entry)
    trainer.train(config, name, tmp_path, stop_at=2)
    trainer.train(config, name, tmp_path, resume=True)
    for file in (runs / name / "final").rglob("*.safetensors"):
        again = load_file(tmp_path / file.relative_to(runs))
        for key, value in load_file(file).items():
            assert torch.equal(again[key], value), key


def source(runs: Path, name: str):
    config = toy()
    step = config.step(name)
    models = build_models(config, step, runs)
    return make_task(config, step, runs, models), models


@pytest.mark.parametrize("name", ["stage1_single", "stage2"])
def test_a_sample_is_the_same_in_any_batch_and_any_number_of_processes(runs, name):
    task, _ = source(runs, name)
    whole = task.train.draw(Draws.of(3, 1, count=8))
    halves = [task.train.draw(Draws.of(3, 1, count=4, rank=rank, processes=2)) for rank in (0, 1)]
    for key, value in whole.items():
        torch.testing.assert_close(value, torch.cat([half[key] for half in halves]), msg=key)
    other = task.train.draw(Draws.of(3, 2, count=8))
    assert not torch.equal(other["flow"], whole["flow"])


def test_a_batch_has_what_its_step_needs_and_no_more(runs):
    n, whole, single = FRAMES - 1, source(runs, "stage2")[0], source(runs, "stage1_single")[0]
    draws = Draws.of(0, count=12)
    shapes = {key: tuple(value.shape[1:]) for key, value in whole.train.draw(draws).items()}
    assert shapes["frames"] == (FRAMES, 3, SIZE, SIZE) and shapes["flow"] == (n, 2, SIZE, SIZE)
    assert shapes["stride"] == (n,) and shapes["labels"] == (SIZE, SIZE)
    batch = single.train.draw(draws)
    shapes = {key: tuple(value.shape[1:]) for key, value in batch.items()}
    assert shapes["frames"] == (1, 3, SIZE, SIZE) and shapes["flow"] == (1, 2, SIZE, SIZE) and shapes["stride"] == (1,)
    of_the_film = [i for i in range(12) if i % len(single.train.sources) == len(single.train.sources) - 1]
    assert of_the_film and all(int(batch["stride"][i]) in (2, 4, 6) for i in of_the_film)
    assert not batch["labels"][of_the_film].any() and batch["labels"].any()


def test_drawn_pictures_are_encoded_as_stored_ones_are(runs):
    task, models = source(runs, "stage1_single")
    batch = task.train.draw(Draws.of(0, count=2))
    image, flow = latents(models, batch, "image"), latents(models, batch, "flow")
    assert image.shape == (2, 16, 1, SIZE // 8, SIZE // 8) and flow.shape == (2, 16, 1, SIZE // 8, SIZE // 8)
    stored = {"image_latents": image / models["image_vae"].config.scaling_factor}
    torch.testing.assert_close(latents(models, stored, "image"), image)
    heldout = task.heldout.batch([0, 1])
    assert heldout["flow_latents"].shape[2] == FRAMES - 1 and heldout["image_latents"].shape[2] == 1


def test_heldout_clips_are_always_the_same(runs):
    losses = []
    for _ in range(2):
        task, models = source(runs, "controlnet")
        models["controlnet"] = load_model("controlnet", runs / "controlnet" / "final" / "controlnet")
        with torch.no_grad():
            losses.append(OBJECTIVES["trajectory_control"].figures(models.eval(), task)["heldout_loss"])
    assert losses[0] == losses[1]


def test_two_processes_train_as_one_with_the_double_batch(runs, tmp_path):
    config, name = toy(), "stage1_single"
    one = config.step(name)
    plain = json.loads(json.dumps(asdict(config)))
    plain["steps"] = plain["steps"][: config.steps.index(one) + 1]
    folders = {}
    for processes in (1, 2):
        folders[processes] = folder = tmp_path / str(processes)
        shutil.copytree(runs, folder, ignore=shutil.ignore_patterns(name, "stage1_[tf]*", "control*", "stage2"))
        plain["steps"][-1] |= {"batch_size": 4 // processes, "steps": 2, "learning_rate": 1e-4}
        (folder / "config.yaml").write_text(yaml.safe_dump(plain))
    trainer.train(load_config(folders[1] / "config.yaml"), name, folders[1])
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [*launch, "-m", "mi2v_lite.cli", "train", folders[2] / "config.yaml", "--runs", folders[2]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)  # noqa: S603
    assert done.returncode == 0, done.stderr[-3000:]

    def losses(folder: Path) -> list[float]:
        header, *rows = [row.split(",") for row in (folder / name / "log.csv").read_text().splitlines()]
        return [float(row[header.index("loss")]) for row in rows if row[header.index("loss")]]

    assert len(losses(folders[1])) == 2 and losses(folders[2]) == pytest.approx(losses(folders[1]), rel=1e-4)
