"""What a config may not say: each kind of mistake at each place, and the words that name it."""

import copy
import inspect
import math
import subprocess
import sys
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml
from diffusers import AutoencoderKL, DDIMScheduler
from transformers import CLIPTextConfig

from mi2v_lite import cli
from mi2v_lite.models.autoencoder import PatchAutoencoderKL
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.fusion import FUSIONS
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.pipelines.detail import DETAILS
from mi2v_lite.pipelines.motion_field import IMAGE_RANGES
from mi2v_lite.training import masks, schema
from mi2v_lite.training.curriculum import Step, load_config, parse_config
from mi2v_lite.training.schema import DECLARED, KINDS, NEEDED, ControlKind
from mi2v_lite.training.settings import SettingError, read_yaml
from mi2v_lite.training.step_models import make_scheduler

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "mi2v_lite" / "configs"
NAN, INF = math.nan, math.inf
COMMON = {"steps": 10, "batch_size": 2, "learning_rate": 1e-3}
VIDEO = {**COMMON, "others": ["text_encoder", "image_vae", "flow_vae"], "data": {"clips": "stores/train"}}
GOOD = {
    "models": {
        "image_vae": {"kind": "autoencoder", "block_out_channels": [8, 8], "norm_num_groups": 4},
        "flow_vae": {"kind": "autoencoder", "patch_size": 4, "block_out_channels": [8], "data_std": 0.02},
        "text_encoder": {"kind": "text_encoder", "tokenizer": "weights/tokenizer", "hidden_size": 16},
        "stage1_unet": {"kind": "video_unet", "block_out_channels": [8, 8], "attention_levels": [True, False]},
        "controlnet": {"kind": "controlnet", "trunk": "stage1_unet"},
    },
    "noise": {"beta_start": 0.00085, "prediction_type": "v_prediction"},
    "pipeline": {"motion_steps": 2, "detail": "carry", "working_size": 128},
    "steps": [
        {
            **{**COMMON, "name": "photos", "model": "image_vae", "objective": "image_autoencoder"},
            **{"data": {"folder": "photos", "frames_from": "stores/train", "frames_share": 0.5}},
        },
        {
            **{**COMMON, "name": "fields", "model": "flow_vae", "objective": "flow_autoencoder"},
            **{"data": {"clips": "stores/train", "amplitude": [1, 1]}, "options": {"start": "pca"}},
        },
        {**VIDEO, "name": "motion", "model": "stage1_unet", "objective": "motion_field"},
        {
            **{**VIDEO, "name": "control", "model": "controlnet", "objective": "trajectory_control"},
            **{"others": ["stage1_unet", *VIDEO["others"]], "start_from": {"stage1_unet": "motion"}},
            **{"options": {"shares": {"drags": 1.0}}},
        },
        {**VIDEO, "name": "frames", "model": "stage1_unet", "objective": "animation"},
    ],
}
ABSENT = object()


def changed(place: str, value: object) -> dict:
    """The good config with another value at a place such as "steps.2.options"."""
    content = copy.deepcopy(GOOD)
    *way, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    there = content
    for part in way:
        there = there.setdefault(part, {}) if isinstance(there, dict) else there[part]
    if value is ABSENT:
        del there[last]
    else:
        there[last] = value
    return content


