"""Checks of notebook 02, the curriculum of Stage 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from mi2v_checks.base import hide_answers, passed, require, same, tensor
from mi2v_checks.toy import SCHEDULE

MOST_TIMES, CLOSE = 4, 0.05  # of `my_times`: so many times at most, and so near to +1 or -1 on average


def _pair() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).unbind(0)


def add_noise(answer: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Checks how noise is mixed in.

    Args:
        answer: `answer(clean, noise, a)` gives the noisy sample, where a (alphas_cumprod) is the signal's share of the
            variance.

    Raises:
        CheckFailed: if the shares are not under roots, or signal and noise have changed places.
    """
    clean, noise = _pair()
    a = 0.36
    got, wanted = tensor(answer(clean.clone(), noise.clone(), a)), 0.6 * clean + 0.8 * noise
    require(got.shape == clean.shape, f"The noisy sample has the clean one's shape {tuple(clean.shape)}.")
    require(not same(got, 0.36 * clean + 0.64 * noise), "Take roots: a and 1 - a are shares of the *variance*.")
    require(not same(got, 0.8 * clean + 0.6 * noise), "Signal and noise have changed places: a belongs to the signal.")
    require(not same(got, clean + 0.8 * noise), "The signal must shrink too, or the variance grows beyond 1.")
    require(same(got, wanted), "Expected sqrt(a) * clean + sqrt(1 - a) * noise.")
    passed("The variances a and 1 - a sum to one, so noisy latents keep the size of clean ones.")


def from_velocity(answer: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]) -> None:
    """Checks what a velocity says about the clean sample and the noise.

    Args:
        answer: `answer(noisy, v, a)` gives the pair (clean, noise).

    Raises:
        CheckFailed: if the pair is swapped, a sign is wrong, or v is taken for the noise.
    """
    clean, noise = _pair()
    a, signal, rest = 0.36, 0.6, 0.8
    noisy, v = signal * clean + rest * noise, signal * noise - rest * clean
    pair = answer(noisy.clone(), v.clone(), a)
    require(isinstance(pair, (tuple, list)) and len(pair) == 2, "Return two tensors: the clean sample, then the noise.")
    x, e = (tensor(part) for part in pair)
    require(not (same(x, noise) and same(e, clean)), "Right, but in the other order: first the clean sample.")
    require(
        not same(x, (noisy - rest * v) / signal), "This takes v for the noise; v is sqrt(a) noise - sqrt(1 - a) clean."
    )
    require(not same(x, signal * noisy + rest * v), "The clean sample has a wrong sign: v points *away* from it.")
    require(same(x, clean), "The clean sample is wrong: a rotation back, sqrt(a) * noisy - sqrt(1 - a) * v.")
    require(not same(e, v), "v is not the noise yet; rotate it back too.")
    require(same(e, noise), "The clean sample is right, the noise is not: sqrt(1 - a) * noisy + sqrt(a) * v.")
    passed("(clean, noise) to (noisy, v) is a rotation, and so is the way back: no division, no explosion.")


