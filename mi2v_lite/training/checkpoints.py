"""Checkpoints and the moving average, of a training in one process or of one sharded over many (notebook 06).

A file always holds whole tensors, so a training goes on with any number of processes, its parameters sharded or not.
`torch.distributed.checkpoint.state_dict` gathers models and optimisers in the same way, but not the moving average, for
which the four helpers here would be needed all the same.
"""

from __future__ import annotations

import json
import pickle
import struct
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from mi2v_lite.io.files import atomic_folder, checksum, folder_names, remove_folder
from mi2v_lite.training.curriculum import Step

KEEP_CHECKPOINTS = 2


def local(value: Tensor) -> Tensor:
    """This process's part of a sharded tensor; any other tensor as it is."""
    return value.to_local() if isinstance(value, DTensor) else value


def full(value: Any) -> Any:
    """A sharded tensor gathered from all processes, which must all call this; anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def spread(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor sharded in the way that `like` is."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


class Ema:
    """Exponential moving average of named parameters in float32, with the usual warm-up (1 + k) / (10 + k).

    Args:
        parameters: the parameters by name; the average starts from them.
        decay: how much of the average an update keeps after the warm-up, 0 to below 1.
    """

    def __init__(self, parameters: dict[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.shadow = {name: value.detach().float().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: dict[str, Tensor], k: int) -> None:
        """Moves the average towards `parameters` after update `k`."""
        rate = 1 - min(self.decay, (1 + k) / (10 + k))
        current = [local(parameters[name].detach()).float() for name in self.shadow]
        torch._foreach_lerp_([local(value) for value in self.shadow.values()], current, rate)

    @contextmanager
    def applied(self, parameters: dict[str, Tensor]) -> Iterator[None]:
        """Within the context the parameters hold the average."""
        kept = {name: value.detach().clone() for name, value in parameters.items()}
        copy_all(self.shadow, parameters)
        try:
            yield
        finally:
            copy_all(kept, parameters)


def is_sharded(parameters: dict[str, Tensor]) -> bool:
    """Whether the parameters are spread over processes."""
    return any(isinstance(value, DTensor) for value in parameters.values())


def whole(tensors: dict[Any, Any], keep: bool) -> dict[Any, Any]:
    """Gathers tensors, to the CPU if they were sharded. All processes must call it; without `keep` it returns {}."""
    gathered = {}
    for name, value in tensors.items():
        value = full(value).cpu() if isinstance(value, DTensor) else value
        if keep:
            gathered[name] = value
    return gathered


def write_checkpoint(
    folder: Path,
    step: Step,
    done: int,
    parameters: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    ema: Ema,
    writes: bool = True,
) -> Path:
    """Writes a checkpoint, whole or not at all, and removes old ones.

    Args:
        folder: the step's folder.
        step: the step.
        done: the number of updates so far.
        parameters: what trains, by name.
        optimizer: its optimiser.
        ema: its moving average.
        writes: whether this process writes. All processes call the function, since sharded tensors come from all.

    Returns:
        The folder `checkpoint-<done>`.
    """
    target = folder / f"checkpoint-{done}"
    files = {name: whole(tensors, writes) for name, tensors in (("weights", parameters), ("ema", ema.shadow))}
    state = optimizer.state_dict()
    state["state"] = {index: whole(entry, writes) for index, entry in state["state"].items()}
    if not writes:
        return target
    with atomic_folder(target) as partial, as_os_error(target):
        for file, tensors in files.items():
            packed = {name: value.detach().contiguous() for name, value in tensors.items()}
            save_file(packed, partial / f"{file}.safetensors")
        torch.save(state, partial / "optimizer.pt")
        about = {"step": step.name, "done": done, "seed": step.seed}
        about["checksums"] = {path.name: checksum(path) for path in sorted(partial.iterdir())}
        (partial / "step.json").write_text(json.dumps(about))
    for old in _checkpoints(folder)[:-KEEP_CHECKPOINTS]:
        remove_folder(old)
    return target


@contextmanager
def as_os_error(path: Path) -> Iterator[None]:
    """Raises what torch and safetensors say about a full disk as the OSError that it is."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        raise OSError(f"{path} cannot be written: {error}. Is the disk full?") from error


