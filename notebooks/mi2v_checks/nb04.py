"""Checks of notebook 04, drags, brushes and the ControlNet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from mi2v_checks.base import passed, require, same
from mi2v_lite.control import resample
from mi2v_lite.flow.fields import to_unit


def displacements(answer: Callable[[list[tuple[float, float]], int], Tensor]) -> None:
    """Checks the displacements of a drag from its start.

    Args:
        answer: `answer(points, num)` gives those of the N = num future frames, `(N, 2)`, in the units of the points.

    Raises:
        CheckFailed: if it gives places or steps, counts frame 0, or cuts the corners of the path.
    """
    points = [(10.0, 20.0), (20.0, 20.0), (20.0, 8.0)]
    path = torch.from_numpy(resample(points, 7)).float()  # 6 future frames
    wanted = path[1:] - path[0]
    got = torch.as_tensor(np.asarray(answer(list(points), 6))).float()
    require(got.shape != (7, 2), "These are 7 rows: frame 0 is no future frame, its displacement is zero anyway.")
    require(got.shape == (6, 2), f"Expected the shape (N, 2) = (6, 2), got {tuple(got.shape)}.")
    require(not same(got, path[1:]), "These are places. f is a displacement: take the start away.")
    require(not same(got, path.diff(dim=0)), "These are steps from frame to frame; f counts from frame 0.")
    straight = torch.linspace(1 / 6, 1, 6)[:, None] * (path[-1] - path[0])
    require(not same(got, straight), "This goes straight from start to end and leaves out the points between.")
    require(same(got, wanted), f"Not the drag's path: the last displacement is (10, -12), got {got[-1].tolist()}.")
    passed("Every frame's displacement starts at frame 0, so a mistake in one frame does not add up.")


def discs(answer: Callable[[Tensor, list[tuple[int, int]], float], tuple[Tensor, Tensor]]) -> None:
    """Checks a sparse control: the parts of a dense field that lie in discs.

    Args:
        answer: `answer(flow, centres, radius)` gives the sparse flow `(N, 2, H, W)` and its mask `(N, 1, H, W)`.

    Raises:
        CheckFailed: if it keeps squares, exchanges x and y, leaves flow outside, or changes the input.
    """
    flow = torch.randn(3, 2, 12, 20, generator=torch.Generator().manual_seed(0))
    kept, centres, radius = flow.clone(), [(15, 4), (6, 8)], 3.0
    sparse, mask = (torch.as_tensor(part) for part in answer(flow, list(centres), radius))
    require(torch.equal(flow, kept), "The dense field that came in has changed; multiply instead of assigning.")
    require(mask.shape == (3, 1, 12, 20), f"The mask is (N, 1, H, W) = (3, 1, 12, 20), got {tuple(mask.shape)}.")
    y, x = np.mgrid[:12, :20]

    def wanted(square: bool, swapped: bool) -> Tensor:
        near = np.zeros((12, 20), bool)
        for a, b in centres:
            dx, dy = (x - b, y - a) if swapped else (x - a, y - b)
            near |= (np.maximum(abs(dx), abs(dy)) if square else np.hypot(dx, dy)) <= radius
        return torch.from_numpy(near).float().expand(3, 1, 12, 20)

    require(not same(mask, wanted(True, False)), "These are squares: the distance is the root of dx^2 + dy^2.")
    require(not same(mask, wanted(False, True)), "x and y have changed places: a centre is (x, y), a tensor [y, x].")
    require(same(mask, wanted(False, False)), "The mask is not 1 where the distance to a centre is at most the radius.")
    require(not same(sparse, flow), "The flow outside the discs must be zero: there nothing is known.")
    require(same(sparse, flow * mask), "Inside the discs the flow must be the dense one, outside zero.")
    passed("A sparse control is a dense field, and a mask that says how little of it is known.")


def masked_unit(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks what the flow autoencoder gets of a sparse control.

    Args:
        answer: `answer(flow, mask)` gives unit flow that says "no motion" where nothing is known.

    Raises:
        CheckFailed: if the unknown becomes 0, the mask is not applied, or pixels are not brought to [0, 1].
    """
    flow = 8 * torch.randn(2, 2, 8, 16, generator=torch.Generator().manual_seed(0))
    mask = (torch.rand(2, 1, 8, 16, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    got = torch.as_tensor(answer(flow.clone(), mask.clone()))
    require(got.shape == flow.shape, f"The shape stays {tuple(flow.shape)}, got {tuple(got.shape)}.")
    require(
        not same(got, to_unit(flow) * mask),
        "Unknown became 0, which means a motion of one whole picture to the left and up. No motion is 0.5.",
    )
    require(not same(got, to_unit(flow)), "The mask has no effect: outside it the true motion is given away.")
    require(not same(got, flow * mask), "These are pixels; the autoencoder wants unit flow, see to_unit.")
    require(same(got, (to_unit(flow) - 0.5) * mask + 0.5), "Expected to_unit(flow) inside the mask and 0.5 outside.")
    passed("Unknown and still look alike in the flow; the mask channel is what tells them apart.")


def zero_convolution(answer: Callable[[int], nn.Conv2d]) -> None:
    """Checks a zero convolution: it adds nothing at first and can learn.

    Args:
        answer: `answer(channels)` gives a 1x1 convolution from so many channels to as many.

    Raises:
        CheckFailed: if its output is not zero, it is frozen, or it is not a 1x1 convolution of these channels.
    """
    conv = answer(6)
    require(isinstance(conv, nn.Conv2d), f"Return an nn.Conv2d, not {type(conv).__name__}.")
    require((conv.in_channels, conv.out_channels) == (6, 6), "As many channels out as in: it is added to a skip.")
    require(conv.kernel_size == (1, 1), f"A zero convolution is 1x1; this kernel is {conv.kernel_size}.")
    x = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    require(bool((conv.weight == 0).all()), "The weights are not zero: at step 0 the base would be disturbed.")
    require(conv.bias is None or bool((conv.bias == 0).all()), "The bias is not zero: a constant is added at step 0.")
    require(conv.weight.requires_grad, "The weights are frozen and would stay zero for ever.")
    (gradient,) = torch.autograd.grad(conv(x).sum(), conv.weight)
    require(bool((gradient != 0).any()), "No gradient reaches the weights; it should be the sum of the inputs.")
    passed("Zero out, and a gradient that is not zero: it does nothing, and can begin at once.")


def trajectory_error(answer: Callable[[Tensor, Tensor], float]) -> None:
    """Checks the mean distance of tracks over all drags and frames (ObjMC).

    Args:
        answer: `answer(got, asked)` gives it in pixels, for tracks `(D, N, 2)`.

    Raises:
        CheckFailed: if only the end counts, components are averaged, or distances are squared.
    """
    asked = torch.zeros(2, 3, 2)
    got = asked.clone()
    got[0, :, 0], got[0, :, 1] = torch.tensor([3.0, 6.0, 9.0]), torch.tensor([4.0, 8.0, 12.0])  # off by 5, 10, 15
    value = float(answer(got.clone(), asked.clone()))
    require(abs(value - 7.5) > 1e-4, "This is the distance in the last frame alone; the whole track counts.")
    require(abs(value - (got - asked).abs().mean()) > 1e-4, "Components were averaged; take the length of each first.")
    require(abs(value - (got - asked).square().sum(-1).mean()) > 1e-3, "These are squared distances; take the root.")
    require(abs(value - 5.0) < 1e-4, f"Off by 5, 10 and 15 px on one of two drags is 5 px on average, not {value:g}.")
    passed("A drag that arrives in time but by another way is not obeyed either.")


def control_guidance(answer: Callable[[Tensor, Tensor, Tensor, float, float], Tensor]) -> None:
    """Checks guidance by text and by control, each with a scale of its own.

    Args:
        answer: `answer(empty, text, both, text_scale, control_scale)` gives the guided prediction. `empty` and `both`
            see the control, without and with words; `text` sees the words and no control.

    Raises:
        CheckFailed: if one scale serves both, a scale of 1 changes the prediction, or the control's part is reversed.
    """
    empty, text, both = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    got = torch.as_tensor(answer(empty.clone(), text.clone(), both.clone(), 3.0, 2.0))
    wanted = empty + 3 * (both - empty) + (both - text)
    require(not same(got, empty + 3 * (both - empty)), "The control's own scale has no effect.")
    require(not same(got, wanted + (both - text)), "A control scale of 2 goes *one* difference further, not two.")
    require(
        not same(got, empty + 3 * (both - empty) - (both - text)), "The control's part is reversed: both minus text."
    )
    require(not same(got, empty + 6 * (both - empty)), "The two scales are multiplied; each has its own difference.")
    plain = torch.as_tensor(answer(empty, text, both, 1.0, 1.0))
    require(same(plain, both), "Both scales at 1 must give the network's own prediction, `both`.")
    require(same(got, wanted), "Expected empty + s (both - empty) + (c - 1) (both - text).")
    passed("Each condition is exaggerated by what it alone changes; that costs one more evaluation a step.")
