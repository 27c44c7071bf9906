"""Every check passes the solution and says what is wrong with plausible wrong answers, each in its own words."""

import numpy as np
import torch
from grading import grading_tests
from mi2v_checks import nb04
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from mi2v_lite.control import resample
from mi2v_lite.flow.fields import to_unit


def drag_field(points, radius, height, width, num, **how):
    """A drag's field as students write it, with the faults that they make."""
    count = num if how.get("no_start") else num + 1
    path = torch.from_numpy(resample(points[:: len(points) - 1] if how.get("straight") else points, count)).float()
    way = {"places": path, "steps": path.diff(dim=0)}.get(how.get("way"), path - path[0])[-num:]
    if how.get("with_first"):
        way = path - path[0]
    flow, mask = torch.zeros(len(way), 2, height, width), torch.zeros(len(way), 1, height, width)
    for i in range(len(way)):
        x, y = (round(value) for value in (path[i + 1].tolist() if how.get("moves") else points[0]))
        x, y = (y, x) if how.get("swapped") else (x, y)
        low_y, low_x = (y - radius, x - radius) if how.get("wraps") else (max(y - radius, 0), max(x - radius, 0))
        rows, columns = slice(low_y, y + radius + how.get("more", 0)), slice(low_x, x + radius + how.get("more", 0))
        flow[i, :, rows, columns] = (way[i].flip(0) if how.get("components") else way[i])[:, None, None]
        mask[i, :, rows, columns] = 1
    if how.get("everywhere"):
        flow = way[:, :, None, None].expand_as(flow)
    return flow, mask


def faulty(**how):
    return lambda *given: drag_field(*given, **how)


def for_the_encoder(flow, mask, factor):
    return (to_unit(flow) - 0.5) * mask + 0.5, mask[..., ::factor, ::factor]


def small(reduce):
    return lambda flow, mask, factor: (for_the_encoder(flow, mask, factor)[0], reduce(mask))


def unit(change):
    return lambda flow, mask, factor: (change(flow, mask), mask[..., ::factor, ::factor])


def zero(channels, kernel=1, bias=0.0, weight=0.0, grad=True):
    conv = nn.Conv2d(channels, channels, kernel)
    nn.init.constant_(conv.weight, weight)
    nn.init.constant_(conv.bias, bias)
    return conv.requires_grad_(grad)


def gradients(weight, features, error):
    return (
        torch.einsum("bohw,bchw->oc", error, features),
        error.sum((0, 2, 3)),
        torch.einsum("oc,bohw->bchw", weight, error),
    )


def by_weight(change):
    def answer(weight, features, error):
        right, *rest = gradients(weight, features, error)
        return change(right, weight), *rest

    return answer


def part(flow, labels, number, centre, radius, swapped=False, square=False, any_thing=False, whole=False, disc=False):
    y, x = torch.meshgrid(*(torch.arange(float(n)) for n in labels.shape), indexing="ij")
    a, b = reversed(centre) if swapped else centre
    near = (torch.maximum((x - a).abs(), (y - b).abs()) if square else torch.hypot(x - a, y - b)) <= radius
    own = labels > 0 if any_thing else labels == number
    kept = own if whole else near if disc else own & near
    mask = kept.float().expand(len(flow), 1, -1, -1)
    return flow * mask, mask


def kept(**how):
    return lambda *given: part(*given, **how)


def overwriting(flow, *given):
    _, mask = part(flow, *given)
    flow *= mask
    return flow, mask


def two_drags(starts, ends, points, change=lambda turn: turn, places=False):
    (z, w), at = (torch.complex(*pair.T) for pair in (starts, ends)), torch.complex(*points.T)
    turn = change((w[1] - w[0]) / (z[1] - z[0]))
    there = w.mean() + turn * (at - z.mean()) - (0 if places else at)
    return torch.stack([there.real, there.imag], 1)


def turning(change):
    return lambda *given: two_drags(*given, change=change)


def rocket(photo, box=(308, 128, 335, 386)):
    mask = np.zeros(tuple(photo.shape[:2]), bool)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = True
    return mask


FOOT, TIP = (320.0, 384.0), (320.0, 140.0)
TILT = [[FOOT, FOOT], [TIP, (403.0, 155.0)]]