# Where, what is written there, and what the error says after the file's name.
BAD = [
    # The whole
    ("stages", [], "unknown key 'stages'; did you mean 'steps'?"),
    ("steps", 3, "steps is 3, expected a list of mappings."),
    ("steps", {"photos": {}}, "steps is {'photos': {}}, expected a list of mappings."),
    ("steps", [], "steps is missing or empty"),
    ("steps", ABSENT, "steps is missing or empty"),
    ("models", ["image_vae"], "models is ['image_vae'], expected a mapping of texts to mappings."),
    ("models", None, "models is empty, expected a mapping"),
    # Models
    ("models.image_vae", "autoencoder", "models: image_vae: expected a mapping with a key kind, found 'autoencoder'."),
    ("models.image_vae.kind", ABSENT, "models: image_vae: expected a mapping with a key kind, found {"),
    ("models.image_vae.kind", "autoencodr", "'controlnet'; did you mean 'autoencoder'?"),
    ("models.image_vae.kind", ["autoencoder"], "models: image_vae: kind is ['autoencoder'], expected one of"),
    ("models.image_vae.latent_chanels", 4, "image_vae: unknown key 'latent_chanels'; did you mean 'latent_channels'?"),
    ("models.image_vae.patch_sise", 4, "unknown key 'patch_sise'; did you mean 'patch_size'?"),
    ("models.image_vae.latent_channels", "4", "latent_channels is '4', expected a whole number of at least 1; leave"),
    ("models.image_vae.block_out_channels", 8, "block_out_channels is 8, expected a list of whole numbers of at lea"),
    ("models.image_vae.block_out_channels", [8, 0], "block_out_channels is [8, 0], expected a list of whole numbers"),
    ("models.image_vae.block_out_channels", [], "expected a list of whole numbers of at least 1 that is not empty."),
    ("models.image_vae.scaling_factor", NAN, "image_vae: scaling_factor is nan, expected a number above 0."),
    ("models.flow_vae.act_fn", "silu", "models: flow_vae: unknown key 'act_fn'; known are patch_size, in_channels,"),
    ("models.flow_vae.data_std", 0, "models: flow_vae: data_std is 0, expected a number above 0."),
    ("models.text_encoder.hiden_size", 8, "text_encoder: unknown key 'hiden_size'; did you mean 'hidden_size'?"),
    ("models.text_encoder.num_hidden_layers", 1.5, "num_hidden_layers is 1.5, expected a whole number of at least 1."),
    ("models.text_encoder.tokenizer", "", "text_encoder: tokenizer is '', expected text."),
    ("models.stage1_unet.fussion", "none", "models: stage1_unet: unknown key 'fussion'; did you mean 'fusion'?"),
    ("models.stage1_unet.fusion", "add", "fusion is 'add', expected one of 'attention', 'addition', 'none'."),
    ("models.stage1_unet.motion_modules", "false", "motion_modules is 'false', expected true or false; leave out the"),
    ("models.stage1_unet.attention_levels", [True], "attention_levels has 1 entries for 2 block_out_channels"),
    ("models.stage1_unet.attention_levels", [1, 0], "attention_levels is [1, 0], expected a list of true or false."),
    ("models.controlnet.trunk", "stage1_unte", "trunk is 'stage1_unte', expected the video_unet that it copies; did"),
    ("models.controlnet.trunk", ABSENT, "models: controlnet: trunk is empty, expected the video_unet"),
    ("models.controlnet.motion_modules", True, "models: controlnet: unknown key 'motion_modules'; known are trunk,"),
    ("models", {"../evil": {"kind": "autoencoder"}}, "models: ../evil: name is '../evil', expected text of letters"),
    # Noise and pipeline
    ("noise", "linear", "noise: expected a mapping of names to values, found 'linear'."),
    ("noise.beta_strat", 0.1, "noise: unknown key 'beta_strat'; did you mean 'beta_start'?"),
    ("noise.beta_start", NAN, "noise: beta_start is nan, expected a number above 0 and below 1."),
    ("noise.beta_start", "small", "noise: beta_start is 'small', expected a number above 0 and below 1."),
    ("noise.num_train_timesteps", 0, "noise: num_train_timesteps is 0, expected a whole number of at least 1."),
    ("noise.prediction_type", "sample", "prediction_type is 'sample', expected one of 'epsilon', 'v_prediction'."),
    ("noise.clip_sample", 0, "noise: clip_sample is 0, expected true or false."),
    ("pipeline", [1], "pipeline: expected a mapping of names to values, found [1]."),
    ("pipeline.motion_step", 2, "pipeline: unknown key 'motion_step'; did you mean 'motion_steps'?"),
    ("pipeline.motion_steps", 2.5, "pipeline: motion_steps is 2.5, expected a whole number of at least 1."),
    ("pipeline.motion_steps", 1001, "motion_steps is 1001, expected at most the noise's num_train_timesteps, 1000."),
    ("pipeline.animation_guidance_scale", INF, "animation_guidance_scale is inf, expected a number of at least 0."),
    ("pipeline.detail", "cary", "detail is 'cary', expected one of 'carry', 'none'; did you mean 'carry'?"),
    ("pipeline.working_size", 127, "working_size is 127, expected a multiple of 2, which one latent of the image_vae"),
    ("pipeline.working_size", 10**6, "working_size is 1000000, expected a whole number from 1 to 8192 or nothing."),
    ("pipeline.hold_control", "yes", "pipeline: hold_control is 'yes', expected true or false"),
    # A step
    ("steps.0", "photos", "steps[0]: expected a mapping of names to values, found 'photos'."),
    ("steps.0.name", ABSENT, "steps[0]: name is missing, expected text of letters, digits, _ and -."),
    ("steps.0.name", "../evil", "name is '../evil', expected text of letters, digits, _ and -."),
    ("steps.0.name", "", "steps[0] \"\": name is '', expected text"),
    ("steps.0.name", True, "name is true, expected text of letters, digits, _ and -; YAML takes yes, no, on and off"),
    ("steps.1.name", "photos", 'steps[1] "photos": a step before has the same name'),
    ("steps.0.learnin_rate", 1.0, "steps[0] \"photos\": unknown key 'learnin_rate'; did you mean 'learning_rate'?"),
    ("steps.0.learning-rate", 1.0, "unknown key 'learning-rate'; did you mean 'learning_rate'?"),
    ("steps.0.7", 1.0, 'steps[0] "photos": unknown key 7; known are name, model, objective,'),
    ("steps.0.learning_rate", ABSENT, "learning_rate is missing, expected a number above 0."),
    ("steps.0.learning_rate", NAN, 'steps[0] "photos": learning_rate is nan, expected a number above 0.'),
    ("steps.0.learning_rate", 0, "learning_rate is 0, expected a number above 0."),
    ("steps.0.learning_rate", -1e-3, "learning_rate is -0.001, expected a number above 0."),
    ("steps.0.learning_rate", "0.5", "learning_rate is '0.5', expected a number above 0; leave out the quotes."),
    ("steps.0.learning_rate", 10**400, "learning_rate is 1000"),
    ("steps.0.learning_rate", 16**9999, "learning_rate is a number of thousands of digits, expected a number above 0."),
    ("steps.0.final_learning_rate", -1.0, "final_learning_rate is -1.0, expected a number of at least 0."),
    ("steps.0.steps", True, "steps is true, expected a whole number of at least 1."),
    ("steps.0.steps", 0, 'steps[0] "photos": steps is 0, expected a whole number of at least 1.'),
    ("steps.0.batch_size", 1.5, "batch_size is 1.5, expected a whole number of at least 1."),
    ("steps.0.accumulation", None, "accumulation is empty, expected a whole number of at least 1."),
    ("steps.0.ema_decay", 5, "ema_decay is 5, expected a number of at least 0 and below 1."),
    ("steps.0.ema_decay", 1, "ema_decay is 1, expected a number of at least 0 and below 1."),
    ("steps.0.text_dropout", 7, "text_dropout is 7, expected a number from 0 to 1."),
    ("steps.0.text_dropout", NAN, "text_dropout is nan, expected a number from 0 to 1."),
    ("steps.0.grad_clip", -1, "grad_clip is -1, expected a number above 0."),
    ("steps.0.weight_decay", INF, "weight_decay is inf, expected a number of at least 0."),
    ("steps.0.warmup_steps", -5, "warmup_steps is -5, expected a whole number of at least 0."),
    ("steps.0.seed", -1, "seed is -1, expected a whole number of at least 0 and below 2**63."),
    ("steps.0.schedule", "cosin", "schedule is 'cosin', expected one of 'constant', 'cosine'; did you mean 'cosine'?"),
    ("steps.0.optimizer", "sgd", "optimizer is 'sgd', expected one of 'adamw', 'fused', '8bit'."),
    ("steps.0.precision", False, "precision is false, expected one of 'no', 'bf16'; YAML takes yes, no, on and off"),
    ("steps.0.channels_last", "true", "channels_last is 'true', expected true or false; leave out the quotes."),
    ("steps.0.trainable", "image_vae.*", "trainable is 'image_vae.*', expected a list of texts that is not empty."),
    ("steps.0.trainable", [], "trainable is [], expected a list of texts that is not empty."),
    ("steps.0.trainable", ["image_vea.*"], "trainable names 'image_vea', expected the model of this step"),
    ("steps.0.objective", "gan", "objective is 'gan', expected one of 'image_autoencoder', "),
    ("steps.2.objective", "motion_feild", "'animation'; did you mean 'motion_field'?"),
    ("steps.0.model", "image_vea", "model names 'image_vea', which is not among the models; did you mean 'image_vae'?"),
    ("steps.0.model", "stage1_unet", "the model stage1_unet is of kind video_unet, but the objective"),
    ("steps.2.others", ["image_vae"], "others lacks text_encoder, flow_vae, which the objective motion_field needs."),
    ("steps.2.others", [*VIDEO["others"], "clip"], "others names 'clip', which is not among the models; known are"),
    ("steps.0.start_from", {"image_vae": "latr"}, "image_vae starts from 'latr', expected a step before this one; kno"),
    ("steps.3.start_from", {"stage1_unet": "motoin"}, "expected a step before this one; did you mean 'motion'?"),
    (
        "steps.3.start_from",
        {"stage1_unet": "fields"},
        "starts from fields/stage1_unet, expected a model of that step afte",
    ),
    ("steps.0.start_from", {"flow_vae": "photos"}, "start_from names 'flow_vae', expected the model of this step or"),
    ("steps.0.start_from", {"image_vae": [1]}, "start_from is {'image_vae': [1]}, expected a mapping of texts to te"),
    ("steps.0.model_overrides", {"latent_chanels": 1}, "model_overrides: unknown key 'latent_chanels'; did you mean"),
    ("steps.0.model_overrides", {"kind": "controlnet"}, "model_overrides: unknown key 'kind'"),
    ("steps.2.model_overrides", {"warp_pieces": "1"}, "model_overrides: warp_pieces is '1', expected a whole number"),
    # Its data
    ("steps.0.data", {}, 'steps[0] "photos": data: folder is missing, expected text.'),
    ("steps.0.data", "photos", "steps[0] \"photos\": data: expected a mapping of names to values, found 'photos'."),
    ("steps.0.data.foldr", "x", "data: unknown key 'foldr'; did you mean 'folder'?"),
    ("steps.0.data.size", 10**6, "data: size is 1000000, expected a whole number from 1 to 8192."),
    ("steps.0.data.scale", [1.0, 0.5], "expected a list of 2 numbers above 0 and at most 1 with the smaller one first"),
    ("steps.0.data.scale", [0.5], "data: scale is [0.5], expected a list of 2 numbers above 0 and at most 1"),
    ("steps.0.data.frames_from", None, "data: frames_share is 0.5, but frames_from names no clips."),
    ("steps.1.data.amplitude", 1.0, "data: amplitude is 1.0, expected a list of 2 numbers above 0"),
    (
        "steps.1.data.shards",
        "b",
        "data: unknown key 'shards'; known are clips, heldout, size, num_frames, stride, amplitude.",
    ),
    (
        "steps.1.data.mixed_with",
        "b",
        "data: unknown key 'mixed_with'; known are clips, heldout, size, num_frames, stride, amplitude.",
    ),
    ("steps.2.data", {"heldout": "b"}, "data: clips is missing, expected text."),
    ("steps.2.data.mixed_with", {"a": 1}, "data: mixed_with is {'a': 1}, expected text or a list of texts."),
    # Its options
    ("steps.0.options.edge_wieght", 1, "options: unknown key 'edge_wieght'; did you mean 'edge_weight'?"),
    ("steps.0.options.kl_weight", -1e-6, "options: kl_weight is -1e-06, expected a number of at least 0."),
    ("steps.0.options.start", "pca", "options: start is 'pca', but image_vae has no patch_size to cut patches with."),
    ("steps.1.options.keep_scale", "yes", "options: keep_scale is 'yes', expected true or false"),
    ("steps.2.options", 3, 'steps[2] "motion": options: expected a mapping of names to values, found 3.'),
    ("steps.2.options.object_wieght", 8, "options: unknown key 'object_wieght'; did you mean 'object_weight'?"),
    ("steps.2.options.object_weight", NAN, "options: object_weight is nan, expected a number of at least 0."),
    ("steps.2.options.single", "false", "options: single is 'false', expected true or false; leave out the quotes."),
    ("steps.2.options.noise_from", 1.0, "options: noise_from is 1.0, expected a number of at least 0 and below 1."),
    ("steps.2.options.own_guess", 2, "options: own_guess is 2, expected a number from 0 to 1."),
    ("steps.2.options.decoded_error", "rot", "expected one of 'log', 'root' or nothing; did you mean 'root'?"),
    ("steps.2.options.lr", 0.2, "options: unknown key 'lr'; known are noise_from,"),
    ("steps.3.options", ABSENT, "options: shares is missing, expected a mapping of 'blocks', 'drags', 'anchors',"),
    ("steps.3.options.shares", {"drag": 1}, "options: shares is {'drag': 1}, expected a mapping of 'blocks', 'drags',"),
    ("steps.3.options.shares", {"drag": 1}, "did you mean 'drags'?"),
    ("steps.3.options.shares", {"drags": NAN}, "options: shares is {'drags': nan}, expected a mapping"),
    ("steps.3.options.shares", {"drags": 0}, "to numbers of at least 0 that are not all 0."),
    ("steps.3.options.told_share", 1.5, "options: told_share is 1.5, expected a number from 0 to 1."),
    ("steps.4.options.object_weight", 1, "options: unknown key 'object_weight'; did you mean 'hole_weight'?"),
    ("steps.4.options.start", "warped", "options: start is 'warped', but the fusion of stage1_unet is not"),
]


