"""Every check passes the solution and says what is wrong with plausible wrong answers, each in its own words."""

import pytest
import torch
from grading import grading_tests
from mi2v_checks import nb02
from mi2v_checks.base import CheckFailed
from torch import nn


def noisy(clean, noise, a):
    return a**0.5 * clean + (1 - a) ** 0.5 * noise


def split(x, v, a):
    return a**0.5 * x - (1 - a) ** 0.5 * v, (1 - a) ** 0.5 * x + a**0.5 * v


def widened(conv, extra, front=True, new=0.0, old=1.0):
    wide = nn.Conv2d(conv.in_channels + extra, conv.out_channels, conv.kernel_size, padding=conv.padding)
    with torch.no_grad():
        zeros = torch.full((conv.out_channels, extra, *conv.kernel_size), new)
        parts = [zeros, old * conv.weight]
        wide.weight.copy_(torch.cat(parts if front else parts[::-1], 1))
        wide.bias.copy_(conv.bias)
    return wide


def motion_only(names):
    return [name for name in names if "motion_modules" in name]


def rest(names):
    return [name for name in names if "motion_modules" not in name]


def steps(first, second, third):
    return lambda names, step: (first, second, third)[step - 1](names)


def step(x, v, now, then):
    clean, noise = split(x, v, now)
    return noisy(clean, noise, then)


def pair(clean, noise, times, alpha_bar, dims=(-1, 1, 1, 1, 1)):
    share = alpha_bar[times].view(*dims)
    return noisy(clean, noise, share), share**0.5 * noise - (1 - share) ** 0.5 * clean


def code(values, width):
    angles = values[:, None] * 10000 ** (-torch.arange(width // 2) / (width // 2))
    return torch.cat([angles.cos(), angles.sin()], 1)


def swapped(values, width):
    return code(values, width).roll(width // 2, dims=1)


def embedding(one, two, t, strides, width, code=code):
    return one(code(torch.full_like(strides, t), width)) + two(code(strides, width))


RIGHT = {
    nb02.add_noise: noisy,
    nb02.from_velocity: split,
    nb02.zero_channels: widened,
    nb02.trainable: steps(rest, motion_only, list),
    nb02.guided: lambda empty, told, scale: empty + scale * (told - empty),
    nb02.ddim_step: step,
    nb02.training_pair: pair,
    nb02.frame_embedding: embedding,
    nb02.my_times: lambda: [999, 280, 120, 40],
}
WRONG = {
    nb02.add_noise: {
        "nothing": (lambda x, n, a: None, "returned nothing"),
        "no roots": (lambda clean, noise, a: a * clean + (1 - a) * noise, "Take roots"),
        "swapped": (lambda clean, noise, a: noisy(noise, clean, a), "changed places"),
        "only added": (lambda clean, noise, a: clean + (1 - a) ** 0.5 * noise, "must shrink"),
    },
    nb02.from_velocity: {
        "order": (lambda x, v, a: split(x, v, a)[::-1], "other order"),
        "epsilon": (lambda x, v, a: ((x - (1 - a) ** 0.5 * v) / a**0.5, v), "takes v for the noise"),
        "sign": (lambda x, v, a: (a**0.5 * x + (1 - a) ** 0.5 * v, v), "wrong sign"),
        "half": (lambda x, v, a: (split(x, v, a)[0], v), "not the noise yet"),
    },
    nb02.zero_channels: {
        "behind": (lambda conv, extra: widened(conv, extra, front=False), "stand behind"),
        "random": (lambda conv, extra: widened(conv, extra, new=0.1), "not zero"),
        "all zero": (lambda conv, extra: widened(conv, extra, old=0.0), "All weights are zero"),
        "too few": (lambda conv, extra: conv, "new ones are 5"),
    },
    nb02.trainable: {
        "everything": (steps(rest, list, list), "only the motion modules"),
        "half": (steps(rest, rest, list), "other way round"),
        "step 1": (steps(list, motion_only, list), "nothing for temporal layers"),
        "step 3": (steps(rest, motion_only, motion_only), "everything together"),
    },
    nb02.guided: {
        "from the text": (lambda empty, told, scale: told + scale * (told - empty), "start from the empty"),
        "wrong way": (lambda empty, told, scale: told + scale * (empty - told), "Away from the text"),
        "not the difference": (lambda empty, told, scale: empty + scale * told, "the \\*difference\\*"),
        "one scale": (lambda empty, told, scale: empty + 3 * (told - empty), "scale of 1"),
    },
    nb02.ddim_step: {
        "jump": (lambda x, v, now, then: split(x, v, now)[0], "only a guess"),
        "dice": (lambda x, v, now, then: noisy(split(x, v, now)[0], torch.randn_like(x), then), "draws no noise"),
        "today's shares": (lambda x, v, now, then: x, "NEXT time"),
        "no roots": (lambda x, v, now, then: then * split(x, v, now)[0] + (1 - then) * split(x, v, now)[1], "roots"),
        "swapped": (lambda x, v, now, then: noisy(*split(x, v, now), 1 - then), "changed places"),
        "v as noise": (lambda x, v, now, then: noisy(split(x, v, now)[0], v, then), "v is not the noise"),
    },
    nb02.training_pair: {
        "epsilon": (lambda *given: (pair(*given)[0], given[1]), "target is the noise"),
        "clean": (lambda *given: (pair(*given)[0], given[0]), "target is the clean"),
        "shown": (lambda *given: (given[0], pair(*given)[1]), "nothing left to predict"),
        "one time": (lambda c, n, t, a: pair(c, n, t[:1], a), "time of the first"),
        "frames": (lambda c, n, t, a: pair(c, n, t, a, (1, 1, -1, 1, 1)), "Each FRAME"),
        "sign": (lambda *given: (pair(*given)[0], -pair(*given)[1]), "wrong sign"),
    },
    nb02.frame_embedding: {
        "sines": (lambda *given: embedding(*given, code=swapped), "sines come first"),
        "one network": (lambda one, two, *more: embedding(one, one, *more), "a network of its own"),
        "sum": (lambda one, two, t, strides, width: one(code(t + strides, width)), "before the networks"),
        "product": (
            lambda one, two, t, strides, width: one(code(0 * strides + t, width)) * two(code(strides, width)),
            "multiplied",
        ),
        "first": (
            lambda one, two, t, strides, width: embedding(one, two, t, 0 * strides + strides[0], width),
            "the first",
        ),
    },
    nb02.my_times: {
        "too many": (lambda: range(999, 0, -100), "At most"),
        "evenly": (lambda: [999, 749, 499, 249], "change its mind"),
        "backwards": (lambda: [999, 100, 200], "must fall"),
        "late": (lambda: [900, 200, 100], "Begin at 999"),
    },
}


test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)


def test_a_refusal_does_not_show_the_check():
    assert CheckFailed("Take roots.")._render_traceback_() == ["Not yet. Take roots."]


def test_an_error_in_the_answer_does_not_show_the_check():
    def answer(clean, noise, share):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        nb02.add_noise(answer)
    frames = [entry.frame.code for entry in raised.traceback]
    assert frames[-1].name == "answer" and all(frame.name != "add_noise" for frame in frames)
