"""Every check passes the solution and says what is wrong with plausible wrong answers, each in its own words."""

import math

import torch
from grading import grading_tests
from mi2v_checks import nb06


def grouped(size, keep=lambda name: not name.endswith(".pe")):
    def answer(shapes):
        found = {"motion": 0, "spatial": 0}
        for name, shape in shapes.items():
            found["motion" if ".motion_modules." in name else "spatial"] += size(shape) if keep(name) else 0
        return found

    return answer


def young(write, days, gpus):
    return math.sqrt(2 * write * days * 86_400 / gpus)


def weighed(gradients, counts):
    return sum(g * n for g, n in zip(gradients, counts, strict=True)) / sum(counts)


RIGHT = {
    nb06.group_sizes: grouped(math.prod),
    nb06.training_bytes: lambda frozen, trained: 4 * (frozen + 5 * trained),
    nb06.attention_flops: lambda f, h, w, c: 4 * f * (h * w) ** 2 * c,
    nb06.joined_gradient: weighed,
    nb06.checkpoint_interval: young,
}
WRONG = {
    nb06.group_sizes: {
        "tensors": (grouped(lambda shape: 1, keep=lambda name: True), "numbers of tensors"),
        "sides": (grouped(sum), "multiplied, not added"),
        "tables": (grouped(math.prod, keep=lambda name: True), "position table"),
        "names": (lambda shapes: {"all": 3}, "Two groups"),
    },
    nb06.training_bytes: {
        "numbers": (lambda frozen, trained: frozen + 5 * trained, "float32 takes 4 bytes"),
        "all train": (lambda frozen, trained: 20 * (frozen + trained), "Frozen weights have no gradient"),
        "no average": (lambda frozen, trained: 4 * (frozen + 4 * trained), "five times"),
        "one moment": (lambda frozen, trained: 4 * (frozen + 3 * trained), "two moments"),
        "no frozen": (lambda frozen, trained: 20 * trained, "held too"),
    },
    nb06.attention_flops: {
        "video": (lambda f, h, w, c: 4 * (f * h * w) ** 2 * c, "each frame is on its own"),
        "one product": (lambda f, h, w, c: 2 * f * (h * w) ** 2 * c, "two products, queries"),
        "multiplications": (lambda f, h, w, c: f * (h * w) ** 2 * c, "A quarter"),
        "not squared": (lambda f, h, w, c: 4 * f * h * w * c, "squared"),
    },
    nb06.joined_gradient: {
        "sum": (lambda gradients, counts: sum(gradients), "This is the sum"),
        "mean": (lambda gradients, counts: torch.stack(gradients).mean(0), "weigh them"),
        "not divided": (lambda g, n: weighed(g, n) * sum(n), "not divided"),
    },
    nb06.checkpoint_interval: {
        "one GPU": (lambda write, days, gpus: young(write, days, 1), "for one GPU"),
        "days": (lambda write, days, gpus: young(write, days / 86_400, gpus), "86,400"),
        "no 2": (lambda write, days, gpus: young(write / 2, days, gpus), "The 2 is missing"),
        "no root": (lambda write, days, gpus: young(write, days, gpus) ** 2, "root is missing"),
        "times GPUs": (lambda write, days, gpus: young(write, days, 1 / gpus), "divide by their number"),
    },
}


test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)
