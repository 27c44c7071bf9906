"""The flow convention: units, sizes, composition, inversion, reading at points."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mi2v_lite.flow import compose, denormalise, from_unit, invert, normalise, resize, sample, to_unit

quick = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)
sides = st.integers(1, 12)


def random_flow(seed, *lead, height=6, width=10, scale=3.0):
    return torch.randn(*lead, 2, height, width, generator=torch.Generator().manual_seed(seed)) * scale


def wave(height=24, width=32, size=1.5):
    """A smooth flow whose map is one to one."""
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    return size * torch.stack([torch.sin(y / 6 + 0.3) + 0.2 * torch.cos(x / 7), torch.cos(x / 6 - 0.4)])


def constant(x, y, height, width):
    return torch.tensor([float(x), float(y)]).view(2, 1, 1).expand(2, height, width).clone()


# Equation: unit-flow
def test_units_of_a_known_displacement():
    flow = constant(8, -3, 6, 16)
    assert torch.equal(normalise(flow), constant(0.5, -0.5, 6, 16))
    assert torch.equal(to_unit(flow), constant(0.75, 0.25, 6, 16))
    assert torch.equal(to_unit(torch.zeros(2, 6, 16)), torch.full((2, 6, 16), 0.5))


@quick
@given(seeds, sides, sides)
def test_units_round_trip(seed, height, width):
    flow = random_flow(seed, 2, 3, height=height, width=width)
    torch.testing.assert_close(denormalise(normalise(flow)), flow)
    inside = denormalise(normalise(flow).clamp(-1, 1))
    torch.testing.assert_close(from_unit(to_unit(flow)), inside, rtol=1e-5, atol=1e-5)


def test_from_unit_clamps_to_one_side():
    unit = constant(1.7, -0.4, 6, 16)
    assert torch.equal(from_unit(unit), constant(16, -6, 6, 16))


@quick
@given(seeds, sides, sides, st.floats(-8, 8))
def test_resize_commutes_with_scaling(seed, h, w, factor):
    flow = random_flow(seed, 2)
    torch.testing.assert_close(resize(factor * flow, (h, w)), factor * resize(flow, (h, w)), rtol=1e-4, atol=1e-4)
    # In fractions of the sides, resizing is interpolation and nothing else.
    plain = F.interpolate(normalise(flow), size=(h, w), mode="bilinear", align_corners=False)
    torch.testing.assert_close(normalise(resize(flow, (h, w))), plain)


# Equation: feature-flow
@quick
@given(st.floats(-5, 5), st.floats(-5, 5), sides, sides)
def test_resize_of_a_constant_scales_each_axis_by_its_own_side(x, y, h, w):
    out = resize(constant(x, y, 6, 10), (h, w))
    torch.testing.assert_close(out, constant(x * w / 10, y * h / 6, h, w))


def test_resize_keeps_leading_dimensions_and_size():
    flow = random_flow(0, 2, 3)
    assert resize(flow, (3, 5)).shape == (2, 3, 2, 3, 5)
    assert torch.equal(resize(flow, (6, 10)), flow)
    torch.testing.assert_close(resize(flow, (3, 5))[1, 2], resize(flow[1, 2], (3, 5)))
    # No antialias: half the size is the mean of 2 x 2 pixels, a quarter that of the inner 2 x 2 of each 4 x 4.
    field = torch.arange(16.0).view(1, 4, 4).repeat(2, 1, 1)
    torch.testing.assert_close(resize(field, (1, 1)), torch.full((2, 1, 1), (5 + 6 + 9 + 10) / 4 / 4))


@quick
@given(seeds)
def test_sample_is_exact_at_pixels_and_linear_between(seed):
    field = random_flow(seed, 3)
    points = torch.tensor([[2.0, 3.0], [9.0, 5.0], [2.25, 3.5]]).expand(3, 3, 2)
    read = sample(field, points)
    assert torch.equal(read[:, 0], field[:, :, 3, 2]) and torch.equal(read[:, 1], field[:, :, 5, 9])
    mean = (field[:, :, 3, 2:4] + field[:, :, 4, 2:4]) / 2
    torch.testing.assert_close(read[:, 2], mean[..., 0] * 0.75 + mean[..., 1] * 0.25)


def test_sample_clamps_to_the_border():
    field = random_flow(0)
    read = sample(field, torch.tensor([[-5.0, -1.0], [99.0, 2.0], [torch.inf, 80.0], [torch.nan, 0.0]]))
    assert torch.equal(read[0], field[:, 0, 0]) and torch.equal(read[1], field[:, 2, 9])
    assert torch.equal(read[2], field[:, 5, 9]) and read[3].isnan().all()


@quick
@given(seeds)
def test_compose_with_no_motion_is_the_identity(seed):
    flow, still = random_flow(seed, 2), torch.zeros(2, 2, 6, 10)
    assert torch.equal(compose(flow, still), flow)
    assert torch.equal(compose(still, flow), flow)


# Equation: composition
@quick
@given(seeds, st.integers(-3, 3), st.integers(-3, 3))
def test_compose_reads_the_second_flow_where_the_first_one_lands(seed, x, y):
    second = random_flow(seed)
    out = compose(constant(x, y, 6, 10), second)
    for row, column in ((0, 0), (2, 4), (5, 9)):
        there = second[:, min(max(row + y, 0), 5), min(max(column + x, 0), 9)]
        torch.testing.assert_close(out[:, row, column], there + torch.tensor([float(x), float(y)]))


def test_compose_of_rotations_is_the_rotation_by_the_sum():
    y, x = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(33.0) - 16, indexing="ij")

    def rotation(angle):
        c, s = torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
        return torch.stack([c * x - s * y - x, s * x + c * y - y])

    centre = (x.square() + y.square()) < 15**2
    error = (compose(rotation(0.2), rotation(0.3)) - rotation(0.5))[:, centre]
    assert error.abs().max() < 1e-4


@quick
@given(st.integers(-5, 5), st.integers(-4, 4))
def test_invert_of_a_shift_is_the_shift_back(x, y):
    inverse, valid = invert(constant(x, y, 6, 10))
    torch.testing.assert_close(inverse, constant(-x, -y, 6, 10))
    rows, columns = torch.arange(6)[:, None], torch.arange(10)
    landed = (rows - y >= 0) & (rows - y < 6) & (columns - x >= 0) & (columns - x < 10)
    assert torch.equal(valid[0], landed)


def test_inverse_and_the_inverse_of_the_inverse():
    flow = wave()
    inverse, _ = invert(flow)
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert flow[inner].abs().max() > 1
    assert compose(flow, inverse)[inner].abs().max() < 0.25
    assert compose(flow, inverse)[inner].abs().mean() < 0.06
    again, _ = invert(inverse)
    assert (again - flow)[inner].abs().max() < 0.25
    assert (again - flow)[inner].abs().mean() < 0.06


def test_invert_fills_holes_from_their_neighbours():
    """A zoom leaves holes; filled in, they follow the known vectors around them."""
    y, x = torch.meshgrid(torch.arange(16.0) - 8, torch.arange(16.0) - 8, indexing="ij")
    zoom = torch.stack([x, y])  # twice the size
    inverse, valid = invert(zoom[None])
    assert inverse.shape == (1, 2, 16, 16) and valid.shape == (1, 1, 16, 16)
    assert 0.2 < valid.float().mean() < 0.3
    error = (inverse[0] + zoom / 2)[:, 1:-1, 1:-1]
    assert error.abs().max() < 0.6
    torch.testing.assert_close(inverse[0, :, 8, 9], (inverse[0, :, 8, 8] + inverse[0, :, 8, 10]) / 2)


@quick
@given(seeds)
def test_invert_is_finite_whatever_comes_and_items_do_not_mix(seed):
    flow = random_flow(seed, 3, scale=6.0)
    flow[0] = 1e6  # nothing lands
    flow[1, 0, 2] = torch.nan
    flow[1, 1, 3] = torch.inf
    inverse, valid = invert(flow)
    assert inverse.isfinite().all() and not valid[0].any() and (inverse[0] == 0).all()
    for item in range(3):
        torch.testing.assert_close(inverse[item], invert(flow[item])[0], rtol=1e-5, atol=1e-5)


def test_wrong_shapes_are_refused():
    for function in (normalise, denormalise, to_unit, from_unit, invert):
        with pytest.raises(ValueError, match=r"\(\.\.\., 2, H, W\)"):
            function(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="positive"):
        resize(torch.zeros(2, 4, 4), (0, 4))
    with pytest.raises(ValueError, match="same shape"):
        compose(torch.zeros(2, 4, 4), torch.zeros(2, 4, 5))
    with pytest.raises(ValueError, match="points"):
        sample(torch.zeros(3, 2, 4, 4), torch.zeros(2, 5, 2))
