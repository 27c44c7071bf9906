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
    generators = [generator_for(0, i) for i in range(6)]
    sparse, mask = masks.draw(flow, generators, {"blocks": 1, "drags": 1})
    assert sparse.shape == flow.shape and mask.shape == (6, 3, 1, 48, 64)
    alone = masks.draw(flow[2:3], [generator_for(0, 2)], {"blocks": 1, "drags": 1})
    assert torch.equal(alone[0][0], sparse[2]) and torch.equal(alone[1][0], mask[2])
    with pytest.raises(ValueError, match="Unknown kinds of control \\['lasso'\\]"):
        masks.draw(flow, generators, {"lasso": 1})


def owners(flow: torch.Tensor) -> torch.Tensor:
    """The square of `field` is the thing 1; something thin that nobody can take hold of is the thing 2."""
    labels = (flow[2].norm(dim=0) > 0).long()
    labels[0, :10] = 2
    return labels


def told_of_the_thing(kind: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a control tells of the thing 1, and all that moves of what it tells, `(H, W)` bool."""
    flow = field(5)
    labels = owners(flow)
    sparse, mask = masks.KINDS[kind](flow, generator_for(seed), labels)
    assert torch.equal(sparse[mask.expand_as(sparse) > 0], flow[mask.expand_as(flow) > 0]), "all of it is true"
    return (mask[0, 0] > 0) & (labels == 1), sparse[2].norm(dim=0) > 0


@pytest.mark.parametrize("seed", range(10))
def test_a_thing_is_told_whole_and_a_part_in_part(seed):
    thing = owners(field(5)) == 1
    told, moving = told_of_the_thing("things", seed)
    assert torch.equal(told, thing) and torch.equal(moving, thing)
    told, moving = told_of_the_thing("parts", seed)
    assert torch.equal(told, moving) and 0 < told.sum() <= thing.sum() and not (told & ~thing).any()


def test_parts_are_of_many_sizes():
    shares = [told_of_the_thing("parts", seed)[0].sum() / 120 for seed in range(30)]
    assert min(shares) < 0.3 and max(shares) > 0.7


def test_where_there_is_no_thing_drags_are_drawn():
    flow = field(6)
    for labels in (None, torch.zeros(48, 64, dtype=torch.int64), -torch.ones(48, 64, dtype=torch.int64)):
        for kind in ("things", "parts"):
            sparse, mask = masks.KINDS[kind](flow, generator_for(2), labels)
            expected = masks.drags(flow, generator_for(2))
            assert torch.equal(sparse, expected[0]) and torch.equal(mask, expected[1])


def test_anchors_tell_of_rest_alone():
    flow = field(4)
    sparse, mask = masks.anchors(flow, generator_for(1))
    assert not sparse.any() and 0 < mask.mean() < 1
    everywhere = torch.ones(3, 2, 48, 64) * 3
    assert masks.anchors(everywhere, generator_for(1))[0].any(), "nothing is still: a drag instead"
