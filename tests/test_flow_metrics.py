"""The measures, on cases whose answer is known."""

import math

import pytest
import torch

from mi2v_lite.flow.metrics import (
    direction_accuracy,
    endpoint_error,
    followed_share,
    leakage,
    psnr,
    trajectory_error,
)


def constant(x, y, *lead, height=4, width=6):
    return torch.tensor([float(x), float(y)]).view(2, 1, 1).expand(*lead, 2, height, width).clone()


def left_half(*lead, height=4, width=6):
    mask = torch.zeros(*lead, height, width, dtype=torch.bool)
    mask[..., : width // 2] = True
    return mask


def test_endpoint_error_is_a_mean_of_lengths():
    flow = constant(1, 2, 2, 3)
    assert endpoint_error(flow, flow) == 0
    assert endpoint_error(flow + constant(3, 4), flow) == pytest.approx(5)
    moved = flow.clone()
    moved[..., :3] += constant(3, 4)[..., :3]  # half the pixels
    assert endpoint_error(moved, flow) == pytest.approx(2.5)


@pytest.mark.parametrize("shape", ["(H, W)", "(..., H, W)", "(..., 1, H, W)"])
def test_a_mask_selects_what_counts(shape):
    flow = constant(0, 0, 2, 3)
    pred = flow.clone()
    pred[..., :3] = 3.0
    mask = {"(H, W)": left_half(), "(..., H, W)": left_half(2, 3), "(..., 1, H, W)": left_half(2, 3, 1)}[shape]
    true = flow.clone()
    true[..., 3:] = torch.nan  # outside, unknown
    assert endpoint_error(pred, true, mask) == pytest.approx(3 * math.sqrt(2))
    assert endpoint_error(pred, true, mask.float()) == pytest.approx(3 * math.sqrt(2))
    assert leakage(pred, mask) == 0
    assert leakage(pred, ~mask) == pytest.approx(3 * math.sqrt(2))
    assert endpoint_error(pred, true, torch.zeros_like(mask)).isnan()


def test_a_mask_of_another_shape_is_refused():
    flow = constant(0, 0, 2, 3)
    for mask in (left_half(3), left_half(3, 1), left_half(2, 3, 2), torch.ones(6, dtype=torch.bool)):
        with pytest.raises(ValueError, match="mask"):
            endpoint_error(flow, flow, mask)
    with pytest.raises(ValueError, match="same shape"):
        endpoint_error(flow, flow[:1])
    with pytest.raises(ValueError, match=r"2, H, W"):
        endpoint_error(flow[:, :, :1], flow[:, :, :1])


def test_trajectory_error_over_points_and_frames():
    true = torch.zeros(2, 16, 3, 2)
    pred = true.clone()
    pred[..., 0, :] = torch.tensor([6.0, 8.0])  # one point of three is 10 px off
    assert trajectory_error(pred, true) == pytest.approx(10 / 3)
    seen = torch.ones(2, 16, 3, dtype=torch.bool)
    seen[..., 1] = False
    pred[..., 1, :] = torch.nan
    assert trajectory_error(pred, true, seen) == pytest.approx(5)
    with pytest.raises(ValueError, match="mask"):
        trajectory_error(pred, true, seen[..., :2])
    with pytest.raises(ValueError, match="same shape"):
        trajectory_error(pred, true[:, :15])


def test_psnr_of_known_errors():
    a = torch.zeros(2, 3, 4, 6)
    assert psnr(a, a + 0.1) == pytest.approx(20, abs=1e-4)
    assert psnr(a, a + 0.1, max=2) == pytest.approx(20 + 20 * math.log10(2), abs=1e-4)
    assert psnr(a, a) == math.inf
    b = a.clone()
    b[..., :3] += 0.1
    assert psnr(a, b, left_half()) == pytest.approx(20, abs=1e-4)
    assert psnr(a, b, ~left_half(2)) == math.inf
    black, grey = torch.zeros(3, 4, 6, dtype=torch.uint8), torch.full((3, 4, 6), 255, dtype=torch.uint8)
    assert psnr(grey, black) == pytest.approx(0, abs=1e-5) and psnr(black, grey) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="max"):
        psnr(a, a, max=0)


def test_direction_accuracy_counts_fields_within_45_degrees():
    true = torch.stack([constant(4, 0)] * 4)
    pred = torch.stack([constant(1, 0.9), constant(1, 1.1), constant(-9, 0), constant(0, 0)])
    assert direction_accuracy(pred, true) == pytest.approx(0.25)
    assert direction_accuracy(true * 0.01, true) == 1
    still = torch.zeros_like(true)
    still[0] = true[0]
    assert direction_accuracy(pred, still) == 1  # only the first has a direction, and that is met
    assert direction_accuracy(pred, torch.zeros_like(true)).isnan()


def test_followed_share_is_the_way_along_the_true_one():
    true = torch.stack([constant(4, 0)] * 3)
    pred = torch.stack([constant(2, 7), constant(-4, 0), constant(0, 0)])  # half the way and aside, back, nothing
    assert followed_share(pred, true) == pytest.approx((0.5 - 1 + 0) / 3)
    assert followed_share(true, true) == pytest.approx(1)
    assert followed_share(pred, torch.zeros_like(true)).isnan()
    pred[..., 3:] = 9.0
    assert followed_share(pred[:1], true[:1], left_half()) == pytest.approx(0.5)


def test_direction_accuracy_inside_a_mask():
    true, pred = constant(4, 0, 1), constant(-4, 0, 1)
    pred[..., :3] = constant(1, 0)[..., :3]
    assert direction_accuracy(pred, true) == 0
    assert direction_accuracy(pred, true, left_half()) == 1
    assert direction_accuracy(pred, true, torch.zeros(4, 6, dtype=torch.bool)).isnan()
