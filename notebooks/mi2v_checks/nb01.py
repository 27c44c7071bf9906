"""Checks of notebook 01, motion fields and the flow autoencoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mi2v_checks.base import passed, require, same
from mi2v_lite.flow.fields import compose, to_unit
from mi2v_lite.flow.warp import splat_average


def zoom_field(answer: Callable[[float, int, int], Tensor]) -> None:
    """Checks the motion field of a zoom about the middle of the picture.

    Args:
        answer: `answer(scale, height, width)` gives the field `(2, H, W)` in pixels.

    Raises:
        CheckFailed: if it zooms about a corner, exchanges x and y, or gives places instead of displacements.
    """
    scale, height, width = 1.5, 5, 9
    y, x = torch.meshgrid(torch.arange(height) - 2.0, torch.arange(width) - 4.0, indexing="ij")
    wanted = (scale - 1) * torch.stack([x, y])
    got = torch.as_tensor(answer(scale, height, width)).float()
    require(got.shape == (2, height, width), f"Expected the shape (2, {height}, {width}), got {tuple(got.shape)}.")
    require(not same(got, wanted.flip(0)), "x and y are exchanged: channel 0 is x, to the right.")
    corner = (scale - 1) * torch.stack([x + 4, y + 2])
    require(not same(got, corner), "This zooms about the upper left corner; the middle must stay where it is.")
    place = scale * torch.stack([x, y])
    moved = not same(got, place) and not same(got, place + torch.tensor([4.0, 2.0]).view(2, 1, 1))
    require(moved, "These are the places where pixels go. A displacement is the new place minus the old one.")
    far = float((got - wanted).abs().max())
    require(far < 1e-4, f"Off by up to {far:.3g} px. The middle is ((W - 1) / 2, (H - 1) / 2); it is not W / 2.")
    passed("The middle stays, and a pixel moves the more the farther out it is: (scale - 1) times its distance.")


def unit_flow(answer: Callable[[Tensor], Tensor]) -> None:
    """Checks how pixels become the unit flow that the autoencoder reads.

    Args:
        answer: `answer(flow)` brings a flow `(2, H, W)` in pixels to [0, 1].

    Raises:
        CheckFailed: if both components are divided by one side, the half is missing, or nothing is divided.
    """
    flow = torch.stack([torch.full((4, 8), 2.0), torch.full((4, 8), -1.0)])
    wanted, got = to_unit(flow), torch.as_tensor(answer(flow.clone()))
    require(got.shape == flow.shape, f"The shape must stay {tuple(flow.shape)}, got {tuple(got.shape)}.")
    for side, name in ((8, "width"), (4, "height")):
        one = (flow / side + 1) / 2
        require(not same(got, one), f"Both components are divided by the {name}: x goes with W = 8, y with H = 4.")
    require(not same(got, 2 * wanted - 1), "This is the fraction in [-1, 1]. No motion must become 0.5: add 1, halve.")
    require(not same(got, (flow + 1) / 2), "The division by the sides is missing: two pixels of eight are 1/4.")
    require(same(got, wanted), f"2 px of 8 should become 0.625, -1 px of 4 0.375; got {got[:, 0, 0].tolist()}.")
    passed("Fractions of the picture, moved to the middle of [0, 1]: the same code for every size.")


def hole_share(answer: Callable[[Tensor], float]) -> None:
    """Checks the share of pixels on which nothing lands.

    Args:
        answer: `answer(flow)` gives that share, 0 to 1, for a flow `(1, 2, H, W)` in pixels.

    Raises:
        CheckFailed: if it counts the pixels that leave the picture, or collisions.
    """
    flow = torch.zeros(1, 2, 4, 8)
    flow[:, 0, :, :2] = 2.0  # two columns land on their neighbours: two columns of holes, two of collisions
    flow[:, 0, :, 7] = 3.0  # one column leaves: one more column of holes
    _, weight = splat_average(torch.ones(1, 1, 4, 8), flow)
    wanted, got = float((weight == 0).float().mean()), float(answer(flow.clone()))
    require(
        abs(got - 1 / 8) > 1e-6, "This is the share of pixels that leave the picture; holes are where none arrives."
    )
    require(abs(got - 2 / 8) > 1e-6, "This counts collisions, where the weight is above 1. Holes have weight 0.")
    require(abs(got - (1 - wanted)) > 1e-6, "This is the share that is covered; holes are the rest.")
    require(abs(got - wanted) < 1e-6, f"Three of eight columns are empty, a share of 0.375; got {got:.4g}.")
    passed("Holes are what splatting cannot know: Stage 2 has to invent them.")


def chained(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks how two flows are chained.

    Args:
        answer: `answer(first, second)` gives the flow from a to c, of those from a to b and from b to c, each `(1, 2,
            H, W)`.

    Raises:
        CheckFailed: if the two are only added, or taken in the wrong order.
    """
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(1, 2, 6, 6, generator=generator) * 1.5 for _ in range(2))
    wanted, got = compose(first, second), torch.as_tensor(answer(first.clone(), second.clone()))
    require(got.shape == first.shape, f"The shape must stay {tuple(first.shape)}, got {tuple(got.shape)}.")
    added = "The fields are only added. The second must be read where the first has taken the pixel: p + first(p)."
    require(not same(got, first + second), added)
    require(not same(got, compose(second, first)), "The order is exchanged: the first motion happens first.")
    require(same(got, wanted), "Not yet: f_ac(p) = f_ab(p) + f_bc(p + f_ab(p)), the second read between pixels.")
    passed("Chaining follows the same point; adding looks at the same place.")


def relative_error(answer: Callable[[Tensor, Tensor], float]) -> None:
    """Checks the end-point error relative to the motion.

    Args:
        answer: `answer(pred, true)` gives the mean error as a share of the mean motion, for flows `(B, 2, H, W)` in
            pixels.

    Raises:
        CheckFailed: if it averages ratios or components.
    """
    true = torch.zeros(2, 2, 2, 2)
    true[0, 0], true[1, 0] = 1.0, 9.0
    pred = true.clone()
    pred[:, 1] += 1.0
    pred[1, 1] += 1.0
    got = float(answer(pred.clone(), true.clone()))
    require(
        abs(got - (1 + 2 / 9) / 2) > 1e-4, "This is the mean of ratios: a clip that hardly moves outweighs the others."
    )
    require(abs(got - 1.5) > 1e-4, "This is the error in pixels; divide it by the mean length of the true motion.")
    require(abs(got - 0.15) > 1e-4, "This averages over components; take the length of each error and motion first.")
    require(abs(got - 0.3) < 1e-4, f"Errors of 1 and 2 px on motions of 1 and 9 px make 1.5 / 5 = 0.3; got {got:.4g}.")
    passed("One is what predicting no motion at all would score.")