def restore(folder: Path, step: Step, parameters: dict[str, Tensor], optimizer: torch.optim.Optimizer, ema: Ema) -> int:
    """Loads the newest checkpoint of a step's folder into the parameters, the optimiser and the moving average.

    A checkpoint that is damaged is passed over, with a line on stderr, for the one before it.

    Args:
        folder: the step's folder.
        step: the step.
        parameters: what trains, by name.
        optimizer: its optimiser.
        ema: its moving average.

    Returns:
        The number of updates that the checkpoint holds; 0 if there is none.

    Raises:
        ValueError: If the checkpoint was written with another seed or for other parameters, or all are damaged.
    """
    checkpoints = _checkpoints(folder)
    if not checkpoints:
        return 0
    for newest in reversed(checkpoints):
        try:
            state, weights, average, saved = _read_checkpoint(newest)
            break
        except _BROKEN as error:
            print(f"{newest} is damaged ({_first_line(error)}) and is passed over.", file=sys.stderr)
    else:
        raise ValueError(
            f"All checkpoints in {folder} are damaged ({', '.join(path.name for path in checkpoints)}): copy a whole "
            "one there, or start anew with --restart, which removes them."
        )
    if state["seed"] != step.seed or weights.keys() != parameters.keys():
        raise ValueError(
            f"{newest} belongs to another config of step {step.name}: go on with that config, or start anew with "
            "--restart, which removes the old results."
        )
    copy_all(weights, parameters)
    copy_all(average, ema.shadow)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, entry in saved["state"].items():
        alike = {name: value for name, value in entry.items() if getattr(value, "shape", None) == trained[index].shape}
        entry |= {name: spread(value, trained[index]) for name, value in alike.items()}
    optimizer.load_state_dict(saved)
    return int(state["done"])


def _read_checkpoint(folder: Path) -> tuple[dict, dict[str, Tensor], dict[str, Tensor], dict]:
    """Reads the four files of a checkpoint: what it is, the weights, their average, and the optimiser's state."""
    state = json.loads((folder / "step.json").read_text(encoding="utf-8"))
    for name, expected in state.get("checksums", {}).items():
        if checksum(folder / name) != expected:
            raise ValueError(f"{name} has changed since it was written")
    if folder.name != f"checkpoint-{state['done']}" or "seed" not in state:
        raise ValueError("step.json does not belong to it")
    weights, average = (load_file(folder / f"{name}.safetensors") for name in ("weights", "ema"))
    saved = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
    if weights.keys() != average.keys() or not isinstance(saved, dict) or not {"state", "param_groups"} <= set(saved):
        raise ValueError("its files do not belong together")
    return state, weights, average, saved


# What the readers of JSON, safetensors and torch's files raise when bytes are missing or have changed.
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, RuntimeError)
_BROKEN += (SafetensorError, pickle.UnpicklingError, struct.error, AssertionError, zipfile.BadZipFile)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def write_final(folder: Path, step: Step, models: nn.ModuleDict, parameters: dict[str, Tensor]) -> None:
    """Writes every model that has one of the trained `parameters`: float32 safetensors with a config.json."""
    with atomic_folder(folder / "final") as partial, as_os_error(folder / "final"):
        for key, model in models.items():
            if any(name.startswith(f"{key}.") for name in parameters):
                model.to(memory_format=torch.contiguous_format).save_pretrained(partial / key)


def check_start(folder: Path, resume: bool, restart: bool) -> None:
    """Refuses a training that would overwrite the results of an earlier one, or mix with them.

    Args:
        folder: the step's folder.
        resume: whether the training goes on from the newest checkpoint.
        restart: whether it removes the old results.

    Raises:
        ValueError: If there are checkpoints or a `final` and neither is asked for, or if `resume` finds a `final` and
            no checkpoint to go on from.
    """
    names = folder_names(folder)
    checkpoints, final = _numbered(names), "final" in names
    if restart or not (checkpoints or final) or (resume and checkpoints):
        return
    if resume:
        raise ValueError(
            f"{folder} holds final, but no checkpoint to go on from: use what is there, or start anew with "
            "--restart, which removes it."
        )
    there = ", ".join([*checkpoints, *(["final"] if final else [])])
    raise ValueError(
        f"{folder} holds {there} of an earlier training: go on from the newest checkpoint with --resume, or start "
        "anew with --restart, which removes the old results."
    )


def remove_results(folder: Path) -> None:
    """Removes checkpoints, `final`, `validation` and `log.csv` from a step's folder, after a line on stderr."""
    others = [path for name in ("final", "validation", "log.csv") if (path := folder / name).exists()]
    if not (results := [*_checkpoints(folder), *others]):
        return
    print(f"{folder}: removing {', '.join(path.name for path in results)} of an earlier training", file=sys.stderr)
    for path in results:
        if path.is_dir():
            remove_folder(path)
        else:
            path.unlink()


def _checkpoints(folder: Path) -> list[Path]:
    return [folder / name for name in _numbered(path.name for path in folder.glob("checkpoint-*"))]


def _numbered(names: Iterable[str]) -> list[str]:
    """The names that are those of checkpoints, in the order of their updates."""
    numbers = {name: name.removeprefix("checkpoint-") for name in names if name.startswith("checkpoint-")}
    return sorted((name for name, number in numbers.items() if number.isdecimal()), key=lambda name: int(numbers[name]))


@torch.no_grad()
def copy_all(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    """Sets every tensor of `target`, sharded or not, to that of `source`, which is whole or sharded in the same way."""
    for name, value in target.items():
        new = source[name]
        local(value).copy_(local(new if isinstance(new, DTensor) else spread(new, value)))
