"""What objectives of all kinds share: names of their tensors, where a step's clips are, options that are checked."""

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


def share_of(step: Step, name: str, default: float = 0.0) -> float:
    """The option `name` of a step, `default` without it; ValueError unless it lies in [0, 1]."""
    share = float(step.options.get(name, default))
    if not 0 <= share <= 1:
        raise ValueError(f"Step {step.name}: {name} is {share}, expected a share from 0 to 1.")
    return share


def weighted_mean(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Of each sample the mean of `x` `(B, C, N, h, w)`, where places count by `weight` `(B, 1, N, h, w)` if given.

    Returns:
        `(B,)`; 0 where all weights are 0.
    """
    places = (1, 2, 3, 4)
    if weight is None:
        return x.mean(places)
    return (x * weight).mean(places) / weight.mean(places).clamp(min=1e-6)


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
