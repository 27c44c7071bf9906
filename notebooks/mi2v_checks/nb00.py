"""Checks of notebook 00, start here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mi2v_checks.base import hide_answers, passed, require, same, tensor

CHANNELS, FLOW_CHANNELS, FACTOR = (
    16,
    12,
    8,
)  # of lite's autoencoders: of a picture's latent, of a field's; their patches


def place_in_frame(answer: Callable[[Tensor, int, int, int], Sequence[float]]) -> None:
    """Checks how a motion field is read at one pixel.

    Args:
        answer: `answer(flow, x, y, frame)` gives the place (x, y) in a frame, 0 being the photo, of the pixel that
            stands in the photo's column x and row y, for a flow `(1, N, 2, H, W)`.

    Raises:
        CheckFailed: if it reads the next frame's field, exchanges x and y, gives the displacement, or moves the photo.
    """
    flow = torch.randn(1, 5, 2, 8, 10, generator=torch.Generator().manual_seed(0)).round(decimals=2)
    x, y, frame = 7, 3, 2

    def got(frame: int) -> Tensor:
        place = answer(flow.clone(), x, y, frame)
        values = torch.tensor([float(value) for value in place])
        require(values.shape == (2,), f"Return two numbers, x and y; got {len(values)}.")
        return values

    start, move = torch.tensor([float(x), float(y)]), flow[0, :, :, y, x]  # (2,), (N, 2)
    place = got(frame)
    require(
        not same(place, move[frame - 1]),
        "This is the displacement. The place is where the pixel started plus its displacement.",
    )
    require(
        not same(place, start + move[frame]),
        "This is the place in the next frame. The first of the fields, number 0, leads from the photo to frame 1.",
    )
    require(
        not same(place, start + flow[0, frame - 1, :, x, y]),
        "x and y are exchanged where the field is read: the last two dimensions are the row (y) and the column (x).",
    )
    require(
        not same(place, start + move[frame - 1].flip(0)),
        "The two components are exchanged: the first says how far to the right, the second how far down.",
    )
    require(same(place, start + move[frame - 1]), f"Expected ({x}, {y}) plus {move[frame - 1].tolist()}, got {place}.")
    require(same(got(5), start + move[4]), "It is right for frame 2, but not for frame 5, the last one.")
    require(same(got(0), start), "Frame 0 is the photo, in which nothing has moved yet: the place is (x, y) itself.")
    passed("A field is read at a pixel of the photo, and says where that pixel goes.")


def shapes(answer: Callable[[int, int, int], Sequence[Sequence[int]]]) -> None:
    """Checks the shapes of the tensors between the photo and the clip, for lite's numbers of channels.

    Args:
        answer: `answer(height, width, num_frames)` gives five shapes without the batch: of the photo's latent, of what
            Stage 1 reads, of the motion field, of what Stage 2 reads, and of the frames that are painted.

    Raises:
        CheckFailed: if a frame is missing or one too many, the photo's latent is forgotten, height and width are
            exchanged, or the latents are as large as pictures.
    """
    height, width, frames = 96, 160, 12
    h, w = height // FACTOR, width // FACTOR
    got = [tuple(int(value) for value in shape) for shape in answer(height, width, frames)]
    names = ("the photo's latent", "what Stage 1 reads", "the motion field", "what Stage 2 reads", "the painted frames")
    wanted = [
        (CHANNELS, h, w),
        (CHANNELS + FLOW_CHANNELS, frames - 1, h, w),
        (frames - 1, 2, height, width),
        (CHANNELS, frames, h, w),
        (frames, 3, height, width),
    ]
    require(len(got) == 5, f"Five shapes are asked for, got {len(got)}.")
    require(got[0][-2:] != (height, width), f"Latents are smaller than pictures, by {FACTOR} along each side.")
    require(got[0][-2:] != (w, h), "Height and width are exchanged: the height comes first in every shape.")
    require(
        got[1] != (FLOW_CHANNELS, frames - 1, h, w),
        "Stage 1 reads the photo too: its latent stands beside the noisy field, so the channels of both are added.",
    )
    require(
        got[2][0] != frames,
        "There is one field less than there are frames: the photo is a frame, and needs no field to itself.",
    )
    require(
        got[3] != (CHANNELS, frames - 1, h, w),
        "Stage 2 makes all frames, and the photo is one of them: it is the frame without noise.",
    )
    for name, own, right in zip(names, got, wanted, strict=True):
        require(
            own == right, f"Not yet: {name} is {right} for {height} x {width} pixels and {frames} frames, not {own}."
        )
    others = [tuple(shape) for shape in answer(128, 64, 16)]
    require(
        others[0] == (16, 16, 8) and others[2] == (15, 2, 128, 64),
        "It is right for one size and number of frames, but not for 128 x 64 pixels and 16 frames.",
    )
    passed("Whoever knows the shapes has understood half of the system.")


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


def my_motion(answer: Callable[[int, int, int], Tensor]) -> None:
    """Checks a motion field that the student invents: one that can be shown, and that no words of lite ask for.

    Args:
        answer: `answer(count, height, width)` gives a field `(N, 2, H, W)` in pixels, N being `count`.

    Raises:
        CheckFailed: if it holds places, jumps, hardly moves, moves all alike, or leads most pixels out of the picture.
    """
    count, height, width = 15, 128, 192
    flow = tensor(answer(count, height, width)).float()
    require(flow.shape == (count, 2, height, width), f"Expected {(count, 2, height, width)}, got {tuple(flow.shape)}.")
    require(bool(flow.isfinite().all()), "Some displacements are not numbers (nan or infinite).")
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    grid = torch.stack([x, y])
    require(
        float((flow[0] - grid).norm(dim=0).mean()) > 0.5 * float(flow[0].norm(dim=0).mean()) or not flow[0].any(),
        "These are places. A displacement is the new place minus the old one, so subtract the grid.",
    )
    longest = float(flow.norm(dim=1).max())
    require(longest >= 4, f"The longest displacement is {longest:.1f} px. Let something move by 4 px or more.")
    steps = torch.cat([flow[:1], flow.diff(dim=0)]).norm(dim=1)  # (N, H, W): from each frame to the next
    jump = float(steps.max())
    require(
        jump <= 0.25 * longest + 4,
        f"Some pixel jumps by {jump:.1f} px between two frames. The first field should be small, and then grow.",
    )
    unlike = float((flow[-1] - flow[-1].mean((1, 2), keepdim=True)).norm(dim=0).max())
    require(
        unlike > 1, "In the last frame all pixels have the same displacement: that is a pan, which words can ask for."
    )
    places = flow[-1] + grid
    inside = (places[0] >= 0) & (places[0] < width) & (places[1] >= 0) & (places[1] < height)
    require(
        float(inside.float().mean()) > 0.5, "More than half of the photo leaves the picture. Move less, or less of it."
    )
    passed("Now render it, and see whether it looks as you imagined.")


hide_answers(globals())
