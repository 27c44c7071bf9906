"""The mean motion of the training clips: what a prediction must beat that has learned nothing about the picture.

    python -m mi2v_lite.evaluation.mean_flow runs/stores/train

writes `mi2v_lite/weights/mean_flow.npz`: for each stride the mean over the store's clips, reduced to 8x8 places (a mean
of clips that move all ways is smooth) and as fractions of the side, so that it fits any size.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mi2v_lite.data.store import ClipStore
from mi2v_lite.io.files import atomic

MEAN_FLOW = Path(__file__).parents[1] / "weights" / "mean_flow.npz"
PLACES = 8


def mean_flows(store: ClipStore) -> dict[int, np.ndarray]:
    """Stride -> mean field of the clips with that stride, float16 `(N, 2, 8, 8)`, fractions of the side."""
    found = {}
    for stride in sorted(set(store.strides)):
        chosen = [index for index, each in enumerate(store.strides) if each == stride]
        total = np.zeros(store.flow.shape[1:], np.float64)
        for index in chosen:
            total += store.flow[index]
        mean = torch.from_numpy(total / len(chosen) / total.shape[-1])
        found[stride] = F.adaptive_avg_pool2d(mean, PLACES).numpy().astype(np.float16)
    return found


@lru_cache(maxsize=1)
def _stored(path: Path) -> dict[int, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {int(name.removeprefix("stride_")): file[name] for name in file.files}


def training_mean(stride: int, frames: int, size: tuple[int, int], path: Path = MEAN_FLOW) -> Tensor | None:
    """The mean motion of the training clips of this stride on a grid.

    Args:
        stride: source frames between two frames. frames: N. size: (height, width).

    Returns:
        `(N, 2, H, W)` pixels; None when the training had no clip of this stride or fewer frames.
    """
    mean = _stored(path).get(stride)
    if mean is None or len(mean) < frames:
        return None
    fine = F.interpolate(torch.from_numpy(mean[:frames]).float(), size, mode="bilinear", align_corners=False)
    return fine * torch.tensor([size[1], size[0]]).view(1, 2, 1, 1)


def main(arguments: list[str] | None = None) -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Mean training motion.")
    parser.add_argument("store", type=Path, help="the store that Stage 1 was trained on")
    parser.add_argument("-o", "--output", type=Path, default=MEAN_FLOW)
    options = parser.parse_args(arguments)
    found = mean_flows(ClipStore(options.store))
    with atomic(options.output) as beside, open(beside, "wb") as file:
        np.savez_compressed(file, **{f"stride_{stride}": mean for stride, mean in found.items()})
    print(f"mean motion of strides {sorted(found)} in {options.output}")


if __name__ == "__main__":
    main()
