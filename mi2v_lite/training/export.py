"""From the results of a curriculum to the folder of one pipeline, as it ships.

    mi2v export mi2v_lite/configs/lite.yaml --runs runs -o mi2v_lite/weights/lite

Every model comes from the last step that trained it, or else is the imported one. Weights are written as float16.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from mi2v_lite.io.files import atomic_folder
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.training.checkpoints import as_os_error
from mi2v_lite.training.curriculum import FOLDER, Config
from mi2v_lite.training.step_models import load_model, load_tokenizer, make_scheduler, newest

# The parts of the pipeline, and the models of the curriculum that they are.
PARTS = {
    "vae": "image_vae",
    "flow_vae": "flow_vae",
    "text_encoder": "text_encoder",
    "motion_unet": "stage1_unet",
    "controlnet": "controlnet",
    "animation_unet": "stage2_unet",
}


def _half(model: nn.Module) -> nn.Module:
    """Turns the weights to float16. Tables that are computed and not learned (position codes) keep their precision."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float16)
    return model


def export(config: Config, runs: str | Path, output: str | Path) -> Path:
    """Writes the folder of a pipeline, whole or not at all, from the results of a training.

    Args:
        config: the curriculum; its section `pipeline` gives the defaults of the pipeline.
        runs: the folder with the results of its steps.
        output: the folder to write. An earlier pipeline or an empty folder there is replaced, and nothing else is.

    Returns:
        `output`.

    Raises:
        ValueError: If `output` is something that must not be replaced, before any model is loaded; or if a model has
            not been trained.
        OSError: If `output` cannot be written.
    """
    runs, output = Path(runs), Path(output)
    _check_output(config, runs, output)
    folders = {part: newest(config, runs, model) for part, model in PARTS.items()}  # what lacks is said at once
    place = output.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(place) as partial, as_os_error(output):
        parts = {}
        for part, model in PARTS.items():
            kind = config.models[model]["kind"]
            parts[part] = _half(load_model(kind, folders[part]))
        pipe = MotionI2VPipeline(
            **parts, tokenizer=load_tokenizer(config), scheduler=make_scheduler(config.noise), **config.pipeline
        )
        pipe.save_pretrained(partial)
    return output


def _check_output(config: Config, runs: Path, output: Path) -> None:
    """Refuses an output whose replacement would remove something that is not a pipeline."""
    if output.is_symlink():
        raise ValueError(
            f"The output {output} is a symbolic link to {output.readlink()}, expected a folder: name that itself."
        )
    place, trained = output.resolve(), [runs / step.name for step in config.steps]
    for folder in trained:
        if place.is_relative_to(folder.resolve()):
            raise ValueError(
                f"The output {output} is inside {folder}, where the trainer keeps its results: choose a folder "
                "outside of it."
            )
    sources = {source for step in config.steps for name in step.start_from for source in step.sources(name)}
    imported = [Path(source.removeprefix(FOLDER)) for source in sorted(sources) if source.startswith(FOLDER)]
    for folder in (runs, *trained, *imported):
        if folder.resolve().is_relative_to(place):
            raise ValueError(
                f"The output {output} would replace {folder}, from which the curriculum reads: choose a folder that "
                "does not contain it."
            )
    if place.is_dir():
        if any(place.iterdir()) and not _is_pipeline(place):
            raise ValueError(
                f"The output {output} holds something other than a pipeline, expected a new or empty folder or that "
                "of an earlier export: choose another, or move away what it holds."
            )
    elif place.exists():
        raise ValueError(f"The output {output} is a file, expected a folder: choose another name.")


def _is_pipeline(folder: Path) -> bool:
    """Whether diffusers saved a `MotionI2VPipeline` there."""
    try:
        index = json.loads((folder / MotionI2VPipeline.config_name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(index, dict) and index.get("_class_name") == MotionI2VPipeline.__name__
