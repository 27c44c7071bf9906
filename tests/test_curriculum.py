"""The curriculum as data: what a config may say, and what the lite one says."""

import copy
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mi2v_lite.training.curriculum import check_data, load_config, parse_config
from mi2v_lite.training.objectives import OBJECTIVES
from mi2v_lite.training.schema import DECLARED
from mi2v_lite.training.trainer import train

LITE = Path(__file__).resolve().parents[1] / "mi2v_lite" / "configs" / "lite.yaml"
FIRST = LITE.with_name("lite_first.yaml")  # first edition: goes with the weights that were trained on it
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
    assert config.step("stage1_pans").sources("stage1_unet") == ("start_image/start_unet",)
    assert config.step("stage1_temporal").sources("stage1_unet") == ("start_video/start_unet", "stage1_single")
    assert config.step("stage2_single").sources("stage2_unet") == ("start_video/start_unet",)
    assert config.step("stage2_single").options.single and not config.step("stage2").options.single
    assert not any("text_encoder" in pattern for pattern in config.step("stage1_full").trainable)
    assert config.step("controlnet").trainable == ("controlnet.*",)
    models = config.models
    latents = models["image_vae"]["latent_channels"], models["flow_vae"]["latent_channels"]
    assert models["stage1_unet"]["in_channels"] == sum(latents)
    assert models["controlnet"]["condition_channels"] == latents[1] + 1
    assert models["stage2_unet"]["in_channels"] == latents[0]


# first edition: goes with the weights that were trained on it
@pytest.mark.parametrize("trial", ["stage1_trial_{}", "stage1_trial_temporal_{}", "stage2_trial_{}"])
def test_trials_of_a_start_differ_in_their_start_alone(trial):
    config = load_config(FIRST)
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
    for path, text in ((LITE, "stage1_single"), (FIRST, "stage1_world")):
        config = load_config(path)
        wanted = {"text_encoder": text, "stage1_unet": "stage1_full", "controlnet": "controlnet"}
        for model, name in (wanted | {"stage2_unet": "stage2"}).items():
            steps = [step for step in config.steps if any(part.startswith(f"{model}.") for part in step.trainable)]
            assert steps[-1].name == name


def test_a_step_that_draws_from_the_world_has_one():
    content = changed(data={"folder": "photos", "frames_from": "world", "frames_share": 0.5})
    with pytest.raises(ValueError, match="data names 'world', but the config has no section world"):
        parse_config(content)
    assert parse_config(content | {"world": {"size": 64}}).world.size == 64
    with pytest.raises(ValueError, match="config: world: unknown key 'sizes'; did you mean 'size'"):
        parse_config(content | {"world": {"sizes": 64}})


def test_a_step_without_data_is_described_but_not_trained(tmp_path):
    content = changed()
    del content["steps"][0]["data"]
    config = parse_config(content)
    with pytest.raises(ValueError, match=f"The step {config.steps[0].name} has no data"):
        check_data(config, tmp_path, config.steps)
    with pytest.raises(ValueError, match="has no data"):
        train(config, config.steps[0].name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_all_that_is_missing_is_named_at_once(tmp_path):
    config = load_config(LITE)
    for name in ("photos/heldout", "things"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"needs what is not there") as raised:
        check_data(config, tmp_path, config.steps)
    said = str(raised.value)
    assert "photos/train (for image_vae, flow_vae, start_image" in said and "film (for stage1_single, " in said
    assert "heldout" not in said and "things (for" not in said and "tools/things/README.md" in said
    (tmp_path / "photos" / "train").mkdir()
    check_data(config, tmp_path, config.steps[:4])
    (tmp_path / "stores" / "film").mkdir(parents=True)
    film = replace(config.step("stage1_single").data, clips="stores/film", mixed_with=("stores/film",), heldout=None)
    check_data(replace(config, world=None), tmp_path, [replace(config.step("stage1_single"), data=film)])


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


def test_the_ablation_differs_in_its_fusion_alone():
    ablation, lite = load_config(LITE.with_name("ablation.yaml")), load_config(LITE)
    ours = {"offset_code", "warp_pieces"}  # what the paper's layers do not have
    whole = {name: value for name, value in lite.models["stage2_unet"].items() if name not in ours}
    for step in ablation.steps:
        assert ablation.models["ablation_unet"] | {"fusion": "attention"} == whole
        plain = replace(ablation.steps[0], model_overrides=step.model_overrides, name=step.name, seed=step.seed)
        assert step == plain and step.name.split("_")[1] == step.model_overrides["fusion"]
    assert len({(step.seed, step.model_overrides["fusion"]) for step in ablation.steps}) == 9
    assert ablation.noise == lite.noise and ablation.world == lite.world
