"""How warped reference features enter temporal attention (Motion-I2V, section 3.3; notebook 03).

With z[0] the features of the reference frame and f_{0->i} the motion field, z'[i] = splat(z[0], f_{0->i}) are the
warped features. A fusion is a function that combines them with the frames' own features z:

    fusion(frames, warped) -> context, own

It returns the sequence over time that gives the keys and values of each feature pixel, and says which entries of it are
the frames' own: these give the queries. The attention layer then adds position code m to entry m of the context, so
that a query carries the code of its place in the context.

To try a fusion of your own, write one such function and add it to `FUSIONS`; a UNet with `fusion: its name` uses it.
(A YAML curriculum accepts the names that `training/schema.py` lists; a test holds the two lists equal.)

Shapes: `B` items, `F` frames, `N = F - 1` later frames, `d` feature pixels, `C` channels, `M` entries.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Fusion = Callable[[Tensor, Tensor], tuple[Tensor, slice]]


def interleave(frames: Tensor, warped: Tensor) -> tuple[Tensor, slice]:
    """The paper's fusion: the context is `z_aug = [z[0], z'[1], z[1], ..., z'[N], z[N]]`.

    Equation: augmented-sequence

    Args:
        frames: z, `(B, F, d, C)`.
        warped: z', `(B, N, d, C)`.

    Returns:
        The context `(B, 2F - 1, d, C)`, and the slice of the frames' own entries 0, 2, 4, ..., 2N.
    """
    pairs = torch.stack([warped, frames[:, 1:]], dim=2).flatten(1, 2)  # z'1, z1, z'2, z2, ...
    return torch.cat([frames[:, :1], pairs], dim=1), slice(None, None, 2)


def add(frames: Tensor, warped: Tensor) -> tuple[Tensor, slice]:
    """The paper's ablation: the warped features are added to those of their frame. Arguments as in `interleave`."""
    return torch.cat([frames[:, :1], frames[:, 1:] + warped], dim=1), slice(None)


def ignore(frames: Tensor, warped: Tensor | None = None) -> tuple[Tensor, slice]:
    """Plain temporal attention, as in Stage 1: the frames only see each other. Arguments as in `interleave`."""
    return frames, slice(None)


FUSIONS: dict[str, Fusion] = {"attention": interleave, "addition": add, "none": ignore}


def most_frames(fusion: str, positions: int) -> int:
    """The longest clip that a table of position codes has room for.

    Args:
        fusion: a name in `FUSIONS`.
        positions: the length of the table, which bounds the entries of the context.

    Returns:
        The largest number of frames F whose context has at most `positions` entries.
    """

    def entries(frames: int) -> int:
        context, _ = FUSIONS[fusion](torch.empty(1, frames, 1, 1), torch.empty(1, frames - 1, 1, 1))
        return context.shape[1]

    return max(frames for frames in range(1, positions + 1) if entries(frames) <= positions)
