"""mi2v_lite: Motion-I2V end to end. A photo and a motion field become a clip.

The two names that most users need stand here and are loaded at first use, so that `import mi2v_lite` stays fast
(no torch): `MotionI2VPipeline` (both stages) and `MotionControl` (drags, anchors, brush).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mi2v_lite.control import MotionControl
    from mi2v_lite.pipelines.motion_i2v import MotionI2VPipeline

__version__ = "0.1.0"
__all__ = ["MotionControl", "MotionI2VPipeline", "__version__"]

_HOMES = {"MotionControl": "mi2v_lite.control", "MotionI2VPipeline": "mi2v_lite.pipelines.motion_i2v"}


def __getattr__(name: str) -> Any:
    """Import one of the exported names at its first use (PEP 562); keep it, so that this runs once a name."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mi2v_lite' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
