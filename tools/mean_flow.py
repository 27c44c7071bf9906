"""Computes the mean motion of the training clips, which a prediction that looks at its photo must beat.

    python -m tools.mean_flow runs/stores/train

writes `mi2v_lite/weights/mean_flow.npz`: for each stride the mean over the clips of a store, reduced to 8 x 8 places (a
mean of clips that move in all directions is smooth) and as fractions of the side, so that it fits any size.
`mi2v_lite.evaluation.stages.training_mean` reads it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from mi2v_lite.cli import guarded
from mi2v_lite.data.store import ClipStore
from mi2v_lite.evaluation.stages import MEAN_FLOW
from mi2v_lite.io.files import atomic

PLACES = 8


def mean_flows(store: ClipStore) -> dict[int, np.ndarray]:
    """Returns for each stride the mean motion of its clips, float16 `(N, 2, 8, 8)`, in fractions of the side."""
    means = {}
    for stride in sorted(set(store.strides)):
        chosen = [index for index, other in enumerate(store.strides) if other == stride]
        total = np.zeros(store.flow.shape[1:], np.float64)
        for index in chosen:
            total += store.flow[index]
        mean = torch.from_numpy(total / len(chosen) / total.shape[-1])
        means[stride] = F.adaptive_avg_pool2d(mean, PLACES).numpy().astype(np.float16)
    return means


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line, which the module's docstring shows."""
    parser = argparse.ArgumentParser(description="Computes the mean motion of the training clips.")
    parser.add_argument("store", type=Path, help="the store that Stage 1 was trained on")
    parser.add_argument("-o", "--output", type=Path, default=MEAN_FLOW, help="the file to write")
    options = parser.parse_args(arguments)
    means = mean_flows(ClipStore(options.store))
    with atomic(options.output) as beside, open(beside, "wb") as file:
        np.savez_compressed(file, **{f"stride_{stride}": mean for stride, mean in means.items()})
    print(f"wrote the mean motion of strides {sorted(means)} to {options.output}")


if __name__ == "__main__":
    sys.exit(guarded(main))
