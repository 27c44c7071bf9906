"""The models that a step needs: fresh, or from the results of earlier steps, or imported; and its noise schedule."""

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
    """Loads a saved model in float32; `kind` is one of `schema.KINDS`.

    Raises:
        ValueError: If the folder does not hold a whole model of that kind.
    """
    try:
        return load_vae(folder) if kind == "autoencoder" else load_strict(CLASSES[kind], folder).float()
    except Exception as error:  # the libraries have errors of many kinds for files that are damaged or do not fit
        raise ValueError(f"{folder} does not hold a whole {kind} ({error}): make it again.") from error


def make_scheduler(noise: dict[str, Any]) -> DDIMScheduler:
    """The noise schedule of training and of sampling.

    Args:
        noise: arguments of `DDIMScheduler`.

    Raises:
        ValueError: If there is no such argument, or a value does not fit.
    """
    with inside("noise"):
        return DDIMScheduler(**given(Noise, noise))


def load_tokenizer(config: Config) -> CLIPTokenizer:
    """Loads the tokenizer from the folder that the model `text_encoder` names, in the package or on the disk.

    Raises:
        ValueError: If there is no such folder, or no tokenizer in it; nothing is downloaded.
    """
    folder = config.models["text_encoder"].get("tokenizer")
    if folder is None:
        raise ValueError("The model text_encoder needs a key tokenizer: the folder of vocab.json and merges.txt.")
    place = PACKAGE / folder if (PACKAGE / folder).is_dir() else Path(folder)
    if not (place / "vocab.json").is_file() and not (place / "tokenizer.json").is_file():
        raise ValueError(f"The model text_encoder names the tokenizer {folder}, expected a folder with vocab.json.")
    try:
        return CLIPTokenizer.from_pretrained(place, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for what is missing or damaged
        raise ValueError(f"The tokenizer in {place} cannot be read ({error}).") from error


def build_models(config: Config, step: Step, runs: Path) -> nn.ModuleDict:
    """Builds the model that a step trains and the others beside it.

    Args:
        config: the curriculum.
        step: the step. A model starts from what its `start_from` names, otherwise anew. The trained model has the
            config of this step; the others are as they were saved.
        runs: the folder with the results of earlier steps.

    Returns:
        The models by name, in float32 on the CPU.

    Raises:
        ValueError: If a result to start from does not exist or does not fit.
    """
    models = nn.ModuleDict()
    for name in (*step.others, step.model):  # a fresh ControlNet copies the trunk, so the others come first
        entry, trains = dict(config.models[name]), name == step.model
        kind = entry.pop("kind")
        if trains:
            entry |= step.model_overrides
        folders = [source_folder(runs, source, name) for source in step.sources(name)]
        if folders and (not trains or kind in ("text_encoder", "autoencoder")):
            models[name] = load_model(kind, folders[-1])
            if trains and kind == "autoencoder" and models[name].config.in_channels != entry.get("in_channels", 3):
                models[name] = flow_vae_from_image_vae(models[name], entry)
        else:
            try:
                models[name] = _fresh(kind, entry, config, models)
            except (ValueError, TypeError, RuntimeError, LookupError, ZeroDivisionError) as error:
                raise ValueError(f"The model {name} cannot be built: {error}") from error
            if folders:
                _take(models[name], kind, folders, step.fresh)
    if step.gradient_checkpointing:
        models[step.model].enable_gradient_checkpointing()
    return models


def source_folder(runs: Path, source: str, name: str) -> Path:
    """Finds a model that a step starts from.

    Args:
        runs: the folder with the results of the steps.
        source: an entry of `Step.start_from`: a step, "step/model", or "folder:PATH".
        name: the model that starts from it.

    Raises:
        ValueError: If it is not there; the error says how to make it.
    """
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
    """Finds the newest form of a model: the result of the last step that has one, otherwise what was imported.

    Args:
        config: the curriculum.
        runs: the folder with the results of its steps.
        name: the model.

    Raises:
        ValueError: If no step has trained it and none starts it from a folder.
    """
    for step in reversed(config.steps):
        folder = runs / step.name / "final" / name
        if (folder / "config.json").is_file():
            return folder
    imported = (source for step in config.steps for source in step.sources(name) if source.startswith(FOLDER))
    if source := next(imported, None):
        return source_folder(runs, source, name)
    raise ValueError(f"There is no result of the model {name} in {runs}: train the steps of the curriculum first.")


def _fresh(kind: str, entry: dict[str, Any], config: Config, models: nn.ModuleDict) -> nn.Module:
    """A model with the random start of its class; a ControlNet copies its trunk."""
    if kind == "autoencoder":
        return make_vae(entry)
    if kind == "text_encoder":
        entry.pop("tokenizer", None)
        return make_text_encoder({"vocab_size": len(load_tokenizer(config)), **entry})
    if kind == "video_unet":
        return VideoUNet(**entry)
    trunk = entry.pop("trunk", None)
    if trunk not in models:
        raise ValueError("A fresh ControlNet needs a key trunk: the name of the UNet it copies, listed in others.")
    return TrajectoryControlNet.from_unet(models[trunk], **entry)


def _take(model: nn.Module, kind: str, folders: list[Path], fresh: tuple[str, ...]) -> None:
    """Loads what was saved, the later over the earlier, except for what matches `fresh`.

    Beside that, only motion modules may be missing from what was saved, or be left over where the model has none: step
    1 of the curriculum starts from the 2-D part of a model that `mi2v import` made.
    """
    state: dict[str, torch.Tensor] = {}
    for folder in folders:
        state |= load_model(kind, folder).state_dict()
    origin = " and ".join(map(str, folders))
    for pattern in fresh:
        if not fnmatch.filter([*state, *model.state_dict()], pattern):
            raise ValueError(
                f"fresh: the pattern {pattern!r} matches no parameter, in {origin} or in this step's model."
            )
    anew = {name for pattern in fresh for name in fnmatch.filter([*state, *model.state_dict()], pattern)}
    if not model.config.motion_modules:
        anew |= {name for name in state if "motion_modules" in name}
    state = {name: value for name, value in state.items() if name not in anew}
    try:
        missing, extra = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{origin} does not fit this step's config: {error}") from error
    missing = [name for name in missing if "motion_modules" not in name and name not in anew]
    if missing or extra:
        raise ValueError(f"{origin} does not fit this step's config: missing {missing[:2]}, left over {extra[:2]}.")
