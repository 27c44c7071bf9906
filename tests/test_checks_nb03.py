"""Every check passes the solution and says what is wrong with plausible wrong answers, each in its own words."""

import torch
import torch.nn.functional as F
from grading import grading_tests
from mi2v_checks import nb03

from mi2v_lite.flow.fields import resize


def interleaved(z, warped):
    return torch.cat([z[:1], torch.stack([warped, z[1:]], 1).flatten(0, 1)])


def shrink(flow, h, w):
    return F.interpolate(flow, (h, w), mode="bilinear")


def clean(latents, photo, t, time=1):
    sample = latents.clone()
    sample[:, :, 0] = photo
    times = torch.full((len(latents), latents.shape[2]), t)
    times[:, 0] = time
    return sample, times


def overwrite(latents, photo, t):
    latents[:, :, 0] = photo
    return latents, clean(latents, photo, t)[1]


RIGHT = {
    nb03.interleave: interleaved,
    nb03.query_positions: lambda frames: [2 * i for i in range(frames)],
    nb03.feature_flow: lambda flow, h, w: resize(flow, (h, w)),
    nb03.warped_share: lambda weights: weights[:, 1::2].sum(1),
    nb03.keep_first_clean: clean,
}
WRONG = {
    nb03.interleave: {
        "end to end": (lambda z, warped: torch.cat([z, warped]), "end to end"),
        "after": (
            lambda z, warped: torch.cat([z[:1], torch.stack([z[1:], warped], 1).flatten(0, 1)]),
            "other way round",
        ),
        "partner for z0": (lambda z, warped: torch.cat([z, z[:1], warped]), "no warped partner"),
    },
    nb03.query_positions: {
        "frames": (lambda frames: list(range(frames)), "frames' numbers"),
        "warped": (lambda frames: list(range(1, 2 * frames - 1, 2)), "places of the warped"),
        "one case": (lambda frames: [0, 2, 4, 6], "last of 16"),
    },
    nb03.feature_flow: {
        "not scaled": (shrink, "as long as before"),
        "one factor": (lambda flow, h, w: shrink(flow, h, w) / 8, "divided by one factor"),
        "multiplied": (
            lambda flow, h, w: shrink(flow, h, w) * torch.tensor([8.0, 4.0]).view(1, 2, 1, 1),
            "do not multiply",
        ),
    },
    nb03.warped_share: {
        "own": (lambda weights: weights[:, ::2].sum(1), "even places"),
        "mean": (lambda weights: weights[:, 1::2].mean(1), "mean weight"),
        "one number": (lambda weights: weights[:, 1::2].sum(), "One number a frame"),
    },
    nb03.keep_first_clean: {
        "noisy": (lambda latents, photo, t: (latents.clone(), clean(latents, photo, t)[1]), "not the photo's latent"),
        "time": (lambda latents, photo, t: clean(latents, photo, t, time=t), "its time is 1"),
        "overwrites": (overwrite, "Clone first"),
        "all frames": (
            lambda latents, photo, t: (photo[:, :, None].expand_as(latents), clean(latents, photo, t)[1]),
            "must stay noisy",
        ),
    },
}


test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)
