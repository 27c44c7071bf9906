"""What Stage 2 has for a training from nothing: the offset code, warping in pieces, modules that begin by copying."""

import pytest
import torch

from mi2v_lite.flow.splat_cache import SplatCache
from mi2v_lite.flow.warp import travelled
from mi2v_lite.models.fusion import FUSIONS, most_frames
from mi2v_lite.models.temporal import OffsetCode, PieceWarp, TemporalAttention
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.training.starts import start_warped
from mi2v_lite.viz.attention import record


def shifted(x: float, y: float = 0.0, frames: int = 3, side: int = 8) -> SplatCache:
    """Everything moves by (x, y) feature pixels."""
    return SplatCache(torch.tensor([x, y]).view(1, 1, 2, 1, 1).expand(1, frames, 2, side, side).contiguous())


def test_how_far_the_landed_features_have_come():
    moved, valid = shifted(1.25, -0.5).at((8, 8), travelled)
    assert moved.shape == (1, 3, 2, 8, 8) and valid.shape == (1, 3, 1, 8, 8)
    landed = valid.expand_as(moved)
    assert not valid.all() and valid.any()
    torch.testing.assert_close(moved[:, :, 0][valid[:, :, 0]], torch.full((int(valid.sum()),), 1.25))
    torch.testing.assert_close(moved[:, :, 1][valid[:, :, 0]], torch.full((int(valid.sum()),), -0.5))
    assert (moved[~landed] == 0).all()
    half, _ = shifted(1.25, -0.5).at((4, 4), travelled)  # a coarser grid has larger places
    assert half.abs().max() == pytest.approx(0.625)


@torch.no_grad()
def test_the_code_tells_fractions_and_is_zero_in_holes():
    torch.manual_seed(0)
    code = OffsetCode(16)
    quarter, same, half = (code(shifted(x), (8, 8)) for x in (0.25, 0.25, 0.5))
    assert quarter.shape == (1, 3, 64, 16)
    assert torch.equal(quarter, same) and (quarter - half).abs().max() > 0.1
    far = code(shifted(5.0), (8, 8)).unflatten(2, (8, 8))
    assert (far[:, :, :, :5] == 0).all() and (far[:, :, :, 5:] != 0).any()


@torch.no_grad()
def test_the_code_is_added_to_the_warped_features_alone():
    torch.manual_seed(0)
    layer = TemporalAttention(16, 2, 32, fusion="attention", offset_code=True)
    z, motion = torch.randn(4, 64, 16), shifted(0.5)
    own, context = layer.entries(z, 4, (8, 8), motion)
    code, layer.offset_code = layer.offset_code, None
    own_without, without = layer.entries(z, 4, (8, 8), motion)
    torch.testing.assert_close(own, own_without)
    torch.testing.assert_close(context[:, ::2], without[:, ::2])
    difference = (context - without)[:, 1::2]  # (h*w, N, C)
    torch.testing.assert_close(difference, code(motion, (8, 8))[0].transpose(0, 1), atol=1e-6, rtol=1e-5)
    layer.offset_code = code
    both = layer(torch.cat([z, z]), 4, (8, 8), motion)  # the two guidance halves share one field
    torch.testing.assert_close(both[:4], layer(z, 4, (8, 8), motion))
    torch.testing.assert_close(both[4:], both[:4])


def by_identity(channels: int, pieces: int) -> PieceWarp:
    """A piece warp whose two maps only reorder: each channel of a feature is one piece of it."""
    warp = PieceWarp(channels, pieces)
    with torch.no_grad():
        warp.spread.weight.copy_(torch.eye(channels))
        warp.spread.bias.zero_()
        warp.gather.weight.copy_(torch.eye(channels))
    return warp


@torch.no_grad()
def test_pieces_move_by_themselves():
    torch.manual_seed(0)
    fine = torch.randn(2, 1, 16, 16)  # a picture whose 2x2 blocks are features of an 8x8 grid
    features = torch.nn.functional.pixel_unshuffle(fine, 2)
    moved = by_identity(4, 2)(features, shifted(1.5, frames=3))  # half a feature pixel, which is a whole piece
    moved = moved.transpose(2, 3).unflatten(3, (8, 8)).flatten(0, 1)  # (B*N, 4, 8, 8)
    picture = torch.nn.functional.pixel_shuffle(moved, 2).unflatten(0, (2, 3))
    for frame in range(3):
        torch.testing.assert_close(picture[:, frame, :, :, 3:], fine[..., :-3], atol=1e-5, rtol=1e-5)
    assert (picture[..., :3] == 0).all()  # nothing lands there


