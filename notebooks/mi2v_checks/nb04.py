"""Checks of notebook 04: drags, things, the brush and the ControlNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from mi2v_checks.base import hide_answers, passed, require, same, tensor
from mi2v_lite.control import Drag, MotionControl, Thing, displacements, resample
from mi2v_lite.data.samples import find_samples
from mi2v_lite.flow.fields import to_unit

Pair = tuple[Tensor, Tensor]


def drag_field(answer: Callable[[list, int, int, int, int], Pair]) -> None:
    """Checks how a drag becomes a sparse motion field and its mask.

    Args:
        answer: `answer(points, radius, height, width, num)` gives the flow `(N, 2, H, W)` in pixels of the N = num
            future frames, zero where nothing is told, and the mask `(N, 1, H, W)`.

    Raises:
        CheckFailed: if it writes places or steps, counts frame 0, leaves out the points between, exchanges x and y,
            lets the square move along, has another square, or wraps around at the border.
    """
    height, width, radius, num = 24, 32, 4, 6
    points = [(11.0, 15.0), (21.0, 15.0), (21.0, 3.0)]
    path = torch.from_numpy(resample(points, num + 1)).float()  # (N + 1, 2)
    rows, columns = slice(11, 19), slice(7, 15)

    def written(way: Tensor, where: tuple[slice, slice] = (rows, columns)) -> Pair:
        flow, mask = torch.zeros(num, 2, height, width), torch.zeros(num, 1, height, width)
        flow[(..., *where)], mask[(..., *where)] = way[:, :, None, None], 1.0
        return flow, mask

    got = answer(list(points), radius, height, width, num)
    require(isinstance(got, (tuple, list)) and len(got) == 2, "Return two things: the flow and the mask.")
    flow, mask = (tensor(part).float() for part in got)
    require(
        len(flow) != num + 1, f"There are {num + 1} fields: frame 0 is no future frame, and its displacement is zero."
    )
    require(
        flow.shape == (num, 2, height, width) and mask.shape == (num, 1, height, width),
        f"Expected the shapes ({num}, 2, {height}, {width}) and ({num}, 1, {height}, {width}), got "
        f"{tuple(flow.shape)} and {tuple(mask.shape)}.",
    )
    way = path[1:] - path[0]
    moving = torch.zeros(num, 1, height, width)
    for i, (x, y) in enumerate(path[1:].round().int().tolist()):
        moving[i, :, max(y - radius, 0) : y + radius, max(x - radius, 0) : x + radius] = 1
    require(
        not same(mask, moving),
        "The square moves along with the drag. A field lives on the pixels of frame 0, in which the thing is at the "
        "drag's start, whatever frame the field is for.",
    )
    swapped = (slice(7, 15), slice(11, 19))
    require(
        not same(mask, written(way, swapped)[1]), "x and y have changed places: a point is (x, y), a tensor [y, x]."
    )
    closed = (slice(11, 20), slice(7, 16))
    require(
        not same(mask, written(way, closed)[1]),
        "The square is one pixel too large: rows y - radius to y + radius - 1, as Python's slices count.",
    )
    require(
        same(mask, written(way)[1]),
        "The mask is not 1 in the square of rows y - radius to y + radius - 1 (and columns likewise) and 0 elsewhere.",
    )
    for wrong, message in (
        (path[1:], "These are places. A displacement is the place minus the start."),
        (path.diff(dim=0), "These are steps from frame to frame. f_{0->i} always counts from frame 0."),
        (way.flip(1), "The components are exchanged: channel 0 is x, to the right."),
        (
            torch.linspace(1 / num, 1, num)[:, None] * (path[-1] - path[0]),
            "This goes straight from the start to the end and leaves out the point between.",
        ),
    ):
        require(not same(flow, written(wrong)[0]), message)
    require(same(flow * mask, written(way)[0]), "The displacements in the square are not those of the drag's path.")
    require(same(flow, flow * mask), "The flow is not zero outside the square, where nothing is told.")
    edge = [(2.0, 1.0), (9.0, 9.0)]
    _, at_border = answer(list(edge), radius, height, width, num)
    require(
        float(tensor(at_border).float()[0].sum()) == 5 * 6,
        "At the border something is missing: of a drag that starts at (2, 1) six columns and five rows are left. "
        "A slice that begins below 0 counts from the other end.",
    )
    passed("A drag is a motion field that is known in one square, and a mask that says which.")


def for_the_encoder(answer: Callable[[Tensor, Tensor, int], Pair]) -> None:
    """Checks what the condition is made of: what the flow autoencoder gets, and the mask on the grid of the latents.

    Args:
        answer: `answer(flow, mask, factor)` gives the unit flow `(N, 2, H, W)`, in which nothing moves where nothing is
            told, and the mask `(N, 1, H / factor, W / factor)`.

    Raises:
        CheckFailed: if the unknown becomes 0, the mask is not applied, pixels are not brought to the unit range, or the
            mask is averaged or taken at another corner.
    """
    flow = 8 * torch.randn(2, 2, 16, 32, generator=torch.Generator().manual_seed(0))
    mask = (torch.rand(2, 1, 16, 32, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    got = answer(flow.clone(), mask.clone(), 8)
    require(isinstance(got, (tuple, list)) and len(got) == 2, "Return two things: the unit flow and the small mask.")
    unit, small = (tensor(part).float() for part in got)
    require(unit.shape == flow.shape, f"The flow's shape stays {tuple(flow.shape)}, got {tuple(unit.shape)}.")
    for wrong, message in (
        (
            to_unit(flow) * mask,
            "The unknown became 0, which means a motion of one whole picture to the left and up. No motion is 1/2.",
        ),
        (to_unit(flow), "The mask has no effect: what nobody told is given away."),
        (flow * mask, "These are pixels. The autoencoder wants the unit range: see to_unit."),
        ((to_unit(flow) - 0.5) * mask, "No motion must be 1/2 again: add what you took away before masking."),
    ):
        require(not same(unit, wrong), message)
    require(same(unit, (to_unit(flow) - 0.5) * mask + 0.5), "Expected unit flow inside the mask and 1/2 outside.")
    require(small.shape == (2, 1, 2, 4), f"The small mask is (N, 1, h, w) = (2, 1, 2, 4), got {tuple(small.shape)}.")
    for wrong, message in (
        (adaptive_avg_pool2d(mask, (2, 4)), "The mask is averaged. The release takes one pixel, so it is 0 or 1."),
        (
            adaptive_max_pool2d(mask, (2, 4)),
            "A cell is marked if anything in it is. The release takes one pixel, the upper left one of each block.",
        ),
        (mask[..., 4::8, 4::8], "Taken in the middle of each block. The release takes its upper left pixel."),
    ):
        require(not same(small, wrong), message)
    require(same(small, mask[..., ::8, ::8]), "The small mask is not the upper left pixel of each 8 x 8 block.")
    passed("Unknown and still look alike in the flow. The mask channel is what tells them apart.")


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
    require(bool((conv.weight == 0).all()), "The weights are not zero: at first the base would be disturbed.")
    require(
        conv.bias is None or bool((conv.bias == 0).all()), "The bias is not zero: a constant would be added at first."
    )
    require(conv.weight.requires_grad, "The weights are frozen and would stay zero for ever.")
    (gradient,) = torch.autograd.grad(conv(x).sum(), conv.weight)
    require(bool((gradient != 0).any()), "No gradient reaches the weights; it should be the sum of the inputs.")
    passed("Zero out, and a gradient that is not zero: it does nothing, and can begin at once.")


def gradients(answer: Callable[[Tensor, Tensor, Tensor], Sequence[Tensor]]) -> None:
    """Checks the gradients of a 1x1 convolution, written by hand.

    Args:
        answer: `answer(weight, features, error)` takes the weight `(O, C)`, the features that go in `(B, C, h, w)`, and
            the gradient of the loss by what comes out `(B, O, h, w)`. It gives the gradients by the weight, by the bias
            `(O,)` and by the features.

    Raises:
        CheckFailed: if the sum over places or items is missing or a mean, a product is transposed, or the weight's
            gradient depends on the weight.
    """
    generator = torch.Generator().manual_seed(0)
    weight, features = torch.randn(3, 3, generator=generator), torch.randn(2, 3, 4, 5, generator=generator)
    error = torch.randn(2, 3, 4, 5, generator=generator)
    got = answer(weight.clone(), features.clone(), error.clone())
    require(
        isinstance(got, (tuple, list)) and len(got) == 3,
        "Return three gradients: by the weight, by the bias and by the features.",
    )
    by_weight, by_bias, by_features = (tensor(part).float() for part in got)
    wanted = torch.einsum("bohw,bchw->oc", error, features)
    require(
        by_weight.shape == (3, 3),
        f"The weight's gradient has its shape, (O, C) = (3, 3), got {tuple(by_weight.shape)}.",
    )
    for wrong, message in (
        (wanted.T, "The weight's gradient is transposed: row o belongs to output o."),
        (
            wanted / 40,
            "The weight's gradient is a mean over items and places. One weight serves them all: add them up.",
        ),
        (wanted / 2, "The weight's gradient is a mean over the items of the batch. Add them up."),
        (
            wanted * weight,
            "The weight's gradient is multiplied by the weight. Then a zero layer could never learn. What is the "
            "derivative of w * x by w?",
        ),
    ):
        require(not same(by_weight, wrong), message)
    require(
        same(by_weight, wanted), "The weight's gradient is not the sum over items and places of error times feature."
    )
    require(by_bias.shape == (3,), f"The bias's gradient has the shape (3,), got {tuple(by_bias.shape)}.")
    require(same(by_bias, error.sum((0, 2, 3))), "The bias's gradient is the sum of the errors over items and places.")
    require(by_features.shape == features.shape, "The features' gradient has the shape of the features.")
    require(
        not same(by_features, torch.einsum("oc,bchw->bohw", weight, error)),
        "The features' gradient uses the weight the wrong way round: an error at output o goes back to the inputs that "
        "were used for it, so the sum runs over o.",
    )
    require(
        same(by_features, torch.einsum("oc,bohw->bchw", weight, error)),
        "The features' gradient is not the errors, carried back through the weight.",
    )
    zero = answer(torch.zeros(3, 3), features, error)
    require(bool((tensor(zero[0]) != 0).any()), "For a weight of zero, its own gradient must not vanish.")
    passed("The gradient by the weight does not ask what the weight is; the gradient by what lies behind it does.")


def part_of_thing(answer: Callable[[Tensor, Tensor, int, tuple[int, int], float], Pair]) -> None:
    """Checks a sparse control for training: the true flow on a part of one thing.

    Args:
        answer: `answer(flow, labels, number, centre, radius)` gives the sparse flow `(N, 2, H, W)` and its mask
            `(N, 1, H, W)`, float.

    Raises:
        CheckFailed: if it forgets the thing or the circle, keeps a square, exchanges x and y, leaves flow outside, or
            changes the input.
    """
    flow = torch.randn(3, 2, 14, 20, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(14, 20, dtype=torch.long)
    labels[2:11, 3:14], labels[6:13, 10:18] = 1, 2
    kept, centre, radius = flow.clone(), (9, 5), 4.0
    got = answer(flow, labels.clone(), 1, centre, radius)
    require(isinstance(got, (tuple, list)) and len(got) == 2, "Return two things: the sparse flow and its mask.")
    sparse, mask = (tensor(part) for part in got)
    require(torch.equal(flow, kept), "The dense field that came in has changed: multiply instead of assigning.")
    require(mask.shape == (3, 1, 14, 20), f"The mask is (N, 1, H, W) = (3, 1, 14, 20), got {tuple(mask.shape)}.")
    y, x = torch.meshgrid(torch.arange(14), torch.arange(20), indexing="ij")
    thing = labels == 1

    def circle(a: int, b: int) -> Tensor:
        return torch.hypot((x - a).float(), (y - b).float()) <= radius

    def as_mask(part: Tensor) -> Tensor:
        return part.float().expand(3, 1, 14, 20)

    square = ((x - 9).abs() <= radius) & ((y - 5).abs() <= radius)
    for wrong, message in (
        (thing, "This is the whole thing. Only what lies within the radius of the centre is asked for."),
        (circle(*centre), "This circle also covers what does not belong to the thing: labels == number is missing."),
        (thing & square, "This keeps a square: the distance is the root of dx^2 + dy^2."),
        (thing & circle(5, 9), "x and y have changed places: a centre is (x, y), a tensor [y, x]."),
        ((labels > 0) & circle(*centre), "This keeps every thing in the circle; only the one of this number is meant."),
    ):
        require(not same(mask, as_mask(wrong)), message)
    require(same(mask, as_mask(thing & circle(*centre))), "The mask is not the part of the thing in the circle.")
    require(not same(sparse, flow), "The flow outside the mask must be zero: there nothing is told.")
    require(same(sparse, flow * mask), "Inside the mask the flow must be the true one, outside zero.")
    passed("Sparse training data are dense fields of which most is hidden.")


def two_drags(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Checks how two drags turn and scale a thing.

    Args:
        answer: `answer(starts, ends, points)` takes where the two drags start and end, `(2, 2)` each, and places
            `(P, 2)` of the thing, all as (x, y). It gives the displacements of the places, `(P, 2)`.

    Raises:
        CheckFailed: if the thing is only shifted, only scaled, turned the wrong way, or if places are given.
    """
    starts, ends = torch.tensor([[10.0, 20.0], [30.0, 24.0]]), torch.tensor([[14.0, 30.0], [20.0, 50.0]])
    points = torch.tensor([[10.0, 20.0], [30.0, 24.0], [20.0, 22.0], [0.0, 0.0], [25.0, 60.0]])
    z, w = (torch.complex(*pair.T) for pair in (starts, ends))
    at = torch.complex(*points.T)

    def moved(turn: Tensor) -> Tensor:
        there = w.mean() + turn * (at - z.mean()) - at
        return torch.stack([there.real, there.imag], 1)

    turn = (w[1] - w[0]) / (z[1] - z[0])
    got = tensor(answer(starts.clone(), ends.clone(), points.clone())).float()
    require(got.shape == points.shape, f"Expected a displacement for each place, (5, 2), got {tuple(got.shape)}.")
    require(not same(got, moved(turn) + points), "These are places. A displacement is the new place minus the old one.")
    require(
        not same(got, moved(torch.tensor(1 + 0j))),
        "This only shifts, by the mean of the two drags. Two points also say how far the thing turns and grows.",
    )
    require(not same(got, moved(turn.conj())), "This turns the other way round: look at the sign of the sine.")
    require(not same(got, moved(turn.abs() + 0j)), "This grows and shifts, but does not turn.")
    require(not same(got, moved(turn / turn.abs())), "This turns and shifts, but does not grow or shrink.")
    require(
        bool((got[:2] - (ends - starts)).abs().max() < 1e-3),
        f"At the starts themselves the displacement must be the drags' own, {(ends - starts).tolist()}, got "
        f"{got[:2].tolist()}.",
    )
    require(same(got, moved(turn)), "It is right at the two starts, but not elsewhere: shift, turn and scale, no more.")
    passed("Two points that are told fix the shift, the turn and the size of everything.")


