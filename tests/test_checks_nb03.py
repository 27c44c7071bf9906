"""Every check passes the solution and says what is wrong with plausible wrong answers, each in its own words."""

import torch
import torch.nn.functional as F
from grading import grading_tests
from mi2v_checks import nb03

from mi2v_lite.flow.fields import resize
from mi2v_lite.flow.warp import backward_warp, splat_average


def attended(query, key, value, heads, scale=None, over=-1):
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return (scores.softmax(over) @ v).transpose(1, 2).flatten(2)


def strided(query, key, value, heads):
    parts = (part.unflatten(-1, (-1, heads)).transpose(-1, -2).flatten(-2) for part in (query, key, value))
    return attended(*parts, heads).unflatten(-1, (heads, -1)).transpose(-1, -2).flatten(-2)


def carried(z, flow):
    return splat_average(z[:1].expand(len(flow), -1, -1, -1), resize(flow, tuple(z.shape[-2:])))[0]


def interleaved(z, warped):
    return torch.cat([z[:1], torch.stack([warped, z[1:]], 1).flatten(0, 1)])


def unscaled(z, flow):
    return splat_average(z[:1].expand(len(flow), -1, -1, -1), F.interpolate(flow, z.shape[-2:], mode="bilinear"))[0]


def pulled(z, flow):
    return backward_warp(z[:1].expand(len(flow), -1, -1, -1), -resize(flow, tuple(z.shape[-2:])))[0]


def output(layer, entries, asks=slice(0, None, 2), hears=slice(None), coded=True, last=True, frames=False):
    x = entries.permute(2, 3, 0, 1).flatten(0, 1)
    code = layer.pos_encoder.pe
    keys = x + code[:, : x.shape[1]] * coded
    query = x[:, asks] + code[:, : x[:, asks].shape[1]] if frames else keys[:, asks]
    keys = keys[:, hears]
    out = attended(layer.to_q(query), layer.to_k(keys), layer.to_v(keys), layer.heads)
    out = layer.to_out[0](out) if last else out
    return out.unflatten(0, tuple(entries.shape[-2:])).permute(2, 3, 0, 1)


def clean(latents, photo, t, time=1):
    sample = latents.clone()
    sample[:, :, 0] = photo
    times = torch.full((len(latents), latents.shape[2]), t)
    times[:, 0] = time
    return sample, times


def overwrite(latents, photo, t):
    latents[:, :, 0] = photo
    return latents, clean(latents, photo, t)[1]


def bar(rows):
    mask = torch.zeros(128, 128, dtype=torch.bool)
    mask[rows] = True
    return mask


def dust():
    mask = torch.zeros(128, 128, dtype=torch.bool)
    mask[::2, ::2] = True
    return mask


RIGHT = {
    nb03.attend: attended,
    nb03.augmented: lambda z, flow: interleaved(z, carried(z, flow)),
    nb03.layer_output: output,
    nb03.warped_share: lambda weights: weights[1:, ..., 1::2].sum(-1).mean((1, 2, 3)),
    nb03.keep_first_clean: clean,
    nb03.unseen_thing: lambda: bar(slice(5, 11)),
}
WRONG = {
    nb03.attend: {
        "no root": (lambda q, k, v, heads: attended(q, k, v, heads, scale=1.0), "root of d is missing"),
        "root of C": (lambda q, k, v, heads: attended(q, k, v, heads, scale=8**-0.5), "root of C"),
        "over queries": (lambda q, k, v, heads: attended(q, k, v, heads, over=-2), "over the queries"),
        "one head": (lambda q, k, v, heads: attended(q, k, v, 1, scale=0.5), "one head"),
        "strided": (strided, "every second channel"),
        "shape": (lambda q, k, v, heads: attended(q, k, v, heads).transpose(1, 2), "one vector for each query"),
    },
    nb03.augmented: {
        "unscaled": (lambda z, flow: interleaved(z, unscaled(z, flow)), "as long as before"),
        "own": (
            lambda z, flow: interleaved(z, splat_average(z[1:], resize(flow, tuple(z.shape[-2:])))[0]),
            "only z0 travels",
        ),
        "pulled": (lambda z, flow: interleaved(z, pulled(z, flow)), "pulled along"),
        "end to end": (lambda z, flow: torch.cat([z, carried(z, flow)]), "end to end"),
        "after": (
            lambda z, flow: torch.cat([z[:1], torch.stack([z[1:], carried(z, flow)], 1).flatten(0, 1)]),
            "other way round",
        ),
        "partner for z0": (lambda z, flow: torch.cat([z, z[:1], carried(z, flow)]), "no carried partner"),
    },
    nb03.layer_output: {
        "all ask": (lambda layer, x: output(layer, x, asks=slice(None)), "Every entry asks"),
        "no code": (lambda layer, x: output(layer, x, coded=False), "position codes are missing"),
        "frames' clock": (lambda layer, x: output(layer, x, frames=True), "queries count frames"),
        "frames alone": (lambda layer, x: output(layer, x, hears=slice(0, None, 2)), "frames alone"),
        "no last map": (lambda layer, x: output(layer, x, last=False), "last linear map"),
        "warped ask": (lambda layer, x: output(layer, x, asks=slice(1, None, 2)), "Expected the shape"),
    },
    nb03.warped_share: {
        "own": (lambda weights: weights[1:, ..., ::2].sum(-1).mean((1, 2, 3)), "even numbers"),
        "mean": (lambda weights: weights[1:, ..., 1::2].mean((1, 2, 3, 4)), "mean weight"),
        "frame 0": (lambda weights: weights[..., 1::2].sum(-1).mean((1, 2, 3)), "includes frame 0"),
        "one number": (lambda weights: weights[1:, ..., 1::2].sum(-1).mean(), "One number for each later frame"),
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
    nb03.unseen_thing: {
        "small": (lambda: bar(slice(5, 6)), "small is no art"),
        "a square": (lambda: bar(slice(40, 60)), "of its motion. Which"),
        "dust": (dust, "pieces"),
        "all": (lambda: bar(slice(None)), "At most half"),
        "nothing": (lambda: bar(slice(0, 0)), "no thing at all"),
    },
}


test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)
