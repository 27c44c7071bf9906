"""Whether a saved pipeline's folder is whole: nothing may be left at its random start without a word.

Libraries fill what a file lacks with random numbers and go on, some with a warning and some without one.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from diffusers import DiffusionPipeline
from safetensors import safe_open
from torch import nn

from mi2v_lite.models.strict import check_names


def check_folders(folder: Path, given: Collection[str] = ()) -> None:
    """Raises ValueError if a part that `model_index.json` lists has no folder, unless it is `given` otherwise."""
    parts = json.loads((folder / DiffusionPipeline.config_name).read_text(encoding="utf-8"))
    listed = [name for name, kind in parts.items() if isinstance(kind, list) and kind[0] is not None]
    missing = [name for name in listed if name not in given and not any((folder / name).glob("*"))]
    if missing:
        raise ValueError(
            f"{folder} lacks {', '.join(f'{name}/' for name in missing)}, which its model_index.json lists: copy the "
            "whole folder, or save the pipeline again."
        )


def check_weights(pipe: DiffusionPipeline, folder: Path, given: Collection[str] = ()) -> None:
    """Compares the names in the files with those of the loaded networks.

    Args:
        pipe: loaded from `folder`. given: parts that were not, since the caller had them.

    Raises:
        ValueError: a network has parameters that its file lacks, or the file has some that the network lacks.
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