@pytest.mark.parametrize(("place", "value", "said"), BAD, ids=[f"{i}-{place}" for i, (place, *_) in enumerate(BAD)])
def test_a_mistake_is_named_in_one_sentence(place, value, said):
    with pytest.raises(ValueError) as caught:
        parse_config(changed(place, value), "my.yaml")
    told = str(caught.value)
    assert told.startswith("my.yaml: ") and said in told
    assert "\n" not in told and len(told) < 900 and told[-1] in ".?" and told.count("?") <= 1


def test_the_good_config_is_good():
    config = parse_config(GOOD)
    control = config.step("control")
    assert control.options.shares == {"drags": 1.0} and control.options.noise_emphasis == 1.0
    assert config.step("photos").data.scale == (0.25, 1.0) and config.step("fields").data.amplitude == (1.0, 1.0)
    assert config.step("motion").data.clips == "stores/train" and config.step("motion").data.mixed == ()
    mixed = replace(config.step("motion"), data={"clips": "a", "mixed_with": "b"})
    assert mixed.data.mixed == ("b",)


def written(folder: Path, text: str) -> Path:
    path = folder / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "10e-5", "1.0e-4", ".1e-3", "0.0001", "+1e-04"])
def test_numbers_with_an_exponent_are_numbers_however_they_are_written(tmp_path, number):
    """YAML 1.1 takes half of these for text."""
    text = yaml.safe_dump(GOOD).replace("learning_rate: 0.001", f"learning_rate: {number}")
    text = text.replace("beta_start: 0.00085", f"beta_start: {number}").replace("steps: 10\n", "steps: 2e3\n")
    config = load_config(written(tmp_path, text))
    step = config.step("motion")
    assert step.learning_rate == pytest.approx(1e-4) and isinstance(step.learning_rate, float)
    assert step.steps == 2000 and isinstance(step.steps, int)
    assert float(make_scheduler(config.noise).betas[0]) == pytest.approx(1e-4)


