"""Floor 3: the pipelines that users call. Import it before `from_pretrained`: diffusers then finds our classes."""

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
