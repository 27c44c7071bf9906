"""Reading a folder of reference tensors, whether it stores its weights or only says how to draw them.

`NAME.safetensors` has tensors and `NAME.json` says what they are. A sidecar with `fill` stands for weights that are
drawn from their names; the formula is in tests/golden/README.md. A sidecar with a tree `shapes`, or with other
layouts `joined`, says more shortly what `entries` says elsewhere. A tensor `NAME_everyK` has every K-th row and column.
"""

import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from mi2v_checks.released import draw, leaves
from safetensors.torch import load_file
from torch import Tensor


def skip(file: str):
    pytest.skip(f"{file} is not in this golden folder")


def whole(key: str) -> tuple[str, int]:
    """The name of what a tensor `NAME_everyK` is thinned from, and K; a whole tensor's own name and 1."""
    thinned = re.fullmatch(r"(.+)_every(\d+)", key)
    return (thinned[1], int(thinned[2])) if thinned else (key, 1)


def has(folder: Path, name: str) -> bool:
    """Whether the folder says anything about a file of that name."""
    return (folder / f"{name}.json").exists()


def read_info(folder: Path, name: str) -> dict:
    """The sidecar of a file, with `entries` where it is a layout. Skips the test where the folder has none."""
    if not has(folder, name):
        skip(f"{name}.json")
    info = json.loads((folder / f"{name}.json").read_text())
    if "shapes" in info:
        info["entries"] = list(leaves(info["shapes"]))
    elif "joined" in info:
        parts = {prefix: read_info(folder, f"layout_{part}")["entries"] for prefix, part in info["joined"].items()}
        info["entries"] = [(prefix + key, shape) for prefix, part in parts.items() for key, shape in part]
    return info


@cache
def cached_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    path, fill = folder / f"{name}.safetensors", read_info(folder, name).get("fill")
    if not path.exists() and not fill:
        skip(path.name)
    state = load_file(path) if path.exists() else {}
    state = {key: value.float() if value.dtype == torch.float16 else value for key, value in state.items()}
    return state | (draw(fill) if fill else {})


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a file with the weights that its sidecar describes; halves, which are exact, as float32."""
    return dict(cached_tensors(folder, name))


class Golden:
    """One golden file: tensors, sidecar, the weights it names, and the comparison at the sidecar's tolerance."""

    def __init__(self, folder: Path, name: str):
        self.folder = folder
        self.info = read_info(folder, name)
        self.tensors = read_tensors(folder, name)

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def __contains__(self, name: str) -> bool:
        """Whether a tensor of that name is here, whole or thinned."""
        return bool(self.stored(name))

    def names(self, prefix: str) -> list[str]:
        """The names that begin so, each once; those of thinned tensors as if they were whole."""
        return list(dict.fromkeys(whole(key)[0] for key in self.tensors if key.startswith(prefix)))

    def stored(self, name: str) -> list[tuple[str, int]]:
        """The tensors that hold `name` or every K-th row and column of it, with K."""
        return [(key, 1 if key == name else whole(key)[1]) for key in self.tensors if name in (key, whole(key)[0])]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, without that beginning."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def weights_name(self, role: str = "") -> str:
        """The one weights file of this case whose name contains `role`."""
        names = self.info["weights"]
        names = [names] if isinstance(names, str) else names
        (name,) = (name.removesuffix(".safetensors") for name in names if role in name)
        return name

    def weights(self, role: str = "") -> dict[str, Tensor]:
        """State dict in float32, with the release's names."""
        return read_tensors(self.folder, self.weights_name(role))

    def close(self, name: str, actual: Tensor) -> None:
        """Within 10 times what two legitimate float32 runs of the release differ by, at least 1e-5; shape and dtype.

        Args:
            name: a tensor's name, or without `_everyK` that of one that is thinned by rows and columns.
            actual: what to compare, whole; also where the tensor is thinned, unless the name says so itself.
        """
        stored = self.stored(name)
        assert stored, f"no tensor {name}, whole or thinned"
        for key, every in stored:
            self._close(key, actual[..., ::every, ::every] if every > 1 else actual)

    def _close(self, key: str, actual: Tensor) -> None:
        noise = self.info["tensors"][key].get("backend_noise", 0.0)
        if actual.shape == self[key].shape:
            print(f"{key}: difference {(actual - self[key]).abs().max():.2e}, the release's own noise {noise:.1e}")
        torch.testing.assert_close(
            actual, self[key], rtol=0, atol=max(1e-5, 10 * noise), msg=lambda message: f"{key}: {message}"
        )
