"""What is faster on a CPU in bfloat16 computes what the fused kernel and whole tensors do, to within the rounding."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from test_memory import widened

from mi2v_lite.models import cpu

BF16 = torch.bfloat16


def error(output: torch.Tensor, exact: torch.Tensor) -> float:
    """The relative error of an output."""
    return ((output.float() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("queries, keys", [(16, 31), (64, 77), (130, 130)])
@pytest.mark.parametrize("scores", [2**21, 20_000])
@torch.no_grad()
def test_attention_is_as_exact_as_the_fused_kernel(monkeypatch, queries, keys, scores):
    monkeypatch.setattr(cpu, "SCORES", scores)
    torch.manual_seed(0)
    attention = Attention(query_dim=24, cross_attention_dim=16, heads=3, dim_head=8)
    attention.to_q.weight *= 20  # scores of up to about 10, as trained networks have
    attention.to(BF16)
    z, context = torch.randn(2, queries, 24).to(BF16), torch.randn(2, keys, 16).to(BF16)
    fused, ours = AttnProcessor2_0(), cpu.CacheAttention()
    errors = [error(run(attention, z, context), fused(attention.float(), z.float(), context.float()))
              for run in (fused, ours) if attention.to(BF16)]  # fmt: skip
    assert errors[1] < 2 * errors[0], "scores that are rounded before the softmax cost less than another rounding"
    expanded = context[:1].expand(2, -1, -1)
    torch.testing.assert_close(ours(attention.to(BF16), z, expanded), ours(attention, z, expanded.contiguous()))
    attention.float()
    assert torch.equal(ours(attention, z.float(), context.float()), fused(attention, z.float(), context.float()))


@pytest.mark.parametrize("fusion", ["attention", "none"])
def test_slices_that_fit_into_the_cache_are_as_exact_as_whole_tensors(monkeypatch, fusion):
    unet, given = widened(fusion)
    with torch.no_grad():
        exact = unet(**given)
    unet.to(BF16)
    given |= {name: given[name].to(BF16) for name in ("sample", "encoder_hidden_states")}
    errors = {}
    for name, applies, numbers in (("whole", False, 1), ("slices", True, 2000)):
        monkeypatch.setattr(cpu, "FEATURES", numbers)
        if not applies:
            monkeypatch.setattr(cpu, "applies", lambda x: False)
        with torch.no_grad():
            errors[name] = error(unet(**given), exact)
        monkeypatch.undo()
    assert errors["slices"] < 1.2 * errors["whole"]


def test_only_sampling_on_a_cpu_in_bfloat16_is_sliced():
    x = torch.zeros(4, 64, cpu.FEATURES // 64, dtype=BF16)
    with torch.no_grad():
        assert [part.stop for part in cpu.slices(x, 1, None)] == [16, 32, 48, 64]
        assert cpu.slices(x, 0, 3) == [slice(0, 3), slice(3, 6)]
        assert cpu.slices(x.float(), 1, None) == cpu.slices(x.to("meta"), 1, None) == [slice(0, 64)]
    assert cpu.slices(x, 1, None) == [slice(0, 64)], "training keeps the fused kernel's memory"
