"""What the ControlNet sees in training: the true flow at some places, and a mask of these places (section 3.4).

The release keeps random 8x8 blocks of dense tracks. People do something else: they take hold of things or of parts of
them, draw a few squares, hold points where they are, and paint a brush. Each sample draws one of these kinds, so the
network gets to know all of them.

Every kind is a function `kind(flow, generator, labels=None)`. Where the labels are missing or know no thing, what needs
one gives `drags` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mi2v_lite.flow.fields import length

BLOCK = 8
STILL = 0.5  # pixels: what moves less than this over the whole clip counts as staying
CLOSE = 1.0  # pixels: a displacement that is wrong by less counts as true
SMALLEST = 16  # pixels: of a thing that shows less nobody can take hold

Control = tuple[Tensor, Tensor]  # the flow (N, 2, H, W), zero where nothing is told, and the mask (N, 1, H, W)


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def blocks(flow: Tensor, generator: torch.Generator, labels: Tensor | None = None) -> Control:
    """The true flow in a random share U(0, 0.5) of the 8x8 blocks, the same ones in all frames, as in the paper.

    Args:
        flow: `(N, 2, H, W)` pixels.
        generator: the source of all randomness.
        labels: `(H, W)`, whose each pixel of frame 0 is: 1, 2, ... are things (see `LiteWorld`). None if nobody knows.

    Returns:
        The flow `(N, 2, H, W)`, zero where nothing is told, and the mask `(N, 1, H, W)`, 1 where it is told.
    """
    height, width = flow.shape[-2:]
    grid = torch.rand(-(-height // BLOCK), -(-width // BLOCK), generator=generator) < _uniform(generator, 0, 0.5)
    mask = grid.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:height, :width]
    return _masked(flow, mask)


def drags(flow: Tensor, generator: torch.Generator, labels: Tensor | None = None) -> Control:
    """1 to 8 drags, each a square that moves as its centre does, often with what stays told as well.

    Half of the drags start where motion is large, as people's do. Half the side of a square is 4 to 14 pixels in an
    image of 128 pixels. Arguments and results are those of `blocks`.
    """
    sparse, mask = _rest(flow, generator)
    speed = _speed(flow).flatten()
    weights = (torch.ones_like(speed), speed + 1e-3)
    for _ in range(_integer(generator, 1, 8)):
        point = int(torch.multinomial(weights[_integer(generator, 0, 1)], 1, generator=generator))
        _put_square(sparse, mask, flow, point, generator)
    return sparse, mask


def anchors(flow: Tensor, generator: torch.Generator, labels: Tensor | None = None) -> Control:
    """1 to 8 squares that stay where they are, and nothing else; `drags` where nothing stays.

    Arguments and results are those of `blocks`.
    """
    sparse, mask = _nothing(flow)
    still = (_speed(flow) < STILL).flatten().float()
    if not still.any():
        return drags(flow, generator)
    for _ in range(_integer(generator, 1, 8)):
        _put_square(sparse, mask, None, int(torch.multinomial(still, 1, generator=generator)), generator)
    return sparse, mask


def things(flow: Tensor, generator: torch.Generator, labels: Tensor | None = None) -> Control:
    """The true flow on one or more whole things, often with what stays told as well.

    Arguments and results are those of `blocks`.
    """
    return _on_things(flow, generator, labels, lambda thing: thing)


def parts(flow: Tensor, generator: torch.Generator, labels: Tensor | None = None) -> Control:
    """The true flow on a part of one or more things: what of it lies within a circle about one of its points.

    A person marks the wing and means the bird. Arguments and results are those of `blocks`.
    """

    def part(thing: Tensor) -> Tensor:
        rows, columns = thing.nonzero().T  # the coordinates of its pixels
        middle = _integer(generator, 0, len(rows) - 1)
        extent = max(int(rows.amax() - rows.amin()), int(columns.amax() - columns.amin()), 4)
        radius = _uniform(generator, 0.15, 0.6) * extent
        y, x = torch.meshgrid(*(torch.arange(length) for length in thing.shape), indexing="ij")
        return thing & ((y - rows[middle]) ** 2 + (x - columns[middle]) ** 2 <= radius**2)

    return _on_things(flow, generator, labels, part)


def brush(flow: Tensor, generator: torch.Generator, labels: Tensor | None = None) -> Control:
    """A brush over everything that moves and a margin of 0 to 16 pixels: outside it the flow is known to be zero.

    Where hardly anything or nearly everything moves there are `drags` instead. Arguments and results are those of
    `blocks`.
    """
    outside = _outside(flow, generator)
    if outside is None:
        return drags(flow, generator)
    sparse, mask = _masked(flow, outside)
    return torch.zeros_like(sparse), mask


KINDS: dict[str, Callable[..., Control]] = {
    "blocks": blocks,
    "drags": drags,
    "anchors": anchors,
    "things": things,
    "parts": parts,
    "brush": brush,
}


def draw(
    flow: Tensor, generators: Sequence[torch.Generator], shares: dict[str, float], labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draws one kind of control for each item of a batch.

    Args:
        flow: `(B, N, 2, H, W)` pixels, on the CPU.
        generators: the source of all randomness of each item.
        shares: how often each of `KINDS` is drawn, in any unit.
        labels: `(B, H, W)`, see `blocks`; None if nobody knows.

    Returns:
        The flow `(B, N, 2, H, W)` and the mask `(B, N, 1, H, W)`, float 0 or 1.

    Raises:
        ValueError: If there is no such kind.
    """
    unknown = sorted(set(shares) - set(KINDS))
    if unknown:
        raise ValueError(f"Unknown kinds of control {unknown}; known are {sorted(KINDS)}.")
    names, weights = list(shares), torch.tensor(list(shares.values()), dtype=torch.float32)
    owners = [None] * len(flow) if labels is None else labels.cpu()
    drawn = []
    for item, generator, owner in zip(flow, generators, owners, strict=True):
        kind = KINDS[names[int(torch.multinomial(weights, 1, generator=generator))]]
        drawn.append(kind(item, generator, owner))
    return torch.stack([item for item, _ in drawn]), torch.stack([mask for _, mask in drawn])