def ddim_step(answer: Callable[[Tensor, Tensor, float, float], Tensor]) -> None:
    """Checks one step of DDIM.

    Args:
        answer: `answer(x, v, now, then)` takes the noisy sample, the predicted velocity and the shares of the signal
            in the variance now and after the step; it gives the sample with less noise.

    Raises:
        CheckFailed: if it jumps to the clean sample, draws fresh noise, mixes with today's shares, forgets the roots,
            or takes v for the noise.
    """
    clean, noise = _pair()
    now, then = 0.36, 0.9216
    x, v = 0.6 * clean + 0.8 * noise, 0.6 * noise - 0.8 * clean
    got, again = (tensor(answer(x.clone(), v.clone(), now, then)) for _ in range(2))
    require(got.shape == x.shape, f"The sample keeps its shape, {tuple(x.shape)}; this is {tuple(got.shape)}.")
    require(
        same(got, again), "Two calls give two answers: DDIM draws no noise; it goes on with the noise that it found."
    )
    require(
        not same(got, clean),
        "This is the clean sample. It is only a guess: mix it with its noise again, a little less.",
    )
    require(not same(got, x), "Nothing changed: the new sample is mixed with the shares of the NEXT time.")
    require(
        not same(got, 0.9216 * clean + 0.0784 * noise),
        "The roots are missing: `then` is a share of the variance. (Exercise 1)",
    )
    require(
        not same(got, 0.28 * clean + 0.96 * noise),
        "Signal and noise have changed places: `then` belongs to the clean sample.",
    )
    require(
        not same(got, 0.96 * clean + 0.28 * v), "v is not the noise. Take both from exercise 2, clean sample and noise."
    )
    require(
        same(got, 0.96 * clean + 0.28 * noise),
        "Expected sqrt(then) * clean + sqrt(1 - then) * noise, both from exercise 2.",
    )
    require(same(tensor(answer(x, v, now, 1.0)), clean), "With then = 1 the clean sample must come out.")
    passed("The same clean sample and the same noise, mixed anew: no dice, so a seed repeats a clip.")


def training_pair(answer: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """Checks what a network sees in training, and what it should answer.

    Args:
        answer: `answer(clean, noise, times, alpha_bar)` takes the clean latents and the noise `(B, C, N, h, w)`, the
            time of each item `(B,)` and the signal's share of the variance at every time; it gives the noisy latents
            and the velocity, both `(B, C, N, h, w)`.

    Raises:
        CheckFailed: if the target is the noise or the clean latents, all items have the time of the first, each frame
            has a time of its own, or the clean latents are shown.
    """
    clean, noise = torch.randn(2, 3, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).unbind(0)
    alpha_bar, times = SCHEDULE.alphas_cumprod, torch.tensor([900, 100, 500])

    def pair(share: Tensor) -> tuple[Tensor, Tensor]:
        return share.sqrt() * clean + (1 - share).sqrt() * noise, share.sqrt() * noise - (1 - share).sqrt() * clean

    own = alpha_bar[times].view(3, 1, 1, 1, 1)
    noisy, velocity = pair(own)
    got = answer(clean.clone(), noise.clone(), times.clone(), alpha_bar.clone())
    require(
        isinstance(got, (tuple, list)) and len(got) == 2, "Return two tensors: what the network sees, and its target."
    )
    x, target = (tensor(part) for part in got)
    require(x.shape == clean.shape, f"The noisy latents have the shape {tuple(clean.shape)}, not {tuple(x.shape)}.")
    require(not same(x, clean), "The network sees the clean latents here: there is nothing left to predict.")
    require(not same(x, pair(alpha_bar[times[0]])[0]), "All items got the time of the first. Each has one of its own.")
    require(
        not same(x, pair(alpha_bar[times].view(1, 1, 3, 1, 1))[0]),
        "Each FRAME got a time of its own, since times was lined up with the third dimension. It belongs to the items.",
    )
    require(not same(x, own * clean + (1 - own) * noise), "Take roots: these are shares of the variance. (Exercise 1)")
    require(same(x, noisy), "The noisy latents are wrong: exercise 1, with alpha_bar[times] as (B, 1, 1, 1, 1).")
    require(not same(target, noise), "The target is the noise, as in the release. Lite's networks answer the velocity.")
    require(not same(target, clean), "The target is the clean sample. Lite's networks answer the velocity.")
    require(not same(target, -velocity), "The velocity has the wrong sign: plus the noise, minus the clean sample.")
    require(same(target, velocity), "The target is wrong: sqrt(alpha_bar) * noise - sqrt(1 - alpha_bar) * clean.")
    passed("One random time and one noise for each item: that is the whole training set of a denoiser.")


def zero_channels(answer: Callable[[nn.Conv2d, int], nn.Conv2d]) -> None:
    """Checks how a convolution gets new input channels that change nothing at first.

    Args:
        answer: `answer(conv, extra)` gives a convolution with `extra` more input channels in front.

    Raises:
        CheckFailed: if the output changes, the new channels stand behind, or the new weights cannot learn.
    """
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 4, 3, padding=1)
    kept = {name: value.clone() for name, value in conv.state_dict().items()}
    wide = answer(conv, 3)
    x, image = torch.randn(1, 2, 5, 5), torch.randn(1, 3, 5, 5)
    require(isinstance(wide, nn.Conv2d), f"Return an nn.Conv2d, not {type(wide).__name__}.")
    require(wide.in_channels == 5, f"2 channels and 3 new ones are 5, not {wide.in_channels}.")
    require(all(torch.equal(conv.state_dict()[name], value) for name, value in kept.items()), "The old layer changed.")
    with torch.no_grad():
        wanted, got = conv(x), wide(torch.cat([image, x], 1))
        behind = wide(torch.cat([x, image], 1))
    require(
        not (same(behind, wanted) and not same(got, wanted)),
        "The new channels stand behind. The order is [image, noisy flow]: the image comes first.",
    )
    require(not bool((wide.weight == 0).all()), "All weights are zero: the old channels must keep what they learned.")
    require(bool((wide.weight[:, :3] == 0).all()), "The new channels are not zero: at step 0 they disturb the base.")
    require(same(wide.bias, conv.bias), "The bias was not copied.")
    require(same(got, wanted), "The output changed; copy the old weight behind the zeros, and keep the padding.")
    require(wide.weight.requires_grad, "The new weight must be able to learn (requires_grad).")
    passed("Step 0 is the old network, and a zero weight has a gradient all the same, so it leaves zero at once.")


def frame_embedding(answer: Callable[[nn.Module, nn.Module, int, Tensor, int], Tensor]) -> None:
    """Checks the embedding that each frame gets from the time of diffusion and from its stride.

    Args:
        answer: `answer(time_mlp, stride_mlp, t, strides, width)` gives `(N, D)`, one row for each of the strides
            `(N,)`; both networks take codes of `width` numbers.

    Raises:
        CheckFailed: if sines come first, the two numbers are added before their codes, one network serves both, the
            embeddings are multiplied, or all frames get the same.
    """
    torch.manual_seed(0)
    time_mlp, stride_mlp = (nn.Sequential(nn.Linear(8, 6), nn.SiLU(), nn.Linear(6, 5)) for _ in range(2))
    strides, t = torch.tensor([8, 16, 24]), 700

    def code(values: Tensor, sines_first: bool = False) -> Tensor:
        angles = values[:, None].float() * 10000 ** (-torch.arange(4) / 4)
        parts = [angles.sin(), angles.cos()] if sines_first else [angles.cos(), angles.sin()]
        return torch.cat(parts, 1)

    times = torch.full((3,), t)
    with torch.no_grad():
        got = tensor(answer(time_mlp, stride_mlp, t, strides.clone(), 8))
        require(got.shape == (3, 5), f"One row for each frame is wanted, (3, 5); got {tuple(got.shape)}.")
        time, stride = time_mlp(code(times)), stride_mlp(code(strides))
        require(
            not same(got, time_mlp(code(times, True)) + stride_mlp(code(strides, True))),
            "The sines come first here. In this code the cosines do; a trained network depends on it.",
        )
        require(
            not same(got, time_mlp(code(times + strides))) and not same(got, time_mlp(code(times) + code(strides))),
            "Time and stride were added before the networks: then a late frame looks like a noisy one.",
        )
        require(not same(got, time_mlp(code(times)) + time_mlp(code(strides))), "The stride has a network of its own.")
        require(not same(got, time * stride), "The two embeddings are multiplied; the paper adds them.")
        require(not same(got, time + stride[:1]), "All frames got the stride of the first. Each has its own.")
        require(not same(got, time), "The stride is missing.")
        require(same(got, time + stride), "Expected time_mlp(code of t) + stride_mlp(code of the frame's stride).")
    passed("Every frame knows how noisy it is, and how far from the photo in time.")


