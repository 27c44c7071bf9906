"""The field on the photo's grid and the way back along it: exact where the answer is known."""

import numpy as np
import pytest
import torch

from mi2v_lite.flow import guided
from mi2v_lite.flow.fields import resize
from mi2v_lite.flow.guided import GuidedEnlarger
from mi2v_lite.flow.preimage import preimage

SMALL, LARGE = (24, 36), (96, 144)  # (height, width); 4 pixels a cell


def grid(size: tuple[int, int]) -> torch.Tensor:
    """(x, y) of every pixel centre, as a share of the sides: `(2, H, W)`."""
    y, x = ((torch.arange(side) + 0.5) / side for side in size)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


def affine(size: tuple[int, int]) -> torch.Tensor:
    """A turn and a zoom in pixels of `size`: one motion on any grid."""
    x, y = grid(size)
    sides = torch.tensor([size[1], size[0]]).view(2, 1, 1)
    return torch.stack([0.1 + 0.2 * x - 0.3 * y, -0.05 + 0.3 * x + 0.1 * y]) * sides


def square(size: tuple[int, int]) -> torch.Tensor:
    """bool `(H, W)`: a rectangle in the middle."""
    x, y = grid(size)
    return ((x - 0.5).abs() < 0.2) & ((y - 0.5).abs() < 0.24)


def noisy(seed: int = 0) -> np.ndarray:
    """A photo of LARGE without any region."""
    return np.random.default_rng(seed).integers(0, 256, (*LARGE, 3), dtype=np.uint8)


def two_colours() -> np.ndarray:
    """A blue thing on yellow ground, with a little grain."""
    colours = np.where(square(LARGE)[..., None], (30, 60, 200), (220, 200, 60))
    return (colours + np.random.default_rng(1).normal(0, 4, colours.shape)).clip(0, 255).astype(np.uint8)


# Equation: guided-enlargement
def test_an_affine_motion_comes_out_exactly_whatever_the_photo_shows():
    found = GuidedEnlarger(affine(SMALL)[None], noisy())(0)
    assert (found - affine(LARGE)).abs().max() < 0.05


def test_edges_of_the_motion_follow_the_photo():
    still = torch.zeros(3, 2, *SMALL)
    moves = torch.tensor([5.0, -2.0]).view(2, 1, 1)
    field = torch.where(square(SMALL), moves, still)
    true = torch.where(square(LARGE), 4 * moves, 0)
    enlarger = GuidedEnlarger(field, two_colours())
    wrong = (enlarger(2) - true).norm(dim=0) > 1
    bilinear = (resize(field, LARGE)[2] - true).norm(dim=0) > 1
    assert wrong.float().mean() < 0.1 * bilinear.float().mean()
    spread = enlarger.spread(square(SMALL).float())
    assert ((spread > 0.5) != square(LARGE)).float().mean() < 0.003


def test_noise_of_a_field_is_smoothed_within_a_thing_and_not_across_its_edge():
    noise = 0.4 * torch.randn(6, 2, *SMALL, generator=torch.Generator().manual_seed(0))
    field = torch.where(square(SMALL), torch.tensor([6.0, 0.0]).view(2, 1, 1), 0) + noise
    found = GuidedEnlarger(field, two_colours())(3)
    inside, outside = found[0][square(LARGE)], found[0][~square(LARGE)]
    assert inside.std() < 4 * 0.4 / 2 and outside.std() < 4 * 0.4 / 2
    assert abs(inside.mean() - 24) < 1 and abs(outside.mean()) < 1


def test_bands_change_nothing(monkeypatch):
    field, photo = affine(SMALL)[None] + square(SMALL) * 3, two_colours()
    whole = GuidedEnlarger(field, photo)(0)
    monkeypatch.setattr(guided, "BAND", 7 * LARGE[1])
    assert torch.equal(GuidedEnlarger(field, photo)(0), whole)


def test_any_size_of_photo_will_do():
    photo = two_colours()[:95, :141]
    found = GuidedEnlarger(affine(SMALL)[None], photo)(0)
    assert found.shape == (2, 95, 141) and (found - affine((95, 141))).abs().max() < 0.1


def test_what_is_no_field_or_photo_is_refused():
    with pytest.raises(ValueError, match=r"flow must have the shape \(N, 2, h, w\)"):
        GuidedEnlarger(torch.zeros(2, 8, 8), noisy())
    with pytest.raises(ValueError, match="photo must be uint8"):
        GuidedEnlarger(torch.zeros(1, 2, 8, 8), noisy().astype(np.float32))


def test_the_way_back_of_an_affine_motion_is_its_inverse():
    flow = affine(LARGE)
    flow = flow - flow.mean((1, 2), keepdim=True)  # it stays in the picture
    way = preimage(flow.numpy(), np.zeros(LARGE, np.float32))
    y, x = np.mgrid[: LARGE[0], : LARGE[1]].astype(np.float32)
    inside = way.seen & (way.x > 0) & (way.x < LARGE[1] - 1) & (way.y > 0) & (way.y < LARGE[0] - 1)
    points = torch.from_numpy(np.stack([way.x, way.y], -1)).reshape(1, -1, 2)
    from mi2v_lite.flow.fields import sample

    landed = points[0] + sample(flow[None], points)[0]
    off = np.hypot(*(landed.view(*LARGE, 2).numpy() - np.stack([x, y], -1)).transpose(2, 0, 1))
    assert off[inside].max() < 0.02
    assert inside[24:72, 36:108].mean() > 0.999, "a picture that grows and turns has no cracks"


def test_the_nearer_one_is_seen_and_what_it_left_is_a_hole():
    flow = np.zeros((2, *LARGE), np.float32)
    thing = square(LARGE).numpy()
    flow[0][thing] = 20
    way = preimage(flow, thing.astype(np.float32))
    y, x = np.mgrid[: LARGE[0], : LARGE[1]]
    moved = np.roll(thing, 20, axis=1)
    assert (way.x[moved] == x[moved] - 20).all() and way.seen[moved].all()
    left = thing & ~moved
    assert (way.seen & left).sum() == 0 and (way.seen & ~left).sum() > 0.97 * (~left).sum()
    assert (way.x[way.seen & ~moved] == x[way.seen & ~moved]).mean() > 0.99
    behind = preimage(flow, 1 - thing.astype(np.float32))
    assert (behind.x[moved & ~thing] == x[moved & ~thing]).mean() > 0.9, "with the order turned round it goes behind"


def test_a_standing_field_shows_every_pixel_at_its_place():
    way = preimage(np.zeros((2, *LARGE), np.float32), np.random.default_rng(0).random(LARGE, np.float32))
    y, x = np.mgrid[: LARGE[0], : LARGE[1]]
    assert way.seen.all() and (way.x == x).all() and (way.y == y).all()


def test_the_way_back_is_the_same_in_bands(monkeypatch):
    flow, order = (affine(LARGE) + 15 * square(LARGE)).numpy(), square(LARGE).numpy().astype(np.float32)
    whole = preimage(flow, order)
    monkeypatch.setattr("mi2v_lite.flow.preimage.BAND", 5 * LARGE[1])
    for a, b in zip(preimage(flow, order), whole, strict=True):
        assert np.array_equal(a, b)


def test_what_is_stretched_beyond_its_pixels_is_not_drawn():
    y, x = np.mgrid[: LARGE[0], : LARGE[1]].astype(np.float32)
    flow = np.stack([3 * (x - 72), 3 * (y - 48)])  # four times as large
    assert not preimage(flow, np.zeros(LARGE, np.float32)).seen.any()
