"""Checks of notebook 01, motion fields and the flow autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

import mi2v_lite
from mi2v_checks.base import hide_answers, passed, require, same, tensor
from mi2v_checks.scenes import plane_field as field_of
from mi2v_checks.scenes import plane_matrix
from mi2v_lite.flow.fields import compose, from_unit, resize, to_unit
from mi2v_lite.flow.metrics import endpoint_error
from mi2v_lite.flow.warp import backward_warp, splat_average
from mi2v_lite.models.autoencoder import decode, encode, load_vae


def plane_field(answer: Callable[[Tensor, int, int], Tensor]) -> None:
    """Checks the motion field of a plane that is seen from another place.

    Args:
        answer: `answer(matrix, height, width)` gives the field `(2, H, W)` in pixels of a `(3, 3)` matrix, which takes
            (x, y, 1) to (X, Y, Z) and so the pixel to (X / Z, Y / Z).

    Raises:
        CheckFailed: if the division by Z is missing, the matrix is transposed or inverted, x and y are exchanged, or
            the answer is places instead of displacements.
    """
    height, width = 7, 9
    matrix = torch.from_numpy(plane_matrix("turn", 0.6, 8) + np.array([[0, 0.1, 0.7], [0, 0, -0.4], [0, 0, 0]])).float()
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    wanted = field_of(matrix.numpy(), height, width)
    got = tensor(answer(matrix.clone(), height, width)).float()
    require(got.shape == (2, height, width), f"Expected the shape (2, {height}, {width}), got {tuple(got.shape)}.")
    require(not same(got, wanted.flip(0)), "x and y are exchanged: channel 0 is x, to the right.")
    require(
        not same(got, wanted + torch.stack([x, y])),
        "These are the places where pixels go. A displacement is the new place minus the old one.",
    )
    undivided = torch.einsum("ab,bhw->ahw", matrix, torch.stack([x, y, torch.ones_like(x)]))[:2] - torch.stack([x, y])
    require(
        not same(got, undivided),
        "The division by Z is missing. Without it, what is far away would not look smaller.",
    )
    require(
        not same(got, field_of(np.linalg.inv(matrix.numpy()), height, width)),
        "This is the way back: the field that takes the new view to the old one. The matrix is not to be inverted.",
    )
    require(
        not same(got, field_of(matrix.T.numpy(), height, width)),
        "The matrix is transposed: X is the first ROW times (x, y, 1).",
    )
    far = float((got - wanted).abs().max())
    require(far < 1e-3, f"Off by up to {far:.3g} px. The pixel in column x and row y is the point (x, y, 1).")
    passed("One matrix moves every pixel differently: that is how a field describes a change of viewpoint.")


def _naive_splat(image: Tensor, flow: Tensor, whole: bool = False, clamped: bool = False) -> Tensor:
    """Average splatting in loops, with two faults to choose from: whole pixels, and a border that catches all."""
    _, height, width = image.shape
    total, weight = torch.zeros_like(image), torch.zeros(height, width)
    for y in range(height):
        for x in range(width):
            u, v = x + float(flow[0, y, x]), y + float(flow[1, y, x])
            if whole:
                u, v = round(u), round(v)
            for j in (int(np.floor(v)), int(np.floor(v)) + 1):
                for i in (int(np.floor(u)), int(np.floor(u)) + 1):
                    share = (1 - abs(u - i)) * (1 - abs(v - j))
                    a, b = (min(max(i, 0), width - 1), min(max(j, 0), height - 1)) if clamped else (i, j)
                    if 0 <= a < width and 0 <= b < height:
                        total[:, b, a] += share * image[:, y, x]
                        weight[b, a] += share
    return total / (weight + 1e-7)


def splat(answer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """Checks forward average splatting.

    Args:
        answer: `answer(image, flow)` takes `(C, H, W)` and `(2, H, W)` in pixels, and gives the splatted image
            `(C, H, W)` and the weight that arrived at each pixel `(H, W)`.

    Raises:
        CheckFailed: if it pulls, does not divide, divides by a count, moves whole pixels, exchanges x and y, lets the
            last arrival win, or keeps at the border what leaves the picture.
    """
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(3, 6, 7, generator=generator) + 0.5
    flow = 1.3 * torch.randn(2, 6, 7, generator=generator)
    result = answer(image.clone(), flow.clone())
    require(isinstance(result, tuple) and len(result) == 2, "Return two things: the splatted image and the weight.")
    got, got_weight = (tensor(part).float() for part in result)
    require(got.shape == image.shape, f"The image must keep its shape {tuple(image.shape)}, got {tuple(got.shape)}.")
    wanted, weight = (part[0] for part in splat_average(image[None], flow[None]))
    require(
        not same(got, backward_warp(image[None], -flow[None])[0][0]),
        "This pulls: it reads, for each new pixel, at a place. Splatting pushes: each OLD pixel adds to a new place.",
    )
    require(
        not same(got, wanted * (weight + 1e-7)),
        "The division is missing: where several pixels arrive the picture gets brighter. Divide by the weight.",
    )
    swapped = splat_average(image[None], flow.flip(0)[None])[0][0]
    require(not same(got, swapped), "x and y are exchanged: flow[0] moves along the columns, flow[1] along the rows.")
    require(
        not same(got, _naive_splat(image, flow, whole=True)),
        "Whole pixels only: a target between pixels must share its colour among four, by bilinear weights.",
    )
    require(
        not same(got, _naive_splat(image, flow, clamped=True)),
        "What leaves the picture is piled up at its border. Drop it: only 0 <= column < W and 0 <= row < H count.",
    )
    one_each = torch.zeros(1, 1, 4)
    one_each[0, 0] = torch.tensor([1.0, 5.0, 0.0, 0.0])
    meeting = torch.zeros(2, 1, 4)
    meeting[0, 0] = torch.tensor([2.0, 1.0, 5.0, 5.0])  # the first two pixels meet at column 2; the others leave
    met = float(tensor(answer(one_each, meeting)[0])[0, 0, 2])
    overwritten = min(abs(met - 1), abs(met - 5)) < 1e-3
    require(not overwritten, "Where two arrive, one overwrites the other: add them up (+=).")
    require(
        same(got, wanted), f"Off by up to {float((got - wanted).abs().max()):.3g}. Compare the formula, sum by sum."
    )
    require(
        same(got_weight.reshape(weight[0].shape), weight[0]),
        "The image is right, but the weight is not: it is the sum of the bilinear shares that arrive at a pixel.",
    )
    passed("Push, share, add up, divide: the same as the package, with its holes and its collisions.")


def resized(answer: Callable[[Tensor, int, int], Tensor]) -> None:
    """Checks how a field is brought to another grid.

    Args:
        answer: `answer(flow, height, width)` brings a field `(2, H, W)` in pixels to a grid of height x width, on which
            it is again in pixels.

    Raises:
        CheckFailed: if the displacements keep their length, are scaled the wrong way, or by the wrong side.
    """
    flow = torch.stack([torch.full((8, 16), 4.0), torch.full((8, 16), -3.0)]) + torch.linspace(0, 1, 16)
    wanted, got = resize(flow, (4, 4)), tensor(answer(flow.clone(), 4, 4)).float()
    require(got.shape == (2, 4, 4), f"Expected the shape (2, 4, 4), got {tuple(got.shape)}.")
    plain = interpolate(flow[None], (4, 4), mode="bilinear", align_corners=False)[0]
    x_factor, y_factor = 4 / 16, 4 / 8
    scales = {
        (1.0, 1.0): "The vectors kept their length. On a grid with a quarter of the columns, 4 px are 1 px.",
        (1 / x_factor, 1 / y_factor): "Scaled the wrong way: on a smaller grid a displacement is shorter.",
        (y_factor, x_factor): "The factors are exchanged: x goes with the width, y with the height.",
        (x_factor, x_factor): "Both components are scaled by the width; y goes with the height.",
        (y_factor, y_factor): "Both components are scaled by the height; x goes with the width.",
    }
    for (x, y), message in scales.items():
        require(not same(got, plain * torch.tensor([x, y]).view(2, 1, 1)), message)
    require(
        same(got, wanted), "Not yet. Interpolate bilinearly (align_corners=False), then scale x by w / W, y by h / H."
    )
    passed(
        "A field is a picture of vectors: resize the picture, and scale the vectors. Stage 2 does it in every layer."
    )


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
    wanted, got = compose(first, second), tensor(answer(first.clone(), second.clone()))
    require(got.shape == first.shape, f"The shape must stay {tuple(first.shape)}, got {tuple(got.shape)}.")
    added = "The fields are only added. The second must be read where the first has taken the pixel: p + first(p)."
    require(not same(got, first + second), added)
    require(not same(got, compose(second, first)), "The order is exchanged: the first motion happens first.")
    require(same(got, wanted), "Not yet: f_ac(p) = f_ab(p) + f_bc(p + f_ab(p)), the second read between pixels.")
    passed("Chaining follows the same point; adding looks at the same place.")


def kept(answer: Callable[[Tensor, int], Tensor]) -> None:
    """Checks the best linear autoencoder: patches rebuilt from their k strongest components.

    Args:
        answer: `answer(patches, k)` takes `(n, values)` and gives what k numbers keep of them, `(n, values)`.

    Raises:
        CheckFailed: if it keeps the weakest components, rows of the matrix of components, the first k values, or
            returns the numbers themselves.
    """
    generator = torch.Generator().manual_seed(5)
    mix = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    patches = torch.randn(200, 6, generator=generator) * torch.tensor([9.0, 5.0, 2.0, 0.5, 0.2, 0.1]) @ mix
    patches = torch.cat([patches, -patches])  # no mean, so that nobody need take it away
    _, vectors = torch.linalg.eigh(patches.T @ patches)
    k = 2
    best = vectors[:, -k:]
    got = tensor(answer(patches.clone(), k)).float()
    require(
        got.shape != (400, k),
        "These are the k numbers. Go back as well: what they keep of a patch has as many values as the patch.",
    )
    require(got.shape == patches.shape, f"Expected the shape {tuple(patches.shape)}, got {tuple(got.shape)}.")

    def near(other: Tensor) -> bool:
        return torch.allclose(got, other, atol=1e-2)

    weakest, rows = vectors[:, :k], vectors.T[:, -k:]
    require(
        not near(patches @ weakest @ weakest.T), "These are the WEAKEST components: eigh sorts from small to large."
    )
    require(not near(patches @ rows @ rows.T), "Components are the columns of what eigh returns, not its rows.")
    firsts = patches * (torch.arange(6) < k)
    require(not near(firsts), "These are the first k values of a patch. Components are weighted sums of all values.")
    share = float((got - patches).square().sum() / patches.square().sum())
    require(near(patches @ best @ best.T), f"{share:.1%} of the square is lost; the best two components lose less.")
    passed("No other linear code of k numbers loses less: this is the autoencoder that every network has to beat.")


def hard_field(answer: Callable[[], Tensor]) -> None:
    """Checks a field that was made to break the shipped flow autoencoder.

    Args:
        answer: `answer()` gives a field `(2, 128, 128)` in pixels with at most three different displacements, none
            longer than 16 pixels.

    Raises:
        CheckFailed: if it breaks these rules, or if the autoencoder still keeps three quarters of the motion.
    """
    flow = tensor(answer()).float()
    require(flow.shape == (2, 128, 128), f"Expected the shape (2, 128, 128), got {tuple(flow.shape)}.")
    longest = float(flow.norm(dim=0).max())
    require(longest <= 16.01, f"The longest displacement is {longest:.3g} px; at most 16 are allowed.")
    count = len(torch.unique((flow.flatten(1).T * 100).round(), dim=0))
    require(count <= 3, f"{count} different displacements: noise breaks any code. Use at most three.")
    require(count > 1, "A constant field is the easiest of all: two numbers a patch say it.")
    vae = load_vae(Path(mi2v_lite.__file__).parent / "weights" / "lite" / "flow_vae")
    with torch.no_grad():
        back = from_unit(decode(vae, encode(vae, to_unit(flow[None]))))[0]
    share = float(endpoint_error(back, flow) / flow.norm(dim=0).mean())
    require(share > 0.25, f"The autoencoder loses {share:.0%} of this motion; make it lose more than 25 %. {HARD}")
    passed(f"It loses {share:.0%} of the motion. In the clips of the world it loses a few per cent.")


HARD = "A patch is 8 pixels wide and keeps 12 numbers: how many edges can there be inside one?"


hide_answers(globals())