def trainable(answer: Callable[[Iterable[str], int], Sequence[str]]) -> None:
    """Checks which parameters each step of the curriculum trains.

    Args:
        answer: `answer(names, step)` lists the names of those that step 1, 2 or 3 trains.

    Raises:
        CheckFailed: if step 2 trains everything or the wrong half, or step 3 leaves something out.
    """
    still = ["conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "stride_embedding.linear_1.bias"]
    moving = ["down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"]
    names = [*still, *moving]
    got = {step: set(answer(list(names), step) or ()) for step in (1, 2, 3)}
    require(got[2] != set(names), "Step 2 trains only the motion modules; the spatial layers stay as step 1 left them.")
    require(got[2] != set(still), "The other way round: in step 2 the motion modules move, the rest is still.")
    require(got[2] == set(moving), f"Step 2: expected {moving}, got {sorted(got[2])}.")
    require(not got[1] & set(moving), "Step 1 has one frame a sample: there is nothing for temporal layers to learn.")
    require(got[1] == set(still), "Step 1 trains the whole 2-D network, the stride embedding included.")
    require(got[3] == set(names), "Step 3 trains everything together.")
    passed("One word in the parameters' names is the whole difference between the steps.")


def guided(answer: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Checks classifier-free guidance.

    Args:
        answer: `answer(empty, told, scale)` gives the guided prediction, of those without and with the text.

    Raises:
        CheckFailed: if it starts from the wrong prediction, goes the wrong way, or is a plain average.
    """
    empty, told = _pair()
    got, wanted = tensor(answer(empty.clone(), told.clone(), 3.0)), empty + 3 * (told - empty)
    require(not same(got, told + 3 * (told - empty)), "It starts from the prediction with text; start from the empty.")
    require(not same(got, told + 3 * (empty - told)), "Away from the text: the difference is told minus empty.")
    require(not same(got, empty + 3 * told), "Scale the *difference* that the text makes, not the prediction.")
    require(same(got, wanted), "Expected empty + scale * (told - empty).")
    require(same(tensor(answer(empty, told, 1.0)), told), "A scale of 1 must give the prediction with text.")
    passed("Scale 0 ignores the text, 1 is the model as trained, beyond 1 exaggerates what the text changes.")


def toy_distance(times: Sequence[int]) -> float:
    """How far from +1 or -1 DDIM ends on average if it visits these times, with the best denoiser of the toy."""
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    shares = [*(float(SCHEDULE.alphas_cumprod[t]) for t in times), 1.0]
    for now, then in zip(shares, shares[1:], strict=False):
        clean = torch.tanh(now**0.5 * x / (1 - now))
        x = then**0.5 * clean + (1 - then) ** 0.5 * (x - now**0.5 * clean) / (1 - now) ** 0.5
    return float((x.abs() - 1).abs().mean())


def my_times(answer: Callable[[], Sequence[int]]) -> None:
    """Checks a design: few times that bring the toy of two answers to one of them.

    Args:
        answer: `answer()` lists the times that DDIM visits, from noisy to clean.

    Raises:
        CheckFailed: if there are too many times, they do not fall from 999, or the samples stay in between.
    """
    times = [int(t) for t in answer()]
    require(0 < len(times) <= MOST_TIMES, f"At most {MOST_TIMES} times are allowed; these are {len(times)}.")
    require(times[0] == 999, "Begin at 999: sampling starts from pure noise, and only there is there nothing else.")
    require(all(0 <= t <= 999 for t in times), "Times lie between 0 and 999.")
    require(all(b < a for a, b in zip(times, times[1:], strict=False)), "The times must fall: noise is taken away.")
    distance, even = toy_distance(times), toy_distance([999, 749, 499, 249])
    require(
        distance < CLOSE,
        f"The samples end {distance:.3f} from +1 or -1; wanted is less than {CLOSE}. (Evenly spaced: {even:.3f}.) At"
        " which times does the best denoiser still change its mind?",
    )
    passed(f"They end {distance:.3f} from +1 or -1; four evenly spaced times leave {even:.3f}.")


hide_answers(globals())