def control_guidance(answer: Callable[[Tensor, Tensor, Tensor, float, float], Tensor]) -> None:
    """Checks guidance by text and by control, each with a scale of its own.

    Args:
        answer: `answer(empty, text, both, text_scale, control_scale)` gives the guided prediction. `empty` and `both`
            see the control, without and with words; `text` sees the words and no control.

    Raises:
        CheckFailed: if one scale serves both, a scale of 1 changes the prediction, or the control's part is reversed.
    """
    empty, text, both = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    got = tensor(answer(empty.clone(), text.clone(), both.clone(), 3.0, 2.0))
    wanted = empty + 3 * (both - empty) + (both - text)
    require(not same(got, empty + 3 * (both - empty)), "The control's own scale has no effect.")
    require(not same(got, wanted + (both - text)), "A control scale of 2 goes *one* difference further, not two.")
    require(
        not same(got, empty + 3 * (both - empty) - (both - text)), "The control's part is reversed: both minus text."
    )
    require(not same(got, empty + 6 * (both - empty)), "The two scales are multiplied; each has its own difference.")
    plain = tensor(answer(empty, text, both, 1.0, 1.0))
    require(same(plain, both), "Both scales at 1 must give the network's own prediction, `both`.")
    require(
        same(got, wanted), "Not yet: start from one prediction, and add each difference as often as its scale says."
    )
    passed("Each condition is exaggerated by what it alone changes; that costs one more evaluation a step.")


