"""Splatting and backward warping: the properties they must have, and the released code's values."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mi2v_lite.flow import SplatOperator, backward_warp, splat_average, splat_softmax

quick = settings(deadline=None, max_examples=20)
seeds = st.integers(0, 2**31)
sides = st.integers(1, 9)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def case(seed, batch=2, channels=3, height=6, width=7, frames=None, scale=3.0):
    """Features and a flow that collides, leaves holes, leaves the frame, and is not finite here and there."""
    g = rng(seed)
    features = torch.randn(batch, channels, height, width, generator=g)
    shape = (batch, 2, height, width) if frames is None else (batch, frames, 2, height, width)
    flow = torch.randn(shape, generator=g) * scale
    odd = torch.rand(shape, generator=g)
    flow[odd < 0.03] = torch.nan
    flow[odd > 0.98] = torch.inf
    flow[(odd > 0.5) & (odd < 0.52)] = -1e30
    return features, flow


def constant(x, y, height, width, batch=1):
    return torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(batch, 2, height, width).clone()


def shifted(image, x, y):
    """The integer shift, written with slices; what comes in from outside is 0."""
    height, width = image.shape[-2:]
    out = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if 0 <= row - y < height and 0 <= column - x < width:
                out[..., row, column] = image[..., row - y, column - x]
    return out


@quick
@given(seeds, sides, sides)
def test_zero_flow_is_the_identity(seed, height, width):
    features = torch.randn(2, 3, height, width, generator=rng(seed))
    flow = torch.zeros(2, 2, height, width)
    for out, weight in (splat_average(features, flow), splat_softmax(features, flow, features[:, :1])):
        torch.testing.assert_close(out, features, rtol=1e-6, atol=0)
        assert torch.equal(weight, torch.ones_like(weight))
    out, valid = backward_warp(features, flow)
    assert torch.equal(out, features) and valid.all()


@quick
@given(seeds, st.integers(-4, 4), st.integers(-4, 4))
def test_integer_shifts_are_exact(seed, x, y):
    features = torch.randn(1, 2, 5, 6, generator=rng(seed))
    flow = constant(x, y, 5, 6)
    expected, reached = shifted(features, x, y), shifted(torch.ones(1, 1, 5, 6), x, y)
    out, weight = splat_average(features, flow, eps=0.0)
    assert torch.equal(torch.where(weight > 0, out, 0), expected) and torch.equal(weight, reached)
    out, weight = splat_average(features, flow)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=0)
    operator = SplatOperator(flow[:, None])
    torch.testing.assert_close(operator(features)[:, 0], expected, rtol=1e-6, atol=0)
    assert torch.equal(operator.valid[:, 0], reached > 0)
    back, valid = backward_warp(features, -flow)
    assert torch.equal(valid, reached > 0) and torch.equal(torch.where(valid, back, 0), expected)


@quick
@given(seeds, st.floats(-5, 5), st.floats(-5, 5))
def test_linear_in_the_features(seed, a, b):
    first, flow = case(seed)
    second = torch.randn(first.shape, generator=rng(seed + 1))
    operator = SplatOperator(flow[:, None])
    for warp in (
        lambda v: splat_average(v, flow)[0],
        operator,
        lambda v: splat_softmax(v, flow, flow.new_ones(2, 1, 6, 7))[0],
    ):
        torch.testing.assert_close(
            warp(a * first + b * second), a * warp(first) + b * warp(second), rtol=1e-4, atol=1e-4
        )


@quick
@given(seeds)
def test_mass_of_the_weights(seed):
    """What lands in the frame adds up to the number of pixels, and the weighted values to the sum of all values."""
    g = rng(seed)
    features = torch.randn(1, 2, 6, 7, generator=g).double()
    target = torch.rand(1, 2, 6, 7, generator=g).double() * torch.tensor([6.0, 5.0]).view(1, 2, 1, 1)
    grid = torch.stack(torch.meshgrid(torch.arange(7), torch.arange(6), indexing="xy"))
    out, weight = splat_average(features, target - grid, eps=0.0)
    torch.testing.assert_close(weight.sum(), torch.tensor(42.0).double())
    total = torch.where(weight > 0, out * weight, 0).sum(dim=(-2, -1))
    torch.testing.assert_close(total, features.sum(dim=(-2, -1)))


# Equation: splatting
@quick
@given(seeds, sides, sides, st.integers(1, 3), st.sampled_from([0.3, 3.0, 20.0]))
def test_sparse_equals_scatter(seed, height, width, frames, scale):
    features, flow = case(seed, height=height, width=width, frames=frames, scale=scale)
    operator = SplatOperator(flow)
    out = operator(features)
    assert operator.shape == (2, frames, height, width) and out.shape == (2, frames, 3, height, width)
    for frame in range(frames):
        expected, weight = splat_average(features, flow[:, frame])
        torch.testing.assert_close(out[:, frame], expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(operator.valid[:, frame], weight > 0)
        assert (out[:, frame][~operator.valid[:, frame].expand_as(expected)] == 0).all()
        assert (expected[(weight == 0).expand_as(expected)] == 0).all()


@quick
@given(seeds, st.integers(0, 2))
def test_items_of_a_batch_never_mix(seed, changed):
    features, flow = case(seed, batch=3, frames=2)
    operator, before = SplatOperator(flow), None
    before = operator(features)
    for item in range(3):  # a batch equals its items alone
        torch.testing.assert_close(SplatOperator(flow[item, None])(features[item, None])[0], before[item])
    others = [item for item in range(3) if item != changed]
    features[changed], flow[changed] = torch.nan, 1.5
    assert torch.equal(operator(features)[others], before[others])
    clean = torch.nan_to_num(features)
    assert torch.equal(SplatOperator(flow)(clean)[others], before[others])
    scattered = splat_average(clean, flow[:, 0])[0]
    torch.testing.assert_close(scattered[others], before[others, 0], rtol=1e-5, atol=1e-5)


def smooth_case(seed):
    """Targets between pixels, so that finite differences do not step over a kink; some outside, float64."""
    g = rng(seed)
    grid = torch.stack(torch.meshgrid(torch.arange(5), torch.arange(4), indexing="xy"))
    whole = torch.stack(
        [torch.randint(-2, 6, (1, 4, 5), generator=g), torch.randint(-2, 5, (1, 4, 5), generator=g)], dim=1
    )
    flow = (whole - grid + torch.rand(1, 2, 4, 5, generator=g) * 0.8 + 0.1).double()
    return torch.randn(1, 2, 4, 5, generator=g).double().requires_grad_(), flow.requires_grad_()


@settings(deadline=None, max_examples=3)
@given(seeds)
def test_gradients_of_the_scatter_against_finite_differences(seed):
    features, flow = smooth_case(seed)
    assert torch.autograd.gradcheck(splat_average, (features, flow))
    importance = torch.randn(1, 1, 4, 5, generator=rng(seed)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda f, w, z: splat_softmax(f, w, z)[0], (features, flow, importance), atol=1e-4)
    assert torch.autograd.gradcheck(lambda f, w: backward_warp(f, w)[0], (features, flow))


def test_gradients_stay_finite_beside_dropped_pixels():
    features, flow = case(3)
    features.requires_grad_(), flow.requires_grad_()
    out, _ = splat_softmax(features, flow, torch.randn(2, 1, 6, 7, generator=rng(1)) * 50)
    (out + splat_average(features, flow)[0]).square().sum().backward()
    assert features.grad.isfinite().all() and flow.grad.isfinite().all()
    assert flow.grad.abs().sum() > 0


@quick
@given(seeds)
def test_sparse_gradient_equals_the_scatters(seed):
    features, flow = case(seed, frames=2)
    gradient = torch.randn(2, 2, 3, 6, 7, generator=rng(seed + 1))
    first, second = features.clone().requires_grad_(), features.clone().requires_grad_()
    SplatOperator(flow)(first).backward(gradient)
    torch.stack([splat_average(second, flow[:, i])[0] for i in range(2)], dim=1).backward(gradient)
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-5, atol=1e-5)


def test_float32_inside_autocast_and_for_half_features():
    features, flow = case(5, frames=2)
    features = features.contiguous(memory_format=torch.channels_last)
    operator = SplatOperator(flow)
    exact = operator(features)
    leaf = features.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(operator(features), exact)
        torch.testing.assert_close(SplatOperator(flow)(features), exact)
        torch.testing.assert_close(splat_average(features, flow[:, 0])[0], exact[:, 0], rtol=1e-5, atol=1e-5)
        operator(leaf).sum().backward()
    plain = features.clone().requires_grad_()
    operator(plain).sum().backward()
    assert torch.equal(leaf.grad, plain.grad)
    half = features.bfloat16()
    out = operator(half)
    assert out.dtype == torch.bfloat16 and torch.equal(out, operator(half.float()).bfloat16())
    rough = flow.bfloat16()
    assert torch.equal(SplatOperator(rough)(features), SplatOperator(rough.float())(features))


def test_a_wrong_size_or_batch_is_refused():
    features, flow = case(1, frames=2)
    operator = SplatOperator(flow)
    with pytest.raises(ValueError, match=r"\(2, C, 6, 7\)"):
        operator(torch.cat([features, features]))
    with pytest.raises(ValueError, match=r"\(2, C, 6, 7\)"):
        operator(features[..., :-1])
    with pytest.raises(ValueError, match=r"\(B, N, 2, H, W\)"):
        SplatOperator(flow[:, 0])
    with pytest.raises(ValueError, match="resize"):
        splat_average(features, flow[:, 0, :, :-1])
    with pytest.raises(ValueError, match="importance"):
        splat_softmax(features, flow[:, 0], features)
    with pytest.raises(ValueError, match="on meta"):
        operator(features.to("meta"))
    assert operator.to("cpu") is operator


@quick
@given(seeds, st.floats(-1000, 1000))
def test_softmax_of_equal_importance_is_the_average(seed, level):
    features, flow = case(seed)
    expected, expected_weight = splat_average(features, flow)
    out, weight = splat_softmax(features, flow, torch.full((2, 1, 6, 7), level))
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weight, expected_weight)


def test_softmax_lets_the_important_pixel_win_and_keeps_the_rest():
    """Two pixels collide; far away an unimportant one lands alone, and must not vanish."""
    features = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    flow = torch.zeros(1, 2, 1, 4)
    flow[0, 0, 0, 0] = 1.0
    importance = torch.tensor([500.0, 0.0, -500.0, 0.0]).view(1, 1, 1, 4)
    out, weight = splat_softmax(features, flow, importance)
    torch.testing.assert_close(out.flatten(), torch.tensor([0.0, 1.0, 3.0, 4.0]))
    assert weight.flatten().tolist() == [0.0, 1.0, 1.0, 1.0]
    # Equal odds of log 3: three to one.
    importance[0, 0, 0, 0] = torch.log(torch.tensor(3.0))
    assert splat_softmax(features, flow, importance)[0][0, 0, 0, 1] == pytest.approx(1.25, abs=1e-5)


def test_softmax_has_the_gradient_of_the_winner_too():
    """out = (w1 v1 + w2 v2) / (w1 + w2), w = exp(importance): d out / d importance1 = w1 w2 (v1 - v2) / (w1 + w2)^2."""
    features, flow = torch.tensor([1.0, 2.0]).double().view(1, 1, 1, 2), torch.zeros(1, 2, 1, 2).double()
    flow[0, 0, 0, 0] = 1.0  # both land on the second pixel
    importance = torch.tensor([3.0, 0.0]).double().log1p().view(1, 1, 1, 2).requires_grad_()  # w1 = 4, w2 = 1
    out, weight = splat_softmax(features, flow, importance)
    assert float(weight[0, 0, 0, 1].detach()) == pytest.approx(1.25)  # relative to the winner
    (gradient,) = torch.autograd.grad(out[..., 1].sum(), importance)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([-4 / 25, 4 / 25]).double(), atol=1e-6, rtol=0)
    # The weight of the winner is exp(importance - a constant), so its own gradient is 1 and not 0.
    (gradient,) = torch.autograd.grad(splat_softmax(features, flow, importance)[1][..., 1].sum(), importance)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([1.0, 0.25]).double())


def test_corners_are_dropped_one_by_one():
    """A target at (W - 0.5, 0): the west corner stays, half weight, and the average is the value itself."""
    features, flow = torch.full((1, 1, 1, 4), 5.0), torch.full((1, 2, 1, 4), 100.0)
    flow[0, :, 0, 0] = torch.tensor([3.5, 0.0])
    out, weight = splat_average(features, flow)
    torch.testing.assert_close(out.flatten(), torch.tensor([0.0, 0.0, 0.0, 5.0]), rtol=1e-6, atol=0)
    assert weight.flatten().tolist() == [0.0, 0.0, 0.0, 0.5]


# Equation: backward-warp
def test_backward_warp_undoes_a_shift_and_says_where_it_cannot():
    image = torch.arange(5.0).view(1, 1, 1, 5)
    flow = torch.zeros(1, 2, 1, 5)
    flow[0, 0] = 1.5
    flow[0, 0, 0, 1] = torch.nan
    out, valid = backward_warp(image, flow)
    assert out.flatten().tolist() == [1.5, 1.0, 3.5, 4.0, 4.0]
    assert valid.flatten().tolist() == [True, False, True, False, False]


def test_values_of_the_released_code(golden_dir):
    tensors = load_file(golden_dir / "softsplat_avg.safetensors")
    cases = json.loads((golden_dir / "softsplat_avg.json").read_text())["cases"]
    assert cases
    for name in cases:
        features, flow = tensors[f"{name}.input"], tensors[f"{name}.flow"].clone()
        code = tensors.get(f"{name}.flow_nonfinite_code", torch.zeros_like(flow))
        for number, value in enumerate((torch.nan, torch.inf, -torch.inf), start=1):
            flow[code == number] = value
        for out in (splat_average(features, flow)[0], SplatOperator(flow[:, None])(features)[:, 0]):
            torch.testing.assert_close(
                out, tensors[f"{name}.output"], rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )
