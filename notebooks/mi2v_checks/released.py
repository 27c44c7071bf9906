"""What the released code of Motion-I2V computed: what notebooks and tests compare with (tests/golden/README.md).

    golden = released("motion_attention")
    golden["a.attn.hidden_states"], golden["weights.attn.to_q.weight"], golden["a.attn.output"]

Inputs and outputs are stored. Weights are not: each follows from its name by a formula, and is drawn here.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

# In an installed package those of the temporal attention are inside it; in the repository all are in tests/golden.
PLACES = (Path(__file__).parent / "golden", Path(__file__).parents[2] / "tests" / "golden")


def released(name: str) -> dict[str, Tensor]:
    """Reads a file of the released code's tensors, with the weights that belong to it.

    Args:
        name: the file's name without its suffix.

    Returns:
        name -> tensor; inputs, which are stored as halves, as float32.

    Raises:
        ValueError: if there is no such file.
    """
    folder = next((place for place in PLACES if (place / f"{name}.json").is_file()), None)
    if folder is None:
        raise ValueError(f"There are no released tensors {name!r} in {' or '.join(map(str, PLACES))}.")
    fill = json.loads((folder / f"{name}.json").read_text()).get("fill")
    stored = load_file(folder / f"{name}.safetensors")
    return {key: value.float() for key, value in stored.items()} | (draw(fill) if fill else {})


def leaves(tree: dict, prefix: str = "") -> Iterator[tuple[str, list[int]]]:
    """The names and shapes of a state dict that is written as a tree, in its order."""
    for key, below in tree.items():
        if isinstance(below, dict):
            yield from leaves(below, f"{prefix}{key}.")
        else:
            yield prefix + key, below


def position_table(length: int, channels: int) -> Tensor:
    """The sines and cosines that the models compute, (1, length, channels)."""
    frequencies = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    angles = torch.arange(length)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(1, length, channels)


def spread(name: str, shape: list[int]) -> tuple[float, float]:
    """Mean and gain of a parameter that is no exception."""
    if name.endswith(".bias"):
        return 0.0, 0.1
    if len(shape) == 1:
        return 1.0, 0.2
    return 0.0, (1.4 if name.endswith(".conv_shortcut.weight") else 0.8) / math.sqrt(math.prod(shape[1:]))


def draw(fill: dict) -> dict[str, Tensor]:
    """Draws the weights that `fill` describes: each parameter's numbers follow from its name alone.

    Args:
        fill: as it stands in a sidecar.

    Returns:
        name -> tensor.

    Raises:
        ValueError: if numpy draws other numbers than those that the release's weights were made of.
    """
    state, digest = {}, hashlib.sha256()
    for name, shape in leaves(fill["shapes"]):
        if name.endswith(".pe"):
            state[name] = position_table(*shape[1:])
            continue
        mean, gain = fill["exceptions"].get(name) or spread(name, shape)
        seed = zlib.crc32(f"{fill['salt']}:{name}".encode())
        normals = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float64)
        halves = (mean + gain * normals).astype("<f2")
        digest.update(halves.tobytes())
        state[name] = torch.from_numpy(halves.astype(np.float32))
    if digest.hexdigest() != fill["sha256"]:
        raise ValueError(f"{fill['salt']}: numpy draws other numbers than the reference's weights are made of")
    return state
