"""The controls that the ControlNet is trained on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mi2v_lite.training import masks
from mi2v_lite.training.draws import generator_for


def field(seed: int, height: int = 48, width: int = 64) -> torch.Tensor:
    """Three frames in which a square moves on a still ground."""
    flow = torch.zeros(3, 2, height, width)
    speed = torch.randn(2, generator=generator_for(seed)) * 5 + 2
    flow[:, :, 10:20, 12:24] = speed.view(1, 2, 1, 1) * torch.arange(1, 4).view(3, 1, 1, 1)
    return flow


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from(sorted(masks.KINDS)))
def test_known_is_masked_and_the_rest_is_zero(seed, kind):
    flow = field(seed)
    sparse, mask = masks.KINDS[kind](flow, generator_for(seed, 1))
    assert sparse.shape == flow.shape and mask.shape == (3, 1, 48, 64)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert (mask == mask[:1]).all(), "the same places in all frames"
    assert (sparse * (1 - mask) == 0).all()
    again, _ = masks.KINDS[kind](flow, generator_for(seed, 1))
    assert torch.equal(again, sparse)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000))
def test_blocks_are_true_and_on_the_grid(seed):
    flow = field(seed)
    sparse, mask = masks.blocks(flow, generator_for(seed))
    assert torch.equal(sparse, flow * mask)
    cells = mask[0, 0].unfold(0, 8, 8).unfold(1, 8, 8).flatten(2)
    assert (cells == cells[..., :1]).all()
    assert mask.mean() < 0.75


def test_drags_move_as_their_centre_does():
    flow = field(3)
    for seed in range(20):
        sparse, mask = masks.drags(flow, generator_for(seed))
        assert mask.sum() > 0
        moves = {tuple(v) for v in sparse.movedim(1, -1)[2].reshape(-1, 2).tolist()}
        assert moves <= {(0.0, 0.0), tuple(flow[2, :, 15, 15].tolist())}, "no vector that is not in the flow"


def test_a_square_that_laps_over_the_edge_tells_the_truth_on_the_thing_alone():
    flow = field(3)
    true = flow[:, :, 15, 15]
    sparse, mask = torch.zeros_like(flow), torch.zeros(3, 1, 48, 64)
    sparse[:, :, 8:24, 8:24], mask[:, :, 8:24, 8:24] = true[:, :, None, None], 1
    told = masks.told(flow[None], sparse[None], mask[None], (6, 8))
    assert told.shape == (1, 3, 1, 6, 8)
    assert true[2].norm() > 2 * masks.CLOSE, "or the square would be nearly right everywhere"
    of_the_thing = (flow.norm(dim=1, keepdim=True) > 0).float()
    assert torch.equal(told[0, 2], torch.nn.functional.avg_pool2d((of_the_thing * mask)[2], 8))
    sparse, mask = masks.brush(flow, generator_for(0))
    assert torch.equal(masks.told(flow[None], sparse[None], mask[None], (48, 64))[0], mask), "still is still"


def test_brush_holds_what_is_still():
    flow = field(4)
    sparse, mask = masks.brush(flow, generator_for(0))
    assert (sparse == 0).all() and 0 < mask.mean() < 1
    assert (flow * mask).abs().max() < masks.STILL
    everywhere = torch.ones(3, 2, 48, 64) * 3
    sparse, mask = masks.brush(everywhere, generator_for(0))
    assert (sparse * mask).abs().max() == 3, "nothing is still: a drag instead"


def test_draw_mixes_kinds_and_refuses_unknown_ones():
    flow = torch.stack([field(seed) for seed in range(6)])
    sparse, mask = masks.draw(flow, generator_for(0), {"blocks": 1, "drags": 1})
    assert sparse.shape == flow.shape and mask.shape == (6, 3, 1, 48, 64)
    with pytest.raises(ValueError, match="Unknown kinds of control \\['lasso'\\]"):
        masks.draw(flow, generator_for(0), {"lasso": 1})
