"""Checks of notebook 03, motion-augmented attention."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mi2v_checks.base import hide_answers, passed, require, same, tensor
from mi2v_lite.flow.fields import resize
from mi2v_lite.flow.warp import backward_warp, splat_average
from mi2v_lite.models.temporal import TemporalAttention

SIDE = 128  # of the mask in `unseen_thing`, in pixels


def attend(answer: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> None:
    """Checks multi-head attention.

    Args:
        answer: `answer(query, key, value, heads)` takes `(P, F, C)`, `(P, M, C)` and `(P, M, C)`, and gives
            `(P, F, C)`.

    Raises:
        CheckFailed: if the root of d is missing or is that of C, the softmax runs over the queries, there is only one
            head, or heads take every so many channels instead of channels that lie side by side.
    """
    generator = torch.Generator().manual_seed(0)
    query, key, value = (2 * torch.randn(3, length, 8, generator=generator) for length in (4, 5, 5))

    def attention(scale: float, heads: int = 2, over: int = -1, strided: bool = False) -> Tensor:
        def split(x: Tensor) -> Tensor:  # (P, heads, length, d)
            if strided:
                return x.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)
            return x.unflatten(-1, (heads, -1)).transpose(1, 2)

        q, k, v = map(split, (query, key, value))
        out = (q @ k.transpose(-1, -2) * scale).softmax(over) @ v
        return out.permute(0, 2, 3, 1).flatten(2) if strided else out.transpose(1, 2).flatten(2)

    got = tensor(answer(query.clone(), key.clone(), value.clone(), 2)).float()
    require(
        got.shape == query.shape, f"Expected one vector for each query, {tuple(query.shape)}; got {tuple(got.shape)}."
    )
    require(
        not same(got, attention(1.0)), "The division by the root of d is missing; then the softmax is far too sure."
    )
    require(
        not same(got, attention(8**-0.5)),
        "Divided by the root of C. The dot product runs over the d channels of one head: d = C / heads.",
    )
    require(
        not same(got, attention(0.5, over=-2)),
        "The softmax runs over the queries. Each query shares out a weight of 1 among the KEYS.",
    )
    require(
        not same(got, attention(8**-0.5, heads=1)) and not same(got, attention(0.5, heads=1)),
        "This is one head over all channels. Each head has its own d channels, and its own softmax.",
    )
    require(
        not same(got, attention(0.5, strided=True)),
        "Heads take every second channel here. A head's channels lie side by side: 0 to d - 1 are those of head 0.",
    )
    off = float((got - attention(0.5)).abs().max())
    require(
        same(got, attention(0.5)), f"Off by up to {off:.3g}. Compare with the formula for each head, factor by factor."
    )
    passed("Each query shares out a weight of 1 among the keys, once in every head.")


def augmented(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks the sequence of motion-augmented attention: carried features before each frame's own.

    Args:
        answer: `answer(z, flow)` takes features `(F, C, h, w)` and the field `(N, 2, H, W)` in pixels of its own grid,
            and gives `(2N + 1, C, h, w)`.

    Raises:
        CheckFailed: if the field is not brought to the grid of the features, other features than the photo's are
            carried, they are pulled, they come after the frame's own, or the parts stand end to end.
    """
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(4, 3, 5, 6, generator=generator)
    flow = 9 * torch.randn(3, 2, 1, 1, generator=generator) + 3 * torch.randn(3, 2, 20, 24, generator=generator)
    small, photo = resize(flow, (5, 6)), z[:1].expand(3, -1, -1, -1)

    def sequence(carried: Tensor, first: bool = True) -> Tensor:
        pair = [carried, z[1:]] if first else [z[1:], carried]
        return torch.cat([z[:1], torch.stack(pair, 1).flatten(0, 1)])

    carried = splat_average(photo, small)[0]
    got = tensor(answer(z.clone(), flow.clone())).float()
    require(got.shape != (8, 3, 5, 6), "These are 8 entries, but z0 has no carried partner: 2N + 1 = 7 for 4 frames.")
    require(got.shape == (7, 3, 5, 6), f"Expected the shape (2N + 1, C, h, w) = (7, 3, 5, 6), got {tuple(got.shape)}.")
    unscaled = interpolate(flow, (5, 6), mode="bilinear", align_corners=False)
    require(
        not same(got, sequence(splat_average(photo, unscaled)[0])),
        "The field was resized like a picture, and its vectors are as long as before: on this grid they are four times "
        "too long. (Exercise 3 of notebook 01.)",
    )
    require(
        not same(got, sequence(splat_average(z[1:], small)[0])),
        "Each frame's own features were carried. What is known is the photo: only z0 travels.",
    )
    require(
        not same(got, sequence(backward_warp(photo, -small)[0])),
        "The features were pulled along the negative field; it lives on the photo's grid, so push (splat_average).",
    )
    require(not same(got, torch.cat([z, carried])), "The parts stand end to end. Each z'i belongs just before its zi.")
    require(
        not same(got, sequence(carried, first=False)),
        "Each zi comes before its z'i here. The paper has it the other way round: z0, z'1, z1, z'2, z2, ...",
    )
    off = float((got - sequence(carried)).abs().max())
    require(same(got, sequence(carried)), f"Off by up to {off:.3g}. Field to (h, w), z0 along it, then interleave.")
    passed("The photo's features now stand in every frame's column, right before what the frame knows itself.")


