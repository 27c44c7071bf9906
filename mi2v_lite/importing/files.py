"""Reads checkpoint files of others, safetensors and pickles; nothing in them is executed.

The files are mapped into memory. A mapped tensor costs no memory until it is used, so all files of an import can be
open at once.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mi2v_lite.io.files import absent, check_header, read_text

# Of these files, the first one in a model's folder is read.
WEIGHTS = (
    *("diffusion_pytorch_model.safetensors", "model.safetensors", "diffusion_pytorch_model.bin", "pytorch_model.bin"),
    *("diffusion_pytorch_model.fp16.safetensors", "model.fp16.safetensors"),
)
WRAPPERS = ("module.", "_orig_mod.", "module.")  # of DistributedDataParallel and torch.compile, in either order
# What is in the names of files that are not what an import needs, and what they are.
OTHERS = {
    ("conditioner.embedders.", "add_embedding.", "label_emb."): "is SDXL; give Stable Diffusion 1.5.",
    ("cond_stage_model.model.",): "is Stable Diffusion 2; give version 1.5.",
    ("controlnet_cond_embedding.conv_in.", "control_model."): (
        "is SparseCtrl or a ControlNet of Stable Diffusion, which follow pictures; Motion-I2V's follows trajectories."
    ),
}
LORA = re.compile(r"lora_(unet|te|down|up|A|B)|_lora\.|\.lora\.")
SD2_TEXT = 1024
LFS_POINTER = b"version https://git-lfs"
NOTES = {"animatediff_config"}  # entries of published state dicts that are not tensors
# What torch raises for a damaged pickle; the last two are for one of the old format that ends too early.
BROKEN = (RuntimeError, EOFError, OSError, ValueError, KeyError, struct.error, IndexError, AssertionError, TypeError)
BROKEN += (AttributeError, zipfile.BadZipFile, NotImplementedError, OverflowError, MemoryError)


@dataclass
class Checkpoint:
    """A file's tensors by the names it gives them, and which of them were used.

    Attributes:
        path: the file.
        tensors: name to tensor, mapped from the file.
        config: the content of `config.json` beside the file, if it was opened through its folder.
        used: the names that an import has taken.
    """

    path: Path
    tensors: dict[str, Tensor]
    config: dict | None = None
    used: set[str] = field(default_factory=set)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Returns the tensors whose names begin with `prefix`, named without it, and counts them as used."""
        names = [name for name in self.tensors if name.startswith(prefix)]
        self.used.update(names)
        return {name.removeprefix(prefix): self.tensors[name] for name in names}

    def unused(self) -> dict[str, int]:
        """Counts the tensors that were not used, by the first word of their names."""
        counts: dict[str, int] = {}
        for name in self.tensors.keys() - self.used:
            first = name.split(".")[0]
            counts[first] = counts.get(first, 0) + 1
        return dict(sorted(counts.items()))

    def sha256(self) -> str:
        """Returns the file's checksum in hexadecimal."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class Shelf:
    """The checkpoints of an import, every one opened only once."""

    def __init__(self) -> None:
        self.opened: dict[Path, Checkpoint] = {}

    def open(self, path: Path) -> Checkpoint:
        """Returns the checkpoint at a path.

        Args:
            path: a file, or a model's folder that holds one.

        Raises:
            ValueError: if the file is missing, damaged, incomplete, or holds more than tensors.
        """
        file = _weights_in(path) if path.is_dir() else path
        if file not in self.opened:
            self.opened[file] = Checkpoint(file, _read(file))
        if path.is_dir():
            self.opened[file].config = read_json(path / "config.json")
        return self.opened[file]


def read_json(path: Path) -> dict | None:
    """Reads a JSON object, or returns None where there is no such file.

    Raises:
        ValueError: if the file holds anything else.
    """
    if not path.is_file():
        return None
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); is the download complete?") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a JSON object.")
    return content


def agree(path: Path, theirs: Mapping, ours: Mapping, keys: Iterable[str]) -> None:
    """Compares a published config with ours; keys that only one of them has are passed over.

    Args:
        path: the published config's file, for the message.
        theirs: its content.
        ours: the config of our model.
        keys: the keys to compare.

    Raises:
        ValueError: if two values differ; names the file, the key and both values.
    """
    for key in keys:
        if key in theirs and key in ours and _plain(theirs[key]) != _plain(ours[key]):
            raise ValueError(f"{path} says {key} = {theirs[key]!r}, but the config wants {ours[key]!r}.")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, (tuple, list)) else value


def _weights_in(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    if list(folder.glob("*.index.json")):
        raise ValueError(f"the weights in {folder} are split into several files; save them as one file first.")
    raise ValueError(f"no weights in {folder}; expected one of {', '.join(WEIGHTS)}.")


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(absent(path, "a checkpoint"))
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise ValueError(f"{path} is only a Git LFS pointer to the weights; fetch them with `git lfs pull`.")
    if start.lstrip()[:1] == b"<":
        raise ValueError(f"{path} is a web page (HTML) and no checkpoint: download it again, logged in if need be.")
    # What a file is shows in its content, whatever its suffix: safetensors begin with 8 bytes of length and JSON.
    header = int.from_bytes(start[:8], "little")
    if (start[8:9] == b"{" and header < path.stat().st_size) or (path.suffix == ".safetensors" and start[:2] != b"PK"):
        check_header(path)
        state = _damaged(path, lambda: load_file(path), SafetensorError, OSError, ValueError, MemoryError)
        return _explained(path, _plainly_named(state))
    if start[:2] == b"PK" and not _is_zip(path):
        raise ValueError(f"{path} ends too early: the download is not complete.")
    try:
        content = _damaged(path, lambda: _load_pickle(path), *BROKEN)
    except pickle.UnpicklingError as error:
        # torch's own message tells how to switch the protection off, which is wrong for files of others.
        raise ValueError(
            f"{path} is damaged or holds more than tensors ({_first_words(error)}); nothing else is read from pickles; "
            "use the .safetensors file if there is one."
        ) from error
    return _tensors(path, content)


def _load_pickle(path: Path) -> object:
    if path.suffix == ".safetensors":  # torch would go by the suffix
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    # Only the zip format that torch.save writes today can be mapped; older pickles are read whole.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # it ends as an archive of many disks does
        return False


def _damaged(path: Path, read: Callable[[], object], *errors: type[Exception]) -> object:
    try:
        return read()
    except errors as error:
        raise ValueError(f"{path} cannot be read ({_first_words(error)}); is the download complete?") from error


def _first_words(error: Exception) -> str:
    """Shortens torch's long errors to the line that says what is wrong, as which class is unknown."""
    said = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
    return said.splitlines()[0].split(" was not an allowed global")[0][:160]


