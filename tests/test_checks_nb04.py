"""Every check passes the solution and says what is wrong with plausible wrong answers, each in its own words."""

import numpy as np
import torch
from grading import grading_tests
from mi2v_checks import nb04
from torch import nn

from mi2v_lite.control import resample
from mi2v_lite.flow.fields import to_unit


def path(points, num):
    return resample(points, num + 1)


def disc_mask(flow, centres, radius, swapped=False, square=False):
    y, x = torch.meshgrid(*(torch.arange(float(n)) for n in flow.shape[-2:]), indexing="ij")
    near = torch.zeros(flow.shape[-2:], dtype=torch.bool)
    for a, b in centres:
        dx, dy = (x - b, y - a) if swapped else (x - a, y - b)
        near |= (torch.maximum(dx.abs(), dy.abs()) if square else torch.hypot(dx, dy)) <= radius
    return near.float().expand(len(flow), 1, -1, -1)


def disc(flow, centres, radius, **how):
    mask = disc_mask(flow, centres, radius, **how)
    return flow * mask, mask


def overwriting(flow, centres, radius):
    mask = disc_mask(flow, centres, radius)
    flow *= mask
    return flow, mask


def zero(channels, kernel=1, bias=0.0, weight=0.0, grad=True):
    conv = nn.Conv2d(channels, channels, kernel)
    nn.init.constant_(conv.weight, weight)
    nn.init.constant_(conv.bias, bias)
    return conv.requires_grad_(grad)


RIGHT = {
    nb04.displacements: lambda points, num: path(points, num)[1:] - path(points, num)[0],
    nb04.discs: disc,
    nb04.masked_unit: lambda flow, mask: (to_unit(flow) - 0.5) * mask + 0.5,
    nb04.zero_convolution: zero,
    nb04.trajectory_error: lambda got, asked: (got - asked).norm(dim=-1).mean(),
    nb04.control_guidance: lambda e, t, b, s, c: e + s * (b - e) + (c - 1) * (b - t),
}
WRONG = {
    nb04.displacements: {
        "places": (lambda points, num: path(points, num)[1:], "These are places"),
        "frame 0": (lambda points, num: path(points, num) - path(points, num)[0], "7 rows"),
        "steps": (lambda points, num: np.diff(path(points, num), axis=0), "steps from frame to frame"),
        "straight": (
            lambda points, num: np.linspace(1 / num, 1, num)[:, None] * (np.array(points[-1]) - np.array(points[0])),
            "goes straight",
        ),
    },
    nb04.discs: {
        "squares": (lambda *given: disc(*given, square=True), "These are squares"),
        "swapped": (lambda *given: disc(*given, swapped=True), "changed places"),
        "dense": (lambda flow, *given: (flow, disc_mask(flow, *given)), "must be zero"),
        "overwrites": (overwriting, "has changed"),
        "no frames": (lambda flow, *given: (disc(flow, *given)[0], disc_mask(flow, *given)[0]), "N, 1, H, W"),
    },
    nb04.masked_unit: {
        "zero": (lambda flow, mask: to_unit(flow) * mask, "Unknown became 0"),
        "no mask": (lambda flow, mask: to_unit(flow), "mask has no effect"),
        "pixels": (lambda flow, mask: flow * mask, "These are pixels"),
    },
    nb04.zero_convolution: {
        "random": (lambda channels: nn.Conv2d(channels, channels, 1), "weights are not zero"),
        "bias": (lambda channels: zero(channels, bias=1.0), "bias is not zero"),
        "frozen": (lambda channels: zero(channels, grad=False), "frozen"),
        "three": (lambda channels: zero(channels, kernel=3), "1x1"),
    },
    nb04.trajectory_error: {
        "end": (lambda got, asked: (got - asked)[:, -1].norm(dim=-1).mean(), "last frame alone"),
        "components": (lambda got, asked: (got - asked).abs().mean(), "Components"),
        "squared": (lambda got, asked: (got - asked).square().sum(-1).mean(), "squared"),
    },
    nb04.control_guidance: {
        "text only": (lambda e, t, b, s, c: e + s * (b - e), "no effect"),
        "one too far": (lambda e, t, b, s, c: e + s * (b - e) + c * (b - t), "not two"),
        "reversed": (lambda e, t, b, s, c: e + s * (b - e) + (c - 1) * (t - b), "reversed"),
        "multiplied": (lambda e, t, b, s, c: e + s * c * (b - e), "multiplied"),
    },
}


test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)
