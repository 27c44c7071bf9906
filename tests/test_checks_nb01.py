"""Every check passes the solution and says what is wrong with plausible wrong answers, each in its own words."""

import numpy as np
import torch
from grading import grading_tests
from mi2v_checks import nb01, scenes
from torch.nn.functional import interpolate

from mi2v_lite.flow.fields import compose, resize
from mi2v_lite.flow.warp import backward_warp, splat_average


def grid(height, width):
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([x, y])


def field(matrix, height, width):
    return scenes.plane_field(matrix.numpy(), height, width)


def undivided(matrix, height, width):
    points = torch.cat([grid(height, width), torch.ones(1, height, width)])
    return torch.einsum("ab,bhw->ahw", matrix, points)[:2] - grid(height, width)


def splat(image, flow):
    out, weight = splat_average(image[None], flow[None])
    return out[0], weight[0, 0]


def summed(image, flow):
    out, weight = splat(image, flow)
    return out * weight, weight


def loops(image, flow, whole=False, clamped=False, last_wins=False):
    """Splatting in loops, as students write it, with the faults that they make."""
    _, height, width = image.shape
    total, weight = torch.zeros_like(image), torch.zeros(height, width)
    for y in range(height):
        for x in range(width):
            u, v = x + float(flow[0, y, x]), y + float(flow[1, y, x])
            u, v = (round(u), round(v)) if whole else (u, v)
            for j in (int(np.floor(v)), int(np.floor(v)) + 1):
                for i in (int(np.floor(u)), int(np.floor(u)) + 1):
                    share = (1 - abs(u - i)) * (1 - abs(v - j))
                    a, b = (min(max(i, 0), width - 1), min(max(j, 0), height - 1)) if clamped else (i, j)
                    if 0 <= a < width and 0 <= b < height and share > 0:
                        if last_wins:
                            total[:, b, a], weight[b, a] = share * image[:, y, x], share
                        else:
                            total[:, b, a] += share * image[:, y, x]
                            weight[b, a] += share
    return total / (weight + 1e-7), weight


def scaled(flow, height, width, x, y):
    small = interpolate(flow[None], (height, width), mode="bilinear", align_corners=False)[0]
    return small * torch.tensor([x, y]).view(2, 1, 1)


def components(patches):
    return torch.linalg.eigh(patches.T @ patches)[1].flip(1)


def rebuilt(patches, basis):
    return patches @ basis @ basis.T


def stripes(width, length=16.0):
    flow = torch.zeros(2, 128, 128)
    flow[0] = torch.where(torch.arange(128) // width % 2 == 0, length, -length)
    return flow


RIGHT = {
    nb01.plane_field: field,
    nb01.splat: splat,
    nb01.resized: lambda flow, h, w: resize(flow, (h, w)),
    nb01.chained: compose,
    nb01.kept: lambda patches, k: rebuilt(patches, components(patches)[:, :k]),
    nb01.hard_field: lambda: stripes(2),
}
WRONG = {
    nb01.plane_field: {
        "exchanged": (lambda m, h, w: field(m, h, w).flip(0), "x and y are exchanged"),
        "places": (lambda m, h, w: field(m, h, w) + grid(h, w), "places where pixels go"),
        "no division": (undivided, "division by Z is missing"),
        "inverse": (lambda m, h, w: field(torch.linalg.inv(m), h, w), "the way back"),
        "transposed": (lambda m, h, w: field(m.T, h, w), "transposed"),
        "shape": (lambda m, h, w: field(m, w, h), "Expected the shape"),
    },
    nb01.splat: {
        "pulls": (lambda image, flow: (backward_warp(image[None], -flow[None])[0][0], flow[0]), "This pulls"),
        "sum": (summed, "division is missing"),
        "exchanged": (lambda image, flow: splat(image, flow.flip(0)), "x and y are exchanged"),
        "whole pixels": (lambda image, flow: loops(image, flow, whole=True), "Whole pixels only"),
        "border": (lambda image, flow: loops(image, flow, clamped=True), "piled up at its border"),
        "overwritten": (lambda image, flow: loops(image, flow, last_wins=True), "overwrites the other"),
        "one thing": (lambda image, flow: splat(image, flow)[0], "Return two things"),
        "weight": (lambda image, flow: (splat(image, flow)[0], splat(image, flow)[1] > 0), "the weight is not"),
    },
    nb01.resized: {
        "unscaled": (lambda flow, h, w: scaled(flow, h, w, 1, 1), "kept their length"),
        "wrong way": (lambda flow, h, w: scaled(flow, h, w, 16 / w, 8 / h), "wrong way"),
        "exchanged": (lambda flow, h, w: scaled(flow, h, w, h / 8, w / 16), "factors are exchanged"),
        "one side": (lambda flow, h, w: scaled(flow, h, w, w / 16, w / 16), "scaled by the width"),
    },
    nb01.chained: {
        "added": (lambda first, second: first + second, "only added"),
        "order": (lambda first, second: compose(second, first), "order is exchanged"),
        "second only": (lambda first, second: compose(first, second) - first, "Not yet"),
    },
    nb01.kept: {
        "weakest": (lambda p, k: rebuilt(p, components(p)[:, -k:]), "WEAKEST"),
        "rows": (lambda p, k: rebuilt(p, components(p).flip(1).T[:, -k:]), "not its rows"),
        "numbers": (lambda p, k: p @ components(p)[:, :k], "the k numbers"),
        "first values": (lambda p, k: p * (torch.arange(p.shape[1]) < k), "first k values"),
    },
    nb01.hard_field: {
        "too long": (lambda: stripes(2, 60.0), "at most 16"),
        "noise": (lambda: 5 * torch.randn(2, 128, 128).clamp(-1, 1), "noise breaks any code"),
        "constant": (lambda: torch.ones(2, 128, 128), "easiest of all"),
        "two halves": (lambda: stripes(64), "How many edges|how many edges"),
    },
}


test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)
