"""Every check passes the solution and says what is wrong with plausible wrong answers, each in its own words."""

import torch
from grading import grading_tests
from mi2v_checks import nb02
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


def bends(flow):
    track = torch.cat([torch.zeros_like(flow[:1]), flow])
    return track.diff(n=2, dim=0).norm(dim=1).mean()


RIGHT = {
    nb02.add_noise: noisy,
    nb02.from_velocity: split,
    nb02.zero_channels: widened,
    nb02.trainable: steps(rest, motion_only, list),
    nb02.guided: lambda empty, told, scale: empty + scale * (told - empty),
    nb02.jitter: bends,
}
WRONG = {
    nb02.add_noise: {
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
    nb02.jitter: {
        "steps": (lambda flow: torch.cat([0 * flow[:1], flow]).diff(dim=0).norm(dim=1).mean(), "not the steps"),
        "no frame 0": (lambda flow: flow.diff(n=2, dim=0).norm(dim=1).mean(), "Frame 0 is part"),
        "components": (
            lambda flow: torch.cat([0 * flow[:1], flow]).diff(n=2, dim=0).abs().mean(),
            "length of the vectors",
        ),
    },
}


test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)
