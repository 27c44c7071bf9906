"""What objectives of all kinds share: names of their tensors, where a step's clips are, means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from mi2v_lite.training.options import ClipData, FieldData, PhotoData

Batch = dict[str, Tensor]
Logs = dict[str, Tensor]
Predict = Callable[[Tensor, Tensor], Tensor]  # of noisy latents and timesteps


def weighted_mean(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Of each sample the mean of `x` `(B, C, N, h, w)`, where places count by `weight` `(B, 1, N, h, w)` if given.

    Returns:
        `(B,)`; 0 where all weights are 0.
    """
    places = (1, 2, 3, 4)
    if weight is None:
        return x.mean(places)
    return (x * weight).mean(places) / weight.mean(places).clamp(min=1e-6)


def data_folders(data: PhotoData | FieldData | ClipData, runs: Path) -> tuple[Path, Path | None]:
    """Where the photos or clips of a step are, and where the held-out ones."""
    return runs / (
        data.folder if isinstance(data, PhotoData) else data.clips
    ), runs / data.heldout if data.heldout else None
