"""What makes the full-size networks faster on a CPU in bfloat16, without changing what they compute.

A CPU is fast where its work fits into the cache and uses the same memory again: tensors above 32 MiB get new pages from
the system each time, and the first feed-forward widens its features to 80 MiB. `tools.benchmark --what speed` measures.
"""

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from einops import rearrange
from torch import Tensor

FEATURES = 3 * 2**19  # numbers in a slice of the features, which a feed-forward widens to 24 MiB
SCORES = 2**21  # attention scores at a time, which take 4 MiB
LONG = 128  # keys from which PyTorch's softmax is faster in bfloat16 than in float32


def applies(x: Tensor) -> bool:
    """Whether x is in bfloat16 on a CPU, and neither training nor a compiler is at work, which have their own ways."""
    free = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return free and x.device.type == "cpu" and x.dtype == torch.bfloat16


def slices(x: Tensor, dim: int, size: int | None) -> list[slice]:
    """Slices that together cover a dimension of the features.

    Where this file applies, they are small enough that what a feed-forward makes of them fits into the cache.

    Args:
        x: the features.
        dim: the dimension.
        size: the length of a slice; by default as said where this file `applies`, and elsewhere the whole dimension.
    """
    count = -(-x.numel() // FEATURES) if applies(x) else 1
    size = size or -(-x.shape[dim] // count)
    return [slice(start, start + size) for start in range(0, x.shape[dim], size)]


class CacheAttention(AttnProcessor2_0):
    """Attention by `attend` where this file `applies`, and elsewhere by the fused kernel, as in diffusers."""

    def __call__(self, attn: Attention, z: Tensor, encoder_hidden_states: Tensor | None = None, *args, **kwargs):
        """Attend from z `(B, n, C)` to the context `(B, m, D)`, which is z itself by default; returns `(B, n, C)`."""
        if not applies(z):
            return super().__call__(attn, z, encoder_hidden_states, *args, **kwargs)
        context = z if encoder_hidden_states is None else encoder_hidden_states
        # Frames that read one and the same text (a stride of 0) have its keys and values computed once.
        items = context[:1] if context.stride(0) == 0 else context
        projected = attn.to_q(z), *(to(items).expand(len(z), -1, -1) for to in (attn.to_k, attn.to_v))
        out = attend(*(rearrange(x, "b n (h d) -> (b h) n d", h=attn.heads) for x in projected))
        return attn.to_out[0](rearrange(out, "(b h) n d -> b n (h d)", h=attn.heads))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, with q `(heads, n, d)`, k and v `(heads, m, d)`; returns `(heads, n, d)`.

    It takes as many heads at a time as keep their scores in the cache. At 1024 positions that is twice as fast as the
    fused kernel, whose small products are slow without AMX. The scores are rounded, as they are without any kernel.
    """
    heads, scale = max(1, SCORES // (q.shape[1] * k.shape[1])), q.shape[-1] ** -0.5
    precision = q.dtype if k.shape[1] >= LONG else torch.float32
    outputs = []
    for queries, keys, values in zip(q.split(heads), k.split(heads), v.split(heads), strict=True):
        scores = torch.baddbmm(q.new_empty(1, 1, 1), queries, keys.transpose(1, 2), beta=0, alpha=scale)
        outputs.append(torch.bmm(scores.softmax(-1, dtype=precision).to(q.dtype), values))
    return torch.cat(outputs)
