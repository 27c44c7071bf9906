"""The fields of data_samples/flows: one motion in each file format, made by the formula below."""

import math
from pathlib import Path

import pytest
import torch

from mi2v_lite.flow.files import read_flow

FLOWS = Path(__file__).parents[1] / "data_samples" / "flows"


def turning(frames: int = 15, degrees: float = 20.0, size: int = 64) -> torch.Tensor:
    """A picture that turns about its middle, clockwise to the eye: f_{0->i}, `(N, 2, size, size)` pixels."""
    axis = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = torch.arange(1, frames + 1).view(-1, 1, 1) * math.radians(degrees) / frames
    return torch.stack([x * (angle.cos() - 1) - y * angle.sin(), x * angle.sin() + y * (angle.cos() - 1)], 1)


@pytest.mark.parametrize(
    "name, error, frames", [("turn.flo", 1e-5, 1), ("turn_kitti.png", 1 / 128, 1), ("turn.npz", 1 / 2048, 15)]
)
def test_all_formats_hold_the_turn(name, error, frames):
    flow = read_flow(FLOWS / name).reshape(-1, 2, 64, 64)
    assert len(flow) == frames
    torch.testing.assert_close(flow, turning()[-frames:], atol=error, rtol=0)
