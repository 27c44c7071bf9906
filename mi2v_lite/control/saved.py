"""A motion control as JSON text.

Version 1 has drags, anchors and a brush; version 2 adds things. A mask is a PNG of one bit a pixel in base64, where
white means True.
"""

from __future__ import annotations

import base64
import io
import json
import reprlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from mi2v_lite.control.parts import Anchor, Drag, checked_size
from mi2v_lite.control.things import Thing
from mi2v_lite.io.files import TooLarge

if TYPE_CHECKING:
    from mi2v_lite.control.motion_control import MotionControl

FORMAT = "mi2v-motion-control"
VERSION = 2
LARGEST_MASK = 2**24  # pixels of a mask that does not have the size of the image, to say how large it is
LARGEST_MASKS = 2**30  # pixels of all masks together: 22 of a photo of 8000x6000
LARGEST_CONTROL = 2**26  # bytes of the text; noise as a mask takes the most, a sixth of a byte a pixel


def to_json(control: MotionControl) -> str:
    """The control as JSON text, with points as [x, y].

    Args:
        control: the control.

    Returns:
        The text.

    Raises:
        ValueError: if it has more masks than `read_json` reads.
        TooLarge: if the text has more than `LARGEST_CONTROL` bytes.
    """
    _check_masks(control.size, len(control.things) + (control.brush is not None))
    data = {
        "format": FORMAT,
        "version": VERSION,
        "size": list(control.size),
        "drags": _drags_to_data(control.drags),
        "anchors": [{"point": list(a.point), "radius": a.radius} for a in control.anchors],
        "brush": None if control.brush is None else _mask_to_data(control.brush),
        "things": [{"mask": _mask_to_data(t.mask), "drags": _drags_to_data(t.drags)} for t in control.things],
    }
    text = json.dumps(data, indent=1, allow_nan=False)  # in ASCII
    if len(text) > LARGEST_CONTROL:
        raise TooLarge(f"the motion control has {len(text):,} bytes, and at most {LARGEST_CONTROL:,} are read.")
    return text


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
        data = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the motion control is not valid JSON ({error}); write it with to_json().") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f'the JSON is not a motion control: "format" must be "{FORMAT}"; write it with to_json().')
    version = data.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ValueError(
            f"the motion control has version {version!r}, but this version of the package reads 1 to {VERSION}; use a "
            "newer package, or save the control again with this one."
        )
    known = ("drags", "anchors", "brush", *(("things",) if version > 1 else ()))
    data = _entry(data, "the motion control", ("format", "version", "size"), known)
    size = checked_size(data["size"])
    things = _entries(data.get("things", []), "things", ("mask",), ("drags",))
    _check_masks(size, len(things) + (data.get("brush") is not None))
    return {
        "size": size,
        "drags": _drags_from_data(data.get("drags", [])),
        "anchors": [
            Anchor(anchor["point"], anchor.get("radius"))
            for anchor in _entries(data.get("anchors", []), "anchors", ("point",), ("radius",))
        ],
        "brush": None if data.get("brush") is None else _mask_from_data(data["brush"], "brush", size),
        "things": [
            Thing(
                _mask_from_data(thing["mask"], "mask of a thing", size),
                _drags_from_data(thing.get("drags", [])),
            )
            for thing in things
        ],
    }


def _check_masks(size: tuple[int, int], count: int) -> None:
    """Raises ValueError if so many masks of a size have more pixels than are read."""
    if count and size[0] * size[1] > LARGEST_MASKS // count:
        raise ValueError(
            f"the motion control has {count} masks of {size[0]}x{size[1]} pixels, and at most {LARGEST_MASKS:,} pixels "
            "are read; take fewer things, or a smaller picture."
        )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping; raises ValueError if it has a key twice, of which JSON would silently keep the last."""
    data: dict[str, Any] = {}
    for key, value in pairs:
        if key in data:
            raise ValueError(f"the key {_shown(key)} is given twice")
        data[key] = value
    return data


def _entry(data: Any, what: str, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping itself; raises ValueError if it is none, lacks a key, or has an unknown one."""
    if not isinstance(data, dict):
        raise ValueError(
            f"{what} has the wrong type: expected an object with {' and '.join(required)}, got {_shown(data)}."
        )
    if lacking := [key for key in required if key not in data]:
        raise ValueError(f"{what} lacks {lacking[0]!r}; write it with to_json().")
    if unknown := [key for key in data if key not in (*required, *optional)]:
        raise ValueError(
            f"{what} has the unknown key {_shown(unknown[0])}; known are {', '.join((*required, *optional))}."
        )
    return data


def _entries(data: Any, what: str, required: Sequence[str], optional: Sequence[str]) -> list[dict[str, Any]]:
    """A list of mappings, each checked by `_entry`."""
    if not isinstance(data, list):
        raise ValueError(f"{what} has the wrong type: expected a list, got {_shown(data)}.")
    return [_entry(item, f"number {number} of {what}", required, optional) for number, item in enumerate(data, start=1)]


def _shown(value: Any) -> str:
    return reprlib.repr(value)


def _drags_to_data(drags: Sequence[Drag]) -> list[dict[str, Any]]:
    return [{"points": [list(point) for point in drag.points], "radius": drag.radius} for drag in drags]


def _drags_from_data(drags: Any) -> list[Drag]:
    found = []
    for number, drag in enumerate(_entries(drags, "drags", ("points",), ("radius",)), start=1):
        if not isinstance(drag["points"], list):
            raise ValueError(f"the points of drag {number} must be a list of [x, y], got {_shown(drag['points'])}.")
        found.append(Drag(drag["points"], drag.get("radius")))
    return found


def _mask_to_data(mask: np.ndarray) -> dict[str, str]:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    return {"encoding": "png-base64", "data": base64.b64encode(buffer.getvalue()).decode("ascii")}


def _mask_from_data(mask: Any, what: str, size: tuple[int, int]) -> np.ndarray:
    encoding = mask.get("encoding") if isinstance(mask, dict) else None
    if isinstance(mask, dict) and encoding != "png-base64":
        raise ValueError(f"{what} encoding {_shown(encoding)} is not 'png-base64'; write it with to_json().")
    data = _entry(mask, f"the {what}", ("encoding", "data"))["data"]
    try:
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=["PNG"]) as image:
            if image.size != size and image.width * image.height > LARGEST_MASK:
                raise ValueError(f"it has {image.width}x{image.height} px")
            return np.array(image.convert("L")) > 127
    except UnidentifiedImageError as error:
        raise ValueError(f"the {what} of the motion control is not a readable PNG; save it again.") from error
    except (ValueError, TypeError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the {what} of the motion control is not a readable PNG ({error}); save it again.") from error