@pytest.mark.parametrize("number", ["1e400", "2.5e0", "1e-4x", "e5"])
def test_what_is_no_such_number_stays_wrong(tmp_path, number):
    text = yaml.safe_dump(GOOD).replace("batch_size: 2", f"batch_size: {number}")
    with pytest.raises(SettingError, match="my.yaml: .*batch_size is .*, expected a whole number of at least 1"):
        load_config(written(tmp_path, text))


def test_a_key_given_twice_is_named_with_both_lines(tmp_path):
    text = "models:\n  a: {kind: autoencoder}\nnoise: {}\nsteps: []\nnoise: {}\n"
    with pytest.raises(SettingError, match="my.yaml: line 5: the key 'noise' is given twice, first in line 3"):
        load_config(written(tmp_path, text))
    with pytest.raises(SettingError, match="line 1: the key 'b' is given twice, first in line 1"):
        read_yaml(written(tmp_path, 'a: [{b: 1, "b": 2}]'))
    merged = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: {<<: *a}\n"  # to merge and to override is what merging is for
    assert read_yaml(written(tmp_path, merged)) == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    "content",
    [
        b"a: [1", b"a: b: c", b"\xff\xfe\x00", b"caf\xe9: 1", b"a: 2024-13-45", b"a: !!timestamp x", b"[" * 5000,
        b"a: *b", b"a: !!python/object/apply:os.getcwd []", b"--- a\n--- b", b"a: " + b"9" * 5000, b"? [1]\n: 2",
        b"\x00", b"a: !!binary '\xc3\xa4'", b"<<: 3", b"=: 1",
    ],
)  # fmt: skip
def test_what_is_no_yaml_is_one_sentence(tmp_path, content):
    (tmp_path / "my.yaml").write_bytes(content)
    with pytest.raises(SettingError) as caught:
        load_config(tmp_path / "my.yaml")
    assert str(caught.value).startswith(("Cannot read the config ", str(tmp_path))) and "my.yaml" in str(caught.value)