def test_a_fresh_piece_warp_changes_nothing_and_learns():
    z, motion = torch.randn(4, 64, 16), shifted(1.5)
    torch.manual_seed(0)
    layer = TemporalAttention(16, 2, 32, fusion="attention", warp_pieces=4)
    out = layer(z, 4, (8, 8), motion)
    out.sum().backward()
    assert layer.piece_warp.gather.weight.grad.abs().sum() > 0
    assert layer.piece_warp.spread.weight.shape == (16, 16)  # 16 pieces of one number
    pieces, layer.piece_warp = layer.piece_warp, None
    torch.testing.assert_close(layer(z, 4, (8, 8), motion), out)
    layer.piece_warp = pieces
    torch.nn.init.normal_(pieces.gather.weight)
    changed = layer(z, 4, (8, 8), motion)
    assert (changed - out).abs().mean() > 1e-2
    both = layer(torch.cat([z, z]), 4, (8, 8), motion)  # the two guidance halves share one field
    torch.testing.assert_close(both, torch.cat([changed, changed]))


def unet(**settings) -> VideoUNet:
    torch.manual_seed(0)
    common = {"cross_attention_dim": 8, "motion_num_attention_heads": 4, "norm_num_groups": 16}
    return VideoUNet(4, 4, (64, 64), 1, (False, True), 2, **{**common, "fusion": "attention", **settings}).eval()


@torch.no_grad()
def test_warped_start_looks_at_the_warped_feature():
    model = unet(offset_code=True)
    start_warped(model)
    inputs = (torch.randn(1, 4, 4, 8, 8), 500, torch.zeros(1, 2, 8))
    with record(model) as seen:
        output = model(*inputs, flow=shifted(2.0))
    assert output.isfinite().all()
    first = [name for name in seen.names if name.endswith("attention_blocks.0")]
    assert len(first) == 7
    for name in first:
        weights = seen.call(name, 0).weights()[1:]  # (N, heads, h, w, M)
        wanted = torch.stack([weights[i, ..., 2 * i + 1] for i in range(3)])
        assert wanted.mean() > 0.6, f"{name}: {wanted.mean()}"
    changed = model(*inputs, flow=shifted(-2.0))
    assert (changed - output)[:, :, 1:].abs().mean() > 0.1 * output.abs().mean()  # and what it brings is used


@pytest.mark.parametrize("settings", [{"fusion": "none"}, {"fusion": "addition"}, {"motion_modules": False}])
def test_warped_start_needs_attention(settings):
    with pytest.raises(ValueError, match="fusion"):
        start_warped(unet(**settings))


def test_gradients_reach_the_reference_unless_detached():
    z, motion = torch.randn(4, 64, 16), shifted(2.0)
    for detach in (True, False):
        torch.manual_seed(0)
        layer = TemporalAttention(16, 2, 32, fusion="attention", detach_reference=detach)
        x = z.clone().requires_grad_()
        out = layer(x, 4, (8, 8), motion).unflatten(1, (8, 8))
        (gradient,) = torch.autograd.grad(out[3, 4, 5].sum(), x)
        assert bool(gradient.unflatten(1, (8, 8))[0, 4, 3].abs().sum() > 0) is not detach  # 2 to the left, in the photo


@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion_says_where_the_frames_own_entries_are(name):
    frames, warped = torch.randn(2, 4, 5, 8), torch.randn(2, 3, 5, 8)
    context, own = FUSIONS[name](frames, warped)
    assert context.shape == (2, {"attention": 7}.get(name, 4), 5, 8)
    later = frames[:, 1:] + warped if name == "addition" else frames[:, 1:]
    assert torch.equal(context[:, own], torch.cat([frames[:, :1], later], dim=1))
    assert most_frames(name, 32) == {"attention": 16}.get(name, 32)
    assert most_frames(name, 31) == {"attention": 16}.get(name, 31)


def test_the_cache_computes_once_for_each_size_and_function():
    sizes = []

    def compute(flow):
        sizes.append(tuple(flow.shape[-2:]))
        return flow.sum()

    motion = shifted(1.0)
    assert motion.at((8, 8), compute) is motion.at((8, 8), compute)
    motion.at((4, 4), compute)
    motion.at((4, 4), travelled)
    assert sizes == [(8, 8), (4, 4)]
