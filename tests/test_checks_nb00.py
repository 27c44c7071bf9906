"""Every check passes the solution and says what is wrong with plausible wrong answers, each in its own words."""

import torch
from grading import grading_tests
from mi2v_checks import nb00


def place(flow, x, y, frame):
    u, v = flow[0, frame - 1, :, y, x].tolist() if frame else (0.0, 0.0)
    return x + u, y + v


def five(height, width, frames):
    h, w = height // 8, width // 8
    return [(16, h, w), (28, frames - 1, h, w), (frames - 1, 2, height, width), (16, frames, h, w),
            (frames, 3, height, width)]  # fmt: skip


def changed(number, shape):
    return lambda height, width, frames: [
        shape(height, width, frames) if k == number else own for k, own in enumerate(five(height, width, frames))
    ]


def grows(count, height, width):
    field = torch.zeros(count, 2, height, width)
    field[:, 1, :, width // 3 :] = torch.linspace(0, -12, count + 1)[1:].view(-1, 1, 1)  # all but the left third rises
    return field


def places(count, height, width):
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([x, y]) + grows(count, height, width)


def overwrites(flow, region):
    flow[..., ~region] = 0
    return flow


RIGHT = {
    nb00.place_in_frame: place,
    nb00.shapes: five,
    nb00.mean_motion: lambda flow: flow[-1].norm(dim=0).mean(),
    nb00.still_outside: lambda flow, region: flow * region,
    nb00.my_motion: grows,
}
WRONG = {
    nb00.place_in_frame: {
        "displacement": (lambda flow, x, y, frame: flow[0, frame - 1, :, y, x], "This is the displacement"),
        "next frame": (lambda flow, x, y, frame: torch.tensor([x, y]) + flow[0, frame, :, y, x], "next frame"),
        "rows for columns": (
            lambda flow, x, y, frame: torch.tensor([x, y]) + flow[0, frame - 1, :, x, y],
            "exchanged where",
        ),
        "components": (
            lambda flow, x, y, frame: torch.tensor([x, y]) + flow[0, frame - 1, :, y, x].flip(0),
            "components are",
        ),
        "moves the photo": (lambda flow, x, y, frame: torch.tensor([x, y]) + flow[0, frame - 1, :, y, x], "Frame 0 is"),
    },
    nb00.shapes: {
        "large latents": (changed(0, lambda h, w, f: (16, h, w)), "smaller than pictures"),
        "exchanged": (changed(0, lambda h, w, f: (16, w // 8, h // 8)), "Height and width are exchanged"),
        "no photo": (changed(1, lambda h, w, f: (12, f - 1, h // 8, w // 8)), "Stage 1 reads the photo too"),
        "a field too many": (changed(2, lambda h, w, f: (f, 2, h, w)), "one field less"),
        "a frame too few": (changed(3, lambda h, w, f: (16, f - 1, h // 8, w // 8)), "Stage 2 makes all frames"),
        "one size only": (lambda h, w, f: five(96, 160, 12), "right for one size"),
    },
    nb00.mean_motion: {
        "all frames": (lambda flow: flow.norm(dim=1).mean(), "mean over all frames"),
        "components": (lambda flow: flow[-1].mean(), "components"),
        "squares": (lambda flow: flow[-1].square().sum(0).mean(), "root is missing"),
    },
    nb00.still_outside: {
        "exchanged": (lambda flow, region: flow * ~region, "exchanged"),
        "cut out": (lambda flow, region: flow[..., 1:4, 2:5], "keep the shape"),
        "overwrites": (overwrites, "passed in has changed"),
        "lets all move": (lambda flow, region: flow.clone(), "outside the region is not zero"),
    },
    nb00.my_motion: {
        "places": (places, "These are places"),
        "a pan": (lambda n, h, w: torch.linspace(1, 12, n).view(n, 1, 1, 1).expand(n, 2, h, w), "that is a pan"),
        "a jump": (lambda n, h, w: grows(n, h, w)[-1:].expand(n, 2, h, w), "jumps by"),
        "nothing moves": (lambda n, h, w: torch.zeros(n, 2, h, w), "4 px or more"),
        "photo and fields": (lambda n, h, w: grows(n + 1, h, w), "Expected"),
        "all leaves": (lambda n, h, w: 60 * grows(n, h, w), "half of the photo leaves"),
    },
}


test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)
