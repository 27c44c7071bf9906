"""Builds the models and the noise schedule that a step needs, fresh or from the result of an earlier step."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from mi2v_lite.models.autoencoder import load_vae, make_vae
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.strict import load_strict
from mi2v_lite.models.text import make_text_encoder
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.training.curriculum import FOLDER, Config, Step
from mi2v_lite.training.schema import Noise
from mi2v_lite.training.settings import given, inside
from mi2v_lite.training.starts import flow_vae_from_image_vae

PACKAGE = Path(__file__).resolve().parents[1]
CLASSES = {"text_encoder": CLIPTextModel, "video_unet": VideoUNet, "controlnet": TrajectoryControlNet}


def load_model(kind: str, folder: str | Path) -> nn.Module:
    """A saved model of one of the `schema.KINDS`, in float32."""
    return load_vae(folder) if kind == "autoencoder" else load_strict(CLASSES[kind], folder).float()


def make_scheduler(noise: dict[str, Any]) -> DDIMScheduler:
    """The noise schedule of training and of sampling, from the arguments of `DDIMScheduler`.

    Raises:
        ValueError: for an argument that it does not have, or a value that does not fit.
    """
    with inside("noise"):
        return DDIMScheduler(**given(Noise, noise))


def load_tokenizer(config: Config) -> CLIPTokenizer:
    """The tokenizer of the model `text_encoder`: its key `tokenizer` names a folder, in the package or on the disk."""
    folder = config.models["text_encoder"].get("tokenizer")
    if folder is None:
        raise ValueError("The model text_encoder needs a key tokenizer: the folder of vocab.json and merges.txt.")
    inside = PACKAGE / folder
    return CLIPTokenizer.from_pretrained(inside if inside.is_dir() else folder)


def build_models(config: Config, step: Step, runs: Path) -> nn.ModuleDict:
    """The step's model and its others, by name, in float32 on the CPU.

    A model starts from what `start_from` names, otherwise fresh. The trained one has the config of this step; the
    others are as they were saved.

    Raises:
        ValueError: if a result to start from does not exist or does not fit.
    """
    models = nn.ModuleDict()
    for name in (*step.others, step.model):  # a fresh ControlNet copies the trunk, so the others come first
        entry = dict(config.models[name])
        kind = entry.pop("kind")
        if name == step.model:
            entry |= step.model_overrides
        folders = [source_folder(runs, source, name) for source in step.sources(name)]
        if folders and kind == "controlnet" and name == step.model:
            models[name] = _grown_controlnet(entry, models, folders)
        elif folders:
            trains = name == step.model
            models[name] = _start(kind, entry, folders, not trains, step.fresh if trains else ())
        elif kind == "controlnet":
            models[name] = _fresh_controlnet(entry, models)
        else:
            models[name] = _fresh(kind, entry, config)
    if step.gradient_checkpointing:
        models[step.model].enable_gradient_checkpointing()
    return models


def source_folder(runs: Path, source: str, name: str) -> Path:
    """Where a source of `Step.start_from` for the model `name` is; ValueError if it is not there."""
    if source.startswith(FOLDER):
        folder = Path(source.removeprefix(FOLDER))
        advice = "make it with `mi2v import`, and start in the folder that it is below"
    else:
        step, _, other = source.partition("/")
        folder = runs / step / "final" / (other or name)
        advice = f"train the step {step} first, or give its result another --runs"
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} does not exist: {advice}.")
    return folder


def newest(config: Config, runs: Path, name: str) -> Path:
    """Folder of the newest form of the model `name`: the result of the last step that has one, else what is imported.

    Raises:
        ValueError: no step has trained it in `runs`, and none starts it from a folder.
    """
    for step in reversed(config.steps):
        folder = runs / step.name / "final" / name
        if (folder / "config.json").is_file():
            return folder
    imported = (source for step in config.steps for source in step.sources(name) if source.startswith(FOLDER))
    if source := next(imported, None):
        return source_folder(runs, source, name)
    raise ValueError(f"no result of the model {name} in {runs}: train the steps of the curriculum first")


def _fresh(kind: str, entry: dict[str, Any], config: Config) -> nn.Module:
    if kind == "autoencoder":
        return make_vae(entry)
    if kind == "text_encoder":
        entry.pop("tokenizer", None)
        return make_text_encoder({"vocab_size": len(load_tokenizer(config)), **entry})
    return VideoUNet(**entry)


def _fresh_controlnet(entry: dict[str, Any], models: nn.ModuleDict) -> nn.Module:
    trunk = entry.pop("trunk", None)
    if trunk not in models:
        raise ValueError("A fresh ControlNet needs a key trunk: the name of the UNet it copies, listed in others.")
    return TrajectoryControlNet.from_unet(models[trunk], **entry)


def _grown_controlnet(entry: dict[str, Any], models: nn.ModuleDict, folders: list[Path]) -> nn.Module:
    """A ControlNet for the step's trunk with the weights of an earlier one, which may lack the motion modules."""
    model = _fresh_controlnet(entry, models)
    _take(model, "controlnet", folders)
    return model


def _start(
    kind: str, entry: dict[str, Any], folders: list[Path], exact: bool, fresh: tuple[str, ...] = ()
) -> nn.Module:
    """Loads results. `exact`: the last as it was saved; otherwise the model may become a flow autoencoder or gain or
    lose motion modules, and what matches `fresh` stays as it was built.
    """
    saved = load_model(kind, folders[-1]) if exact or kind in ("text_encoder", "autoencoder") else None
    if exact or kind == "text_encoder":
        return saved
    if kind == "autoencoder":
        if saved.config.in_channels == entry.get("in_channels", 3):
            return saved
        return flow_vae_from_image_vae(saved, entry)
    model = CLASSES[kind](**entry)
    _take(model, kind, folders, fresh)
    return model


def _take(model: nn.Module, kind: str, folders: list[Path], fresh: tuple[str, ...] = ()) -> None:
    """Loads what was saved, the later over the earlier, and does not match `fresh`.

    Besides that only motion modules may be missing from it, and left over from it where the model has none: curriculum
    step 1 starts from the 2-D part of a model that `mi2v import` made.
    """
    state: dict[str, torch.Tensor] = {}
    for folder in folders:
        state |= load_model(kind, folder).state_dict()
    told = " and ".join(map(str, folders))
    for pattern in fresh:
        matched = fnmatch.filter(state, pattern)
        if not matched and not fnmatch.filter(model.state_dict(), pattern):
            raise ValueError(f"fresh: the pattern {pattern!r} matches no parameter, in {told} or in this step's model.")
        state = {name: value for name, value in state.items() if name not in matched}
    if not model.config.motion_modules:
        state = {name: value for name, value in state.items() if "motion_modules" not in name}
    try:
        missing, extra = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{told} does not fit this step's config: {error}") from error
    anew = {name for pattern in fresh for name in fnmatch.filter(missing, pattern)}
    missing = [name for name in missing if "motion_modules" not in name and name not in anew]
    if missing or extra:
        raise ValueError(f"{told} does not fit this step's config: missing {missing[:2]}, left over {extra[:2]}.")
