"""From the results of a curriculum to one pipeline folder, as it ships.

    mi2v export mi2v_lite/configs/lite.yaml --runs runs -o mi2v_lite/weights/lite

Every model comes from the last step that trained it, or is the imported one. Weights are written as float16.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import nn

from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.training.builders import load_model, load_tokenizer, make_scheduler, newest
from mi2v_lite.training.curriculum import Config

# What the pipeline calls the curriculum's models.
PARTS = {
    "vae": "image_vae",
    "flow_vae": "flow_vae",
    "text_encoder": "text_encoder",
    "motion_unet": "stage1_unet",
    "controlnet": "controlnet",
    "animation_unet": "stage2_unet",
}


def _half(model: nn.Module) -> nn.Module:
    """Float16 weights. Tables that are computed, not learned (position codes), keep their digits."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float16)
    return model


def export(config: Config, runs: str | Path, output: str | Path) -> Path:
    """Write the pipeline folder ``output`` (whole or not at all) from the results in ``runs``.

    Args:
        config: the curriculum; its section ``pipeline`` gives the pipeline's defaults.
        runs: where the trainer put its results. output: the folder to write; an old one is replaced.

    Raises:
        ValueError: when a model has not been trained.
    """
    runs, output = Path(runs), Path(output)
    parts = {}
    for part, model in PARTS.items():
        kind = config.models[model]["kind"]
        parts[part] = _half(load_model(kind, newest(config, runs, model)))
    pipe = MotionI2VPipeline(
        **parts, tokenizer=load_tokenizer(config), scheduler=make_scheduler(config.noise), **config.pipeline
    )
    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipe.save_pretrained(partial)
    shutil.rmtree(output, ignore_errors=True)
    os.replace(partial, output)
    return output
