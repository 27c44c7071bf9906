"""What a person asks to move, and how this becomes the condition of the ControlNet (notebook 04).

A person draws drags and anchors (`parts`), takes hold of things (`things`, found by `select`), and paints a brush. A
`MotionControl` holds all of it and draws it as a sparse motion field with a mask, which `condition` encodes for the
trajectory ControlNet (Motion-I2V, section 3.4). `official_field` draws exactly what the release does.
"""

from mi2v_lite.control.encoding import condition
from mi2v_lite.control.motion_control import (
    DEFAULT_RADIUS_SHARE,
    SMALLEST_DEFAULT_RADIUS,
    MotionControl,
    default_radius_of,
)
from mi2v_lite.control.official import official_field
from mi2v_lite.control.parts import Anchor, Drag, Point, resample
from mi2v_lite.control.saved import FORMAT, VERSION
from mi2v_lite.control.select import select_thing
from mi2v_lite.control.things import Thing, displacements

__all__ = [
    "Anchor",
    "DEFAULT_RADIUS_SHARE",
    "Drag",
    "FORMAT",
    "MotionControl",
    "Point",
    "SMALLEST_DEFAULT_RADIUS",
    "Thing",
    "VERSION",
    "condition",
    "default_radius_of",
    "displacements",
    "official_field",
    "resample",
    "select_thing",
]