@pytest.mark.parametrize("content", ["", "3", "- a", "a: &a [*a]", "&a {steps: *a, models: *a}", "~: 1", "true: 1"])
def test_yaml_that_is_no_curriculum(tmp_path, content):
    with pytest.raises(SettingError, match="my.yaml: "):
        load_config(written(tmp_path, content))


def test_a_byte_order_mark_is_no_key(tmp_path):
    assert load_config(written(tmp_path, "\ufeff" + yaml.safe_dump(GOOD))) == parse_config(GOOD)


def test_an_empty_section_is_one_without_settings():
    """As is left over where all lines of it were made comments."""
    content = copy.deepcopy(GOOD) | {"noise": None, "pipeline": None}
    content["steps"][2]["options"] = None
    config = parse_config(content)
    assert config.noise == {} and config.pipeline == {} and config.step("motion") == parse_config(GOOD).step("motion")


WRONG = [NAN, INF, -INF, None, True, -1, 2.5, "nonsense", "", [], [NAN], {"a": NAN}, object(), b"x"]


def required(cls: type) -> dict:
    known = {"folder": "a", "clips": "a", "shares": {"drags": 1.0}}
    return {item.name: known[item.name] for item in fields(cls) if item.name in known}


def settings() -> list:
    classes = {kind for declared in DECLARED.values() for kind in (declared.data, declared.options)}
    found = [(cls, item) for cls in sorted(classes, key=lambda one: one.__name__) for item in fields(cls)]
    found += [(Step, item) for item in fields(Step) if item.name not in ("data", "options", "model_overrides")]
    return [pytest.param(*pair, id=f"{pair[0].__name__}.{pair[1].name}") for pair in found]