def told(flow: Tensor, sparse: Tensor, mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the control tells the truth. The square of a drag moves as its centre does, so where it reaches beyond the
    edge of the thing, what it says about the background is wrong.

    Args:
        flow: the true flow, `(B, N, 2, H, W)` pixels.
        sparse: the flow of the control, from `draw`.
        mask: the mask of the control, from `draw`.
        size: `(h, w)` of the result.

    Returns:
        `(B, N, 1, h, w)` in [0, 1]: the share of each position's pixels that are masked and whose displacement is wrong
        by less than `CLOSE` pixels plus a twentieth of its length.
    """
    right = mask * (length(flow - sparse) < CLOSE + length(sparse) / 20)
    return F.adaptive_avg_pool2d(right.flatten(0, 1), size).unflatten(0, flow.shape[:2])


def _nothing(flow: Tensor) -> Control:
    return torch.zeros_like(flow), torch.zeros_like(flow[:, :1])


def _masked(flow: Tensor, mask: Tensor) -> Control:
    mask = mask.to(flow.dtype).expand(len(flow), 1, *flow.shape[-2:]).clone()
    return flow * mask, mask


def _speed(flow: Tensor) -> Tensor:
    """The longest displacement of each pixel over the clip, `(H, W)`."""
    return flow.square().sum(1).sqrt().amax(0)


def _outside(flow: Tensor, generator: torch.Generator) -> Tensor | None:
    """Where a brush over all that moves, with a random margin, leaves the picture unpainted, `(H, W)` bool.

    None where hardly anything or nearly everything is painted.
    """
    margin = _integer(generator, 0, max(1, min(flow.shape[-2:]) // 8))
    moving = (_speed(flow) >= STILL).float()
    wide = F.max_pool2d(moving[None, None], 2 * margin + 1, stride=1, padding=margin)[0, 0]
    return wide == 0 if 0.02 < float(wide.mean()) < 0.9 else None


def _put_square(sparse: Tensor, mask: Tensor, flow: Tensor | None, point: int, generator: torch.Generator) -> None:
    """Writes a square about a pixel, which moves as that pixel does, or stays where `flow` is None. In place."""
    height, width = sparse.shape[-2:]
    radius = max(2, round(_uniform(generator, 4, 14) * min(height, width) / 128))
    y, x = divmod(point, width)
    rows, columns = slice(max(y - radius, 0), y + radius), slice(max(x - radius, 0), x + radius)
    sparse[..., rows, columns] = 0 if flow is None else flow[:, :, y, x, None, None]
    mask[..., rows, columns] = 1


def _rest(flow: Tensor, generator: torch.Generator) -> Control:
    """What is told of all that stays, before anything else is: nothing, 1 to 3 anchors, or all around what moves."""
    sparse, mask = _nothing(flow)
    way, still = _uniform(generator, 0, 1), (_speed(flow) < STILL).flatten().float()
    if way < 0.4 and still.any():
        for _ in range(_integer(generator, 1, 3)):
            _put_square(sparse, mask, None, int(torch.multinomial(still, 1, generator=generator)), generator)
    elif way < 0.6 and (outside := _outside(flow, generator)) is not None:
        mask[..., outside] = 1
    return sparse, mask


def _on_things(
    flow: Tensor, generator: torch.Generator, labels: Tensor | None, taken: Callable[[Tensor], Tensor]
) -> Control:
    """The true flow on what is taken of one or more things."""
    numbers = [] if labels is None else [n for n in labels.unique().tolist() if n > 0]
    masks = [mask for n in numbers if (mask := labels == n).sum() >= SMALLEST]
    if not masks:
        return drags(flow, generator)
    sparse, mask = _rest(flow, generator)
    order = torch.randperm(len(masks), generator=generator)[: _integer(generator, 1, len(masks))]
    for i in order.tolist():
        place = taken(masks[i])
        sparse[..., place] = flow[..., place]
        mask[..., place] = 1
    return sparse, mask
