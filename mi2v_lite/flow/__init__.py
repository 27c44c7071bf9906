"""Motion fields: their conventions, warps, files and measures, and how they are estimated from a clip."""

from . import metrics
from .fields import compose, denormalise, from_unit, invert, normalise, resize, sample, to_unit
from .files import read_flow, write_flow
from .warp import SplatOperator, backward_warp, splat_average, splat_softmax

__all__ = [
    "SplatOperator",
    "backward_warp",
    "compose",
    "denormalise",
    "from_unit",
    "invert",
    "metrics",
    "normalise",
    "read_flow",
    "resize",
    "sample",
    "splat_average",
    "splat_softmax",
    "to_unit",
    "write_flow",
]
