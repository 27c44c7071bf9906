"""Every check passes the solution and says what is wrong with plausible wrong answers, each in its own words."""

from grading import grading_tests
from mi2v_checks import nb00

RIGHT = {
    nb00.source_frames: lambda stride, frames: [stride * i for i in range(1, frames)],
    nb00.mean_motion: lambda flow: flow[-1].norm(dim=0).mean(),
    nb00.still_outside: lambda flow, region: flow * region,
}


def overwrites(flow, region):
    flow[..., ~region] = 0
    return flow


WRONG = {
    nb00.source_frames: {
        "counts the photo": (lambda stride, frames: [stride * i for i in range(frames)], "16 entries"),
        "starts at 0": (lambda stride, frames: [stride * i for i in range(frames - 1)], "first entry is 0"),
        "forgets the stride": (lambda stride, frames: list(range(1, frames)), "counts frames of the clip"),
        "one case only": (lambda stride, frames: [8 * i for i in range(1, 16)], "but not for 2 and 4"),
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
}


test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)