def layer_output(answer: Callable[[TemporalAttention, Tensor], Tensor]) -> None:
    """Checks the whole layer.

    Args:
        answer: `answer(layer, entries)` takes a `TemporalAttention`, whose weights it uses, and the sequence
            `(2N + 1, C, h, w)` without position codes, and gives `(F, C, h, w)`.

    Raises:
        CheckFailed: if position codes are missing or are numbered by frames, every entry asks, warped entries ask, only
            frames answer, the output's linear map is missing, or places see each other.
    """
    torch.manual_seed(2)
    layer, (count, channels, h, w) = TemporalAttention(16, heads=4, max_length=32), (7, 16, 2, 3)
    entries = 2 * torch.randn(count, channels, h, w)

    def output(
        asks: slice = slice(0, None, 2), hears: slice = slice(None), code: str = "own", last: bool = True
    ) -> Tensor:
        x = entries.permute(2, 3, 0, 1).flatten(0, 1)  # (h w, 2N + 1, C)
        table = layer.pos_encoder.pe[:, :count]
        keys = x + (table if code != "none" else 0)
        query = keys[:, asks]
        if code == "frames":
            query = x[:, asks] + layer.pos_encoder.pe[:, : query.shape[1]]
        keys = keys[:, hears]
        q, k, v = layer.to_q(query), layer.to_k(keys), layer.to_v(keys)
        q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in (q, k, v))
        out = ((q @ k.transpose(-1, -2) / 2).softmax(-1) @ v).transpose(1, 2).flatten(2)
        out = layer.to_out[0](out) if last else out
        return out.unflatten(0, (h, w)).permute(2, 3, 0, 1)

    with torch.no_grad():
        got = tensor(answer(layer, entries.clone())).float()
        wanted = output()
        require(
            got.shape != entries.shape,
            "Every entry asks here. Only the frames do: the carried entries are keys and values, nothing more.",
        )
        require(
            got.shape == wanted.shape,
            f"Expected the shape (F, C, h, w) = {tuple(wanted.shape)}, got {tuple(got.shape)}.",
        )
        require(
            not same(got, output(code="none")),
            "The position codes are missing: without them a frame cannot tell its own carried entry from the others.",
        )
        require(
            not same(got, output(code="frames")),
            "The queries count frames, 0, 1, 2, 3, but the keys count entries. Query and key of an entry share a code.",
        )
        require(
            not same(got, output(hears=slice(0, None, 2))),
            "Keys and values are the frames alone: nothing was gained. They are ALL entries.",
        )
        require(not same(got, output(last=False)), "The last linear map is missing: layer.to_out[0].")
        off = float((got - wanted).abs().max())
        require(
            same(got, wanted),
            f"Off by up to {off:.3g}. One sequence a place; code added; queries at 0, 2, 4, ...; the layer's maps.",
        )
    passed("Frames ask, frames and carried features answer: this is the layer of the paper.")


