"""What the ControlNet sees in training: the true flow at some places, and a mask of these places (section 3.4).

The release keeps random 8x8 blocks of dense tracks. People draw something else: a few squares that move as a whole,
points that stay, a brushed region. Each sample draws one of these kinds, so the network gets to know all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8
STILL = 0.5  # pixels: what moves less than this over the whole clip counts as staying
CLOSE = 1.0  # pixels: a displacement that is wrong by less counts as true


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def blocks(flow: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The true flow in a random share U(0, 0.5) of the 8x8 blocks, the same ones in all frames, as in the paper.

    Args:
        flow: `(N, 2, H, W)` pixels.
        generator: the source of all randomness.

    Returns:
        The flow `(N, 2, H, W)`, zero where nothing is known, and the mask `(N, 1, H, W)`, 1 where it is known.
    """
    height, width = flow.shape[-2:]
    grid = torch.rand(-(-height // BLOCK), -(-width // BLOCK), generator=generator) < _uniform(generator, 0, 0.5)
    mask = grid.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:height, :width]
    return _masked(flow, mask)


def drags(flow: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """1 to 8 drags, each a square that moves as its centre does, and in half of the samples up to 3 anchors.

    Half of the drags start where motion is large, as people's do. Half the side of a square is 4 to 14 pixels in an
    image of 128 pixels. Arguments and results are those of `blocks`.
    """
    height, width = flow.shape[-2:]
    speed = flow.square().sum(1).sqrt().amax(0)
    sparse, mask = torch.zeros_like(flow), torch.zeros(1, 1, height, width).expand(len(flow), -1, -1, -1).clone()

    def put(point: int, displacement: Tensor) -> None:
        radius = max(2, round(_uniform(generator, 4, 14) * min(height, width) / 128))
        y, x = divmod(point, width)
        rows, columns = slice(max(y - radius, 0), y + radius), slice(max(x - radius, 0), x + radius)
        sparse[..., rows, columns] = displacement[:, :, None, None]
        mask[..., rows, columns] = 1

    still = (speed < STILL).flatten().float()
    if still.any() and _uniform(generator, 0, 1) < 0.5:
        for _ in range(_integer(generator, 1, 3)):
            put(int(torch.multinomial(still, 1, generator=generator)), torch.zeros_like(flow[:, :, 0, 0]))
    weights = (torch.ones(height * width), speed.flatten() + 1e-3)
    for _ in range(_integer(generator, 1, 8)):
        point = int(torch.multinomial(weights[_integer(generator, 0, 1)], 1, generator=generator))
        put(point, flow[:, :, point // width, point % width])
    return sparse, mask


def brush(flow: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A brush over everything that moves and a margin of 0 to 16 pixels: outside it the flow is known to be zero.

    Where hardly anything or nearly everything moves there are `drags` instead. Arguments and results are those of
    `blocks`.
    """
    moving = (flow.square().sum(1).sqrt().amax(0) >= STILL).float()
    margin = _integer(generator, 0, max(1, min(flow.shape[-2:]) // 8))
    wide = F.max_pool2d(moving[None, None], 2 * margin + 1, stride=1, padding=margin)[0, 0]
    if not 0.02 < float(wide.mean()) < 0.9:
        return drags(flow, generator)
    sparse, mask = _masked(flow, wide == 0)
    return torch.zeros_like(sparse), mask


KINDS: dict[str, Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]] = {
    "blocks": blocks,
    "drags": drags,
    "brush": brush,
}


def draw(flow: Tensor, generator: torch.Generator, shares: dict[str, float]) -> tuple[Tensor, Tensor]:
    """Draws one kind of control for each item of a batch.

    Args:
        flow: `(B, N, 2, H, W)` pixels.
        generator: the source of all randomness.
        shares: how often each of `blocks`, `drags` and `brush` is drawn, in any unit.

    Returns:
        The flow `(B, N, 2, H, W)` and the mask `(B, N, 1, H, W)`, float 0 or 1.

    Raises:
        ValueError: If there is no such kind.
    """
    unknown = sorted(set(shares) - set(KINDS))
    if unknown:
        raise ValueError(f"Unknown kinds of control {unknown}; known are {sorted(KINDS)}.")
    names, weights = list(shares), torch.tensor(list(shares.values()), dtype=torch.float32)
    picks = torch.multinomial(weights, len(flow), replacement=True, generator=generator).tolist()
    drawn = [KINDS[names[pick]](item, generator) for item, pick in zip(flow, picks, strict=True)]
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
    error = (flow - sparse).norm(dim=2, keepdim=True)
    right = mask * (error < CLOSE + sparse.norm(dim=2, keepdim=True) / 20)
    return F.adaptive_avg_pool2d(right.flatten(0, 1), size).unflatten(0, flow.shape[:2])


def _masked(flow: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    mask = mask.to(flow.dtype).expand(len(flow), 1, *flow.shape[-2:]).clone()
    return flow * mask, mask
