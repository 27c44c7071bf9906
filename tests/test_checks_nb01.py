"""Every check passes the solution and says what is wrong with plausible wrong answers, each in its own words."""

import torch
from grading import grading_tests
from mi2v_checks import nb01

from mi2v_lite.flow.fields import compose, to_unit
from mi2v_lite.flow.metrics import endpoint_error
from mi2v_lite.flow.warp import splat_average


def grid(height, width):
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([x, y])


def middle(height, width):
    return torch.tensor([(width - 1) / 2, (height - 1) / 2]).view(2, 1, 1)


def weight(flow):
    return splat_average(torch.ones_like(flow[:, :1]), flow)[1]


def leavers(flow):
    place = grid(*flow.shape[-2:])[0] + flow[0, 0]
    return ((place > flow.shape[-1] - 1) | (place < 0)).float().mean()


RIGHT = {
    nb01.zoom_field: lambda s, h, w: (s - 1) * (grid(h, w) - middle(h, w)),
    nb01.unit_flow: to_unit,
    nb01.hole_share: lambda flow: (weight(flow) == 0).float().mean(),
    nb01.chained: compose,
    nb01.relative_error: lambda pred, true: endpoint_error(pred, true) / true.norm(dim=1).mean(),
}
WRONG = {
    nb01.zoom_field: {
        "exchanged": (lambda s, h, w: (s - 1) * (grid(h, w) - middle(h, w)).flip(0), "x and y are exchanged"),
        "corner": (lambda s, h, w: (s - 1) * grid(h, w), "upper left corner"),
        "places": (lambda s, h, w: s * (grid(h, w) - middle(h, w)), "places where pixels go"),
        "half a pixel": (lambda s, h, w: (s - 1) * (grid(h, w) - middle(h + 1, w + 1)), "it is not W / 2"),
    },
    nb01.unit_flow: {
        "one side": (lambda flow: (flow / flow.shape[-1] + 1) / 2, "divided by the width"),
        "fraction": (lambda flow: 2 * to_unit(flow) - 1, "add 1, halve"),
        "no division": (lambda flow: (flow + 1) / 2, "division by the sides is missing"),
    },
    nb01.hole_share: {
        "leavers": (leavers, "leave the picture"),
        "collisions": (lambda flow: (weight(flow) > 1).float().mean(), "counts collisions"),
        "covered": (lambda flow: (weight(flow) > 0).float().mean(), "share that is covered"),
    },
    nb01.chained: {
        "added": (lambda first, second: first + second, "only added"),
        "order": (lambda first, second: compose(second, first), "order is exchanged"),
        "second only": (lambda first, second: compose(first, second) - first, "Not yet"),
    },
    nb01.relative_error: {
        "mean of ratios": (
            lambda pred, true: ((pred - true).norm(dim=1).mean((1, 2)) / true.norm(dim=1).mean((1, 2))).mean(),
            "mean of ratios",
        ),
        "pixels": (endpoint_error, "error in pixels"),
        "components": (lambda pred, true: (pred - true).abs().mean() / true.norm(dim=1).mean(), "over components"),
    },
}


test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)