RIGHT = {
    nb04.drag_field: drag_field,
    nb04.for_the_encoder: for_the_encoder,
    nb04.zero_convolution: zero,
    nb04.gradients: gradients,
    nb04.part_of_thing: part,
    nb04.two_drags: two_drags,
    nb04.control_guidance: lambda e, t, b, s, c: e + s * (b - e) + (c - 1) * (b - t),
    nb04.tilted_rocket: lambda photo: (rocket(photo), TILT),
}
WRONG = {
    nb04.drag_field: {
        "places": (faulty(way="places"), "These are places"),
        "frame 0": (faulty(with_first=True), "frame 0 is no future frame"),
        "steps": (faulty(way="steps"), "steps from frame to frame"),
        "straight": (faulty(straight=True), "leaves out the point between"),
        "moving square": (faulty(moves=True), "square moves along"),
        "swapped": (faulty(swapped=True), "changed places"),
        "components": (faulty(components=True), "components are exchanged"),
        "closed square": (faulty(more=1), "one pixel too large"),
        "wraps": (faulty(wraps=True), "At the border"),
        "everywhere": (faulty(everywhere=True), "not zero outside"),
    },
    nb04.for_the_encoder: {
        "zero": (unit(lambda flow, mask: to_unit(flow) * mask), "unknown became 0"),
        "no mask": (unit(lambda flow, mask: to_unit(flow)), "mask has no effect"),
        "pixels": (unit(lambda flow, mask: flow * mask), "These are pixels"),
        "not back": (unit(lambda flow, mask: (to_unit(flow) - 0.5) * mask), "add what you took away"),
        "mean": (small(lambda mask: adaptive_avg_pool2d(mask, (2, 4))), "averaged"),
        "any": (small(lambda mask: adaptive_max_pool2d(mask, (2, 4))), "if anything in it is"),
        "middle": (small(lambda mask: mask[..., 4::8, 4::8]), "in the middle"),
    },
    nb04.zero_convolution: {
        "random": (lambda channels: nn.Conv2d(channels, channels, 1), "weights are not zero"),
        "bias": (lambda channels: zero(channels, bias=1.0), "bias is not zero"),
        "frozen": (lambda channels: zero(channels, grad=False), "frozen"),
        "three": (lambda channels: zero(channels, kernel=3), "1x1"),
    },
    nb04.gradients: {
        "transposed": (by_weight(lambda right, weight: right.T), "transposed"),
        "mean": (by_weight(lambda right, weight: right / 40), "mean over items and places"),
        "mean of items": (by_weight(lambda right, weight: right / 2), "mean over the items of the batch"),
        "times weight": (by_weight(lambda right, weight: right * weight), "multiplied by the weight"),
        "forward": (lambda w, f, e: (*gradients(w, f, e)[:2], torch.einsum("oc,bchw->bohw", w, e)), "wrong way round"),
        "bias": (lambda w, f, e: (gradients(w, f, e)[0], e.mean((0, 2, 3)), f), "bias's gradient is the sum"),
    },
    nb04.part_of_thing: {
        "whole": (kept(whole=True), "whole thing"),
        "disc": (kept(disc=True), "labels == number"),
        "square": (kept(square=True), "keeps a square"),
        "swapped": (kept(swapped=True), "changed places"),
        "every thing": (kept(any_thing=True), "every thing in the circle"),
        "dense": (lambda flow, *given: (flow, part(flow, *given)[1]), "must be zero"),
        "overwrites": (overwriting, "has changed"),
    },
    nb04.two_drags: {
        "places": (lambda *given: two_drags(*given, places=True), "These are places"),
        "shift": (turning(lambda turn: torch.tensor(1 + 0j)), "only shifts"),
        "other way": (turning(torch.conj), "other way round"),
        "no turn": (turning(lambda turn: turn.abs() + 0j), "does not turn"),
        "no size": (turning(lambda turn: turn / turn.abs()), "does not grow"),
    },
    nb04.control_guidance: {
        "text only": (lambda e, t, b, s, c: e + s * (b - e), "no effect"),
        "one too far": (lambda e, t, b, s, c: e + s * (b - e) + c * (b - t), "not two"),
        "reversed": (lambda e, t, b, s, c: e + s * (b - e) + (c - 1) * (t - b), "reversed"),
        "multiplied": (lambda e, t, b, s, c: e + s * c * (b - e), "multiplied"),
    },
    nb04.tilted_rocket: {
        "everything": (lambda photo: (np.ones(tuple(photo.shape[:2]), bool), TILT), "lies where the rocket is"),
        "a part": (lambda photo: (rocket(photo, (308, 230, 335, 330)), TILT), "the rocket is taller"),
        "one drag": (lambda photo: (rocket(photo), TILT[1:]), "only shift a thing"),
        "parallel": (lambda photo: (rocket(photo), [[FOOT, (330.0, 384.0)], [TIP, (330.0, 140.0)]]), "turns by 0.0"),
        "grows": (lambda photo: (rocket(photo), [[FOOT, FOOT], [TIP, (380.0, 60.0)]]), "times as large"),
        "slides": (
            lambda photo: (rocket(photo), [[FOOT, (240.0, 371.0)], [TIP, TIP]]),
            "foot slides",
        ),
    },
}


test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)
