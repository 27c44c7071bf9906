"""What objectives of all kinds share: the names of their tensors, where a step's clips are, its choice of a start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from mi2v_lite.training.curriculum import Step

Batch = dict[str, Tensor]
Logs = dict[str, Tensor]
Predict = Callable[[Tensor, Tensor], Tensor]  # of noisy latents and timesteps


def start_of(step: Step, default: str, other: str) -> str:
    """The option `start` of a step; ValueError unless it is one of the two."""
    start = step.options.get("start", default)
    if start not in (default, other):
        raise ValueError(f"Step {step.name}: start is {start!r}, expected {default!r} or {other!r}.")
    return start


def data_folders(step: Step, runs: Path) -> tuple[Path, Path | None, dict[str, Any]]:
    """Where the clips of a step are, where the held-out ones, and its other data settings.

    Raises:
        ValueError: unless the step names one store or one set of shards.
    """
    rest = dict(step.data)
    named = [str(rest.pop(key)) for key in ("store", "shards") if key in rest]
    if len(named) != 1:
        raise ValueError(f"Step {step.name}: data needs either store or shards, the folder of the clips.")
    heldout = rest.pop("heldout", None)
    return runs / named[0], runs / heldout if heldout else None, rest