def tilted_rocket(answer: Callable[[Tensor], tuple]) -> None:
    """Checks a control that was designed to tilt the rocket of the sample photos about its foot.

    Args:
        answer: `answer(photo)` takes the photo, uint8 `(H, W, 3)`. It gives the mask of the rocket, bool `(H, W)`, and
            its drags, each a list of points (x, y).

    Raises:
        CheckFailed: if the mask is not that of the rocket, or if the rocket does not turn, grows, or slides.
    """
    photo = np.asarray(Image.open(find_samples() / "photos" / "rocket.jpg").convert("RGB"))
    height, width = photo.shape[:2]
    got = answer(torch.from_numpy(photo.copy()))
    require(isinstance(got, (tuple, list)) and len(got) == 2, "Return two things: the mask and the list of drags.")
    mask, drags = np.asarray(got[0]), [[tuple(map(float, point)) for point in drag] for drag in got[1]]
    require(mask.dtype == bool, f"The mask is of type {mask.dtype}, expected bool.")
    require(mask.shape == (height, width), f"The mask has the shape {mask.shape}, expected ({height}, {width}).")
    left, top, right, bottom = ROCKET
    share = mask[top:bottom, left:right].sum() / max(1, mask.sum())
    require(
        share > 0.8 and 0.008 < mask.mean() < 0.05,
        f"The mask covers {mask.mean():.1%} of the photo, and {share:.0%} of it lies where the rocket is. Look at it: "
        "is something of the ground or of the sky in it, or a part of the rocket missing?",
    )
    tall = np.ptp(np.flatnonzero(mask.any(1)))
    require(
        tall > 0.8 * (bottom - top), f"What you hold is {tall} px tall; the rocket is taller. Click once more on it."
    )
    require(len(drags) >= 2, "One drag can only shift a thing. What would a second one have to do?")
    thing = MotionControl((width, height), things=[Thing(mask, [Drag(points) for points in drags])]).things[0]
    motion = thing.motion(15)
    turned = motion[-1, 0, 0] + 1 + 1j * motion[-1, 1, 0]
    turn, size = abs(np.degrees(np.angle(turned))), abs(turned)
    require(8 <= turn <= 45, f"It turns by {turn:.1f} degrees; 8 to 45 are asked for, either way.")
    require(0.9 <= size <= 1.1, f"It becomes {size:.2f} times as large. A rocket is rigid: keep the two points apart.")
    foot = mask & (np.arange(height)[:, None] >= np.flatnonzero(mask.any(1))[-1] - 8)
    slide = np.linalg.norm(displacements(motion, foot), axis=1).max()
    require(slide <= 14, f"Its foot slides by {slide:.0f} px. Which point of the rocket should not move at all?")
    passed(f"It tilts by {turn:.0f} degrees about its foot.")


ROCKET = (300, 120, 345, 392)  # the box in which the rocket of the sample photo stands: left, top, right, bottom


hide_answers(globals())
