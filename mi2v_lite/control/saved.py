"""A motion control as JSON text.

Version 1 has drags, anchors and a brush; version 2 adds things. A mask is a PNG of one bit a pixel in base64, where
white means True.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mi2v_lite.control.parts import Anchor, Drag
from mi2v_lite.control.things import Thing

if TYPE_CHECKING:
    from mi2v_lite.control.motion_control import MotionControl

FORMAT = "mi2v-motion-control"
VERSION = 2


def to_json(control: MotionControl) -> str:
    """The control as JSON text, with points as [x, y].

    Args:
        control: the control.

    Returns:
        The text.
    """
    data = {
        "format": FORMAT,
        "version": VERSION,
        "size": list(control.size),
        "drags": _drags_to_data(control.drags),
        "anchors": [{"point": list(a.point), "radius": a.radius} for a in control.anchors],
        "brush": None if control.brush is None else _mask_to_data(control.brush),
        "things": [{"mask": _mask_to_data(t.mask), "drags": _drags_to_data(t.drags)} for t in control.things],
    }
    return json.dumps(data, indent=1, allow_nan=False)


def read_json(text: str) -> dict[str, Any]:
    """Read what `to_json` wrote, or an older version of this package.

    Args:
        text: the JSON text.

    Returns:
        The arguments of `MotionControl`.

    Raises:
        ValueError: which names the part that is missing or wrong.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the motion control is not valid JSON ({error}); write it with to_json().") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f'the JSON is not a motion control: "format" must be "{FORMAT}"; write it with to_json().')
    if data.get("version") not in range(1, VERSION + 1):
        raise ValueError(
            f"the motion control has version {data.get('version')!r}, but this version of the package reads 1 to "
            f"{VERSION}; use a newer package, or save the control again with this one."
        )
    try:
        return {
            "size": data["size"],
            "drags": _drags_from_data(data.get("drags", [])),
            "anchors": [Anchor(anchor["point"], anchor.get("radius")) for anchor in data.get("anchors", [])],
            "brush": None if data.get("brush") is None else _mask_from_data(data["brush"], "brush"),
            "things": [
                Thing(_mask_from_data(thing["mask"], "mask of a thing"), _drags_from_data(thing.get("drags", [])))
                for thing in data.get("things", [])
            ],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the motion control's JSON lacks a part or has one of the wrong type: {error!r}.") from error


def _drags_to_data(drags: Sequence[Drag]) -> list[dict[str, Any]]:
    return [{"points": [list(point) for point in drag.points], "radius": drag.radius} for drag in drags]


def _drags_from_data(drags: list[dict[str, Any]]) -> list[Drag]:
    return [Drag(drag["points"], drag.get("radius")) for drag in drags]


def _mask_to_data(mask: np.ndarray) -> dict[str, str]:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    return {"encoding": "png-base64", "data": base64.b64encode(buffer.getvalue()).decode("ascii")}


def _mask_from_data(mask: dict[str, str], what: str) -> np.ndarray:
    if mask.get("encoding") != "png-base64":
        raise ValueError(f"{what} encoding {mask.get('encoding')!r} is not 'png-base64'; write it with to_json().")
    try:
        with Image.open(io.BytesIO(base64.b64decode(mask["data"], validate=True)), formats=["PNG"]) as image:
            return np.array(image.convert("L")) > 127
    except (ValueError, OSError, SyntaxError) as error:
        raise ValueError(f"the {what} of the motion control is not a readable PNG ({error}); save it again.") from error
