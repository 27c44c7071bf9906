"""The curriculum as data: what a config may say, and what the lite one says."""

import copy
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mi2v_lite.training.curriculum import load_config, parse_config
from mi2v_lite.training.objectives import OBJECTIVES
from mi2v_lite.training.schema import DECLARED

LITE = Path(__file__).resolve().parents[1] / "mi2v_lite" / "configs" / "lite.yaml"
STEP = {
    "name": "a",
    "model": "image_vae",
    "objective": "image_autoencoder",
    "steps": 100,
    "batch_size": 2,
    "learning_rate": 1.0,
    "data": {"folder": "photos"},
}
PLAIN = {"models": {"image_vae": {"kind": "autoencoder"}}, "steps": [STEP]}


def changed(**values: object) -> dict:
    content = copy.deepcopy(PLAIN)
    content["steps"][0].update(values)
    return content


def test_lite_follows_the_paper():
    config = load_config(LITE)
    names = [step.name for step in config.steps]
    paper = ["image_vae", "flow_vae", "stage1_single", "stage1_temporal", "stage1_full", "controlnet", "stage2"]
    assert [name for name in names if name in paper] == paper
    assert config.step("stage1_single").model_overrides == {"motion_modules": False}
    assert config.step("stage1_temporal").trainable == ("stage1_unet.*motion_modules*",)
    assert config.step("stage1_single").sources("stage1_unet") == ("stage1_start_image/stage1_start",)
    temporal = config.step("stage1_temporal").sources("stage1_unet")
    assert temporal == ("stage1_start_video/stage1_start", "stage1_decoded")
    assert config.step("stage2_coarse").sources("stage2_unet") == ("stage2_start_video/stage2_start",)
    assert not any("text_encoder" in pattern for pattern in config.step("stage1_full").trainable)
    assert config.step("controlnet").trainable == ("controlnet.*",)
    models = config.models
    latents = models["image_vae"]["latent_channels"], models["flow_vae"]["latent_channels"]
    assert models["stage1_unet"]["in_channels"] == sum(latents)
    assert models["controlnet"]["condition_channels"] == latents[1] + 1
    assert models["stage2_unet"]["in_channels"] == latents[0]


@pytest.mark.parametrize("trial", ["stage1_trial_{}", "stage1_trial_temporal_{}", "stage2_trial_{}"])
def test_trials_of_a_start_differ_in_their_start_alone(trial):
    config = load_config(LITE)
    nothing = config.step(trial.format("nothing"))
    others = [step for step in config.steps if step.name in (trial.format("image"), trial.format("video"))]
    assert others
    for other in others:
        assert other.start_from != nothing.start_from
        start = {"name": nothing.name, "start_from": nothing.start_from, "fresh": (), "options": nothing.options}
        assert replace(other, **start) == nothing
        assert {**asdict(other.options), "start": 0} == {**asdict(nothing.options), "start": 0}


def test_what_ships_is_trained_last():
    """`export` takes a model from the last step that has trained it: none of the trials' text encoders."""
    config = load_config(LITE)
    wanted = {"text_encoder": "stage1_world", "stage1_unet": "stage1_full", "controlnet": "controlnet"}
    for model, name in (wanted | {"stage2_unet": "stage2"}).items():
        steps = [step for step in config.steps if any(part.startswith(f"{model}.") for part in step.trainable)]
        assert steps[-1].name == name


def test_every_objective_exists():
    assert set(DECLARED) == set(OBJECTIVES)


def test_unreadable_file(tmp_path):
    with pytest.raises(ValueError, match="Cannot read"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ValueError, match="Cannot read"):
        load_config(tmp_path / "bad.yaml")
    with pytest.raises(ValueError, match="No step 'b'; the config has \\['a'\\]"):
        parse_config(PLAIN).step("b")


def test_learning_rate():
    step = parse_config(changed(warmup_steps=10, schedule="cosine", final_learning_rate=0.1)).step("a")
    assert step.learning_rate_at(0) == pytest.approx(0.1)
    assert step.learning_rate_at(9) == step.learning_rate_at(10) == 1.0
    assert step.learning_rate_at(55) == pytest.approx(0.55)
    assert step.learning_rate_at(100) == pytest.approx(0.1)
    constant = parse_config(changed(warmup_steps=10)).step("a")
    assert constant.learning_rate_at(50) == constant.learning_rate_at(99) == 1.0
