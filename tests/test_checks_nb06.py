"""Every check passes the solution and says what is wrong with plausible wrong answers, each in its own words."""

import math

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


def synced(size, gpus, nodes, inside, between, there=2, share=None, count=lambda n: (n - 1) / n):
    within = there * count(gpus) * size / inside
    return within + there * count(nodes) * size / (share or gpus) / between


def stops(losses, patience, least, noticed=True):
    for i in range(patience, len(losses)):
        before, last = min(losses[: i - patience + 1]), min(losses[i - patience + 1 : i + 1])
        if before - last < least:
            return i if noticed else losses.index(min(losses[: i + 1]))
    return len(losses) - 1


def first_rise(losses, patience, least):
    return next((i for i in range(1, len(losses)) if losses[i] > losses[i - 1]), len(losses) - 1)


PLAN = {
    "gpus": 8,
    "batch": 4,
    "accumulation": 1,
    "updates": 187_500,
    "learning_rate": 1.5e-5,
    "checkpoint_minutes": 600,
}


def plan(**changes):
    return lambda: PLAN | changes


RIGHT = {
    nb06.group_sizes: grouped(math.prod),
    nb06.training_bytes: lambda frozen, trained: 4 * (frozen + 5 * trained),
    nb06.sync_seconds: synced,
    nb06.when_to_stop: stops,
    nb06.checkpoint_interval: young,
    nb06.training_plan: plan(),
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
    nb06.sync_seconds: {
        "the wire in one machine": (lambda s, g, m, i, b: 2 * (g * m - 1) / (g * m) * s / b, "one machine nothing"),
        "all bytes leave": (lambda s, g, m, i, b: synced(s, g, m, i, b, share=1), "only this eighth"),
        "once": (lambda s, g, m, i, b: synced(s, g, m, i, b, there=1 + (m == 1)), "hand the sum back"),
        "no machines": (lambda s, g, m, i, b: synced(s, g, 1, i, b), "one after the other"),
        "grows": (lambda s, g, m, i, b: synced(s, g, m, i, b, count=lambda n: n - 1), "2 x 7/8"),
    },
    nb06.when_to_stop: {
        "one rise": (first_rise, "One rise is noise"),
        "the lowest": (lambda losses, patience, least: losses.index(min(losses)), "only known afterwards"),
        "the best so far": (lambda *given: stops(*given, noticed=False), "where the rule notices"),
        "no least": (lambda losses, patience, least: stops(losses, patience, 1e-9), "`least` is forgotten"),
        "always the last": (lambda losses, patience, least: len(losses) - 2, "At number 6"),
    },
    nb06.checkpoint_interval: {
        "one GPU": (lambda write, days, gpus: young(write, days, 1), "for one GPU"),
        "days": (lambda write, days, gpus: young(write, days / 86_400, gpus), "86,400"),
        "no 2": (lambda write, days, gpus: young(write / 2, days, gpus), "The 2 is missing"),
        "no root": (lambda write, days, gpus: young(write, days, gpus) ** 2, "root is missing"),
        "times GPUs": (lambda write, days, gpus: young(write, days, 1 / gpus), "divide by their number"),
    },
    nb06.training_plan: {
        "empty": (dict, "says nothing"),
        "memory": (plan(batch=8, gpus=4), "do not fit"),
        "too few clips": (plan(updates=100_000), "are asked for"),
        "one huge batch": (plan(gpus=256, updates=6000), "wastes clips"),
        "rate of another batch": (plan(learning_rate=3e-5), "is that of a batch of 128"),
        "linear": (plan(learning_rate=7.5e-6), "rule of plain SGD"),
        "too dear": (plan(updates=400_000), "the clips cost"),
        "too long": (plan(gpus=2, accumulation=4), "more GPUs"),
        "checkpoints": (plan(checkpoint_minutes=5), "Young's rule"),
    },
}


test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)
