"""The error after decoding, estimated from latents: what channels are worth, where frame 0 shows anything."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mi2v_lite.diffusion import clean_error, predicted_clean
from mi2v_lite.training import decoded_error
from mi2v_lite.training.decoded_error import DecodedError, seen_share
from mi2v_lite.training.draws import Draws
from mi2v_lite.training.objectives import Task, animation
from mi2v_lite.training.schema import AnimationOptions
from mi2v_lite.training.step_models import make_scheduler

NOISE = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


class ThreeShades(nn.Module):
    """An autoencoder of one place: latents 0, 1 and 2 draw all three colours, with the strengths 2, 1 and 0."""

    def __init__(self):
        super().__init__()
        self.strength = nn.Parameter(torch.tensor([2.0, 1.0, 0.0]), requires_grad=False)

    def decode(self, latents):
        return (latents * self.strength[:, None, None]).sum(1, keepdim=True).expand(-1, 3, -1, -1) + 0.1


@pytest.fixture
def shades(monkeypatch):
    monkeypatch.setattr(decoded_error, "decode", lambda vae, latents, batch: vae.decode(latents))
    monkeypatch.setattr(decoded_error, "encode", lambda vae, x, batch: torch.cat([x[:, :1], 0 * x[:, 1:]], 1))
    return ThreeShades()


def test_a_channel_is_worth_what_it_moves_the_picture(shades):
    decoded = DecodedError(shades, torch.full((2, 3, 4, 4), 0.5))
    assert torch.allclose(decoded.channels, torch.tensor([4.0, 1.0, 0.0]), atol=1e-4)
    assert decoded.floor == pytest.approx(0.6**2)  # 2 * 0.5 + 0.1 instead of 0.5
    latents, error = torch.randn(2, 3, 4, 64, 64), torch.randn(2, 3, 4, 64, 64)
    a, b = (shades.decode(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 4)) for x in (latents, latents + error))
    true = 0.6**2 + (b - a).square().mean((1, 2, 3, 4))
    assert torch.allclose(decoded(error.square()), true.log(), atol=0.05)


def test_the_root_is_a_mean_over_places(shades):
    decoded = DecodedError(shades, torch.full((2, 3, 4, 4), 0.1), "root")
    assert decoded.floor == pytest.approx(0.2**2)
    error, weight = torch.zeros(1, 3, 1, 1, 2), torch.tensor([1.0, 3.0]).view(1, 1, 1, 1, 2)
    error[..., 1] = 0.16
    there, unit = (0.04 + 0.16 * 5) ** 0.5, (5 / 3) ** 0.5  # a mean channel's worth is (4 + 1 + 0) / 3
    assert float(decoded(error)) * unit == pytest.approx((0.2 + there) / 2, rel=1e-4)
    assert float(decoded(error, weight)) * unit == pytest.approx((0.2 + 3 * there) / 4, rel=1e-4)
    with pytest.raises(ValueError, match="decoded_error is 'square', expected one of log, root"):
        DecodedError(shades, torch.zeros(1, 3, 4, 4), "square")


def test_what_frame_0_shows_of_each_block():
    flow = torch.zeros(1, 2, 2, 16, 16)
    flow[:, 1, 0] = 4.0  # right by half a block
    share = seen_share(flow, (2, 2))
    assert share.shape == (1, 1, 2, 2, 2)
    assert (share[:, :, 0] == 1).all()
    assert share[0, 0, 1].tolist() == [[0.5, 1.0], [0.5, 1.0]]


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon"])
def test_clean_error_is_how_far_a_wrong_prediction_leads(kind):
    scheduler = make_scheduler({**NOISE, "prediction_type": kind, "rescale_betas_zero_snr": kind != "epsilon"})
    noisy, wrong, timesteps = torch.zeros(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([10, 500, 900])
    clean = predicted_clean(scheduler, wrong, noisy, timesteps)
    assert torch.allclose(clean.square(), wrong.square() * clean_error(scheduler, timesteps)[:, None, None, None])


class NoNoise(Draws):
    """Draws whose noise is zero, all at the timestep that is set."""

    def randn(self, *shape):
        return torch.zeros(len(self.generators), *shape)

    def strata(self):
        return torch.full((len(self.generators),), (self.timestep + 0.5) / 1000)


def loss(error, flow, hole_weight, timestep=999, channels=(4.0, 1.0)):
    """The loss of Stage 2 for clean latents of zero, no noise, and a network that errs by `error` `(B, C, F, h, w)`."""
    decoded = DecodedError.__new__(DecodedError)
    decoded.channels, decoded.floor, decoded.measure = torch.tensor(channels), 0.01, "log"
    step = SimpleNamespace(model="unet", options=AnimationOptions(hole_weight=hole_weight))
    task = Task(step, None, None, make_scheduler(NOISE), {}, decoded)
    models = {
        "unet": lambda sample, timesteps, text, flow: error,
        "image_vae": SimpleNamespace(config=SimpleNamespace(scaling_factor=1.0)),
        "text_encoder": lambda input_ids: SimpleNamespace(last_hidden_state=None),
    }
    batch = {"image_latents": torch.zeros_like(error), "flow": flow, "tokens": None}
    draws = NoNoise.of(0, count=len(error))
    object.__setattr__(draws, "timestep", timestep)
    value, logs = animation(models, batch, draws, task)
    assert float(logs["plain"]) == pytest.approx(float(error[:, :, 1:].square().mean()))
    return float(value.exp())


def test_the_loss_is_the_log_of_the_pictures_error():
    flow = torch.zeros(1, 1, 2, 16, 16)
    error = torch.zeros(1, 2, 2, 2, 2)
    error[:, :, 0] = 9.0  # frame 0 is given
    assert loss(error, flow, 1.0) == pytest.approx(0.01)  # the autoencoder's own
    error[:, 0, 1] = 0.1
    assert loss(error, flow, 1.0) == pytest.approx(0.01 + 4 * 0.1**2, rel=1e-4)
    assert loss(error, flow, 1.0, timestep=0) < 0.0101  # hardly any noise, hardly any error
    both = torch.cat([error, 10 * error])
    product = loss(error, flow, 1.0) * loss(10 * error, flow, 1.0)
    assert loss(both, flow.repeat(2, 1, 1, 1, 1), 1.0) == pytest.approx(product**0.5, rel=1e-4)  # a clip, a vote


def test_errors_in_holes_count_as_told():
    flow = torch.zeros(1, 1, 2, 16, 16)
    flow[:, :, 0] = 8.0  # right by a block: the left half of frame 1 is a hole
    hole, seen = torch.zeros(2, 1, 2, 2, 2, 2)
    hole[..., 0], seen[..., 1] = 0.5, 0.5
    assert loss(hole, flow, 0.0) == pytest.approx(0.01)
    assert loss(seen, flow, 0.0) == pytest.approx(0.01 + 5 * 0.25, rel=1e-4)
    assert loss(hole, flow, 1.0) == pytest.approx(loss(seen, flow, 1.0))
    assert loss(hole, flow, 0.25) == pytest.approx(0.01 + 5 * 0.25 * 0.25 / 1.25, rel=1e-4)
