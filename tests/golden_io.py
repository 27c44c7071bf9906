"""Reading the folder of reference tensors: plain files, or those of tests/golden, which are packed to be small.

Packed, all `NAME.json` are entries of one `sidecars.json.xz`, and `NAME.safetensors` is `NAME.safetensors.xz`. Random
numbers compress only byte by byte, so inside the xz there may be a line `planes WIDTH START DEFLATED`. After it come
the first START bytes of the safetensors file, then all top bytes of its WIDTH-byte numbers (as a raw deflate stream
of DEFLATED bytes, where that is not 0), then all second bytes, down to the lowest. tests/golden/choose.py writes them.
"""

import json
import lzma
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import Tensor

MARK = b"planes "
SIDECARS = "sidecars.json.xz"


def join_planes(data: bytes) -> bytes:
    """The safetensors file whose numbers were taken apart into planes of bytes."""
    line, rest = data.split(b"\n", 1)
    width, start, deflated = (int(number) for number in line.removeprefix(MARK).split())
    planes = rest[start:]
    if deflated:
        planes = zlib.decompress(planes[:deflated], wbits=-15) + planes[deflated:]
    return rest[:start] + np.frombuffer(planes, np.uint8).reshape(width, -1)[::-1].T.tobytes()


def skip(file: str):
    pytest.skip(f"{file} is not in this golden folder")


@cache
def packed_sidecars(folder: Path) -> dict[str, dict]:
    path = folder / SIDECARS
    return json.loads(lzma.decompress(path.read_bytes())) if path.exists() else {}


def has(folder: Path, name: str) -> bool:
    """Whether the folder says anything about a file of that name."""
    return (folder / f"{name}.json").exists() or name in packed_sidecars(folder)


def read_info(folder: Path, name: str) -> dict:
    """The sidecar of a file. Skips the test where the folder has none."""
    if not has(folder, name):
        skip(f"{name}.json")
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else packed_sidecars(folder)[name]


def read_safetensors(folder: Path, name: str) -> bytes:
    """A file of tensors as a plain safetensors file's bytes. Skips the test where the folder has none."""
    path = folder / f"{name}.safetensors"
    if path.exists():
        return path.read_bytes()
    path = folder / f"{name}.safetensors.xz"
    if not path.exists():
        skip(f"{name}.safetensors")
    data = lzma.decompress(path.read_bytes())
    return join_planes(data) if data.startswith(MARK) else data


@cache
def cached_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    state = load(read_safetensors(folder, name))
    return {key: value.float() if value.dtype == torch.float16 else value for key, value in state.items()}


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a file; halves (the weights, which are exact in them) as float32, all others as stored."""
    return dict(cached_tensors(folder, name))


class Golden:
    """One golden file: tensors, sidecar, the weights it names, and the comparison at the sidecar's tolerance."""

    def __init__(self, folder: Path, name: str):
        self.folder = folder
        self.info = read_info(folder, name)
        self.tensors = read_tensors(folder, name)

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

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

    def close(self, key: str, actual: Tensor) -> None:
        """Within 10 times what two legitimate float32 runs of the release differ by, at least 1e-5; shape and dtype."""
        noise = self.info["tensors"][key].get("backend_noise", 0.0)
        if actual.shape == self[key].shape:
            print(f"{key}: difference {(actual - self[key]).abs().max():.2e}, the release's own noise {noise:.1e}")
        torch.testing.assert_close(
            actual, self[key], rtol=0, atol=max(1e-5, 10 * noise), msg=lambda message: f"{key}: {message}"
        )
