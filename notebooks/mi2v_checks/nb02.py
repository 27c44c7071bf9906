"""Checks of notebook 02, the curriculum of Stage 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from mi2v_checks.base import passed, require, same


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
    got, wanted = torch.as_tensor(answer(clean.clone(), noise.clone(), a)), 0.6 * clean + 0.8 * noise
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
    x, e = (torch.as_tensor(part) for part in pair)
    require(not (same(x, noise) and same(e, clean)), "Right, but in the other order: first the clean sample.")
    require(
        not same(x, (noisy - rest * v) / signal), "This takes v for the noise; v is sqrt(a) noise - sqrt(1 - a) clean."
    )
    require(not same(x, signal * noisy + rest * v), "The clean sample has a wrong sign: v points *away* from it.")
    require(same(x, clean), "The clean sample is wrong: a rotation back, sqrt(a) * noisy - sqrt(1 - a) * v.")
    require(not same(e, v), "v is not the noise yet; rotate it back too.")
    require(same(e, noise), "The clean sample is right, the noise is not: sqrt(1 - a) * noisy + sqrt(a) * v.")
    passed("(clean, noise) to (noisy, v) is a rotation, so the way back is one, too: no division, no explosion.")


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
    passed("Step 0 is the old network; the gradient of a zero weight is its input's, so it can leave zero at once.")


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
    got = {step: set(answer(list(names), step)) for step in (1, 2, 3)}
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
    got, wanted = torch.as_tensor(answer(empty.clone(), told.clone(), 3.0)), empty + 3 * (told - empty)
    require(not same(got, told + 3 * (told - empty)), "It starts from the prediction with text; start from the empty.")
    require(not same(got, told + 3 * (empty - told)), "Away from the text: the difference is told minus empty.")
    require(not same(got, empty + 3 * told), "Scale the *difference* that the text makes, not the prediction.")
    require(same(got, wanted), "Expected empty + scale * (told - empty).")
    require(same(torch.as_tensor(answer(empty, told, 1.0)), told), "A scale of 1 must give the prediction with text.")
    passed("Scale 0 ignores the text, 1 is the model as trained, beyond 1 exaggerates what the text changes.")


def jitter(answer: Callable[[Tensor], Tensor]) -> None:
    """Checks how unsteady tracks are: the mean length of their bends.

    Args:
        answer: `answer(flow)` gives it in pixels, for a flow `(N, 2, H, W)`; frame 0 belongs to the tracks.

    Raises:
        CheckFailed: if it counts motion itself, leaves out frame 0, or averages components.
    """
    even = torch.arange(1.0, 6).view(5, 1, 1, 1) * torch.tensor([3.0, -4.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    got = float(answer(even.clone()))
    require(abs(got - 5.0) > 1e-3, "Even motion has no bends: take the difference of the steps, not the steps.")
    require(abs(got) < 1e-4, f"Tracks that run straight and evenly must give 0, not {got:.3f}.")
    jump = even.clone()
    jump[0, :, 0, 0] += torch.tensor([3.0, 4.0])  # in the first field: bends of 10 and 5 at frames 1 and 2
    got, track = float(answer(jump.clone())), torch.cat([torch.zeros_like(jump[:1]), jump])
    bends = track.diff(n=2, dim=0)  # (N - 1, 2, H, W)
    wanted = float(bends.norm(dim=1).mean())
    short = float(jump.diff(n=2, dim=0).norm(dim=1).mean())
    require(abs(got - short) > 1e-4, "Frame 0 is part of the track: put a field of zeros in front.")
    require(abs(got - float(bends.abs().mean())) > 1e-4, "Take the length of the vectors over dim 1, then the mean.")
    require(abs(got - wanted) < 1e-3, f"Expected {wanted:.3f} for a track with one jump, got {got:.3f}.")
    passed("Second differences see what changes from step to step, and nothing of an even motion.")