def warped_share(answer: Callable[[Tensor], Tensor]) -> None:
    """Checks how much of the attention goes to carried entries.

    Args:
        answer: `answer(weights)` takes `(F, heads, h, w, 2N + 1)` and gives that share for each later frame, `(N,)`,
            its mean over heads and places.

    Raises:
        CheckFailed: if it sums the frames' own entries, takes a mean over entries, or includes frame 0.
    """
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(4, 2, 3, 3, 7, generator=generator).softmax(-1)
    every = weights[..., 1::2].sum(-1).mean((1, 2, 3))  # (F,)
    got = tensor(answer(weights.clone())).float()
    require(got.shape != (4,) or not same(got, every), "This includes frame 0. Only the N later frames are asked for.")
    require(got.shape == (3,), f"One number for each later frame is asked for, (3,); got {tuple(got.shape)}.")
    require(not same(got, 1 - every[1:]), "This is the share of the frames' own entries, which have even numbers.")
    require(not same(got, every[1:] / 3), "This is the mean weight of a carried entry. The share is their sum.")
    require(same(got, every[1:]), "Not yet: carried entries have the numbers 1, 3, 5; sum over them, then take means.")
    passed("A row of attention sums to one, so a sum of some of its entries is a share.")


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
    times = tensor(times)
    require(times.shape == (2, 4), f"Each frame needs its own time, (B, F) = (2, 4); got {tuple(times.shape)}.")
    require(bool((times[:, 0] == 1).all()), "Frame 0 is clean, so its time is 1, whatever the others' is.")
    require(bool((times[:, 1:] == 700).all()), "The later frames' time must be t.")
    passed("The network is told the truth about each frame: one is clean, the others are noisy.")


def unseen_thing(answer: Callable[[], Tensor]) -> None:
    """Checks a thing that was made to move without the features of 16 x 16 places noticing it.

    Args:
        answer: `answer()` gives its mask, bool `(128, 128)`: in one piece, at least 4 % and at most half of the pixels.

    Raises:
        CheckFailed: if it breaks one of the rules, or if some place sees more than a quarter of its motion.
    """
    mask = tensor(answer())
    require(tuple(mask.shape) == (SIDE, SIDE), f"Expected a mask of ({SIDE}, {SIDE}), got {tuple(mask.shape)}.")
    mask = mask.bool()
    share = float(mask.float().mean())
    require(share > 0, "There is no thing at all; that is indeed hard to see.")
    require(share >= 0.04, f"It takes {share:.1%} of the pixels. At least 4 % are asked for: small is no art.")
    require(share <= 0.5, f"It takes {share:.0%} of the pixels. At most half: it shall move before a background.")
    pieces = cv2.connectedComponents(mask.numpy().astype(np.uint8), connectivity=4)[0] - 1
    require(pieces == 1, f"It is in {pieces} pieces. One thing hangs together, side by side.")
    moved = 16.0 * mask.float()
    small = resize(torch.stack([moved, 0 * moved])[None], (16, 16))[0, 0]  # in places: the whole motion is 2
    seen = float(small.max() / 2)
    y, x = divmod(int(small.argmax()), 16)
    require(
        seen <= 0.25,
        f"The place in column {x}, row {y} sees {seen:.0%} of its motion. Which pixels does the resized field read?",
    )
    passed(f"{share:.0%} of the picture moves, and no place of the features sees more than {seen:.0%} of the motion.")


hide_answers(globals())