@pytest.mark.parametrize(("cls", "item"), settings())
def test_every_setting_refuses_what_is_no_value_of_it(cls, item):
    """Also where an instance is made without a file. NaN fits nowhere, and of the others most must not fit."""
    good = GOOD["steps"][0] if cls is Step else required(cls)
    cls(**good)
    refused = []
    for wrong in WRONG:
        try:
            cls(**{**good, item.name: wrong})
        except SettingError as error:
            assert str(error).startswith((f"{item.name} is ", "data: ", "trainable names", "start_"))
            refused.append(wrong)
        except Exception as error:
            raise AssertionError(f"{wrong!r} gives {type(error).__name__}") from error
    assert any(wrong is NAN for wrong in refused) and any(wrong is INF for wrong in refused)
    kept = [wrong for wrong in WRONG if not any(wrong is one for one in refused)]
    of_its_type = {bool: [True], int: [], float: [2.5], str: ["nonsense"]}
    default = item.default if item.default is not MISSING else None
    if type(default) in of_its_type:
        assert [wrong for wrong in kept if wrong not in of_its_type[type(default)]] == []
    assert len(kept) <= 3, kept


def test_settings_know_each_objective_and_each_class():
    """What is declared without torch is what the classes with torch take."""
    assert {declared.trains for declared in DECLARED.values()} | set(NEEDED.values()) == set(KINDS)
    assert {name for declared in DECLARED.values() for name in declared.needs} == set(NEEDED)
    assert set(get_args(ControlKind)) == set(masks.KINDS)

    def names(cls: type) -> set[str]:
        return set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}

    def declared(cls: type) -> set[str]:
        return set(cls.__annotations__)

    assert declared(schema.Autoencoder) == names(AutoencoderKL) | {"patch_size"}
    assert declared(schema.PatchAutoencoder) == names(PatchAutoencoderKL)
    assert declared(schema.VideoUNet) == names(VideoUNet)
    assert declared(schema.Noise) == names(DDIMScheduler)
    copied = inspect.signature(TrajectoryControlNet.from_unet).parameters
    assert declared(schema.ControlNet) == {"trunk", *copied} - {"unet"}
    assert declared(schema.TextEncoder) - {"tokenizer"} <= names(CLIPTextConfig)
    pipeline = inspect.signature(MotionI2VPipeline.__init__).parameters.values()
    assert declared(schema.Pipeline) == {one.name for one in pipeline if one.default is not inspect.Parameter.empty}
    settings = {**get_type_hints(schema.Pipeline), **get_type_hints(schema.VideoUNet)}
    for key, known in {"detail": DETAILS, "stage1_image_range": IMAGE_RANGES, "fusion": FUSIONS}.items():
        assert set(get_args(settings[key])) == set(known)


