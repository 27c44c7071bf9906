"""Checks of notebook 03, motion-augmented attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mi2v_checks.base import passed, require, same
from mi2v_lite.flow.fields import resize


def interleave(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks the order of the entries: z0, z'1, z1, z'2, z2, and so on.

    Args:
        answer: `answer(z, warped)` gives the entries `(2F - 1, C)`, for z `(F, C)` and warped `(F - 1, C)`.

    Raises:
        CheckFailed: if the parts stand end to end, or a warped entry comes after the frame's own.
    """
    z, warped = torch.arange(4.0)[:, None], 10 + torch.arange(1.0, 4)[:, None]
    got = torch.as_tensor(answer(z.clone(), warped.clone()))
    require(got.shape != (8, 1), "There are 8 entries; z0 has no warped partner, so 2F - 1 = 7.")
    require(got.shape == (7, 1), f"Expected the shape (2F - 1, C) = (7, 1), got {tuple(got.shape)}.")
    require(
        not same(got, torch.cat([z, warped])), "The two parts stand end to end; each z'i belongs just before its zi."
    )
    after = torch.tensor([0.0, 1, 11, 2, 12, 3, 13])[:, None]
    require(not same(got, after), "Each zi comes before its z'i; it is the other way round: z0, z'1, z1, z'2, z2, ...")
    wanted = torch.tensor([0.0, 11, 1, 12, 2, 13, 3])[:, None]
    require(same(got, wanted), f"Expected z0, z'1, z1, z'2, z2, z'3, z3; got {got[:, 0].tolist()} (z'i are 11 to 13).")
    passed("Every frame's own entry keeps an even place, so queries are every second entry.")


def query_positions(answer: Callable[[int], Sequence[int]]) -> None:
    """Checks where the queries stand in the sequence of keys.

    Args:
        answer: `answer(num_frames)` lists their positions.

    Raises:
        CheckFailed: if it numbers the frames as if there were no warped entries, or gives the warped positions.
    """
    got = [int(value) for value in answer(4)]
    require(
        got != [0, 1, 2, 3], "These are the frames' numbers. In the long sequence a warped entry stands before each."
    )
    require(got != [1, 3, 5], "These are the places of the warped entries; queries are the frames' own.")
    require(got == [0, 2, 4, 6], f"For 4 frames the queries stand at 0, 2, 4, 6; got {got}.")
    require([int(v) for v in answer(16)][-1] == 30, "Right for 4 frames, but the last of 16 frames stands at 30.")
    passed("Queries and keys share one clock: the same position codes for both.")


def feature_flow(answer: Callable[[Tensor, int, int], Tensor]) -> None:
    """Checks how a flow is brought to the grid of features.

    Args:
        answer: `answer(flow, h, w)` gives the flow `(N, 2, h, w)` in feature pixels, for a flow `(N, 2, H, W)` in
            pixels.

    Raises:
        CheckFailed: if the vectors are not scaled, are scaled by one side only, or are scaled the wrong way.
    """
    flow = torch.stack([torch.full((16, 32), 8.0), torch.full((16, 32), -4.0)])[None]
    got, wanted = torch.as_tensor(answer(flow.clone(), 4, 4)), resize(flow, (4, 4))
    require(got.shape == (1, 2, 4, 4), f"Expected the shape (1, 2, 4, 4), got {tuple(got.shape)}.")
    require(not same(got, flow[..., :4, :4]), "The grid is smaller but the vectors are as long as before: divide them.")
    require(not same(got, wanted * wanted.new_tensor([64.0, 16.0]).view(1, 2, 1, 1)), "Divide, do not multiply.")
    both = [same(got, flow[..., :4, :4] / factor) for factor in (8, 4)]
    require(not any(both), "Both components are divided by one factor. Here W / w is 8 and H / h is 4.")
    require(same(got, wanted), f"8 px of 32 is 1 of 4, -4 px of 16 is -1 of 4; got {got[0, :, 0, 0].tolist()}.")
    passed("A displacement is a share of the picture; on a smaller grid it is fewer pixels.")


def warped_share(answer: Callable[[Tensor], Tensor]) -> None:
    """Checks how much of the attention goes to warped entries.

    Args:
        answer: `answer(weights)` gives that share for each frame, `(F,)`, for weights `(F, 2F - 1)`.

    Raises:
        CheckFailed: if it sums the frames' own entries, or takes a mean.
    """
    weights = torch.rand(4, 7, generator=torch.Generator().manual_seed(0))
    weights = weights / weights.sum(1, keepdim=True)
    got, wanted = torch.as_tensor(answer(weights.clone())), weights[:, 1::2].sum(1)
    require(got.shape == (4,), f"One number a frame is asked for, (4,); got {tuple(got.shape)}.")
    require(not same(got, 1 - wanted), "This is the share of the frames' own entries, at the even places.")
    require(not same(got, wanted / 3), "This is the mean weight of a warped entry; the share is their sum.")
    require(same(got, wanted), "Not yet: warped entries stand at the odd places 1, 3, 5; sum over them.")
    passed("A row of attention sums to one, so a sum of its entries is a share.")


def keep_first_clean(answer: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]) -> None:
    """Checks the input of Stage 2: frame 0 is the photo, and it is clean.

    Args:
        answer: `answer(latents, photo, t)` gives the sample `(B, C, F, h, w)` and its times `(B, F)`.

    Raises:
        CheckFailed: if frame 0 stays noisy, other frames change, the time of frame 0 is t, or the input is overwritten.
    """
    generator = torch.Generator().manual_seed(0)
    latents, photo = torch.randn(2, 3, 4, 2, 2, generator=generator), torch.randn(2, 3, 2, 2, generator=generator)
    kept = latents.clone()
    sample, times = answer(latents, photo, 700)
    require(torch.equal(latents, kept), "The latents that came in have changed: the next step needs them. Clone first.")
    require(sample.shape == latents.shape, f"The sample must keep the shape {tuple(latents.shape)}.")
    require(same(sample[:, :, 0], photo), "Frame 0 of the sample is not the photo's latent.")
    require(
        same(sample[:, :, 1:], latents[:, :, 1:]), "Frames after the first must stay noisy; only frame 0 is replaced."
    )
    times = torch.as_tensor(times)
    require(times.shape == (2, 4), f"Each frame needs its own time, (B, F) = (2, 4); got {tuple(times.shape)}.")
    require(bool((times[:, 0] == 1).all()), "Frame 0 is clean, so its time is 1, whatever the others' is.")
    require(bool((times[:, 1:] == 700).all()), "The later frames' time must be t.")
    passed("The network is told the truth about each frame: one is clean, the others are noisy.")
