"""The pipelines that users call. Importing this package also makes its classes known to `from_pretrained`."""

from mi2v_lite.pipelines.animation import AnimationOutput, AnimationPipeline
from mi2v_lite.pipelines.motion_field import MotionFieldOutput, MotionFieldPipeline
from mi2v_lite.pipelines.motion_i2v import MotionI2VOutput, MotionI2VPipeline

__all__ = [
    "AnimationOutput",
    "AnimationPipeline",
    "MotionFieldOutput",
    "MotionFieldPipeline",
    "MotionI2VOutput",
    "MotionI2VPipeline",
]
