"""Checks that the folder of a saved pipeline is whole.

The libraries fill what a file lacks with random numbers and go on, some with a warning and some without one.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from diffusers import DiffusionPipeline
from safetensors import safe_open
from torch import nn

from mi2v_lite.io.files import check_header, read_text
from mi2v_lite.models.strict import check_names


def check_folders(folder: Path, given: Collection[str] = ()) -> None:
    """Checks that each part that `model_index.json` lists has a folder with something in it that can be read safely.

    Args:
        folder: the folder of the pipeline.
        given: names of parts that the caller has and that need not be there.

    Raises:
        ValueError: if a part is missing, the list cannot be read, or a file of weights has too large a header.
    """
    path = folder / DiffusionPipeline.config_name
    try:
        parts = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}): copy the whole folder again.") from error
    if not isinstance(parts, dict):
        raise ValueError(f"{path} does not list the parts of a pipeline: copy the whole folder again.")
    listed = [name for name, kind in parts.items() if isinstance(kind, list) and kind[:1] not in ([], [None])]
    missing = [name for name in listed if name not in given and not any((folder / name).glob("*"))]
    if missing:
        raise ValueError(
            f"{folder} lacks {', '.join(f'{name}/' for name in missing)}, which its model_index.json lists: copy the "
            "whole folder, or save the pipeline again."
        )
    for file in folder.glob("*/*.safetensors"):
        check_header(file)


def check_weights(pipe: DiffusionPipeline, folder: Path, given: Collection[str] = ()) -> None:
    """Checks that the files and the networks that were loaded from them have tensors of the same names.

    Args:
        pipe: the pipeline that was loaded.
        folder: the folder that it was loaded from.
        given: names of parts that the caller had and that were not loaded.

    Raises:
        ValueError: if a network has parameters that its file lacks, or the other way round.
    """
    for name, part in pipe.components.items():
        files = sorted((folder / name).glob("*.safetensors"))
        if name in given or not isinstance(part, nn.Module) or not files:
            continue
        saved: set[str] = set()
        for file in files:
            with safe_open(file, framework="pt") as tensors:
                saved.update(tensors.keys())
        own = set(part.state_dict())
        check_names(folder / name, own - saved, saved - own)
