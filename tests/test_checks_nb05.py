"""Every check passes the solution and says what is wrong with plausible wrong answers, each in its own words."""

import numpy as np
import torch
from grading import grading_tests
from mi2v_checks import nb05

from mi2v_lite.flow.fields import compose
from mi2v_lite.flow.warp import backward_warp
from mi2v_lite.pipelines.video import windows


def chained(steps, turned=False):
    fields = [steps[0]]
    for step in steps[1:]:
        fields.append(compose(step, fields[-1]) if turned else compose(fields[-1], step))
    return torch.stack(fields)


def back(forward, backward):
    return compose(forward, backward) - forward


def tracked(frames, flow):
    return torch.cat([frames[:1], backward_warp(frames[1:], flow)[0]])


def change(a, b, mask):
    return (a - b).abs().mean(1)[mask].mean()


def both(seen):
    every = torch.cat([torch.ones_like(seen[:1]), seen])
    return every[1:] & every[:-1]


def flickers(frames, flow, seen):
    along = tracked(frames, flow)
    return change(along[1:], along[:-1], both(seen))


def grating(period=4, shift=3, noise=False, flat=False, step=None):
    """A grating that moves to the right, and the field that is said to be true."""
    x = np.arange(64)[None, :].repeat(64, 0)
    waves = [np.sin(2 * np.pi * (x - shift * i) / period + 0.7) for i in range(9)]
    if noise:
        waves = list(np.random.default_rng(0).uniform(-1, 1, (9, 64, 64)))
    frames = np.stack([127 + (2 if flat else 90) * wave for wave in waves]).round().astype(np.uint8)
    flow = torch.zeros(8, 2, 64, 64)
    flow[:, 0] = (shift if step is None else step) * torch.arange(1, 9).view(-1, 1, 1)
    return lambda: (frames[..., None].repeat(3, -1), flow)


RIGHT = {
    nb05.chain: chained,
    nb05.comes_home: lambda f, b: compose(f, b).norm(dim=0) < 1,
    nb05.camera_motion: lambda flow: flow.flatten(2).median(2).values,
    nb05.windows: windows,
    nb05.flicker: flickers,
    nb05.hard_clip: grating(),
}
WRONG = {
    nb05.chain: {
        "added": (lambda steps: steps.cumsum(0), "added pixel by pixel"),
        "turned": (lambda steps: chained(steps, turned=True), "order is wrong"),
        "the last only": (lambda steps: chained(steps)[-1], "One field for each step"),
        "the steps": (lambda steps: steps, "Not yet"),
    },
    nb05.comes_home: {
        "at the start": (lambda f, b: (f + b).norm(dim=0) < 1, "read at the pixel's start"),
        "difference": (lambda f, b: (f - back(f, b)).norm(dim=0) < 1, "their SUM"),
        "length": (lambda f, b: compose(f, b).norm(dim=0), "Yes or no"),
        "turned": (lambda f, b: compose(f, b).norm(dim=0) >= 1, "Not yet"),
    },
    nb05.camera_motion: {
        "mean": (lambda flow: flow.mean((2, 3)), "pulled by the object"),
        "all frames": (lambda flow: flow.transpose(0, 1).flatten(1).median(1).values.expand(2, 2), "frames apart"),
        "one number": (lambda flow: flow.flatten(1).median(1).values, "for each frame"),
    },
    nb05.windows: {
        "no overlap": (lambda n, w: [(i, min(i + w, n) - 1) for i in range(0, n, w)], "share no frame"),
        "one too many": (lambda n, w: [(i, min(i + w - 1, n)) for i in range(0, n, w - 1)], "counting starts at 0"),
        "too long": (lambda n, w: [(i, min(i + w, n - 1)) for i in range(0, n - 1, w)], "from i to i"),
        "one frame behind": (
            lambda n, w: [(i, min(i + w, n) - 1) for i in range(0, n - (n == 10), w - 1)],
            "behind it",
        ),
    },
    nb05.flicker: {
        "same pixel": (lambda frames, flow, seen: change(frames[1:], frames[:-1], both(seen)), "the same pixel"),
        "drift": (lambda frames, flow, seen: change(tracked(frames, flow)[1:], frames[:1], seen), "that is drift"),
        "hidden": (
            lambda frames, flow, seen: flickers(frames, flow, torch.ones_like(seen)),
            "Hidden pixels are counted",
        ),
    },
    nb05.hard_clip: {
        "at rest": (grating(shift=0), "Nothing moves"),
        "too fast": (grating(period=9, shift=8), "at 3 px a frame"),
        "a wall": (grating(flat=True), "grey wall"),
        "noise": (grating(noise=True), "has no motion at all"),
        "easy": (grating(period=40, shift=2), "it sees this motion"),
    },
}


test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)
