"""Checks of notebook 00, start here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mi2v_checks.base import passed, require


def source_frames(answer: Callable[[int, int], Sequence[int]]) -> None:
    """Checks which frames of a film the future frames of a clip stand for.

    Args:
        answer: `answer(stride, num_frames)` lists how many film frames after the photo each future frame lies.

    Raises:
        CheckFailed: if the list counts the photo, starts at 0, or forgets the stride.
    """
    got = [int(value) for value in answer(8, 16)]
    require(len(got) != 16, "There are 16 entries: the photo itself is one of the 16 frames, so 15 are in the future.")
    require(len(got) == 15, f"16 frames are the photo and 15 future frames; got {len(got)} entries.")
    require(got[0] != 0, "The first entry is 0, which is the photo. The first future frame lies one stride after it.")
    require(got != list(range(1, 16)), "This counts frames of the clip. Each of them is `stride` source frames apart.")
    require(
        got == [8 * i for i in range(1, 16)], f"For stride 8 expected 8, 16, ..., 120, got {got[:3]} ... {got[-1]}."
    )
    require([int(v) for v in answer(2, 4)] == [2, 4, 6], "It is right for stride 8 and 16 frames, but not for 2 and 4.")
    passed("At stride 8, sixteen frames span 120 frames of the film they stand for.")


def mean_motion(answer: Callable[[Tensor], float]) -> None:
    """Checks the mean length of the last displacement.

    Args:
        answer: `answer(flow)` gives it in pixels, for a flow `(N, 2, H, W)`.

    Raises:
        CheckFailed: if it averages components or squares, or averages over all frames.
    """
    flow = torch.zeros(3, 2, 4, 4)
    flow[0, 0], flow[2, 0], flow[2, 1, :2], flow[2, 1, 2:] = 50.0, 3.0, 4.0, -4.0
    got = float(answer(flow.clone()))
    every = float(flow.norm(dim=1).mean())
    require(abs(got - every) > 1e-4, "This is the mean over all frames. Only the last field is asked for: flow[-1].")
    require(abs(got - 1.5) > 1e-4, "This is a mean of components, where left and right cancel; take lengths first.")
    require(abs(got - 25.0) > 1e-3, "This is the mean of the squared lengths; a root is missing.")
    require(abs(got - 5.0) < 1e-4, f"Each vector is (3, 4) or (3, -4), 5 px long, so the mean is 5; got {got:.4g}.")
    passed("Length first, then the mean: opposite motions must not cancel.")


def still_outside(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks a motion brush: the motion stays inside a region, and outside of it nothing moves.

    Args:
        answer: `answer(flow, region)` gives the new flow, for a flow `(B, N, 2, H, W)` and a region, bool `(H, W)`.

    Raises:
        CheckFailed: if inside and outside are exchanged, the shape changes, or the input is overwritten.
    """
    flow = torch.randn(1, 3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    region = torch.zeros(6, 6, dtype=torch.bool)
    region[1:4, 2:5] = True
    kept = flow.clone()
    got = answer(flow, region)
    require(torch.equal(flow, kept), "The flow that was passed in has changed; make a new tensor (or clone it first).")
    require(got.shape == flow.shape, f"The result must keep the shape {tuple(flow.shape)}, got {tuple(got.shape)}.")
    require(
        not torch.equal(got, flow * ~region),
        "Inside and outside are exchanged: the region may move, the rest stays.",
    )
    require(bool((got[..., ~region] == 0).all()), "Some displacement outside the region is not zero.")
    require(torch.equal(got, flow * region), "Inside the region the flow must stay as it was.")
    passed("That is a motion brush, made by hand: zero displacement means that a pixel stays.")