def plain(value: object) -> object:
    """Tuples as lists, as YAML has them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", ["lite", "lite_first", "ablation", "full"])
def test_what_ships_is_loaded_as_it_is_written(name):
    """Nothing is lost or changed on the way; what is not written has the default of always."""
    path = CONFIGS / f"{name}.yaml"
    config, raw = load_config(path), yaml.safe_load(path.read_text(encoding="utf-8"))
    assert (config.models, config.noise, config.pipeline) == (raw["models"], raw["noise"], raw.get("pipeline", {}))
    defaults = {
        "data": {"heldout": None, "mixed_with": [], "frames_from": None, "num_frames": None, "stride": None}
        | {"scale": [0.25, 1.0], "jitter": 0.1, "frames_share": 0.0, "amplitude": [0.5, 1.3]},
        "options": {"keep_scale": False, "edge_weight": 0.5, "kl_weight": 1e-6, "single": False, "object_weight": 0.0}
        | {"noise_from": 0.0, "noise_emphasis": 1.0, "own_guess": 0.0, "decoded_error": None, "told_share": 0.0}
        | {"hole_weight": 1.0, "hole_margin": 0},
    }
    for step, entry in zip(config.steps, raw["steps"], strict=True):
        values = plain(asdict(step))
        for key, value in entry.items():
            if key not in defaults:
                assert values[key] == value and type(values[key]) is type(value), (step.name, key)
        for key, usual in defaults.items():
            written = entry.get(key, {})
            for option, value in values[key].items():
                if option == "size" and option not in written:
                    assert value == (128 if step.objective == "image_autoencoder" else None)
                elif option == "start" and option not in written:
                    assert value == ("random" if "autoencoder" in step.objective else "zero")
                else:
                    assert value == (written[option] if option in written else usual[option]), (step.name, option)


def test_a_config_goes_through_plain_data_and_back():
    config = load_config(CONFIGS / "lite.yaml")
    assert parse_config(yaml.safe_load(yaml.safe_dump(plain(asdict(config))))) == config


def test_the_command_line_refuses_before_torch_loads(tmp_path, capsys, monkeypatch):
    path = written(tmp_path, yaml.safe_dump(changed("steps.2.options.object_wieght", 8)))
    code = "import sys; from mi2v_lite.cli import main; code = main(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    words = ["train", str(path), "--step", "motion", "--runs", str(tmp_path / "runs")]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    said = f"{path}: steps[2] \"motion\": options: unknown key 'object_wieght'; did you mean 'object_weight'?"
    assert done.stdout == "2 False\n" and done.stderr == f"mi2v: error: {said}\n"
    assert not (tmp_path / "runs").exists()
    good = written(tmp_path, yaml.safe_dump(GOOD))
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert cli.main(["train", str(good)]) == 2
    assert "environment variable WORLD_SIZE is 'two', expected a whole number" in capsys.readouterr().err
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("LOCAL_RANK", "-1")
    assert cli.main(["train", str(good), "--step", "motoin"]) == 2
    assert "No step 'motoin'; the config has ['photos'" in (told := capsys.readouterr().err)
    assert told.endswith("; did you mean 'motion'?\n")


@pytest.mark.parametrize("key", ["prediction_typ", "beta_start"])
def test_a_scheduler_is_made_of_checked_settings(key):
    with pytest.raises(SettingError, match="^noise: "):
        make_scheduler({key: "x"})