def _tensors(path: Path, content: object) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]  # a training checkpoint, which holds counters beside it
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} does not hold a state dict (names to tensors).")
    state = {name: value for name, value in content.items() if name not in NOTES}
    odd = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if odd:
        raise ValueError(f"{path} does not hold a plain state dict: {odd[0]!r} is not a tensor.")
    return _explained(path, _plainly_named(state))


def _plainly_named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state without the prefixes that wrappers of models put before every name."""
    for prefix in WRAPPERS:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _explained(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same state; raises ValueError, which says what it is, for files that are often taken for another kind."""
    for marks, what in OTHERS.items():
        if any(mark in name for name in state for mark in marks):
            raise ValueError(f"{path} {what}")
    if any(LORA.search(name) for name in state):
        kind = "MotionLoRA" if any("motion_modules" in name for name in state) else "LoRA"
        raise ValueError(
            f"{path} is a {kind}, a small change to a model: merge it into its model first, and give the merged file."
        )
    text = [value.shape[-1] for name, value in state.items() if name.endswith("attn2.to_k.weight") and value.ndim == 2]
    if text and max(text) == SD2_TEXT:
        raise ValueError(f"{path} is of Stable Diffusion 2, whose text has {SD2_TEXT} channels; give version 1.5.")
    return state
