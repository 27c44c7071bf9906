"""A start for motion modules that are trained from nothing: each begins by handing on the warped feature.

The paper's motion modules start from AnimateDiff's, which have learned to look along time. Fresh ones would first have
to find, among 2F - 1 keys, the one that matters. Here frame i's query begins by looking for the position code of z'[i],
which is one step before its own, and the values pass through unchanged. It is a start, not a constraint: everything in
it is trained on.
"""

import math

import torch
from torch import Tensor, nn

from mi2v_lite.models.temporal import TemporalAttention, TemporalTransformer

SHARPNESS = 4.0  # by how much the wanted key's score begins above its neighbours'


@torch.no_grad()
def start_warped(model: nn.Module) -> None:
    """Sets every motion module of a Stage 2 UNet so that frame i begins by copying z'[i]. In place.

    Args:
        model: holds temporal transformers with ``fusion="attention"``; their other parts keep their random start.

    Raises:
        ValueError: it holds none, or others beside them.
    """
    found = [module for module in model.modules() if isinstance(module, TemporalTransformer)]
    if not found or any(
        block.attention_blocks[0].fusion != "attention" for m in found for block in m.transformer_blocks
    ):
        raise ValueError("start 'warped' needs motion modules with fusion 'attention': set it, or another start")
    for module in (module for module in model.modules() if isinstance(module, TemporalTransformer)):
        nn.init.eye_(module.proj_in.weight)
        nn.init.zeros_(module.proj_in.bias)
        nn.init.eye_(module.proj_out.weight)
        for block in module.transformer_blocks:
            first, *others = block.attention_blocks
            _look_one_step_back(first, block.norms[0])
            for attention in others:  # at first these shall not blur what the first one brought
                attention.to_out[0].weight.mul_(0.1)


def _look_one_step_back(attention: TemporalAttention, norm: nn.LayerNorm) -> None:
    channels, heads = attention.to_q.in_features, attention.heads
    width = channels // heads
    angles = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / channels))  # of the fastest position codes
    contrast = float((1 - angles.cos()).sum())  # of the scores of neighbouring positions, at scale 1
    scale = math.sqrt(SHARPNESS * math.sqrt(width) / contrast)
    norm.weight[:width] = 0  # these channels begin with nothing but the position in them
    query, key = torch.zeros(width, channels), torch.zeros(width, channels)
    key[:, :width] = torch.eye(width) * scale
    query[:, :width] = torch.block_diag(*(_turn(float(angle)) for angle in angles)) * scale
    attention.to_q.weight.copy_(query.repeat(heads, 1))
    attention.to_k.weight.copy_(key.repeat(heads, 1))
    nn.init.eye_(attention.to_v.weight)
    nn.init.eye_(attention.to_out[0].weight)


def _turn(angle: float) -> Tensor:
    """Takes (sin wp, cos wp) to (sin w(p - 1), cos w(p - 1)) for w = angle."""
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
